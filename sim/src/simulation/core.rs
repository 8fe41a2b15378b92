//! Who is healed when the faults stop, and how the others are lost for good.
//!
//! The core is a quorum or more, of every membership that may be in force then or later (see
//! `in_force.rs`). If that is not known, everybody is the core, which is always enough. A node outside of
//! the core stays as it has failed, or fails in one of the ways in which a node can: dead, frozen, cut off.
//! Random draws are keyed by node, so that one node's fate does not shift another's.

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use super::Simulation;
use super::observe::Observation;
use crate::disk::Crash;
use crate::network::{Endpoint, Rule, Side};
use crate::plan::{Core, LinkFault, MAX_NODE_ID, Member, Op};
use crate::rng::{Purpose, Stream};
use crate::service::{Service, parsed};

/// Numbers of the faults that are never mended: this plus the node's number.
const FOR_GOOD: u32 = u32::MAX - MAX_NODE_ID;

/// Of so many writes that clients have still to begin, one reaches the leader.
const MANY_WRITES: usize = 3;

/// How a node outside of the core is lost for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It was down already.
    Down,
    Crashed,
    Killed,
    Paused,
    /// It reaches nobody, and nobody reaches it.
    Isolated,
    /// Nobody hears it any more, but it hears everybody.
    Mute,
    /// It hears nobody any more, but everybody hears it.
    Deaf,
    /// Its disk completes no operation any more, without an error; the process goes on.
    Hung,
}

impl Loss {
    /// What may become of a node that is up.
    const ALL: [Loss; 7] = [
        Loss::Crashed,
        Loss::Killed,
        Loss::Paused,
        Loss::Isolated,
        Loss::Mute,
        Loss::Deaf,
        Loss::Hung,
    ];

    /// The name under which it is counted among the faults.
    fn kind(self) -> &'static str {
        match self {
            Loss::Down => "down-for-good",
            Loss::Crashed => "crash-for-good",
            Loss::Killed => "kill-for-good",
            Loss::Paused => "pause-for-good",
            Loss::Isolated => "isolate-for-good",
            Loss::Mute => "mute-for-good",
            Loss::Deaf => "deaf-for-good",
            Loss::Hung => "disk-hung-for-good",
        }
    }

    pub(super) fn describe(self) -> &'static str {
        match self {
            Loss::Down => "stays down",
            Loss::Crashed | Loss::Killed => "is down for good",
            Loss::Paused => "is paused for good",
            Loss::Isolated => "is cut off for good",
            Loss::Mute => "is heard by nobody for good",
            Loss::Deaf => "hears nobody for good",
            Loss::Hung => "has a disk that hangs for good",
        }
    }
}

/// Draws a core among the members that are `present`: intact voters, in a random order, until they
/// are a majority of each of these sets of voters; half of the time others too. `None` if the intact
/// voters are no majority.
fn choose(
    seed: u64,
    in_force: &BTreeSet<BTreeSet<NodeId>>,
    present: &[NodeId],
    is_intact: impl Fn(NodeId) -> bool,
) -> Option<BTreeSet<NodeId>> {
    let draw = |id: NodeId, number| Stream::new(seed, Purpose::Core, [id.0]).at(number);
    let mut members = present.to_vec();
    members.sort_by_key(|id| (draw(*id, 0).0, *id));
    let mut quorum = BTreeSet::new();
    let lacks = |quorum: &BTreeSet<NodeId>, voters: &BTreeSet<NodeId>| {
        2 * voters.intersection(quorum).count() <= voters.len()
    };
    for id in members.iter().copied().filter(|id| is_intact(*id)) {
        if in_force.iter().any(|voters| voters.contains(&id) && lacks(&quorum, voters)) {
            quorum.insert(id);
        }
    }
    if in_force.iter().any(|voters| lacks(&quorum, voters)) {
        return None;
    }
    // No more than a quorum is the hardest case, but then a larger core has to work, too.
    let others_in_four = [0, 0, 1, 3][Stream::new(seed, Purpose::Core, []).at(0).below(4) as usize];
    let joins = |id: &NodeId| draw(*id, 1).below(4) < others_in_four;
    quorum.extend(members.into_iter().filter(joins));
    Some(quorum)
}

impl<S: Service> Simulation<'_, S> {
    /// Who is healed; `None`: everybody.
    pub(super) fn choose_core(&mut self) -> Option<BTreeSet<NodeId>> {
        let mut is_unsettled = false;
        let core = match &self.plan.end.core {
            Core::All => return None,
            Core::Only(nodes) => Some(nodes.clone()),
            Core::Random => self.voters_in_force().and_then(|in_force| {
                let votes = |id: &NodeId| in_force.iter().any(|voters| voters.contains(id));
                let all = self.cluster.iter().filter(|slot| !slot.faults.is_retired());
                let present: Vec<NodeId> = all
                    .map(|slot| slot.id)
                    .filter(|id| self.cluster.membership().contains(*id) || votes(id))
                    .collect();
                is_unsettled = in_force.len() > 1;
                choose(self.kernel.seed(), &in_force, &present, |id| self.is_intact(id))
            }),
        };
        if is_unsettled && core.is_some() {
            self.reach("core-healed-during-change");
        }
        self.reach(if core.is_some() { "core-healed" } else { "core-undecided" });
        core
    }

    /// Whether a member still has all that it has ever promised to keep. Only intact members count
    /// when it is asked what a quorum can repair.
    pub(super) fn is_intact(&self, id: NodeId) -> bool {
        let slot = self.cluster.get(id);
        slot.is_some_and(|slot| !slot.faults.is_wiped()) && !self.atlas.is_damaged(id)
    }

    /// Whether the operator waits for a change of the membership, or has given up one that may
    /// happen at any time.
    pub(super) fn has_change_open(&self) -> bool {
        let waits = self.clients.all.iter().filter_map(|client| client.current.as_ref()).any(|c| {
            let op = &self.plan.ops[c.row].call.op;
            op.is_admin() && !matches!(op, Op::Transfer(_))
        });
        waits || !self.clients.doubtful_changes.is_empty()
    }

    /// How a node outside of the core has failed already, if that keeps all of it from the core.
    pub(super) fn present_loss(&self, id: NodeId) -> Option<Loss> {
        let slot = self.cluster.get(id)?;
        if !slot.is_up() {
            return Some(Loss::Down);
        }
        if slot.faults.is_paused() {
            return Some(Loss::Paused);
        }
        if slot.faults.disk_hangs() {
            return Some(Loss::Hung);
        }
        let core = self.core.as_ref()?;
        let node = Member::Node(id);
        let has_core = |side: &[Member]| core.iter().all(|id| side.contains(&Member::Node(*id)));
        let rows = self.plan.faults.iter().enumerate();
        let mut active = rows.filter(|(at, _)| self.network.is_active(*at as u32));
        active.find_map(|(at, row)| match row.fault.link()? {
            LinkFault::Isolate(_) => {
                let hit = self.victims.get(&at).is_some_and(|victims| victims.include(id));
                hit.then_some(Loss::Isolated)
            }
            LinkFault::OneWay { from, to } if from.contains(&node) && has_core(to) => {
                Some(Loss::Mute)
            }
            LinkFault::OneWay { from, to } if to.contains(&node) && has_core(from) => {
                Some(Loss::Deaf)
            }
            LinkFault::Partition(groups) => {
                let away = groups.iter().find(|group| has_core(group));
                let cut = away.is_some_and(|group| !group.contains(&node));
                let stands = groups.iter().any(|group| group.contains(&node));
                (cut && stands).then_some(Loss::Isolated)
            }
            _ => None,
        })
    }

    /// A node outside of the core: as it has failed it stays, and if it has not, it fails now.
    pub(super) fn lose(&mut self, id: NodeId, present: Option<Loss>) {
        let loss = present.unwrap_or_else(|| {
            let draw = self.kernel.stream(Purpose::Lost, [id.0]).at(0);
            Loss::ALL[draw.below(Loss::ALL.len() as u64) as usize]
        });
        // A leader learns that its disk hangs when it has something to write.
        let is_unnoticed = loss == Loss::Hung && self.cluster.leads(id) && !self.has_writes_left();
        let loss = if is_unnoticed { Loss::Killed } else { loss };
        let Some(slot) = self.cluster.get_mut(id) else { return };
        slot.faults.lose(loss);
        self.observers.coverage.count(loss.kind());
        self.observers.see(&Observation::Lost(id, loss));
        let fault = FOR_GOOD + id.0 as u32;
        let end = Endpoint::Node(id.0);
        match loss {
            Loss::Down => {}
            Loss::Crashed => self.crash(id, Crash::PowerLoss, fault),
            Loss::Killed => self.crash(id, Crash::Kill, fault),
            Loss::Paused => self.cluster.get_mut(id).expect("it is there").faults.pause(),
            Loss::Hung => self.cluster.get_mut(id).expect("it is there").faults.hang_disk(),
            Loss::Isolated => self.network.cut(fault, Rule::Isolate(vec![end])),
            Loss::Mute => {
                let (from, to) = (Side::Only(vec![end]), Side::Everybody);
                self.network.cut(fault, Rule::OneWay { from, to });
            }
            Loss::Deaf => {
                let (from, to) = (Side::Everybody, Side::Only(vec![end]));
                self.network.cut(fault, Rule::OneWay { from, to });
            }
        }
    }

    /// Returns whether clients have still to begin so many writes that one of them reaches the leader.
    fn has_writes_left(&self) -> bool {
        let reads =
            |at: usize| parsed::<S>(&self.plan.ops[at].call.op).is_some_and(|op| S::is_read(&op));
        let clients = self.clients.all.iter().filter(|client| client.number > 0);
        let writes = clients.flat_map(|client| &client.rows).filter(|at| !reads(**at));
        writes.count() >= MANY_WRITES
    }

    /// Whether `id` has to recover.
    pub(super) fn is_core(&self, id: NodeId) -> bool {
        self.core.as_ref().is_none_or(|core| core.contains(&id))
    }

    /// Why nothing can go on, if that is proven: more is damaged than a quorum can repair, and each
    /// member that has noticed has stopped with a clear error, or says that it is not whole and waits
    /// for others. Those who stopped because nobody came are started again, and stop again.
    pub(super) fn excuse(&self) -> Option<String> {
        let waits = |id: NodeId| self.cluster.node(id).is_some_and(|node| node.damage().is_some());
        let proven = self.plan.end.beyond_quorum
            && self.atlas.is_exceeded()
            && self.atlas.marks().any(|(_, mark)| mark.stopped)
            && self.atlas.marks().all(|(id, mark)| !mark.noticed || mark.stopped || waits(id));
        proven.then(|| {
            let damaged = super::stall::list(self.atlas.marks().map(|(id, _)| id));
            format!("{damaged} damaged beyond what the others could repair")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    proptest! {
        #[test]
        fn a_core_is_a_quorum_of_intact_members_or_there_is_none(
            seed: u64,
            in_force in prop::collection::btree_set(
                prop::collection::btree_set(1u64..=9, 1..=7), 1..=4
            ),
            damaged in prop::collection::btree_set(1u64..=9, 0..=4),
            absent in prop::collection::btree_set(1u64..=9, 0..=2),
        ) {
            let in_force: BTreeSet<_> = in_force.into_iter().map(ids).collect();
            let present: Vec<NodeId> =
                (1..=9).filter(|id| !absent.contains(id)).map(NodeId).collect();
            let is_intact = |id: NodeId| !damaged.contains(&id.0);
            let is_majority = |there: &dyn Fn(NodeId) -> bool| {
                in_force.iter().all(|voters| {
                    2 * voters.iter().filter(|id| there(**id)).count() > voters.len()
                })
            };
            let possible = is_majority(&|id| present.contains(&id) && is_intact(id));
            let core = choose(seed, &in_force, &present, is_intact);
            prop_assert_eq!(core.is_some(), possible);
            if let Some(core) = core {
                prop_assert!(is_majority(&|id| core.contains(&id) && is_intact(id)));
                prop_assert!(core.iter().all(|id| present.contains(id)));
            }
        }
    }

    #[test]
    fn every_quorum_may_be_the_core_and_often_it_is_no_larger() {
        let three = BTreeSet::from([ids(1..=3)]);
        let present: Vec<NodeId> = (1..=4).map(NodeId).collect();
        let mut seen = BTreeSet::new();
        let mut least = 0;
        for seed in 0..400 {
            let core = choose(seed, &three, &present, |_| true).expect("all are intact");
            least += u64::from(core.len() == 2);
            seen.insert(core.into_iter().map(|id| id.0).collect::<Vec<_>>());
        }
        for core in [&[1, 2][..], &[1, 3], &[2, 3], &[1, 2, 3], &[1, 2, 4], &[1, 2, 3, 4]] {
            assert!(seen.contains(core), "{core:?} never came, but {seen:?}");
        }
        assert!((200..320).contains(&least), "{least} of 400 are a quorum and no more");
    }

    #[test]
    fn the_fate_of_one_node_does_not_shift_that_of_another() {
        let five = BTreeSet::from([ids(1..=5)]);
        let all: Vec<NodeId> = (1..=5).map(NodeId).collect();
        for seed in 0..100 {
            let core = choose(seed, &five, &all, |_| true).expect("all are intact");
            let Some(outside) = all.iter().find(|id| !core.contains(id)) else { continue };
            let others: Vec<NodeId> = all.iter().copied().filter(|id| id != outside).collect();
            assert_eq!(choose(seed, &five, &others, |_| true), Some(core), "seed {seed}");
        }
    }
}
