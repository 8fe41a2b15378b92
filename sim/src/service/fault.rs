//! Faults that a service declares: compositions of the faults that the simulator has.
//!
//! A plan writes one as `NAME N|leader|same [WORDS]`. The swarm draws it under its name, and it is counted,
//! traced, shrunk and shown like any other.

use stormkv::types::NodeId;

use super::Service;
use crate::plan::{Fault, unknown};
use crate::swarm::Dice;

/// A fault of a service, for [`Service::FAULTS`].
///
/// It stands for something that happens in one place and hits several parts of the system: the live
/// migration of a machine, an overloaded host, the loss of a rack. The simulator's own faults are its
/// parts. It has no access to the state machine: a changed replica is no fault that replication has to
/// survive, and the checkers would report it.
pub trait CustomFault: Sync {
    /// Its name: the first word of its text, and the key of its draws. Different from all other faults.
    fn name(&self) -> &'static str;

    /// Its form, for errors: `migrate N|leader|same Tms`.
    fn form(&self) -> &'static str;

    /// Checks the words behind the target, when a scenario is read and before they are injected.
    ///
    /// # Errors
    /// What is wrong with them.
    fn check(&self, arguments: &str) -> Result<(), String>;

    /// Draws the words behind the target.
    fn draw(&self, _dice: &mut Dice) -> String {
        String::new()
    }

    /// Begins the fault. Returns whether it has hit anything; if not, it is reported as skipped.
    fn inject(&self, arguments: &str, injector: &mut Injector<'_>) -> bool;

    /// Ends the fault, before its parts end, the last one first. What is injected here stays. Not called
    /// when the run heals, which ends everything that goes on.
    fn clear(&self, _arguments: &str, _injector: &mut Injector<'_>) {}
}

/// The cluster, as a fault of a service may act on it.
pub struct Injector<'a> {
    node: NodeId,
    cluster: &'a mut dyn Injectable,
}

/// What an [`Injector`] acts on.
pub(crate) trait Injectable {
    /// The nodes that have ever been part of the cluster.
    fn nodes(&self) -> Vec<NodeId>;
    fn is_up(&self, node: NodeId) -> bool;
    fn leader(&self) -> Option<NodeId>;
    fn inject(&mut self, fault: &Fault) -> bool;
}

impl<'a> Injector<'a> {
    pub(crate) fn new(node: NodeId, cluster: &'a mut dyn Injectable) -> Injector<'a> {
        Injector { node, cluster }
    }

    /// The node that the fault hits.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// All nodes that have ever been part of the cluster, in order.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.cluster.nodes()
    }

    /// Returns whether the process of a node runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.cluster.is_up(node)
    }

    /// The node that leads in the newest term.
    pub fn leader(&self) -> Option<NodeId> {
        self.cluster.leader()
    }

    /// Injects a fault of the simulator as a part of this one, and returns whether it has hit anything. It
    /// ends together with this fault: a node that crashed is started, a paused one resumes, a clock
    /// steps back. A second change of links takes the place of the first one.
    ///
    /// A fault of a service is no part of another one, and returns false.
    pub fn inject(&mut self, fault: impl Into<Fault>) -> bool {
        let fault = fault.into();
        !matches!(fault, Fault::Service(..)) && self.cluster.inject(&fault)
    }
}

/// The fault of the service with this name.
pub(crate) fn find_fault<S: Service>(name: &str) -> Option<&'static dyn CustomFault> {
    S::FAULTS.iter().copied().find(|fault| fault.name() == name)
}

/// Checks a fault of a plan that only the service knows.
///
/// # Errors
/// What is wrong, and behind `; ` the remedy.
pub(crate) fn check_fault<S: Service>(fault: &Fault) -> Result<(), String> {
    let Fault::Service(_, words) = fault else { return Ok(()) };
    let Some(custom) = find_fault::<S>(words.name()) else {
        let known: Vec<_> = S::FAULTS.iter().map(|fault| (fault.name(), fault.form())).collect();
        return Err(unknown(words.name(), &known).to_string());
    };
    custom
        .check(words.arguments())
        .map_err(|error| format!("{error} in `{fault}`; write `{}`", custom.form()))
}
