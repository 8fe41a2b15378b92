//! Disks that lie: a byte of a log or of a snapshot changes while its node is down.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::record::judge;
use crate::harness::{turn, until};

/// The files of a data directory whose names begin so, oldest first.
fn files(data: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(data)
        .expect("its directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(prefix) && !name.ends_with(".part")
        })
        .collect();
    found.sort();
    found
}

/// Flips one bit of the file.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).expect("it is there");
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("written back");
}

/// Where something is written in the middle of a log file: behind the header, before the end.
fn middle(file: &Path) -> usize {
    let bytes = fs::read(file).expect("it is there");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    assert!(end > 2000, "only {end} bytes are written");
    (end / 2..).find(|at| bytes[*at] != 0).expect("before the end")
}

/// A follower's log rots in the middle, where entries are that it has acknowledged. The others give
/// them back; with the leader gone, the repaired member is half of the majority that knows all.
#[test]
fn a_rotten_log_is_refilled_by_the_others() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for number in 0..60 {
        fleet.put(1 + number % 3, &format!("key-{number}"), &number.to_string());
    }
    fleet.converge(&[1, 2, 3]);
    let leader = fleet.leader();
    let victim = fleet.others(leader)[0];
    // An idle node vouches for the end of its log soon.
    std::thread::sleep(std::time::Duration::from_millis(500));
    fleet.node(victim).kill();
    let log = files(&fleet.node(victim).data, "wal-").pop().expect("it has a log");
    flip(&log, middle(&log));
    let load = Load::start(&[fleet.node(leader).http], &Options::new(11));
    fleet.node(victim).start();
    load.progress(200);
    let mut done = load.finish();
    judge(&done.history, fleet.folder(), "rotten-log");
    done.nothing_is_lost();
    fleet.converge(&[1, 2, 3]);
    let said = fleet.node(victim).printed();
    let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(said.contains(&name), "the damaged file is not named:\n{said}");
    assert!(said.contains("whole again"), "nothing says that it was repaired:\n{said}");

    let leader = fleet.leader();
    let dead = if leader == victim { fleet.others(victim)[0] } else { leader };
    fleet.node(dead).kill();
    let left = fleet.others(dead);
    fleet.leader_of(&left);
    for number in 0..60 {
        assert_eq!(fleet.get(victim, &format!("key-{number}")), Some(number.to_string()));
    }
}

/// The state that a follower's log goes on from is damaged, and the log with it useless: it gets
/// both from the leader.
#[test]
fn a_rotten_snapshot_is_replaced_by_the_leaders() {
    let _turn = turn();
    let mut fleet = Fleet::found_with(3, &["--snapshot-every", "20"]);
    for number in 0..100 {
        fleet.put(1 + number % 3, &format!("key-{number}"), &number.to_string());
    }
    fleet.converge(&[1, 2, 3]);
    let leader = fleet.leader();
    let victim = fleet.others(leader)[0];
    until("it has a snapshot of its own", || {
        files(&fleet.nodes[&victim].data, "snap-")
            .pop()
            .filter(|file| fs::metadata(file).is_ok_and(|found| found.len() > 500))
    });
    fleet.node(victim).kill();
    // It may have gone on to another one meanwhile.
    for file in files(&fleet.node(victim).data, "snap-") {
        let len = fs::metadata(&file).expect("it is there").len();
        flip(&file, len as usize / 2);
    }
    fleet.put(leader, "key-0", "changed");
    fleet.node(victim).start();
    fleet.converge(&[1, 2, 3]);
    assert_eq!(fleet.get(victim, "key-0").as_deref(), Some("changed"));
    for number in 1..100 {
        assert_eq!(fleet.get(victim, &format!("key-{number}")), Some(number.to_string()));
    }
    let said = fleet.node(victim).printed();
    assert!(said.contains("snap-"), "the damaged file is not named:\n{said}");
    assert!(said.contains("whole again"), "nothing says that it was repaired:\n{said}");
    // And it starts on what it was given.
    fleet.node(victim).kill();
    fleet.node(victim).start();
    fleet.converge(&[1, 2, 3]);
}

/// The only voter cannot be repaired by anybody: it does not start, and says what is damaged.
#[test]
fn a_damaged_only_voter_is_refused() {
    let _turn = turn();
    let mut fleet = Fleet::found(1);
    for number in 0..60 {
        fleet.put(1, &format!("key-{number}"), &number.to_string());
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    fleet.node(1).kill();
    let log = files(&fleet.node(1).data, "wal-").pop().expect("it has a log");
    let at = middle(&log);
    flip(&log, at);
    fleet.node(1).start();
    assert!(!fleet.node(1).exit().success());
    let said = fleet.node(1).printed();
    assert!(said.contains("is damaged at byte"), "it does not say what is wrong:\n{said}");
    // Nothing was changed: with the byte put right, all is there.
    flip(&log, at);
    fleet.node(1).start();
    fleet.leader();
    assert_eq!(fleet.get(1, "key-59").as_deref(), Some("59"));
}
