//! Faults at random: what they do, whom they hit, and when they end. The choices come from one seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use stormkv_sim::rng::{Purpose, Stream};

use super::fleet::Fleet;
use super::guests::Guests;
use super::http::{Connection, Request};
use super::net::State;

/// Faults at the same time.
const AT_ONCE: usize = 2;
/// The part of a disk that the nodes keep for their logs, in MiB.
pub const RESERVE_MIB: u64 = 4;

/// A fault under way, by what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Killed, and perhaps started at another address.
    Down {
        id: u64,
        moves: bool,
    },
    AllDown {
        moves: bool,
    },
    Paused(u64),
    Network,
    Full(u64),
    Hung(u64),
}

impl Fault {
    /// The node that it hits, if it is one.
    fn node(self) -> Option<u64> {
        match self {
            Fault::Down { id, .. } | Fault::Paused(id) | Fault::Full(id) | Fault::Hung(id) => {
                Some(id)
            }
            Fault::AllDown { .. } | Fault::Network => None,
        }
    }
}

/// Injects faults and clears them a moment later.
pub struct Nemesis {
    choices: Stream,
    active: Vec<(Instant, Fault)>,
    next_at: Instant,
    counts: BTreeMap<&'static str, u64>,
    /// The members that come and go.
    pub guests: Guests,
}

impl Nemesis {
    /// Kinds of faults in a fleet whose disks can be controlled.
    pub const KINDS: [&'static str; 15] = [
        "bridge",
        "cut",
        "disk full",
        "disk full, reported",
        "disk hangs",
        "isolate",
        "kill",
        "kill all",
        "kill all and move them",
        "kill and move",
        "member joins",
        "one way",
        "pause",
        "member leaves",
        "transfer",
    ];

    /// A nemesis of the founders 1 to `founders`.
    pub fn new(seed: u64, founders: u64) -> Nemesis {
        Nemesis {
            choices: Stream::new(seed, Purpose::Plan, [1]),
            active: Vec::new(),
            next_at: Instant::now(),
            counts: BTreeMap::new(),
            guests: Guests::new(seed, founders + 1),
        }
    }

    /// The number of faults so far, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let (joined, removed) = self.guests.counts();
        let mut counts = self.counts.clone();
        counts.extend([("member joins", joined), ("member leaves", removed)]);
        counts
    }

    fn between(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.choices.below(most_ms - least_ms))
    }

    fn one_of(&mut self, ids: &[u64]) -> u64 {
        ids[self.choices.below(ids.len() as u64) as usize]
    }

    /// Clears what is due, lets the guests advance, and injects the next fault when it is time.
    pub fn step(&mut self, fleet: &mut Fleet) {
        self.clear(fleet, |at| at <= Instant::now());
        self.guests.advance(fleet);
        self.assert_running(fleet);
        if Instant::now() >= self.next_at && self.active.len() < AT_ONCE {
            if let Some(name) = self.inject(fleet) {
                *self.counts.entry(name).or_default() += 1;
            }
            self.next_at = Instant::now() + self.between(50, 900);
        }
    }

    /// Injects a fault and returns its name; `None` if this one is not possible now.
    fn inject(&mut self, fleet: &mut Fleet) -> Option<&'static str> {
        let ids = fleet.ids();
        let any = self.one_of(&ids);
        // Half of the time the leader, because that hurts most.
        let leader = if self.choices.below(2) == 0 { fleet.leader_among(&ids) } else { None };
        let victim = leader.unwrap_or(any);
        let others = fleet.others(victim);
        let states = [State::Silent, State::Refused, State::Slow(self.between(5, 80))];
        let state = states[self.choices.below(3) as usize];
        let moves = self.choices.below(4) == 0;
        let kind = self.choices.below(120);
        let lasts = self.between(200, 3000);
        let network = self.active.iter().any(|(_, fault)| *fault == Fault::Network);
        let up = fleet.node(victim).is_up() && !fleet.node(victim).is_paused();
        let (name, fault) = match kind {
            0..28 if up => {
                fleet.node(victim).kill();
                let name = if moves { "kill and move" } else { "kill" };
                (name, Fault::Down { id: victim, moves })
            }
            28..46 if up => {
                fleet.node(victim).pause();
                ("pause", Fault::Paused(victim))
            }
            46..54 if self.active.is_empty() => {
                let name = if moves { "kill all and move them" } else { "kill all" };
                fleet.kill_all();
                (name, Fault::AllDown { moves })
            }
            54..66 if !network => {
                fleet.network.split(&[victim], &others, state);
                ("isolate", Fault::Network)
            }
            66..74 if !network => {
                fleet.network.block(&[victim], &others, state);
                ("one way", Fault::Network)
            }
            74..82 if !network => {
                fleet.network.split(&[victim], &others[..1], state);
                ("bridge", Fault::Network)
            }
            82..90 => {
                for other in others {
                    fleet.network.cut((victim, other));
                    fleet.network.cut((other, victim));
                }
                return Some("cut");
            }
            90..100 if fleet.controls_disks() => {
                // From half of the reserve, which something else has taken, to just enough.
                let reserve = RESERVE_MIB << 20;
                let bytes = reserve / 2 + self.choices.below(2 * reserve);
                fleet.disk(victim).leave(bytes);
                let lasts = self.between(1000, 6000);
                self.active.push((Instant::now() + lasts, Fault::Full(victim)));
                return Some("disk full");
            }
            100..106 if fleet.controls_disks() => {
                fleet.disk(victim).hang(true);
                ("disk hangs", Fault::Hung(victim))
            }
            106..110 if up => {
                let to = self.one_of(&others);
                let request = Request::new("POST", "/v1/leader").json(&json!({ "id": to }));
                let mut connection =
                    Connection::new(fleet.node(victim).http, Duration::from_secs(1));
                return connection.ask(&request).ok().map(|_| "transfer");
            }
            110.. => {
                self.guests.invite(fleet);
                // It counts when it is a member.
                return None;
            }
            _ => return None,
        };
        self.active.push((Instant::now() + lasts, fault));
        Some(name)
    }

    /// Clears all faults.
    pub fn clear_all(&mut self, fleet: &mut Fleet) {
        self.clear(fleet, |_| true);
    }

    fn clear(&mut self, fleet: &mut Fleet, due: impl Fn(Instant) -> bool) {
        let (ended, active) = self.active.drain(..).partition(|(at, _)| due(*at));
        self.active = active;
        let ended: Vec<(Instant, Fault)> = ended;
        for (_, fault) in ended {
            if fault.node().is_some_and(|id| !fleet.nodes.contains_key(&id)) {
                // A guest that has left since then.
                continue;
            }
            match fault {
                Fault::Down { id, moves } => {
                    if moves {
                        fleet.renumber(id);
                    }
                    fleet.node(id).start();
                }
                Fault::AllDown { moves } => {
                    let ids = if moves { fleet.ids() } else { Vec::new() };
                    for id in ids {
                        fleet.renumber(id);
                    }
                    fleet.start_all();
                }
                Fault::Paused(id) => fleet.node(id).resume(),
                Fault::Network => fleet.network.heal(),
                Fault::Full(id) => self.empty(fleet, id),
                Fault::Hung(id) => fleet.disk(id).hang(false),
            }
        }
    }

    fn empty(&mut self, fleet: &mut Fleet, id: u64) {
        // A paused one would not answer.
        let answers = fleet.node(id).is_up() && !fleet.node(id).is_paused();
        if answers && fleet.status(id).is_some_and(|status| status["disk_full"] == true) {
            *self.counts.entry("disk full, reported").or_default() += 1;
        }
        fleet.disk(id).free();
    }

    /// No process may end that was not killed.
    #[track_caller]
    pub fn assert_running(&self, fleet: &mut Fleet) {
        for id in fleet.ids() {
            let killed = self.active.iter().any(|(_, fault)| match fault {
                Fault::Down { id: other, .. } => *other == id,
                Fault::AllDown { .. } => true,
                _ => false,
            });
            let may_be_down = killed || self.guests.may_have_ended(id);
            assert!(may_be_down || fleet.node(id).is_up(), "node {id} has ended without a reason");
        }
    }
}
