//! The help of the settings names what they are when they are not given.

use super::*;

fn founder() -> Settings {
    let cluster = Some(vec!["http://127.0.0.1:12379".to_owned()]);
    Settings { id: Some(1), cluster, ..Settings::default() }
}

/// The defaults are not clap's, because a file may set what a flag does not; so the help is written
/// by hand.
#[test]
fn the_help_names_every_default() {
    use clap::CommandFactory;
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }
    let defaults = founder().resolve().unwrap();
    let config = &defaults.config;
    let mib = |bytes: u64| (bytes >> 20).to_string();
    let ticks = |ticks: u32| (TICK * ticks).as_millis().to_string();
    let told = [
        ("port", DEFAULT_PORT.to_string()),
        ("election-ms", ticks(config.election_ticks.0)),
        ("snapshot-every", config.snapshot_every.to_string()),
        ("keep-entries", config.keep_entries.to_string()),
        ("segment-mib", mib(config.segment_bytes)),
        ("snapshot-rate-mib", mib(defaults.snapshot_rate)),
        ("max-connections", defaults.max_connections.to_string()),
    ];
    // Without these there is no node, or they come with another one.
    let needed = ["id", "cluster", "peer-cert", "peer-key", "key"];
    let command = Cli::command();
    for argument in command.get_arguments() {
        let Some(flag) = argument.get_long().filter(|flag| !needed.contains(flag)) else {
            continue;
        };
        let help = argument.get_help().unwrap().to_string();
        assert!(help.contains("[default: "), "--{flag}: {help}");
        if let Some((_, value)) = told.iter().find(|(name, _)| *name == flag) {
            assert!(help.contains(&format!("[default: {value}]")), "--{flag}: {help}");
        }
    }
    assert_eq!(config.heartbeat_ticks, config.election_ticks.0 / 5);
    let beyond = config.reserve_bytes - 2 * config.segment_bytes;
    assert_eq!(beyond >> 20, 16, "--reserve-mib");
}
