//! Gives nodes and clients other numbers, or none, through all rows of a plan.
//!
//! A row that loses what it is about is dropped; a list of members only gets shorter.

use std::collections::BTreeSet;

use stormkv::types::NodeId;

use crate::plan::{
    Call, Core, Fault, FaultRow, LinkFault, Member, MessageRef, NetRow, Op, OpRow, Part, Path,
    Plan, Who,
};

/// The new number of each node and client; `None` for one that is gone.
pub(super) struct Names<'a> {
    pub node: &'a dyn Fn(NodeId) -> Option<NodeId>,
    pub client: &'a dyn Fn(u32) -> Option<u32>,
}

/// The plan without what names nodes or clients that are not there: an operation that was taken out
/// may have been the one that added them.
pub(super) fn repaired(plan: &Plan) -> Plan {
    let added = plan.ops.iter().flat_map(|row| row.call.op.new_nodes());
    let nodes: BTreeSet<NodeId> = plan.voters().chain(plan.learners()).chain(added).collect();
    let node = |id: NodeId| nodes.contains(&id).then_some(id);
    let client = |number: u32| (number <= plan.clients.count).then_some(number);
    Names { node: &node, client: &client }.rename(plan)
}

impl Names<'_> {
    /// The plan with the new names. How many nodes and clients there are is left to the caller.
    pub fn rename(&self, plan: &Plan) -> Plan {
        let mut renamed = plan.clone();
        renamed.ops = plan.ops.iter().filter_map(|row| self.op_row(row)).collect();
        renamed.faults = plan.faults.iter().filter_map(|row| self.fault_row(row)).collect();
        renamed.net = plan.net.iter().filter_map(|row| self.net_row(row)).collect();
        if let Core::Only(nodes) = &plan.end.core {
            let nodes: BTreeSet<NodeId> = nodes.iter().filter_map(|id| (self.node)(*id)).collect();
            renamed.end.core = if nodes.is_empty() { Core::All } else { Core::Only(nodes) };
        }
        renamed
    }

    fn op_row(&self, row: &OpRow) -> Option<OpRow> {
        let client = (self.client)(row.client)?;
        let node = row.call.node.and_then(self.node);
        Some(OpRow {
            client,
            call: Call { op: self.op(&row.call.op)?, node, ..row.call },
            ..row.clone()
        })
    }

    fn op(&self, op: &Op) -> Option<Op> {
        let node = self.node;
        Some(match op {
            Op::Add(id) => Op::Add(node(*id)?),
            Op::Learner(id) => Op::Learner(node(*id)?),
            Op::Promote(id) => Op::Promote(node(*id)?),
            Op::Remove(id) => Op::Remove(node(*id)?),
            Op::Transfer(id) => Op::Transfer(node(*id)?),
            Op::Move { node: id, address } => {
                Op::Move { node: node(*id)?, address: address.clone() }
            }
            Op::ReplaceLeader(id) => Op::ReplaceLeader(node(*id)?),
            Op::Replace { old, new } => {
                let (old, new) = (node(*old)?, node(*new)?);
                (old != new).then_some(Op::Replace { old, new })?
            }
            Op::Change(parts) => {
                let mut kept: Vec<Part> = Vec::new();
                for part in parts.iter().filter_map(|part| self.part(*part)) {
                    if kept.iter().all(|other| other.node() != part.node()) {
                        kept.push(part);
                    }
                }
                (!kept.is_empty()).then_some(Op::Change(kept))?
            }
            other => other.clone(),
        })
    }

    fn part(&self, part: Part) -> Option<Part> {
        let id = (self.node)(part.node())?;
        Some(match part {
            Part::Voter(_) => Part::Voter(id),
            Part::Learner(_) => Part::Learner(id),
            Part::Promote(_) => Part::Promote(id),
            Part::Demote(_) => Part::Demote(id),
            Part::Remove(_) => Part::Remove(id),
        })
    }

    fn fault_row(&self, row: &FaultRow) -> Option<FaultRow> {
        Some(FaultRow { fault: self.fault(&row.fault)?, ..row.clone() })
    }

    fn fault(&self, fault: &Fault) -> Option<Fault> {
        Some(match fault {
            Fault::CrashAll | Fault::KillAll => fault.clone(),
            Fault::Link(fault) => Fault::Link(self.link(fault)?),
            Fault::Crash(who) => Fault::Crash(self.who(*who)?),
            Fault::CrashAtOutput(who, count) => Fault::CrashAtOutput(self.who(*who)?, *count),
            Fault::CrashAtDisk(who, count) => Fault::CrashAtDisk(self.who(*who)?, *count),
            Fault::Kill(who) => Fault::Kill(self.who(*who)?),
            Fault::Pause(who) => Fault::Pause(self.who(*who)?),
            Fault::Disk(who, fault) => Fault::Disk(self.who(*who)?, *fault),
            Fault::Clock(who, fault) => Fault::Clock(self.who(*who)?, *fault),
            Fault::Process(who, fault) => Fault::Process(self.who(*who)?, *fault),
            Fault::Service(who, fault) => Fault::Service(self.who(*who)?, fault.clone()),
        })
    }

    fn who(&self, who: Who) -> Option<Who> {
        match who {
            Who::Node(id) => (self.node)(id).map(Who::Node),
            Who::Leader | Who::Same => Some(who),
        }
    }

    fn link(&self, fault: &LinkFault) -> Option<LinkFault> {
        Some(match fault {
            LinkFault::Partition(groups) => {
                let groups = self.groups(groups.iter());
                let groups: Vec<_> = groups.into_iter().filter(|group| !group.is_empty()).collect();
                (groups.len() > 1).then_some(LinkFault::Partition(groups))?
            }
            LinkFault::Isolate(who) => LinkFault::Isolate(self.who(*who)?),
            LinkFault::ResetNode(who) => LinkFault::ResetNode(self.who(*who)?),
            LinkFault::OneWay { from, to } => {
                let [from, to] = self.pair(from, to)?;
                LinkFault::OneWay { from, to }
            }
            LinkFault::Reset { left, right } => {
                let [left, right] = self.pair(left, right)?;
                LinkFault::Reset { left, right }
            }
            LinkFault::Bridge { node, left, right } => {
                let node = (self.node)(*node)?;
                let middle = Member::Node(node);
                let [left, right] = self.pair(left, right)?;
                let apart = !left.contains(&middle) && !right.contains(&middle);
                apart.then_some(LinkFault::Bridge { node, left, right })?
            }
            LinkFault::Clog { from, to } => {
                let (from, to) = (self.member(*from)?, self.member(*to)?);
                (from != to).then_some(LinkFault::Clog { from, to })?
            }
            LinkFault::Ring(nodes) => {
                let mut ring = Vec::new();
                for id in nodes.iter().filter_map(|id| (self.node)(*id)) {
                    if !ring.contains(&id) {
                        ring.push(id);
                    }
                }
                // A smaller ring keeps nobody apart.
                (ring.len() >= 4).then_some(LinkFault::Ring(ring))?
            }
            LinkFault::Lag { path, delay_us } => {
                LinkFault::Lag { path: self.path(path)?, delay_us: *delay_us }
            }
            LinkFault::Throttle { path, kib_per_s, queue_us } => LinkFault::Throttle {
                path: self.path(path)?,
                kib_per_s: *kib_per_s,
                queue_us: *queue_us,
            },
            LinkFault::Garble { path, share } => {
                LinkFault::Garble { path: self.path(path)?, share: *share }
            }
            LinkFault::Weather { path, drop, duplicate, delay_us } => LinkFault::Weather {
                path: self.path(path)?,
                drop: *drop,
                duplicate: *duplicate,
                delay_us: *delay_us,
            },
        })
    }

    fn path(&self, path: &Path) -> Option<Path> {
        Some(match path {
            Path::Between { from, to } => {
                let [from, to] = self.pair(from, to)?;
                Path::Between { from, to }
            }
            Path::From(who) => Path::From(self.who(*who)?),
            Path::To(who) => Path::To(self.who(*who)?),
            Path::All => Path::All,
        })
    }

    /// Two groups of which none may be empty.
    fn pair(&self, left: &Vec<Member>, right: &Vec<Member>) -> Option<[Vec<Member>; 2]> {
        let groups: [Vec<Member>; 2] = self.groups([left, right].into_iter()).try_into().ok()?;
        groups.iter().all(|group| !group.is_empty()).then_some(groups)
    }

    /// The groups with the new names. Whoever would stand in two stays in the first.
    fn groups<'v>(&self, groups: impl Iterator<Item = &'v Vec<Member>>) -> Vec<Vec<Member>> {
        let mut seen = BTreeSet::new();
        let mut renamed = |group: &Vec<Member>| {
            let members = group.iter().filter_map(|member| self.member(*member));
            members.filter(|member| seen.insert(*member)).collect()
        };
        groups.map(&mut renamed).collect()
    }

    fn member(&self, member: Member) -> Option<Member> {
        match member {
            Member::Node(id) => (self.node)(id).map(Member::Node),
            Member::Client(number) => (self.client)(number).map(Member::Client),
        }
    }

    fn net_row(&self, row: &NetRow) -> Option<NetRow> {
        let (from, to) = (self.member(row.message.from)?, self.member(row.message.to)?);
        let message = MessageRef { from, to, ..row.message.clone() };
        (from != to).then_some(NetRow { message, ..row.clone() })
    }
}
