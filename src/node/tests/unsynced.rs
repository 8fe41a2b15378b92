//! A disk that never completes: what waits for it is bounded, on a leader and on a follower.

use super::*;

const LIMIT: u64 = 4096;

fn limited(voters: u64) -> Host {
    let mut host = Host::found(voters, |config| config.max_unsynced_bytes = LIMIT);
    host.persist();
    host.take();
    host
}

fn is_busy((_, reply): &(u64, &Reply)) -> bool {
    **reply == Reply::Refused(Refusal::Busy)
}

#[test]
fn a_leader_whose_disk_hangs_refuses_proposals_although_others_commit_them() {
    let mut host = limited(3);
    host.campaign();
    host.persist();
    host.vote(2);
    host.persist();
    host.acknowledge(2, 2);
    host.acknowledge(3, 2);
    host.take();
    let mut refused = 0;
    for id in 1..=50 {
        host.put(id);
        let last = host.node.status().last.index;
        host.acknowledge(2, last);
        host.acknowledge(3, last);
        refused += replies(&host.take()).into_iter().filter(is_busy).count();
    }
    let load = host.node.load();
    assert_eq!(
        host.node.status().hard_state.commit,
        7,
        "a majority without it is enough to commit"
    );
    assert_eq!((load.persisting, load.unsynced_bytes, refused), (5, LIMIT + 1024, 45));
    // When the disk catches up there is room.
    host.persist();
    assert_eq!(host.node.load().unsynced_bytes, 0);
    host.take();
    host.put(60);
    assert_eq!(replies(&host.take()), []);
    assert_eq!(host.node.load().persisting, 1);
}

#[test]
fn a_follower_whose_disk_hangs_drops_entries_until_it_has_caught_up() {
    let mut host = limited(3);
    host.append(2, (1, 1), 1);
    for index in 2..=50 {
        host.append(2, (index, 2), index);
    }
    let load = host.node.load();
    assert_eq!((load.persisting, load.unsynced_bytes), (5, LIMIT + 1024));
    let last = host.node.status().last.index;
    assert_eq!(last, 6);
    host.persist();
    host.append(2, (last, 2), last);
    assert_eq!(host.node.status().last.index, last + 1, "sent again");
}

#[test]
fn a_failed_disk_operation_stops_the_node() {
    let mut host = Host::leading();
    host.put(7);
    host.take();
    let error = DiskError {
        operation: "fsync",
        file: None,
        kind: DiskErrorKind::Other,
        reason: "worn out".into(),
    };
    host.node.complete(Completion::Done(DiskQueue::Log, host.submitted, Err(error.clone())));
    host.collect();
    assert_eq!(host.node.stopped(), Some(&Error::Disk(error)));
    // Not even a success that comes late makes it speak again.
    host.everything();
    assert!(host.take().is_empty());
}
