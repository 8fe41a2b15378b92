//! Changes of several members in one joint step, and their text form: `change +4 ~5 ^3 -1`.

use std::fmt;

use stormkv::types::NodeId;

use super::grammar::{GrammarError, Tokens, parse_node};

/// What becomes of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `+N`: a new voter with an empty disk.
    Voter(NodeId),
    /// `~N`: a new learner with an empty disk.
    Learner(NodeId),
    /// `^N`: a learner becomes a voter.
    Promote(NodeId),
    /// `_N`: a voter becomes a learner.
    Demote(NodeId),
    /// `-N`: a member leaves for ever.
    Remove(NodeId),
}

impl Part {
    /// The member.
    pub fn node(self) -> NodeId {
        match self {
            Part::Voter(node)
            | Part::Learner(node)
            | Part::Promote(node)
            | Part::Demote(node)
            | Part::Remove(node) => node,
        }
    }

    /// Whether it brings a node into the cluster.
    pub fn is_new(self) -> bool {
        matches!(self, Part::Voter(_) | Part::Learner(_))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Part::Voter(_) => '+',
            Part::Learner(_) => '~',
            Part::Promote(_) => '^',
            Part::Demote(_) => '_',
            Part::Remove(_) => '-',
        };
        write!(f, "{sign}{}", self.node().0)
    }
}

/// Reads all parts up to the end.
pub(super) fn parse_parts(tokens: &mut Tokens<'_>) -> Result<Vec<Part>, GrammarError> {
    let mut parts: Vec<Part> = Vec::new();
    while parts.is_empty() || tokens.peek().is_some() {
        let word = tokens.need("a change of a member")?;
        let sign = word.chars().next().unwrap_or(' ');
        let part = match (sign, word.get(1..).and_then(parse_node)) {
            ('+', Some(node)) => Part::Voter(node),
            ('~', Some(node)) => Part::Learner(node),
            ('^', Some(node)) => Part::Promote(node),
            ('_', Some(node)) => Part::Demote(node),
            ('-', Some(node)) => Part::Remove(node),
            _ => return tokens.fail(format!("`{word}` is not a change of a member")),
        };
        if parts.iter().any(|other| other.node() == part.node()) {
            return tokens.fail(format!("node {} stands twice", part.node().0));
        }
        parts.push(part);
    }
    Ok(parts)
}
