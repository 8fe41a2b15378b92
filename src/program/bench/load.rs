//! A closed loop: each client sends its next operation when the one before was answered.
//!
//! All clients run on one thread, so that the machine's other cores are left to the nodes. What is
//! done before the warm-up ends does not count.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::histogram::Histogram;

/// How long an operation may take before it counts as unanswered.
const LIMIT: Duration = Duration::from_secs(10);

/// How long a client waits after a failure, so that a cluster in trouble is not stormed.
const PAUSE: Duration = Duration::from_millis(50);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// Puts only.
    Put,
    /// Gets only.
    Get,
    /// Gets in this share, else puts.
    Mixed(f64),
}

impl std::str::FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let share = text.strip_prefix("mixed:").and_then(|share| share.parse().ok());
        match (text, share) {
            ("put", _) => Ok(Mix::Put),
            ("get", _) => Ok(Mix::Get),
            (_, Some(share)) if (0.0..=1.0).contains(&share) => Ok(Mix::Mixed(share)),
            _ => Err("write put, get, or mixed:SHARE with the share of gets, 0 to 1".to_owned()),
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mix::Put => f.write_str("put"),
            Mix::Get => f.write_str("get"),
            Mix::Mixed(share) => write!(f, "mixed:{share}"),
        }
    }
}

/// What the clients do, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Puts, gets, or both.
    pub mix: Mix,
    /// How many keys there are; each operation takes any of them.
    pub keys: u64,
    /// The length of each value, in bytes.
    pub value_bytes: usize,
    /// What does not count.
    pub warmup: Duration,
    /// What does.
    pub measured: Duration,
}

/// An operation that did not succeed, by what is known about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It had no effect; with a short name of the cause.
    Refused(String),
    /// It may have had an effect; the connection is not to be used again.
    Unknown,
    /// It was not sent: there is no connection.
    NotSent,
}

/// One client's way to the cluster.
pub trait Connection: Send + 'static {
    /// Sets a key.
    fn put(&mut self, key: &str, value: &[u8]) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads a key.
    fn get(&mut self, key: &str) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Forgets what it is connected to: the answer of the last operation may still come.
    fn reset(&mut self);
}

/// What was measured with one number of clients.
#[derive(Clone, Default)]
pub struct Tally {
    /// The latencies of all operations that succeeded.
    pub latencies: Histogram,
    /// How many had no effect, by cause.
    pub refused: BTreeMap<String, u64>,
    /// How many puts may or may not have had an effect.
    pub unknown: u64,
    /// How many gets were not answered.
    pub unanswered: u64,
    /// How long was measured.
    pub elapsed: Duration,
}

impl Tally {
    fn count(&mut self, is_put: bool, failure: Failure) {
        match failure {
            Failure::Refused(cause) => *self.refused.entry(cause).or_default() += 1,
            Failure::NotSent => *self.refused.entry("not_sent".to_owned()).or_default() += 1,
            Failure::Unknown if is_put => self.unknown += 1,
            Failure::Unknown => self.unanswered += 1,
        }
    }

    /// How many operations did not succeed.
    pub fn failures(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.unknown + self.unanswered
    }
}

/// Fast numbers of no quality, one sequence per client (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < share
    }
}

/// The name of a key.
pub fn key(number: u64) -> String {
    format!("bench-{number:010}")
}

/// Sets all keys, so that there is something to get.
///
/// # Errors
/// Says which key could not be set, and how often that was tried.
pub async fn fill<C: Connection>(load: &Load, mut connections: Vec<C>) -> Result<Vec<C>, String> {
    const TRIES: usize = 20;
    let value = vec![b'v'; load.value_bytes];
    let count = connections.len() as u64;
    let mut clients = JoinSet::new();
    for (first, mut connection) in (0..).zip(connections.drain(..)) {
        let (value, keys) = (value.clone(), load.keys);
        clients.spawn(async move {
            for number in (first..keys).step_by(usize::try_from(count).unwrap_or(usize::MAX)) {
                let key = key(number);
                let mut tries = 0;
                while let Err(failure) = limited(connection.put(&key, &value)).await {
                    tries += 1;
                    if tries == TRIES {
                        return Err(format!(
                            "{key} could not be set in {TRIES} tries: {failure:?}"
                        ));
                    }
                    connection.reset();
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(connection)
        });
    }
    clients.join_all().await.into_iter().collect()
}

async fn limited(operation: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::time::timeout(LIMIT, operation).await.unwrap_or(Err(Failure::Unknown))
}

/// Runs one client per connection until the time is over.
#[allow(clippy::disallowed_methods, reason = "time is what is measured")]
pub async fn run<C: Connection>(load: Load, connections: Vec<C>) -> (Tally, Vec<C>) {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let begin = Instant::now() + load.warmup;
    let end = begin + load.measured;
    let mut clients = JoinSet::new();
    for (seed, mut connection) in (1..).zip(connections) {
        let tally = tally.clone();
        clients.spawn(async move {
            client(load, seed, &mut connection, &tally, begin, end).await;
            connection
        });
    }
    let connections = clients.join_all().await;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
    tally.elapsed = load.measured;
    (tally, connections)
}

#[allow(clippy::disallowed_methods, reason = "time is what is measured")]
async fn client<C: Connection>(
    load: Load,
    seed: u64,
    connection: &mut C,
    tally: &Mutex<Tally>,
    begin: Instant,
    end: Instant,
) {
    let value = vec![b'v'; load.value_bytes];
    let mut dice = Dice(seed << 32);
    let mut sent = Instant::now();
    while sent < end {
        let key = key(dice.next() % load.keys.max(1));
        let is_put = match load.mix {
            Mix::Put => true,
            Mix::Get => false,
            Mix::Mixed(gets) => !dice.chance(gets),
        };
        let outcome = if is_put {
            limited(connection.put(&key, &value)).await
        } else {
            limited(connection.get(&key)).await
        };
        let answered = Instant::now();
        // Operations that end in the measured time count, so each is counted with its whole
        // latency, and as many count that began before it as end after it.
        let counts = answered >= begin && answered < end;
        let failed = outcome.is_err();
        if failed && outcome != Err(Failure::NotSent) {
            connection.reset();
        }
        if counts {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Ok(()) => tally.latencies.record(answered - sent),
                Err(failure) => tally.count(is_put, failure),
            }
        }
        sent = answered;
        if failed {
            tokio::time::sleep(PAUSE).await;
            sent = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers at once: every third operation fails, each time in another way.
    struct Flaky {
        operations: u64,
        resets: u64,
    }

    impl Connection for Flaky {
        async fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Failure> {
            assert!(key.starts_with("bench-") && value.len() == 128);
            tokio::task::yield_now().await;
            self.operations += 1;
            match self.operations % 9 {
                3 => Err(Failure::Refused("busy".to_owned())),
                6 => Err(Failure::Unknown),
                0 => Err(Failure::NotSent),
                _ => Ok(()),
            }
        }

        async fn get(&mut self, _: &str) -> Result<(), Failure> {
            self.operations += 1;
            Err(Failure::Unknown)
        }

        fn reset(&mut self) {
            self.resets += 1;
        }
    }

    fn load(mix: Mix) -> Load {
        let measured = Duration::from_millis(800);
        Load { mix, keys: 10, value_bytes: 128, warmup: Duration::ZERO, measured }
    }

    #[tokio::test]
    async fn failures_are_counted_by_what_is_known() {
        let flaky = vec![Flaky { operations: 0, resets: 0 }];
        let (tally, connections) = run(load(Mix::Put), flaky).await;
        assert!(tally.latencies.total() >= 6, "{}", tally.latencies.total());
        assert!(tally.refused["busy"] >= 1 && tally.refused["not_sent"] >= 1);
        assert!(tally.unknown >= 1 && tally.unanswered == 0);
        assert_eq!(connections[0].resets, tally.refused["busy"] + tally.unknown);
        assert_eq!(tally.failures() + tally.latencies.total(), connections[0].operations);
        let (tally, _) = run(load(Mix::Get), connections).await;
        assert!(tally.unanswered >= 1 && tally.unknown == 0 && tally.latencies.total() == 0);
    }

    #[test]
    fn a_mix_is_read_as_it_is_written() {
        for text in ["put", "get", "mixed:0.8"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for text in ["puts", "mixed:1.5", "mixed:", "mixed:NaN"] {
            assert!(text.parse::<Mix>().unwrap_err().contains("mixed:SHARE"));
        }
    }
}
