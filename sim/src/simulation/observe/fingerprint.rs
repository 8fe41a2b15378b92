//! A coarse picture of the cluster after an event, as one number: what a search for new behaviour
//! goes by.
//!
//! Two moments look the same if the nodes are in the same situations, whoever is in which, the
//! network suffers from the same kinds of faults, and the same kinds of messages are under way. Of
//! numbers only the order of magnitude counts; otherwise every moment would be new. Without a
//! reader nothing of this costs anything.

use stormkv::node::{Role, Status};
use stormkv::types::{LogIndex, NodeId, Term};
use stormkv::wire::Kind;

use super::super::Simulation;
use crate::network::Rule;
use crate::rng::mix;
use crate::service::Service;

/// Takes one picture.
pub type Pictures = Box<dyn FnMut(u64)>;

/// The situation of a node that is down, or does not go on.
const DOWN: u64 = u64::MAX;

pub(in crate::simulation) struct Portrait {
    pub sink: Pictures,
    /// Until when messages of each kind are under way.
    flying_until_ns: [u64; Kind::ALL.len()],
    situations: Vec<u64>,
}

impl Portrait {
    pub fn new(sink: Pictures) -> Portrait {
        Portrait { sink, flying_until_ns: [0; Kind::ALL.len()], situations: Vec::new() }
    }

    /// A message will arrive.
    pub fn sent(&mut self, kind: Kind, at_ns: u64) {
        let until = &mut self.flying_until_ns[kind as usize];
        *until = (*until).max(at_ns);
    }

    /// Which kinds of messages are under way: one bit for each.
    fn flying(&self, now_ns: u64) -> u64 {
        let kinds = self.flying_until_ns.iter().enumerate();
        kinds.filter(|(_, until)| **until > now_ns).fold(0, |bits, (kind, _)| bits | 1 << kind)
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Hands the present picture to the reader, if there is one.
    pub(in crate::simulation) fn portray(&mut self) {
        let Some(mut portrait) = self.observers.fingerprint.take() else { return };
        let mut situations = std::mem::take(&mut portrait.situations);
        situations.clear();
        let terms = self.newest_terms();
        let nodes = self.cluster.iter().filter(|slot| !slot.is_gone());
        situations.extend(nodes.map(|slot| match &slot.driver {
            Some(driver) if !slot.faults.is_paused() => {
                situation(&driver.node().status(), terms, self.cluster.newest_applied())
            }
            _ => DOWN,
        }));
        // Nobody has a name.
        situations.sort_unstable();
        let weather = self.network.rules().fold(0, |bits, rule| bits | 1 << trouble(rule));
        let mut picture = mix(weather, portrait.flying(self.kernel.now_ns()), 0);
        for situation in &situations {
            picture = mix(picture, *situation, 1);
        }
        (portrait.sink)(picture);
        portrait.situations = situations;
        self.observers.fingerprint = Some(portrait);
    }

    /// The highest term of any node, and the next one below.
    fn newest_terms(&self) -> (Term, Term) {
        let (mut first, mut second) = (0, 0);
        for (_, _, term) in self.cluster.roles() {
            if term > first {
                (first, second) = (term, first);
            } else if term < first {
                second = second.max(term);
            }
        }
        (first, second)
    }
}

/// The situation of a node that is up.
fn situation(status: &Status, (first, second): (Term, Term), newest: LogIndex) -> u64 {
    let role = match status.role {
        Role::Follower => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    };
    let term = status.hard_state.term;
    let age = if term == first { 0 } else { 2 - u64::from(term == second) };
    let vote = match status.hard_state.vote {
        NodeId(0) => 0,
        vote => 1 + u64::from(vote == status.id),
    };
    let uncommitted = magnitude(status.last.index.saturating_sub(status.hard_state.commit));
    let lag = magnitude(newest.saturating_sub(status.applied.index));
    [age, vote, uncommitted, lag].iter().fold(role, |code, part| code << 3 | part)
}

/// 0, 1, 2 to 7, 8 to 63, and more.
fn magnitude(count: u64) -> u64 {
    match count {
        0 | 1 => count,
        2..8 => 2,
        8..64 => 3,
        _ => 4,
    }
}

/// What kind of trouble a rule makes.
fn trouble(rule: &Rule) -> u32 {
    match rule {
        Rule::Groups(_) | Rule::Isolate(_) | Rule::Bridge { .. } | Rule::Ring { .. } => 0,
        Rule::OneWay { .. } => 1,
        Rule::Clog { .. } => 2,
        Rule::Lag { .. } | Rule::Throttle { .. } => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use super::super::super::{RunOptions, run};
    use super::*;
    use crate::kv::KeyValue;
    use crate::swarm;

    #[test]
    fn pictures_are_determined_and_change_nothing() {
        let (mut all, mut different) = (0, 0);
        for seed in 0..10 {
            let plan = swarm::generate::<KeyValue>(seed);
            let portrayed = || {
                let pictures = Rc::new(RefCell::new(Vec::new()));
                let taken = pictures.clone();
                let sink = move |picture| taken.borrow_mut().push(picture);
                let mut options =
                    RunOptions { pictures: Some(Box::new(sink)), ..RunOptions::default() };
                (run::<KeyValue>(&plan, &mut options), pictures.take())
            };
            let (outcome, pictures) = portrayed();
            assert_eq!((&outcome, &pictures), (&portrayed().0, &portrayed().1));
            assert_eq!(outcome, run::<KeyValue>(&plan, &mut RunOptions::default()));
            all += pictures.len();
            different += pictures.iter().collect::<BTreeSet<_>>().len();
        }
        // Many moments look the same, or nothing would ever be new.
        assert!((1000..all / 2).contains(&different), "{different} of {all} pictures");
    }

    #[test]
    fn a_picture_has_the_order_of_magnitude() {
        let codes: BTreeSet<_> = [0, 1, 2, 7, 8, 63, 64, 1 << 40].map(magnitude).into();
        assert_eq!(codes, BTreeSet::from([0, 1, 2, 3, 4]));
    }
}
