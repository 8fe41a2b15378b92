//! What the faults of processes do: slow nodes, crash loops, lost disks, upgrades.

use super::*;
use crate::disk::with_version;
use crate::kv::KeyValue;

/// A plan with these settings, operations and faults.
fn plan(cluster: &str, ops: &str, faults: &str) -> Plan {
    let text = format!(
        "schema = 1\nname = \"processes\"\nseed = 5\n{cluster}\nop = [{ops}]\nfault = [{faults}]\n"
    );
    scenario::parse::<KeyValue>("processes.toml", &text).expect("a scenario")
}

/// A put every 10 ms, by three clients.
fn puts(from_ms: u64, until_ms: u64) -> String {
    let rows = (from_ms / 10..until_ms / 10).map(|n| {
        let (at_ms, client) = (n * 10, n % 3 + 1);
        format!("{{ at_ms = {at_ms}, client = {client}, do = \"put k{client} v{n}\" }},\n")
    });
    rows.collect()
}

fn applied(simulation: &Simulation<'_, KeyValue>, id: u64) -> u64 {
    let slot = simulation.cluster.get(NodeId(id)).expect("it is there");
    slot.driver.as_ref().expect("it is up").node().status().applied.index
}

#[test]
fn a_node_that_applies_slowly_lags_and_catches_up() {
    let plan = plan(
        "",
        &format!(r#"{{ at_ms = 300, do = "transfer 1" }}, {}"#, puts(600, 900)),
        r#"{ at_ms = 550, until_ms = 2000, do = "slow-apply 2 100ms" }"#,
    );
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    pass_until(&mut simulation, 1100);
    let (fast, slow) = (applied(&simulation, 3), applied(&simulation, 2));
    assert!(slow + 8 < fast, "{slow} of {fast}");
    let outcome = simulation.run(u64::MAX);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.faults["slow-apply"], 1);
    assert_eq!(applied(&simulation, 2), applied(&simulation, 3));
}

#[test]
fn what_a_slow_node_cannot_take_waits_and_then_gets_lost() {
    let plan =
        plan("", &puts(600, 1500), r#"{ at_ms = 500, until_ms = 4000, do = "slow leader 100ms" }"#);
    let outcome = run::<KeyValue>(&plan, &mut RunOptions::default());
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.faults["slow"], 1);
    assert!(outcome.waypoints["inbox-backlog"] >= 1);
    assert!(outcome.waypoints["inbox-full"] >= 1, "{:?}", outcome.waypoints);
    // Too slow to lead: it hears of a new leader, in the end.
    assert!(outcome.waypoints["leader-elected"] >= 2);
    assert_eq!(run::<KeyValue>(&plan, &mut RunOptions::default()), outcome);
}

#[test]
fn a_crash_loop_ends_with_its_row() {
    for (again, least) in [("20ms", 25), ("disk 1", 25), ("disk 3", 25)] {
        let faults = format!(r#"{{ at_ms = 1000, until_ms = 2000, do = "crash-loop 1 {again}" }}"#);
        let plan = plan("", &puts(600, 2500), &faults);
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        pass_until(&mut simulation, 2000);
        let lives = simulation.cluster.get_mut(N1).expect("a founder").incarnation;
        assert!((least..=105).contains(&lives), "{again}: {lives} lives");
        let outcome = simulation.run(u64::MAX);
        assert_eq!(outcome.violation, None, "{again}");
        assert_eq!(outcome.faults["crash-loop"], 1);
        assert!(outcome.waypoints["started-in-a-crash-loop"] > 20);
        assert!(
            simulation.cluster.get_mut(N1).expect("a founder").incarnation <= lives + 1,
            "{again}"
        );
    }
}

#[test]
fn every_step_of_a_flush_can_be_the_last_before_a_crash() {
    // The first flush of a leader with two followers has three outputs: two messages and a batch
    // for the disk. With K from 0 to 2 each of them is the first that is missing.
    for outputs in 0..3 {
        let ops = r#"{ at_ms = 700, client = 1, do = "put a 1" }"#;
        let faults =
            format!(r#"{{ at_ms = 600, until_ms = 1500, do = "crash leader output {outputs}" }}"#);
        let outcome = run::<KeyValue>(&plan("", ops, &faults), &mut RunOptions::default());
        assert_eq!(outcome.violation, None);
        assert_eq!(outcome.waypoints["crash-between-outputs"], 1, "{outputs}");
    }
}

// ---- lost disks ----

#[test]
fn a_wiped_member_never_starts_again_and_nobody_demands_it() {
    let faults = r#"{ at_ms = 700, until_ms = 800, do = "wipe 3" },
                    { at_ms = 900, until_ms = 950, do = "crash 3" },
                    { at_ms = 1000, do = "wipe 1" }"#;
    let plan = plan("", &puts(500, 1500), faults);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    let outcome = simulation.run(u64::MAX);
    assert_eq!(outcome.violation, None);
    // The second crash has nobody to hit, and a second wipe would take the quorum.
    assert_eq!(outcome.faults["wipe"], 1);
    assert_eq!(outcome.faults["crash"], 0);
    let slot = simulation.cluster.get(NodeId(3)).expect("a founder");
    assert!(slot.faults.is_wiped() && !slot.is_up() && slot.disk.list().is_empty());
    assert_eq!(slot.incarnation, 1);
}

#[test]
fn a_wiped_member_is_replaced_before_another_one_may_go() {
    let ops = r#"{ at_ms = 600, client = 1, do = "put a 1" },
                 { at_ms = 1500, do = "replace 3 4" },
                 { at_ms = 3500, client = 1, do = "get a" }"#;
    let faults = r#"{ at_ms = 700, do = "wipe 3" }, { at_ms = 3000, do = "wipe 2" }"#;
    let outcome = run::<KeyValue>(&plan("", ops, faults), &mut RunOptions::default());
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.faults["wipe"], 2);
    assert_eq!(outcome.waypoints["wiped-member-replaced"], 1);
}

#[test]
fn who_may_lose_its_disk() {
    let spared = |cluster: &str, ops: &str, at_ms: u64| -> Vec<u64> {
        let plan = plan(cluster, ops, "");
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        pass_until(&mut simulation, at_ms);
        let ids = simulation.cluster.ids().into_iter();
        ids.filter(|id| simulation.may_lose(*id)).map(|id| id.0).collect()
    };
    let late = r#"{ at_ms = 3000, client = 1, do = "put a 1" }"#;
    assert_eq!(spared("cluster.nodes = 1", late, 500), [0; 0], "the sole voter");
    assert_eq!(spared("cluster.nodes = 2", late, 500), [0; 0], "one of two");
    assert_eq!(spared("cluster.nodes = 3", late, 500), [1, 2, 3]);
    let learner = "cluster.nodes = 1\ncluster.learners = 1";
    assert_eq!(spared(learner, late, 500), [2], "the learner of a sole voter");
    // A change is under way, and the new node is no member yet.
    let change = format!(r#"{{ at_ms = 500, do = "add 4" }}, {late}"#);
    assert_eq!(spared("cluster.nodes = 3", &change, 500), [0; 0]);
    assert_eq!(spared("cluster.nodes = 3", &change, 2000), [1, 2, 3, 4]);
}

#[test]
fn the_operator_puts_off_a_change_that_would_need_the_lost_disk() {
    // Without node 3 a cluster of nodes 2 and 3 could decide nothing.
    let ops = r#"{ at_ms = 1000, do = "remove 1" }, { at_ms = 2000, client = 1, do = "put a 1" }"#;
    let faults = r#"{ at_ms = 700, do = "wipe 3" }"#;
    let outcome = run::<KeyValue>(&plan("", ops, faults), &mut RunOptions::default());
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.waypoints["change-put-off"], 1);
    assert!(!outcome.waypoints.contains_key("member-removed"));
}

// ---- upgrades ----

/// What the whole files of node 1 say about their versions.
fn versions(simulation: &Simulation<'_, KeyValue>) -> Vec<(FileName, u32)> {
    let disk = &simulation.cluster.get(NodeId(1)).expect("a founder").disk;
    let version = |file| {
        let bytes = disk.look(file).expect("it is listed");
        u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"))
    };
    let is_whole = |file: &FileName| !matches!(file, FileName::Partial(..));
    disk.list().into_iter().filter(is_whole).map(|file| (file, version(file))).collect()
}

const SMALL: &str =
    "cluster.snapshot_every = 10\ncluster.keep_entries = 0\ncluster.segment_kib = 4";

#[test]
fn old_files_are_read_and_new_ones_written() {
    let faults = r#"{ at_ms = 1500, until_ms = 2000, do = "old-format 1" }"#;
    let plan = plan(SMALL, &puts(500, 2500), faults);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    pass_until(&mut simulation, 1499);
    assert!(
        versions(&simulation)
            .iter()
            .any(|(file, version)| { matches!(file, FileName::Snapshot(..)) && *version == 5 })
    );
    pass_until(&mut simulation, 1600);
    let old = versions(&simulation);
    // The state has a time, which no older snapshot can say.
    let mut segments =
        old.iter().filter(|(file, _)| matches!(file, FileName::Segment(_))).peekable();
    assert!(segments.peek().is_some() && segments.all(|(_, version)| *version == 1), "{old:?}");
    let before = applied(&simulation, 2);
    let outcome = simulation.run(u64::MAX);
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.waypoints["old-files-read"], 1);
    assert_eq!(outcome.faults["old-format"], 1);
    assert!(applied(&simulation, 1) > before);
    let new = versions(&simulation);
    assert!(new.iter().any(|(_, version)| *version >= 2), "{new:?}");
}

/// A snapshot file as a later release might write it: version 9, with a frame of a kind of its own.
fn newer_release(snapshot: &[u8]) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(snapshot[at..at + 4].try_into().expect("4 bytes"));
    let (mut at, mut crc) = (12, 0);
    let mut newer = [&snapshot[..8], &9u32.to_le_bytes()].concat();
    let mut frame = |kind: u8, data: &[u8]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(crc);
        hasher.update(&[kind]);
        hasher.update(data);
        crc = hasher.finalize();
        newer.extend((data.len() as u32).to_le_bytes());
        newer.extend(crc.to_le_bytes());
        newer.push(kind);
        newer.extend(data);
    };
    while at < snapshot.len() {
        let (data, end) = (at + 9, at + 9 + word(at) as usize);
        if end == snapshot.len() {
            frame(9, b"unknown to this release");
        }
        frame(snapshot[at + 8], &snapshot[data..end]);
        at = end;
    }
    newer
}

#[test]
fn a_node_refuses_files_of_a_newer_release_and_names_both_versions() {
    for newer_snapshot in [false, true] {
        let plan = plan(SMALL, &puts(500, 1500), "");
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        pass_until(&mut simulation, 1400);
        simulation.crash(N1, Crash::Kill, 0);
        let slot = simulation.cluster.get_mut(N1).expect("a founder");
        let is_it = |file: &FileName| match file {
            FileName::Snapshot(..) => newer_snapshot,
            FileName::Segment(_) => !newer_snapshot,
            FileName::Partial(..) => false,
        };
        let file = slot.disk.list().into_iter().rfind(is_it).expect("it has such a file");
        let bytes = slot.disk.look(file).expect("it is listed");
        let newer = match newer_snapshot {
            true => newer_release(&bytes),
            false => with_version(&bytes, 9).to_vec(),
        };
        slot.disk.rewrite(file, &newer);
        simulation.start(N1);
        let violation = simulation.violation.take().expect("it cannot start");
        assert_eq!(violation.checker, "recovery");
        let refusal = format!("{file} has format version 9, this build reads up to ");
        assert!(violation.message.contains(&refusal), "{}", violation.message);
    }
}
