//! Faults of the network.

use stormkv::types::NodeId;
use stormkv::wire::Lane;

use super::super::{Simulation, capacity, endpoint};
use crate::network::{Endpoint, Rule, Side};
use crate::plan::{LinkFault, Member, Path};
use crate::service::Service;

fn ends(members: &[Member]) -> Vec<Endpoint> {
    members.iter().map(endpoint).collect()
}

/// Both ends of the links of a path; `hit` is the one node that it names, if it names one.
fn sides(path: &Path, hit: Option<NodeId>) -> (Side, Side) {
    let only = || Side::Only(hit.into_iter().map(|id| Endpoint::Node(id.0)).collect());
    match path {
        Path::Between { from, to } => (Side::Only(ends(from)), Side::Only(ends(to))),
        Path::From(_) => (only(), Side::Everybody),
        Path::To(_) => (Side::Everybody, only()),
        Path::All => (Side::Everybody, Side::Everybody),
    }
}

/// The rule that a fault adds to the network until it ends, at `until_ns`; `hit` is the one node that it
/// hits, if it names one. `None` for one that only breaks connections, or does nothing.
fn rule(fault: &LinkFault, hit: Option<NodeId>, until_ns: u64) -> Option<Rule> {
    Some(match fault {
        LinkFault::Isolate(_) => {
            Rule::Isolate(hit.into_iter().map(|id| Endpoint::Node(id.0)).collect())
        }
        LinkFault::Partition(groups) => {
            Rule::Groups(groups.iter().map(|group| ends(group)).collect())
        }
        LinkFault::OneWay { from, to } => {
            Rule::OneWay { from: Side::Only(ends(from)), to: Side::Only(ends(to)) }
        }
        LinkFault::Bridge { node, left, right } => {
            Rule::Bridge { bridge: Endpoint::Node(node.0), groups: vec![ends(left), ends(right)] }
        }
        LinkFault::Ring(nodes) => {
            let endpoints = nodes.iter().map(|id| Endpoint::Node(id.0)).collect();
            Rule::Ring { endpoints, reach: 1 }
        }
        LinkFault::Clog { from, to } => Rule::Clog {
            from: Side::Only(vec![endpoint(from)]),
            to: Side::Only(vec![endpoint(to)]),
            until_ns,
        },
        LinkFault::Weather { path, drop, duplicate, delay_us } => {
            let (from, to) = sides(path, hit);
            let (drop, duplicate, extra_mean_ns) = (*drop, *duplicate, delay_us * 1000);
            Rule::Weather { from, to, drop, duplicate, extra_mean_ns }
        }
        LinkFault::Lag { path, delay_us } => {
            let (from, to) = sides(path, hit);
            Rule::Lag { from, to, delay_ns: delay_us * 1000 }
        }
        LinkFault::Throttle { path, kib_per_s, queue_us } => {
            let (from, to) = sides(path, hit);
            Rule::Throttle { from, to, capacity: capacity(*kib_per_s, *queue_us)? }
        }
        LinkFault::Garble { path, share } => {
            let (from, to) = sides(path, hit);
            Rule::Garble { from, to, share: *share }
        }
        LinkFault::Reset { .. } | LinkFault::ResetNode(_) => return None,
    })
}

impl<S: Service> Simulation<'_, S> {
    /// Begins the fault with this number; `hit` is the one node that it hits, if it names one.
    pub(super) fn strike_link(
        &mut self,
        at: usize,
        fault: &LinkFault,
        hit: Option<NodeId>,
    ) -> bool {
        let plan = self.plan;
        let until_ns = plan.faults[at].until_us.unwrap_or(plan.heal_at_us()) * 1000;
        if let Some(rule) = rule(fault, hit, until_ns) {
            self.network.cut(at as u32, rule);
            return true;
        }
        match fault {
            LinkFault::Reset { left, right } => self.reset(left, right),
            LinkFault::ResetNode(_) => {
                let Some(id) = hit else { return false };
                let nodes = self.cluster.ids().into_iter().filter(|other| *other != id);
                let clients = (1..=plan.clients.count).map(Member::Client);
                let others: Vec<Member> = nodes.map(Member::Node).chain(clients).collect();
                self.reset(&[Member::Node(id)], &others)
            }
            _ => false,
        }
    }

    /// Breaks all connections between the two sides, in both directions.
    fn reset(&mut self, left: &[Member], right: &[Member]) -> bool {
        for one in left {
            for other in right {
                self.reset_link(one, other);
                self.reset_link(other, one);
            }
        }
        self.reach("connection-reset");
        true
    }

    fn reset_link(&mut self, from: &Member, to: &Member) {
        for lane in Lane::ALL {
            match (from, to) {
                (Member::Node(from), Member::Node(to)) => self.break_connection(*from, *to, lane),
                // A client notices nothing; its patience ends some time.
                _ => {
                    let (now_ns, lane) = (self.kernel.now_ns(), lane.number());
                    self.network.reset(now_ns, endpoint(from), endpoint(to), lane);
                }
            }
        }
    }
}
