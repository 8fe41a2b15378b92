//! What can go wrong, and the text form of each fault in a scenario's `do`.
//!
//! A fault is a small value: what happens, to which target. Its row says when it begins and ends. A new
//! kind of fault is a variant of its family and a [`Kind`] in the family's table; the compiler lists the
//! `match`es that write, inject and clear it.
//!
//! That a process dies or stands still is here; `process.rs` has what else happens to processes,
//! `link.rs` the network, `disk.rs` the disks and `clock.rs` the clocks.

use std::fmt;
use std::str::FromStr;

use stormkv::types::NodeId;

use super::grammar::{GrammarError, Tokens};

mod clock;
mod disk;
mod link;
mod process;
mod service;

pub use clock::ClockFault;
pub use disk::{DiskAim, DiskFault, DiskOperation, DiskPart, FileKind, Rot};
pub use link::{LinkFault, Path};
pub use process::{Again, ProcessFault};
pub use service::ServiceFault;
pub(crate) use service::unknown;

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// A node; written as its number.
    Node(NodeId),
    /// A client; written as `c` and its number.
    Client(u32),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Node(node) => write!(f, "{}", node.0),
            Member::Client(client) => write!(f, "c{client}"),
        }
    }
}

/// Which node a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// This one.
    Node(NodeId),
    /// Whoever leads in the newest term when the fault is due; if nobody does, it is skipped.
    Leader,
    /// The node that the latest `leader` fault hit, so that a sequence can follow a leader that
    /// was deposed; skipped if there is none.
    Same,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(node) => write!(f, "{}", node.0),
            Who::Leader => f.write_str("leader"),
            Who::Same => f.write_str("same"),
        }
    }
}

/// One thing that goes wrong. "Until" is the end of its row, see
/// [`FaultRow::until_us`](super::FaultRow::until_us).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// `crash N`: power loss. What was not synced is lost or torn. Started again at until.
    Crash(Who),
    /// `crash N output K`: the next input that makes the node produce more than this many outputs
    /// (sends, disk batches, replies) is cut off after that many, and the node crashes there.
    ///
    /// That is a crash between any two steps of the handling of a Ready: a flush is a pure function
    /// of the node followed by its outputs, which are carried out in order, and nothing else leaves
    /// the node. A crash inside of the function looks from outside like one before its first output
    /// (K = 0); one after the last output is a crash before the next event (`crash N`).
    CrashAtOutput(Who, u32),
    /// `crash N disk K`: the node crashes instead of executing its K-th disk operation from now
    /// on, counted from 1.
    CrashAtDisk(Who, u32),
    /// `crash all`: power loss of all nodes at once.
    CrashAll,
    /// `kill N`: the process dies, but the page cache survives. Started again at until.
    Kill(Who),
    /// `kill all`: all processes die at once.
    KillAll,
    /// `pause N`: the node stops working, keeps its state, and goes on at until.
    Pause(Who),
    /// Something between two ends of a link.
    Link(LinkFault),
    /// Something on the disk of a node.
    Disk(Who, DiskFault),
    /// Something about the clock of a node.
    Clock(Who, ClockFault),
    /// Something else that happens to the process of a node.
    Process(Who, ProcessFault),
    /// `NAME N [WORDS]`: a fault that the service declares.
    Service(Who, ServiceFault),
}

impl From<LinkFault> for Fault {
    fn from(fault: LinkFault) -> Self {
        Fault::Link(fault)
    }
}

/// A kind of fault, as a scenario writes it and as a campaign counts it.
pub(super) struct Kind {
    /// The first word of its text.
    verb: &'static str,
    /// Its form, for errors. Backticks separate it from a remark or a second form.
    form: &'static str,
    /// The names under which its faults are counted.
    names: &'static [&'static str],
    /// Parses what follows the verb.
    parse: fn(&mut Tokens<'_>) -> Result<Fault, GrammarError>,
}

/// The kinds that hit a process as a whole.
const KINDS: &[Kind] = &[
    Kind {
        verb: "crash",
        form: "crash N|leader|same|all` or `crash N|leader|same output|disk K",
        names: &["crash", "crash-output", "crash-disk", "crash-all"],
        parse: parse_crash,
    },
    Kind {
        verb: "kill",
        form: "kill N|leader|same|all",
        names: &["kill", "kill-all"],
        parse: |tokens| match tokens.take_if("all") {
            true => Ok(Fault::KillAll),
            false => parse_who(tokens).map(Fault::Kill),
        },
    },
    Kind {
        verb: "pause",
        form: "pause N|leader|same",
        names: &["pause"],
        parse: |tokens| parse_who(tokens).map(Fault::Pause),
    },
];

/// All kinds of faults, by family.
const FAMILIES: [&[Kind]; 5] = [KINDS, link::KINDS, disk::KINDS, clock::KINDS, process::KINDS];

fn all_kinds() -> impl Iterator<Item = &'static Kind> {
    FAMILIES.into_iter().flatten()
}

/// The largest count of outputs or disk operations a crash may wait for.
const MAX_WAIT: u32 = 1_000_000;

impl Fault {
    /// The names of all kinds of faults of the simulator.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        all_kinds().flat_map(|kind| kind.names).copied()
    }

    /// The name under which it is counted, for example `crash-disk`.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Crash(_) => "crash",
            Fault::CrashAtOutput(..) => "crash-output",
            Fault::CrashAtDisk(..) => "crash-disk",
            Fault::CrashAll => "crash-all",
            Fault::Kill(_) => "kill",
            Fault::KillAll => "kill-all",
            Fault::Pause(_) => "pause",
            Fault::Link(fault) => fault.kind(),
            Fault::Disk(_, fault) => fault.kind(),
            Fault::Clock(_, fault) => fault.kind(),
            Fault::Process(_, fault) => fault.kind(),
            Fault::Service(_, fault) => fault.name(),
        }
    }

    /// Whether it is only armed at its time, and waits for its moment to strike.
    pub fn waits(&self) -> bool {
        match self {
            Fault::CrashAtOutput(..) | Fault::CrashAtDisk(..) => true,
            Fault::Disk(_, fault) => fault.waits(),
            _ => false,
        }
    }

    /// The node it hits, if it hits just one.
    pub fn who(&self) -> Option<Who> {
        match self {
            Fault::Crash(who)
            | Fault::CrashAtOutput(who, _)
            | Fault::CrashAtDisk(who, _)
            | Fault::Kill(who)
            | Fault::Pause(who)
            | Fault::Disk(who, _)
            | Fault::Clock(who, _)
            | Fault::Process(who, _)
            | Fault::Service(who, _) => Some(*who),
            Fault::CrashAll | Fault::KillAll => None,
            Fault::Link(fault) => fault.who(),
        }
    }

    /// What it does to links, if it is a fault of the network.
    pub(crate) fn link(&self) -> Option<&LinkFault> {
        match self {
            Fault::Link(fault) => Some(fault),
            _ => None,
        }
    }

    /// Every node and client that it names.
    pub fn members(&self) -> Vec<Member> {
        match (self, self.who()) {
            (_, Some(Who::Node(node))) => vec![Member::Node(node)],
            (Fault::Link(fault), _) => fault.members(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Crash(who) => write!(f, "crash {who}"),
            Fault::CrashAtOutput(who, outputs) => write!(f, "crash {who} output {outputs}"),
            Fault::CrashAtDisk(who, operation) => write!(f, "crash {who} disk {operation}"),
            Fault::CrashAll => f.write_str("crash all"),
            Fault::Kill(who) => write!(f, "kill {who}"),
            Fault::KillAll => f.write_str("kill all"),
            Fault::Pause(who) => write!(f, "pause {who}"),
            Fault::Link(fault) => fault.fmt(f),
            Fault::Disk(who, fault) => fault.write(f, *who),
            Fault::Clock(who, fault) => fault.write(f, *who),
            Fault::Process(who, fault) => fault.write(f, *who),
            Fault::Service(who, fault) => fault.write(f, *who),
        }
    }
}

impl FromStr for Fault {
    type Err = GrammarError;

    /// Reads a fault of the simulator, or else one that some service may have.
    fn from_str(text: &str) -> Result<Fault, GrammarError> {
        let mut tokens = Tokens::new(text, "");
        if !all_kinds().any(|kind| tokens.peek() == Some(kind.verb))
            && let Some(fault) = ServiceFault::parse(&mut Tokens::new(text, ""))
        {
            return Ok(fault);
        }
        let grammar: Vec<_> = all_kinds().map(|kind| (kind.verb, kind.form)).collect();
        let verb = tokens.verb("fault", &grammar)?;
        let kind = all_kinds().find(|kind| kind.verb == verb);
        let fault = (kind.expect("the verb is one of theirs").parse)(&mut tokens)?;
        tokens.end()?;
        Ok(fault)
    }
}

fn parse_who(tokens: &mut Tokens<'_>) -> Result<Who, GrammarError> {
    if tokens.take_if("leader") {
        return Ok(Who::Leader);
    }
    if tokens.take_if("same") {
        return Ok(Who::Same);
    }
    tokens.node().map(Who::Node)
}

fn parse_crash(tokens: &mut Tokens<'_>) -> Result<Fault, GrammarError> {
    if tokens.take_if("all") {
        return Ok(Fault::CrashAll);
    }
    let who = parse_who(tokens)?;
    if tokens.take_if("output") {
        return Ok(Fault::CrashAtOutput(who, tokens.number("a count of outputs", 0, MAX_WAIT)?));
    }
    if tokens.take_if("disk") {
        return Ok(Fault::CrashAtDisk(
            who,
            tokens.number("a count of disk operations", 1, MAX_WAIT)?,
        ));
    }
    Ok(Fault::Crash(who))
}
