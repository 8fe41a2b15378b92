//! Lies about terms, votes, logs and leaders.

use stormkv::env::{DiskOp, FileName};
use stormkv::node::Role;
use stormkv::types::{NodeId, SnapshotId};
use stormkv::wire::{Kind, Message};

use super::tape::{Fed, Seen, Tape, entry, record};
use super::{N1, N2, N3, caught, silent};

/// The leader is seen to have committed the entry behind the last one.
fn leader_commits_next(tape: &mut Tape, term: u64) {
    let last = tape.last.index + 1;
    tape.shows(tape.leader, |seen| {
        seen.status.hard_state.commit = last;
        seen.status.last = SnapshotId { index: last, term };
        seen.terms.insert(last, term);
    });
}

#[test]
fn two_leaders_of_one_term_break_election_safety() {
    caught("election-safety", |tape| {
        let seen = tape.seen(tape.leader);
        tape.fed.push(Fed::After(tape.followers[0], seen));
    });
}

#[test]
fn a_changed_mind_breaks_one_vote() {
    caught("one-vote", |tape| {
        let [voter, other] = tape.followers;
        tape.shows(voter, |seen| seen.status.hard_state.vote = other);
    });
}

#[test]
fn a_vote_that_left_twice_for_two_candidates_breaks_one_vote() {
    let second_vote = |tape: &mut Tape, again: bool| {
        let (_, voter, candidate, message) = tape.message(Kind::VoteResp, 2);
        let others = [N1, N2, N3];
        let third = others.into_iter().find(|id| *id != voter && *id != candidate);
        let to = if again { candidate } else { third.expect("of three") };
        tape.fed.push(Fed::Sending(voter, to, message));
    };
    caught("one-vote", |tape| second_vote(tape, false));
    silent(|tape| second_vote(tape, true));
}

#[test]
fn a_term_or_commit_that_goes_back_breaks_monotonic_term() {
    caught("monotonic-term", |tape| {
        tape.shows(tape.followers[0], |seen| seen.status.hard_state.term -= 1);
    });
    caught("monotonic-term", |tape| {
        tape.shows(tape.followers[0], |seen| seen.status.hard_state.commit -= 1);
    });
}

#[test]
fn a_term_that_is_not_durable_breaks_promise_durability() {
    caught("promise-durability", |tape| {
        let (at, voter, ..) = tape.message(Kind::VoteResp, 2);
        let syncs = |fed: &Fed| {
            matches!(fed, Fed::Executed(id, DiskOp::Sync { file: FileName::Segment(_) })
                if *id == voter)
        };
        let mut place = 0;
        tape.fed.retain(|fed| {
            place += 1;
            place > at || !syncs(fed)
        });
    });
}

#[test]
fn a_vote_that_is_not_durable_breaks_promise_durability() {
    caught("promise-durability", |tape| {
        let (_, voter, _, message) = tape.message(Kind::VoteResp, tape.last.term);
        let other = tape.followers.into_iter().find(|id| *id != voter).expect("of two");
        tape.fed.push(Fed::Sending(voter, other, message));
    });
}

#[test]
fn an_entry_that_is_not_durable_breaks_promise_durability() {
    caught("promise-durability", |tape| {
        let last = tape.last.index;
        let at = tape.first_of(|fed| match fed {
            Fed::Sending(_, _, Message::Raft(message)) => {
                message.kind() == Kind::AppendResp && message.index() == last && !message.reject()
            }
            _ => false,
        });
        let Fed::Sending(from, ..) = tape.fed[at] else { unreachable!("found so") };
        let synced = tape.fed[..at]
            .iter()
            .rposition(|fed| matches!(fed, Fed::Executed(id, DiskOp::Sync { .. }) if *id == from));
        tape.fed.remove(synced.expect("it was synced first"));
    });
}

/// A follower loses its power or its process, and comes back as it was seen last, but for a change.
fn comes_back(tape: &mut Tape, killed: bool, change: impl FnOnce(&mut Seen)) {
    let id = tape.followers[0];
    let mut seen = tape.seen(id);
    change(&mut seen);
    tape.fed.push(Fed::Crashed(id, killed));
    tape.fed.push(Fed::Recovered(id, seen));
}

#[test]
fn what_was_synced_and_is_gone_breaks_durability() {
    silent(|tape| comes_back(tape, false, |_| {}));
    caught("durability", |tape| {
        comes_back(tape, false, |seen| {
            let last = &mut seen.status.last;
            seen.entries.remove(&last.index);
            last.index -= 1;
        });
    });
    caught("durability", |tape| {
        comes_back(tape, false, |seen| seen.status.hard_state.vote = NodeId(0));
    });
}

#[test]
fn only_a_loss_of_power_excuses_the_loss_of_what_was_not_synced() {
    let crash_unsynced = |tape: &mut Tape, killed: bool| {
        let id = tape.followers[0];
        let ops = record(tape.hard_state(id), None, &[tape.next_entry(b"")]);
        tape.fed.push(Fed::Queued(id, ops.clone()));
        let write = ops.into_iter().find(|op| matches!(op, DiskOp::Write { .. }));
        tape.fed.push(Fed::Executed(id, write.expect("a record is written")));
        comes_back(tape, killed, |_| {});
    };
    silent(|tape| crash_unsynced(tape, false));
    caught("durability", |tape| crash_unsynced(tape, true));
}

#[test]
fn a_damaged_record_breaks_wal_format() {
    caught("wal-format", |tape| {
        let id = tape.followers[0];
        let mut ops = record(tape.hard_state(id), None, &[tape.next_entry(b"")]);
        for op in &mut ops {
            if let DiskOp::Write { data, .. } = op {
                let mut damaged = data.to_vec();
                damaged[50] ^= 1;
                *data = damaged.into();
            }
        }
        tape.fed.push(Fed::Queued(id, ops));
    });
}

#[test]
fn a_missing_entry_breaks_log_gap() {
    caught("log-gap", |tape| {
        let (index, term) = (tape.last.index + 2, tape.last.term);
        tape.writes(tape.followers[0], entry(index, term, b""));
    });
}

#[test]
fn two_payloads_of_one_index_and_term_break_log_matching() {
    let both_write = |tape: &mut Tape, theirs: &'static [u8]| {
        tape.writes(tape.leader, tape.next_entry(b"ours"));
        tape.writes(tape.followers[0], tape.next_entry(theirs));
    };
    silent(|tape| both_write(tape, b"ours"));
    caught("log-matching", |tape| both_write(tape, b"theirs"));
}

#[test]
fn a_leader_that_rewrites_breaks_leader_append_only() {
    let rewrite = |tape: &mut Tape, id: NodeId| {
        tape.writes(id, tape.next_entry(b"first"));
        tape.writes(id, entry(tape.last.index + 1, tape.last.term + 1, b"second"));
    };
    silent(|tape| rewrite(tape, tape.followers[0]));
    caught("leader-append-only", |tape| rewrite(tape, tape.leader));
}

#[test]
fn replacing_what_is_committed_breaks_committed_append_only() {
    caught("committed-append-only", |tape| {
        tape.writes(tape.followers[0], entry(tape.last.index, tape.last.term + 1, b""));
    });
}

#[test]
fn a_vote_for_a_shorter_log_breaks_voters_check() {
    // The second follower was down and gave no vote in the last term.
    let late_vote = |tape: &mut Tape, log_is_short: bool| {
        let (leader, voter) = (tape.leader, tape.followers[1]);
        if log_is_short {
            tape.shows(voter, |seen| seen.status.last = SnapshotId { index: 1, term: 1 });
        }
        tape.shows(voter, |seen| seen.status.hard_state.vote = leader);
    };
    silent(|tape| late_vote(tape, true));
    caught("voters-check", |tape| late_vote(tape, false));
}

#[test]
fn a_leader_without_what_is_committed_breaks_leader_completeness() {
    caught("leader-completeness", |tape| {
        let (leader, term) = (tape.leader, tape.last.term);
        let at = tape.first_of(|fed| match fed {
            Fed::After(id, seen) => {
                (*id, seen.status.role, seen.status.hard_state.term) == (leader, Role::Leader, term)
            }
            _ => false,
        });
        tape.seen_at(at).terms.clear();
    });
}

#[test]
fn committing_an_old_term_breaks_commits_own_term() {
    caught("commits-own-term", |tape| leader_commits_next(tape, tape.last.term - 1));
}

#[test]
fn committing_what_too_few_hold_breaks_quorum_durable() {
    let commit = |tape: &mut Tape, follower_holds_it: bool| {
        tape.writes_durably(tape.leader, tape.next_entry(b""));
        if follower_holds_it {
            tape.writes_durably(tape.followers[1], tape.next_entry(b""));
        } else {
            tape.writes(tape.followers[1], tape.next_entry(b""));
        }
        leader_commits_next(tape, tape.last.term);
    };
    silent(|tape| commit(tape, true));
    caught("quorum-durable", |tape| commit(tape, false));
}

#[test]
fn believing_more_than_is_durable_breaks_match_durable() {
    caught("match-durable", |tape| {
        let follower = tape.followers[0];
        tape.shows(tape.leader, |seen| {
            let progress = seen.progress.iter_mut().find(|progress| progress.id == follower);
            progress.expect("it is a member").matched += 1;
        });
    });
}

#[test]
fn a_snapshot_of_what_is_not_committed_breaks_snapshot_prefix() {
    let marks = |tape: &mut Tape, id: SnapshotId| {
        let ops = record(tape.hard_state(tape.followers[0]), Some(id), &[]);
        tape.does(tape.followers[0], ops);
    };
    silent(|tape| marks(tape, tape.last));
    caught("snapshot-prefix", |tape| {
        marks(tape, SnapshotId { index: tape.last.index + 1, term: tape.last.term });
    });
    caught("snapshot-prefix", |tape| {
        marks(tape, SnapshotId { index: tape.last.index, term: tape.last.term + 1 });
    });
}
