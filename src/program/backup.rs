//! Saves the state of a cluster to a file, and founds a new cluster with it.
//!
//! A backup is a snapshot file: all that was acknowledged before it was asked for, sessions
//! included. It is written to a temporary file, checked byte by byte, made durable and only then
//! given its name. Restored into the data directory of each initial member of a new cluster, it is
//! where that cluster's log begins.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use stormkv::env::FileName;
use stormkv::error::Error;
use stormkv::kv::Kv;
use stormkv::tcp;
use stormkv::tcp::identity::RestoreId;
use stormkv::tcp::options::{Options, Settings};

use super::connect::Connect;
use super::{Exit, Failure};

#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    connect: Connect,
    /// Where to write the backup; must not exist yet
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Run it once for each initial member, with the same backup and the same --cluster, then \
                  start the nodes with the same flags. Each restore founds a new cluster: for the \
                  second member and all others, give the --restore-id that the first restore prints."
)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The restore id that this command has printed for the first member; drawn at random if this is
    /// the first
    #[arg(long, value_name = "ID")]
    restore_id: Option<RestoreId>,
    #[command(flatten)]
    settings: Settings,
}

pub fn backup(args: &BackupArgs) -> Result<Exit, Failure> {
    let path = &args.output;
    if path.exists() {
        return Err(Failure::usage(format!(
            "{} exists: choose another name, nothing is overwritten",
            path.display()
        )));
    }
    let mut partial = path.clone().into_os_string();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let file = create(&partial)?;
    let result = fetch(args, file, &partial, path);
    if result.is_err() {
        let _ = fs::remove_file(&partial);
    }
    result
}

fn fetch(args: &BackupArgs, file: File, partial: &Path, path: &Path) -> Result<Exit, Failure> {
    let client = args.connect.builder().map_err(Failure::usage)?;
    let client = client.build().map_err(|error| Failure::usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Io, error.to_string()))?;
    runtime.block_on(async {
        let mut file = tokio::fs::File::from_std(file);
        let fetched = client.backup(&mut file).await;
        fetched.map_err(|error| Failure::new(Exit::Unavailable, error.to_string()))?;
        file.sync_all().await.map_err(|error| io(partial, &error))
    })?;
    let bytes = read(partial)?;
    let id = stormkv::snapshot::check(FileName::Snapshot(0, 0), &bytes).map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("the backup did not arrive whole: {error}; try again"),
        )
    })?;
    // Unlike a rename, a link replaces nothing.
    fs::hard_link(partial, path).map_err(|error| io(path, &error))?;
    fs::remove_file(partial).map_err(|error| io(partial, &error))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|error| io(parent, &error))?;
    println!("{}: {} bytes, all up to index {}", path.display(), bytes.len(), id.index);
    Ok(Exit::Ok)
}

/// Only for its owner: it holds all the data.
fn create(path: &Path) -> Result<File, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path).map_err(|error| io(path, &error))
}

pub fn restore(args: RestoreArgs) -> Result<Exit, Failure> {
    let bytes = read(&args.file)?;
    let id = stormkv::snapshot::check(FileName::Snapshot(0, 0), &bytes)
        .map_err(|error| Failure::usage(unusable(&args.file, &error)))?;
    let options = args.settings.resolve().map_err(Failure::usage)?;
    let ready = format!("ready to start, all up to index {}", id.index);
    found(options, bytes, args.restore_id, (&ready, "restore"))?;
    Ok(Exit::Ok)
}

/// Founds a cluster with a state, in the data directory of one of its initial members. `ready` says what
/// is there then, and `verb` what is done for the other members.
pub(super) fn found(
    options: Options,
    state: Bytes,
    id: Option<RestoreId>,
    (ready, verb): (&str, &str),
) -> Result<(), Failure> {
    let (dir, members) = (options.data_dir.clone(), options.config.founders.len());
    let restore = id.unwrap_or_else(RestoreId::random);
    tcp::restore::<Kv>(options, (), state, restore)?;
    println!("{}: {ready}", dir.display());
    if members > 1 && id.is_none() {
        println!("{verb} the other initial members with --restore-id {restore}");
    }
    Ok(())
}

/// What is wrong with a file that is to be restored. No member has been started yet, so the advice of
/// [`Error`], which is for a running one, does not fit.
fn unusable(path: &Path, error: &Error) -> String {
    let path = path.display();
    match error {
        Error::Corrupt { offset: 0, .. } => format!(
            "{path} is no backup, and nothing was restored: name a file that `stormkv backup` has written"
        ),
        Error::Corrupt { offset, reason, .. } => format!(
            "the backup {path} is damaged or was not copied whole (at byte {offset}: {reason}), and \
             nothing was restored: copy it again, or use another backup"
        ),
        Error::NewerVersion { found, supported, .. } => format!(
            "the backup {path} has format version {found}, and this build reads up to {supported}: \
             restore it with the version of stormkv that wrote it, or a newer one"
        ),
        error => format!("{path}: {error}"),
    }
}

fn read(path: &Path) -> Result<Bytes, Failure> {
    fs::read(path).map(Bytes::from).map_err(|error| io(path, &error))
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Io, format!("{}: {error}", path.display()))
}
