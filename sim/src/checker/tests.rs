//! A test per checker: silent on what real nodes do, loud on the same story with one lie in it.
//!
//! A small cluster of the product's own drivers is recorded once, event by event, as a [`Tape`].
//! The honest tape must pass. Each test then changes one thing on it, or adds one, and demands the
//! checker's stable name. So a checker that never speaks fails its test, and so does one that
//! another checker hides.

mod damage;
mod logs;
mod nodes;
mod repeats;
mod replicas;
mod tape;

use stormkv::types::NodeId;

use self::tape::{Fed, Tape};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// The checker that speaks about this tape; the honest one must have passed before.
fn verdict(tape: &Tape) -> Option<&'static str> {
    tape.play().err().map(|broken| broken.check)
}

/// Applies one lie to the honest tape, and demands that exactly this checker hears it.
#[track_caller]
fn caught(checker: &str, lie: impl FnOnce(&mut Tape)) {
    let mut tape = Tape::honest();
    assert_eq!(tape.play().err(), None, "the honest tape");
    lie(&mut tape);
    assert_eq!(verdict(&tape), Some(checker));
}

/// Adds something that is unusual, but no lie.
#[track_caller]
fn silent(change: impl FnOnce(&mut Tape)) {
    let mut tape = Tape::honest();
    change(&mut tape);
    assert_eq!(tape.play().err(), None);
}

#[test]
fn the_honest_tape_holds_what_the_lies_need() {
    let tape = Tape::honest();
    let safety = tape.play().expect("honest");
    let counts = safety.counts();
    // No entry is replaced here; the others look at more than the inside of nodes, and have their
    // tests where they are.
    let elsewhere = [
        "committed-append-only",
        "bounds",
        "convergence",
        "refusal",
        "frame-integrity",
        "repetition",
        "availability",
        "catch-up",
        "snapshot-rate",
        "goodput",
        "reads-go-back",
        "prudence",
        "recovery",
    ];
    for (name, count) in counts {
        let elsewhere = elsewhere.contains(&name)
            || name.starts_with("linearizability")
            || name.starts_with("damage");
        assert!(elsewhere || count > 0, "{name} was never put to the test");
    }
    assert!(tape.fed.iter().any(|fed| matches!(fed, Fed::Crashed(..))));
}
