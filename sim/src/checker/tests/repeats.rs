//! Lies about leaders that append what they have.

use bytes::Bytes;
use stormkv::node::Proposal;
use stormkv::types::{Entry, SessionId};

use super::tape::{Fed, Tape, entry};
use super::{caught, silent};

/// The session of the tape, and its newest number.
fn session(tape: &Tape) -> (SessionId, u64) {
    let at = tape.last_of(|fed| matches!(fed, Fed::Acknowledged(..)));
    match tape.fed[at] {
        Fed::Acknowledged(session, number, ..) => (session, number),
        _ => unreachable!("found so"),
    }
}

/// An entry `ahead` of the last one, of a term so much `newer`, that holds this command.
fn copy(tape: &Tape, ahead: u64, newer: u64, (session, number): (SessionId, u64)) -> Entry {
    let [session, number] = [session.0, number].map(|part| u8::try_from(part).expect("small"));
    let data = Bytes::from(vec![1, 1, session, number, 0]);
    let command = Some((SessionId(session.into()), number.into()));
    assert_eq!(Proposal::decode(&data), Some(Proposal::Command(command, b"")));
    Entry { data, ..entry(tape.last.index + ahead, tape.last.term + newer, b"") }
}

#[test]
fn a_copy_of_an_open_command_breaks_repetition() {
    let appends = |tape: &mut Tape, numbers: [u64; 2]| {
        let (session, newest) = session(tape);
        for (ahead, number) in (1..).zip(numbers) {
            let entry = copy(tape, ahead, 0, (session, newest + number));
            tape.writes(tape.leader, entry);
        }
    };
    silent(|tape| appends(tape, [1, 2]));
    caught("repetition", |tape| appends(tape, [1, 1]));
}

#[test]
fn a_copy_of_an_applied_command_breaks_repetition() {
    let appends = |tape: &mut Tape, passed_by: u64| {
        let (session, newest) = session(tape);
        let entry = copy(tape, 1, 0, (session, newest - passed_by));
        tape.writes(tape.leader, entry);
    };
    caught("repetition", |tape| appends(tape, 0));
    // Its response is forgotten.
    silent(|tape| appends(tape, 1));
}

#[test]
fn a_copy_that_only_another_member_has_is_none() {
    silent(|tape| {
        let (session, newest) = session(tape);
        for (newer, id) in (0..).zip(tape.followers) {
            let entry = copy(tape, 1, newer, (session, newest + 1));
            tape.writes(id, entry);
        }
    });
}
