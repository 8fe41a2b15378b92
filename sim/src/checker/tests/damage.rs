//! A follower whose disk was damaged: what it must not do.

use stormkv::types::{NodeId, SnapshotId};
use stormkv::wire::Kind;

use super::tape::{Fed, Seen, Tape};
use super::{caught, silent};

/// How many entries a damaged log has lost.
const LOST: u64 = 3;

/// The first follower, as it comes back from a damaged disk when it does everything right.
fn came_back(tape: &Tape) -> (NodeId, Seen) {
    let id = tape.followers[0];
    let mut seen = tape.seen(id);
    let status = &mut seen.status;
    seen.damage = Some(status.last);
    let last = status.last.index - LOST;
    status.last = SnapshotId { index: last, term: seen.terms[&last] };
    status.hard_state.term += 1;
    status.hard_state.vote = NodeId(0);
    status.hard_state.commit = status.snapshot.index;
    seen.entries.retain(|index, _| *index <= last);
    seen.terms.retain(|index, _| *index <= last);
    (id, seen)
}

/// Adds the damage, the crash, and how the follower comes back.
fn after_damage(tape: &mut Tape, change: impl FnOnce(&mut Seen)) -> (NodeId, Seen) {
    let (id, mut seen) = came_back(tape);
    change(&mut seen);
    tape.fed.push(Fed::Damaged(id));
    tape.fed.push(Fed::Crashed(id, false));
    tape.fed.push(Fed::Recovered(id, seen.clone()));
    (id, seen)
}

#[test]
fn less_than_was_durable_is_right_if_it_is_known() {
    silent(|tape| drop(after_damage(tape, |_| {})));
}

#[test]
fn damage_that_nobody_did_is_imagined() {
    caught("damage-imagined", |tape| {
        let (id, seen) = came_back(tape);
        tape.fed.push(Fed::Crashed(id, false));
        tape.fed.push(Fed::Recovered(id, seen));
    });
}

#[test]
fn a_damaged_member_must_know_that_it_is() {
    caught("damage-unnoticed", |tape| drop(after_damage(tape, |seen| seen.damage = None)));
}

#[test]
fn the_floor_must_cover_all_that_was_durable() {
    caught("damage-floor", |tape| {
        after_damage(tape, |seen| {
            let floor = seen.damage.as_mut().expect("it is damaged");
            floor.index -= 1;
        });
    });
}

#[test]
fn a_damaged_member_must_leave_the_terms_in_which_it_has_acknowledged_entries() {
    caught("damage-term", |tape| {
        drop(after_damage(tape, |seen| seen.status.hard_state.term -= 1));
    });
}

#[test]
fn what_is_left_must_be_the_beginning_of_what_was() {
    caught("damage-prefix", |tape| {
        after_damage(tape, |seen| {
            let last = seen.status.last.index;
            seen.entries.get_mut(&last).expect("it is there").data = b"other"[..].into();
        });
    });
}

#[test]
fn a_member_is_whole_only_with_all_that_it_had() {
    caught("damage-floor", |tape| {
        let (id, mut seen) = after_damage(tape, |_| {});
        seen.damage = None;
        tape.fed.push(Fed::After(id, seen));
    });
}

#[test]
fn a_damaged_member_must_not_stand_for_election() {
    caught("damaged-candidate", |tape| {
        let (_, _, to, vote) = tape.message(Kind::Vote, 2);
        let (id, _) = after_damage(tape, |_| {});
        tape.fed.push(Fed::Sending(id, to, vote));
    });
}

#[test]
fn a_damaged_member_must_not_vote_below_its_floor() {
    caught("damaged-vote", |tape| {
        let term = tape.hard_state(tape.leader).term;
        // The leader stood for election with less than everybody has by now.
        let (_, from, to, vote) = tape.message(Kind::VoteResp, term);
        assert_eq!((from, to), (tape.followers[0], tape.leader));
        after_damage(tape, |_| {});
        tape.fed.push(Fed::Sending(from, to, vote));
    });
}
