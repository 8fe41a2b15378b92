//! What clients and the operator do, and the text form of it in a scenario's `do`.

use std::fmt;
use std::str::FromStr;

use stormkv::kv::MAX_SCAN;
use stormkv::types::NodeId;

use super::change::{Part, parse_parts};
use super::grammar::{Grammar, GrammarError, Tokens, parse_node};
use super::value::{Value, is_word, parse_value, read_value};

/// What a transaction asks before it acts: is the key's value this one?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The key.
    pub key: String,
    /// The value it must have; `None` if it must be absent (written as `-`).
    pub value: Option<Value>,
}

/// One action of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// Reads a key.
    Get {
        /// The key.
        key: String,
    },
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// `put k v`: sets a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// `get k`: reads a key.
    Get {
        /// The key.
        key: String,
    },
    /// `delete k`: removes a key.
    Delete {
        /// The key.
        key: String,
    },
    /// `cas k old new`: sets a key to `new` if its value is `old`.
    Cas {
        /// The key.
        key: String,
        /// What it must be; `None` if it must be absent (written as `-`).
        old: Option<Value>,
        /// What it becomes.
        new: Value,
    },
    /// `guarded k seen v`: sets a key (or, with `-` in the place of the value, removes it) if its
    /// revision is as expected: `If-Match` and `If-None-Match` of the HTTP interface.
    Guarded {
        /// The key.
        key: String,
        /// What must hold.
        guard: Guard,
        /// What it becomes; `None` to remove it.
        value: Option<Value>,
    },
    /// `scan prefix`: reads all keys that begin with it; `scan prefix limit 2`: page by page.
    Scan {
        /// The prefix; empty for all keys (written as `*`).
        prefix: String,
        /// The most entries of a page. 0: there is one page, for all of them.
        limit: u32,
    },
    /// `txn if k=v k2=- then put a 1; delete b else get c`: all at once.
    Txn {
        /// All must hold; none always hold.
        conditions: Vec<Condition>,
        /// Done if they hold.
        then: Vec<Step>,
        /// Done if they do not.
        otherwise: Vec<Step>,
    },
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

const GRAMMAR: &Grammar = &[
    ("put", "put KEY VALUE [!no-session|!reused] [@N]"),
    ("get", "get KEY [!stale] [@N]"),
    ("delete", "delete KEY [!no-session] [@N]"),
    ("cas", "cas KEY OLD|- NEW [!no-session] [@N]"),
    ("guarded", "guarded KEY absent|present|seen VALUE|- [!no-session] [@N]"),
    ("scan", "scan PREFIX|* [limit COUNT] [!stale] [@N]"),
    ("txn", "txn [if KEY=VALUE|-..] then STEP[; STEP..] [else STEP[; STEP..]] [!no-session] [@N]"),
    ("add", "add N [@N]"),
    ("learner", "learner N [@N]"),
    ("promote", "promote N [@N]"),
    ("remove", "remove N|leader [!imprudent|!forced] [@N]"),
    ("replace", "replace N|leader M [!imprudent|!forced] [@N]"),
    ("transfer", "transfer N [@N]"),
    ("move", "move N ADDRESS [@N]"),
    ("change", "change +N|~N|^N|_N|-N.. [!imprudent|!forced] [@N]"),
    ("restart", "restart"),
];

/// The most conditions, and the most steps of one branch, in a transaction.
const MAX_STEPS: usize = 128;

impl Op {
    /// The verb of its text form.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Put { .. } => "put",
            Op::Get { .. } => "get",
            Op::Delete { .. } => "delete",
            Op::Cas { .. } => "cas",
            Op::Guarded { .. } => "guarded",
            Op::Scan { .. } => "scan",
            Op::Txn { .. } => "txn",
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

    /// Whether it only looks at keys.
    pub fn is_read(&self) -> bool {
        matches!(self, Op::Get { .. } | Op::Scan { .. })
    }

    /// Whether it changes keys.
    pub fn is_write(&self) -> bool {
        !self.is_read() && !self.is_admin() && *self != Op::Restart
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

/// A condition on the revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// It is absent.
    Absent,
    /// It is there.
    Present,
    /// It is as this client saw it last: it has that revision or, if the client has seen no value,
    /// is absent.
    Seen,
}

impl Guard {
    const NAMES: [(&'static str, Guard); 3] =
        [("absent", Guard::Absent), ("present", Guard::Present), ("seen", Guard::Seen)];
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Guard::NAMES.iter().find(|(_, guard)| guard == self);
        f.write_str(named.expect("each has a name").0)
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
            Manner::NoSession => op.is_write(),
            Manner::Stale => op.is_read(),
            Manner::Imprudent | Manner::Forced => op.is_admin() && !matches!(op, Op::Transfer(_)),
            Manner::Reused => matches!(op, Op::Put { .. }),
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
    /// Whether the operator does not care if what is left is a quorum.
    pub fn is_imprudent(&self) -> bool {
        matches!(self.manner, Manner::Imprudent | Manner::Forced)
    }

    /// Whether it is a write that has a number in a session.
    pub fn uses_session(&self) -> bool {
        self.op.is_write() && self.manner != Manner::NoSession
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
            Op::Put { key, value } => write!(f, "{verb} {key} {value}"),
            Op::Get { key } | Op::Delete { key } => write!(f, "{verb} {key}"),
            Op::Cas { key, old: Some(old), new } => write!(f, "{verb} {key} {old} {new}"),
            Op::Cas { key, old: None, new } => write!(f, "{verb} {key} - {new}"),
            Op::Guarded { key, guard, value: Some(value) } => {
                write!(f, "{verb} {key} {guard} {value}")
            }
            Op::Guarded { key, guard, value: None } => write!(f, "{verb} {key} {guard} -"),
            Op::Scan { prefix, limit } => {
                let prefix = if prefix.is_empty() { "*" } else { prefix };
                write!(f, "{verb} {prefix}")?;
                if *limit > 0 { write!(f, " limit {limit}") } else { Ok(()) }
            }
            Op::Txn { conditions, then, otherwise } => {
                f.write_str(verb)?;
                if !conditions.is_empty() {
                    f.write_str(" if")?;
                }
                for Condition { key, value } in conditions {
                    match value {
                        Some(value) => write!(f, " {key}={value}")?,
                        None => write!(f, " {key}=-")?,
                    }
                }
                f.write_str(" then ")?;
                write_steps(f, then)?;
                if !otherwise.is_empty() {
                    f.write_str(" else ")?;
                    write_steps(f, otherwise)?;
                }
                Ok(())
            }
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

fn write_steps(f: &mut fmt::Formatter<'_>, steps: &[Step]) -> fmt::Result {
    for (position, step) in steps.iter().enumerate() {
        f.write_str(if position == 0 { "" } else { "; " })?;
        match step {
            Step::Put { key, value } => write!(f, "put {key} {value}")?,
            Step::Delete { key } => write!(f, "delete {key}")?,
            Step::Get { key } => write!(f, "get {key}")?,
        }
    }
    Ok(())
}

impl FromStr for Call {
    type Err = GrammarError;

    fn from_str(text: &str) -> Result<Call, GrammarError> {
        let mut tokens = Tokens::new(text, "");
        let verb = tokens.verb("operation", GRAMMAR)?;
        let node = match tokens.take_suffix('@') {
            None => None,
            Some(word) => match parse_node(word) {
                Some(node) => Some(node),
                None => return tokens.fail(format!("`@{word}` is not a node")),
            },
        };
        let manner = match tokens.take_suffix('!') {
            None => Manner::Usual,
            Some(word) => match Manner::NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, manner)) => *manner,
                None => return tokens.fail(format!("`!{word}` is no way to ask")),
            },
        };
        let op = match verb {
            "put" => Op::Put { key: parse_key(&mut tokens)?, value: parse_value(&mut tokens)? },
            "get" => Op::Get { key: parse_key(&mut tokens)? },
            "delete" => Op::Delete { key: parse_key(&mut tokens)? },
            "cas" => {
                let key = parse_key(&mut tokens)?;
                let old = if tokens.take_if("-") { None } else { Some(parse_value(&mut tokens)?) };
                Op::Cas { key, old, new: parse_value(&mut tokens)? }
            }
            "guarded" => {
                let (key, guard) = (parse_key(&mut tokens)?, parse_guard(&mut tokens)?);
                let value =
                    if tokens.take_if("-") { None } else { Some(parse_value(&mut tokens)?) };
                Op::Guarded { key, guard, value }
            }
            "scan" => {
                let all = tokens.take_if("*");
                let prefix = if all { String::new() } else { parse_key(&mut tokens)? };
                let pages = tokens.take_if("limit");
                let limit = if pages { tokens.number("a limit", 1, MAX_SCAN)? } else { 0 };
                Op::Scan { prefix, limit }
            }
            "txn" => parse_txn(&mut tokens)?,
            "add" => Op::Add(tokens.node()?),
            "learner" => Op::Learner(tokens.node()?),
            "promote" => Op::Promote(tokens.node()?),
            "remove" if tokens.take_if("leader") => Op::RemoveLeader,
            "remove" => Op::Remove(tokens.node()?),
            "replace" if tokens.take_if("leader") => Op::ReplaceLeader(tokens.node()?),
            "change" => Op::Change(parse_parts(&mut tokens)?),
            "move" => {
                let (node, address) = (tokens.node()?, tokens.need("an address")?.to_owned());
                if !is_word(&address) {
                    return tokens.fail(format!("`{address}` is not an address"));
                }
                Op::Move { node, address }
            }
            "restart" => Op::Restart,
            "replace" => Op::Replace { old: tokens.node()?, new: tokens.node()? },
            verb => {
                assert_eq!(verb, "transfer", "a verb of the grammar has no parser");
                Op::Transfer(tokens.node()?)
            }
        };
        tokens.end()?;
        if !manner.fits(&op) {
            return tokens.fail(format!("`{verb}` cannot be asked for like that"));
        }
        Ok(Call { op, manner, node })
    }
}

fn parse_guard(tokens: &mut Tokens<'_>) -> Result<Guard, GrammarError> {
    let word = tokens.need("a guard")?;
    match Guard::NAMES.iter().find(|(name, _)| *name == word) {
        Some((_, guard)) => Ok(*guard),
        None => tokens.fail(format!("`{word}` is no guard")),
    }
}

fn parse_key(tokens: &mut Tokens<'_>) -> Result<String, GrammarError> {
    let word = tokens.need("a key")?;
    if !is_word(word) {
        return tokens.fail(format!("`{word}` is not a key (letters, digits, _ . / : -)"));
    }
    Ok(word.to_string())
}

fn parse_txn(tokens: &mut Tokens<'_>) -> Result<Op, GrammarError> {
    let mut conditions = Vec::new();
    if tokens.take_if("if") {
        while conditions.is_empty() || tokens.peek().is_some_and(|word| word != "then") {
            let word = tokens.need("a condition")?;
            let Some((key, value)) = word.split_once('=').filter(|(key, _)| is_word(key)) else {
                return tokens.fail(format!("`{word}` is not a condition"));
            };
            let value = if value == "-" { None } else { Some(read_value(tokens, value)?) };
            conditions.push(Condition { key: key.to_string(), value });
        }
    }
    tokens.expect("then")?;
    let then = parse_steps(tokens)?;
    let otherwise = if tokens.take_if("else") { parse_steps(tokens)? } else { Vec::new() };
    if conditions.len().max(then.len()).max(otherwise.len()) > MAX_STEPS {
        return tokens.fail(format!("more than {MAX_STEPS} conditions or steps"));
    }
    Ok(Op::Txn { conditions, then, otherwise })
}

fn parse_steps(tokens: &mut Tokens<'_>) -> Result<Vec<Step>, GrammarError> {
    let mut steps = Vec::new();
    loop {
        steps.push(match tokens.need("a step")? {
            "put" => Step::Put { key: parse_key(tokens)?, value: parse_value(tokens)? },
            "delete" => Step::Delete { key: parse_key(tokens)? },
            "get" => Step::Get { key: parse_key(tokens)? },
            word => return tokens.fail(format!("`{word}` is not a step (put, delete, get)")),
        });
        if !tokens.take_if(";") {
            return Ok(steps);
        }
    }
}
