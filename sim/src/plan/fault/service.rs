//! A fault that a service declares, as a plan holds it: a name, a target, and words for the service.

use std::fmt;

use super::super::grammar::{GrammarError, Tokens};
use super::super::op::{Words, is_word};
use super::{Fault, Who, parse_who};
use crate::names::{Name, intern};

/// A fault of the service. The plan does not know what it does; `scenario` checks that the service has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFault {
    name: Name,
    arguments: Words,
}

impl ServiceFault {
    /// The fault of this name, with these words for the service.
    pub fn new(name: &str, arguments: &str) -> ServiceFault {
        ServiceFault { name: intern(name), arguments: Words::new(arguments) }
    }

    /// Its name, under which it is counted, too.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The words behind the target.
    pub fn arguments(&self) -> &str {
        self.arguments.as_str()
    }

    /// Reads `NAME N|leader|same [WORDS]`; `None` if the text does not have this form.
    pub(super) fn parse(tokens: &mut Tokens<'_>) -> Option<Fault> {
        let name = tokens.take().filter(|name| is_word(name))?;
        let who = parse_who(tokens).ok()?;
        let rest: Vec<&str> = std::iter::from_fn(|| tokens.take()).collect();
        Some(Fault::Service(who, ServiceFault::new(name, &rest.join(" "))))
    }

    /// Writes the whole text, given the target.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, who: Who) -> fmt::Result {
        write!(f, "{} {who}", self.name)?;
        match self.arguments() {
            "" => Ok(()),
            words => write!(f, " {words}"),
        }
    }
}

/// The error for a name that is neither a fault of the simulator nor one of these faults of the service.
pub(crate) fn unknown(name: &str, known: &[(&'static str, &'static str)]) -> GrammarError {
    let ours = super::all_kinds().map(|kind| (kind.verb, kind.form));
    let grammar: Vec<_> = ours.chain(known.iter().copied()).collect();
    let found = Tokens::new(name, "").verb("fault", &grammar);
    found.expect_err("the fault is unknown")
}
