//! The draws that belong to one message.

use super::link::Link;
use super::{Endpoint, NetAction, NetworkConfig};
use crate::rng::{Chance, Draw, Purpose, Stream};

/// Draws that belong to one message. Each has a slot, used or not, so that none shifts another.
const DRAWS: u64 = 8;
pub(super) const DRAW_LOSS: u64 = 0;
pub(super) const DRAW_DUPLICATE: u64 = 1;
pub(super) const DRAW_LATENCY: u64 = 2;
pub(super) const DRAW_SECOND_LATENCY: u64 = 5;

/// What a spell of bad weather does to messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub drop: Chance,
    pub duplicate: Chance,
    pub extra_mean_ns: u64,
}

/// One message, as far as its draws are concerned.
pub(super) struct Message<'a> {
    pub stream: &'a Stream,
    pub number: u64,
}

impl Message<'_> {
    pub fn happens(&self, chance: Chance, slot: u64) -> bool {
        !chance.is_never() && chance.hit(self.stream.at(self.number * DRAWS + slot))
    }

    /// Uses three slots, from `slot`.
    pub fn latency_ns(&self, config: &NetworkConfig, stretch: u64, tail: Chance, slot: u64) -> u64 {
        let mean = config.latency_mean_extra_ns;
        let extra = if self.happens(tail, slot + 1) {
            let draw = self.stream.at(self.number * DRAWS + slot + 2);
            draw.pareto_ns(mean, mean.saturating_mul(config.tail_factor))
        } else {
            self.stream.at(self.number * DRAWS + slot).exponential_ns(mean)
        };
        let usual = config.latency_min_ns.saturating_add(extra);
        // The spread stays out of the way of those who do not use it: their times are exact.
        if stretch == 256 { usual } else { usual.saturating_mul(stretch) >> 8 }
    }
}

/// What the exceptions for one message come to.
#[derive(Default)]
pub(super) struct Excepted {
    pub dropped: bool,
    pub duplicated: bool,
    pub delay_ns: u64,
}

impl Excepted {
    pub fn of(exceptions: &[(u64, NetAction)], nth: u64) -> Self {
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
pub(super) struct Troubles {
    pub dropped: bool,
    pub duplicated: bool,
    pub delay_ns: u64,
}

impl Troubles {
    pub fn of(
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

/// Where the draws of the everyday rates stand among those of the faults.
const EVERY_DAY: u64 = u64::MAX;

/// Whether this message arrives damaged; what the damage is follows from the draw. `usual` is the
/// everyday rate.
pub(super) fn garbled(
    link: &Link,
    usual: Chance,
    seed: u64,
    (from, to): (Endpoint, Endpoint),
    kind: u8,
    number: u64,
) -> Option<Draw> {
    if usual.is_never() && link.garbles.is_empty() {
        return None;
    }
    let faults = link.garbles.iter().map(|(fault, share)| (u64::from(*fault), *share));
    let every_day = Some((EVERY_DAY, usual)).filter(|_| !usual.is_never());
    every_day.into_iter().chain(faults).find_map(|(fault, share)| {
        let parts = [fault, from.code(), to.code(), u64::from(kind)];
        let stream = Stream::new(seed, Purpose::Garble, parts);
        share.hit(stream.at(2 * number)).then(|| stream.at(2 * number + 1))
    })
}

/// The mean of the time in which a sender hears that a message was lost, in ns.
const TOLD_MEAN_NS: u64 = 20_000_000;

/// After what time the sender of a lost message hears of it, in ns, if it does.
pub(super) fn told(
    share: Chance,
    seed: u64,
    (from, to): (Endpoint, Endpoint),
    kind: u8,
    number: u64,
) -> Option<u64> {
    if share.is_never() {
        return None;
    }
    let stream = Stream::new(seed, Purpose::LossTold, [from.code(), to.code(), u64::from(kind)]);
    share.hit(stream.at(2 * number)).then(|| stream.at(2 * number + 1).exponential_ns(TOLD_MEAN_NS))
}
