//! The lock service as a service of the simulator: operations, clients and what must hold.

use std::fmt;

use stormkv_sim::history::{Answer, Outcome};
use stormkv_sim::service::{Checker, Client, Invariant, Pending, Reach, Request, Service, Shown};
use stormkv_sim::swarm::Dice;

use super::fencing::Fencing;
use super::{Ask, Granted, LOCKS, Limits, Locks, Reference, Token, parse_lock, parse_number};

/// An operation, and its text in a scenario. A client knows its tokens by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `acquire LOCK MS`.
    Acquire {
        /// The lock.
        lock: usize,
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// `renew LOCK MS`: the lease that was granted to the client last.
    Renew {
        /// The lock.
        lock: usize,
        /// For how long from now, in milliseconds.
        ms: u64,
    },
    /// `release LOCK`: the same.
    Release(usize),
    /// `holder LOCK`.
    Holder(usize),
}

impl Op {
    fn lock(&self) -> usize {
        match *self {
            Op::Acquire { lock, .. } | Op::Renew { lock, .. } => lock,
            Op::Release(lock) | Op::Holder(lock) => lock,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Acquire { lock, ms } => write!(f, "acquire {lock} {ms}"),
            Op::Renew { lock, ms } => write!(f, "renew {lock} {ms}"),
            Op::Release(lock) => write!(f, "release {lock}"),
            Op::Holder(lock) => write!(f, "holder {lock}"),
        }
    }
}

/// A client, and the tokens that it was granted.
#[derive(Debug, Default)]
pub struct Holder {
    tokens: [Token; LOCKS],
}

/// An operation under way.
#[derive(Clone, Debug)]
pub struct Asked {
    op: Op,
    /// The same in all attempts.
    ask: Ask,
}

impl Client for Holder {
    type Op = Op;
    type Pending = Asked;

    fn begin(&self, op: Op) -> Asked {
        // No lease has token 0.
        let token = self.tokens[op.lock()];
        let ask = match op {
            Op::Acquire { lock, ms } => Ask::Acquire { lock, ms },
            Op::Renew { lock, ms } => Ask::Renew { lock, token, ms },
            Op::Release(lock) => Ask::Release { lock, token },
            Op::Holder(lock) => Ask::Holder(lock),
        };
        Asked { op, ask }
    }

    fn learn(&mut self, pending: &Asked, response: &[u8], reach: Reach<'_>) {
        let lock = pending.op.lock();
        if let Some(Granted { token, .. }) = Granted::parse(response) {
            self.tokens[lock] = token;
        }
        match pending.ask {
            Ask::Renew { token, .. } if token > 0 && response == b"lost" => {
                reach("renewed-too-late")
            }
            Ask::Renew { .. } if response.starts_with(b"renewed") => reach("renewed"),
            _ => {}
        }
    }
}

impl Pending for Asked {
    type Op = Op;

    fn op(&self) -> &Op {
        &self.op
    }

    fn request(&self) -> Request {
        let text = self.ask.to_string().into();
        match self.ask {
            Ask::Holder(_) => Request::Query(text),
            _ => Request::Command(text),
        }
    }

    /// A response that differs from the reference's was found before; there is nothing else to say of it.
    fn outcome(&self, _response: &[u8]) -> Result<Outcome, String> {
        Ok(Outcome::Ok(Answer::Unsaid))
    }
}

/// The lock service as a service of the simulator.
#[derive(Debug)]
pub struct LockService<const REVIVING: bool = false>;

impl<const REVIVING: bool> Service for LockService<REVIVING> {
    type Machine = Locks<REVIVING>;
    type Model = Reference<REVIVING>;
    type Op = Op;
    type Client = Holder;

    const COMMAND: &'static str = "cargo run -p lock --";

    const GRAMMAR: &'static [(&'static str, &'static str)] = &[
        ("acquire", "acquire LOCK MS"),
        ("renew", "renew LOCK MS"),
        ("release", "release LOCK"),
        ("holder", "holder LOCK"),
    ];

    const INVARIANT: Option<Invariant<Locks<REVIVING>>> = Some(|locks, _reach| {
        for lock in 0..LOCKS {
            let tokens: Vec<Token> = locks.in_force(lock).map(|(token, _)| token).collect();
            if let [first, second, ..] = tokens[..] {
                return Err(format!("has granted lock {lock} twice: to {first} and to {second}"));
            }
        }
        Ok(())
    });

    const MARKS: &'static [&'static str] = &["renewed", "renewed-too-late", "taken-over"];

    fn params() -> Limits {
        Limits { longest_ms: 4_000 }
    }

    fn checkers() -> Vec<Box<dyn Checker<Self>>> {
        vec![Box::new(Fencing::default())]
    }

    fn parse(words: &str) -> Result<Op, String> {
        let parts: Vec<&str> = words.split(' ').collect();
        let wrong = |error: String| format!("{error} in `{words}`");
        let lock = |word: &str| parse_lock(word).map_err(wrong);
        let ms = |word: &str| parse_number(word).map_err(wrong);
        match parts[..] {
            ["acquire", name, time] => Ok(Op::Acquire { lock: lock(name)?, ms: ms(time)? }),
            ["renew", name, time] => Ok(Op::Renew { lock: lock(name)?, ms: ms(time)? }),
            ["release", name] => Ok(Op::Release(lock(name)?)),
            ["holder", name] => Ok(Op::Holder(lock(name)?)),
            _ => Err(format!(
                "`{words}` is not an operation; write `acquire LOCK MS`, `renew LOCK MS`, `release LOCK` or \
                 `holder LOCK`"
            )),
        }
    }

    fn is_read(op: &Op) -> bool {
        matches!(op, Op::Holder(_))
    }

    fn describe(shown: Shown<'_>) -> String {
        String::from_utf8_lossy(shown.bytes()).into_owned()
    }

    fn subjects(op: &Op) -> Vec<String> {
        vec![op.lock().to_string()]
    }

    fn generate(dice: &mut Dice, _number: u32) -> Op {
        let lock = dice.below(LOCKS as u32) as usize;
        // Some are over before the next command of the client, some after many.
        let ms = u64::from(dice.scaled(1, 5000));
        match dice.below(10) {
            0..4 => Op::Acquire { lock, ms },
            4..7 => Op::Renew { lock, ms },
            7 => Op::Release(lock),
            _ => Op::Holder(lock),
        }
    }

    fn simpler(op: &Op) -> Vec<Op> {
        match *op {
            Op::Renew { lock, ms } => vec![Op::Acquire { lock, ms }],
            Op::Release(lock) => vec![Op::Holder(lock)],
            _ => Vec::new(),
        }
    }
}
