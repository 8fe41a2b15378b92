//! Everything at once, at random, for as long as wanted.
//!
//! kill -9, SIGSTOP, cut, silent and slow links strike at random while concurrent clients work, and
//! are mended a moment later; sometimes all nodes die together. The choices come from one seed,
//! which is printed; what the nodes make of them is up to the real world, so a seed repeats the
//! storm, not the run. In the end all is healed, and then: every window's history is linearizable,
//! every acknowledged write is there, and all members hold the same, byte for byte.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use stormkv_sim::rng::{Purpose, Stream};

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::encode;
use crate::harness::net::State;
use crate::harness::record::{Remnant, judge};
use crate::harness::turn;

/// How long the storm lasts if nobody asks for more.
const DEFAULT_SECONDS: u64 = 20;
/// How long a window of the history is.
const WINDOW: Duration = Duration::from_secs(8);
/// Faults at the same time.
const AT_ONCE: usize = 2;

/// A fault under way, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    Start(u64),
    StartAll,
    Resume(u64),
    Network,
}

/// What strikes, and what it has done so far.
struct Nemesis {
    choices: Stream,
    active: Vec<(Instant, Mend)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Nemesis {
    fn new(seed: u64) -> Nemesis {
        let choices = Stream::new(seed, Purpose::Plan, [1]);
        Nemesis { choices, active: Vec::new(), counts: BTreeMap::new() }
    }

    fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.choices.below(most_ms - least_ms))
    }

    /// Strikes once, and notes when it will be mended.
    fn strike(&mut self, fleet: &mut Fleet) {
        let ids = fleet.ids();
        let any = ids[self.choices.below(ids.len() as u64) as usize];
        // Half of the time whoever leads, because that hurts most.
        let leader = if self.choices.below(2) == 0 { fleet.leader_among(&ids) } else { None };
        let victim = leader.unwrap_or(any);
        let others = fleet.others(victim);
        let states = [State::Silent, State::Refused, State::Slow(self.between(5, 80))];
        let state = states[self.choices.below(3) as usize];
        let kind = self.choices.below(100);
        let lasts = self.between(200, 3000);
        let busy = |mend: Mend| self.active.iter().any(|(_, other)| *other == mend);
        let up = fleet.node(victim).is_up() && !fleet.node(victim).is_paused();
        let (name, mend) = match kind {
            0..30 if up => {
                fleet.node(victim).kill();
                ("kill", Mend::Start(victim))
            }
            30..50 if up => {
                fleet.node(victim).pause();
                ("pause", Mend::Resume(victim))
            }
            50..56 if self.active.is_empty() => {
                fleet.kill_all();
                ("kill all", Mend::StartAll)
            }
            56..70 if !busy(Mend::Network) => {
                fleet.network.split(&[victim], &others, state);
                ("isolate", Mend::Network)
            }
            70..80 if !busy(Mend::Network) => {
                fleet.network.block(&[victim], &others, state);
                ("one way", Mend::Network)
            }
            80..90 if !busy(Mend::Network) => {
                fleet.network.split(&[victim], &others[..1], state);
                ("bridge", Mend::Network)
            }
            90..100 => {
                for other in others {
                    fleet.network.cut((victim, other));
                    fleet.network.cut((other, victim));
                }
                return *self.counts.entry("cut").or_default() += 1;
            }
            _ => return,
        };
        *self.counts.entry(name).or_default() += 1;
        self.active.push((Instant::now() + lasts, mend));
    }

    /// Mends what is due, or everything.
    fn mend(&mut self, fleet: &mut Fleet, all: bool) {
        let now = Instant::now();
        let (due, later) = self.active.drain(..).partition(|(at, _)| all || *at <= now);
        self.active = later;
        let due: Vec<(Instant, Mend)> = due;
        for (_, mend) in due {
            match mend {
                Mend::Start(id) => fleet.node(id).start(),
                Mend::StartAll => fleet.start_all(),
                Mend::Resume(id) => fleet.node(id).resume(),
                Mend::Network => fleet.network.heal(),
            }
        }
    }

    /// No process may end that was not killed.
    #[track_caller]
    fn nobody_died(&self, fleet: &mut Fleet) {
        for id in fleet.ids() {
            let killed = self.active.iter().any(|(_, mend)| {
                matches!(mend, Mend::Start(other) if *other == id) || *mend == Mend::StartAll
            });
            assert!(killed || fleet.node(id).is_up(), "node {id} has ended by itself");
        }
    }
}

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

/// The storm: twenty seconds, or as many as `STORM_CHAOS_SECONDS` says.
#[test]
fn chaos_loses_nothing() {
    let _turn = turn();
    let seconds = variable("STORM_CHAOS_SECONDS").unwrap_or(DEFAULT_SECONDS);
    let seed = variable("STORM_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("repeat this storm: STORM_SEED={seed} STORM_CHAOS_SECONDS={seconds}");
    // Small numbers, so that snapshots and full segments are part of it.
    let mut fleet = Fleet::found_with(
        3,
        &["--snapshot-every", "500", "--keep-entries", "100", "--segment-mib", "1"],
    );
    let addresses: Vec<_> = fleet.nodes.values().map(|node| node.http).collect();
    let mut load = Load::start(&addresses, &Options::new(seed));
    let mut nemesis = Nemesis::new(seed);
    let mut remnants = Vec::new();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut window_ends = Instant::now() + WINDOW;
    let mut strikes_at = Instant::now();
    while Instant::now() < end {
        nemesis.mend(&mut fleet, false);
        nemesis.nobody_died(&mut fleet);
        if Instant::now() >= strikes_at && nemesis.active.len() < AT_ONCE {
            nemesis.strike(&mut fleet);
            strikes_at = Instant::now() + nemesis.between(50, 900);
        }
        if Instant::now() >= window_ends {
            // Somebody must be able to answer the readings.
            nemesis.mend(&mut fleet, true);
            let (window, history) = load.rotate();
            judge(&history, fleet.folder(), &format!("window-{window}"));
            remnants.push((window, Remnant::of(&history)));
            window_ends = Instant::now() + WINDOW;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    nemesis.mend(&mut fleet, true);
    let mut done = load.finish();
    println!("{:?}, faults {:?}", done.counts, nemesis.counts);
    judge(&done.history, fleet.folder(), "last-window");
    remnants.push((done.window, Remnant::of(&done.history)));
    for (window, remnant) in remnants {
        let readings = done.readings(window);
        remnant.judge(&readings, fleet.folder(), &format!("remnant-{window}"));
    }
    done.nothing_is_lost();
    fleet.converge(&[1, 2, 3]);
    let one = contents(&fleet, 1).expect("node 1 serves");
    for id in [2, 3] {
        let other = contents(&fleet, id).expect("it serves");
        assert!(one == other, "nodes 1 and {id} hold different entries");
    }
    assert!(one.len() >= done.written.len(), "there is less than was acknowledged");
    assert!(done.counts.ok > 50 * seconds, "the clients hardly got on: {:?}", done.counts);
    nemesis.nobody_died(&mut fleet);
}
