//! Puts the git revision into the build, so that a failure names the code that failed, and a hash
//! of the sources, so that a campaign is not resumed by other code.
//!
//! In a checkout the revision is that of git, and ends in `-dirty` when tracked sources differ from
//! it. In a package it is the revision that cargo recorded when the package was made: a repository
//! around an unpacked or vendored package belongs to another project. Without either, the revision is
//! `unknown`, and the build goes on.
//!
//! The script runs again when the commit, the branch or the sources change; only paths that exist are
//! named to cargo, because a missing one would make it run at every build.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources that decide the behaviour of a run in a checkout, relative to the root of the repository.
const SOURCES: [&str; 6] =
    ["src", "sim/src", "sim/build.rs", "sim/Cargo.toml", "Cargo.toml", "Cargo.lock"];

/// The same in a package, relative to its root. Its manifest names the one version of the node.
const PACKAGED_SOURCES: [&str; 3] = ["src", "build.rs", "Cargo.toml"];

/// The record of the revision that cargo adds to a package.
const RECORD: &str = ".cargo_vcs_info.json";

fn main() {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    watch(&package.join("build.rs"));
    let (revision, sources) = match checkout(&package) {
        Some(root) => (revision(root), hash_of_sources(root, &SOURCES)),
        None => (recorded_revision(&package), hash_of_sources(&package, &PACKAGED_SOURCES)),
    };
    let revision = revision.unwrap_or_else(|| "unknown".to_string());
    println!("cargo:rustc-env=STORMKV_REVISION={revision}");
    println!("cargo:rustc-env=STORMKV_SOURCES={sources:016x}");
}

/// The root of the checkout that this package lies in; `None` for a package that cargo has made,
/// which has its original manifest beside the rewritten one.
fn checkout(package: &Path) -> Option<&Path> {
    let root = package.parent()?;
    let packaged = package.join("Cargo.toml.orig").exists() || package.join(RECORD).exists();
    let in_place = SOURCES.iter().all(|source| root.join(source).exists());
    (in_place && !packaged && root.join("sim") == package).then_some(root)
}

/// FNV-1a over the names and the contents of all sources: the same on every machine.
fn hash_of_sources(root: &Path, sources: &[&str]) -> u64 {
    let mut files = Vec::new();
    for source in sources {
        watch(&root.join(source));
        list(root, Path::new(source), &mut files);
    }
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (name, path) in files {
        let content = std::fs::read(path).unwrap_or_default();
        let length = (content.len() as u64).to_le_bytes();
        for byte in name.bytes().chain([0]).chain(length).chain(content) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// All files at or below `below`, with their names relative to the root.
fn list(root: &Path, below: &Path, files: &mut Vec<(String, PathBuf)>) {
    let path = root.join(below);
    if path.is_file() {
        files.push((below.to_string_lossy().replace('\\', "/"), path));
    } else if let Ok(entries) = path.read_dir() {
        for entry in entries.flatten() {
            list(root, &below.join(entry.file_name()), files);
        }
    }
}

/// The revision in cargo's record, a JSON file with the fields `sha1` and, if sources differed,
/// `dirty`.
fn recorded_revision(package: &Path) -> Option<String> {
    let record = std::fs::read_to_string(package.join(RECORD)).ok()?;
    let (_, rest) = record.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?.get(..12)?;
    Some(if record.contains("\"dirty\": true") { format!("{commit}-dirty") } else { commit.into() })
}

/// The revision of a checkout, if git knows it as the top of a repository.
fn revision(root: &Path) -> Option<String> {
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        let path = git(root, &["rev-parse", "--git-path", name])?;
        watch(&root.join(path));
    }
    let commit = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--untracked-files=no", "--"];
    status.extend(SOURCES);
    let changes = git(root, &status)?;
    Some(if changes.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The output of a git command; `None` if there is no git, or it refuses. It takes no locks, so a
/// build never disturbs a git command that runs beside it.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("--no-optional-locks")
        .args(arguments)
        .current_dir(root)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

fn watch(path: &Path) {
    if path.exists() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}
