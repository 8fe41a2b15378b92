//! The simulated network: decides what becomes of each message.
//!
//! The network is passive. The simulation asks for a message's [`Fate`] when it is sent, delivers it at
//! the time it is told, and asks [`Network::arrives`] right before, because a partition also cuts
//! off what is on its way.
//!
//! The draws for a message are keyed by its link, its kind and its number among the messages of
//! that link and kind; those of bad weather also by the fault. So neither another link nor another
//! fault can shift them. Faults overlap freely: a message passes only if every one lets it pass.
//!
//! What each fault means for a link is worked out when the fault begins or ends, never per message.
//!
//! - `rule.rs` has the faults, and what each means for a link,
//! - `link.rs` is a link with its connections,
//! - `draws.rs` are the draws that belong to one message.
//!
//! Left out: what damage does to the bytes of a message, which only the simulation can know.

mod draws;
mod link;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use self::draws::{
    DRAW_DUPLICATE, DRAW_LATENCY, DRAW_LOSS, DRAW_SECOND_LATENCY, Excepted, Message, Troubles,
};
use self::link::Link;
use crate::rng::{self, Chance, Draw};
pub use link::Capacity;
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
    /// Whether each connection keeps its messages in order, as those of TCP do. Otherwise they
    /// overtake each other whenever their latencies say so.
    pub fifo: bool,
    /// The slowest link takes up to this many times as long as the fastest. At least 1.
    pub spread: u32,
    /// The bound of each connection, if there is one.
    pub capacity: Option<Capacity>,
    /// How many messages arrive with damaged bytes.
    pub garble: f64,
    /// Of how many lost messages their sender hears.
    pub tells: f64,
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
            spread: 1,
            capacity: None,
            garble: 0.0,
            tells: 0.0,
        }
    }
}

/// What the network is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The kind of message; numbered upwards from 0 without large gaps.
    pub kind: u8,
    /// Which of the connections to the receiver it travels on: 0, 1 or 2.
    pub lane: u8,
    /// About how many bytes it has; 0 for what takes no room and cannot be damaged.
    pub bytes: u32,
}

/// A message of this kind without bytes, on the first lane.
impl From<u8> for Parcel {
    fn from(kind: u8) -> Self {
        Parcel { kind, lane: 0, bytes: 0 }
    }
}

/// The connection that a message was sent on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Which of those from its sender to its receiver.
    pub lane: u8,
    /// How many broke before it on this lane.
    pub number: u32,
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
        /// Whether its bytes are damaged on the way; how, follows from the draw.
        garbled: Option<Draw>,
        /// What it travels on.
        connection: Connection,
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
    /// The queue for a connection is full.
    QueueFull,
    /// Its connection broke.
    Reset,
}

/// What the sender of a lost message is told by its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// When, in ns.
    pub at_ns: u64,
    /// Whether a connection is found to be broken, with all that was on it.
    pub broken: bool,
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
    /// Dropped for [`DropReason::QueueFull`].
    pub queue_full: u64,
    /// Dropped for [`DropReason::Reset`]: on their way, or before their sender noticed.
    pub lost_in_reset: u64,
    /// Damaged on their way.
    pub garbled: u64,
    /// Made slower by a fault that slows down a link.
    pub lagged: u64,
    /// Queued behind others on a connection whose capacity is bounded.
    pub queued: u64,
}

/// Decides what becomes of each message.
#[derive(Clone, Debug)]
pub struct Network {
    seed: u64,
    config: NetworkConfig,
    tail: Chance,
    drop: Chance,
    duplicate: Chance,
    garble: Chance,
    tells: Chance,
    /// The position of each endpoint in `endpoints` and in both dimensions of `links`, by its code:
    /// endpoints have small numbers.
    index: Vec<Option<usize>>,
    endpoints: Vec<Endpoint>,
    links: Vec<Vec<Link>>,
    rules: BTreeMap<u32, Rule>,
    /// Counts the changes of what faults mean for links.
    version: u64,
    stats: NetworkStats,
    /// What chance has done to single messages, if somebody wants to know.
    noted: Option<Vec<NetRule>>,
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
            garble: Chance::new(config.garble),
            tells: Chance::new(config.tells),
            config,
            index: Vec::new(),
            endpoints: Vec::new(),
            links: Vec::new(),
            rules: BTreeMap::new(),
            version: 0,
            stats: NetworkStats::default(),
            noted: None,
        }
    }

    /// From now on, chance decides as in the fork with this salt; see [`rng::fork`]. Links stay as
    /// fast as they are.
    pub(crate) fn fork(&mut self, salt: u64) {
        self.seed = rng::fork(self.seed, salt);
        for link in self.links.iter_mut().flatten() {
            link.channels.iter_mut().for_each(|channel| channel.stream.fork(salt));
        }
    }

    /// From now on, what chance does to single messages is noted: as the exceptions that would do
    /// the same without chance.
    pub fn note_chances(&mut self) {
        self.noted.get_or_insert_default();
    }

    /// What was noted since [`note_chances`](Network::note_chances), in the order in which the
    /// messages were sent.
    pub fn take_noted(&mut self) -> Vec<NetRule> {
        self.noted.take().unwrap_or_default()
    }

    fn note(&mut self, from: Endpoint, to: Endpoint, kind: u8, number: u64, action: NetAction) {
        if let Some(noted) = &mut self.noted {
            noted.push(NetRule { action, from, to, kind, nth: number + 1 });
        }
    }

    /// Decides what becomes of a message that is sent at `now_ns`.
    ///
    /// # Panics
    /// If an endpoint sends to itself, or on a lane that does not exist.
    pub fn fate(
        &mut self,
        now_ns: u64,
        from: Endpoint,
        to: Endpoint,
        parcel: impl Into<Parcel>,
    ) -> Fate {
        let parcel = parcel.into();
        let Parcel { kind, lane, .. } = parcel;
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
        let stream = channel.stream.clone();
        let message = Message { stream: &stream, number };
        let excepted = Excepted::of(&channel.exceptions, number + 1);
        let weather = Troubles::of(&link.weather, self.seed, from, to, kind, number);
        if excepted.dropped {
            self.stats.excepted += 1;
            return Fate::Dropped(DropReason::Exception);
        }
        if message.happens(self.drop, DRAW_LOSS) {
            self.stats.lost += 1;
            self.note(from, to, kind, number, NetAction::Drop);
            return Fate::Dropped(DropReason::Loss);
        }
        if weather.dropped {
            self.stats.lost_to_weather += 1;
            self.note(from, to, kind, number, NetAction::Drop);
            return Fate::Dropped(DropReason::Weather);
        }
        let line = &link.lines[usize::from(lane)];
        let connection = line.connection(lane);
        if now_ns < line.broken_until_ns {
            self.stats.lost_in_reset += 1;
            return Fate::Dropped(DropReason::Reset);
        }
        let Some(leaves_ns) = link.leaves(now_ns, parcel, self.config.capacity) else {
            self.stats.queue_full += 1;
            return Fate::Dropped(DropReason::QueueFull);
        };

        let extra_ns =
            excepted.delay_ns.saturating_add(weather.delay_ns).saturating_add(link.lag_ns);
        let doubled = excepted.duplicated
            || weather.duplicated
            || message.happens(self.duplicate, DRAW_DUPLICATE);
        let departs_ns = leaves_ns.saturating_add(extra_ns);
        let latency = |slot| message.latency_ns(&self.config, link.stretch, self.tail, slot);
        let first = latency(DRAW_LATENCY);
        let second = doubled.then(|| departs_ns.saturating_add(latency(DRAW_SECOND_LATENCY)));
        let clogged = now_ns < link.clogged_until_ns;
        let ordered = clogged || self.config.fifo;
        let at_ns = link.queue(departs_ns.saturating_add(first), lane, clogged, ordered);
        let again_ns = second.map(|at| link.queue(at, lane, clogged, ordered));
        let garbled = match parcel.bytes {
            0 => None,
            _ => draws::garbled(link, self.garble, self.seed, (from, to), kind, number),
        };
        self.stats.duplicated += u64::from(doubled);
        self.stats.clogged += u64::from(clogged);
        self.stats.garbled += u64::from(garbled.is_some());
        self.stats.lagged += u64::from(link.lag_ns > 0);
        self.stats.queued += u64::from(leaves_ns > now_ns);
        if doubled && !excepted.duplicated {
            self.note(from, to, kind, number, NetAction::Duplicate);
        }
        let by_chance_ns = weather.delay_ns + first.saturating_sub(self.config.latency_min_ns);
        if by_chance_ns > 0 {
            self.note(from, to, kind, number, NetAction::DelayNs(by_chance_ns));
        }
        Fate::Delivered { at_ns, again_ns, clogged, garbled, connection }
    }

    /// What the sender hears of a message that was just dropped for this reason.
    ///
    /// # Panics
    /// If the endpoint sends to itself.
    pub fn notice(
        &mut self,
        now_ns: u64,
        from: Endpoint,
        to: Endpoint,
        parcel: Parcel,
        reason: DropReason,
    ) -> Option<Notice> {
        let (a, b) = self.positions(from, to);
        let link = &mut self.links[a][b];
        match reason {
            DropReason::Loss | DropReason::Weather | DropReason::Partition => {
                let number = link.channels[usize::from(parcel.kind)].sent - 1;
                let after = draws::told(self.tells, self.seed, (from, to), parcel.kind, number);
                after.map(|after_ns| Notice { at_ns: now_ns + after_ns, broken: true })
            }
            DropReason::QueueFull => {
                let is_news = link.lines[usize::from(parcel.lane)].is_news();
                is_news.then_some(Notice { at_ns: now_ns, broken: false })
            }
            // Who notices that a connection broke is told by whoever broke it.
            DropReason::Exception | DropReason::Reset => None,
        }
    }

    /// Whether a message that was on its way gets through at this moment. Counts it if not.
    ///
    /// # Errors
    /// What stops it.
    ///
    /// # Panics
    /// If an endpoint sends to itself.
    pub fn arrives(
        &mut self,
        from: Endpoint,
        to: Endpoint,
        connection: Connection,
    ) -> Result<(), DropReason> {
        let (a, b) = self.positions(from, to);
        let link = &self.links[a][b];
        if link.cut {
            self.stats.cut_in_flight += 1;
            return Err(DropReason::Partition);
        }
        if link.lines[usize::from(connection.lane)].number != connection.number {
            self.stats.lost_in_reset += 1;
            return Err(DropReason::Reset);
        }
        Ok(())
    }

    /// Breaks the connection that is there at `now_ns`: all that is queued for it and on its way is
    /// lost. Says when its sender notices, in ns; what it sends before is lost, too.
    ///
    /// # Panics
    /// If an endpoint is connected to itself, or there is no such lane.
    pub fn reset(&mut self, now_ns: u64, from: Endpoint, to: Endpoint, lane: u8) -> u64 {
        let (a, b) = self.positions(from, to);
        let ends = [from.code(), to.code()];
        self.links[a][b].lines[usize::from(lane)].break_off(now_ns, self.seed, ends, lane)
    }

    /// Whether some fault has this effect at present.
    pub fn suffers(&self, is_it: impl Fn(&Rule) -> bool) -> bool {
        self.rules().any(is_it)
    }

    /// The faults that it suffers from.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// Another number after each change of the faults or of who takes part.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The links on which nothing passes at present, among those who have sent or received.
    pub fn cut_links(&self) -> impl Iterator<Item = (Endpoint, Endpoint)> + '_ {
        let ends = |(from, row): (usize, &'_ Vec<Link>)| {
            let cut = (0..row.len()).filter(|to| row[*to].cut && *to != from);
            cut.map(move |to| (from, to)).collect::<Vec<_>>()
        };
        let pairs = self.links.iter().enumerate().flat_map(ends);
        pairs.map(|(from, to)| (self.endpoints[from], self.endpoints[to]))
    }

    /// Returns whether both ends are known and a fault cuts the link from the first to the second.
    pub fn is_cut(&self, from: Endpoint, to: Endpoint) -> bool {
        self.link(from, to).is_some_and(|link| link.cut)
    }

    /// When the last message from one end to the other leaves a bounded connection, or arrives on one
    /// that keeps the order, in ns: nothing that is sent on its connection now arrives before that.
    pub fn last_arrival_ns(&self, from: Endpoint, to: Endpoint) -> u64 {
        self.link(from, to).map_or(0, Link::last_arrival_ns)
    }

    /// No message is lost, duplicated or damaged by chance any more; rules, latencies and
    /// capacities stay.
    pub fn calm(&mut self) {
        (self.drop, self.duplicate, self.garble) = (Chance::NEVER, Chance::NEVER, Chance::NEVER);
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

    /// Whether the fault with this id is active.
    pub fn is_active(&self, id: u32) -> bool {
        self.rules.contains_key(&id)
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
        let known = self.position(from).zip(self.position(to));
        known.unwrap_or_else(|| (self.admit(from), self.admit(to)))
    }

    fn link(&self, from: Endpoint, to: Endpoint) -> Option<&Link> {
        Some(&self.links[self.position(from)?][self.position(to)?])
    }

    fn position(&self, endpoint: Endpoint) -> Option<usize> {
        *self.index.get(endpoint.code() as usize)?
    }

    fn admit(&mut self, endpoint: Endpoint) -> usize {
        if let Some(position) = self.position(endpoint) {
            return position;
        }
        let (position, code) = (self.endpoints.len(), endpoint.code() as usize);
        self.index.resize(self.index.len().max(code + 1), None);
        self.index[code] = Some(position);
        self.endpoints.push(endpoint);
        self.links.push(Vec::new());
        for row in &mut self.links {
            row.resize_with(position + 1, Link::default);
        }
        for (other, &with) in self.endpoints.iter().enumerate() {
            let stretch = |from, to| link::stretch(self.seed, self.config.spread, from, to);
            self.links[other][position].stretch = stretch(with, endpoint);
            self.links[position][other].stretch = stretch(endpoint, with);
        }
        self.rebuild();
        position
    }

    /// Works out what the active rules mean for each link.
    fn rebuild(&mut self) {
        self.version += 1;
        for link in self.links.iter_mut().flatten() {
            link.cut = false;
            link.clogged_until_ns = 0;
            link.weather.clear();
            link.garbles.clear();
            link.lag_ns = 0;
            link.capacity = self.config.capacity;
        }
        for (&id, rule) in &self.rules {
            rule.apply(id, &self.endpoints, &mut self.links);
        }
    }
}
