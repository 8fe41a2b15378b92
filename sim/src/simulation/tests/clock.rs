//! What each fault of a clock does to the node that goes by it.

use super::*;
use crate::kv::KeyValue;

const SECOND: u64 = 1_000_000_000;

/// Three nodes with ticks of 10 ms for three seconds, and these faults.
fn plan(faults: &str) -> Plan {
    let text = format!(
        "schema = 1\nname = \"clocks\"\nseed = 3\nend.heal_at_ms = 3000\nfault = [{faults}]\n"
    );
    scenario::parse::<KeyValue>("clocks.toml", &text).expect("a scenario")
}

/// How often each node woke between two moments, given in milliseconds.
fn wakes(simulation: &mut Simulation<'_, KeyValue>, until_ms: u64) -> Vec<u64> {
    let timers = |simulation: &Simulation<'_, KeyValue>| -> Vec<u64> {
        simulation.cluster.iter().map(|slot| slot.timer).collect()
    };
    let before = timers(simulation);
    pass_until(simulation, until_ms);
    timers(simulation).iter().zip(before).map(|(after, before)| after - before).collect()
}

#[test]
fn a_node_ticks_by_its_own_clock() {
    let plan = plan(
        r#"{ at_ms = 1000, until_ms = 2000, do = "drift 1 1.2" },
           { at_ms = 1000, until_ms = 2000, do = "drift leader 0.5" }"#,
    );
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    let calm = wakes(&mut simulation, 999);
    assert!(calm.iter().all(|count| (98..=102).contains(count)), "{calm:?}");
    let leader = simulation.cluster.leader().expect("somebody leads by now");
    wakes(&mut simulation, 1000);
    let drifting = wakes(&mut simulation, 2000);
    for (id, count) in simulation.cluster.ids().into_iter().zip(&drifting) {
        let expected = match id {
            id if id == leader => 49..=53,
            N1 => 119..=123,
            _ => 99..=102,
        };
        assert!(expected.contains(count), "{id} woke {count} times");
    }
    wakes(&mut simulation, 2001);
    let mended = wakes(&mut simulation, 2990);
    assert!(mended.iter().all(|count| (97..=101).contains(count)), "{mended:?}");
    assert_eq!(simulation.outcome().faults["clock-drift"], 2);
}

#[test]
fn nodes_do_not_tick_in_step_and_show_different_times() {
    let plan = plan("");
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    wakes(&mut simulation, 500);
    let mut phases: Vec<u64> = Vec::new();
    for _ in 0..60 {
        let event = simulation.kernel.next().expect("there is always a timer");
        if let EventKind::Tick { .. } = event.kind {
            phases.push(simulation.kernel.now_ns() % 10_000_000);
        }
        simulation.handle(event);
    }
    phases.sort_unstable();
    phases.dedup();
    assert_eq!(phases.len(), 3);
    let mut shown: Vec<u64> = simulation
        .cluster
        .iter()
        .map(|slot| slot.clock.at(simulation.kernel.now_ns()) / SECOND)
        .collect();
    shown.dedup();
    assert_eq!(shown.len(), 3);
}

#[test]
fn a_clock_that_is_set_costs_less_than_a_few_ticks() {
    for step in ["-3600000ms", "-4ms", "+4ms", "+3600000ms"] {
        let plan = plan(&format!(
            r#"{{ at_ms = 1000, until_ms = 1500, do = "step 1 {step}" }},
               {{ at_ms = 1000, do = "step leader {step}" }}"#
        ));
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        wakes(&mut simulation, 999);
        let (roles, leader) =
            (simulation.cluster.roles().collect::<Vec<_>>(), simulation.cluster.leader());
        let shown = simulation.cluster.get(NodeId(1)).expect("a founder").clock.at(999_000_000);
        let woke = wakes(&mut simulation, 1499);
        assert!(woke.iter().all(|count| (48..=53).contains(count)), "{step}: {woke:?}");
        let woke = wakes(&mut simulation, 2990);
        assert!(woke.iter().all(|count| (147..=153).contains(count)), "{step}: {woke:?}");
        // At until it was set right.
        let right = simulation.cluster.get(NodeId(1)).expect("a founder").clock.at(2_000_000_000);
        assert!(leader == Some(N1) || right - shown == 1_001_000_000, "{step}");
        let outcome = simulation.outcome();
        let kind = if step.starts_with('-') { "clock-step-back" } else { "clock-step-forward" };
        assert_eq!(outcome.faults[kind], 2);
        // Two ticks more or less depose nobody.
        assert_eq!(simulation.cluster.roles().collect::<Vec<_>>(), roles, "{step}");
    }
}

#[test]
fn late_timers_make_a_node_tick_less_often() {
    let plan = plan(r#"{ at_ms = 1000, until_ms = 2000, do = "jitter 1 40ms" }"#);
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    wakes(&mut simulation, 1000);
    // Late by 20 ms in the mean.
    let woke = wakes(&mut simulation, 2000);
    assert!((25..=60).contains(&woke[0]), "{woke:?}");
    assert!((99..=102).contains(&woke[1]), "{woke:?}");
    wakes(&mut simulation, 2050);
    let woke = wakes(&mut simulation, 2990);
    assert!((93..=96).contains(&woke[0]), "{woke:?}");
    assert_eq!(simulation.outcome().faults["timer-jitter"], 1);
}

#[test]
fn the_clock_of_a_node_that_is_down_or_paused_goes_on() {
    let plan = plan(
        r#"{ at_ms = 900, until_ms = 2000, do = "crash 1" },
           { at_ms = 900, until_ms = 2000, do = "pause 2" },
           { at_ms = 1000, do = "step 1 -60000ms" },
           { at_ms = 1000, do = "step 2 -60000ms" },
           { at_ms = 1100, until_ms = 1200, do = "drift 2 3.0" },
           { at_ms = 1100, do = "drift 1 3.0" }"#,
    );
    let mut simulation = Simulation::<KeyValue>::new(&plan);
    wakes(&mut simulation, 2000);
    let woke = wakes(&mut simulation, 2500);
    assert!((149..=153).contains(&woke[0]), "{woke:?}");
    assert!((49..=53).contains(&woke[1]), "{woke:?}");
    assert_eq!(verdict(&simulation.run(u64::MAX)), None);
}
