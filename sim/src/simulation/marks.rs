//! What the service itself watches: its invariant, its checkers and its marks.

use std::ops::RangeInclusive;

use stormkv::node::Status;
use stormkv::types::{LogIndex, NodeId};

use super::Simulation;
use crate::checker::{Broken, Check};
use crate::outcome::Class;
use crate::service::{Observation, Service};

impl<S: Service> Simulation<'_, S> {
    /// Counts marks of the service.
    pub(super) fn reach_marks(&mut self, marks: impl IntoIterator<Item = &'static str>) {
        marks.into_iter().for_each(|mark| self.observers.coverage.reach_mark::<S>(mark));
    }

    /// Asks the invariant of the service about the state of a node.
    pub(super) fn judge_invariant(&mut self, id: NodeId, status: &Status) -> Result<(), Broken> {
        let Some(invariant) = S::INVARIANT else { return Ok(()) };
        let coverage = &mut self.observers.coverage;
        let driver = self.cluster.get(id).and_then(|slot| slot.driver.as_ref());
        let machine = driver.expect("it has just acted").node().machine();
        invariant(machine, &mut |mark| coverage.reach_mark::<S>(mark)).map_err(|how| {
            let message = format!("{id} {how}, as of entry {}", status.applied.index);
            Broken::new(Check::Invariant, message).at(id)
        })
    }

    /// Shows the checkers of the service which commands are committed for the first time anywhere.
    pub(super) fn show_committed(&mut self, fresh: RangeInclusive<LogIndex>) {
        if !self.observers.has_checkers() {
            return;
        }
        for command in fresh.filter_map(|index| self.safety.effect(index)) {
            self.observers.show_checkers(&Observation::Committed(command));
        }
    }

    /// Shows the checkers of the service what a node has applied behind `before`, and its state then.
    pub(super) fn show_applied(&mut self, id: NodeId, before: LogIndex, by_snapshot: bool) {
        if !self.observers.has_checkers() {
            return;
        }
        let driver = self.cluster.get(id).and_then(|slot| slot.driver.as_ref());
        let Some(node) = driver.map(|driver| driver.node()) else { return };
        let index = node.status().applied.index;
        if index <= before {
            return;
        }
        if by_snapshot {
            self.observers.show_checkers(&Observation::Restored { node: id, index });
        } else {
            for command in (before + 1..=index).filter_map(|index| self.safety.effect(index)) {
                self.observers.show_checkers(&Observation::Applied { node: id, command });
            }
        }
        let machine = node.machine();
        self.observers.show_checkers(&Observation::State { node: id, index, machine });
    }

    /// Fails if a checker of the service has found something.
    pub(super) fn heed_checkers(&mut self) {
        if let Some(broken) = self.observers.take_found() {
            self.fail(Class::Safety, broken);
        }
    }
}
