//! Tests of the simulated network.

mod link;

use super::*;
use Endpoint::{Client, Node};

const MS: u64 = 1_000_000;

fn stormy() -> NetworkConfig {
    NetworkConfig {
        latency_min_ns: 200_000,
        latency_mean_extra_ns: MS,
        tail_probability: 0.02,
        tail_factor: 100,
        drop: 0.1,
        duplicate: 0.1,
        fifo: false,
        spread: 1,
        capacity: None,
        garble: 0.0,
        tells: 0.0,
    }
}

/// What a message without a lane travels on until its link is reset.
const FIRST: Connection = Connection { lane: 0, number: 0 };

/// Nodes 1 to 5 and clients 1 and 2.
fn everybody() -> Vec<Endpoint> {
    (1..=5).map(Node).chain((1..=2).map(Client)).collect()
}

/// Which links the rule cuts, as `1>2` for nodes and `c1>2` for a client and a node.
fn cut_links(rule: Rule) -> String {
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    network.cut(1, rule);
    let mut cut = Vec::new();
    for from in everybody() {
        for to in everybody().into_iter().filter(|&to| to != from) {
            let sent = network.fate(0, from, to, 0);
            let dropped = sent == Fate::Dropped(DropReason::Partition);
            assert!(dropped || matches!(sent, Fate::Delivered { at_ns: MS, again_ns: None, .. }));
            assert_eq!(network.arrives(from, to, FIRST).is_ok(), !dropped);
            if dropped {
                cut.push(format!("{from}>{to}").replace('n', ""));
            }
        }
    }
    assert_eq!(network.stats().partitioned, cut.len() as u64);
    assert_eq!(network.stats().cut_in_flight, cut.len() as u64);
    assert!(network.mend(1));
    for from in everybody() {
        for to in everybody().into_iter().filter(|&to| to != from) {
            assert!(
                network.arrives(from, to, FIRST).is_ok(),
                "{from} to {to} is cut after mending"
            );
        }
    }
    cut.join(" ")
}

#[test]
fn groups_separate_their_members_and_nobody_else() {
    let groups = vec![vec![Node(1), Client(1)], vec![Node(2), Node(3)]];
    assert_eq!(cut_links(Rule::Groups(groups)), "1>2 1>3 2>1 2>c1 3>1 3>c1 c1>2 c1>3");
}

#[test]
fn isolation_cuts_from_everybody_else() {
    let cut = "1>3 1>4 1>5 1>c1 1>c2 2>3 2>4 2>5 2>c1 2>c2 3>1 3>2 4>1 4>2 5>1 5>2 \
               c1>1 c1>2 c2>1 c2>2";
    assert_eq!(cut_links(Rule::Isolate(vec![Node(1), Node(2)])), cut);
}

#[test]
fn one_way_leaves_the_way_back_open() {
    let from = Side::Only(vec![Node(1)]);
    let to = Side::Only(vec![Node(2), Client(2)]);
    assert_eq!(cut_links(Rule::OneWay { from, to }), "1>2 1>c2");
    let from = Side::Only(vec![Node(5)]);
    let cut = "5>1 5>2 5>3 5>4 5>c1 5>c2";
    assert_eq!(cut_links(Rule::OneWay { from, to: Side::Everybody }), cut);
}

#[test]
fn a_bridge_talks_to_all_groups() {
    let groups = vec![vec![Node(1), Node(2), Node(3)], vec![Node(4), Node(5)]];
    let cut = "1>4 1>5 2>4 2>5 4>1 4>2 5>1 5>2";
    assert_eq!(cut_links(Rule::Bridge { bridge: Node(3), groups }), cut);
}

#[test]
fn a_ring_sees_its_neighbours_only() {
    let endpoints: Vec<_> = (1..=5).map(Node).collect();
    let cut = "1>3 1>4 2>4 2>5 3>1 3>5 4>1 4>2 5>2 5>3";
    assert_eq!(cut_links(Rule::Ring { endpoints: endpoints.clone(), reach: 1 }), cut);
    assert_eq!(cut_links(Rule::Ring { endpoints: endpoints.clone(), reach: 2 }), "");
    assert_eq!(cut_links(Rule::Ring { endpoints, reach: 100 }), "");
}

#[test]
fn overlapping_faults_end_one_by_one() {
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    network.cut(1, Rule::Isolate(vec![Node(1)]));
    network.cut(2, Rule::Groups(vec![vec![Node(1)], vec![Node(2)]]));
    assert!(network.arrives(Node(1), Node(2), FIRST).is_err());
    assert!(network.arrives(Node(1), Node(3), FIRST).is_err());
    network.mend(1);
    assert!(network.arrives(Node(1), Node(2), FIRST).is_err());
    assert!(network.arrives(Node(1), Node(3), FIRST).is_ok());
    network.mend(2);
    assert!(network.arrives(Node(1), Node(2), FIRST).is_ok());
    assert!(!network.mend(2), "it was not active any more");
}

#[test]
fn a_partition_holds_for_endpoints_that_appear_later() {
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    network.cut(1, Rule::Isolate(vec![Node(1)]));
    assert!(network.arrives(Node(2), Node(3), FIRST).is_ok());
    assert!(network.arrives(Node(9), Node(1), FIRST).is_err());
}

#[test]
fn what_a_clogged_link_held_up_arrives_at_its_end_in_order() {
    let mut network = Network::new(3, stormy());
    let (a, b) = (Side::Only(vec![Node(1)]), Side::Only(vec![Node(2)]));
    network.cut(1, Rule::Clog { from: a, to: b, until_ns: 50 * MS });
    let (mut last, mut held, mut at_end) = (0, 0, 0);
    for now in 0..50 {
        if let Fate::Delivered { at_ns, clogged, .. } = network.fate(now * MS, Node(1), Node(2), 0)
        {
            assert!(clogged);
            assert!(at_ns >= 50 * MS && at_ns >= last, "{at_ns} after {last}");
            last = at_ns;
            held += 1;
            at_end += u64::from(at_ns == 50 * MS);
        }
        if let Fate::Delivered { at_ns, clogged, .. } = network.fate(now * MS, Node(2), Node(1), 0)
        {
            assert!(!clogged && at_ns < (now + 150) * MS);
        }
    }
    assert_eq!(network.stats().clogged, held);
    assert!(held > 30 && at_end > 10, "{held} held up, {at_end} until the very end");
    let after = network.fate(50 * MS, Node(1), Node(2), 0);
    assert!(!matches!(after, Fate::Delivered { clogged: true, .. }));
}

#[test]
fn weather_hits_the_links_it_names_and_ends() {
    let mut network = Network::new(4, NetworkConfig::fixed(MS));
    let (from, to) = (Side::Only(vec![Node(1)]), Side::Everybody);
    network.cut(7, Rule::Weather { from, to, drop: 0.3, duplicate: 0.2, extra_mean_ns: 5 * MS });
    let mut total = 0;
    for now in 0..1000 {
        if let Fate::Delivered { at_ns, .. } = network.fate(now * MS, Node(1), Node(2), 0) {
            total += at_ns - now * MS;
        }
        let calm = Fate::Delivered {
            at_ns: (now + 1) * MS,
            again_ns: None,
            clogged: false,
            garbled: None,
            connection: FIRST,
        };
        assert_eq!(network.fate(now * MS, Node(2), Node(1), 0), calm);
    }
    let stats = *network.stats();
    assert!((250..350).contains(&stats.lost_to_weather), "{stats:?}");
    assert!((100..180).contains(&stats.duplicated), "{stats:?}");
    let mean = total / (1000 - stats.lost_to_weather);
    assert!((5_400_000..6_600_000).contains(&mean), "{mean} ns");
    network.mend(7);
    let calm = Fate::Delivered {
        at_ns: MS,
        again_ns: None,
        clogged: false,
        garbled: None,
        connection: FIRST,
    };
    assert_eq!(network.fate(0, Node(1), Node(2), 0), calm);
}

#[test]
fn the_everyday_rates_are_kept() {
    let mut network = Network::new(5, stormy());
    let mut latencies = Vec::new();
    for now in 0..20_000 {
        if let Fate::Delivered { at_ns, .. } = network.fate(now, Node(1), Node(2), 0) {
            latencies.push(at_ns - now);
        }
    }
    let stats = *network.stats();
    assert_eq!(stats.sent, 20_000);
    assert!((1_800..2_200).contains(&stats.lost), "{stats:?}");
    assert!((1_600..2_000).contains(&stats.duplicated), "{stats:?}");
    latencies.sort_unstable();
    assert!(latencies[0] >= 200_000);
    // The median of an exponential is ln 2 of its mean; beyond 20 means there is but the tail.
    let median = latencies[latencies.len() / 2];
    assert!((870_000..920_000).contains(&median), "{median} ns");
    let tail = latencies.iter().filter(|&&latency| latency > 20 * MS).count();
    assert!((5..40).contains(&tail), "{tail} in the tail");
    assert!(*latencies.last().unwrap() <= 100 * MS + 200_000);
}

#[test]
fn fifo_links_keep_their_order_and_others_do_not() {
    for fifo in [true, false] {
        let mut network = Network::new(6, NetworkConfig { fifo, ..stormy() });
        let mut arrivals = Vec::new();
        for now in 0..1000 {
            let kind = (now % 3) as u8;
            if let Fate::Delivered { at_ns, again_ns, .. } =
                network.fate(now * 1000, Node(1), Node(2), kind)
            {
                arrivals.push(at_ns);
                arrivals.extend(again_ns);
            }
        }
        assert_eq!(arrivals.is_sorted(), fifo);
    }
}

#[test]
fn exceptions_hit_exactly_their_message() {
    let rule = |action, nth| NetRule { action, from: Node(2), to: Node(1), kind: 3, nth };
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    network.except(rule(NetAction::Drop, 2));
    network.except(rule(NetAction::Duplicate, 3));
    network.except(rule(NetAction::DelayNs(5 * MS), 3));
    network.except(rule(NetAction::DelayNs(7), 4));
    let plain = Fate::Delivered {
        at_ns: MS,
        again_ns: None,
        clogged: false,
        garbled: None,
        connection: FIRST,
    };
    let seen: Vec<Fate> = (0..5)
        .map(|_| {
            assert_eq!(network.fate(0, Node(2), Node(1), 2), plain, "another kind");
            assert_eq!(network.fate(0, Node(2), Node(3), 3), plain, "another receiver");
            network.fate(0, Node(2), Node(1), 3)
        })
        .collect();
    let expected = [
        plain,
        Fate::Dropped(DropReason::Exception),
        Fate::Delivered {
            at_ns: 6 * MS,
            again_ns: Some(6 * MS),
            clogged: false,
            garbled: None,
            connection: FIRST,
        },
        Fate::Delivered {
            at_ns: MS + 7,
            again_ns: None,
            clogged: false,
            garbled: None,
            connection: FIRST,
        },
        plain,
    ];
    assert_eq!(seen, expected);
    assert_eq!((network.stats().excepted, network.stats().duplicated), (1, 1));
}

/// The fates of 200 rounds of messages on all links between three nodes, link by link.
fn fates(faults: &[(u32, Rule)], skip: Option<(Endpoint, Endpoint)>) -> Vec<(String, Vec<Fate>)> {
    let mut network = Network::new(11, stormy());
    for (id, rule) in faults {
        network.cut(*id, rule.clone());
    }
    let mut all = BTreeMap::<String, Vec<Fate>>::new();
    for now in 0..200 {
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
            if skip != Some((Node(from), Node(to))) {
                let fate = network.fate(now * MS, Node(from), Node(to), 1);
                all.entry(format!("{from}>{to}")).or_default().push(fate);
            }
        }
    }
    all.into_iter().collect()
}

#[test]
fn a_fault_that_is_removed_changes_nothing_elsewhere() {
    let side = |node| Side::Only(vec![Node(node)]);
    let weather =
        |from, to| Rule::Weather { from, to, drop: 0.2, duplicate: 0.2, extra_mean_ns: MS };
    let first = (1, weather(side(1), Side::Everybody));
    let second = (2, weather(Side::Everybody, side(3)));
    let third = (3, Rule::OneWay { from: side(2), to: side(1) });
    let both = fates(&[first.clone(), second.clone(), third.clone()], None);
    let one = fates(&[second, third], None);
    let changed: Vec<&str> = both
        .iter()
        .zip(&one)
        .filter(|(with, without)| with != without)
        .map(|((link, _), _)| link.as_str())
        .collect();
    assert_eq!(changed, ["1>2", "1>3"]);
}

#[test]
fn faults_on_one_link_draw_apart_from_each_other() {
    let losses = |faults: &[u32]| {
        let mut network = Network::new(13, NetworkConfig::fixed(MS));
        for &id in faults {
            let (from, to) = (Side::Everybody, Side::Everybody);
            let rule = Rule::Weather { from, to, drop: 0.3, duplicate: 0.0, extra_mean_ns: MS };
            network.cut(id, rule);
        }
        let lost =
            |_: &u32| network.fate(0, Node(1), Node(2), 0) == Fate::Dropped(DropReason::Weather);
        (0..200).filter(lost).collect::<std::collections::BTreeSet<u32>>()
    };
    let (first, second) = (losses(&[1]), losses(&[2]));
    assert_ne!(first, second);
    assert_eq!(losses(&[1, 2]), &first | &second);
}

#[test]
fn a_silent_link_changes_nothing_elsewhere() {
    let all = fates(&[], None);
    let mut fewer = fates(&[], Some((Node(1), Node(3))));
    assert_eq!(fewer.len(), 5);
    fewer.retain(|link| !all.contains(link));
    assert_eq!(fewer, []);
}

#[test]
fn a_partition_does_not_shift_what_comes_after_it() {
    let mut calm = Network::new(12, stormy());
    let mut cut = Network::new(12, stormy());
    for now in 0..300 {
        match now {
            100 => cut.cut(1, Rule::Isolate(vec![Node(1)])),
            200 => assert!(cut.mend(1)),
            _ => {}
        }
        let (a, b) = (calm.fate(now, Node(1), Node(2), 0), cut.fate(now, Node(1), Node(2), 0));
        assert_eq!(a == b, !(100..200).contains(&now), "at {now}");
    }
}

#[test]
#[should_panic(expected = "n1 sends a message to itself")]
fn nobody_sends_to_itself() {
    Network::new(1, NetworkConfig::fixed(1)).fate(0, Node(1), Node(1), 0);
}
