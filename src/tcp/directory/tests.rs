//! Each refusal, one by one, and that what is refused was not changed.

use super::*;
use crate::tcp::scratch::Scratch;

fn expected(node: u64) -> Expected {
    Expected { node: NodeId(node), cluster: cluster(1) }
}

fn cluster(number: u64) -> Option<ClusterId> {
    ClusterId::from_number(number)
}

fn open(scratch: &Scratch, expected: Expected) -> Result<Directory, DirectoryError> {
    Directory::open(scratch.path(), expected)
}

/// The error and its text, which must name the directory and each of `parts`.
#[track_caller]
fn refused(scratch: &Scratch, expected: Expected, parts: &[&str]) -> DirectoryError {
    let error = open(scratch, expected).expect_err("it is refused");
    let text = error.to_string();
    let name = scratch.path().file_name().and_then(|name| name.to_str()).expect("it is text");
    for part in [name].iter().chain(parts) {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
    error
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").mode() & 0o777
}

/// A directory in which node 1 has lived, with a log.
fn lived() -> Scratch {
    let scratch = Scratch::new();
    let directory = open(&scratch, expected(1)).expect("a new one");
    directory.begin().expect("it can be written");
    fs::write(directory.file(FileName::Segment(1)), b"log").expect("it can be written");
    scratch
}

#[test]
fn a_new_directory_belongs_to_its_owner_only() {
    let scratch = Scratch::new();
    let deep = scratch.path().join("a").join("b");
    let directory = Directory::open(&deep, expected(1)).expect("it is created");
    assert_eq!((mode(scratch.path()), mode(&deep)), (0o700, 0o700));
    assert_eq!(mode(&deep.join(IDENTITY)), 0o600);
    assert_eq!(mode(&deep.join(LOCK)), 0o600);
    assert_eq!((directory.cluster(), directory.begun()), (cluster(1), false));
}

#[test]
fn a_directory_that_others_can_look_into_is_tightened() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).expect("it is new");
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("it is ours");
    open(&scratch, expected(1)).expect("it is empty");
    assert_eq!(mode(scratch.path()), 0o700);
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).expect("it is new");
    fs::write(scratch.path().join("letter"), b"").expect("it can be written");
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let error = refused(&scratch, expected(1), &["`letter`", "name an empty directory"]);
    assert!(matches!(error, DirectoryError::Strangers { .. }));
    assert_eq!(mode(scratch.path()), 0o755);
    assert_eq!(fs::read_dir(scratch.path()).expect("it can be listed").count(), 1);
}

#[test]
fn a_file_is_no_directory() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), b"").expect("it is new");
    let error = refused(&scratch, expected(1), &["this is a file"]);
    assert!(matches!(error, DirectoryError::NotADirectory { .. }));
    fs::remove_file(scratch.path()).expect("it is ours");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).expect("it is new");
    if std::os::unix::fs::chown(scratch.path(), Some(12345), None).is_err() {
        eprintln!("skipped: only root can give a directory away");
        return;
    }
    let error = refused(&scratch, expected(1), &["user with id 12345", "chown -R", "fsGroup"]);
    assert!(matches!(error, DirectoryError::NotOurs { owner: 12345, .. }));
    assert_eq!(fs::read_dir(scratch.path()).expect("it can be listed").count(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).expect("it is new");
    // A name that cannot be created even by root: a directory is in its place.
    fs::create_dir(scratch.path().join(PROBE)).expect("it can be written");
    let error = refused(&scratch, expected(1), &["creation of a file failed"]);
    assert!(matches!(error, DirectoryError::Io { .. }));
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    assert!(explain(&error).contains("chown"), "{}", explain(&error));
}

#[test]
fn a_second_process_is_told_who_was_first() {
    let scratch = Scratch::new();
    let first = open(&scratch, expected(1)).expect("a new one");
    let pid = std::process::id();
    let parts = [format!("in use by the process {pid}"), "--data-dir".to_owned()];
    let error = refused(&scratch, expected(1), &[&parts[0], &parts[1]]);
    assert!(matches!(error, DirectoryError::Locked { pid: Some(found), .. } if found == pid));
    drop(first);
    open(&scratch, expected(1)).expect("the lock ends with its holder");
}

#[test]
fn lock_ends_with_its_holder_beside_a_fork() {
    let scratch = Scratch::new();
    let first = open(&scratch, expected(1)).expect("a new one");
    // What a process that is just being started has, until it executes its program.
    let copy = first._lock.0.try_clone().expect("there are descriptors");
    drop(first);
    open(&scratch, expected(1)).expect("it is free");
    drop(copy);
}

#[test]
fn another_nodes_directory_is_refused() {
    let scratch = lived();
    let parts = ["belongs to node 1, not to node 2", "--id 1"];
    let error = refused(&scratch, expected(2), &parts);
    assert!(matches!(error, DirectoryError::WrongNode { found: NodeId(1), .. }));
    assert!(open(&scratch, expected(1)).expect("it is node 1's").begun());
}

#[test]
fn another_clusters_directory_is_refused() {
    let scratch = lived();
    let other = Expected { cluster: cluster(2), ..expected(1) };
    let parts = ["cluster 0000000000000001, not 0000000000000002"];
    let error = refused(&scratch, other, &parts);
    assert!(matches!(error, DirectoryError::WrongCluster { .. }));
    let any = Expected { cluster: None, ..expected(1) };
    assert_eq!(open(&scratch, any).expect("no cluster was asked for").cluster(), cluster(1));
}

#[test]
fn files_without_an_identity_are_refused() {
    let scratch = lived();
    fs::remove_file(scratch.path().join(IDENTITY)).expect("it is there");
    let error = refused(&scratch, expected(1), &["wal-0000000000000001", "restore that file"]);
    assert!(matches!(error, DirectoryError::IdentityMissing { .. }));
    assert!(!scratch.path().join(IDENTITY).exists());
}

#[test]
fn a_node_that_lost_its_log_does_not_start_again() {
    let scratch = lived();
    fs::remove_file(scratch.path().join("wal-0000000000000001")).expect("it is there");
    let error = refused(&scratch, expected(1), &["node 1 has lived here", "must not vote again"]);
    assert!(matches!(error, DirectoryError::LogMissing { node: NodeId(1), .. }));
}

#[test]
fn a_first_start_that_was_interrupted_is_repeated() {
    let scratch = Scratch::new();
    drop(open(&scratch, expected(1)).expect("a new one"));
    fs::write(scratch.path().join(IDENTITY_NEW), b"half").expect("it can be written");
    let directory = open(&scratch, expected(1)).expect("no life has begun");
    assert!(!directory.begun());
    fs::write(directory.file(FileName::Segment(1)), b"log").expect("it can be written");
    drop(directory);
    assert!(open(&scratch, expected(1)).expect("it is whole").begun(), "there is a log");
}

#[test]
fn an_interrupted_first_start_without_an_identity_is_repeated() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path()).expect("it is new");
    for name in HARMLESS {
        fs::write(scratch.path().join(name), b"").expect("it can be written");
    }
    open(&scratch, expected(1)).expect("nothing in it is a stranger");
}

#[test]
fn a_newer_identity_is_told_from_a_damaged_one() {
    let scratch = lived();
    let path = scratch.path().join(IDENTITY);
    fs::write(&path, "version = 9\n").expect("it can be written");
    let error = refused(&scratch, expected(1), &["format version 9", "newer version of stormkv"]);
    assert!(matches!(error, DirectoryError::NewerVersion { found: 9, .. }));
    fs::write(&path, "").expect("it can be written");
    let error = refused(&scratch, expected(1), &["identity.toml is damaged"]);
    assert!(matches!(error, DirectoryError::Damaged { .. }));
}

#[test]
fn a_directory_keeps_its_life_and_an_emptied_one_gets_another() {
    let scratch = lived();
    let life = open(&scratch, expected(1)).expect("it is node 1's").life();
    let elsewhere = Scratch::new();
    fs::rename(scratch.path(), elsewhere.path()).expect("nothing is there");
    assert_eq!(open(&elsewhere, expected(1)).expect("it is whole").life(), life);
    assert_ne!(open(&scratch, expected(1)).expect("a new one").life(), life);

    let joiner = Expected { node: NodeId(4), cluster: None };
    let scratch = Scratch::new();
    let directory = open(&scratch, joiner).expect("a new one");
    let life = directory.life();
    directory.set_cluster(cluster(7).expect("not 0")).expect("it knows none yet");
    directory.begin().expect("it can be written");
    assert_eq!(directory.life(), life);
}

#[test]
fn what_is_left_of_a_directory_is_no_new_one() {
    let scratch = lived();
    let directory = open(&scratch, expected(1)).expect("it is node 1's");
    let (here, life) = (cluster(1).expect("not 0"), directory.life());
    directory.write_peers(here, &[(NodeId(2), life)].into()).expect("it can be written");
    drop(directory);
    for file in [IDENTITY, "wal-0000000000000001"] {
        fs::remove_file(scratch.path().join(file)).expect("it is there");
    }
    let error = refused(&scratch, expected(1), &["it holds peers.toml, but identity.toml"]);
    assert!(matches!(error, DirectoryError::IdentityMissing { .. }));
    assert!(!scratch.path().join(IDENTITY).exists());
}

#[test]
fn a_restored_directory_has_met_nobody() {
    let scratch = Scratch::new();
    let directory = open(&scratch, expected(1)).expect("a new one");
    let (here, life) = (cluster(1).expect("not 0"), directory.life());
    directory.write_peers(here, &[(NodeId(2), life)].into()).expect("it can be written");
    assert_eq!(directory.read_peers().expect("it is whole").len(), 1);
    directory.begin_restore().expect("no life has begun");
    directory.end_restore(5).expect("it can be written");
    assert_eq!(directory.read_peers().expect("it is whole").len(), 0);
    assert_eq!(directory.life(), life);
}

#[test]
fn a_joiner_learns_its_cluster_once() {
    let scratch = Scratch::new();
    let joiner = Expected { node: NodeId(4), cluster: None };
    let directory = open(&scratch, joiner).expect("a new one");
    assert_eq!(directory.cluster(), None);
    let id = cluster(7).expect("not 0");
    directory.set_cluster(id).expect("it knows none yet");
    directory.set_cluster(id).expect("it is the same");
    let error = directory.set_cluster(cluster(8).expect("not 0")).expect_err("it is another");
    assert!(matches!(error, DirectoryError::WrongCluster { .. }));
    assert_eq!(directory.cluster(), cluster(7));
    drop(directory);
    assert_eq!(open(&scratch, joiner).expect("it is its own").cluster(), cluster(7));
}

#[test]
fn other_files_are_no_file_names() {
    for name in [SPARE, LOCK, IDENTITY, PEERS] {
        assert!(name.parse::<FileName>().is_err(), "{name}");
    }
}
