//! Lies about what is committed, applied, answered and held.

use bytes::Bytes;
use stormkv::kv::{Command, Kv};
use stormkv::machine::StateMachine;
use stormkv::node::Applied;
use stormkv::types::LogIndex;

use super::tape::{Fed, Tape, entry};
use super::{N1, caught, silent};

#[test]
fn committing_what_nobody_wrote_breaks_state_machine_safety() {
    caught("state-machine-safety", |tape| {
        tape.commits_next(tape.followers[0], tape.next_entry(b""));
    });
}

#[test]
fn two_committed_entries_of_one_index_break_state_machine_safety() {
    let both_commit = |tape: &mut Tape, newer: u64| {
        let (index, term) = (tape.last.index + 1, tape.last.term);
        for (id, term) in [(tape.followers[0], term), (tape.followers[1], term + newer)] {
            tape.writes(id, entry(index, term, b""));
            tape.commits_next(id, entry(index, term, b""));
        }
    };
    silent(|tape| both_commit(tape, 0));
    caught("state-machine-safety", |tape| both_commit(tape, 1));
}

#[test]
fn applying_more_than_is_committed_breaks_applied_committed() {
    caught("applied-committed", |tape| {
        tape.shows(tape.followers[0], |seen| {
            seen.status.applied.index = seen.status.hard_state.commit + 1;
        });
    });
}

/// The last entry that somebody applied.
fn last_applied(tape: &mut Tape) -> (usize, &mut Applied) {
    let at = tape.last_of(|fed| matches!(fed, Fed::Applied(..)));
    match &mut tape.fed[at] {
        Fed::Applied(_, applied) => (at, applied),
        _ => unreachable!("found so"),
    }
}

#[test]
fn an_entry_left_out_or_applied_twice_breaks_applied_in_order() {
    caught("applied-in-order", |tape| {
        let at = tape.first_of(|fed| matches!(fed, Fed::Applied(_, a) if a.id.index == 3));
        tape.fed.remove(at);
    });
    caught("applied-in-order", |tape| {
        let at = tape.last_of(|fed| matches!(fed, Fed::Applied(..)));
        let Fed::Applied(id, applied) = tape.fed[at] else { unreachable!("found so") };
        tape.fed.push(Fed::Applied(id, applied));
    });
}

#[test]
fn replicas_that_differ_break_state_hash() {
    caught("state-hash", |tape| last_applied(tape).1.digest ^= 1);
}

#[test]
fn replicas_that_differ_in_the_members_break_membership_hash() {
    caught("membership-hash", |tape| last_applied(tape).1.membership ^= 1);
}

#[test]
fn an_answer_from_an_old_state_breaks_read_index() {
    silent(|tape| tape.fed.push(Fed::Read(N1, 5, 5)));
    caught("read-index", |tape| tape.fed.push(Fed::Read(N1, 4, 5)));
}

/// Changes what some client was told: number, index, response.
fn told(tape: &mut Tape, change: impl FnOnce(&mut u64, &mut LogIndex, &mut Bytes)) {
    let at = tape.last_of(|fed| matches!(fed, Fed::Acknowledged(..)));
    if let Fed::Acknowledged(_, number, index, response) = &mut tape.fed[at] {
        change(number, index, response);
    }
}

#[test]
fn a_wrong_answer_breaks_response() {
    caught("response", |tape| told(tape, |_, _, response| *response = Bytes::from_static(b"no")));
    // Never took effect; before its effect.
    caught("response", |tape| told(tape, |number, _, _| *number += 100));
    caught("response", |tape| told(tape, |_, index, _| *index -= 1));
}

#[test]
fn a_committed_entry_that_is_no_proposal_breaks_codec() {
    let commit = |tape: &mut Tape, data: &'static [u8]| {
        tape.writes(tape.followers[0], tape.next_entry(data));
        tape.commits_next(tape.followers[0], tape.next_entry(data));
    };
    silent(|tape| commit(tape, b""));
    caught("codec", |tape| commit(tape, &[9]));
}

/// Changes what a node holds in the end.
fn holds(tape: &mut Tape, change: impl FnOnce(&mut Kv)) {
    let at = tape.last_of(|fed| matches!(fed, Fed::Content(..)));
    if let Fed::Content(_, kv) = &mut tape.fed[at] {
        change(kv);
    }
}

#[test]
fn a_lost_a_changed_and_an_invented_key_break_content() {
    let put = |key: &'static str| Command::Put { key: key.into(), value: "x".into() }.encode();
    let lost = Command::Delete { key: "key9".into() }.encode();
    for command in [lost, put("key3"), put("key"), put("zebra")] {
        caught("content", |tape| holds(tape, |kv| drop(kv.apply(99, &command))));
    }
    caught("content", |tape| holds(tape, |kv| *kv = Kv::default()));
}
