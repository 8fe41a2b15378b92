//! Changes of the membership that would leave no quorum of members that answer.

use std::collections::BTreeSet;

use super::cluster::Cluster;
use crate::api::{Reconfigure, Refusal, Reply, Request, RequestId};
use crate::types::NodeId;

const AT_RISK: Reply = Reply::Refused(Refusal::QuorumAtRisk);

fn list(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn reconfigure(voters: &[u64], learners: &[u64], removed: &[u64]) -> Reconfigure {
    Reconfigure {
        voters: list(voters),
        learners: list(learners),
        removed: list(removed),
        ..Reconfigure::default()
    }
}

/// Asks node 1, the leader, for a change, and returns its answer after some ticks.
fn change(cluster: &mut Cluster, voters: &[u64], learners: &[u64], removed: &[u64]) -> Reply {
    ask(cluster, Request::Reconfigure(reconfigure(voters, learners, removed)))
}

fn ask(cluster: &mut Cluster, request: Request) -> Reply {
    cluster.replies.clear();
    cluster.nodes.get_mut(&1).unwrap().request(RequestId(5), request);
    cluster.run(10);
    let [reply] = &cluster.replies[..] else { panic!("{:?}", cluster.replies) };
    reply.clone()
}

fn voters(cluster: &Cluster, id: u64) -> BTreeSet<NodeId> {
    cluster.nodes[&id].membership().voters().clone()
}

fn is_made(reply: &Reply) -> bool {
    matches!(reply, Reply::Reconfigured { .. })
}

/// Kills a member and waits until its silence is noticed.
fn lose(cluster: &mut Cluster, id: u64) {
    cluster.kill(id);
    cluster.run(40);
}

#[test]
fn prudence_lost_voter_goes_and_an_active_one_stays() {
    let mut cluster = Cluster::new(3, |_| ());
    lose(&mut cluster, 3);
    assert_eq!(change(&mut cluster, &[], &[], &[2]), AT_RISK);
    assert_eq!(change(&mut cluster, &[], &[2], &[]), AT_RISK, "a demotion takes the vote, too");
    assert_eq!(voters(&cluster, 1), list(&[1, 2, 3]).into_iter().collect());
    cluster.put("served", 10);
    assert!(cluster.has(2, "served"));
    assert!(is_made(&change(&mut cluster, &[], &[], &[3])));
    assert!(is_made(&change(&mut cluster, &[], &[], &[2])), "one is a quorum of one");
    assert_eq!(voters(&cluster, 1), list(&[1]).into_iter().collect());
}

#[test]
fn prudence_gives_way_to_an_operator_who_insists() {
    let mut cluster = Cluster::new(5, |_| ());
    lose(&mut cluster, 4);
    lose(&mut cluster, 5);
    assert_eq!(change(&mut cluster, &[], &[], &[3]), AT_RISK);
    let forced = Request::ForceReconfigure(reconfigure(&[], &[], &[3]));
    assert!(is_made(&ask(&mut cluster, forced)));
    assert_eq!(voters(&cluster, 1), list(&[1, 2, 4, 5]).into_iter().collect());
}

#[test]
fn prudence_refuses_the_address_of_another_member() {
    let mut cluster = Cluster::new(3, |_| ());
    let at = |id: u64, address: &str| Reconfigure {
        voters: list(&[id]),
        addresses: [(NodeId(id), address.to_owned())].into(),
        ..Reconfigure::default()
    };
    assert!(is_made(&ask(&mut cluster, Request::Reconfigure(at(2, "http://two")))));
    let invalid = Reply::Refused(Refusal::InvalidReconfiguration);
    assert_eq!(ask(&mut cluster, Request::Reconfigure(at(3, "http://two"))), invalid);
    assert_eq!(ask(&mut cluster, Request::Reconfigure(at(4, "http://two"))), invalid);
    assert!(is_made(&ask(&mut cluster, Request::Reconfigure(at(4, "http://four")))));
}

#[test]
fn prudence_returning_voter_makes_the_change_possible() {
    let mut cluster = Cluster::new(3, |_| ());
    lose(&mut cluster, 3);
    assert_eq!(change(&mut cluster, &[], &[], &[2]), AT_RISK);
    cluster.start(3).unwrap();
    cluster.run(20);
    assert!(is_made(&change(&mut cluster, &[], &[], &[2])));
}

#[test]
fn prudence_vote_of_the_election_is_an_answer() {
    let mut cluster = Cluster::new(3, |_| ());
    cluster.nodes.get_mut(&1).unwrap().request(RequestId(4), Request::Transfer(NodeId(2)));
    while cluster.leader() != Some(2) {
        cluster.step();
    }
    let removal = Reconfigure { removed: list(&[3]), ..Reconfigure::default() };
    cluster.replies.clear();
    cluster.nodes.get_mut(&2).unwrap().request(RequestId(5), Request::Reconfigure(removal));
    cluster.run(10);
    assert!(is_made(&cluster.replies[0]), "{:?}", cluster.replies);
}

#[test]
fn prudence_learner_needs_no_quorum() {
    let mut cluster = Cluster::new(3, |_| ());
    lose(&mut cluster, 3);
    assert!(is_made(&change(&mut cluster, &[], &[4], &[])));
    assert!(is_made(&change(&mut cluster, &[], &[], &[4])));
}

#[test]
fn prudence_larger_quorum_needs_its_voters() {
    let mut cluster = Cluster::new(2, |_| ());
    assert!(is_made(&change(&mut cluster, &[], &[3, 4], &[])));
    cluster.join(3);
    cluster.join(4);
    cluster.run(200);
    cluster.kill(3);
    cluster.kill(4);
    // They had all when they were last heard of, an instant ago.
    assert!(is_made(&change(&mut cluster, &[3], &[], &[])));
    cluster.run(40);
    assert_eq!(voters(&cluster, 1), list(&[1, 2, 3]).into_iter().collect());
    // Now it is a promise, which waits.
    assert!(is_made(&change(&mut cluster, &[4], &[], &[])));
    assert!(cluster.nodes[&1].membership().is_promised(NodeId(4)));
    assert_eq!(change(&mut cluster, &[], &[2], &[]), AT_RISK);
}

#[test]
fn prudence_promise_waits_for_the_quorum_that_it_needs() {
    let mut cluster = Cluster::new(3, |_| ());
    // Of the voters 1 and 4 each is needed; the new one comes late.
    assert!(is_made(&change(&mut cluster, &[4, 5], &[], &[2])));
    lose(&mut cluster, 3);
    cluster.join(4);
    cluster.join(5);
    // Voters 1, 3, 4, 5: three of four.
    cluster.run(20);
    cluster.cut.push(5);
    cluster.run(200);
    let before = voters(&cluster, 1);
    assert!(before.contains(&NodeId(2)) || before.contains(&NodeId(5)), "{before:?}");
    cluster.cut.clear();
    cluster.run(400);
    let leader = cluster.leader().expect("somebody leads");
    assert_eq!(voters(&cluster, leader), list(&[1, 3, 4, 5]).into_iter().collect());
    cluster.put("served", 10);
    assert!(cluster.has(leader, "served"));
}
