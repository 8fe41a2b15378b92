//! The limits of a plan, and whether its parts fit together.
//!
//! Checked when a scenario file is read, so that a mistake is reported with its line and not as a
//! strange run. Whether a fault makes sense at its moment is not asked: shrinking takes rows out
//! of plans, and the simulation skips what has lost its object.

use std::collections::BTreeSet;
use std::fmt;

use stormkv::types::NodeId;

use super::{Core, Delay, Fault, FaultRow, LinkFault, Member, NetEffect, Op, OpRow, Plan, SCHEMA};

/// The most voters at the start.
pub const MAX_NODES: u32 = 31;
/// The most learners at the start.
pub const MAX_LEARNERS: u32 = 9;
/// The largest number of a node.
pub const MAX_NODE_ID: u32 = 64;
/// The most clients.
pub const MAX_CLIENTS: u32 = 256;
/// The most operations of one client at once.
pub const MAX_IN_FLIGHT: u32 = 256;
/// The most operations.
pub const MAX_OPS: usize = 100_000;
/// The most faults.
pub const MAX_FAULTS: usize = 10_000;
/// The most exceptions for single messages.
pub const MAX_NET_ROWS: usize = 10_000;
/// The latest time in a plan and the longest duration: one simulated hour, in microseconds.
pub const MAX_TIME_US: u64 = 3_600_000_000;
/// The fastest connection, in KiB per second.
pub const MAX_KIB_PER_S: u32 = 10_000_000;
/// The most keys of the backup that a cluster is founded with.
pub const MAX_BACKUP_KEYS: u32 = 1000;
/// The largest disk, in KiB.
pub const MAX_SIZE_KIB: u32 = 1 << 30;
/// The largest value a client writes, in bytes.
pub const MAX_VALUE_BYTES: u64 = 1 << 20;

/// Where in a plan something stands: `section[row].key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// A section such as `cluster`, or a list of rows such as `op`; empty for the top level.
    pub section: &'static str,
    /// The row, counted from 0, in a list.
    pub row: Option<usize>,
    /// The key; empty for the section or row as a whole.
    pub key: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.section)?;
        if let Some(row) = self.row {
            write!(f, "[{row}]")?;
        }
        let dot = if self.section.is_empty() || self.key.is_empty() { "" } else { "." };
        write!(f, "{dot}{}", self.key)
    }
}

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.message, self.remedy)
    }
}

impl std::error::Error for Problem {}

impl Place {
    fn setting(section: &'static str, key: &'static str) -> Place {
        Place { section, row: None, key }
    }

    fn row(section: &'static str, row: usize, key: &'static str) -> Place {
        Place { section, row: Some(row), key }
    }

    fn problem(self, message: String, remedy: impl Into<String>) -> Result<(), Problem> {
        Err(Problem { place: self, message, remedy: remedy.into() })
    }

    /// A number must be within limits, both inclusive.
    fn within(self, value: u64, least: u64, most: u64) -> Result<(), Problem> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let name = if self.key.is_empty() { self.section } else { self.key };
        self.problem(format!("{name} = {value} is out of range"), format!("use {least} to {most}"))
    }

    fn time(self, us: u64, least_us: u64) -> Result<(), Problem> {
        if (least_us..=MAX_TIME_US).contains(&us) {
            return Ok(());
        }
        let show = super::units::show_ms;
        self.problem(
            format!("{} = {} is out of range", self.key, show(us)),
            format!("use {} to {} (one simulated hour)", show(least_us), show(MAX_TIME_US)),
        )
    }

    fn delay(self, delay: Delay) -> Result<(), Problem> {
        self.time(delay.min_us, 0)?;
        self.time(delay.mean_extra_us, 0)
    }

    fn share(self, share: f64) -> Result<(), Problem> {
        if (0.0..=1.0).contains(&share) {
            return Ok(());
        }
        self.problem(format!("{} = {share} is not a share", self.key), "use 0 to 1")
    }
}

impl Plan {
    /// Only a build that has the bugs knows their names.
    #[cfg(not(feature = "bugs"))]
    fn check_bug(&self) -> Result<(), Problem> {
        Ok(())
    }

    /// The bug must be in the catalogue.
    #[cfg(feature = "bugs")]
    fn check_bug(&self) -> Result<(), Problem> {
        let Some(bug) = &self.bug else { return Ok(()) };
        if stormkv::bugs::find(bug).is_some() {
            return Ok(());
        }
        let names = stormkv::bugs::ALL.iter().map(|info| info.name);
        let remedy = match super::nearest(bug, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "`cargo sim bugs --list` names them all".to_owned(),
        };
        Place::setting("", "bug").problem(format!("unknown bug `{bug}`"), remedy)
    }

    /// Whether the plan is within the limits and its parts fit together.
    ///
    /// # Errors
    /// The first problem found, with its place and the remedy.
    pub fn check(&self) -> Result<(), Problem> {
        if self.schema != SCHEMA {
            return Place::setting("", "schema").problem(
                format!("schema {} is unknown", self.schema),
                format!("this build reads schema {SCHEMA}"),
            );
        }
        self.check_bug()?;
        self.check_cluster()?;
        self.check_settings()?;
        let lists = [
            ("op", self.ops.len(), MAX_OPS),
            ("fault", self.faults.len(), MAX_FAULTS),
            ("net", self.net.len(), MAX_NET_ROWS),
        ];
        for (section, count, most) in lists {
            if count > most {
                return Place::setting(section, "").problem(
                    format!("{count} {section} rows are too many"),
                    format!("use up to {most}"),
                );
            }
        }
        let nodes = self.check_new_nodes()?;
        for (row, op) in self.ops.iter().enumerate() {
            self.check_op(row, op, &nodes)?;
        }
        for (row, fault) in self.faults.iter().enumerate() {
            self.check_fault(row, fault, &nodes)?;
        }
        if let Core::Only(core) = &self.end.core {
            let members: Vec<Member> = core.iter().copied().map(Member::Node).collect();
            self.check_members(Place::setting("end", "core"), &members, &nodes)?;
        }
        for (row, net) in self.net.iter().enumerate() {
            let key = match net.effect {
                NetEffect::Drop => "drop",
                NetEffect::Duplicate => "duplicate",
                NetEffect::Delay { by_us } => {
                    Place::row("net", row, "by_ms").time(by_us, 1)?;
                    "delay"
                }
            };
            let place = Place::row("net", row, key);
            self.check_members(place, &[net.message.from, net.message.to], &nodes)?;
        }
        Ok(())
    }

    fn check_cluster(&self) -> Result<(), Problem> {
        let cluster = &self.cluster;
        let place = |key| Place::setting("cluster", key);
        place("nodes").within(cluster.nodes.into(), 1, MAX_NODES.into())?;
        place("learners").within(cluster.learners.into(), 0, MAX_LEARNERS.into())?;
        place("tick_ms").time(cluster.tick_us, 1)?;
        place("heartbeat_ticks").within(cluster.heartbeat_ticks.into(), 1, 1000)?;
        let [least, most] = cluster.election_ticks;
        if least <= cluster.heartbeat_ticks || most <= least || most > 10_000 {
            return place("election_ticks").problem(
                format!("election_ticks = [{least}, {most}] cannot work"),
                "use [least, most] with heartbeat_ticks < least < most <= 10000",
            );
        }
        place("snapshot_every").within(cluster.snapshot_every, 1, 1_000_000_000)?;
        place("keep_entries").within(cluster.keep_entries, 0, 1_000_000_000)?;
        place("log_kib").within(cluster.log_kib.into(), 4, 1 << 20)?;
        place("segment_kib").within(cluster.segment_kib.into(), 4, 65_536)?;
        place("sessions").within(cluster.sessions.into(), 1, 1_000_000)?;
        // Two KiB have room for one session at least.
        place("session_kib").within(cluster.session_kib.into(), 2, 1 << 20)?;
        place("chunk_bytes").within(cluster.chunk_bytes.into(), 16, 1 << 20)?;
        place("batch_us").within(cluster.batch_us, 0, 1_000_000)?;
        place("backup_keys").within(cluster.backup_keys.into(), 0, MAX_BACKUP_KEYS.into())
    }

    /// The times of a load are in order.
    fn check_load(&self) -> Result<(), Problem> {
        let times = self.load.times();
        for (name, us) in times {
            Place::setting("load", name).time(us, 0)?;
        }
        let late = times.windows(2).find(|pair| pair[0].1 >= pair[1].1);
        match late {
            Some(&[(before, _), (name, _)]) if times.iter().any(|(_, us)| *us > 0) => {
                Place::setting("load", name).problem(
                    format!("{name} is not after {before}"),
                    "name all times of the load, in order, or none of them",
                )
            }
            _ => Ok(()),
        }
    }

    fn check_settings(&self) -> Result<(), Problem> {
        let network = |key| Place::setting("network", key);
        network("latency_ms").delay(self.network.latency)?;
        network("heavy_tail").share(self.network.heavy_tail)?;
        network("drop").share(self.network.drop)?;
        network("duplicate").share(self.network.duplicate)?;
        network("spread").within(self.network.spread.into(), 1, 1000)?;
        network("kib_per_s").within(self.network.kib_per_s.into(), 0, MAX_KIB_PER_S.into())?;
        network("queue_ms").time(self.network.queue_us, 1)?;
        network("garble").share(self.network.garble)?;
        network("tells").share(self.network.tells)?;
        let disk = |key| Place::setting("disk", key);
        disk("write_us").delay(self.disk.write)?;
        disk("sync_us").delay(self.disk.sync)?;
        disk("read_us").delay(self.disk.read)?;
        disk("kib_per_s").within(self.disk.kib_per_s.into(), 0, MAX_KIB_PER_S.into())?;
        let cpu = |key| Place::setting("cpu", key);
        cpu("input_us").within(self.cpu.input_us, 0, 1_000_000)?;
        cpu("us_per_kib").within(self.cpu.us_per_kib, 0, 1_000_000)?;
        cpu("work_us_per_kib").within(self.cpu.work_us_per_kib, 0, 1_000_000)?;
        disk("size_kib").within(self.disk.size_kib.into(), 0, MAX_SIZE_KIB.into())?;
        let clients = |key| Place::setting("clients", key);
        clients("count").within(self.clients.count.into(), 0, MAX_CLIENTS.into())?;
        clients("retry_ms").time(self.clients.retry_us, 1)?;
        clients("give_up_ms").time(self.clients.give_up_us, 1)?;
        clients("think_ms").time(self.clients.think_us, 0)?;
        clients("in_flight").within(self.clients.in_flight.into(), 1, MAX_IN_FLIGHT.into())?;
        clients("operators").within(self.clients.operators.into(), 1, MAX_IN_FLIGHT.into())?;
        self.check_load()?;
        let end = |key| Place::setting("end", key);
        end("heal_at_ms").time(self.end.heal_at_us.unwrap_or(0), 0)?;
        end("bound_ms").time(self.end.bound_us, 1)
    }

    /// Collects all nodes there will ever be. No id is used twice, but one that an earlier row
    /// removes may be asked for again: the cluster has to refuse it.
    fn check_new_nodes(&self) -> Result<BTreeSet<NodeId>, Problem> {
        let mut nodes: BTreeSet<NodeId> = self.voters().chain(self.learners()).collect();
        let mut left = BTreeSet::new();
        for (row, op) in self.ops.iter().enumerate() {
            if let Op::Remove(old) | Op::Replace { old, .. } = &op.call.op {
                left.insert(*old);
            }
            for node in op.call.op.new_nodes() {
                if !nodes.insert(node) && !left.contains(&node) {
                    Place::row("op", row, "do").problem(
                        format!("node {} was there before", node.0),
                        "use a new number, ids are never used again",
                    )?;
                }
            }
        }
        Ok(nodes)
    }

    fn check_op(&self, row: usize, op: &OpRow, nodes: &BTreeSet<NodeId>) -> Result<(), Problem> {
        Place::row("op", row, "at_ms").time(op.at_us, 0)?;
        let (place, count) = (Place::row("op", row, "client"), self.clients.count);
        let verb = op.call.op.kind();
        if op.call.op.is_admin() && op.client != 0 {
            place.problem(
                format!("client {} cannot do `{verb}`", op.client),
                "leave it to the operator, client 0",
            )?;
        }
        if !op.call.op.is_admin() && !(1..=count).contains(&op.client) {
            place.problem(
                format!("there is no client {} to do `{verb}`", op.client),
                format!("use a client from 1 to {count}, or raise clients.count"),
            )?;
        }
        let named = op.call.op.nodes().into_iter().chain(op.call.node);
        let members: Vec<_> = named.map(Member::Node).collect();
        self.check_members(Place::row("op", row, "do"), &members, nodes)
    }

    fn check_fault(
        &self,
        row: usize,
        fault: &FaultRow,
        nodes: &BTreeSet<NodeId>,
    ) -> Result<(), Problem> {
        let show = super::units::show_ms;
        let place = |key| Place::row("fault", row, key);
        place("at_ms").time(fault.at_us, 0)?;
        if let Some(until_us) = fault.until_us {
            place("until_ms").time(until_us, 0)?;
            if until_us <= fault.at_us {
                let (until, at) = (show(until_us), show(fault.at_us));
                place("until_ms").problem(
                    format!("until_ms = {until} is not after at_ms = {at}"),
                    "mend the fault later, or leave until_ms out",
                )?;
            }
        }
        if self.end.heal_at_us.is_some_and(|heal_at_us| fault.at_us > heal_at_us) {
            place("at_ms").problem(
                format!("at_ms = {} is after the end of all faults", show(fault.at_us)),
                "move the fault, or raise end.heal_at_ms",
            )?;
        }
        match &fault.fault {
            Fault::Link(LinkFault::Weather { drop, duplicate, .. }) => {
                place("do").share(*drop)?;
                place("do").share(*duplicate)?;
            }
            Fault::Link(LinkFault::Garble { share, .. }) => place("do").share(*share)?,
            _ => {}
        }
        self.check_members(place("do"), &fault.fault.members(), nodes)
    }

    fn check_members(
        &self,
        place: Place,
        members: &[Member],
        nodes: &BTreeSet<NodeId>,
    ) -> Result<(), Problem> {
        for member in members {
            match member {
                Member::Node(node) if !nodes.contains(node) => place.problem(
                    format!("there is no node {}", node.0),
                    format!(
                        "use one of {} (raise cluster.nodes, or add the node by an operation)",
                        nodes.iter().map(|node| node.0.to_string()).collect::<Vec<_>>().join(" ")
                    ),
                )?,
                Member::Client(client) if *client > self.clients.count => place.problem(
                    format!("there is no client c{client}"),
                    format!("use up to c{}, or raise clients.count", self.clients.count),
                )?,
                Member::Node(_) | Member::Client(_) => {}
            }
        }
        Ok(())
    }
}
