//! What can go wrong with the process of one node, beyond dying once and standing still.

use std::fmt;

use super::super::grammar::{GrammarError, Tokens};
use super::super::units;
use super::{Fault, Kind, MAX_WAIT, Who, parse_who};

/// The longest that a slow node takes for one thing: a second, in microseconds.
const MAX_SLOW_US: u64 = 1_000_000;
/// The longest life in a crash loop: a minute, in microseconds.
const MAX_LIFE_US: u64 = 60_000_000;

/// When a node in a crash loop goes down again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// So long after each start, in microseconds.
    After(u64),
    /// Instead of the disk operation with this number, counted from 1 after each start.
    AtDisk(u32),
}

/// One thing that goes wrong with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessFault {
    /// `slow N 5ms`: the node takes so long for each input, in microseconds; what arrives meanwhile
    /// waits in its inbox.
    Slow(u64),
    /// `slow-apply N 20ms`: the node takes so long for each entry that it applies, in microseconds.
    SlowApply(u64),
    /// `crash-loop N 50ms`, `crash-loop N disk K`: power loss, start, power loss again, and so on.
    /// The last start is at until.
    CrashLoop(Again),
    /// `wipe N`: the disk is gone, and the node never comes back. It takes a `replace N M` of the
    /// operator to have as many members again.
    Wipe,
    /// `old-format N`: the process dies, and its files are now as an earlier release wrote them.
    /// Started again at until, by the present one: an upgrade.
    OldFormat,
}

/// The kinds of this family.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        verb: "slow",
        form: "slow N|leader|same Tms` with up to a second such as `5ms",
        names: &["slow"],
        parse: |tokens| {
            let who = parse_who(tokens)?;
            Ok(Fault::Process(who, ProcessFault::Slow(parse_slow(tokens)?)))
        },
    },
    Kind {
        verb: "slow-apply",
        form: "slow-apply N|leader|same Tms` with up to a second such as `20ms",
        names: &["slow-apply"],
        parse: |tokens| {
            let who = parse_who(tokens)?;
            Ok(Fault::Process(who, ProcessFault::SlowApply(parse_slow(tokens)?)))
        },
    },
    Kind {
        verb: "crash-loop",
        form: "crash-loop N|leader|same Tms` or `crash-loop N|leader|same disk K",
        names: &["crash-loop"],
        parse: |tokens| {
            let who = parse_who(tokens)?;
            Ok(Fault::Process(who, ProcessFault::CrashLoop(parse_again(tokens)?)))
        },
    },
    Kind {
        verb: "wipe",
        form: "wipe N|leader|same",
        names: &["wipe"],
        parse: |tokens| Ok(Fault::Process(parse_who(tokens)?, ProcessFault::Wipe)),
    },
    Kind {
        verb: "old-format",
        form: "old-format N|leader|same",
        names: &["old-format"],
        parse: |tokens| Ok(Fault::Process(parse_who(tokens)?, ProcessFault::OldFormat)),
    },
];

impl ProcessFault {
    /// The name under which it is counted.
    pub(super) fn kind(self) -> &'static str {
        match self {
            ProcessFault::Slow(_) => "slow",
            ProcessFault::SlowApply(_) => "slow-apply",
            ProcessFault::CrashLoop(_) => "crash-loop",
            ProcessFault::Wipe => "wipe",
            ProcessFault::OldFormat => "old-format",
        }
    }

    /// Writes the whole text, given whom it hits.
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>, who: Who) -> fmt::Result {
        write!(f, "{} {who}", self.kind())?;
        match self {
            ProcessFault::Slow(us)
            | ProcessFault::SlowApply(us)
            | ProcessFault::CrashLoop(Again::After(us)) => write!(f, " {}ms", units::show_ms(us)),
            ProcessFault::CrashLoop(Again::AtDisk(count)) => write!(f, " disk {count}"),
            ProcessFault::Wipe | ProcessFault::OldFormat => Ok(()),
        }
    }
}

fn parse_slow(tokens: &mut Tokens<'_>) -> Result<u64, GrammarError> {
    tokens.duration_us("how slow", 1, MAX_SLOW_US)
}

fn parse_again(tokens: &mut Tokens<'_>) -> Result<Again, GrammarError> {
    if tokens.take_if("disk") {
        return Ok(Again::AtDisk(tokens.number("a count of disk operations", 1, MAX_WAIT)?));
    }
    Ok(Again::After(tokens.duration_us("how long it lives", 1000, MAX_LIFE_US)?))
}
