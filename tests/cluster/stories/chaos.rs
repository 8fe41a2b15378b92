//! Everything at once, at random, for as long as wanted.
//!
//! Faults are kill -9, SIGSTOP, cut, silent and slow links, full and hanging disks, at random, while
//! concurrent clients work; each ends a moment later. Members join and are removed. Members that were
//! killed come back at other addresses; sometimes all die together and all come back elsewhere.
//! While all are down, a quorum of the directories is sometimes recovered as a cluster of its own.
//! The choices come from one seed, which is printed; what the nodes make of them is up to the real
//! world, so a seed repeats the storm, not the run. In the end all faults are over, and then: every
//! window's history is linearizable, every acknowledged write is there, and all members hold the
//! same, byte for byte, as does what is recovered from the directory of any one of them.

use std::env;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormkv_sim::rng::{Purpose, Stream};

use super::operations::done;
use crate::harness::clients::{Load, Options, are_there, list_written};
use crate::harness::fleet::Fleet;
use crate::harness::http::encode;
use crate::harness::nemesis::{Nemesis, RESERVE_MIB};
use crate::harness::record::{Remnant, judge};
use crate::harness::turn;

/// The storm lasts so long unless the environment says otherwise.
const DEFAULT_SECONDS: u64 = 20;
/// From here on a storm is long enough that each kind of fault should occur.
const LONG_SECONDS: u64 = 300;
/// How long a window of the history is.
const WINDOW: Duration = Duration::from_secs(8);
/// Every so many windows the cluster is recovered from its directories.
const WINDOWS_PER_RECOVERY: u64 = 4;

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// All that a member holds, by its own account.
fn contents(fleet: &Fleet, id: u64) -> Option<Vec<Json>> {
    let mut all: Vec<Json> = Vec::new();
    let mut after = String::new();
    loop {
        let target =
            format!("/v1/kv?prefix=&after={}&limit=1000&consistency=stale", encode(&after));
        let page = fleet.nodes[&id].get(&target)?.json();
        all.extend(page["entries"].as_array()?.iter().cloned());
        if page["more"] != true {
            return Some(all);
        }
        after = all.last()?["key"].as_str()?.to_owned();
    }
}

/// A new cluster of one, with what the directories of these nodes hold. They are down.
fn recover(fleet: &Fleet, from: &[u64]) -> Fleet {
    let mut new = Fleet::prepare(1, &[]);
    let directories: Vec<String> =
        from.iter().map(|id| fleet.nodes[id].data.display().to_string()).collect();
    let (into, url) = (new.node(1).data.display().to_string(), new.node(1).url.clone());
    let mut words = vec!["recover", "--id", "1", "--cluster", &url, "--into", &into, "--yes"];
    words.extend(directories.iter().flat_map(|path| ["--data-dir", path.as_str()]));
    done(&words);
    new.start_all();
    new.leader();
    new
}

/// The storm: twenty seconds, or as many as `STORM_CHAOS_SECONDS` says.
#[test]
fn chaos_loses_nothing() {
    let _turn = turn();
    let seconds = variable("STORM_CHAOS_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let seed = variable("STORM_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("repeat this storm: STORM_SEED={seed} STORM_CHAOS_SECONDS={seconds}");
    // Small numbers, so that snapshots, full segments and full disks are part of it.
    let reserve = RESERVE_MIB.to_string();
    let mut fleet = Fleet::prepare(
        3,
        &[
            ["--snapshot-every", "500"],
            ["--keep-entries", "100"],
            ["--segment-mib", "1"],
            ["--reserve-mib", &reserve],
        ]
        .concat(),
    );
    fleet.control_disks();
    fleet.start_all();
    fleet.leader();
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let mut load = Load::start(&addresses, &Options::new(seed));
    let mut nemesis = Nemesis::new(seed, 3);
    let mut choices = Stream::new(seed, Purpose::Plan, [3]);
    let mut remnants = Vec::new();
    let mut recoveries = 0;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut window_ends = Instant::now() + WINDOW;
    while Instant::now() < end {
        nemesis.step(&mut fleet);
        if Instant::now() >= window_ends {
            // A quorum must be able to answer the readings.
            nemesis.clear_all(&mut fleet);
            let (window, history) = load.rotate();
            judge(&history, fleet.folder(), &format!("window-{window}"));
            remnants.push((window, Remnant::of(&history)));
            window_ends = Instant::now() + WINDOW;
        } else if remnants.len() as u64 > recoveries * WINDOWS_PER_RECOVERY
            && choices.below(100) == 0
        {
            recoveries += 1;
            nemesis.clear_all(&mut fleet);
            fleet.kill_all();
            // With two guests at most, three founders are part of every quorum.
            let new = recover(&fleet, &[1, 2, 3]);
            are_there(&load.written(), &list_written(new.nodes[&1].http));
            drop(new);
            fleet.start_all();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    nemesis.clear_all(&mut fleet);
    nemesis.guests.settle(&mut fleet);
    let mut done = load.finish();
    let counts = nemesis.counts();
    println!("{:?}, {recoveries} recoveries in between, faults {counts:?}", done.counts);
    judge(&done.history, fleet.folder(), "last-window");
    remnants.push((done.window, Remnant::of(&done.history)));
    for (window, remnant) in remnants {
        let readings = done.readings(window);
        remnant.judge(&readings, fleet.folder(), &format!("remnant-{window}"));
    }
    done.nothing_is_lost();
    let members = fleet.ids();
    fleet.converge(&members);
    let one = contents(&fleet, 1).expect("node 1 serves");
    for id in &members {
        let other = contents(&fleet, *id).expect("it serves");
        assert!(one == other, "nodes 1 and {id} hold different entries");
    }
    assert!(one.len() >= done.written.len(), "there is less than was acknowledged");
    assert!(done.counts.ok > 50 * seconds, "the clients hardly got on: {:?}", done.counts);
    nemesis.assert_running(&mut fleet);
    fleet.kill_all();
    let last = recover(&fleet, &[1 + choices.below(3)]);
    let recovered = contents(&last, 1).expect("the recovered node serves");
    assert!(one == recovered, "what is recovered is not what the members held");
    if seconds >= LONG_SECONDS && fleet.controls_disks() {
        for kind in Nemesis::KINDS {
            assert!(counts.get(kind).is_some_and(|count| *count > 0), "no `{kind}`: {counts:?}");
        }
        assert!(recoveries > 0);
    }
}
