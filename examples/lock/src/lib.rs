//! A replicated lock service with leases, and what the simulator needs to know of it.
//!
//! A client acquires a lock for a time. If it does not renew its lease, others may have the lock: a client
//! that crashes blocks them only until its lease expires. [`Locks`] is the state machine, [`LockService`] its workload and
//! what must hold, [`Reference`] the model that each answer is compared with.
//!
//! Two things make leases safe, and both are visible here.
//!
//! - *One time for all.* Whether a lease has expired is judged by the cluster's time, with which the leader
//!   stamps each command ([`Context::time`]). Replicas that asked their own clocks would disagree on who
//!   holds the lock, and a new leader with a slow clock would grant it twice.
//! - *Fencing tokens.* A client cannot know whether its lease holds at the moment at which it acts: it may be
//!   paused between the two. Each grant has a token, the index of its command, which grows with each grant.
//!   The resource that the lock protects refuses a token that is lower than one that it has seen.
//!
//! With `REVIVING` a client may renew a lease that has expired, "because it was only slow". That is the mistake:
//! another client may have the lock by then. It takes a late renewal between two others' commands to see it.
//!
//! With the feature `node`, the binary `lock-node` is a real node of the same service, and
//! `tests/cluster.rs` runs three of them.

mod fencing;
mod reference;
mod service;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use stormkv::machine::{Chunks, Context, StateMachine};

pub use reference::Reference;
pub use service::{Holder, LockService, Op};

/// The number of locks.
pub const LOCKS: usize = 4;

/// A fencing token: the index of the command that acquired the lock.
pub type Token = u64;

/// Limits of the service; equal on all members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest lease, in milliseconds. Longer ones are cut to it.
    pub longest_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { longest_ms: 60_000 }
    }
}

/// A command or a query, which is sent as its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `acquire LOCK MS`: answered with `granted TOKEN until TIME` or `held until TIME`.
    Acquire {
        /// The lock.
        lock: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// `renew LOCK TOKEN MS`: answered with `renewed until TIME` or `lost`.
    Renew {
        /// The lock.
        lock: usize,
        /// The token of the lease.
        token: Token,
        /// For how long from now, in milliseconds.
        ms: u64,
    },
    /// `release LOCK TOKEN`: answered with `released` or `lost`.
    Release {
        /// The lock.
        lock: usize,
        /// The token of the lease.
        token: Token,
    },
    /// `holder LOCK`, a query: answered with `TOKEN until TIME` or `free`, as of the last command.
    Holder(usize),
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Acquire { lock, ms } => write!(f, "acquire {lock} {ms}"),
            Ask::Renew { lock, token, ms } => write!(f, "renew {lock} {token} {ms}"),
            Ask::Release { lock, token } => write!(f, "release {lock} {token}"),
            Ask::Holder(lock) => write!(f, "holder {lock}"),
        }
    }
}

impl Ask {
    /// Parses the text of a command or a query.
    ///
    /// # Errors
    /// The text is neither a command nor a query; the message names the word or the forms.
    pub fn parse(text: &[u8]) -> Result<Ask, String> {
        let text = str::from_utf8(text).map_err(|error| error.to_string())?;
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["acquire", lock, ms] => {
                Ok(Ask::Acquire { lock: parse_lock(lock)?, ms: parse_number(ms)? })
            }
            ["renew", lock, token, ms] => Ok(Ask::Renew {
                lock: parse_lock(lock)?,
                token: parse_number(token)?,
                ms: parse_number(ms)?,
            }),
            ["release", lock, token] => {
                Ok(Ask::Release { lock: parse_lock(lock)?, token: parse_number(token)? })
            }
            ["holder", lock] => Ok(Ask::Holder(parse_lock(lock)?)),
            _ => Err(format!(
                "`{text}` is not understood; write `acquire LOCK MS`, `renew LOCK TOKEN MS`, `release LOCK \
                 TOKEN` or `holder LOCK`"
            )),
        }
    }
}

fn parse_lock(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(lock) if lock < LOCKS => Ok(lock),
        _ => Err(format!("`{word}` is not a lock; use 0 to {}", LOCKS - 1)),
    }
}

fn parse_number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is not a number"))
}

/// The answer to a command that has acquired a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The fencing token.
    pub token: Token,
    /// The cluster's time at which the lease expires, in milliseconds.
    pub expires_ms: u64,
}

impl Granted {
    /// Parses an answer; `None` for another one.
    pub fn parse(answer: &[u8]) -> Option<Granted> {
        let words: Vec<&str> = str::from_utf8(answer).ok()?.split(' ').collect();
        let ["granted", token, "until", expires_ms] = words[..] else { return None };
        Some(Granted { token: token.parse().ok()?, expires_ms: expires_ms.parse().ok()? })
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "granted {} until {}", self.token, self.expires_ms)
    }
}

/// A lock that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    lock: usize,
    /// The cluster's time from which on it is void, in milliseconds.
    expires_ms: u64,
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locks<const REVIVING: bool = false> {
    limits: Limits,
    /// The cluster's time as of the last command, in milliseconds.
    now_ms: u64,
    /// The leases by token. Those that have expired are removed with the next command.
    leases: BTreeMap<Token, Lease>,
}

/// For so long `REVIVING` keeps a lease that has expired, in milliseconds.
const GRACE_MS: u64 = 10_000;

impl<const REVIVING: bool> Locks<REVIVING> {
    /// The tokens of the leases on a lock that are in force, in their order.
    pub fn in_force(&self, lock: usize) -> impl Iterator<Item = (Token, u64)> {
        let leases = self.leases.iter().filter(move |(_, lease)| lease.lock == lock);
        let leases = leases.filter(|(_, lease)| lease.expires_ms > self.now_ms);
        leases.map(|(token, lease)| (*token, lease.expires_ms))
    }

    fn expiry_of(&self, ms: u64) -> u64 {
        self.now_ms.saturating_add(ms.min(self.limits.longest_ms))
    }

    fn acquire(&mut self, token: Token, lock: usize, ms: u64) -> String {
        if let Some((_, expires_ms)) = self.in_force(lock).last() {
            return format!("held until {expires_ms}");
        }
        let expires_ms = self.expiry_of(ms);
        self.leases.insert(token, Lease { lock, expires_ms });
        Granted { token, expires_ms }.to_string()
    }

    /// The lease with this token. The caller has removed what has expired.
    fn lease(&mut self, lock: usize, token: Token) -> Option<&mut Lease> {
        self.leases.get_mut(&token).filter(|lease| lease.lock == lock)
    }

    fn renew(&mut self, lock: usize, token: Token, ms: u64) -> String {
        let expires_ms = self.expiry_of(ms);
        let Some(lease) = self.lease(lock, token) else { return "lost".to_owned() };
        lease.expires_ms = expires_ms;
        format!("renewed until {expires_ms}")
    }

    fn release(&mut self, lock: usize, token: Token) -> String {
        if self.lease(lock, token).is_none() {
            return "lost".to_owned();
        }
        self.leases.remove(&token);
        "released".to_owned()
    }
}

impl<const REVIVING: bool> StateMachine for Locks<REVIVING> {
    type Params = Limits;

    fn new(limits: &Limits) -> Self {
        Locks { limits: limits.clone(), now_ms: 0, leases: BTreeMap::new() }
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        self.now_ms = u64::try_from(context.time.as_millis()).unwrap_or(u64::MAX);
        let (now_ms, grace_ms) = (self.now_ms, if REVIVING { GRACE_MS } else { 0 });
        self.leases.retain(|_, lease| lease.expires_ms.saturating_add(grace_ms) > now_ms);
        // A command that cannot be read is in the log already, so every replica must answer it alike.
        let answer = match Ask::parse(command) {
            Ok(Ask::Acquire { lock, ms }) => self.acquire(context.index, lock, ms),
            Ok(Ask::Renew { lock, token, ms }) => self.renew(lock, token, ms),
            Ok(Ask::Release { lock, token }) => self.release(lock, token),
            Ok(query @ Ask::Holder(_)) => format!("`{query}` is not a command"),
            Err(error) => error,
        };
        answer.into()
    }

    fn query(&self, query: &[u8]) -> Bytes {
        let answer = match Ask::parse(query) {
            Ok(Ask::Holder(lock)) => match self.in_force(lock).last() {
                Some((token, expires_ms)) => format!("{token} until {expires_ms}"),
                None => "free".to_owned(),
            },
            Ok(command) => format!("`{command}` is not a query"),
            Err(error) => error,
        };
        answer.into()
    }

    fn grows(&self, command: &[u8]) -> bool {
        matches!(Ask::parse(command), Ok(Ask::Acquire { .. }))
    }

    fn snapshot(&self) -> Chunks {
        let leases = self.leases.iter();
        let words = leases.flat_map(|(token, lease)| [*token, lease.lock as u64, lease.expires_ms]);
        let words = std::iter::once(self.now_ms).chain(words);
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        Box::new(std::iter::once(bytes.into()))
    }

    fn restore(limits: &Limits, chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Self, String> {
        let bytes: Vec<u8> = chunks.flatten().collect();
        let (words, rest) = bytes.as_chunks();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let ([now_ms, leases @ ..], true) = (&words[..], rest.is_empty()) else {
            return Err(format!("{} bytes are no list of leases", bytes.len()));
        };
        let (leases, []) = leases.as_chunks() else {
            return Err("the last lease is cut off".to_owned());
        };
        let lease = |&[token, lock, expires_ms]: &[u64; 3]| {
            let lock = usize::try_from(lock).ok().filter(|lock| *lock < LOCKS);
            let lock = lock.ok_or_else(|| format!("token {token} is of no lock"))?;
            Ok((token, Lease { lock, expires_ms }))
        };
        let leases: Result<_, String> = leases.iter().map(lease).collect();
        Ok(Locks { limits: limits.clone(), now_ms: *now_ms, leases: leases? })
    }

    fn digest(&self) -> u64 {
        let mix = |hash: u64, word: u64| {
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
        };
        self.leases.iter().fold(mix(0xcbf2_9ce4_8422_2325, self.now_ms), |hash, (token, lease)| {
            [*token, lease.lock as u64, lease.expires_ms].into_iter().fold(hash, mix)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn apply<const REVIVING: bool>(
        locks: &mut Locks<REVIVING>,
        (index, ms): (u64, u64),
        command: &str,
    ) -> String {
        let context = Context::new(index, Duration::from_millis(ms));
        String::from_utf8(locks.apply(context, command.as_bytes()).to_vec()).expect("text")
    }

    #[test]
    fn lock_is_free_when_its_lease_has_expired() {
        let mut locks: Locks = Locks::new(&Limits { longest_ms: 500 });
        assert_eq!(apply(&mut locks, (7, 1000), "acquire 1 100"), "granted 7 until 1100");
        assert_eq!(apply(&mut locks, (8, 1099), "acquire 1 100"), "held until 1100");
        assert_eq!(apply(&mut locks, (9, 1099), "renew 1 7 900"), "renewed until 1599");
        assert_eq!(apply(&mut locks, (10, 1599), "renew 1 7 100"), "lost");
        assert_eq!(apply(&mut locks, (11, 1599), "acquire 1 100"), "granted 11 until 1699");
        assert_eq!(apply(&mut locks, (12, 1600), "release 1 7"), "lost");
        assert_eq!(locks.query(b"holder 1"), "11 until 1699");
        assert_eq!(apply(&mut locks, (13, 1600), "release 1 11"), "released");
        assert_eq!(locks.query(b"holder 1"), "free");
    }

    #[test]
    fn reviving_service_grants_a_lock_twice() {
        let mut locks: Locks<true> = Locks::new(&Limits::default());
        apply(&mut locks, (7, 1000), "acquire 1 100");
        apply(&mut locks, (8, 1100), "acquire 1 100");
        assert_eq!(apply(&mut locks, (9, 1150), "renew 1 7 100"), "renewed until 1250");
        assert_eq!(locks.in_force(1).count(), 2);
    }

    #[test]
    fn restored_state_is_the_one_that_was_saved() {
        let mut locks: Locks = Locks::new(&Limits::default());
        apply(&mut locks, (7, 1000), "acquire 1 100");
        apply(&mut locks, (8, 1000), "acquire 3 200");
        let restored = Locks::restore(&Limits::default(), &mut locks.snapshot());
        assert_eq!(restored, Ok(locks));
        for bytes in [&[][..], &[1; 9], &[1; 16], &[1; 32]] {
            let mut chunks = std::iter::once(Bytes::copy_from_slice(bytes));
            assert!(Locks::<false>::restore(&Limits::default(), &mut chunks).is_err());
        }
    }
}
