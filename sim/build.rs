//! Puts the git revision into the build, so that a failure names the code that failed.
//!
//! Without git, without a repository, or when the sources lie inside somebody else's repository, the
//! revision is `unknown` and the build goes on. A revision ends in `-dirty` when tracked sources
//! differ from it. The script runs again when the commit, the branch or the sources change; only
//! paths that exist are named to cargo, because a missing one would make it run at every build.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What decides the behaviour of a run, relative to the root of the repository.
const SOURCES: [&str; 6] =
    ["src", "sim/src", "sim/build.rs", "sim/Cargo.toml", "Cargo.toml", "Cargo.lock"];

fn main() {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = package.parent().expect("the package lies in the workspace").to_path_buf();
    watch(&package.join("build.rs"));
    let revision = revision(&root).unwrap_or_else(|| "unknown".to_string());
    println!("cargo:rustc-env=STORMKV_REVISION={revision}");
}

fn revision(root: &Path) -> Option<String> {
    let top = PathBuf::from(git(root, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    for name in ["HEAD", "refs/heads", "packed-refs"] {
        let path = git(root, &["rev-parse", "--git-path", name])?;
        watch(&root.join(path));
    }
    for source in SOURCES {
        watch(&root.join(source));
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
