//! The lock service in the storm: the right one stands, the one that revives leases is found and shrunk.

use std::ops::ControlFlow;

use lock::LockService;
use stormkv_sim::outcome::Outcome;
use stormkv_sim::plan::Plan;
use stormkv_sim::service::Service;
use stormkv_sim::shrink::{Options, Progress, shrink};
use stormkv_sim::simulation::{self, RunOptions};
use stormkv_sim::{scenario, swarm, testing};

fn run<S: Service>(plan: &Plan) -> Outcome {
    simulation::run::<S>(plan, &mut RunOptions::default())
}

#[test]
fn lock_service_survives_the_swarm() {
    testing::swarm::<LockService>(300);
}

#[test]
fn revived_lease_is_found_and_shrunk() {
    let plans = (0..100).map(swarm::generate::<LockService<true>>);
    let plan = plans
        .map(|plan| (run::<LockService<true>>(&plan).violation, plan))
        .find_map(|(violation, plan)| violation.map(|_| plan))
        .expect("one of a hundred seeds finds it");
    let mut go_on = |_: &Progress<'_>| ControlFlow::Continue(());
    let shrunk = shrink::<LockService<true>>(&plan, &Options::default(), &mut go_on);
    let shrunk = shrunk.expect("it fails");
    let text = scenario::save(&shrunk.plan);
    assert!(shrunk.plan.ops.len() <= 4 && shrunk.plan.faults.len() <= 1, "{text}");
    let again = scenario::parse::<LockService<true>>("lease.toml", &text).expect("a scenario");
    let violation = run::<LockService<true>>(&again).violation.expect("it fails again");
    assert_eq!(Some(violation.checker), again.expect.violation.as_deref(), "{}", violation.message);
    assert_eq!(run::<LockService>(&again).violation, None, "a lease that is over stays over");
}

/// Two clients hold the lock, one after the other; the first one renews too late.
#[test]
fn late_renewal_finds_two_holders_at_one_time() {
    let text = r#"
schema = 1
name = "late-renewal"
clients.count = 2
op = [
  { at_ms = 1000, client = 1, do = "acquire 1 100" },
  { at_ms = 1500, client = 2, do = "acquire 1 5000" },
  { at_ms = 2000, client = 1, do = "renew 1 5000" },
]
"#;
    let plan = scenario::parse::<LockService<true>>("late.toml", text).expect("a scenario");
    let violation = run::<LockService<true>>(&plan).violation.expect("two hold it");
    assert_eq!(violation.checker, "invariant");
    assert!(violation.message.contains("has granted lock 1 twice"), "{}", violation.message);
    assert_eq!(run::<LockService>(&plan).violation, None);
}
