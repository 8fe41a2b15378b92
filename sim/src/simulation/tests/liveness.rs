//! The second phase: who is in the core, that those outside do not disturb it, and that every kind
//! of stall is explained in the right words.

use std::collections::BTreeSet;

use stormkv::node::Role;

use super::super::core::Loss;
use super::super::stall::Missing;
use super::*;
use crate::disk::FaultKind;
use crate::kv::KeyValue;
use crate::network::{Endpoint, Rule, Side};
use crate::plan::Core;

const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
/// The number of a fault that no plan knows, so that nobody mends it.
const UNKNOWN_FAULT: u32 = 1_000_000;

/// A scenario from its settings and rows.
fn scenario(text: &str) -> Plan {
    let text = format!("schema = 1\nname = \"liveness\"\nseed = 1\n{text}");
    scenario::parse::<KeyValue>("liveness.toml", &text).expect("a scenario")
}

/// Three nodes at work for two seconds; the faults stop after one.
fn busy(settings: &str) -> Plan {
    let mut text = format!("{settings}\n[end]\nheal_at_ms = 1000\nbound_ms = 3000\n");
    for at in 0..20 {
        let (at_ms, client) = (100 * at, at % 3 + 1);
        text.push_str(&format!(
            "[[op]]\nat_ms = {at_ms}\nclient = {client}\ndo = \"put k{client} v{at}\"\n"
        ));
    }
    scenario(&text)
}

/// Runs until this is so.
fn run_until(
    simulation: &mut Simulation<'_, KeyValue>,
    reached: impl Fn(&Simulation<'_, KeyValue>) -> bool,
) {
    while !reached(simulation) {
        let outcome = simulation.run(simulation.kernel.step() + 1);
        assert_eq!(verdict(&outcome), None, "{:?}", outcome.violation);
        assert!(!simulation.rested, "it ended before");
    }
}

/// Runs to the end, which must be a stall; what is said about it.
fn stall(mut simulation: Simulation<'_, KeyValue>) -> String {
    let violation = simulation.run(u64::MAX).violation.expect("a stall");
    assert_eq!((violation.class, violation.checker), (Class::Liveness, "convergence"));
    violation.message
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

fn is_established(simulation: &Simulation<'_, KeyValue>) -> bool {
    simulation.recovery.leader_ns.is_some()
}

#[test]
fn times_of_a_recovery_follow_each_other() {
    let mut plan = plan(10_000);
    plan.end.heal_at_us = Some(1_500_000);
    let outcome = run::<KeyValue>(&plan, &mut RunOptions::default());
    assert_eq!(verdict(&outcome), None);
    let Recovery { leader_ns, answered_ns, converged_ns, .. } = outcome.recovery;
    let times = [leader_ns, answered_ns, converged_ns].map(|ns| ns.expect("it was reached"));
    assert!(times.is_sorted(), "{times:?}");
    // The majority was down, so nobody led, and an election takes its time.
    assert!((50_000_000..2_000_000_000).contains(&times[0]), "{times:?}");
    let calm = run::<KeyValue>(&scenario(""), &mut RunOptions::default());
    assert_eq!(calm.recovery.answered_ns, None, "nobody asked for anything");
}

#[test]
fn a_core_without_a_quorum_is_explained_soon() {
    let mut plan = busy("");
    plan.end.core = Core::Only(BTreeSet::from([N1]));
    plan.end.bound_us = 600_000_000;
    let message = stall(Simulation::<KeyValue>::new(&plan));
    says(&message, &["after the core n1 was healed", "there is no quorum"]);
    says(&message, &["of the voters n1, n2, n3 only n1 can take part; n2 ", ", n3 ", " for good"]);
    let seconds = message.strip_prefix("for ").and_then(|rest| rest.split_once(' '));
    let seconds: f64 = seconds.expect("a time").0.parse().expect("a number");
    assert!((5.0..20.0).contains(&seconds), "the bound of an election: {message}");
}

#[test]
fn a_core_is_a_quorum_whether_a_change_still_happens_or_not() {
    let faults =
        "[[fault]]\nat_ms = 400\ndo = \"crash 1\"\n[[fault]]\nat_ms = 400\ndo = \"crash 2\"";
    let operations = [("", 0), ("learner 4", 0), ("remove 1", 1), ("transfer 3", 0)];
    for (operation, unsettled) in operations {
        let op = format!("[[op]]\nat_ms = 500\ndo = \"{operation}\"\n");
        let op = if operation.is_empty() { "" } else { &op };
        let mut plan = scenario(&format!("end.core = \"random\"\n{faults}\n{op}"));
        plan.end.heal_at_us = Some(2_000_000);
        let outcome = run::<KeyValue>(&plan, &mut RunOptions::default());
        assert_eq!(verdict(&outcome), None, "{operation}");
        let count = |name| outcome.waypoints.get(name).copied().unwrap_or(0);
        let counts = (count("core-healed"), count("core-undecided"));
        assert_eq!(counts, (1, 0), "{operation}");
        assert_eq!(count("core-healed-during-change"), unsettled, "{operation}");
        // The change happens all the same, because a quorum is there.
        assert_eq!(count("learner-added"), u64::from(operation == "learner 4"));
    }
}

#[test]
fn the_operator_waits_for_everybody() {
    let mut plan = busy("");
    plan.ops.push(crate::plan::OpRow {
        at_us: 1_500_000,
        client: 0,
        call: "add 4".parse().expect("an operation"),
    });
    for (core, added) in [(Core::All, 1), (Core::Only(BTreeSet::from([N1, N2])), 0)] {
        plan.end.core = core;
        let outcome = run::<KeyValue>(&plan, &mut RunOptions::default());
        assert_eq!(verdict(&outcome), None);
        assert_eq!(outcome.waypoints.get("voter-added").copied().unwrap_or(0), added);
    }
}

#[test]
fn who_has_failed_already_stays_as_it_is() {
    let core = Core::Only(BTreeSet::from([N1, N2]));
    for (fault, loss) in [
        ("crash 3", Loss::Down),
        ("pause 3", Loss::Paused),
        ("isolate 3", Loss::Isolated),
        ("partition 1 2 c1 | 3", Loss::Isolated),
        ("oneway 3 -> 1 2", Loss::Mute),
        ("oneway 1 2 -> 3", Loss::Deaf),
    ] {
        let mut plan = busy(&format!("[[fault]]\nat_ms = 700\ndo = \"{fault}\"\n"));
        plan.end.core = core.clone();
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        run_until(&mut simulation, |simulation| simulation.healed_ns.is_some());
        assert_eq!(
            simulation.cluster.get_mut(N3).expect("it is there").faults.lost(),
            Some(loss),
            "{fault}"
        );
    }
    // What does not keep all of it from the core is not enough.
    let mut plan = busy("[[fault]]\nat_ms = 700\ndo = \"oneway 3 -> 1\"\n");
    plan.end.core = core;
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    run_until(&mut simulation, |simulation| simulation.network.is_active(0));
    simulation.core = Some(BTreeSet::from([N1, N2]));
    assert_eq!(simulation.present_loss(N3), None);
}

#[test]
fn members_that_are_lost_for_good_do_not_disturb_the_core() {
    let core = BTreeSet::from([N1, N2, N3]);
    for leads in [false, true] {
        for loss in [Loss::Isolated, Loss::Mute, Loss::Deaf, Loss::Paused, Loss::Killed] {
            let to = if leads { 4 } else { 1 };
            let transfer = format!("[[op]]\nat_ms = 450\ndo = \"transfer {to}\"\n");
            let mut plan = busy(&format!("cluster.nodes = 5\n{transfer}"));
            // Long enough for many elections of those who are cut off.
            let last = plan.ops.last_mut().expect("there are operations");
            last.at_us = 8_000_000;
            plan.end.core = Core::Only(core.clone());
            let mut simulation = Simulation::<KeyValue>::new(&plan);
            run_until(&mut simulation, |simulation| simulation.kernel.now_ns() > 900_000_000);
            assert_eq!(simulation.cluster.leader(), Some(NodeId(to)), "as the story wants it");
            // In the place of the heal, which would draw how they are lost.
            simulation.core = Some(core.clone());
            simulation.begin_recovery();
            simulation.lose(NodeId(4), Some(loss));
            simulation.lose(NodeId(5), Some(loss));
            run_until(&mut simulation, is_established);
            let leader = simulation.core_leader().expect("it is established");
            let term = simulation.cluster.role(leader).1;
            assert!(core.contains(&leader), "{leader}");
            run_until(&mut simulation, |simulation| simulation.kernel.now_ns() > 7_900_000_000);
            let now = simulation.cluster.role(leader);
            assert_eq!(now, (Role::Leader, term), "{loss:?}, leads: {leads}");
            assert_eq!(simulation.violation, None, "{loss:?}, leads: {leads}");
        }
    }
}

#[test]
fn a_core_that_cannot_elect_is_explained_by_its_logs() {
    let plan = busy("");
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    run_until(&mut simulation, |simulation| simulation.kernel.now_ns() > 600_000_000);
    let leader = simulation.cluster.leader().expect("somebody leads");
    // The leader goes on for itself, so its log grows, and then nobody reaches anybody.
    let alone = |id: u64| vec![Endpoint::Node(id)];
    let apart = Rule::Groups([1, 2, 3].map(alone).to_vec());
    simulation.network.cut(UNKNOWN_FAULT, apart);
    let message = stall(simulation);
    says(&message, &["there is no leader, although n1, n2, n3 of the voters n1, n2, n3"]);
    says(&message, &[&format!("{leader} is a "), "its log ends at ", "and is refused by "]);
    says(&message, &["could win: n1 is a "]);
}

#[test]
fn a_stalled_answer_names_its_node_and_the_entry_that_lacks_a_quorum() {
    let operations = "[[op]]\nat_ms = 450\ndo = \"transfer 1\"\n\
                      [[op]]\nat_ms = 1050\nclient = 4\ndo = \"put x 1 @1\"\n";
    let plan = busy(&format!("clients.count = 4\n{operations}"));
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    run_until(&mut simulation, is_established);
    let leader = simulation.core_leader().expect("it is established");
    assert_eq!(leader, N1, "as the story wants it");
    let others = [N1, N2, N3].map(|id| Endpoint::Node(id.0));
    let others = others.into_iter().filter(|end| *end != Endpoint::Node(leader.0)).collect();
    // They hear the leader, but it does not hear them; until it steps down, it takes requests.
    let to = Side::Only(vec![Endpoint::Node(leader.0)]);
    let rule = Rule::OneWay { from: Side::Only(others), to };
    simulation.network.cut(UNKNOWN_FAULT, rule);
    let waits = |simulation: &Simulation<'_, KeyValue>| match simulation.missing() {
        Some(Missing::Answer(by, _)) if by == leader => {
            let told = simulation.explain_stall();
            told.contains(" waits at ") && told.contains(" is not committed: ")
        }
        _ => false,
    };
    run_until(&mut simulation, waits);
    let message = simulation.explain_stall();
    says(&message, &["`put ", "` of client ", " is not answered: attempt ", " waits at n"]);
    says(
        &message,
        &[&format!("(leader {leader}); entry "), "of the voters n1, n2, n3 it is in the"],
    );
}

#[test]
fn no_client_gives_up_once_the_faults_have_stopped() {
    let mut plan = busy("clients.give_up_ms = 500");
    plan.end.bound_us = 4_000_000;
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    run_until(&mut simulation, is_established);
    simulation.network.cut(UNKNOWN_FAULT, Rule::Isolate(vec![Endpoint::Client(1)]));
    let message = stall(simulation);
    says(&message, &["`put k1 v", "` of client 1 is not answered: attempt ", "(leader n"]);
}

/// A member that is not the leader, cut off once there is one.
fn cut_off_follower<'p>(simulation: &mut Simulation<'p, KeyValue>) -> NodeId {
    run_until(simulation, is_established);
    let leader = simulation.core_leader().expect("it is established");
    let follower = if leader == N3 { N2 } else { N3 };
    let rule = Rule::Isolate(vec![Endpoint::Node(follower.0)]);
    simulation.network.cut(UNKNOWN_FAULT, rule);
    follower
}

#[test]
fn a_lagging_member_lacks_an_entry_that_others_have() {
    let plan = busy("");
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    let follower = cut_off_follower(&mut simulation);
    let others: Vec<NodeId> = [N1, N2, N3].into_iter().filter(|id| *id != follower).collect();
    let message = stall(simulation);
    says(&message, &[&format!("{follower} has applied "), "it lacks entry ", "@"]);
    says(&message, &[&format!("which {}, {} have", others[0], others[1])]);
    says(&message, &["after all was healed"]);
}

#[test]
fn a_member_that_lags_far_waits_for_a_snapshot() {
    let plan = busy("cluster.snapshot_every = 3\ncluster.keep_entries = 0");
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    let follower = cut_off_follower(&mut simulation);
    let message = stall(simulation);
    says(
        &message,
        &[&format!("{follower} has applied "), "it waits for a snapshot, because its log"],
    );
    says(&message, &["the leader has one up to "]);
}

#[test]
fn a_member_that_stops_again_and_again_is_named_with_its_error() {
    let plan = busy("");
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    run_until(&mut simulation, is_established);
    let leader = simulation.core_leader().expect("it is established");
    let follower = if leader == N3 { N2 } else { N3 };
    for fault in 0..100 {
        let slot = simulation.cluster.get_mut(follower).expect("it is there");
        slot.disk.fail_next(FaultKind::SyncFails, UNKNOWN_FAULT + fault);
    }
    let message = stall(simulation);
    says(&message, &[&format!("; {follower} has stopped by itself "), " times since (", "sync"]);
}

#[test]
fn what_is_only_lost_for_good_is_no_excuse() {
    let mut plan = busy("");
    plan.end.beyond_quorum = true;
    plan.end.core = Core::Only(BTreeSet::from([N1]));
    says(&stall(Simulation::<KeyValue>::new(&plan)), &["there is no quorum"]);
}
