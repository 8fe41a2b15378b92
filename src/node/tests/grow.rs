//! Members become voters when they have caught up, and not before.

use std::collections::BTreeSet;

use super::cluster::Cluster;
use crate::api::{Reconfigure, Reply, Request, RequestId};
use crate::types::NodeId;

fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

/// Asks the leader for this change, and returns its answer after some ticks.
fn change(cluster: &mut Cluster, voters: &[u64], removed: &[u64]) -> Reply {
    let list = |of: &[u64]| ids(of).into_iter().collect();
    let change =
        Reconfigure { voters: list(voters), removed: list(removed), ..Reconfigure::default() };
    cluster.replies.clear();
    let leader = cluster.leader().expect("somebody leads");
    let node = cluster.nodes.get_mut(&leader).unwrap();
    node.request(RequestId(5), Request::Reconfigure(change));
    cluster.run(20);
    let [reply] = &cluster.replies[..] else { panic!("{:?}", cluster.replies) };
    reply.clone()
}

/// A cluster with so large a state that a newcomer needs a snapshot.
fn with_state(voters: u64) -> Cluster {
    let mut cluster = Cluster::new(voters, |config| {
        (config.snapshot_every, config.keep_entries) = (10, 2);
    });
    for number in 0..40 {
        cluster.put(&format!("key{number}"), 500);
    }
    cluster
}

#[test]
fn grow_from_one_voter_serves_while_the_new_one_is_not_there() {
    let mut cluster = with_state(1);
    let reply = change(&mut cluster, &[2], &[]);
    assert!(matches!(reply, Reply::Reconfigured { .. }), "{reply:?}");
    let membership = cluster.nodes[&1].membership();
    assert_eq!((membership.voters(), membership.learners()), (&ids(&[1]), &ids(&[2])));
    assert!(membership.is_promised(NodeId(2)));
    cluster.put("alone", 10);
    assert!(cluster.has(1, "alone"));

    // Also after a restart, which brings the promise back from the log or from a snapshot.
    for number in 0..20 {
        cluster.put(&format!("more{number}"), 10);
    }
    cluster.kill(1);
    cluster.start(1).unwrap();
    cluster.run(100);
    assert!(cluster.nodes[&1].membership().is_promised(NodeId(2)));
    cluster.put("again", 10);
    cluster.join(2);
    cluster.run(400);
    for id in [1, 2] {
        let membership = cluster.nodes[&id].membership();
        assert_eq!(membership.voters(), &ids(&[1, 2]), "as node {id} has it");
        assert!(membership.promises().is_empty());
    }
    assert!(cluster.chunks > 0 && cluster.has(2, "again"));
}

#[test]
fn grow_goes_on_under_the_next_leader() {
    let mut cluster = with_state(3);
    assert!(matches!(change(&mut cluster, &[4], &[2]), Reply::Reconfigured { .. }));
    cluster.kill(1);
    cluster.run(200);
    assert_eq!(cluster.nodes[&2].membership().voters(), &ids(&[1, 2, 3]));
    cluster.start(1).unwrap();
    cluster.join(4);
    cluster.run(600);
    // Node 2 may have led: it hands over first.
    let leader = cluster.leader().expect("somebody leads");
    assert_ne!(leader, 2);
    let membership = cluster.nodes[&leader].membership();
    assert_eq!(membership.voters(), &ids(&[1, 3, 4]));
    assert!(membership.has_left(NodeId(2)) && membership.promises().is_empty());
}

#[test]
fn grow_with_a_leader_that_is_replaced_hands_over() {
    let mut cluster = with_state(3);
    assert!(matches!(change(&mut cluster, &[4], &[1]), Reply::Reconfigured { .. }));
    assert_eq!(cluster.leader(), Some(1), "it leads until the new one can vote");
    cluster.join(4);
    cluster.run(600);
    let leader = cluster.leader().expect("somebody leads");
    let membership = cluster.nodes[&leader].membership();
    assert_eq!(membership.voters(), &ids(&[2, 3, 4]));
    assert!(membership.has_left(NodeId(1)));
}

#[test]
fn grow_waits_for_a_quorum_that_answers() {
    let mut cluster = with_state(3);
    assert!(matches!(change(&mut cluster, &[4], &[2, 3]), Reply::Reconfigured { .. }));
    // Two voters would be left, nodes 1 and 4: a quorum needs both.
    cluster.cut.push(4);
    cluster.join(4);
    cluster.run(200);
    let leader = cluster.leader().expect("somebody leads");
    assert_eq!(cluster.nodes[&leader].membership().voters(), &ids(&[1, 2, 3]));
    cluster.put("served", 10);
    assert!(cluster.has(leader, "served"));
    cluster.cut.clear();
    cluster.run(600);
    assert_eq!(cluster.nodes[&1].membership().voters(), &ids(&[1, 4]));
}

#[test]
fn grow_by_a_member_that_has_all_is_one_step() {
    let mut cluster = with_state(1);
    let learner = Reconfigure { learners: vec![NodeId(2)], ..Reconfigure::default() };
    let leader = cluster.nodes.get_mut(&1).unwrap();
    leader.request(RequestId(5), Request::Reconfigure(learner));
    cluster.run(10);
    cluster.join(2);
    cluster.run(400);
    let membership = cluster.nodes[&1].membership();
    assert!(membership.learners().contains(&NodeId(2)) && !membership.is_promised(NodeId(2)));
    let leader = cluster.nodes.get_mut(&1).unwrap();
    let promote = Reconfigure { voters: vec![NodeId(2)], ..Reconfigure::default() };
    leader.request(RequestId(6), Request::Reconfigure(promote));
    leader.process();
    let index = leader.status().last.index;
    let entry = leader.entry(index).expect("it was proposed");
    let raft = crate::node::membership::decode(&entry.data).expect("a change");
    assert_eq!(crate::node::membership::from_raft(&raft).promise, None);
    cluster.run(10);
    assert_eq!(cluster.nodes[&1].membership().voters(), &ids(&[1, 2]));
}

#[test]
fn grow_has_a_bound() {
    let mut cluster = Cluster::new(1, |_| ());
    for id in 0..16 {
        assert!(matches!(change(&mut cluster, &[10 + id], &[]), Reply::Reconfigured { .. }));
    }
    let reply = change(&mut cluster, &[99], &[]);
    assert_eq!(reply, Reply::Refused(crate::api::Refusal::ReconfigurationPending));
    assert!(matches!(change(&mut cluster, &[], &[10]), Reply::Reconfigured { .. }));
    assert!(matches!(change(&mut cluster, &[99], &[]), Reply::Reconfigured { .. }));
}
