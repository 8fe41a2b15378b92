//! Random draws for plans: few kinds, in integers, the same on every machine.
//!
//! Each purpose has a ChaCha stream of its own, so that a change in how one part of a plan is
//! drawn does not shift the others. The distributions are written out here: those of the `rand`
//! crate may change between its versions and depend on the width of `usize`.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What is drawn. The numbers name the streams and must never change.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Shape = 1,
    Timing = 2,
    Weather = 3,
    Clients = 4,
    Times = 5,
    Operations = 6,
    Membership = 7,
    Intensity = 8,
    Horizon = 9,
    Batching = 10,
    Paths = 11,
    Core = 17,
    Keys = 13,
    Churn = 14,
    Hands = 15,
    Replacement = 12,
    BeyondQuorum = 16,
    Priorities = 18,
    Mutation = 19,
    Weight = 20,
    Growth = 21,
    Absence = 22,
    Answers = 50,
    Overload = 52,
    Surface = 40,
    Moves = 41,
    Backup = 42,
    DiskSize = 27,
    Bursts = 28,
    Rush = 30,
    Imprudence = 60,
    Aim = 61,
    Displaced = 62,
    Silence = 63,
}

/// Converts milliseconds to microseconds.
pub(super) fn us(ms: u32) -> u64 {
    u64::from(ms) * 1000
}

/// A stream of draws.
#[derive(Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of this purpose.
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Dice {
        Dice::stream(seed, purpose as u64)
    }

    /// The stream with this number of the family of faults with this name.
    pub(super) fn family(seed: u64, name: &str, number: u32) -> Dice {
        let bytes = name.bytes().chain(number.to_le_bytes());
        // FNV-1a, the same in every build. The highest bit keeps clear of the purposes.
        let key = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Dice::stream(seed, key | 1 << 63)
    }

    fn stream(seed: u64, stream: u64) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "there is no number below 0");
        ((u64::from(self.0.next_u32()) * u64::from(n)) >> 32) as u32
    }

    /// A number from `least` to `most`, both inclusive, each as likely.
    pub fn between(&mut self, least: u32, most: u32) -> u32 {
        assert!(least <= most, "{least} to {most} is an empty range");
        least + self.below(most - least + 1)
    }

    /// A number from `least` to `most`, where each doubling is as likely as the next: 1 to 2 as
    /// often as 64 to 128. For quantities whose order of magnitude matters.
    pub fn scaled(&mut self, least: u32, most: u32) -> u32 {
        assert!(0 < least && least <= most, "{least} to {most} has no scale");
        let doublings = (most / least).ilog2();
        let low = least << self.below(doublings + 1);
        let high = low.saturating_mul(2).min(most);
        self.between(low, high)
    }

    /// True in this many of a hundred draws.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < chance
    }

    /// One of these, each as likely.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    /// One of these, in proportion to the weight before each.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u32, T)]) -> T {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }

    /// A time or duration in microseconds, on a grid of 100 us so that plans stay readable.
    pub fn time_us(&mut self, least_ms: u32, most_ms: u32) -> u64 {
        u64::from(self.between(least_ms * 10, most_ms * 10)) * 100
    }

    /// Like [`time_us`](Self::time_us), with short times as likely as long ones.
    pub fn scaled_us(&mut self, least_ms: u32, most_ms: u32) -> u64 {
        u64::from(self.scaled((least_ms * 10).max(1), most_ms * 10)) * 100
    }

    /// Puts these in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}
