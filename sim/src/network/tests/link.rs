//! Tests of the links: their latencies, their capacity, and connections that break.

use super::*;

const KIB: u64 = 1024;

fn parcel(lane: u8, bytes: u32) -> Parcel {
    Parcel { kind: 0, lane, bytes }
}

/// When the next message arrives.
fn arrival(network: &mut Network, now_ns: u64, parcel: Parcel) -> u64 {
    match network.fate(now_ns, Node(1), Node(2), parcel) {
        Fate::Delivered { at_ns, .. } => at_ns,
        Fate::Dropped(reason) => panic!("it was dropped: {reason:?}"),
    }
}

fn between(from: u64, to: u64) -> (Side, Side) {
    (Side::Only(vec![Node(from)]), Side::Only(vec![Node(to)]))
}

#[test]
fn links_differ_as_far_as_they_may() {
    let config = NetworkConfig { spread: 8, ..NetworkConfig::fixed(MS) };
    let mut network = Network::new(7, config);
    let mut seen = Vec::new();
    for from in 1..=9 {
        for to in (1..=9).filter(|to| *to != from) {
            let Fate::Delivered { at_ns, .. } = network.fate(0, Node(from), Node(to), 0) else {
                panic!("nothing is lost");
            };
            assert!((MS..=8 * MS).contains(&at_ns), "{at_ns}");
            let again = network.fate(0, Node(from), Node(to), 0);
            assert!(matches!(again, Fate::Delivered { at_ns: same, .. } if same == at_ns));
            seen.push(at_ns);
        }
    }
    // As many in each doubling, more or less, and hardly two alike.
    for doubling in [1, 2, 4] {
        let some = seen.iter().filter(|ns| (doubling * MS..2 * doubling * MS).contains(ns)).count();
        assert!(some > seen.len() / 6, "{some} of {} from {doubling} ms", seen.len());
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 50, "{}", seen.len());
}

#[test]
fn a_lag_hits_one_direction_and_adds_up() {
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    let (from, to) = between(1, 2);
    network.cut(1, Rule::Lag { from, to, delay_ns: 5 * MS });
    network.cut(2, Rule::Lag { from: Side::Everybody, to: Side::Everybody, delay_ns: 2 * MS });
    assert_eq!(arrival(&mut network, 0, 0.into()), 8 * MS);
    let back = network.fate(0, Node(2), Node(1), 0);
    assert!(matches!(back, Fate::Delivered { at_ns, .. } if at_ns == 3 * MS), "{back:?}");
    assert_eq!(network.stats().lagged, 2);
    network.mend(1);
    network.mend(2);
    assert_eq!(arrival(&mut network, 0, 0.into()), MS);
}

#[test]
fn bytes_on_a_connection_take_their_time_and_queue_up() {
    let capacity = Capacity { bytes_per_s: 1000 * KIB, queue_ns: 10 * MS };
    let config = NetworkConfig { capacity: Some(capacity), ..NetworkConfig::fixed(MS) };
    let mut network = Network::new(1, config);
    let bulk = parcel(1, 4 * KIB as u32);
    for number in 1..=3 {
        assert_eq!(arrival(&mut network, 0, bulk), MS + number * 4 * MS);
    }
    // The others wait behind none of these, and what has no bytes takes no room.
    assert_eq!(arrival(&mut network, 0, parcel(0, KIB as u32)), 2 * MS);
    assert_eq!(arrival(&mut network, 0, 0.into()), MS);
    // 12 ms are too long a queue; the sender is told once.
    let full = |network: &mut Network, now_ns| {
        let fate = network.fate(now_ns, Node(1), Node(2), bulk);
        assert_eq!(fate, Fate::Dropped(DropReason::QueueFull));
        network.notice(now_ns, Node(1), Node(2), bulk, DropReason::QueueFull)
    };
    assert_eq!(full(&mut network, 0), Some(Notice { at_ns: 0, broken: false }));
    assert_eq!(full(&mut network, MS), None);
    assert_eq!(arrival(&mut network, 2 * MS, bulk), MS + 16 * MS);
    assert_eq!(full(&mut network, 3 * MS), None, "it has not been empty since");
    for number in 1..=3 {
        assert_eq!(arrival(&mut network, 100 * MS, bulk), 101 * MS + number * 4 * MS);
    }
    assert_eq!(full(&mut network, 100 * MS), Some(Notice { at_ns: 100 * MS, broken: false }));
    assert_eq!((network.stats().queue_full, network.stats().queued), (4, 8));
}

#[test]
fn a_throttle_narrows_what_is_there() {
    let capacity = |kib, queue_ns| Capacity { bytes_per_s: kib * KIB, queue_ns };
    let config = NetworkConfig { capacity: Some(capacity(1000, MS)), ..NetworkConfig::fixed(MS) };
    let mut network = Network::new(1, config);
    let one = parcel(0, KIB as u32);
    let (from, to) = between(1, 2);
    network.cut(1, Rule::Throttle { from, to, capacity: capacity(100, 50 * MS) });
    assert_eq!(arrival(&mut network, 0, one), 11 * MS);
    assert_eq!(network.fate(0, Node(1), Node(2), one), Fate::Dropped(DropReason::QueueFull));
    network.mend(1);
    assert_eq!(arrival(&mut network, 10 * MS, one), 12 * MS);
}

#[test]
fn a_reset_loses_what_is_on_its_connection_until_the_sender_notices() {
    let mut network = Network::new(1, NetworkConfig { fifo: true, ..NetworkConfig::fixed(MS) });
    let sent_on = |network: &mut Network, now_ns, lane| match network.fate(
        now_ns,
        Node(1),
        Node(2),
        parcel(lane, 100),
    ) {
        Fate::Delivered { connection, .. } => connection,
        Fate::Dropped(reason) => panic!("it was dropped: {reason:?}"),
    };
    let (control, bulk) = (sent_on(&mut network, 0, 0), sent_on(&mut network, 0, 1));
    let noticed_ns = network.reset(10, Node(1), Node(2), 1);
    assert!(noticed_ns > 10, "nobody notices at once");
    assert_eq!(network.arrives(Node(1), Node(2), control), Ok(()));
    assert_eq!(network.arrives(Node(1), Node(2), bulk), Err(DropReason::Reset));
    let early = network.fate(noticed_ns - 1, Node(1), Node(2), parcel(1, 100));
    assert_eq!(early, Fate::Dropped(DropReason::Reset));
    let late = sent_on(&mut network, noticed_ns, 1);
    assert_eq!(network.arrives(Node(1), Node(2), late), Ok(()));
    assert_eq!(network.stats().lost_in_reset, 2);
    // The way back is another connection.
    assert!(matches!(network.fate(11, Node(2), Node(1), parcel(1, 100)), Fate::Delivered { .. }));
}

#[test]
fn a_share_of_the_frames_is_damaged_where_the_fault_is() {
    let mut network = Network::new(1, NetworkConfig::fixed(MS));
    let (from, to) = between(1, 2);
    network.cut(1, Rule::Garble { from, to, share: 0.25 });
    let garbled = |network: &mut Network, from, to, bytes| {
        let damaged = |_: &u32| match network.fate(0, Node(from), Node(to), parcel(0, bytes)) {
            Fate::Delivered { garbled, .. } => garbled.is_some(),
            Fate::Dropped(reason) => panic!("it was dropped: {reason:?}"),
        };
        (0..1000).filter(damaged).count()
    };
    let count = garbled(&mut network, 1, 2, 100);
    assert!((200..300).contains(&count), "{count}");
    assert_eq!(garbled(&mut network, 2, 1, 100), 0);
    assert_eq!(garbled(&mut network, 1, 2, 0), 0, "there are no bytes to damage");
    assert_eq!(network.stats().garbled, count as u64);
    network.mend(1);
    assert_eq!(garbled(&mut network, 1, 2, 100), 0);
}

#[test]
fn some_senders_hear_of_their_losses_and_the_others_do_not() {
    let told = |tells| {
        let mut network = Network::new(1, NetworkConfig { tells, ..NetworkConfig::fixed(MS) });
        network.cut(1, Rule::Isolate(vec![Node(2)]));
        let lost = (0..1000).filter_map(|_| {
            let parcel = parcel(0, 100);
            let Fate::Dropped(reason) = network.fate(0, Node(1), Node(2), parcel) else {
                panic!("it is isolated");
            };
            network.notice(0, Node(1), Node(2), parcel, reason)
        });
        let lost: Vec<Notice> = lost.collect();
        assert!(lost.iter().all(|notice| notice.broken && notice.at_ns > 0));
        lost.len()
    };
    assert_eq!((told(0.0), told(1.0)), (0, 1000));
    assert!((200..300).contains(&told(0.25)), "{}", told(0.25));
}
