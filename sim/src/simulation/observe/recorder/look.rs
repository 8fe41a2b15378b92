//! Looks at nodes and links, and notes what has changed since the last look.

use stormkv::node::{Membership, Node, Role};
use stormkv::types::{LogIndex, NodeId};

use super::super::super::node::SimNode;
use super::{Known, Recorder, runs};
use crate::caught::caught;
use crate::network::{Endpoint, Network};
use crate::recording::{Cuts, EntryText, LaneNumber, LogChange, State, StateChange, condition};
use crate::service::Service;
use crate::words;

impl Recorder {
    pub(in super::super) fn look<S: Service>(&mut self, slot: &SimNode<S>, durable: LogIndex) {
        let at = slot.id.0 as usize;
        let Some(mut known) = self.known.get_mut(at).map(std::mem::take) else { return };
        let mut state = State { durable, ..known.state };
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        state.condition = bit(slot.is_up(), condition::UP)
            | bit(slot.faults.is_paused(), condition::PAUSED)
            | bit(slot.faults.disk_hangs(), condition::DISK_HANGS)
            | bit(slot.inbox.is_some(), condition::SLOW)
            | bit(slot.is_gone(), condition::GONE);
        let mut log = None;
        if let Some(driver) = &slot.driver {
            // One that has panicked may not be able to tell it.
            let told =
                caught(|| self.ask::<S>(driver.node(), slot.incarnation, &mut known, &mut state));
            log = told.unwrap_or_default();
        }
        if known.state != state || log.is_some() {
            let (step, lane) = (self.step, self.node(slot.id));
            known.state = state;
            self.recording.states.push(StateChange { step, lane, state, log: log.map(Box::new) });
        }
        known.wrote = false;
        self.known[at] = known;
    }

    fn ask<S: Service>(
        &mut self,
        node: &Node<S::Machine>,
        incarnation: u64,
        known: &mut Known,
        state: &mut State,
    ) -> Option<LogChange> {
        let status = node.status();
        if node.damage().is_some() {
            state.condition |= condition::DAMAGED;
        }
        state.role = match status.role {
            Role::Follower => 0,
            Role::PreCandidate => 1,
            Role::Candidate => 2,
            Role::Leader => 3,
        };
        state.term = status.hard_state.term;
        state.vote = self.node(status.hard_state.vote).into();
        state.leader = status.leader.map_or(0, |id| self.node(id).into());
        state.commit = status.hard_state.commit;
        state.applied = status.applied.index;
        state.first = status.first;
        state.snapshot = status.snapshot.index;
        if known.membership.as_ref() != Some(node.membership()) {
            known.membership = Some(node.membership().clone());
            state.members = self.text(&members(node.membership())).into();
        }
        while known.first < status.first && known.terms.pop_front().is_some() {
            known.first += 1;
        }
        if known.terms.is_empty() || known.first > status.first {
            known.terms.clear();
            known.first = status.first;
        }
        let end = known.first + known.terms.len() as u64;
        let last_is_known = status.last.index + 1 == end
            && known.terms.back().is_none_or(|term| *term == status.last.term);
        let is_new = std::mem::replace(&mut known.incarnation, incarnation) != incarnation;
        if last_is_known && !known.wrote && !is_new {
            return None;
        }
        let same = |(index, term): &(u64, &u64)| node.term_at(*index) == Some(**term);
        let kept = (known.first..=status.last.index).zip(&known.terms).take_while(same).count();
        let from = known.first + kept as u64;
        if from == end && from == status.last.index + 1 {
            return None;
        }
        known.terms.truncate(kept);
        known.terms.extend((from..=status.last.index).filter_map(|index| node.term_at(index)));
        for index in from..=status.last.index {
            self.tell_entry::<S>(node, index);
        }
        Some(LogChange { from, runs: runs(known.terms.range(kept..).copied()) })
    }

    /// Keeps what an entry says, if it is a new one.
    fn tell_entry<S: Service>(&mut self, node: &Node<S::Machine>, index: LogIndex) {
        let Some(entry) = node.entry(index) else { return };
        if self.told.insert((index, entry.term)) {
            let text = self.text(&words::entry(S::describe, entry.kind, &entry.data));
            self.recording.entries.push(EntryText { index, term: entry.term, text });
        }
    }

    /// Notes who cannot reach whom, if that has changed.
    pub(in super::super) fn look_at_links(&mut self, network: &Network) {
        if std::mem::replace(&mut self.weather, network.version()) == network.version() {
            return;
        }
        let mut pairs = Vec::new();
        for (from, to) in network.cut_links() {
            for from in self.lanes_at(from) {
                pairs.extend(self.lanes_at(to).into_iter().map(|to| (from, to)));
            }
        }
        pairs.sort_unstable();
        let before = self.recording.cuts.last().map_or(&[][..], |cuts| &cuts.pairs);
        if before != pairs.as_slice() {
            self.recording.cuts.push(Cuts { step: self.step, pairs });
        }
    }

    fn lanes_at(&self, endpoint: Endpoint) -> Vec<LaneNumber> {
        match endpoint {
            Endpoint::Node(id) => vec![self.node(NodeId(id))],
            Endpoint::Client(number) => {
                let hands = (0..).zip(&self.hands);
                let hands = hands.filter(|(_, owner)| u64::from(**owner) == number);
                hands.map(|(lane, _)| self.hand(lane)).collect()
            }
        }
    }
}

/// `n1 n2 n3, learners n4`, or `none known`
fn members(membership: &Membership) -> String {
    let list = |what: &str, ids: &mut dyn Iterator<Item = &NodeId>| {
        let names: Vec<String> = ids.map(NodeId::to_string).collect();
        if names.is_empty() { String::new() } else { what.to_owned() + &names.join(" ") }
    };
    if membership.voters().is_empty() {
        // It was never told, or has lost it.
        return "none known".to_owned();
    }
    let mut promised = membership.learners().iter().filter(|id| membership.is_promised(**id));
    list("", &mut membership.voters().iter())
        + &list(", leaving ", &mut membership.outgoing().difference(membership.voters()))
        + &list(", learners ", &mut membership.learners().iter())
        + &list(", promised ", &mut promised)
}
