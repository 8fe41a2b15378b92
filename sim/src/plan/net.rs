//! Exceptions for single messages: `drop = "2->1 AppendResp #4"`.
//!
//! They let a shrunk plan keep the one lost message that matters and give up random losses.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use stormkv::wire::Kind;

use super::fault::Member;
use super::grammar::{GrammarError, Tokens};
use super::units;

/// Names one message of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageRef {
    /// Who sends it.
    pub from: Member,
    /// To whom.
    pub to: Member,
    /// What kind of message it is.
    pub kind: MessageKind,
    /// Which one of this kind on this link, counted from 1 over the whole run.
    pub number: u32,
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{} {} #{}", self.from, self.to, self.kind, self.number)
    }
}

impl FromStr for MessageRef {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<MessageRef, GrammarError> {
        let mut tokens = Tokens::new(text, "FROM->TO KIND #NUMBER");
        let from = tokens.member()?;
        tokens.expect("->")?;
        let to = tokens.member()?;
        let kind = tokens.need("the kind of message")?;
        let Some(kind) = MessageKind::all().find(|known| known.name() == kind) else {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            let known = known.join(", ");
            return tokens.fail(format!(
                "`{kind}` is not a kind of message: there are {known}, Request and Reply"
            ));
        };
        let number = tokens.need("the message's number")?;
        let count = number.strip_prefix('#').and_then(|digits| digits.parse().ok());
        let Some(count) = count.filter(|count| *count > 0) else {
            return tokens.fail(format!("`{number}` is not a message's number"));
        };
        tokens.end()?;
        Ok(MessageRef { from, to, kind, number: count })
    }
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// One between two nodes, for example `AppendResp`.
    Peer(Kind),
    /// A client asks a node.
    Request,
    /// A node answers a client.
    Reply,
}

impl MessageKind {
    pub(crate) fn all() -> impl Iterator<Item = MessageKind> {
        let clients = [MessageKind::Request, MessageKind::Reply];
        Kind::ALL.into_iter().map(MessageKind::Peer).chain(clients)
    }

    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            MessageKind::Peer(kind) => kind.name(),
            MessageKind::Request => "Request",
            MessageKind::Reply => "Reply",
        }
    }

    /// The number under which the network knows it.
    pub fn code(self) -> u8 {
        match self {
            MessageKind::Peer(kind) => kind as u8,
            MessageKind::Request => 200,
            MessageKind::Reply => 201,
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEffect {
    /// It is lost.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives this much later, in microseconds (in the file: `by_ms`).
    Delay {
        /// How much later, in microseconds.
        by_us: u64,
    },
}

/// One exception.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawNetRow")]
pub struct NetRow {
    /// What happens.
    pub effect: NetEffect,
    /// To which message.
    pub message: MessageRef,
}

/// A row as it stands in the file: the key says what happens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNetRow {
    #[serde(default, deserialize_with = "units::some_text")]
    drop: Option<MessageRef>,
    #[serde(default, deserialize_with = "units::some_text")]
    duplicate: Option<MessageRef>,
    #[serde(default, deserialize_with = "units::some_text")]
    delay: Option<MessageRef>,
    #[serde(default, deserialize_with = "units::some_ms")]
    by_ms: Option<u64>,
}

impl TryFrom<RawNetRow> for NetRow {
    type Error = &'static str;

    fn try_from(raw: RawNetRow) -> Result<NetRow, &'static str> {
        let (effect, message) = match (raw.drop, raw.duplicate, raw.delay, raw.by_ms) {
            (Some(message), None, None, None) => (NetEffect::Drop, message),
            (None, Some(message), None, None) => (NetEffect::Duplicate, message),
            (None, None, Some(message), Some(by_us)) => (NetEffect::Delay { by_us }, message),
            _ => {
                return Err("a net row says one thing; write `drop`, or `duplicate`, or `delay` \
                            together with `by_ms`");
            }
        };
        Ok(NetRow { effect, message })
    }
}
