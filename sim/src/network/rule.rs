//! The faults of the network, and what each means for a link.

use super::Endpoint;
use super::draws::Weather;
use super::link::{Capacity, Link};
use crate::rng::Chance;

/// One end of the links that a fault concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Any endpoint.
    Everybody,
    /// These endpoints.
    Only(Vec<Endpoint>),
}

impl Side {
    /// Whether it is a list of endpoints of this kind only.
    pub fn are_all(&self, is_it: impl Fn(&Endpoint) -> bool) -> bool {
        match self {
            Side::Everybody => false,
            Side::Only(endpoints) => endpoints.iter().all(is_it),
        }
    }

    fn contains(&self, endpoint: Endpoint) -> bool {
        match self {
            Side::Everybody => true,
            Side::Only(endpoints) => endpoints.contains(&endpoint),
        }
    }
}

/// A fault of the network that lasts until it is mended.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// Endpoints that share no group cannot talk. Those in no group at all talk to everybody.
    Groups(Vec<Vec<Endpoint>>),
    /// These endpoints can talk to each other only; everybody else, clients included, is cut off.
    Isolate(Vec<Endpoint>),
    /// Messages from one side to the other are lost; the way back is open.
    OneWay {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
    },
    /// As [`Rule::Groups`], but one endpoint talks to everybody.
    Bridge {
        /// Who talks to everybody.
        bridge: Endpoint,
        /// The groups.
        groups: Vec<Vec<Endpoint>>,
    },
    /// The endpoints stand in a circle, and each can talk only to its nearest neighbours, `reach`
    /// of them on each side. Those outside the circle talk to everybody.
    Ring {
        /// The circle, 64 endpoints at most.
        endpoints: Vec<Endpoint>,
        /// How far each can see.
        reach: usize,
    },
    /// What is sent from one side to the other before `until_ns` arrives then, in order. What was
    /// sent before the fault began is not held up.
    Clog {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
        /// When the link is free again, in ns.
        until_ns: u64,
    },
    /// Everything from one side to the other takes longer by the same time.
    Lag {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
        /// How much longer, in ns.
        delay_ns: u64,
    },
    /// Each connection from one side to the other carries only so much.
    Throttle {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
        /// How much.
        capacity: Capacity,
    },
    /// The bytes of some messages arrive changed. Messages without bytes are spared.
    Garble {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
        /// How many, from 0 to 1.
        share: f64,
    },
    /// Losses, duplicates and delays on top of the everyday ones.
    Weather {
        /// The senders.
        from: Side,
        /// The receivers.
        to: Side,
        /// How many messages are lost, from 0 to 1.
        drop: f64,
        /// How many messages arrive twice, from 0 to 1.
        duplicate: f64,
        /// The mean of the exponentially distributed extra latency, in ns.
        extra_mean_ns: u64,
    },
}

impl Rule {
    /// Adds what this rule means to each link. `links` has a row and a column per endpoint.
    pub(super) fn apply(&self, id: u32, endpoints: &[Endpoint], links: &mut [Vec<Link>]) {
        match self {
            Rule::Groups(groups) => separate(endpoints, links, |e| membership(groups, e)),
            Rule::Isolate(members) => {
                separate(endpoints, links, |e| if members.contains(&e) { 1 } else { 2 });
            }
            Rule::Bridge { bridge, groups } => separate(endpoints, links, |e| {
                if e == *bridge { u64::MAX } else { membership(groups, e) }
            }),
            Rule::Ring { endpoints: ring, reach } => {
                separate(endpoints, links, |e| neighbourhoods(ring, *reach, e));
            }
            Rule::OneWay { from, to } => {
                between(from, to, endpoints, links, |link| link.cut = true);
            }
            Rule::Clog { from, to, until_ns } => between(from, to, endpoints, links, |link| {
                link.clogged_until_ns = link.clogged_until_ns.max(*until_ns);
            }),
            Rule::Lag { from, to, delay_ns } => between(from, to, endpoints, links, |link| {
                link.lag_ns = link.lag_ns.saturating_add(*delay_ns);
            }),
            Rule::Throttle { from, to, capacity } => between(from, to, endpoints, links, |link| {
                link.capacity = Some(capacity.narrower(link.capacity));
            }),
            Rule::Garble { from, to, share } => {
                let share = Chance::new(*share);
                between(from, to, endpoints, links, |link| link.garbles.push((id, share)));
            }
            Rule::Weather { from, to, drop, duplicate, extra_mean_ns } => {
                let weather = Weather {
                    drop: Chance::new(*drop),
                    duplicate: Chance::new(*duplicate),
                    extra_mean_ns: *extra_mean_ns,
                };
                between(from, to, endpoints, links, |link| link.weather.push((id, weather)));
            }
        }
    }
}

/// Cuts the links between endpoints that are both in some group but in no common one. `groups_of`
/// has one bit per group.
fn separate(endpoints: &[Endpoint], links: &mut [Vec<Link>], groups_of: impl Fn(Endpoint) -> u64) {
    let groups: Vec<u64> = endpoints.iter().map(|&endpoint| groups_of(endpoint)).collect();
    for (row, &a) in links.iter_mut().zip(&groups) {
        for (link, &b) in row.iter_mut().zip(&groups) {
            link.cut |= a != 0 && b != 0 && a & b == 0;
        }
    }
}

/// Does `change` to each link that leads from one side to the other.
fn between(
    from: &Side,
    to: &Side,
    endpoints: &[Endpoint],
    links: &mut [Vec<Link>],
    mut change: impl FnMut(&mut Link),
) {
    let receives: Vec<bool> = endpoints.iter().map(|&endpoint| to.contains(endpoint)).collect();
    for (row, &sender) in links.iter_mut().zip(endpoints) {
        if from.contains(sender) {
            row.iter_mut()
                .zip(&receives)
                .filter(|(_, receives)| **receives)
                .for_each(|(link, _)| change(link));
        }
    }
}

fn membership(groups: &[Vec<Endpoint>], endpoint: Endpoint) -> u64 {
    assert!(groups.len() <= 64, "a partition has at most 64 groups, not {}", groups.len());
    let bits = groups.iter().enumerate().filter(|(_, members)| members.contains(&endpoint));
    bits.fold(0, |set, (group, _)| set | 1 << group)
}

/// A ring is a partition into overlapping groups: every run of `reach + 1` neighbours is one, so
/// two endpoints share a group exactly if at most `reach` steps lie between them.
fn neighbourhoods(ring: &[Endpoint], reach: usize, endpoint: Endpoint) -> u64 {
    assert!(ring.len() <= 64, "a ring has at most 64 endpoints, not {}", ring.len());
    let Some(position) = ring.iter().position(|&member| member == endpoint) else { return 0 };
    (0..=reach.min(ring.len() - 1))
        .fold(0, |set, back| set | 1 << ((position + ring.len() - back) % ring.len()))
}
