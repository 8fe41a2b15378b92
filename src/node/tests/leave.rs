//! Members that were removed: how long they stay, and who tells them to go.

use super::cluster::Cluster;
use super::*;
use crate::api::Reconfigure;

fn remove(id: u64) -> Request {
    Request::Reconfigure(Reconfigure { removed: vec![NodeId(id)], ..Reconfigure::default() })
}

fn ask(cluster: &mut Cluster, node: u64, request: Request) {
    cluster.nodes.get_mut(&node).unwrap().request(RequestId(7), request);
}

/// Whether a node has stopped as one that was removed.
fn is_gone(node: &Node<Kv>) -> bool {
    matches!(node.stopped(), Some(Error::Removed))
}

#[test]
fn a_change_is_answered_and_its_member_told_only_when_a_restart_would_know_of_it() {
    let mut host = Host::leading();
    host.ask(7, remove(3));
    host.persist();
    host.acknowledge(2, 3);
    assert_eq!(host.node.status().applied.index, 3);
    assert!(host.node.membership().has_left(NodeId(3)));
    host.receive_raft(raft(3, MessageType::MsgRequestPreVote, 9));
    let outputs = host.take();
    assert_eq!(replies(&outputs), []);
    assert!(sent(&outputs).iter().all(|(_, kind)| *kind != Kind::Removed), "{outputs:?}");

    host.persist();
    host.receive_raft(raft(3, MessageType::MsgRequestPreVote, 9));
    let outputs = host.take();
    assert!(matches!(replies(&outputs)[..], [(7, Reply::Reconfigured { .. })]), "{outputs:?}");
    assert!(sent(&outputs).contains(&(3, Kind::Removed)));
}

#[test]
fn who_was_removed_by_a_leader_that_forgot_it_votes_for_it_once_more() {
    // Neither the batch that says that the removal is committed, nor a part of it.
    let mut cluster = Cluster::new(2, |_| ());
    cluster.put("a", 20);
    let operations = 2;
    ask(&mut cluster, 1, remove(2));
    cluster.fuse = Some((1, operations));
    cluster.run(4);
    assert!(!cluster.nodes.contains_key(&1), "it has crashed");
    assert!(!cluster.replies.iter().any(|reply| matches!(reply, Reply::Reconfigured { .. })));
    cluster.run(200);
    assert!(!is_gone(&cluster.nodes[&2]), "the other one may need it");

    cluster.start(1).unwrap();
    assert!(cluster.nodes[&1].membership().votes(NodeId(2)), "it has forgotten");
    cluster.run(200);
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.nodes[&1].membership().has_left(NodeId(2)));
    assert!(is_gone(&cluster.nodes[&2]), "now it may go");
}

#[test]
fn a_leader_that_removes_itself_stays_until_the_others_know_of_it() {
    // Nobody who stays can take over, so it removes itself.
    let mut cluster = Cluster::new(2, |_| ());
    let outsider = cluster.nodes.get_mut(&1).unwrap();
    let removal = Reconfigure { removed: vec![NodeId(1)], ..Reconfigure::default() };
    outsider.raft.propose_change(crate::node::membership::to_raft(&removal.into()));
    // Node 2 acknowledges the entry, and hears nothing after that.
    let removed = |cluster: &Cluster| cluster.nodes[&1].membership().has_left(NodeId(1));
    while !removed(&cluster) {
        assert!(cluster.step());
    }
    cluster.kill(2);
    cluster.run(200);
    assert!(!is_gone(&cluster.nodes[&1]));
    assert_eq!(cluster.leader(), None, "it leads nobody any more");

    cluster.start(2).unwrap();
    cluster.run(200);
    assert_eq!(cluster.leader(), Some(2));
    assert!(is_gone(&cluster.nodes[&1]));
}

#[test]
fn one_that_is_told_by_too_few_waits_a_while_and_leaves_then() {
    let mut cluster = Cluster::new(5, |config| config.repair_ticks = 100);
    ask(&mut cluster, 1, remove(5));
    cluster.cut = vec![5];
    cluster.run(10);
    cluster.cut.clear();
    for id in [2, 3, 4] {
        cluster.kill(id);
    }
    cluster.run(80);
    assert!(!is_gone(&cluster.nodes[&5]), "one of four is no quorum");
    cluster.run(80);
    assert!(is_gone(&cluster.nodes[&5]));
}

#[test]
fn a_damaged_member_that_was_removed_asks_and_learns_of_it() {
    let mut cluster = super::repair::written();
    super::repair::damage_log(cluster.disk(3));
    ask(&mut cluster, 1, remove(3));
    cluster.run(10);
    cluster.start(3).unwrap();
    assert!(cluster.nodes[&3].damage().is_some());
    cluster.run(100);
    assert!(is_gone(&cluster.nodes[&3]));
}
