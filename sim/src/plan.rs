//! A run is data: the plan of one run, complete and explicit.
//!
//! A seed only generates a [`Plan`] (see [`swarm`](crate::swarm)); a scenario file *is* a plan,
//! written as TOML (see [`scenario`](crate::scenario)). Whatever happens in a run follows from its
//! plan alone, so that a failure can be kept as a file, and shrunk by taking rows out of it.
//!
//! What the plan leaves open, such as the latency of one message, the simulation draws as a function of
//! the plan's seed and of the message's own name (source, destination, kind, number): taking out
//! one row does not shift the draws of the others. The rows of `[[net]]` overrule single draws.
//!
//! Times are whole microseconds here and milliseconds with up to three decimals in the file, so
//! the way there and back is exact. Every setting has a default; a file says only what matters.
//! Left out on purpose: how faults are carried out, and which of them make sense at the moment
//! they are due (the simulation skips those that do not, and counts them).

use serde::Deserialize;
use stormkv::types::NodeId;

mod change;
mod check;
mod end;
mod fault;
mod grammar;
mod load;
mod net;
mod op;
mod text;
mod units;

pub use change::Part;
pub use check::{
    MAX_CLIENTS, MAX_FAULTS, MAX_IN_FLIGHT, MAX_LEARNERS, MAX_NET_ROWS, MAX_NODE_ID, MAX_NODES,
    MAX_OPS, MAX_TIME_US, MAX_VALUE_BYTES, Place, Problem,
};
pub use end::{Core, End};
pub(crate) use fault::unknown;
pub use fault::{
    Again, ClockFault, DiskAim, DiskFault, DiskOperation, DiskPart, Fault, FileKind, LinkFault,
    Member, Path, ProcessFault, Rot, ServiceFault, Who,
};
pub use grammar::{Grammar, GrammarError};
pub(crate) use grammar::{Tokens, nearest};
pub use load::{Load, Phase};
pub use net::{MessageKind, MessageRef, NetEffect, NetRow};
pub(crate) use op::is_word;
pub use op::{Call, Manner, Op, Words};

/// The version of the scenario format that this build reads and writes.
pub const SCHEMA: u32 = 1;

/// Everything that determines one run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of the format, [`SCHEMA`].
    pub schema: u32,
    /// A short name, such as `leader-isolated-with-pending-writes`.
    pub name: String,
    /// What happens and why it is interesting, in one or two sentences.
    #[serde(default)]
    pub story: String,
    /// Drives what the plan leaves open: latencies, losses, election timeouts, torn sectors.
    #[serde(default)]
    pub seed: u64,
    /// The bug that is planted in every node, by its name in [`stormkv::bugs`]. A build without the
    /// feature `bugs` runs the plan without it.
    pub bug: Option<String>,
    /// Where the plan comes from, if it was shrunk from a failing seed.
    pub found: Option<Found>,
    /// What the run must show.
    #[serde(default)]
    pub expect: Expect,
    /// The members and their settings.
    #[serde(default)]
    pub cluster: Cluster,
    /// The links between nodes, and between clients and nodes, in calm weather.
    #[serde(default)]
    pub network: Network,
    /// How long the disks take.
    #[serde(default)]
    pub disk: Disk,
    /// How long the nodes take.
    #[serde(default)]
    pub cpu: Cpu,
    /// How many clients there are and how patient they are.
    #[serde(default)]
    pub clients: Clients,
    /// How the load changes, if what is answered is judged by it.
    #[serde(default)]
    pub load: Load,
    /// What the clients do. A row's position is its id.
    #[serde(default, rename = "op")]
    pub ops: Vec<OpRow>,
    /// What goes wrong. A row's position is its id.
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultRow>,
    /// Exceptions for single messages.
    #[serde(default)]
    pub net: Vec<NetRow>,
    /// How the run ends.
    #[serde(default)]
    pub end: End,
}

/// Where a shrunk plan comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The seed that failed.
    pub seed: u64,
    /// The revision of the code under which it failed.
    #[serde(default)]
    pub rev: String,
    /// How many events the run had before the plan was shrunk.
    #[serde(default)]
    pub events_before: u64,
}

/// What a run must show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The checker that must report a violation; `None` (in the file: `none`) for a clean run.
    #[serde(deserialize_with = "units::none_or_word")]
    pub violation: Option<String>,
    /// Waypoints that must be reached, for example `entries-truncated`.
    pub waypoints: Vec<String>,
    /// Whether each fault must hit something. Otherwise one that does not, such as `isolate leader`
    /// while there is no leader, is skipped.
    pub no_skipped_faults: bool,
}

/// How messages travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// As values; encoded only when a fault needs bytes.
    #[default]
    Value,
    /// Encoded and decoded, so that the codec is exercised too.
    Encoded,
}

/// The members and their settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Voters at the start: the nodes 1 to `nodes`.
    pub nodes: u32,
    /// Learners at the start: the nodes `nodes + 1` and so on.
    pub learners: u32,
    /// The length of a raft tick, in microseconds (in the file: `tick_ms`).
    #[serde(rename = "tick_ms", deserialize_with = "units::ms")]
    pub tick_us: u64,
    /// An election timeout is drawn from this range, in ticks; the upper end is exclusive.
    pub election_ticks: [u32; 2],
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// Applied entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot, for followers that lag a little.
    pub keep_entries: u64,
    /// How much log a node keeps in memory, in KiB: half of it behind a snapshot, and up to twice as much
    /// while a member catches up.
    pub log_kib: u32,
    /// The size of a WAL segment, in KiB.
    pub segment_kib: u32,
    /// How many client sessions the cluster remembers.
    pub sessions: u32,
    /// How many KiB of client sessions, with the responses that they keep, the cluster remembers.
    pub session_kib: u32,
    /// The size of a chunk of a snapshot on the wire, in bytes.
    pub chunk_bytes: u32,
    /// How messages travel between nodes.
    pub wire: Wire,
    /// How long a node collects inputs, from the first one on, before it acts on all of them, in
    /// microseconds. What it has collected is lost in a crash. 0: it acts on each by itself.
    pub batch_us: u64,
    /// The keys `k1`, `k2` and so on of a backup that the cluster is founded with; 0: it begins empty.
    pub backup_keys: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            nodes: 3,
            learners: 0,
            tick_us: 10_000,
            election_ticks: [10, 20],
            heartbeat_ticks: 2,
            snapshot_every: 1000,
            keep_entries: 100,
            log_kib: 4096,
            segment_kib: 64,
            sessions: 64,
            session_kib: 65_536,
            chunk_bytes: 16384,
            wire: Wire::Value,
            batch_us: 0,
            backup_keys: 0,
        }
    }
}

/// A random delay: a fixed part plus an exponentially distributed part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The least it takes, in microseconds.
    pub min_us: u64,
    /// The mean of what comes on top, in microseconds.
    pub mean_extra_us: u64,
}

/// The links between nodes, and between clients and nodes, in calm weather.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How long a message travels (in the file: `latency_ms = [min, mean_extra]`).
    #[serde(rename = "latency_ms", deserialize_with = "units::delay_ms")]
    pub latency: Delay,
    /// The share of messages, 0 to 1, that take far longer: ten times the mean extra latency.
    pub heavy_tail: f64,
    /// The share of messages that are lost, 0 to 1.
    pub drop: f64,
    /// The share of messages that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Whether messages on a connection arrive in the order in which they were sent. Nodes have
    /// three connections to each other: see [`Lane`](stormkv::wire::Lane).
    pub fifo: bool,
    /// How far the links differ: each takes 1 to `spread` times the latency, drawn per link and
    /// direction, with each doubling as likely as the next.
    pub spread: u32,
    /// What a connection between two nodes carries, in KiB per second; 0: anything at once.
    pub kib_per_s: u32,
    /// How long a message may wait for such a connection, in microseconds (in the file:
    /// `queue_ms`). One that would wait for longer is dropped, and its sender told `unreachable`.
    #[serde(rename = "queue_ms", deserialize_with = "units::ms")]
    pub queue_us: u64,
    /// The share of messages between nodes, 0 to 1, whose bytes are damaged on their way. Their
    /// receiver must notice; it then closes the connection, as in production.
    pub garble: f64,
    /// The share of lost messages, 0 to 1, whose sender hears that they were lost, a little later.
    pub tells: f64,
}

impl Default for Network {
    fn default() -> Self {
        let latency = Delay { min_us: 1000, mean_extra_us: 2000 };
        Network {
            latency,
            heavy_tail: 0.0,
            drop: 0.0,
            duplicate: 0.0,
            fifo: false,
            spread: 1,
            kib_per_s: 0,
            queue_us: 500_000,
            garble: 0.0,
            tells: 0.0,
        }
    }
}

/// How long the disks take: per operation (in the file: `[min, mean_extra]` in microseconds) and per
/// byte.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// A write, create, rename or remove.
    #[serde(rename = "write_us", deserialize_with = "units::delay_us")]
    pub write: Delay,
    /// A sync of a file or of the directory.
    #[serde(rename = "sync_us", deserialize_with = "units::delay_us")]
    pub sync: Delay,
    /// A read.
    #[serde(rename = "read_us", deserialize_with = "units::delay_us")]
    pub read: Delay,
    /// Bandwidth of the device of each node, in KiB per second, shared by all its files; 0: bytes
    /// take no time. A sync transfers what was written to its file since the last sync, a read what
    /// it returns. States are about a thousandth of those in production, and so is the bandwidth:
    /// 5 to 2048 KiB/s stand for 5 MB/s to 2 GB/s.
    pub kib_per_s: u32,
    /// Size of the disk of each node, in KiB; 0: there is always room. In the second phase there is
    /// room on every disk: somebody has made some.
    pub size_kib: u32,
}

impl Disk {
    /// Size of the disk of each node, in bytes, if it has a limit.
    pub fn size_bytes(&self) -> Option<u64> {
        (self.size_kib > 0).then_some(u64::from(self.size_kib) << 10)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            write: Delay { min_us: 10, mean_extra_us: 20 },
            sync: Delay { min_us: 200, mean_extra_us: 300 },
            read: Delay { min_us: 20, mean_extra_us: 50 },
            kib_per_s: 0,
            size_kib: 0,
        }
    }
}

/// How long a node takes for what it does, on the one thread that it has: what arrives meanwhile
/// waits. The defaults take no time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cpu {
    /// For each input, in microseconds.
    pub input_us: u64,
    /// For each KiB that it answers, sends or writes, in microseconds.
    pub us_per_kib: u64,
    /// For each KiB of a state that is encoded or restored, beside the node, in microseconds.
    pub work_us_per_kib: u64,
}

/// How many clients there are and how patient they are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// Clients 1 to `count`. Client 0 is the operator, who changes the membership.
    pub count: u32,
    /// After this long without an answer, in microseconds (in the file: `retry_ms`), the same
    /// command is tried through another node.
    #[serde(rename = "retry_ms", deserialize_with = "units::ms")]
    pub retry_us: u64,
    /// After this long, in microseconds (in the file: `give_up_ms`), the client gives up, and the
    /// outcome is unknown.
    #[serde(rename = "give_up_ms", deserialize_with = "units::ms")]
    pub give_up_us: u64,
    /// The pause of a client between an answer and its next operation, in microseconds (in the
    /// file: `think_ms`).
    #[serde(rename = "think_ms", deserialize_with = "units::ms")]
    pub think_us: u64,
    /// How many operations of one client may be under way at once, each through a session of its
    /// own. They take turns: an operation waits for the one this many before it. 1 is a closed
    /// loop; a large number comes close to an open one.
    pub in_flight: u32,
    /// The same for the operator: with more than one, changes of the membership meet.
    pub operators: u32,
    /// Whether a client waits for longer with each attempt at an operation, as clients do. Otherwise
    /// it presses on, to be there at every moment.
    pub backs_off: bool,
}

impl Default for Clients {
    fn default() -> Self {
        Clients {
            count: 3,
            retry_us: 300_000,
            give_up_us: 3_000_000,
            think_us: 0,
            in_flight: 1,
            operators: 1,
            backs_off: false,
        }
    }
}

/// One operation of a client. A client takes its rows in order and does one thing at a time, or as
/// many as [`Clients::in_flight`] says: an operation starts at its time, or as soon as it is its
/// turn.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpRow {
    /// When it may start, in microseconds (in the file: `at_ms`).
    #[serde(rename = "at_ms", deserialize_with = "units::ms")]
    pub at_us: u64,
    /// Who does it; 0 (the default) is the operator.
    #[serde(default)]
    pub client: u32,
    /// What is done.
    #[serde(rename = "do", deserialize_with = "units::text")]
    pub call: Call,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRow {
    /// When it strikes or, for one that waits for its moment, when it is armed, in microseconds
    /// (in the file: `at_ms`).
    #[serde(rename = "at_ms", deserialize_with = "units::ms")]
    pub at_us: u64,
    /// When it is mended, in microseconds (in the file: `until_ms`): a node that is down by it is
    /// started again, a link works again, and what still waits for its moment is disarmed. `None`:
    /// when the run heals.
    #[serde(rename = "until_ms", default, deserialize_with = "units::some_ms")]
    pub until_us: Option<u64>,
    /// What goes wrong.
    #[serde(rename = "do", deserialize_with = "units::text")]
    pub fault: Fault,
}

impl Plan {
    /// A plan in which nothing happens, with the default of every setting.
    pub fn new(name: impl Into<String>, seed: u64) -> Plan {
        Plan {
            schema: SCHEMA,
            name: name.into(),
            story: String::new(),
            seed,
            bug: None,
            found: None,
            expect: Expect::default(),
            cluster: Cluster::default(),
            network: Network::default(),
            disk: Disk::default(),
            cpu: Cpu::default(),
            clients: Clients::default(),
            load: Load::default(),
            ops: Vec::new(),
            faults: Vec::new(),
            net: Vec::new(),
            end: End::default(),
        }
    }

    /// The voters at the start.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=u64::from(self.cluster.nodes)).map(NodeId)
    }

    /// The learners at the start.
    pub fn learners(&self) -> impl Iterator<Item = NodeId> + use<> {
        let first = u64::from(self.cluster.nodes) + 1;
        (first..first + u64::from(self.cluster.learners)).map(NodeId)
    }

    /// When all faults stop, in microseconds: as the plan says, or else after the last operation,
    /// the last fault and the last repair that it names.
    pub fn heal_at_us(&self) -> u64 {
        self.end.heal_at_us.unwrap_or_else(|| {
            let ops = self.ops.iter().map(|row| row.at_us);
            let faults = self.faults.iter().map(|row| row.until_us.unwrap_or(row.at_us));
            ops.chain(faults).max().unwrap_or(0)
        })
    }

    /// A hash of everything that determines the run, the same in every build and on every machine.
    /// Two plans that differ only in what is said about them (name, story, origin, expectation)
    /// have the same hash, because they have the same run.
    pub fn hash(&self) -> u64 {
        // FNV-1a: simple and fixed for ever, which is all that is asked of it.
        text::run(self).bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// The canonical TOML of this plan: defaults left out, one line per row.
    pub fn to_toml(&self) -> String {
        text::document(self)
    }
}
