//! Faults that the service declares: their parts are faults of the simulator, under the same number.

use stormkv::types::NodeId;

use super::super::Simulation;
use super::Victims;
use crate::plan::{Fault, ServiceFault};
use crate::service::{Injectable, Injector, Service, find_fault};

/// The simulation while a fault of the service acts on it.
struct Acting<'a, 'p, S: Service> {
    simulation: &'a mut Simulation<'p, S>,
    /// The number of the fault.
    at: usize,
    /// The parts that have begun.
    parts: Vec<(Fault, Vec<NodeId>)>,
}

impl<S: Service> Injectable for Acting<'_, '_, S> {
    fn nodes(&self) -> Vec<NodeId> {
        self.simulation.cluster.ids()
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.simulation.cluster.is_up(node)
    }

    fn leader(&self) -> Option<NodeId> {
        self.simulation.cluster.leader()
    }

    fn inject(&mut self, fault: &Fault) -> bool {
        let mut victims = Victims::default();
        let hit = self.simulation.inject(self.at, fault, &mut victims).is_ok();
        self.parts.push((fault.clone(), victims.nodes));
        hit
    }
}

impl<S: Service> Simulation<'_, S> {
    /// Begins a fault of the service. Returns whether it has hit anything.
    pub(super) fn strike_custom(
        &mut self,
        at: usize,
        fault: &ServiceFault,
        id: NodeId,
        victims: &mut Victims,
    ) -> bool {
        // A plan that was not read from a file may have a fault that the service does not.
        let custom = find_fault::<S>(fault.name());
        let Some(custom) = custom.filter(|custom| custom.check(fault.arguments()).is_ok()) else {
            return false;
        };
        let mut acting = Acting { simulation: self, at, parts: Vec::new() };
        let hit = custom.inject(fault.arguments(), &mut Injector::new(id, &mut acting));
        victims.parts = Some(acting.parts);
        hit
    }

    /// Ends it, and its parts, the last one first.
    pub(super) fn mend_custom(
        &mut self,
        at: usize,
        fault: &ServiceFault,
        id: NodeId,
        parts: Vec<(Fault, Vec<NodeId>)>,
    ) {
        let Some(custom) = find_fault::<S>(fault.name()) else { return };
        let mut acting = Acting { simulation: self, at, parts: Vec::new() };
        custom.clear(fault.arguments(), &mut Injector::new(id, &mut acting));
        for (part, nodes) in parts.iter().rev() {
            for node in nodes {
                self.mend_node(at, part, *node);
            }
        }
    }
}
