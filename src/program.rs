//! The command line of `stormkv`: what each subcommand is called and what it exits with.

mod backup;
mod bench;
mod certs;
mod connect;
mod ctl;
mod dev;
mod recover;
mod serve;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use stormkv::error::Error;
use stormkv::tcp::ServerError;
use stormkv::tcp::options::Settings;

/// What a subcommand tells its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// The answer is no, and always will be: not found, not swapped, refused.
    No = 1,
    /// A write may or may not take effect.
    Unknown = 3,
    /// The command line or the configuration is wrong.
    Usage = 64,
    /// Nobody answers.
    Unavailable = 69,
    /// A bug: an invariant broke.
    Internal = 70,
    /// A file or disk failed.
    Io = 74,
}

/// Why a subcommand ends early: what to exit with, and one line for the user.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }

    /// A mistake of the user: what is wrong, and what to do.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Failure {
        let exit = match &error {
            ServerError::Node(Error::Config(_)) | ServerError::Settings(_) => Exit::Usage,
            _ => Exit::Io,
        };
        Failure::new(exit, error.to_string())
    }
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok (also when the member was removed from the cluster), 64 usage, 70 internal error, \
74 disk or file";

const ABOUT: &str = "\
A durable, replicated key-value store. Without a command, runs a node:

  stormkv --id 1 --cluster http://127.0.0.1:12379 --port 12380
  curl http://127.0.0.1:12380/my-key -XPUT -d hello
  curl http://127.0.0.1:12380/my-key

Only to look: `stormkv dev` runs three nodes on this machine.";

/// A durable, replicated key-value store
#[derive(Debug, Parser)]
#[command(name = "stormkv", version, about = ABOUT, after_help = EXIT_CODES)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Read settings from a TOML file: the same names, as in `data-dir = "/var/lib/stormkv"`
    #[arg(long, env = "STORMKV_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServeArgs {
    /// The flags and environment variables, and behind them the file.
    fn settings(self) -> Result<Settings, Failure> {
        match self.config {
            Some(path) => {
                let file = Settings::read(&path).map_err(Failure::usage)?;
                Ok(self.settings.or(file))
            }
            None => Ok(self.settings),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster of nodes on this machine, only to look
    Dev(dev::DevArgs),
    /// Talk to a cluster: get, put, del, cas, scan, members, transfer, status, ...
    Ctl(ctl::Args),
    /// Measure a cluster with clients that each wait for their answer
    Bench(bench::Args),
    /// Save the state of a cluster to a file
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup, for a member of a new cluster
    Restore(Box<backup::RestoreArgs>),
    /// Found a new cluster with what is left of one that has lost its quorum for good
    Recover(Box<recover::RecoverArgs>),
    /// Make certificates for TLS between the members and to their clients
    Certs(certs::CertsArgs),
}

/// The whole program.
pub fn main() -> ExitCode {
    ExitCode::from(execute(std::env::args_os()))
}

fn execute(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { Exit::Ok } else { Exit::Usage } as u8;
        }
    };
    let result = match cli.command {
        None => serve::serve(cli.serve),
        Some(Command::Dev(args)) => dev::dev(&args),
        Some(Command::Ctl(args)) => Ok(ctl::main(&args)),
        Some(Command::Bench(args)) => Ok(bench::main(&args)),
        Some(Command::Backup(args)) => backup::backup(&args),
        Some(Command::Restore(args)) => backup::restore(*args),
        Some(Command::Recover(args)) => recover::recover(*args),
        Some(Command::Certs(args)) => certs::certs(&args),
    };
    let exit = result.unwrap_or_else(|failure| {
        eprintln!("error: {}", failure.message);
        failure.exit
    });
    exit as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn raftexamples_command_line_runs_a_node() {
        let line = "stormkv --id 4 --cluster http://127.0.0.1:12379,http://127.0.0.1:42379 \
                    --port 42380 --join";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        assert!(cli.command.is_none());
        let settings = cli.serve.settings().unwrap();
        assert_eq!((settings.id, settings.port, settings.join), (Some(4), Some(42380), Some(true)));
        assert_eq!(settings.cluster.map(|urls| urls.len()), Some(2));
    }

    #[test]
    fn a_wrong_flag_is_a_usage_error() {
        assert_eq!(execute(["stormkv", "--idd", "1"]), Exit::Usage as u8);
        assert_eq!(execute(["stormkv"]), Exit::Usage as u8, "a node needs an id");
        assert_eq!(execute(["stormkv", "--version"]), Exit::Ok as u8);
    }
}
