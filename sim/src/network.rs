//! The simulated network: decides what becomes of each message.
//!
//! The network is passive. The world asks for a message's [`Fate`] when it is sent, delivers it at
//! the time it is told, and asks [`Network::arrives`] right before, because a partition also cuts
//! off what is on its way.
//!
//! The draws for a message are keyed by its link, its kind and its number among the messages of
//! that link and kind; those of bad weather also by the fault. So neither another link nor another
//! fault can shift them. Faults overlap freely: a message passes only if every one lets it pass.
//!
//! What each fault means for a link is worked out when the fault begins or ends, never per message.
//! Left out: the capacity of a path, and damage to bytes, which needs encoded messages.

mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use rustc_hash::FxHashMap;

use crate::rng::{Chance, Purpose, Stream};
pub use rule::{Rule, Side};

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A member of the cluster, by its id.
    Node(u64),
    /// A client, by its number.
    Client(u64),
}

impl Endpoint {
    /// A number of its own for each endpoint, to key streams with.
    fn code(self) -> u64 {
        match self {
            Endpoint::Node(id) => id << 1,
            Endpoint::Client(number) => number << 1 | 1,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Node(id) => write!(f, "n{id}"),
            Endpoint::Client(number) => write!(f, "c{number}"),
        }
    }
}

/// What the network is like on a fair day. Probabilities are from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// Every message takes at least this long, in ns.
    pub latency_min_ns: u64,
    /// The mean of the exponentially distributed time that comes on top, in ns.
    pub latency_mean_extra_ns: u64,
    /// How many messages take much longer: their extra time follows a Pareto distribution instead.
    pub tail_probability: f64,
    /// The longest extra time in the tail, as a multiple of the mean.
    pub tail_factor: u64,
    /// How many messages are lost.
    pub drop: f64,
    /// How many messages arrive twice.
    pub duplicate: f64,
    /// Whether each link keeps its messages in order, as a TCP connection does. Otherwise they
    /// overtake each other whenever their latencies say so.
    pub fifo: bool,
}

impl NetworkConfig {
    /// Nothing is lost, and every message takes `latency_ns`: where shrinking wants to end.
    pub fn fixed(latency_ns: u64) -> Self {
        NetworkConfig {
            latency_min_ns: latency_ns,
            latency_mean_extra_ns: 0,
            tail_probability: 0.0,
            tail_factor: 1,
            drop: 0.0,
            duplicate: 0.0,
            fifo: false,
        }
    }
}

/// An exception for one single message. It comes on top of what is drawn for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetRule {
    /// What to do with the message.
    pub action: NetAction,
    /// Its sender.
    pub from: Endpoint,
    /// Its receiver.
    pub to: Endpoint,
    /// Its kind, as handed to [`Network::fate`].
    pub kind: u8,
    /// Its number among the messages of this kind on this link, counted from 1.
    pub nth: u64,
}

/// What a [`NetRule`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetAction {
    /// The message is lost.
    Drop,
    /// The message arrives twice.
    Duplicate,
    /// The message takes this much longer, in ns.
    DelayNs(u64),
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, provided that [`Network::arrives`] still says so by then.
    Delivered {
        /// When, in ns.
        at_ns: u64,
        /// When a second copy arrives, in ns.
        again_ns: Option<u64>,
        /// Whether a clogged link held it up.
        clogged: bool,
    },
    /// It never arrives.
    Dropped(DropReason),
}

/// Why a message never arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// The everyday loss of the network.
    Loss,
    /// A spell of bad weather.
    Weather,
    /// A partition.
    Partition,
    /// A [`NetRule`].
    Exception,
}

/// Counts which prove that faults had an effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Messages handed to the network.
    pub sent: u64,
    /// Dropped for [`DropReason::Loss`].
    pub lost: u64,
    /// Dropped for [`DropReason::Weather`].
    pub lost_to_weather: u64,
    /// Dropped for [`DropReason::Partition`] when they were sent.
    pub partitioned: u64,
    /// Dropped on their way, by a partition that began after they were sent.
    pub cut_in_flight: u64,
    /// Dropped for [`DropReason::Exception`].
    pub excepted: u64,
    /// Delivered twice.
    pub duplicated: u64,
    /// Held up by a clogged link.
    pub clogged: u64,
}

/// Everything from one endpoint to another.
#[derive(Clone, Debug, Default)]
struct Link {
    /// Whether a partition keeps these two apart.
    cut: bool,
    /// Until when the link is clogged, in ns.
    clogged_until_ns: u64,
    /// The bad weather here, by fault.
    weather: Vec<(u32, Weather)>,
    /// Nothing that must keep its order arrives before this, in ns.
    last_at_ns: u64,
    /// By kind of message.
    channels: Vec<Channel>,
}

/// Everything of one kind on one link.
#[derive(Clone, Debug)]
struct Channel {
    stream: Stream,
    sent: u64,
    exceptions: Vec<(u64, NetAction)>,
}

#[derive(Clone, Copy, Debug)]
struct Weather {
    drop: Chance,
    duplicate: Chance,
    extra_mean_ns: u64,
}

/// Draws that belong to one message. Each has a slot, used or not, so that none shifts another.
const DRAWS: u64 = 8;
const DRAW_LOSS: u64 = 0;
const DRAW_DUPLICATE: u64 = 1;
const DRAW_LATENCY: u64 = 2;
const DRAW_SECOND_LATENCY: u64 = 5;

/// Decides what becomes of each message.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    config: NetworkConfig,
    tail: Chance,
    drop: Chance,
    duplicate: Chance,
    /// The position of each endpoint in `endpoints` and in both dimensions of `links`.
    index: FxHashMap<Endpoint, usize>,
    endpoints: Vec<Endpoint>,
    links: Vec<Vec<Link>>,
    rules: BTreeMap<u32, Rule>,
    stats: NetworkStats,
}

impl Network {
    /// A network without faults, apart from what `config` says about every day.
    ///
    /// # Panics
    /// If a probability in `config` is not from 0 to 1.
    pub fn new(seed: u64, config: NetworkConfig) -> Self {
        Network {
            seed,
            tail: Chance::new(config.tail_probability),
            drop: Chance::new(config.drop),
            duplicate: Chance::new(config.duplicate),
            config,
            index: FxHashMap::default(),
            endpoints: Vec::new(),
            links: Vec::new(),
            rules: BTreeMap::new(),
            stats: NetworkStats::default(),
        }
    }

    /// Decides what becomes of a message that is sent at `now_ns`. `kind` numbers the kinds of
    /// messages, upwards from 0 without large gaps.
    ///
    /// # Panics
    /// If an endpoint sends to itself.
    pub fn fate(&mut self, now_ns: u64, from: Endpoint, to: Endpoint, kind: u8) -> Fate {
        self.stats.sent += 1;
        let (a, b) = self.positions(from, to);
        let link = &mut self.links[a][b];
        link.open_channel(self.seed, from, to, kind);
        let channel = &mut link.channels[usize::from(kind)];
        let number = channel.sent;
        channel.sent += 1;

        if link.cut {
            self.stats.partitioned += 1;
            return Fate::Dropped(DropReason::Partition);
        }
        let message = Message { stream: &channel.stream, number };
        let excepted = Excepted::of(&channel.exceptions, number + 1);
        let weather = Troubles::of(&link.weather, self.seed, from, to, kind, number);
        if excepted.dropped {
            self.stats.excepted += 1;
            return Fate::Dropped(DropReason::Exception);
        }
        if message.happens(self.drop, DRAW_LOSS) {
            self.stats.lost += 1;
            return Fate::Dropped(DropReason::Loss);
        }
        if weather.dropped {
            self.stats.lost_to_weather += 1;
            return Fate::Dropped(DropReason::Weather);
        }

        let extra_ns = excepted.delay_ns.saturating_add(weather.delay_ns);
        let doubled = excepted.duplicated
            || weather.duplicated
            || message.happens(self.duplicate, DRAW_DUPLICATE);
        let departs_ns = now_ns.saturating_add(extra_ns);
        let first = message.latency_ns(&self.config, self.tail, DRAW_LATENCY);
        let second = doubled
            .then(|| message.latency_ns(&self.config, self.tail, DRAW_SECOND_LATENCY))
            .map(|latency| departs_ns.saturating_add(latency));
        let clogged = now_ns < link.clogged_until_ns;
        let ordered = clogged || self.config.fifo;
        let at_ns = link.queue(departs_ns.saturating_add(first), clogged, ordered);
        let again_ns = second.map(|at| link.queue(at, clogged, ordered));
        self.stats.duplicated += u64::from(doubled);
        self.stats.clogged += u64::from(clogged);
        Fate::Delivered { at_ns, again_ns, clogged }
    }

    /// Whether a message that was on its way gets through at this moment. Counts it if not.
    ///
    /// # Panics
    /// If an endpoint sends to itself.
    pub fn arrives(&mut self, from: Endpoint, to: Endpoint) -> bool {
        let (a, b) = self.positions(from, to);
        let cut = self.links[a][b].cut;
        self.stats.cut_in_flight += u64::from(cut);
        !cut
    }

    /// No message is lost or duplicated by chance any more; rules and latencies stay.
    pub fn calm(&mut self) {
        (self.drop, self.duplicate) = (Chance::new(0.0), Chance::new(0.0));
    }

    /// Begins the fault with this id. If it is active already, the new rule replaces the old one.
    ///
    /// # Panics
    /// If the rule makes no sense: a probability that is not from 0 to 1, or more than 64 groups.
    pub fn cut(&mut self, id: u32, rule: Rule) {
        self.rules.insert(id, rule);
        self.rebuild();
    }

    /// Ends the fault with this id. Returns whether it was active.
    pub fn mend(&mut self, id: u32) -> bool {
        let active = self.rules.remove(&id).is_some();
        if active {
            self.rebuild();
        }
        active
    }

    /// Makes an exception for one message that is yet to be sent.
    ///
    /// # Panics
    /// If an endpoint sends to itself, or if messages are numbered from 0.
    pub fn except(&mut self, rule: NetRule) {
        assert!(rule.nth > 0, "messages are numbered from 1");
        let (a, b) = self.positions(rule.from, rule.to);
        let link = &mut self.links[a][b];
        link.open_channel(self.seed, rule.from, rule.to, rule.kind);
        link.channels[usize::from(rule.kind)].exceptions.push((rule.nth, rule.action));
    }

    /// What has happened so far.
    pub fn stats(&self) -> &NetworkStats {
        &self.stats
    }

    fn positions(&mut self, from: Endpoint, to: Endpoint) -> (usize, usize) {
        assert!(from != to, "{from} sends a message to itself");
        match (self.index.get(&from), self.index.get(&to)) {
            (Some(&a), Some(&b)) => (a, b),
            _ => (self.admit(from), self.admit(to)),
        }
    }

    fn admit(&mut self, endpoint: Endpoint) -> usize {
        if let Some(&position) = self.index.get(&endpoint) {
            return position;
        }
        let position = self.endpoints.len();
        self.index.insert(endpoint, position);
        self.endpoints.push(endpoint);
        self.links.push(Vec::new());
        for row in &mut self.links {
            row.resize_with(position + 1, Link::default);
        }
        self.rebuild();
        position
    }

    /// Works out what the active rules mean for each link.
    fn rebuild(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.cut = false;
            link.clogged_until_ns = 0;
            link.weather.clear();
        }
        for (&id, rule) in &self.rules {
            rule.apply(id, &self.endpoints, &mut self.links);
        }
    }
}

impl Link {
    /// Makes sure that there is a channel for `kind`.
    fn open_channel(&mut self, seed: u64, from: Endpoint, to: Endpoint, kind: u8) {
        for kind in self.channels.len() as u64..=u64::from(kind) {
            let stream = Stream::new(seed, Purpose::Message, [from.code(), to.code(), kind]);
            self.channels.push(Channel { stream, sent: 0, exceptions: Vec::new() });
        }
    }

    /// When a message arrives that would arrive at `at_ns` on an empty link, in ns. What a clogged
    /// link held up comes out in order.
    fn queue(&mut self, at_ns: u64, clogged: bool, ordered: bool) -> u64 {
        if !ordered {
            return at_ns;
        }
        let free_ns = if clogged { self.clogged_until_ns } else { 0 };
        self.last_at_ns = self.last_at_ns.max(at_ns).max(free_ns);
        self.last_at_ns
    }
}

/// One message, as far as its draws are concerned.
struct Message<'a> {
    stream: &'a Stream,
    number: u64,
}

impl Message<'_> {
    fn happens(&self, chance: Chance, slot: u64) -> bool {
        !chance.is_never() && chance.hit(self.stream.at(self.number * DRAWS + slot))
    }

    /// Uses three slots, from `slot`.
    fn latency_ns(&self, config: &NetworkConfig, tail: Chance, slot: u64) -> u64 {
        let mean = config.latency_mean_extra_ns;
        let extra = if self.happens(tail, slot + 1) {
            let draw = self.stream.at(self.number * DRAWS + slot + 2);
            draw.pareto_ns(mean, mean.saturating_mul(config.tail_factor))
        } else {
            self.stream.at(self.number * DRAWS + slot).exponential_ns(mean)
        };
        config.latency_min_ns.saturating_add(extra)
    }
}

/// What the exceptions for one message come to.
#[derive(Default)]
struct Excepted {
    dropped: bool,
    duplicated: bool,
    delay_ns: u64,
}

impl Excepted {
    fn of(exceptions: &[(u64, NetAction)], nth: u64) -> Self {
        let mut sum = Excepted::default();
        for (_, action) in exceptions.iter().filter(|(number, _)| *number == nth) {
            match action {
                NetAction::Drop => sum.dropped = true,
                NetAction::Duplicate => sum.duplicated = true,
                NetAction::DelayNs(ns) => sum.delay_ns = sum.delay_ns.saturating_add(*ns),
            }
        }
        sum
    }
}

/// What bad weather does to one message.
#[derive(Default)]
struct Troubles {
    dropped: bool,
    duplicated: bool,
    delay_ns: u64,
}

impl Troubles {
    fn of(
        weather: &[(u32, Weather)],
        seed: u64,
        from: Endpoint,
        to: Endpoint,
        kind: u8,
        number: u64,
    ) -> Self {
        let mut sum = Troubles::default();
        for (fault, weather) in weather {
            let parts = [u64::from(*fault), from.code(), to.code(), u64::from(kind)];
            let stream = Stream::new(seed, Purpose::Weather, parts);
            let message = Message { stream: &stream, number };
            sum.dropped |= message.happens(weather.drop, DRAW_LOSS);
            sum.duplicated |= message.happens(weather.duplicate, DRAW_DUPLICATE);
            let extra = stream.at(number * DRAWS + DRAW_LATENCY);
            let extra_ns = extra.exponential_ns(weather.extra_mean_ns);
            sum.delay_ns = sum.delay_ns.saturating_add(extra_ns);
        }
        sum
    }
}
