//! What is logged about leaders and snapshots, and when nothing is.

use bytes::Bytes;

use super::*;
use crate::config::Config;
use crate::env::FileName;
use crate::tcp::testing::logged;
use crate::types::HardState;
use crate::wire::Chunk;

fn members(ids: &[u64]) -> Membership {
    let ids: Vec<NodeId> = ids.iter().map(|id| NodeId(*id)).collect();
    Membership::founded_by(&Config::new(ids[0], ids.clone()))
}

fn status(term: Term, role: Role, leader: u64) -> Status {
    Status {
        id: NodeId(1),
        role,
        hard_state: HardState { term, ..HardState::default() },
        leader: Some(NodeId(leader)).filter(|id| id.0 > 0),
        applied: SnapshotId::default(),
        first: 1,
        last: SnapshotId::default(),
        snapshot: SnapshotId::default(),
    }
}

/// A term, the role in it, the leader (0: none), and to whom leadership is handed.
type State = (Term, Role, u64, Option<u64>);

/// What node 1 logs when it goes through these states, handing over to the last member named.
fn story(states: &[State], hangs: bool) -> String {
    let membership = members(&[1, 2, 3]);
    logged(|| {
        let mut journal = Journal::new(NodeId(1), NodeStats::default());
        for &(term, role, leader, to) in states {
            let status = status(term, role, leader);
            journal.look(Duration::ZERO, &status, to.map(NodeId), || hangs, &membership);
        }
    })
}

#[test]
fn leaders_come_and_go_with_a_reason() {
    use Role::{Candidate, Follower, Leader, PreCandidate};
    let cases: &[(&[State], bool, &str)] = &[
        (&[(2, Leader, 1, None), (3, Follower, 0, None)], false, "higher term 3"),
        (&[(2, Leader, 1, Some(3)), (3, Follower, 3, None)], false, "was handed over to n3"),
        // The hand-over failed; the next election is another matter.
        (
            &[(2, Leader, 1, Some(3)), (2, Leader, 1, None), (2, Follower, 0, None)],
            false,
            "no quorum of the voters",
        ),
        (&[(2, Leader, 1, None), (2, Follower, 0, None)], true, "its disk completes nothing"),
        (&[(2, Follower, 2, None), (2, PreCandidate, 0, None)], false, "nothing was heard"),
        (&[(2, Follower, 2, None), (3, Candidate, 0, None)], false, "hands leadership to this"),
        (&[(2, Follower, 2, None), (3, Follower, 3, None)], false, "higher term 3"),
    ];
    for (states, hangs, reason) in cases {
        let said = story(states, *hangs);
        let lost: Vec<_> = said.lines().filter(|line| line.contains("leader lost")).collect();
        assert_eq!(lost.len(), 1, "{said}");
        assert!(lost[0].contains(reason) && lost[0].contains("term=2"), "{reason}: {said}");
    }
    let said = story(&[(2, Follower, 2, None), (2, Follower, 2, None)], false);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("leader elected leader=n2 term=2 this_node=false"), "{said}");
    // Elections that nobody wins are no news.
    let said = story(&[(2, PreCandidate, 0, None), (3, Candidate, 0, None)], false);
    assert_eq!(said, "");
}

fn chunk(transfer: u64, index: u64) -> Message {
    let snapshot = SnapshotId { index, term: 2 };
    Message::Chunk(Chunk { transfer, term: 2, snapshot, total: 9, offset: 0, data: Bytes::new() })
}

#[test]
fn a_snapshot_is_taken_once_with_its_bytes_and_its_time() {
    let id = SnapshotId { index: 7, term: 2 };
    let file = FileName::Partial(7, 2);
    let said = logged(|| {
        let mut journal = Journal::new(NodeId(1), NodeStats::default());
        let write = |offset| DiskOp::Write { file, offset, data: Bytes::from_static(&[0; 100]) };
        journal.queued(Duration::from_secs(1), &[DiskOp::Create { file, len: 0 }, write(0)]);
        journal.queued(Duration::from_secs(2), &[write(100), DiskOp::Sync { file }]);
        let status = Status { snapshot: id, ..status(2, Role::Follower, 0) };
        for _ in 0..2 {
            let now = Duration::from_millis(3500);
            journal.look(now, &status, None, || false, &members(&[1]));
        }
    });
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("snapshot taken index=7 term=2 bytes=200 seconds=2.5"), "{said}");
}

#[test]
fn a_snapshot_is_sent_and_installed() {
    let at = Duration::from_secs;
    let ended = |transfer| Message::ChunkAck { transfer, received: 9, done: Some(true) };
    let said = logged(|| {
        let mut journal = Journal::new(NodeId(1), NodeStats::default());
        journal.sent(at(1), NodeId(2), &chunk(5, 7));
        journal.sent(at(2), NodeId(2), &chunk(5, 7));
        journal.received(at(3), NodeId(2), &ended(4));
        journal.received(at(3), NodeId(2), &ended(5));
        journal.received(at(3), NodeId(2), &ended(5));
    });
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("snapshot sent to=n2 index=7 term=2 bytes=9 seconds=2.0"), "{said}");

    let said = logged(|| {
        let mut journal = Journal::new(NodeId(1), NodeStats::default());
        let id = SnapshotId { index: 7, term: 2 };
        // From the disk, at the start.
        journal.installed(at(0), id);
        journal.received(at(1), NodeId(2), &chunk(5, 7));
        // Another leader goes on with it.
        journal.received(at(2), NodeId(3), &chunk(6, 7));
        let status = Status { snapshot: id, ..status(2, Role::Follower, 0) };
        journal.look(at(4), &status, None, || false, &members(&[1]));
        journal.installed(at(4), id);
    });
    assert_eq!(said.lines().count(), 2, "{said}");
    let installed = "snapshot installed from=n3 index=7 term=2 bytes=9 seconds=3.0";
    assert!(said.contains(installed), "{said}");
}
