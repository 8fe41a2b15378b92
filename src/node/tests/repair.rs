//! Damaged members: that they keep the promises that rest on what they have lost, and that the
//! others give it back to them.

use raft::eraftpb::{self, MessageType};

use super::cluster::{Cluster, flip, snapshots};
use super::host::sent;
use crate::config::Config;
use crate::env::{Completion, FileName};
use crate::error::Error;
use crate::kv::Kv;
use crate::memory::MemDisk;
use crate::node::{Node, Output, Role};
use crate::types::{NodeId, SnapshotId};
use crate::wire::{Kind, Message, RaftMessage};

const SEGMENT: FileName = FileName::Segment(1);

/// Three nodes with five writes, and node 3 is down; something vouches for all that it has.
pub(super) fn written() -> Cluster {
    let mut cluster = Cluster::new(3, |_| ());
    for key in ["a", "b", "c", "d", "e"] {
        cluster.put(key, 20);
    }
    cluster.run(40);
    cluster.kill(3);
    cluster
}

/// Where in a segment the records begin that hold entries.
fn records_with_entries(disk: &MemDisk, segment: FileName) -> Vec<usize> {
    let data = disk.content(segment).unwrap();
    let mut at = 16;
    let mut found = Vec::new();
    while let Some(len) = data.get(at..at + 4) {
        let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
        if len == 0 {
            break;
        }
        if data[at + 88] > 0 {
            found.push(at);
        }
        at += len;
    }
    found
}

/// Damages the second record with entries.
pub(super) fn damage_log(disk: &mut MemDisk) {
    let at = records_with_entries(disk, SEGMENT)[1];
    flip(disk, SEGMENT, at + 100);
}

fn end(node: &Node<Kv>) -> SnapshotId {
    node.status().last
}

#[test]
fn a_damaged_member_ends_the_old_term_and_the_next_leader_gives_it_what_it_lost() {
    let mut cluster = written();
    let (term, last) = (cluster.term(1), end(&cluster.nodes[&1]));
    damage_log(cluster.disk(3));
    cluster.start(3).unwrap();
    let damage = cluster.nodes[&3].damage().expect("it is damaged").clone();
    assert_eq!((damage.file, damage.floor), (SEGMENT, last));
    assert_eq!((cluster.term(3), cluster.nodes[&3].status().hard_state.vote.0), (term + 1, 0));
    assert!(end(&cluster.nodes[&3]).index < last.index);
    cluster.run(200);
    assert!(cluster.term(1) > term, "a leader of that term counts on what is lost");
    assert_eq!(cluster.nodes[&3].stopped(), None);
    assert_eq!(cluster.nodes[&3].damage(), None);
    assert!(cluster.nodes[&3].recovered_damage().is_some());
    assert!(cluster.has(3, "e") && cluster.has(3, "a"));
    assert_eq!(end(&cluster.nodes[&3]), end(&cluster.nodes[&1]));
    // It is an ordinary member again, also after a restart.
    cluster.kill(3);
    cluster.start(3).unwrap();
    assert_eq!((cluster.nodes[&3].damage(), cluster.nodes[&3].recovered_damage()), (None, None));
    cluster.kill(1);
    cluster.run(200);
    cluster.put("f", 20);
    assert!(cluster.has(3, "f"));
}

/// What a node answers to a candidate with this log, if it does.
fn asked(node: &mut Node<Kv>, kind: MessageType, term: u64, last: SnapshotId) -> Option<bool> {
    let mut message = eraftpb::Message { from: 1, to: 3, term, ..Default::default() };
    message.set_msg_type(kind);
    (message.index, message.log_term) = (last.index, last.term);
    node.receive(NodeId(1), Message::Raft(RaftMessage::new(message)));
    let mut answer = None;
    for _ in 0..4 {
        let mut outputs = Vec::new();
        node.process();
        node.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Disk { queue, ticket, .. } => {
                    node.complete(Completion::Done(queue, ticket, Ok(())));
                }
                Output::Send { message: Message::Raft(message), .. }
                    if matches!(message.kind(), Kind::VoteResp | Kind::PreVoteResp) =>
                {
                    answer = Some(!message.0.reject);
                }
                _ => {}
            }
        }
    }
    answer
}

#[test]
fn a_damaged_member_votes_as_it_would_have_with_its_whole_log() {
    let mut cluster = written();
    damage_log(cluster.disk(3));
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote] {
        cluster.start(3).unwrap();
        let mut node = cluster.nodes.remove(&3).unwrap();
        let floor = node.damage().unwrap().floor;
        let term = node.status().hard_state.term + 1;
        let held = end(&node);
        assert!(held.rank() < floor.rank());
        let before = SnapshotId { index: floor.index - 1, ..floor };
        for refused in [held, before] {
            assert_ne!(asked(&mut node, kind, term, refused), Some(true), "{refused:?}");
        }
        assert_eq!(asked(&mut node, kind, term, floor), Some(true), "it has all that counts");
    }
}

#[test]
fn a_damaged_member_does_not_stand_for_election_but_forgets_a_dead_leader() {
    let mut cluster = written();
    damage_log(cluster.disk(3));
    cluster.start(3).unwrap();
    let mut node = cluster.nodes.remove(&3).unwrap();
    let (term, floor) = (node.status().hard_state.term, node.damage().unwrap().floor);
    for kind in [MessageType::MsgHeartbeat, MessageType::MsgTimeoutNow] {
        let mut message = eraftpb::Message { from: 1, to: 3, term, ..Default::default() };
        message.set_msg_type(kind);
        node.receive(NodeId(1), Message::Raft(RaftMessage::new(message)));
    }
    node.process();
    assert_eq!(node.status().leader, Some(NodeId(1)));
    assert_eq!(asked(&mut node, MessageType::MsgRequestVote, term + 1, floor), None);
    for _ in 0..100 {
        node.tick();
        node.process();
    }
    let mut outputs = Vec::new();
    node.take_outputs(&mut outputs);
    assert!(sent(&outputs).iter().all(|(_, kind)| *kind != Kind::PreVote && *kind != Kind::Vote));
    assert_eq!(node.status().role, Role::Follower);
    assert_eq!(asked(&mut node, MessageType::MsgRequestVote, term + 1, floor), Some(true));
}

#[test]
fn nobody_with_a_shorter_log_is_elected_by_a_damaged_member() {
    let mut cluster = Cluster::new(3, |_| ());
    cluster.put("a", 20);
    // Node 2 misses what nodes 1 and 3 commit.
    cluster.cut = vec![2];
    cluster.put("b", 20);
    cluster.put("c", 20);
    cluster.run(40);
    assert!(cluster.has(1, "c"));
    cluster.kill(1);
    cluster.kill(3);
    damage_log(cluster.disk(3));
    cluster.cut.clear();
    cluster.start(3).unwrap();
    cluster.run(250);
    assert_eq!(cluster.leader(), None, "what is committed would be lost");
    cluster.start(1).unwrap();
    cluster.run(250);
    assert!(cluster.has(3, "c") && cluster.has(2, "c"));
    assert_eq!(cluster.nodes[&3].damage(), None);
}

#[test]
fn a_member_without_its_snapshot_gets_the_leaders() {
    for cut in [0, 30, 60] {
        let mut cluster = written();
        let [file] = snapshots(cluster.disk(3))[..] else { panic!("one snapshot") };
        match cut {
            0 => assert!(cluster.disk(3).remove(file)),
            at => flip(cluster.disk(3), file, at),
        }
        cluster.start(3).unwrap();
        let node = &cluster.nodes[&3];
        assert_eq!(node.damage().unwrap().file, file);
        assert_eq!((end(node).index, node.status().applied.index), (0, 0));
        assert!(node.membership().voters().is_empty(), "it does not found a cluster again");
        cluster.run(250);
        assert_eq!((cluster.nodes[&3].stopped(), cluster.nodes[&3].damage()), (None, None));
        assert!(cluster.has(3, "e"));
        let files = snapshots(cluster.disk(3));
        assert_eq!(files.len(), 1, "the damaged one is gone");
    }
}

#[test]
fn a_crash_at_any_operation_of_the_repair_loses_nothing() {
    let mut finished = false;
    for operations in 0..60 {
        let mut cluster = written();
        damage_log(cluster.disk(3));
        cluster.fuse = Some((3, operations));
        cluster.start(3).unwrap();
        let floor = cluster.nodes[&3].damage().unwrap().floor;
        cluster.run(150);
        finished = cluster.fuse.is_some();
        if !finished {
            assert!(!cluster.nodes.contains_key(&3), "it crashed");
            cluster.start(3).unwrap();
            let node = &cluster.nodes[&3];
            let is_whole = end(node).rank() >= floor.rank();
            assert!(is_whole || node.damage().is_some(), "after {operations} operations");
            cluster.run(150);
        }
        assert_eq!(cluster.nodes[&3].damage(), None);
        assert!(cluster.has(3, "e"), "after {operations} operations");
    }
    assert!(finished, "the last of them is over before the crash");
}

#[test]
fn a_second_damage_during_the_repair_is_repaired_too() {
    let mut cluster = written();
    damage_log(cluster.disk(3));
    cluster.cut = vec![3];
    cluster.start(3).unwrap();
    cluster.run(40);
    let (term, floor) = (cluster.term(3), cluster.nodes[&3].damage().unwrap().floor);
    cluster.kill(3);
    // The header of the segment that states the floor; a record behind it does, too.
    let newest =
        cluster.disk(3).files().filter(|f| matches!(f, FileName::Segment(_))).last().unwrap();
    flip(cluster.disk(3), newest, 40);
    cluster.start(3).unwrap();
    let damage = cluster.nodes[&3].damage().unwrap();
    assert!(damage.floor.rank() >= floor.rank());
    assert!(cluster.term(3) >= term);
    cluster.cut.clear();
    cluster.run(250);
    assert_eq!(cluster.nodes[&3].damage(), None);
    assert!(cluster.has(3, "e"));
}

#[test]
fn the_only_voter_is_refused_before_anything_is_changed() {
    let mut cluster = Cluster::new(1, |_| ());
    cluster.put("a", 20);
    cluster.put("b", 20);
    cluster.run(40);
    cluster.kill(1);
    let whole = cluster.disk(1).image();
    damage_log(cluster.disk(1));
    let error = cluster.start(1).unwrap_err();
    assert!(matches!(error, Error::Corrupt { file: SEGMENT, .. }), "{error}");
    // Of a damaged snapshot the membership may still be legible.
    *cluster.disk(1) = whole.image();
    let [file] = snapshots(cluster.disk(1))[..] else { panic!("one snapshot") };
    let last = cluster.disk(1).content(file).unwrap().len() - 1;
    flip(cluster.disk(1), file, last);
    let error = cluster.start(1).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    *cluster.disk(1) = whole;
    cluster.start(1).unwrap();
    cluster.run(100);
    assert!(cluster.has(1, "b"));
}

#[test]
fn a_member_that_nobody_repairs_stops_and_can_try_again() {
    let mut cluster = written();
    damage_log(cluster.disk(3));
    cluster.kill(1);
    cluster.kill(2);
    cluster.start(3).unwrap();
    let floor = cluster.nodes[&3].damage().unwrap().floor;
    cluster.run(299);
    assert_eq!(cluster.nodes[&3].stopped(), None);
    cluster.run(10);
    let error = cluster.nodes[&3].stopped().expect("nobody came").clone();
    assert!(matches!(error, Error::BeyondRepair { file: SEGMENT, .. }), "{error}");
    let entry = format!("up to entry {} of term {}", floor.index, floor.term);
    assert!(error.to_string().contains(&entry), "{error}");
    cluster.kill(3);
    for id in [1, 2, 3] {
        cluster.start(id).unwrap();
    }
    assert_eq!(cluster.nodes[&3].damage().map(|damage| damage.floor), Some(floor));
    cluster.run(200);
    assert_eq!(cluster.nodes[&3].damage(), None);
    assert!(cluster.has(3, "e"));
}

#[test]
fn a_leader_whose_snapshot_has_rotted_saves_it_anew() {
    let few = |config: &mut Config| (config.snapshot_every, config.keep_entries) = (4, 0);
    for damage in 0..3 {
        let mut cluster = Cluster::new(3, few);
        cluster.cut = vec![3];
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            cluster.put(key, 20);
        }
        let [file] = snapshots(cluster.disk(1))[..] else { panic!("one snapshot") };
        let bytes = cluster.disk(1).content_mut(file).unwrap();
        match damage {
            0 => *bytes.last_mut().unwrap() ^= 1,
            1 => bytes[20] ^= 1,
            _ => bytes.truncate(15),
        }
        cluster.cut.clear();
        cluster.run(300);
        assert!(cluster.has(3, "h"), "damage {damage}");
        assert!(cluster.chunks < 10, "the same bytes were sent {} times", cluster.chunks);
        assert_eq!(cluster.nodes[&1].stopped(), None);
        cluster.kill(1);
        cluster.start(1).unwrap();
        assert_eq!(cluster.nodes[&1].recovered_damage(), None, "the file is good again");
    }
}
