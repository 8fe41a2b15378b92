//! The load over TLS, with a token, against a whole node.

use std::path::PathBuf;

use clap::Parser;
use stormkv::tcp::Server;
use stormkv::tcp::certs::generate;
use stormkv::tcp::options::Settings;
use stormkv::types::NodeId;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Dir {
    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }
}

async fn node(dir: &Dir) -> Server {
    use std::os::unix::fs::PermissionsExt;
    generate(&dir.0, &[NodeId(1)], &["127.0.0.1".to_owned()], &["alice".to_owned()]).unwrap();
    let tokens = dir.file("tokens");
    std::fs::write(&tokens, "client secret\n").unwrap();
    std::fs::set_permissions(&tokens, PermissionsExt::from_mode(0o600)).unwrap();
    let settings = Settings {
        id: Some(1),
        cluster: Some(vec!["http://127.0.0.1:1".to_owned()]),
        listen_peer: Some("127.0.0.1:0".to_owned()),
        port: Some(0),
        data_dir: Some(dir.file("data")),
        cert: Some(dir.file("server-1.pem")),
        key: Some(dir.file("server-1.key")),
        client_ca: Some(dir.file("client-ca.pem")),
        token_file: Some(tokens),
        ..Settings::default()
    };
    Server::start(settings.resolve().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_speaks_tls() {
    let name = format!("stormkv-bench-{}", std::process::id());
    let dir = Dir(std::env::temp_dir().join(name));
    let server = node(&dir).await;
    let endpoint = format!("https://{}", server.client_address());
    let files = ["server-ca.pem", "alice.pem", "alice.key", "tokens"].map(|name| dir.text(name));
    let line = [
        ["bench", "--json"].as_slice(),
        &["--endpoints", &endpoint, "--ca-file", &files[0], "--token-file", &files[3]],
        &["--cert-file", &files[1], "--key-file", &files[2]],
        &["--mix", "mixed:0.5", "--clients", "2", "--keys", "10"],
        &["--warmup", "0.1", "--seconds", "1"],
    ];
    let args = Cli::try_parse_from(line.concat()).unwrap().args;
    let client = args.connect.builder().unwrap().build().unwrap();
    // Waits until the node leads.
    client.put("k", "v").await.unwrap();
    let mut out = Vec::new();
    run(&args, &mut out).await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let result = &report["results"][0];
    assert!(result["operations"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(result["refused"], serde_json::json!({}), "{report}");
    assert_eq!((result["unknown"].as_u64(), result["unanswered"].as_u64()), (Some(0), Some(0)));
    server.stop().await;
}
