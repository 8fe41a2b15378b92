//! Why a cluster does not come to rest, in words that name what is missing.
//!
//! The simulator sees all members at once, so it can say what none of them knows: which quorum
//! cannot meet, who could win an election and who refuses whom, which entry a member lacks and who
//! has it, which snapshot it waits for, at which node a request waits, who stops again and again.

use crate::service::Service;
use std::collections::BTreeSet;

use stormkv::node::{Membership, Node, Promise, Status};
use stormkv::types::{LogIndex, NodeId};

use super::Simulation;
use super::observe::text;

/// What the cluster lacks to be at rest. All but the first name the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nobody leads.
    Leader,
    /// The client at this place waits for an answer.
    Answer(NodeId, usize),
    /// The end of a joint membership.
    SingleMembership(NodeId),
    /// The vote of a member that was promised one.
    Vote(NodeId, NodeId),
    /// The leader has not applied its whole log.
    Applied(NodeId),
    /// A member is down.
    Running(NodeId, NodeId),
    /// A member has not applied what the leader has.
    Agreement(NodeId, NodeId),
    /// A member has lost something and not got it back.
    Repair(NodeId, NodeId),
    /// A member keeps requests waiting.
    Requests(NodeId),
}

impl Missing {
    /// The node that it is about.
    pub(super) fn about(self) -> Option<NodeId> {
        match self {
            Missing::Leader => None,
            Missing::Answer(id, _)
            | Missing::SingleMembership(id)
            | Missing::Vote(_, id)
            | Missing::Applied(id)
            | Missing::Running(_, id)
            | Missing::Agreement(_, id)
            | Missing::Repair(_, id)
            | Missing::Requests(id) => Some(id),
        }
    }
}

/// `n1, n2`; `nobody` if there are none.
pub(super) fn list(ids: impl IntoIterator<Item = NodeId>) -> String {
    let names: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}

impl<S: Service> Simulation<'_, S> {
    /// The leader of the newest term that any node of the core leads.
    pub(super) fn core_leader(&self) -> Option<NodeId> {
        self.cluster.leader_of(|id| self.is_core(id))
    }

    /// What the core lacks to be at rest; costs little if that is soon clear.
    pub(super) fn missing(&self) -> Option<Missing> {
        let Some((leader, node)) =
            self.core_leader().and_then(|id| Some((id, self.cluster.node(id)?)))
        else {
            return Some(Missing::Leader);
        };
        // Rather one that waits than one whose time has not come.
        let clients = &self.clients.all;
        let waiting = clients.iter().position(|client| client.current.is_some());
        let unbegun = || clients.iter().position(|client| !client.rows.is_empty());
        if let Some(lane) = waiting.or_else(unbegun) {
            return Some(Missing::Answer(leader, lane));
        }
        let (status, membership) = (node.status(), node.membership());
        if membership.is_joint() {
            return Some(Missing::SingleMembership(leader));
        }
        if status.applied.index < status.last.index {
            return Some(Missing::Applied(leader));
        }
        let members = membership.voters().union(membership.learners());
        let demanded = |id: &NodeId| self.is_core(*id) && !self.is_wiped(*id);
        members
            .copied()
            .filter(demanded)
            .find_map(|id| match self.cluster.node(id) {
                None => Some(Missing::Running(leader, id)),
                Some(peer) if peer.status().applied != status.applied => {
                    Some(Missing::Agreement(leader, id))
                }
                Some(peer) if peer.damage().is_some() => Some(Missing::Repair(leader, id)),
                Some(peer) if peer.pending() > 0 => Some(Missing::Requests(id)),
                Some(_) => None,
            })
            .or_else(|| self.missing_vote(leader, membership))
    }

    /// A promised voter whose promise can be kept without the members that are lost.
    fn missing_vote(&self, leader: NodeId, membership: &Membership) -> Option<Missing> {
        let demanded = |id: NodeId| self.is_core(id) && !self.is_wiped(id);
        let can_be_kept = |promise: &&Promise| {
            let stays = |id: &NodeId| membership.voters().contains(id) && !promise.unseats(*id);
            let all = membership.voters().union(promise.voters());
            let after: Vec<NodeId> = all.copied().filter(|id| !promise.unseats(*id)).collect();
            let there = after.iter().filter(|id| demanded(**id)).count();
            promise.voters().iter().all(|id| demanded(*id))
                && there > after.len() / 2
                && membership.voters().iter().any(|id| stays(id) && demanded(*id))
        };
        let promise = membership.promises().iter().find(can_be_kept)?;
        promise.voters().first().map(|id| Missing::Vote(leader, *id))
    }

    /// What is missing, and as far as can be seen why.
    pub(super) fn explain_stall(&self) -> String {
        // Somebody leads and nothing else is missing: then nobody follows it.
        let what = match self.missing().unwrap_or(Missing::Leader) {
            Missing::Leader => self.explain_no_leader(),
            Missing::Answer(leader, client) => self.explain_no_answer(leader, client),
            Missing::SingleMembership(leader) => {
                let uncommitted = self.explain_uncommitted(leader);
                format!("the membership is still joint (leader {leader}){uncommitted}")
            }
            Missing::Vote(leader, id) => {
                format!("leader {leader} has promised {id} a vote, and does not give it")
            }
            Missing::Applied(leader) => {
                self.cluster.status(leader).map_or_else(String::new, |status| {
                    let uncommitted = self.explain_uncommitted(leader);
                    let (applied, last) = (status.applied.index, status.last.index);
                    format!("leader {leader} has applied {applied} of {last} entries{uncommitted}")
                })
            }
            Missing::Repair(leader, id) => {
                let floor = self.cluster.node(id).and_then(|node| Some(node.damage()?.floor));
                let floor = floor.unwrap_or_default();
                format!(
                    "{id} is damaged and lacks what was before entry {}@{} of its log (leader {leader})",
                    floor.index, floor.term
                )
            }
            Missing::Requests(id) => {
                let pending = self.cluster.node(id).map_or(0, Node::pending);
                let requests = if pending == 1 { "request" } else { "requests" };
                format!("{id} keeps {pending} {requests} waiting that nobody asks for any more")
            }
            Missing::Running(_, id) => format!("{id} is not running: {}", self.whereabouts(id)),
            Missing::Agreement(leader, id) => self.explain_lag(leader, id),
        };
        what + &self.explain_stops()
    }

    /// The voters of the newest membership, of both halves if it is joint.
    fn voters(&self) -> BTreeSet<NodeId> {
        self.cluster
            .membership()
            .voters()
            .union(self.cluster.membership().outgoing())
            .copied()
            .collect()
    }

    /// Whether it can take part: it is up, and not lost.
    fn takes_part(&self, id: NodeId) -> bool {
        let slot = self.cluster.get(id);
        slot.is_some_and(|slot| slot.is_up() && slot.faults.lost().is_none()) && self.is_core(id)
    }

    /// What has become of a node that cannot take part.
    fn whereabouts(&self, id: NodeId) -> String {
        let Some(slot) = self.cluster.get(id) else {
            return format!("{id} was never started");
        };
        match (&slot.stopped, slot.faults.lost()) {
            (Some(reason), _) if !slot.is_up() => format!("{id} has stopped by itself ({reason})"),
            (_, Some(loss)) => format!("{id} {}", loss.describe()),
            (_, None) if slot.faults.is_retired() => format!("{id} has left the cluster"),
            (_, None) if slot.is_up() => format!("{id} is up"),
            (_, None) => format!("{id} is down"),
        }
    }

    fn explain_no_leader(&self) -> String {
        let voters = self.voters();
        let taking_part: Vec<NodeId> =
            voters.iter().copied().filter(|id| self.takes_part(*id)).collect();
        if !self.cluster.membership().is_quorum(|id| taking_part.contains(&id)) {
            let absent = voters.iter().filter(|id| !taking_part.contains(id));
            let why: Vec<String> = absent.map(|id| self.whereabouts(*id)).collect();
            return format!(
                "there is no leader, for there is no quorum: of the voters {} only {} can take \
                 part; {}",
                list(voters.iter().copied()),
                list(taking_part),
                why.join(", "),
            );
        }
        let logs: Vec<(NodeId, Status)> =
            taking_part.iter().filter_map(|id| Some((*id, self.cluster.status(*id)?))).collect();
        let end = |status: &Status| (status.last.term, status.last.index);
        let refuse = |candidate: &Status| {
            let longer = logs.iter().filter(|(_, voter)| end(voter) > end(candidate));
            longer.map(|(id, _)| *id).collect::<Vec<NodeId>>()
        };
        let told: Vec<String> = logs
            .iter()
            .map(|(id, status)| {
                let refused = match refuse(status) {
                    longer if longer.is_empty() => String::new(),
                    longer => format!(", and is refused by {}", list(longer)),
                };
                let disk = match self.cluster.get(*id) {
                    Some(slot) if slot.batches.iter().any(Option::is_some) => {
                        ", and waits for its disk"
                    }
                    _ => "",
                };
                format!(
                    "{id} is {} in term {}, its log ends at {}@{}{refused}{disk}",
                    text::role(status.role),
                    status.hard_state.term,
                    status.last.index,
                    status.last.term,
                )
            })
            .collect();
        let could_win = logs.iter().filter(|(_, status)| {
            let refusing = refuse(status);
            self.cluster
                .membership()
                .is_quorum(|id| taking_part.contains(&id) && !refusing.contains(&id))
        });
        let could_win: Vec<NodeId> = could_win.map(|(id, _)| *id).collect();
        format!(
            "there is no leader, although {} of the voters {} can take part and {} could win: {}",
            list(taking_part.iter().copied()),
            list(voters),
            list(could_win),
            told.join("; "),
        )
    }

    fn explain_no_answer(&self, leader: NodeId, lane: usize) -> String {
        let client = &self.clients.all[lane];
        let number = client.number;
        let at = client.current.as_ref().map(|current| current.row);
        let row = &self.plan.ops[at.or(client.rows.front().copied()).unwrap_or(0)];
        let place = match &client.current {
            None => "it has not begun".to_owned(),
            Some(current) if current.pausing => format!(
                "attempt {} was refused, the next one goes to {}",
                current.attempts, current.target
            ),
            Some(current) => {
                let state = match self.takes_part(current.target) {
                    true => String::new(),
                    false => format!(" ({})", self.whereabouts(current.target)),
                };
                format!("attempt {} waits at {}{state}", current.attempts, current.target)
            }
        };
        format!(
            "`{}` of client {number} is not answered: {place} (leader {leader}){}",
            row.call,
            self.explain_uncommitted(leader)
        )
    }

    /// Who holds the first entry of the leader's log that is not committed.
    fn explain_uncommitted(&self, leader: NodeId) -> String {
        let Some(node) = self.cluster.node(leader) else { return String::new() };
        let index = node.status().hard_state.commit + 1;
        let Some(term) = node.term_at(index) else { return String::new() };
        let voters = self.voters();
        let holds = |id: &NodeId| {
            self.cluster.node(*id).is_some_and(|node| node.term_at(index) == Some(term))
        };
        let absent: Vec<String> = voters
            .iter()
            .filter(|id| !self.takes_part(**id))
            .map(|id| self.whereabouts(*id))
            .collect();
        let absent =
            if absent.is_empty() { String::new() } else { format!(" ({})", absent.join(", ")) };
        format!(
            "; entry {index}@{term} is not committed: of the voters {} it is in the logs of {}{absent}",
            list(voters.iter().copied()),
            list(voters.iter().copied().filter(holds)),
        )
    }

    fn explain_lag(&self, leader: NodeId, id: NodeId) -> String {
        let (Some(node), Some(ours), Some(theirs)) =
            (self.cluster.node(leader), self.cluster.status(leader), self.cluster.status(id))
        else {
            return format!("{id} or leader {leader} is gone");
        };
        let lag = format!(
            "{id} has applied {} entries, leader {leader} {}",
            theirs.applied.index, ours.applied.index
        );
        // From here on its log differs from the leader's.
        let agrees = |index: LogIndex| {
            self.cluster.node(id).is_some_and(|peer| peer.term_at(index) == node.term_at(index))
        };
        let lacks = (theirs.applied.index + 1..=ours.last.index).find(|index| !agrees(*index));
        let Some(lacks) = lacks else {
            return format!("{lag}: it has all entries, but does not know that they are committed");
        };
        if lacks < ours.first {
            let (has, from) = (ours.snapshot, ours.first);
            return format!(
                "{lag}: it waits for a snapshot, because its log ends at {} and the leader's begins \
                 at {from}; the leader has one up to {}@{}",
                theirs.last.index, has.index, has.term
            );
        }
        let term = node.term_at(lacks).unwrap_or(0);
        let has = |other: &NodeId| {
            self.cluster.node(*other).is_some_and(|other| other.term_at(lacks) == Some(term))
        };
        let holders = list(self.cluster.ids().into_iter().filter(has));
        let sending = node.progress().find(|progress| progress.id == id);
        let sending = sending.map_or_else(String::new, |progress| match progress.in_snapshot {
            true => "; the leader is sending it a snapshot".to_owned(),
            false => format!("; the leader sends it {} next", progress.next),
        });
        format!("{lag}: it lacks entry {lacks}@{term}, which {holders} have{sending}")
    }

    /// Who stops by itself, again and again.
    fn explain_stops(&self) -> String {
        let restless = self.cluster.iter().filter(|slot| slot.stops > 0);
        let told = restless.map(|slot| {
            let reason = slot.stopped.as_deref().unwrap_or("it did not say why");
            format!("; {} has stopped by itself {} times since ({reason})", slot.id, slot.stops)
        });
        told.collect()
    }
}
