//! Keyed, counter-based randomness.
//!
//! Draw `i` of a stream is a hash of (seed, stream, `i`): there is no state to share. Every micro
//! choice of a run (a message's latency, whether a sector survives a crash) has a stream of its
//! own, keyed by what it is about, so that removing one fault from a plan does not shift the
//! choices made anywhere else. That is what lets a failing plan be shrunk piece by piece.
//!
//! Everything here is integer arithmetic, apart from scaling a probability by a power of two,
//! which is exact. The functions of the mathematics library are avoided: `ln` may differ in its
//! last bit between platforms and optimisation levels, and one bit ends a replay.
//!
//! The numbers are pinned by tests: if one changes, every saved seed means something else.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream is about. The numbers are part of what a seed means: add new ones at the end and
/// never reuse or renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Purpose {
    /// The generator of plans: [`plan_rng`].
    Plan = 1,
    /// Loss, duplication and latency of messages. Parts: from, to, kind.
    Message = 2,
    /// What a spell of bad weather does to messages. Parts: fault, from, to, kind.
    Weather = 3,
    /// What a power loss leaves of unsynced writes. Parts: node, fault, occurrence.
    DiskCrash = 4,
    /// How far a failing disk operation gets. Parts: node, fault, occurrence.
    DiskFault = 5,
    /// Which dirty sectors the kernel writes back on its own. Parts: node.
    DiskWriteback = 6,
    /// How long disk operations take. Parts: node.
    DiskLatency = 7,
    /// Drift and jitter of a node's clock. Parts: node.
    Clock = 8,
    /// What a node draws for itself, such as election timeouts. Parts: node.
    Node = 9,
    /// What a client does next. Parts: client.
    Client = 10,
    /// Which frames are damaged on their way, and how. Parts: fault, from, to, kind.
    Garble = 50,
    /// How far the latencies of a link are from the average. Parts: from, to.
    LinkLatency = 51,
    /// Whether and when the sender of a lost message hears of it. Parts: from, to, kind.
    LossTold = 52,
    /// When a sender notices that a connection broke. Parts: from, to, lane, connection.
    BrokenConnection = 53,
    /// Whether a campaign fails this seed on purpose.
    Canary = 90,
    /// From which plan a campaign goes on.
    Exploration = 91,
    /// Who is in the core that is healed in the end. Parts: node, or none for its size.
    Core = 70,
    /// How a node outside of the core is lost for good. Parts: node.
    Lost = 71,
    /// Whose disks survive, for a recovery from them.
    Survivors = 72,
    /// What the clock of a node shows at the beginning. Parts: node.
    ClockOffset = 60,
    /// How late the timers of a node fire. Parts: fault, node.
    Jitter = 61,
    /// Where silent damage to a disk hits. Parts: node, fault.
    DiskRot = 40,
}

/// 2^64 divided by the golden ratio: odd, and spreads consecutive counters over all 64 bits.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection in which every input bit flips every output bit with a probability near one half
/// (the "moremur" variant of MurmurHash3's finaliser).
const fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 27)).wrapping_mul(0x3C79_AC49_2BA7_B653);
    x = (x ^ (x >> 33)).wrapping_mul(0x1C69_B3F7_4AC4_AE35);
    x ^ (x >> 27)
}

const fn key(seed: u64, stream: u64) -> u64 {
    scramble(scramble(seed.wrapping_add(GOLDEN)) ^ stream)
}

const fn draw(key: u64, counter: u64) -> u64 {
    // Two rounds with the key in both: with one, all streams would be windows on one sequence.
    scramble(scramble(counter.wrapping_mul(GOLDEN).wrapping_add(key)) ^ key)
}

/// The hash behind every draw: 64 well mixed bits from a seed, a stream and a counter.
pub const fn mix(seed: u64, stream: u64, counter: u64) -> u64 {
    draw(key(seed, stream), counter)
}

/// One step of the rolling hash: the finalizer of SplitMix64 over both words, so that order counts.
pub(crate) fn fold_hash(hash: u64, word: u64) -> u64 {
    let mut z = hash.rotate_left(5) ^ word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The seed of a fork: of a run that is this one up to some moment, and goes on by other draws. Forks
/// with different salts have nothing to do with each other.
pub const fn fork(seed: u64, salt: u64) -> u64 {
    key(seed, salt)
}

/// The generator that plans are drawn from. It is sequential: a plan is made in one go.
pub fn plan_rng(seed: u64) -> ChaCha8Rng {
    let stream = Stream::new(seed, Purpose::Plan, []);
    let mut bytes = [0; 32];
    for (i, chunk) in (0..).zip(bytes.chunks_exact_mut(8)) {
        chunk.copy_from_slice(&stream.at(i).0.to_le_bytes());
    }
    ChaCha8Rng::from_seed(bytes)
}

/// A sequence of draws that depends on nothing but the seed and the stream's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    key: u64,
    counter: u64,
}

impl Stream {
    /// The stream for `purpose` and the things it is about, for example two nodes and a kind of
    /// message.
    pub fn new<const N: usize>(seed: u64, purpose: Purpose, parts: [u64; N]) -> Self {
        let mut stream = scramble(purpose as u64);
        for part in parts {
            stream = scramble(stream.wrapping_add(GOLDEN) ^ part);
        }
        Stream { key: key(seed, stream), counter: 0 }
    }

    /// Draw number `i`, counted from 0, without moving the stream.
    pub fn at(&self, i: u64) -> Draw {
        Draw(draw(self.key, i))
    }

    /// The next draw.
    pub fn draw(&mut self) -> Draw {
        let draw = self.at(self.counter);
        self.counter += 1;
        draw
    }

    /// From now on, draws of the fork with this salt; see [`fork`]. They are still counted from the
    /// beginning: draw number `i` does not depend on when the stream was forked.
    pub fn fork(&mut self, salt: u64) {
        self.key = fork(self.key, salt);
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.draw().0
    }

    /// See [`Draw::below`].
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw().below(n)
    }

    /// True with probability `p`.
    ///
    /// # Panics
    /// If `p` is not from 0 to 1.
    pub fn chance(&mut self, p: f64) -> bool {
        Chance::new(p).hit(self.draw())
    }

    /// See [`Draw::exponential_ns`].
    pub fn exponential_ns(&mut self, mean_ns: u64) -> u64 {
        self.draw().exponential_ns(mean_ns)
    }

    /// See [`Draw::pareto_ns`].
    pub fn pareto_ns(&mut self, min_ns: u64, max_ns: u64) -> u64 {
        self.draw().pareto_ns(min_ns, max_ns)
    }
}

/// One draw: 64 random bits, to be turned into what is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(pub u64);

impl Draw {
    /// A number from 0 to `n - 1`. The bias is below `n` / 2^64.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0 to draw");
        ((u128::from(self.0) * u128::from(n)) >> 64) as u64
    }

    /// An exponentially distributed time with this mean, at most 45 times the mean.
    pub fn exponential_ns(self, mean_ns: u64) -> u64 {
        // -ln(u) = ln 2 * -log2(u), with 32 bits behind the binary point.
        let minus_ln = (u128::from(minus_log2(self.0)) * LN_2) >> 32;
        u64::try_from((u128::from(mean_ns) * minus_ln) >> 32).unwrap_or(u64::MAX)
    }

    /// A heavy-tailed time: Pareto with shape 1, cut off at `max_ns`. Half of the draws are below
    /// 2 `min_ns`, one in a thousand is above 1000 `min_ns`.
    pub fn pareto_ns(self, min_ns: u64, max_ns: u64) -> u64 {
        let time = (u128::from(min_ns) << 64) / u128::from(self.0.max(1));
        u64::try_from(time).unwrap_or(u64::MAX).min(max_ns)
    }
}

/// A probability, as an integer threshold to compare draws with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(u64);

impl Chance {
    /// What never happens.
    pub const NEVER: Chance = Chance(0);
    /// The probability 1/4.
    pub const ONE_IN_FOUR: Chance = Chance(1 << 62);

    /// The probability `p`, to within 2^-64.
    ///
    /// # Panics
    /// If `p` is not from 0 to 1.
    pub fn new(p: f64) -> Self {
        assert!((0.0..=1.0).contains(&p), "{p} is not a probability: it must be from 0 to 1");
        // Scaling by 2^64 is exact. 1.0 saturates; every smaller `f64` stays below u64::MAX.
        Chance((p * 18_446_744_073_709_551_616.0) as u64)
    }

    /// Whether it happens, given this draw.
    pub fn hit(self, draw: Draw) -> bool {
        draw.0 < self.0 || self.0 == u64::MAX
    }

    /// Whether it can never happen, so that the draw can be saved.
    pub fn is_never(self) -> bool {
        self.0 == 0
    }
}

/// ln 2 with 32 bits behind the binary point.
const LN_2: u128 = 2_977_044_472;

/// log2(1 + i / 256) with 32 bits behind the binary point.
static LOG2: [u64; 257] = log2_table();

const fn log2_table() -> [u64; 257] {
    let mut table = [0; 257];
    let mut i = 0;
    while i < 256 {
        // Squaring a number doubles its logarithm: each squaring yields one more binary digit.
        let mut x = (256 + i as u128) << 54;
        let mut bits = 0;
        while bits < 32 {
            x = (x * x) >> 62;
            table[i] <<= 1;
            if x >= 1 << 63 {
                x >>= 1;
                table[i] |= 1;
            }
            bits += 1;
        }
        i += 1;
    }
    table[256] = 1 << 32;
    table
}

/// -log2(`x` / 2^64) with 32 bits behind the binary point, to within 10^-5. Zero counts as one.
fn minus_log2(x: u64) -> u64 {
    let x = x.max(1);
    let zeros = x.leading_zeros();
    // The digits behind the leading one: 8 select the table's row, 32 more interpolate.
    let digits = (x << zeros) << 1;
    let row = (digits >> 56) as usize;
    let part = (digits >> 24) & 0xFFFF_FFFF;
    let log2 = LOG2[row] + (((LOG2[row + 1] - LOG2[row]) * part) >> 32);
    ((u64::from(zeros) + 1) << 32) - log2
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::RngCore;

    fn stream(seed: u64) -> Stream {
        Stream::new(seed, Purpose::Message, [1, 2, 3])
    }

    #[test]
    fn numbers_are_pinned() {
        assert_eq!(mix(0, 0, 0), 6_197_142_623_220_527_377);
        let mut s = stream(42);
        let drawn = [
            s.next_u64(),
            s.below(1000),
            s.exponential_ns(1_000_000),
            s.draw().pareto_ns(10, 1 << 40),
        ];
        assert_eq!(drawn, [2_637_096_512_481_765_881, 811, 2_404_541, 10]);
        assert_eq!(plan_rng(42).next_u64(), 7_587_090_357_113_457_488);
    }

    #[test]
    fn streams_differ_in_every_part_of_their_key() {
        let mut firsts: Vec<u64> = Vec::new();
        for seed in 0..8 {
            for purpose in [Purpose::Message, Purpose::Weather] {
                for a in 0..8 {
                    for b in 0..8 {
                        firsts.push(Stream::new(seed, purpose, [a, b]).next_u64());
                    }
                    firsts.push(Stream::new(seed, purpose, [a]).next_u64());
                }
            }
        }
        let drawn = firsts.len();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), drawn);
    }

    #[test]
    fn draws_by_number_equal_draws_in_sequence() {
        let fixed = stream(7);
        let mut moving = stream(7);
        for i in 0..100 {
            assert_eq!(fixed.at(i).0, moving.next_u64());
        }
    }

    #[test]
    fn forks_agree_on_when_and_differ_in_what() {
        let (mut early, mut late, mut other) = (stream(7), stream(7), stream(7));
        early.fork(1);
        other.fork(2);
        let before = late.next_u64();
        late.fork(1);
        assert_ne!([early.next_u64(), other.next_u64()], [before; 2]);
        for _ in 0..10 {
            let draw = early.next_u64();
            assert_eq!(draw, late.next_u64());
            assert_ne!(draw, other.next_u64());
        }
        assert_ne!(fork(7, 1), fork(7, 2));
    }

    #[test]
    fn one_bit_of_any_input_flips_half_of_the_output() {
        for bit in 0..64 {
            let (mut seed, mut key, mut counter) = (0, 0, 0);
            for i in 0..256 {
                let base = mix(i, i + 1, i + 2);
                seed += (base ^ mix(i ^ (1 << bit), i + 1, i + 2)).count_ones();
                key += (base ^ mix(i, (i + 1) ^ (1 << bit), i + 2)).count_ones();
                counter += (base ^ mix(i, i + 1, (i + 2) ^ (1 << bit))).count_ones();
            }
            for flipped in [seed, key, counter] {
                let mean = f64::from(flipped) / 256.0;
                assert!((30.0..34.0).contains(&mean), "bit {bit} flips {mean} bits on average");
            }
        }
    }

    #[test]
    fn below_is_even() {
        let mut s = stream(1);
        let mut counts = [0; 10];
        for _ in 0..100_000 {
            counts[s.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_600..10_400).contains(&n)), "{counts:?}");
    }

    #[test]
    fn chance_keeps_its_promise_at_both_ends_and_between() {
        let mut s = stream(2);
        let hits = |p: f64, s: &mut Stream| (0..100_000).filter(|_| s.chance(p)).count();
        assert_eq!(hits(0.0, &mut s), 0);
        assert_eq!(hits(1.0, &mut s), 100_000);
        assert!((24_400..25_600).contains(&hits(0.25, &mut s)));
        assert!((60..140).contains(&hits(0.001, &mut s)));
        assert!(Chance::new(1.0).hit(Draw(u64::MAX)));
        assert!(!Chance::new(0.5).hit(Draw(1 << 63)));
        assert!(Chance::new(0.5).hit(Draw((1 << 63) - 1)));
    }

    #[test]
    #[should_panic(expected = "is not a probability")]
    fn a_chance_above_one_is_refused() {
        Chance::new(1.5);
    }

    #[test]
    fn the_table_is_close_to_the_real_logarithm() {
        let mut s = stream(3);
        for shift in 0..64 {
            let x = s.next_u64() >> shift | 1;
            let exact = 64.0 - (x as f64).log2();
            let ours = minus_log2(x) as f64 / 4_294_967_296.0;
            assert!((exact - ours).abs() < 1e-5, "{x}: {ours} instead of {exact}");
        }
    }

    #[test]
    fn exponential_has_its_mean_and_its_tail() {
        let mut s = stream(4);
        let n = 200_000;
        let drawn: Vec<u64> = (0..n).map(|_| s.exponential_ns(1_000_000)).collect();
        let mean = drawn.iter().sum::<u64>() / n;
        assert!((990_000..1_010_000).contains(&mean), "{mean}");
        // P(X > 3 mean) = e^-3 = 4.98 %
        let tail = drawn.iter().filter(|&&x| x > 3_000_000).count();
        assert!((9_600..10_320).contains(&tail), "{tail}");
        assert_eq!(Draw(5).exponential_ns(0), 0);
        assert!(Draw(0).exponential_ns(1000) <= 45_000);
        assert_eq!(Draw(0).exponential_ns(u64::MAX), u64::MAX);
        assert_eq!(Draw(u64::MAX).exponential_ns(1000), 0);
    }

    #[test]
    fn pareto_is_heavy_tailed_and_bounded() {
        let mut s = stream(5);
        let drawn: Vec<u64> = (0..100_000).map(|_| s.pareto_ns(1000, 500_000)).collect();
        assert!(drawn.iter().all(|x| (1000..=500_000).contains(x)));
        let above = |limit| drawn.iter().filter(|&&x| x > limit).count();
        assert!((49_000..51_000).contains(&above(2_000)), "{}", above(2_000));
        assert!((900..1_100).contains(&above(100_000)), "{}", above(100_000));
        assert_eq!(Draw(0).pareto_ns(u64::MAX, u64::MAX), u64::MAX);
    }
}
