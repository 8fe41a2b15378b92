//! Lies about what is committed, applied, answered and held.

use std::time::Duration;

use bytes::Bytes;
use stormkv::api::Reconfigure;
use stormkv::kv::{Command, KeyValue, Kv, Response, Versioned};
use stormkv::machine::{Context, StateMachine};
use stormkv::node::Applied;
use stormkv::types::{LogIndex, SessionId};

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
fn a_wrong_index_of_an_answer_breaks_answer_index() {
    // One that is not committed.
    caught("answer-index", |tape| told(tape, |_, index, _| *index += 100));
}

#[test]
fn a_wrong_session_breaks_answer_index() {
    for wrong in [0, 1] {
        caught("answer-index", |tape| {
            let at = tape.first_of(|fed| matches!(fed, Fed::Opened(_)));
            let Fed::Opened(session) = tape.fed[at] else { unreachable!("found so") };
            // An entry that opens none, or one that another client has.
            tape.fed.insert(at + 1, Fed::Opened(SessionId(session.0 + wrong)));
        });
    }
}

#[test]
fn a_change_that_was_made_elsewhere_breaks_answer_index() {
    let change = || Reconfigure { removed: vec![N1], ..Reconfigure::default() };
    for index in [3, 99] {
        caught("answer-index", |tape| tape.fed.push(Fed::Reconfigured(index, change())));
    }
}

/// Changes what the client of the command without a session was told.
fn told_loose(tape: &mut Tape, change: impl FnOnce(&mut Bytes, &mut LogIndex, &mut Bytes)) {
    let at = tape.last_of(|fed| matches!(fed, Fed::Loose(..)));
    if let Fed::Loose(command, index, response) = &mut tape.fed[at] {
        change(command, index, response);
    }
}

#[test]
fn a_wrong_answer_without_a_session_breaks_response_or_answer_index() {
    caught("answer-index", |tape| told_loose(tape, |_, index, _| *index -= 1));
    caught("answer-index", |tape| told_loose(tape, |_, index, _| *index += 100));
    let other = Command::Delete { key: "loose".into() }.encode();
    caught("answer-index", |tape| told_loose(tape, |command, _, _| *command = other));
    let wrong = Response::Written { revision: 1 }.encode();
    caught("response", |tape| told_loose(tape, |_, _, response| *response = wrong));
    // One entry is one client's.
    caught("response", |tape| {
        let at = tape.last_of(|fed| matches!(fed, Fed::Loose(..)));
        if let Fed::Loose(command, index, response) = &tape.fed[at] {
            let again = Fed::Loose(command.clone(), *index, response.clone());
            tape.fed.push(again);
        }
    });
}

#[test]
fn a_member_that_is_not_where_it_moved_to_breaks_addresses() {
    caught("addresses", |tape| {
        let at = tape.last_of(|fed| matches!(fed, Fed::Addresses(..)));
        let before = tape.seen(tape.leader).membership;
        let blank = Tape::honest().first_membership();
        assert!(!before.addresses().is_empty() && blank.addresses().is_empty());
        tape.fed[at] = Fed::Addresses(N1, blank);
    });
}

/// Changes the answer to the first query, or to the last one: index and response.
fn answered(tape: &mut Tape, last: bool, change: impl FnOnce(&mut LogIndex, &mut Response)) {
    let is_query = |fed: &Fed| matches!(fed, Fed::Queried(..));
    let at = if last { tape.last_of(is_query) } else { tape.first_of(is_query) };
    if let Fed::Queried(_, _, index, _, response) = &mut tape.fed[at] {
        let mut told = Response::decode(response).expect("a response");
        change(index, &mut told);
        *response = told.encode();
    }
}

#[test]
fn a_wrong_field_of_a_get_breaks_answer() {
    let value = |change: fn(&mut Versioned)| {
        caught("answer", |tape| {
            answered(tape, false, |_, told| match told {
                Response::Value(Some(found)) => change(found),
                other => panic!("{other:?}"),
            });
        });
    };
    silent(|tape| answered(tape, false, |_, _| ()));
    value(|found| found.revision += 1);
    value(|found| found.value = "other".into());
    caught("answer", |tape| answered(tape, false, |_, told| *told = Response::Value(None)));
    // The key was not there yet; the member had not applied so much.
    caught("answer", |tape| answered(tape, false, |index, _| *index = 2));
    caught("answer-index", |tape| answered(tape, false, |index, _| *index += 1));
}

#[test]
fn a_wrong_field_of_a_page_breaks_answer() {
    let page = |change: fn(&mut Vec<KeyValue>, &mut bool)| {
        caught("answer", |tape| {
            answered(tape, true, |_, told| match told {
                Response::Entries { entries, more } => change(entries, more),
                other => panic!("{other:?}"),
            });
        });
    };
    silent(|tape| answered(tape, true, |_, _| ()));
    page(|_, more| *more = !*more);
    page(|entries, _| drop(entries.pop()));
    page(|entries, _| drop(entries.remove(1)));
    page(|entries, _| entries[0].revision -= 1);
    page(|entries, _| entries[2].key = "key9".into());
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
        caught("content", |tape| {
            holds(tape, |kv| drop(kv.apply(Context::new(99, Duration::ZERO), &command)))
        });
    }
    caught("content", |tape| holds(tape, |kv| *kv = Kv::default()));
}
