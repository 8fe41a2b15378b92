//! Random plans: each is a valid file, together they have everything, and a seed keeps its plan.

use std::collections::BTreeMap;

use stormkv_sim::kv::KeyValue;
use stormkv_sim::kv::{Op, Step};
use stormkv_sim::plan::{Cluster, Manner, Who};
use stormkv_sim::scenario;
use stormkv_sim::swarm::{SpeedKind, generate, speed_plan};

#[test]
fn random_plans_survive_the_way_to_toml_and_back() {
    for seed in (0..2000).chain([u64::MAX, u64::MAX / 3, 1 << 63]) {
        let plan = generate::<KeyValue>(seed);
        let text = scenario::save(&plan);
        let back = scenario::parse::<KeyValue>("generated", &text)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        assert_eq!(back, plan, "seed {seed}:\n{text}");
        assert_eq!(back.hash(), plan.hash(), "seed {seed}");
        assert_eq!(scenario::save(&back), text, "seed {seed}");
    }
}

/// A change here changes what every recorded seed means: it must be deliberate.
#[test]
fn seeds_keep_their_plans() {
    let hashes: Vec<_> = [0, 1, 2, 42, u64::MAX]
        .into_iter()
        .map(|seed| format!("{seed}: {:016x}", generate::<KeyValue>(seed).hash()))
        .collect();
    assert_eq!(
        hashes,
        [
            "0: 04d9358dc02f4242",
            "1: 65ba30a9525d4986",
            "2: 1a875b60e85ecde4",
            "42: 37e3527343e5f89e",
            "18446744073709551615: b67f66fea7c2727b",
        ]
    );
}

#[test]
fn random_plans_have_everything() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut count = |what: String| *seen.entry(what).or_default() += 1;
    for seed in 0..500 {
        let plan = generate::<KeyValue>(seed);
        let (ops, faults) = (plan.ops.len(), plan.faults.len());
        // A large state is filled first, and small disks get deletes and other values after that; an
        // overload is nothing else, and an absence needs clients that go on.
        let most = match plan.disk.size_kib {
            _ if plan.load.is_judged() => 3000,
            _ if plan.cluster.log_kib != Cluster::default().log_kib => 1100,
            0 => 420,
            _ => 740,
        };
        // Some fall silent early.
        assert!((1..=most).contains(&ops), "seed {seed}: {ops} operations");
        if ops < 60 {
            count("silent early".to_string());
        }
        assert!(faults <= 25, "seed {seed}: {faults} faults");
        assert!(plan.heal_at_us() < 30_000_000, "seed {seed} heals at {}", plan.heal_at_us());
        assert!(plan.ops.is_sorted_by_key(|row| row.at_us), "seed {seed}");
        assert!(plan.faults.is_sorted_by_key(|row| row.at_us), "seed {seed}");
        count(format!("nodes {}", plan.cluster.nodes));
        count(format!("learners {}", plan.cluster.learners));
        count(format!("wire {:?}", plan.cluster.wire));
        count(format!("core {:?}", plan.end.core));
        count(if plan.cluster.batch_us == 0 { "one by one" } else { "batched" }.to_string());
        let network = &plan.network;
        for (is_so, what) in [
            (network.fifo, "in order"),
            (network.spread > 1, "links differ"),
            (network.kib_per_s > 0, "connections bounded"),
            (network.garble > 0.0, "bytes damaged"),
            (network.tells > 0.0, "losses told"),
        ] {
            if is_so {
                count(what.to_string());
            }
        }
        if plan.cluster.backup_keys > 0 {
            count("from a backup".to_string());
        }
        if faults == 0 {
            count("calm".to_string());
        }
        let several = plan.clients.in_flight > 1;
        count(if several { "several in flight" } else { "closed loop" }.to_string());
        if plan.clients.operators > 1 {
            count("several operators".to_string());
        }
        let is_k9 = |op: Op| matches!(op, Op::Get { key } if key == "k9");
        if plan.ops.iter().any(|row| Op::of(&row.call.op).is_some_and(is_k9)) {
            count("many keys".to_string());
        }
        for row in &plan.ops {
            count(row.call.op.kind().to_string());
            if row.call.op.is_aimed() {
                count("leader replaced".to_string());
            }
            if row.call.node.is_some() {
                count("pinned".to_string());
            }
            match row.call.manner {
                Manner::Usual | Manner::Imprudent => {}
                Manner::Forced => count("forced".to_string()),
                Manner::NoSession => count("without a session".to_string()),
                Manner::Stale => count("stale".to_string()),
                Manner::Reused => count("reused number".to_string()),
            }
            if matches!(Op::of(&row.call.op), Some(Op::Scan { limit: 1.., .. })) {
                count("in pages".to_string());
            }
        }
        for row in &plan.faults {
            count(format!("fault {}", row.fault.kind()));
            match row.fault.who() {
                Some(Who::Leader) => count("fault at leader".to_string()),
                Some(Who::Same) => count("fault at same".to_string()),
                Some(Who::Node(_)) | None => {}
            }
        }
    }
    for what in [
        "put",
        "get",
        "delete",
        "cas",
        "scan",
        "guarded",
        "move",
        "without a session",
        "stale",
        "in pages",
        "from a backup",
        "txn",
        "add",
        "learner",
        "promote",
        "remove",
        "replace",
        "transfer",
        "change",
        "restart",
        "leader replaced",
        "closed loop",
        "several in flight",
        "several operators",
        "many keys",
        "pinned",
        "calm",
        "nodes 1",
        "nodes 2",
        "nodes 3",
        "nodes 5",
        "nodes 7",
        "learners 0",
        "learners 1",
        "learners 2",
        "wire Value",
        "wire Encoded",
        "core All",
        "core Random",
        "one by one",
        "batched",
        "fault crash",
        "fault crash-output",
        "fault crash-disk",
        "fault crash-all",
        "fault kill",
        "fault kill-all",
        "fault pause",
        "fault partition",
        "fault isolate",
        "fault oneway",
        "fault bridge",
        "fault clog",
        "fault weather",
        "fault ring",
        "fault lag",
        "fault throttle",
        "fault garble",
        "fault reset",
        "in order",
        "links differ",
        "connections bounded",
        "bytes damaged",
        "losses told",
        "fault fsync-fail",
        "fault disk-error",
        "fault slow-disk",
        "fault clock-drift",
        "fault clock-step-back",
        "fault clock-step-forward",
        "fault timer-jitter",
        "fault slow",
        "fault slow-apply",
        "fault crash-loop",
        "fault wipe",
        "fault old-format",
        "fault short-write",
        "fault stall-disk",
        "fault lose-entry",
        "fault rot",
        "fault misdirect",
        "fault stale-read",
        "fault at leader",
        "fault at same",
        "silent early",
    ] {
        let times = seen.get(what).copied().unwrap_or(0);
        assert!(times >= 5, "`{what}` appears {times} times in 500 seeds: {seen:#?}");
    }
}

/// Written values are unique, so that a read tells which write it saw.
#[test]
fn no_value_is_written_twice() {
    for seed in 0..200 {
        let mut written = Vec::new();
        for row in generate::<KeyValue>(seed).ops {
            match Op::of(&row.call.op) {
                Some(
                    Op::Put { value, .. }
                    | Op::Cas { new: value, .. }
                    | Op::Guarded { value: Some(value), .. },
                ) => written.push(value),
                Some(Op::Txn { then, otherwise, .. }) => {
                    written.extend(then.into_iter().chain(otherwise).filter_map(
                        |step| match step {
                            Step::Put { value, .. } => Some(value),
                            _ => None,
                        },
                    ));
                }
                _ => {}
            }
        }
        let count = written.len();
        // The padding does not tell values apart: cut it off.
        let mut words: Vec<_> = written.iter().map(|value| value.bytes()).collect();
        for word in &mut words {
            word.truncate(word.iter().position(|byte| *byte == b'.').unwrap_or(word.len()));
        }
        words.sort();
        words.dedup();
        assert_eq!(words.len(), count, "seed {seed}");
    }
}

/// A fault that waits for its moment must have time for it.
#[test]
fn faults_that_wait_have_time_to_strike() {
    let mut waiting = 0;
    for seed in 0..200 {
        for row in generate::<KeyValue>(seed).faults.iter().filter(|row| row.fault.waits()) {
            waiting += 1;
            let until_us = row.until_us.unwrap_or(u64::MAX);
            assert!(until_us >= row.at_us + 100_000, "seed {seed}: {row:?}");
        }
    }
    assert!(waiting > 100, "only {waiting} such faults in 200 seeds");
}

#[test]
fn speed_plans_are_valid() {
    let steady = speed_plan::<KeyValue>(SpeedKind::Steady);
    assert_eq!(steady.check(), Ok(()));
    assert!(steady.faults.is_empty());
    let short = speed_plan::<KeyValue>(SpeedKind::PerSeed(9));
    assert_eq!(short.check(), Ok(()));
    assert_eq!((short.ops.len(), short.faults.len(), short.seed), (100, 5, 9));
    let large = speed_plan::<KeyValue>(SpeedKind::Nodes(31));
    assert_eq!((large.check(), large.cluster.nodes), (Ok(()), 31));
    for row in &short.ops {
        match Op::of(&row.call.op) {
            Some(Op::Put { value, .. }) => assert_eq!(value.bytes().len(), 64),
            op => panic!("{op:?} is not a put"),
        }
    }
}
