//! What clients and the operator do, and the text form of it in a scenario's `do`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use stormkv::types::NodeId;

use super::change::{Part, parse_parts};
use super::grammar::{Grammar, GrammarError, Tokens, parse_node};

/// Words for the service, in its own grammar: `put k v`. The plan does not know what they mean.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Words(Arc<str>);

impl Words {
    /// These words, with one space between any two.
    pub fn new(text: &str) -> Words {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        Words(words.join(" ").into())
    }

    /// All of them.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first one, which says what is done.
    pub fn verb(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// An operation of the service.
    Service(Words),
    /// `add N`: a new voter with an empty disk.
    Add(NodeId),
    /// `learner N`: a new learner with an empty disk.
    Learner(NodeId),
    /// `promote N`: a learner becomes a voter.
    Promote(NodeId),
    /// `remove N`: a member leaves for ever.
    Remove(NodeId),
    /// `replace N M`: in one joint step, N leaves and the new M becomes a voter.
    Replace {
        /// Who leaves.
        old: NodeId,
        /// Who comes, with an empty disk.
        new: NodeId,
    },
    /// `transfer N`: the leader hands over to N.
    Transfer(NodeId),
    /// `change +4 ~5 ^3 -1`: several members in one joint step.
    Change(Vec<Part>),
    /// `move N ADDRESS`: a member is reached at another address from now on.
    Move {
        /// The member.
        node: NodeId,
        /// Its new address.
        address: String,
    },
    /// `remove leader`: whoever leads when the operator turns to it leaves for ever.
    RemoveLeader,
    /// `replace leader M`: in one joint step, whoever leads when the operator turns to it leaves
    /// and the new M becomes a voter.
    ReplaceLeader(NodeId),
    /// `restart`: the client's process dies, with what it had under way, at exactly this time; a
    /// new one begins without a session.
    Restart,
}

/// An operation of the operator, or `restart`, as a scenario writes it.
struct Verb {
    /// The first word of its text.
    name: &'static str,
    /// Its form, for errors.
    form: &'static str,
    /// Parses what follows the verb.
    parse: fn(&mut Tokens<'_>) -> Result<Op, GrammarError>,
}

const VERBS: &[Verb] = &[
    Verb { name: "add", form: "add N [@N]", parse: |tokens| tokens.node().map(Op::Add) },
    Verb {
        name: "learner",
        form: "learner N [@N]",
        parse: |tokens| tokens.node().map(Op::Learner),
    },
    Verb {
        name: "promote",
        form: "promote N [@N]",
        parse: |tokens| tokens.node().map(Op::Promote),
    },
    Verb {
        name: "remove",
        form: "remove N|leader [!imprudent|!forced] [@N]",
        parse: |tokens| match tokens.take_if("leader") {
            true => Ok(Op::RemoveLeader),
            false => tokens.node().map(Op::Remove),
        },
    },
    Verb {
        name: "replace",
        form: "replace N|leader M [!imprudent|!forced] [@N]",
        parse: |tokens| match tokens.take_if("leader") {
            true => tokens.node().map(Op::ReplaceLeader),
            false => Ok(Op::Replace { old: tokens.node()?, new: tokens.node()? }),
        },
    },
    Verb {
        name: "transfer",
        form: "transfer N [@N]",
        parse: |tokens| tokens.node().map(Op::Transfer),
    },
    Verb { name: "move", form: "move N ADDRESS [@N]", parse: parse_move },
    Verb {
        name: "change",
        form: "change +N|~N|^N|_N|-N.. [!imprudent|!forced] [@N]",
        parse: |tokens| parse_parts(tokens).map(Op::Change),
    },
    Verb { name: "restart", form: "restart", parse: |_| Ok(Op::Restart) },
];

/// The verbs with their forms.
fn grammar() -> impl Iterator<Item = (&'static str, &'static str)> {
    VERBS.iter().map(|verb| (verb.name, verb.form))
}

fn parse_move(tokens: &mut Tokens<'_>) -> Result<Op, GrammarError> {
    let (node, address) = (tokens.node()?, tokens.need("an address")?.to_owned());
    match is_word(&address) {
        true => Ok(Op::Move { node, address }),
        false => tokens.fail(format!("`{address}` is not an address")),
    }
}

impl Op {
    /// The verb of its text form.
    pub fn kind(&self) -> &str {
        match self {
            Op::Service(words) => words.verb(),
            Op::Add(_) => "add",
            Op::Learner(_) => "learner",
            Op::Promote(_) => "promote",
            Op::Remove(_) | Op::RemoveLeader => "remove",
            Op::Replace { .. } | Op::ReplaceLeader(_) => "replace",
            Op::Transfer(_) => "transfer",
            Op::Move { .. } => "move",
            Op::Change(_) => "change",
            Op::Restart => "restart",
        }
    }

    /// Whether it is the operator's business.
    pub fn is_admin(&self) -> bool {
        !self.nodes().is_empty() || *self == Op::RemoveLeader
    }

    /// Whether it is about whoever leads when the operator turns to it.
    pub fn is_aimed(&self) -> bool {
        matches!(self, Op::RemoveLeader | Op::ReplaceLeader(_))
    }

    /// The nodes that it brings into the cluster.
    pub fn new_nodes(&self) -> Vec<NodeId> {
        match self {
            Op::Add(node)
            | Op::Learner(node)
            | Op::Replace { new: node, .. }
            | Op::ReplaceLeader(node) => vec![*node],
            Op::Change(parts) => {
                parts.iter().filter(|part| part.is_new()).map(|part| part.node()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Every node that it names.
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Op::Add(node)
            | Op::Learner(node)
            | Op::Promote(node)
            | Op::Remove(node)
            | Op::ReplaceLeader(node)
            | Op::Move { node, .. }
            | Op::Transfer(node) => vec![*node],
            Op::Replace { old, new } => vec![*old, *new],
            Op::Change(parts) => parts.iter().map(|part| part.node()).collect(),
            _ => Vec::new(),
        }
    }
}

/// How a request is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// A write in a session, so that it can be repeated; a linearizable read.
    #[default]
    Usual,
    /// A write without a session. It is not repeated once it may have had an effect.
    NoSession,
    /// A read of what the node has applied, however old.
    Stale,
    /// A change of the membership that is asked for even if what is left may be no quorum.
    Imprudent,
    /// The same, and the leader is asked to make it whatever it thinks of that.
    Forced,
    /// A put with the number of the newest command that its client has seen applied: a mistake of the
    /// client, whose command must not take effect.
    Reused,
}

impl Manner {
    /// All but the usual one.
    const NAMES: [(&'static str, Manner); 5] = [
        ("no-session", Manner::NoSession),
        ("stale", Manner::Stale),
        ("imprudent", Manner::Imprudent),
        ("forced", Manner::Forced),
        ("reused", Manner::Reused),
    ];

    fn fits(self, op: &Op) -> bool {
        match self {
            Manner::Usual => true,
            // Only the service can tell a command from a query.
            Manner::NoSession | Manner::Stale | Manner::Reused => matches!(op, Op::Service(_)),
            Manner::Imprudent | Manner::Forced => op.is_admin() && !matches!(op, Op::Transfer(_)),
        }
    }
}

/// An operation and where it is tried first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is done.
    pub op: Op,
    /// How it is asked for (written as `!` and its name).
    pub manner: Manner,
    /// The node of the first attempt (written as `@N`); `None` leaves it to the client.
    pub node: Option<NodeId>,
}

impl From<Op> for Call {
    fn from(op: Op) -> Call {
        Call { op, manner: Manner::Usual, node: None }
    }
}

impl Call {
    /// Reports the first word of an operation of the service if it is none of the verbs of its
    /// `grammar`, nor one of the operator's.
    ///
    /// # Errors
    /// When there is no such verb; the message suggests one.
    pub fn check_verb(&self, grammar: &Grammar) -> Result<(), GrammarError> {
        let all: Vec<_> = grammar.iter().copied().chain(self::grammar()).collect();
        Tokens::new(self.op.kind(), "").verb("operation", &all).map(drop)
    }

    /// Whether the operator does not care if what is left is a quorum.
    pub fn is_imprudent(&self) -> bool {
        matches!(self.manner, Manner::Imprudent | Manner::Forced)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        if let Some((name, _)) = Manner::NAMES.iter().find(|(_, manner)| *manner == self.manner) {
            write!(f, " !{name}")?;
        }
        self.node.map_or(Ok(()), |node| write!(f, " @{}", node.0))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = self.kind();
        match self {
            Op::Service(words) => words.fmt(f),
            Op::Add(node)
            | Op::Learner(node)
            | Op::Promote(node)
            | Op::Remove(node)
            | Op::Transfer(node) => write!(f, "{verb} {}", node.0),
            Op::Replace { old, new } => write!(f, "{verb} {} {}", old.0, new.0),
            Op::Move { node, address } => write!(f, "{verb} {} {address}", node.0),
            Op::Change(parts) => {
                f.write_str(verb)?;
                parts.iter().try_for_each(|part| write!(f, " {part}"))
            }
            Op::RemoveLeader => write!(f, "{verb} leader"),
            Op::ReplaceLeader(new) => write!(f, "{verb} leader {}", new.0),
            Op::Restart => f.write_str(verb),
        }
    }
}

impl FromStr for Call {
    type Err = GrammarError;

    /// Reads an operation of the operator, or else words of the service. A service may have a verb of the
    /// operator, too: then it depends on the client who is meant.
    fn from_str(text: &str) -> Result<Call, GrammarError> {
        Call::parse(text).or_else(|_| Call::parse_words(text))
    }
}

impl Call {
    /// Reads words of the service, whatever they are.
    pub(crate) fn parse_words(text: &str) -> Result<Call, GrammarError> {
        Call::parse_as(text, false)
    }

    /// Reads an operation of the operator if its verb is one of the operator's.
    pub(crate) fn parse(text: &str) -> Result<Call, GrammarError> {
        Call::parse_as(text, true)
    }

    fn parse_as(text: &str, may_be_operator: bool) -> Result<Call, GrammarError> {
        let mut tokens = Tokens::new(text, "OPERATION [!MANNER] [@N]");
        let verb = tokens.peek().filter(|_| may_be_operator);
        let verb = verb.and_then(|word| VERBS.iter().find(|verb| verb.name == word));
        if verb.is_some() {
            // Later errors show its form.
            tokens.verb("operation", &grammar().collect::<Vec<_>>())?;
        }
        let mut rest = text.trim();
        let node = match tokens.take_suffix('@') {
            None => None,
            Some(word) => match parse_node(word) {
                Some(node) => {
                    rest = without(rest, word);
                    Some(node)
                }
                None => return tokens.fail(format!("`@{word}` is not a node")),
            },
        };
        let manner = match tokens.take_suffix('!') {
            None => Manner::Usual,
            Some(word) => match Manner::NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, manner)) => {
                    rest = without(rest, word);
                    *manner
                }
                None => return tokens.fail(format!("`!{word}` is no way to ask")),
            },
        };
        let Some(verb) = verb else {
            return Ok(Call { op: Op::Service(Words::new(rest)), manner, node });
        };
        let op = (verb.parse)(&mut tokens)?;
        tokens.end()?;
        if !manner.fits(&op) {
            return tokens.fail(format!("`{}` cannot be asked for like that", verb.name));
        }
        Ok(Call { op, manner, node })
    }
}

/// The text without a sign and this word at its end.
fn without<'a>(text: &'a str, word: &str) -> &'a str {
    text[..text.len() - word.len() - 1].trim_end()
}

/// Words have no signs that mean something in the grammar.
pub(crate) fn is_word(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:-".contains(&byte);
    !word.is_empty() && word != "-" && word.bytes().all(allowed)
}
