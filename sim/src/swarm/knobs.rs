//! Knobs: the storm of a seed with some kinds of faults taken out, or drawn in another way, to see
//! what is found then.
//!
//! All is drawn as ever, and what is switched off is taken out of the plan afterwards. So nothing
//! else moves: a plan with a group switched off is the seed's own plan, less that group.

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use crate::plan::{Delay, DiskFault, Fault, FaultRow, LinkFault, Member, Network, ProcessFault};

/// A group of faults, as a user knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Crashes, kills, pauses, slow processes, lost machines.
    Processes,
    /// Partitions, clogs, weather, and what links lose, repeat and damage in calm weather.
    Links,
    /// Errors and delays that a disk owns up to, and directory entries that it loses.
    Disks,
    /// Clocks that drift, jump or jitter.
    Clocks,
    /// Damage that a disk says nothing of: rot, misdirected writes, stale reads.
    Damage,
    /// All that the operator does: members come, go and hand over.
    Membership,
    /// Several faults in a sequence that tells a story, whatever they are.
    Stories,
}

impl Group {
    /// All of them, in a fixed order.
    pub const ALL: [Group; 7] = [
        Group::Processes,
        Group::Links,
        Group::Disks,
        Group::Clocks,
        Group::Damage,
        Group::Membership,
        Group::Stories,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Group::Processes => "processes",
            Group::Links => "links",
            Group::Disks => "disks",
            Group::Clocks => "clocks",
            Group::Damage => "damage",
            Group::Membership => "membership",
            Group::Stories => "stories",
        }
    }

    /// The group of a fault, whoever drew it.
    fn of(fault: &Fault) -> Group {
        match fault {
            Fault::Link(_) => Group::Links,
            Fault::Clock(..) => Group::Clocks,
            Fault::Disk(_, what) => match what {
                DiskFault::Rot(..) | DiskFault::Misdirect(_) | DiskFault::StaleRead(_) => {
                    Group::Damage
                }
                _ => Group::Disks,
            },
            _ => Group::Processes,
        }
    }
}

/// How the faults of a plan are chosen. The cluster, its clients and what they do are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// Each plan has some families only, and an intensity of its own: see `storm.rs`.
    #[default]
    Swarm,
    /// Each plan has all families, each as likely, and any number of faults; no link is perfect.
    Uniform,
    /// As in a swarm, but which message comes first is a matter of priorities: see `priorities.rs`.
    Priorities,
}

/// What is switched off, and how the rest is chosen; by default nothing is, as in a swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    off: BTreeSet<Group>,
    mix: Mix,
}

impl Knobs {
    /// Everything but this group.
    #[must_use]
    pub fn without(group: Group) -> Knobs {
        Knobs { off: BTreeSet::from([group]), ..Knobs::default() }
    }

    /// Everything, chosen in this way.
    #[must_use]
    pub fn mixed(mix: Mix) -> Knobs {
        Knobs { mix, ..Knobs::default() }
    }

    /// How the faults are chosen.
    pub(super) fn mix(&self) -> Mix {
        self.mix
    }

    /// Whether this group is switched off.
    #[must_use]
    pub fn is_off(&self, group: Group) -> bool {
        self.off.contains(&group)
    }

    /// Whether a fault stays in the plan; `story` if it is part of one.
    pub(super) fn keeps(&self, row: &FaultRow, story: bool) -> bool {
        // A disk that is lost for ever is an order to the operator to replace the member.
        let wipe = matches!(row.fault, Fault::Process(_, ProcessFault::Wipe));
        let off = (self.mix == Mix::Priorities && orders_messages(&row.fault))
            || self.is_off(Group::of(&row.fault))
            || (story && self.is_off(Group::Stories))
            || (wipe && self.is_off(Group::Membership));
        !off
    }

    /// Returns whether a fault sets the priority of a link, which is no fault of the seed's own.
    pub(super) fn sets_priority(&self, row: &FaultRow) -> bool {
        self.mix == Mix::Priorities && orders_messages(&row.fault)
    }

    /// Takes out what hits nodes that never come, because nobody adds them any more.
    pub(super) fn keep_founders(&self, faults: &mut Vec<FaultRow>, founders: u32) {
        if self.is_off(Group::Membership) {
            faults.retain(|row| hits_only(row, |node| node.0 <= u64::from(founders)));
        }
    }

    /// Calm weather as links have it that never lose, repeat or damage anything. They still take
    /// their time. With priorities, each message takes the same.
    pub(super) fn calm(&self, network: Network) -> Network {
        match self.is_off(Group::Links) {
            true => Network { drop: 0.0, duplicate: 0.0, garble: 0.0, heavy_tail: 0.0, ..network },
            false if self.mix == Mix::Priorities => Network {
                latency: Delay { mean_extra_us: 0, ..network.latency },
                heavy_tail: 0.0,
                spread: 1,
                ..network
            },
            false => network,
        }
    }
}

/// Returns whether all nodes that a fault names are there.
pub(super) fn hits_only(row: &FaultRow, is_there: impl Fn(NodeId) -> bool) -> bool {
    row.fault.members().iter().all(|member| match member {
        Member::Node(node) => is_there(*node),
        Member::Client(_) => true,
    })
}

/// Whether a fault only decides which message comes first.
fn orders_messages(fault: &Fault) -> bool {
    use LinkFault::{Clog, Lag, Throttle};
    matches!(fault, Fault::Link(Clog { .. } | Lag { .. } | Throttle { .. }))
}

#[cfg(test)]
mod tests {
    use super::super::{generate, generate_with};
    use super::*;
    use crate::kv::KeyValue;
    use crate::plan::Plan;

    /// The faults of these seeds without a group.
    fn plans(group: Group) -> impl Iterator<Item = (Plan, Plan)> {
        (0..300).map(move |seed| {
            (generate::<KeyValue>(seed), generate_with::<KeyValue>(seed, &Knobs::without(group)))
        })
    }

    #[test]
    fn what_is_off_is_gone_and_nothing_else_moves() {
        for group in Group::ALL {
            let mut fewer = 0;
            for (whole, part) in plans(group) {
                part.check().unwrap_or_else(|problem| panic!("{}: {problem}", whole.name));
                let mut rest = whole.faults.iter();
                assert!(part.faults.iter().all(|row| rest.any(|other| other == row)), "{group:?}");
                let mut rest = whole.ops.iter();
                assert!(part.ops.iter().all(|row| rest.any(|other| other == row)), "{group:?}");
                assert!(part.faults.iter().all(|row| Group::of(&row.fault) != group));
                assert_eq!((&part.cluster, &part.disk), (&whole.cluster, &whole.disk));
                fewer += u32::from(part != whole);
            }
            assert!(fewer > 20, "{group:?} is part of {fewer} plans only");
        }
    }

    #[test]
    fn without_processes_only_their_faults_and_replacements_go() {
        for (whole, part) in plans(Group::Processes) {
            let left = whole.faults.iter().filter(|row| Group::of(&row.fault) != Group::Processes);
            assert_eq!(part.faults, left.cloned().collect::<Vec<_>>(), "{}", whole.name);
        }
    }

    #[test]
    fn without_membership_the_operator_does_nothing() {
        for (_, part) in plans(Group::Membership) {
            assert!(part.ops.iter().all(|row| !row.call.op.is_admin()), "{}", part.name);
        }
    }

    #[test]
    fn without_links_nothing_is_lost() {
        for (whole, part) in plans(Group::Links) {
            let Network { drop, duplicate, garble, heavy_tail, .. } = part.network;
            assert!([drop, duplicate, garble, heavy_tail].iter().all(|share| *share == 0.0));
            assert_eq!(part.network.latency, whole.network.latency);
        }
    }

    #[test]
    fn another_mix_changes_the_faults_only() {
        for mix in [Mix::Uniform, Mix::Priorities] {
            for seed in 0..300 {
                let (swarm, other) = (
                    generate::<KeyValue>(seed),
                    generate_with::<KeyValue>(seed, &Knobs::mixed(mix)),
                );
                other.check().unwrap_or_else(|problem| panic!("{mix:?} {seed}: {problem}"));
                assert_eq!((&other.cluster, &other.clients), (&swarm.cluster, &swarm.clients));
                let asked = |plan: &Plan| {
                    plan.ops
                        .iter()
                        .filter(|row| !row.call.op.is_admin())
                        .cloned()
                        .collect::<Vec<_>>()
                };
                assert_eq!(asked(&other), asked(&swarm));
            }
        }
    }

    #[test]
    fn with_priorities_nothing_else_decides_what_comes_first() {
        for seed in 0..100 {
            let plan = generate_with::<KeyValue>(seed, &Knobs::mixed(Mix::Priorities));
            if plan.load.is_judged() {
                continue; // It has no faults at all.
            }
            assert_eq!((plan.network.latency.mean_extra_us, plan.network.heavy_tail), (0, 0.0));
            let is_link = |row: &&FaultRow| orders_messages(&row.fault);
            let only_lags = plan.faults.iter().filter(is_link);
            assert!(
                only_lags
                    .clone()
                    .all(|row| matches!(row.fault, Fault::Link(LinkFault::Lag { .. })))
            );
            assert_eq!(only_lags.count() == 0, plan.cluster.nodes + plan.cluster.learners < 2);
        }
    }

    #[test]
    fn each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Group::ALL.iter().map(|group| group.name()).collect();
        assert_eq!(names.len(), Group::ALL.len());
    }
}
