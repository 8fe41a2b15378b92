//! The common part of the small languages of the `do` texts: words, numbers, nodes, and errors
//! that name the offending token and show the form that is allowed.

use std::fmt;

use stormkv::types::NodeId;

use super::check::MAX_NODE_ID;
use super::fault::Member;
use super::units;

/// A `do` text that does not follow the grammar. The message ends with the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrammarError(String);

impl fmt::Display for GrammarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GrammarError {}

/// The verbs of a language, each with its form.
pub type Grammar = [(&'static str, &'static str)];

/// A text on its way through a parser.
pub(crate) struct Tokens<'a> {
    text: &'a str,
    words: Vec<&'a str>,
    next: usize,
    usage: &'static str,
}

impl<'a> Tokens<'a> {
    /// Splits at spaces; `|`, `;` and `->` are words of their own.
    pub(crate) fn new(text: &'a str, usage: &'static str) -> Self {
        let mut words = Vec::new();
        for chunk in text.split_ascii_whitespace() {
            let mut rest = chunk;
            while let Some((at, len)) = separator(rest) {
                words.extend(Some(&rest[..at]).filter(|word| !word.is_empty()));
                words.push(&rest[at..at + len]);
                rest = &rest[at + len..];
            }
            words.extend(Some(rest).filter(|word| !word.is_empty()));
        }
        Tokens { text, words, next: 0, usage }
    }

    /// Takes the first word and looks up its form, which later errors will show.
    pub(crate) fn verb(
        &mut self,
        what: &str,
        grammar: &Grammar,
    ) -> Result<&'static str, GrammarError> {
        let word = self.take().unwrap_or("");
        if let Some((verb, usage)) = grammar.iter().find(|(verb, _)| *verb == word) {
            self.usage = usage;
            return Ok(verb);
        }
        let verbs = || grammar.iter().map(|(verb, _)| *verb);
        let remedy = match nearest(word, verbs()) {
            Some(verb) => format!("did you mean `{verb}`?"),
            None => format!("write one of {}", verbs().collect::<Vec<_>>().join(", ")),
        };
        Err(GrammarError(format!("unknown {what} `{word}`; {remedy}")))
    }

    /// An error about this text.
    pub(crate) fn fail<T>(&self, what: impl fmt::Display) -> Result<T, GrammarError> {
        Err(GrammarError(format!("{what} in `{}`; write `{}`", self.text.trim(), self.usage)))
    }

    /// The next word, which stays.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    /// The next word.
    pub(crate) fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.next += 1;
        Some(word)
    }

    /// Takes the next word if it is this one.
    pub(crate) fn take_if(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(word);
        self.next += usize::from(found);
        found
    }

    /// Takes the last word off if it begins with this sign; returns what follows the sign.
    pub(crate) fn take_suffix(&mut self, sign: char) -> Option<&'a str> {
        let rest = self.words.last()?.strip_prefix(sign)?;
        self.words.pop();
        Some(rest)
    }

    /// The next word, which must be there.
    pub(crate) fn need(&mut self, what: &str) -> Result<&'a str, GrammarError> {
        match self.take() {
            Some(word) => Ok(word),
            None => self.fail(format!("{what} is missing")),
        }
    }

    /// Takes the next word, which must be this one.
    pub(crate) fn expect(&mut self, word: &str) -> Result<(), GrammarError> {
        if self.take_if(word) {
            return Ok(());
        }
        match self.peek() {
            Some(found) => self.fail(format!("`{found}` stands where `{word}` is expected")),
            None => self.fail(format!("`{word}` is missing")),
        }
    }

    /// A whole number within limits.
    pub(crate) fn number(
        &mut self,
        what: &str,
        least: u32,
        most: u32,
    ) -> Result<u32, GrammarError> {
        let word = self.need(what)?;
        match parse_number(word) {
            Some(number) if (least..=most).contains(&number) => Ok(number),
            _ => self.fail(format!("`{word}` is not {what} ({least} to {most})")),
        }
    }

    /// A time within limits, in microseconds; written in milliseconds, such as `12.5ms`.
    pub(crate) fn duration_us(
        &mut self,
        what: &str,
        least_us: u64,
        most_us: u64,
    ) -> Result<u64, GrammarError> {
        let word = self.need(what)?;
        let us = word.strip_suffix("ms").and_then(units::parse_ms);
        match us.filter(|us| (least_us..=most_us).contains(us)) {
            Some(us) => Ok(us),
            None => {
                let (least, most) = (units::show_ms(least_us), units::show_ms(most_us));
                self.fail(format!("`{word}` does not say {what} ({least}ms to {most}ms)"))
            }
        }
    }

    /// A node's number.
    pub(crate) fn node(&mut self) -> Result<NodeId, GrammarError> {
        let word = self.need("a node")?;
        match parse_node(word) {
            Some(node) => Ok(node),
            None => self.fail(format!("`{word}` is not a node")),
        }
    }

    /// One member: a node's number, or `c` and a client's number.
    pub(crate) fn member(&mut self) -> Result<Member, GrammarError> {
        let word = self.need("a node or client")?;
        let client = word.strip_prefix('c').and_then(parse_number).filter(|client| *client > 0);
        match (client, parse_node(word)) {
            (Some(client), _) => Ok(Member::Client(client)),
            (None, Some(node)) => Ok(Member::Node(node)),
            (None, None) => self.fail(format!("`{word}` is not a node or client")),
        }
    }

    /// One or more members, up to this word, a setting (`key=value`), or the end.
    pub(crate) fn members(&mut self, stop: &str) -> Result<Vec<Member>, GrammarError> {
        let mut members = Vec::new();
        let goes_on = |word: &str| word != stop && !word.contains('=');
        while members.is_empty() || self.peek().is_some_and(goes_on) {
            let member = self.member()?;
            if members.contains(&member) {
                return self.fail(format!("`{member}` stands twice"));
            }
            members.push(member);
        }
        Ok(members)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), GrammarError> {
        match self.peek() {
            Some(word) => self.fail(format!("`{word}` is too much")),
            None => Ok(()),
        }
    }
}

/// Where the next separator stands, and its length in bytes.
fn separator(word: &str) -> Option<(usize, usize)> {
    let sign = word.find(['|', ';']).map(|at| (at, 1));
    let arrow = word.find("->").map(|at| (at, 2));
    [sign, arrow].into_iter().flatten().min()
}

/// A plain decimal number: no sign, no leading zero, so that each number has one spelling.
fn parse_number(word: &str) -> Option<u32> {
    let plain = word == "0" || (!word.starts_with('0') && !word.starts_with('+'));
    word.parse().ok().filter(|_| plain)
}

/// A node's number, within the limits of a plan.
pub(crate) fn parse_node(word: &str) -> Option<NodeId> {
    let number = parse_number(word)?;
    (1..=MAX_NODE_ID).contains(&number).then_some(NodeId(u64::from(number)))
}

/// The known word that was probably meant: at most two letters wrong, and fewer than half of them.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, removed or replaced (Levenshtein distance).
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
