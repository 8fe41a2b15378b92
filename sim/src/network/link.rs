//! Everything from one endpoint to another: what faults do to it, and the connections it is made of.
//!
//! As in production, a link has a connection for each lane of messages, and they break and queue up
//! one by one. What is on a connection when it breaks is lost, and so is what its sender still puts
//! into it before it notices.

use super::draws::Weather;
use super::{Connection, Endpoint, NetAction, Parcel};
use crate::rng::{Chance, Purpose, Stream};

/// Connections from one endpoint to another.
pub(super) const LANES: usize = 3;

/// The mean of the time in which a sender notices that a connection is broken, in ns.
const NOTICE_MEAN_NS: u64 = 5_000_000;

/// A message that a fault slows down leaves within this time, in ns: one that is on its way keeps its time
/// when the fault ends, and would hold up what follows it on a link that is whole again.
const SLOWEST_NS: u64 = 3_000_000_000;

/// How many bytes a connection carries, and how many wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes that leave in a second; more than none.
    pub bytes_per_s: u64,
    /// How long a message may have to wait before it leaves, in ns. One that would wait for longer
    /// finds the queue full.
    pub queue_ns: u64,
}

impl Capacity {
    fn takes_ns(self, bytes: u32) -> u64 {
        u64::from(bytes) * 1_000_000_000 / self.bytes_per_s.max(1)
    }

    /// What two bounds at once come to.
    pub(super) fn narrower(self, other: Option<Capacity>) -> Capacity {
        other.map_or(self, |other| Capacity {
            bytes_per_s: self.bytes_per_s.min(other.bytes_per_s),
            queue_ns: self.queue_ns.min(other.queue_ns),
        })
    }
}

/// Everything from one endpoint to another.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// Whether a partition keeps these two apart.
    pub cut: bool,
    /// Until when the link is clogged, in ns.
    pub clogged_until_ns: u64,
    /// The bad weather here, by fault.
    pub weather: Vec<(u32, Weather)>,
    /// How much of what is sent arrives damaged, by fault.
    pub garbles: Vec<(u32, Chance)>,
    /// What faults add to the time that everything takes here, in ns.
    pub lag_ns: u64,
    /// Whatever takes 256 ns on an average link takes so many here.
    pub stretch: u64,
    /// The bound of each connection, if there is one.
    pub capacity: Option<Capacity>,
    /// By lane.
    pub lines: [Line; LANES],
    /// By kind of message.
    pub channels: Vec<Channel>,
}

/// One connection after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    /// Nothing that must keep its order arrives before this, in ns.
    last_at_ns: u64,
    /// When all that was sent has left, in ns, if the capacity is bounded.
    free_at_ns: u64,
    /// The sender was told that the queue is full, and it has not been empty since.
    told: bool,
    /// How many connections broke before this one.
    pub number: u32,
    /// What is sent before this goes into a connection that is broken already, in ns.
    pub broken_until_ns: u64,
}

/// Everything of one kind on one link.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub stream: Stream,
    pub sent: u64,
    pub exceptions: Vec<(u64, NetAction)>,
}

impl Link {
    /// Makes sure that there is a channel for `kind`.
    pub fn open_channel(&mut self, seed: u64, from: Endpoint, to: Endpoint, kind: u8) {
        for kind in self.channels.len() as u64..=u64::from(kind) {
            let stream = Stream::new(seed, Purpose::Message, [from.code(), to.code(), kind]);
            self.channels.push(Channel { stream, sent: 0, exceptions: Vec::new() });
        }
    }

    /// When a message that is sent now has left, in ns; `None` if the queue is full. `usual` is the bound
    /// without faults.
    pub fn leaves(&mut self, now_ns: u64, parcel: Parcel, usual: Option<Capacity>) -> Option<u64> {
        let Some(capacity) = self.capacity.filter(|_| parcel.bytes > 0) else {
            return Some(now_ns);
        };
        let line = &mut self.lines[usize::from(parcel.lane)];
        let begins_ns = line.free_at_ns.max(now_ns);
        if begins_ns - now_ns > capacity.queue_ns {
            return None;
        }
        line.told &= begins_ns > now_ns;
        let usual_ns = usual.map_or(0, |usual| usual.takes_ns(parcel.bytes));
        let takes_ns = capacity.takes_ns(parcel.bytes).min(usual_ns.max(SLOWEST_NS));
        line.free_at_ns = begins_ns + takes_ns;
        Some(line.free_at_ns)
    }

    /// When the last message leaves that waits for its connection, or arrives if it keeps its order, in ns.
    pub fn last_arrival_ns(&self) -> u64 {
        let last = self.lines.iter().map(|line| line.last_at_ns.max(line.free_at_ns));
        last.max().unwrap_or(0)
    }

    /// When a message arrives that would arrive at `at_ns` on an empty connection, in ns. What a
    /// clogged link held up comes out in order.
    pub fn queue(&mut self, at_ns: u64, lane: u8, clogged: bool, ordered: bool) -> u64 {
        if !ordered {
            return at_ns;
        }
        let free_ns = if clogged { self.clogged_until_ns } else { 0 };
        let line = &mut self.lines[usize::from(lane)];
        line.last_at_ns = line.last_at_ns.max(at_ns).max(free_ns);
        line.last_at_ns
    }
}

impl Line {
    /// The connection that messages travel on at present.
    pub fn connection(&self, lane: u8) -> Connection {
        Connection { lane, number: self.number }
    }

    /// Whether the sender must be told that the queue is full: once, until it has been empty.
    pub fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.told, true)
    }

    /// The connection breaks, with all that is queued for it and on its way. Returns when its
    /// sender notices, in ns; until then it fills a broken connection.
    pub fn break_off(&mut self, now_ns: u64, seed: u64, ends: [u64; 2], lane: u8) -> u64 {
        let parts = [ends[0], ends[1], lane.into(), self.number.into()];
        let notice = Stream::new(seed, Purpose::BrokenConnection, parts).at(0);
        let at_ns = now_ns + notice.exponential_ns(NOTICE_MEAN_NS);
        // A sender that has not noticed yet that the last one broke notices both at once.
        let broken_until_ns = self.broken_until_ns.max(at_ns);
        let number = self.number + 1;
        *self = Line { number, broken_until_ns, ..Line::default() };
        broken_until_ns
    }
}

/// How much longer everything takes on this link than on an average one, in 256ths: from as long to
/// `spread` times as long, where each doubling is as likely as the next. The way back differs.
pub(super) fn stretch(seed: u64, spread: u32, from: Endpoint, to: Endpoint) -> u64 {
    let stream = Stream::new(seed, Purpose::LinkLatency, [from.code(), to.code()]);
    let doublings = u64::from(spread.max(1).ilog2());
    let least = 256 << stream.at(0).below(doublings + 1);
    let most = (2 * least).min(256 * u64::from(spread.max(1)));
    least + stream.at(1).below(most - least + 1)
}
