//! What can go wrong, and the text form of each fault in a scenario's `do`.
//!
//! A fault is a small value: what happens, to whom. When it strikes and when it is mended stands
//! in its row. A new kind of fault is a new variant here, a line in the grammar, and an arm in
//! each `match` that the compiler then asks for.

use std::fmt;
use std::str::FromStr;

use stormkv::types::NodeId;

use super::grammar::{Grammar, GrammarError, Tokens};
use super::units;

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

/// Which disk operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DiskFault {
    /// A write fails with an I/O error.
    Write,
    /// A read fails with an I/O error.
    Read,
    /// A write fails because the disk is full.
    Space,
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
    /// `partition A B | C D`: nothing passes between different groups. Who stands in no group
    /// reaches everyone.
    Partition(Vec<Vec<Member>>),
    /// `isolate N`: the node reaches no other node and no client.
    Isolate(Who),
    /// `oneway A -> B`: what the left send to the right is lost; the other direction works.
    OneWay {
        /// Whose messages are lost.
        from: Vec<Member>,
        /// On the way to whom.
        to: Vec<Member>,
    },
    /// `bridge N : A | B`: nothing passes between the two sides, but N reaches both.
    Bridge {
        /// Who reaches both sides.
        node: NodeId,
        /// One side.
        left: Vec<Member>,
        /// The other side.
        right: Vec<Member>,
    },
    /// `clog A -> B`: messages on this link are held back, and delivered at until.
    Clog {
        /// Who sends.
        from: Member,
        /// To whom.
        to: Member,
    },
    /// `weather drop=P duplicate=P delay_ms=T`: all links get worse, on top of the plan's rates.
    Weather {
        /// The share of messages that are lost, 0 to 1.
        drop: f64,
        /// The share of messages that arrive twice, 0 to 1.
        duplicate: f64,
        /// What the mean latency grows by, in microseconds.
        delay_us: u64,
    },
    /// `fsync-fail N`: the next sync fails, and what it should have made durable may be lost. The
    /// node stops; started again at until.
    FsyncFail(Who),
    /// `disk-error N write|read|space`: the next such operation fails. Started again at until.
    DiskError(Who, DiskFault),
    /// `slow-disk N F`: every disk operation takes this many times as long.
    SlowDisk(Who, u32),
}

const GRAMMAR: &Grammar = &[
    ("crash", "crash N|leader|same|all` or `crash N|leader|same output|disk K"),
    ("kill", "kill N|leader|same|all"),
    ("pause", "pause N|leader|same"),
    ("partition", "partition MEMBER.. | MEMBER.. [| MEMBER..]"),
    ("isolate", "isolate N|leader|same"),
    ("oneway", "oneway MEMBER.. -> MEMBER.."),
    ("bridge", "bridge N : MEMBER.. | MEMBER.."),
    ("clog", "clog MEMBER -> MEMBER"),
    ("weather", "weather [drop=0..1] [duplicate=0..1] [delay_ms=T]"),
    ("fsync-fail", "fsync-fail N|leader|same"),
    ("disk-error", "disk-error N|leader|same write|read|space"),
    ("slow-disk", "slow-disk N|leader|same FACTOR"),
];

/// The largest count of outputs or disk operations a crash may wait for.
const MAX_WAIT: u32 = 1_000_000;

impl Fault {
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
            Fault::Partition(_) => "partition",
            Fault::Isolate(_) => "isolate",
            Fault::OneWay { .. } => "oneway",
            Fault::Bridge { .. } => "bridge",
            Fault::Clog { .. } => "clog",
            Fault::Weather { .. } => "weather",
            Fault::FsyncFail(_) => "fsync-fail",
            Fault::DiskError(..) => "disk-error",
            Fault::SlowDisk(..) => "slow-disk",
        }
    }

    /// Whether it is only armed at its time, and waits for its moment to strike.
    pub fn waits(&self) -> bool {
        matches!(
            self,
            Fault::CrashAtOutput(..)
                | Fault::CrashAtDisk(..)
                | Fault::FsyncFail(_)
                | Fault::DiskError(..)
        )
    }

    /// The node it hits, if it hits just one.
    pub fn who(&self) -> Option<Who> {
        match self {
            Fault::Crash(who)
            | Fault::CrashAtOutput(who, _)
            | Fault::CrashAtDisk(who, _)
            | Fault::Kill(who)
            | Fault::Pause(who)
            | Fault::Isolate(who)
            | Fault::FsyncFail(who)
            | Fault::DiskError(who, _)
            | Fault::SlowDisk(who, _) => Some(*who),
            _ => None,
        }
    }

    /// Every node and client that it names.
    pub fn members(&self) -> Vec<Member> {
        match self {
            Fault::Partition(groups) => groups.concat(),
            Fault::OneWay { from, to } => [&from[..], &to[..]].concat(),
            Fault::Bridge { node, left, right } => {
                [&[Member::Node(*node)], &left[..], &right[..]].concat()
            }
            Fault::Clog { from, to } => vec![*from, *to],
            _ => match self.who() {
                Some(Who::Node(node)) => vec![Member::Node(node)],
                _ => Vec::new(),
            },
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
            Fault::Partition(groups) => {
                f.write_str("partition")?;
                for (position, group) in groups.iter().enumerate() {
                    f.write_str(if position == 0 { " " } else { " | " })?;
                    write_members(f, group)?;
                }
                Ok(())
            }
            Fault::Isolate(who) => write!(f, "isolate {who}"),
            Fault::OneWay { from, to } => {
                f.write_str("oneway ")?;
                write_members(f, from)?;
                f.write_str(" -> ")?;
                write_members(f, to)
            }
            Fault::Bridge { node, left, right } => {
                write!(f, "bridge {} : ", node.0)?;
                write_members(f, left)?;
                f.write_str(" | ")?;
                write_members(f, right)
            }
            Fault::Clog { from, to } => write!(f, "clog {from} -> {to}"),
            Fault::Weather { drop, duplicate, delay_us } => {
                f.write_str("weather")?;
                if *drop != 0.0 || (*duplicate == 0.0 && *delay_us == 0) {
                    write!(f, " drop={drop}")?;
                }
                if *duplicate != 0.0 {
                    write!(f, " duplicate={duplicate}")?;
                }
                if *delay_us != 0 {
                    write!(f, " delay_ms={}", units::show_ms(*delay_us))?;
                }
                Ok(())
            }
            Fault::FsyncFail(who) => write!(f, "fsync-fail {who}"),
            Fault::DiskError(who, what) => {
                let what = match what {
                    DiskFault::Write => "write",
                    DiskFault::Read => "read",
                    DiskFault::Space => "space",
                };
                write!(f, "disk-error {who} {what}")
            }
            Fault::SlowDisk(who, factor) => write!(f, "slow-disk {who} {factor}"),
        }
    }
}

fn write_members(f: &mut fmt::Formatter<'_>, members: &[Member]) -> fmt::Result {
    for (position, member) in members.iter().enumerate() {
        let space = if position == 0 { "" } else { " " };
        write!(f, "{space}{member}")?;
    }
    Ok(())
}

impl FromStr for Fault {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Fault, GrammarError> {
        let mut tokens = Tokens::new(text, "");
        let fault = match tokens.verb("fault", GRAMMAR)? {
            "crash" if tokens.take_if("all") => Fault::CrashAll,
            "crash" => parse_crash(&mut tokens)?,
            "kill" if tokens.take_if("all") => Fault::KillAll,
            "kill" => Fault::Kill(parse_who(&mut tokens)?),
            "pause" => Fault::Pause(parse_who(&mut tokens)?),
            "partition" => parse_partition(&mut tokens)?,
            "isolate" => Fault::Isolate(parse_who(&mut tokens)?),
            "oneway" => {
                let from = tokens.members("->")?;
                tokens.expect("->")?;
                let to = tokens.members("")?;
                apart(&tokens, &[&from, &to])?;
                Fault::OneWay { from, to }
            }
            "bridge" => parse_bridge(&mut tokens)?,
            "clog" => {
                let from = tokens.member()?;
                tokens.expect("->")?;
                let to = tokens.member()?;
                apart(&tokens, &[&[from], &[to]])?;
                Fault::Clog { from, to }
            }
            "weather" => parse_weather(&mut tokens)?,
            "fsync-fail" => Fault::FsyncFail(parse_who(&mut tokens)?),
            "disk-error" => {
                let who = parse_who(&mut tokens)?;
                let what = match tokens.need("the kind of error")? {
                    "write" => DiskFault::Write,
                    "read" => DiskFault::Read,
                    "space" => DiskFault::Space,
                    word => return tokens.fail(format!("`{word}` is not a kind of error")),
                };
                Fault::DiskError(who, what)
            }
            verb => {
                assert_eq!(verb, "slow-disk", "a verb of the grammar has no parser");
                Fault::SlowDisk(parse_who(&mut tokens)?, tokens.number("a factor", 2, 10_000)?)
            }
        };
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

fn parse_partition(tokens: &mut Tokens<'_>) -> Result<Fault, GrammarError> {
    let mut groups = vec![tokens.members("|")?];
    tokens.expect("|")?;
    groups.push(tokens.members("|")?);
    while tokens.take_if("|") {
        groups.push(tokens.members("|")?);
    }
    apart(tokens, &groups.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(Fault::Partition(groups))
}

fn parse_bridge(tokens: &mut Tokens<'_>) -> Result<Fault, GrammarError> {
    let node = tokens.node()?;
    tokens.expect(":")?;
    let left = tokens.members("|")?;
    tokens.expect("|")?;
    let right = tokens.members("")?;
    apart(tokens, &[&[Member::Node(node)], &left, &right])?;
    Ok(Fault::Bridge { node, left, right })
}

/// Nobody may stand in two groups.
fn apart(tokens: &Tokens<'_>, groups: &[&[Member]]) -> Result<(), GrammarError> {
    let mut seen = Vec::new();
    for member in groups.iter().copied().flatten() {
        if seen.contains(member) {
            return tokens.fail(format!("`{member}` stands in two groups"));
        }
        seen.push(*member);
    }
    Ok(())
}

fn parse_weather(tokens: &mut Tokens<'_>) -> Result<Fault, GrammarError> {
    let (mut drop, mut duplicate, mut delay_us) = (0.0, 0.0, 0);
    let mut next = Some(tokens.need("a setting")?);
    while let Some(word) = next {
        let read = |text: &str| text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let known = match word.split_once('=') {
            Some(("drop", share)) => read(share).map(|share: f64| drop = share),
            Some(("duplicate", share)) => read(share).map(|share: f64| duplicate = share),
            Some(("delay_ms", time)) => units::parse_ms(time).map(|us| delay_us = us),
            _ => None,
        };
        if known.is_none() {
            return tokens.fail(format!("`{word}` is not a setting"));
        }
        next = tokens.take();
    }
    Ok(Fault::Weather { drop, duplicate, delay_us })
}
