//! Turns a panic inside a run into a value.
//!
//! A panic of the node, of raft or of a checker is a finding about one seed, not the end of a
//! campaign. The process-wide panic hook is wrapped once: on a thread that is inside [`caught`] it
//! keeps the message and the place and prints nothing; everywhere else the earlier hook runs, so a
//! panic of the harness is as loud as ever.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use crate::outcome::{Class, Outcome, Violation};
use crate::rng::fold_hash;

/// What a panic said, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The message, joined to one line.
    pub message: String,
    /// `file:line:column`, without the machine's own path in front of a dependency.
    pub place: String,
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Runs `body`; a panic inside comes back as an error.
///
/// The caller must not look again at what `body` may have left half-changed: a run owns all it
/// touches, and is dropped whole.
pub fn caught<T>(body: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let outer = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                LAST.set(Some(describe(info)));
            } else {
                outer(info);
            }
        }));
    });
    let outer = INSIDE.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    result.map_err(|_| LAST.take().expect("the hook runs before the unwinding"))
}

fn describe(info: &PanicHookInfo<'_>) -> Panic {
    // `panic!` carries a `&str` without arguments, a `String` with some.
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let place = info.location().map_or_else(
        || "an unknown place".to_string(),
        |at| format!("{}:{}:{}", portable(at.file()), at.line(), at.column()),
    );
    Panic { message: one_line(message), place }
}

/// Joins the lines of `assert_eq!` and its like: a finding is one sentence.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// A dependency's path begins with where this machine keeps its registry; the part from the
/// package's name on is the same everywhere.
fn portable(file: &str) -> &str {
    let Some((_, rest)) = file.split_once("registry/src/") else { return file };
    rest.split_once('/').map_or(rest, |(_, package)| package)
}

/// Makes one run; a panic inside becomes a safety violation of the checker `panic`.
///
/// The trace hash of such a run covers the message but not the place, which differs between
/// machines and compilers.
pub fn guarded(run: impl FnOnce() -> Outcome) -> Outcome {
    caught(run).unwrap_or_else(|panic| {
        let trace_hash = panic.message.bytes().fold(0, |hash, byte| fold_hash(hash, byte.into()));
        let violation = Violation {
            class: Class::Safety,
            checker: "panic",
            message: format!("the run panicked: {} (at {})", panic.message, panic.place),
            step: 0,
            at_ns: 0,
        };
        Outcome { violation: Some(violation), trace_hash, ..Outcome::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_comes_back_with_message_and_place() {
        let panic = caught(|| assert_eq!(1 + 1, 3, "the sum")).unwrap_err();
        assert_eq!(panic.message, "assertion `left == right` failed: the sum; left: 2; right: 3");
        assert!(panic.place.contains("caught.rs:"), "{}", panic.place);
    }

    #[test]
    fn values_pass_through_and_a_panic_leaves_nothing_behind() {
        assert!(caught(|| panic!("first")).is_err());
        assert_eq!(caught(|| 7), Ok(7));
        let formatted = caught(|| panic!("number {}", 2)).unwrap_err();
        assert_eq!(formatted.message, "number 2");
        let odd = caught(|| panic::panic_any(5u8)).unwrap_err();
        assert_eq!(odd.message, "a panic without a message");
    }

    #[test]
    fn places_name_no_machine_path() {
        let file = "/home/u/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/raft-0.7.0/a.rs";
        assert_eq!(portable(file), "raft-0.7.0/a.rs");
        assert_eq!(portable("src/log.rs"), "src/log.rs");
    }
}
