//! Coverage: how often each kind of fault and each waypoint came about. A run in which nothing happened
//! proves nothing.

use std::collections::BTreeMap;

use super::super::WAYPOINTS;
use crate::outcome::Skipped;
use crate::service::Service;

/// What has come about so far.
#[derive(Default)]
pub(in crate::simulation) struct Coverage {
    faults: BTreeMap<&'static str, u64>,
    waypoints: BTreeMap<&'static str, u64>,
    skipped: Vec<Skipped>,
    raft_messages: u64,
}

impl Coverage {
    /// Counts a fault, or something that a fault has led to.
    pub fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Counts a waypoint.
    pub fn reach(&mut self, waypoint: &'static str) {
        debug_assert!(WAYPOINTS.contains(&waypoint), "{waypoint} is not declared");
        *self.waypoints.entry(waypoint).or_default() += 1;
    }

    /// Counts a mark of the service.
    ///
    /// # Panics
    /// If the service has not declared it: a name that is misspelt would be missed in silence.
    pub fn reach_mark<S: Service>(&mut self, mark: &'static str) {
        assert!(
            S::MARKS.contains(&mark),
            "`{mark}` is no mark of the service, which are {:?}; add it to `Service::MARKS`",
            S::MARKS
        );
        *self.waypoints.entry(mark).or_default() += 1;
    }

    /// Notes a fault of the plan that has hit nothing.
    pub fn skip(&mut self, skipped: Skipped) {
        self.skipped.push(skipped);
    }

    /// Counts a message of raft that reaches its receiver.
    pub fn raft_message(&mut self) {
        self.raft_messages += 1;
    }

    pub fn raft_messages(&self) -> u64 {
        self.raft_messages
    }

    pub fn take_faults(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.faults)
    }

    pub fn take_waypoints(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.waypoints)
    }

    pub fn take_skipped(&mut self) -> Vec<Skipped> {
        std::mem::take(&mut self.skipped)
    }
}
