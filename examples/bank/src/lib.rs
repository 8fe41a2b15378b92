//! A replicated ledger, and what the simulator needs to know of it.
//!
//! [`Accounts`] is the state machine: eight accounts, and transfers between them that must not
//! overdraw. [`Ledger`] says how its operations are written in a scenario, how they are drawn at
//! random, and what must hold: no transfer makes or destroys money. [`Book`] is the reference
//! that each answer is compared with, and [`Receipts`] a checker of its own. All other checkers, the
//! faults, clients, shrinking and replay are the simulator's.
//!
//! With the feature `node`, the binary `bank-node` is a real node of the same ledger, over TCP and files,
//! and `tests/cluster.rs` runs three of them.
//!
//! With `LEAKY` the snapshot of a state leaves out what does not fill a whole chunk, a mistake that no
//! test without a restart finds.

mod receipts;

use std::fmt;

use bytes::Bytes;
use stormkv::machine::{Chunks, Context, StateMachine};
use stormkv::types::LogIndex;
use stormkv_sim::plan::{ClockFault, Fault, LinkFault, Who};
use stormkv_sim::service::{
    Checker, CustomFault, Encode, Injector, Invariant, Model, Request, Search, Service, Shown,
    Stateless,
};
use stormkv_sim::swarm::Dice;

pub use crate::receipts::Receipts;

/// The number of accounts.
pub const ACCOUNTS: usize = 8;
/// The balance of each in the beginning.
pub const OPENING_BALANCE: u64 = 100;
/// Accounts in a chunk of a snapshot.
const PER_CHUNK: usize = 3;

/// An operation, and its text in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `transfer FROM TO AMOUNT`: refused if there is too little on the first account.
    Transfer {
        /// The account that is debited.
        from: usize,
        /// The account that is credited.
        to: usize,
        /// How much.
        amount: u64,
    },
    /// `balance ACCOUNT`.
    Balance(usize),
    /// `total`: the sum of all balances.
    Total,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Transfer { from, to, amount } => write!(f, "transfer {from} {to} {amount}"),
            Op::Balance(account) => write!(f, "balance {account}"),
            Op::Total => f.write_str("total"),
        }
    }
}

/// Parses an operation; commands and queries are sent as this text, too.
fn parse(text: &str) -> Result<Op, String> {
    let words: Vec<&str> = text.split(' ').collect();
    let account = |word: &str| match word.parse() {
        Ok(account) if account < ACCOUNTS => Ok(account),
        _ => Err(format!("`{word}` is not an account in `{text}`; use 0 to {}", ACCOUNTS - 1)),
    };
    match words[..] {
        ["transfer", from, to, amount] => {
            let amount = amount
                .parse()
                .map_err(|_| format!("`{amount}` is not an amount in `{text}`; use a number"))?;
            Ok(Op::Transfer { from: account(from)?, to: account(to)?, amount })
        }
        ["balance", number] => Ok(Op::Balance(account(number)?)),
        ["total"] => Ok(Op::Total),
        _ => Err(format!(
            "`{text}` is not an operation; write `transfer FROM TO AMOUNT`, `balance ACCOUNT` or `total`"
        )),
    }
}

impl Encode for Op {
    fn encode(&self) -> Request {
        let text = Bytes::from(self.to_string());
        match self {
            Op::Transfer { .. } => Request::Command(text),
            Op::Balance(_) | Op::Total => Request::Query(text),
        }
    }
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts<const LEAKY: bool = false> {
    balances: Vec<u64>,
}

impl<const LEAKY: bool> Accounts<LEAKY> {
    /// The sum of all balances.
    pub fn total(&self) -> u64 {
        self.balances.iter().sum()
    }

    fn balance(&self, account: usize) -> u64 {
        self.balances.get(account).copied().unwrap_or(0)
    }

    fn transfer(&mut self, from: usize, to: usize, amount: u64) -> String {
        let balance = self.balance(from);
        let [Some(_), Some(_)] = [self.balances.get(from), self.balances.get(to)] else {
            return "no such account".to_owned();
        };
        if balance < amount {
            return format!("refused: {balance} left");
        }
        self.balances[from] -= amount;
        self.balances[to] += amount;
        format!("done: {} left", self.balances[from])
    }
}

impl<const LEAKY: bool> StateMachine for Accounts<LEAKY> {
    type Params = ();

    fn new((): &()) -> Self {
        Accounts { balances: vec![OPENING_BALANCE; ACCOUNTS] }
    }

    fn apply(&mut self, _context: Context, command: &[u8]) -> Bytes {
        // A command that cannot be read is in the log already, so every replica must answer it alike.
        let answer = match str::from_utf8(command).map_err(|e| e.to_string()).and_then(parse) {
            Ok(Op::Transfer { from, to, amount }) => self.transfer(from, to, amount),
            Ok(other) => format!("`{other}` is not a command"),
            Err(error) => error,
        };
        answer.into()
    }

    fn query(&self, query: &[u8]) -> Bytes {
        let answer = match str::from_utf8(query).map_err(|e| e.to_string()).and_then(parse) {
            Ok(Op::Balance(account)) => self.balance(account).to_string(),
            Ok(Op::Total) => self.total().to_string(),
            Ok(other) => format!("`{other}` is not a query"),
            Err(error) => error,
        };
        answer.into()
    }

    fn snapshot(&self) -> Chunks {
        let encode = |accounts: &[u64]| -> Bytes {
            accounts.iter().flat_map(|balance| balance.to_le_bytes()).collect()
        };
        let chunks: Vec<Bytes> = match LEAKY {
            false => self.balances.chunks(PER_CHUNK).map(encode).collect(),
            // The mistake: the accounts that fill no whole chunk are lost.
            true => self.balances.chunks_exact(PER_CHUNK).map(encode).collect(),
        };
        Box::new(chunks.into_iter())
    }

    fn restore((): &(), chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Self, String> {
        let mut balances = Vec::new();
        for chunk in chunks {
            let (whole, rest) = chunk.as_chunks();
            if !rest.is_empty() {
                return Err(format!("a chunk of {} bytes is no list of balances", chunk.len()));
            }
            balances.extend(whole.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        }
        Ok(Accounts { balances })
    }

    fn digest(&self) -> u64 {
        // FNV-1a over the balances: the order matters, and each bit.
        self.balances.iter().fold(0xcbf2_9ce4_8422_2325, |hash, balance| {
            (hash ^ balance).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
        })
    }
}

/// The reference: all balances after each transfer that was committed.
#[derive(Clone, Debug)]
pub struct Book<const LEAKY: bool = false> {
    pages: Vec<(LogIndex, [u64; ACCOUNTS])>,
}

impl<const LEAKY: bool> Book<LEAKY> {
    fn as_of(&self, index: LogIndex) -> [u64; ACCOUNTS] {
        let page = self.pages.partition_point(|(at, _)| *at <= index);
        page.checked_sub(1).map_or([OPENING_BALANCE; ACCOUNTS], |page| self.pages[page].1)
    }
}

impl<const LEAKY: bool> Book<LEAKY> {
    /// A hash of the newest balances, which all later answers depend on.
    fn digest(&self) -> u64 {
        Accounts::<LEAKY> { balances: self.as_of(LogIndex::MAX).to_vec() }.digest()
    }
}

impl<const LEAKY: bool> Model for Book<LEAKY> {
    type Machine = Accounts<LEAKY>;

    fn new((): &()) -> Self {
        Book { pages: Vec::new() }
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        let index = context.index;
        let Ok(Op::Transfer { from, to, amount }) = parse(&String::from_utf8_lossy(command)) else {
            return Bytes::new();
        };
        let mut page = self.as_of(index);
        let answer = match page[from].checked_sub(amount) {
            None => format!("refused: {} left", page[from]),
            Some(left) => {
                page[from] = left;
                page[to] += amount;
                format!("done: {} left", page[from])
            }
        };
        self.pages.push((index, page));
        answer.into()
    }

    fn query(&self, index: LogIndex, query: &[u8]) -> Option<Bytes> {
        let page = self.as_of(index);
        match parse(&String::from_utf8_lossy(query)) {
            Ok(Op::Balance(account)) => Some(page[account].to_string().into()),
            Ok(Op::Total) => Some(page.iter().sum::<u64>().to_string().into()),
            _ => None,
        }
    }

    fn compare(&self, machine: &Accounts<LEAKY>) -> Result<(), String> {
        let page = self.as_of(LogIndex::MAX);
        match machine.balances == page {
            true => Ok(()),
            false => Err(format!("holds {:?}, where the log makes {page:?}", machine.balances)),
        }
    }

    fn forget(&mut self) {
        self.pages.drain(..self.pages.len().saturating_sub(1));
    }

    fn remembered(&self) -> usize {
        self.pages.len()
    }
}

/// The longest that a migration takes, in milliseconds.
const MAX_MIGRATION_MS: u32 = 10_000;

/// `migrate N Tms`: the virtual machine of a node moves to another host. The node stands still, its clock
/// has lost T until it is set right, and its connections break when it arrives.
#[derive(Debug)]
pub struct Migration;

impl Migration {
    /// The time that the clock loses, in microseconds.
    fn lost_us(arguments: &str) -> Option<i64> {
        let ms = arguments.strip_suffix("ms")?.parse::<u32>().ok()?;
        (1..=MAX_MIGRATION_MS).contains(&ms).then(|| i64::from(ms) * 1000)
    }
}

impl CustomFault for Migration {
    fn name(&self) -> &'static str {
        "migrate"
    }

    fn form(&self) -> &'static str {
        "migrate N|leader|same Tms"
    }

    fn check(&self, arguments: &str) -> Result<(), String> {
        match Migration::lost_us(arguments) {
            Some(_) => Ok(()),
            None => Err(format!("`{arguments}` is not a time (1ms to {MAX_MIGRATION_MS}ms)")),
        }
    }

    fn draw(&self, dice: &mut Dice) -> String {
        format!("{}ms", dice.scaled(10, 2000))
    }

    fn inject(&self, arguments: &str, injector: &mut Injector<'_>) -> bool {
        let Some(lost_us) = Migration::lost_us(arguments) else { return false };
        let target = Who::Node(injector.node());
        let is_up = injector.inject(Fault::Pause(target));
        if is_up {
            injector.inject(Fault::Clock(target, ClockFault::Step(-lost_us)));
        }
        is_up
    }

    /// The pause and the step of the clock end with the fault.
    fn clear(&self, _arguments: &str, injector: &mut Injector<'_>) {
        injector.inject(LinkFault::ResetNode(Who::Node(injector.node())));
    }
}

/// The ledger as a service of the simulator.
#[derive(Debug)]
pub struct Ledger<const LEAKY: bool = false>;

impl<const LEAKY: bool> Service for Ledger<LEAKY> {
    type Machine = Accounts<LEAKY>;
    type Model = Book<LEAKY>;
    type Op = Op;
    type Client = Stateless<Op>;

    const COMMAND: &'static str = "cargo run -p bank --";

    const GRAMMAR: &'static [(&'static str, &'static str)] = &[
        ("transfer", "transfer FROM TO AMOUNT"),
        ("balance", "balance ACCOUNT"),
        ("total", "total"),
    ];

    const FAULTS: &'static [&'static dyn CustomFault] = &[&Migration];

    const INVARIANT: Option<Invariant<Accounts<LEAKY>>> = Some(|accounts, reach| {
        if accounts.balances.contains(&0) {
            reach("account-emptied");
        }
        let (total, right) = (accounts.total(), OPENING_BALANCE * ACCOUNTS as u64);
        match total == right {
            true => Ok(()),
            false => Err(format!("holds {total} on all accounts, not {right}")),
        }
    });

    const SEARCH: Option<Search<Book<LEAKY>>> = Some(Search::new(Book::digest));

    const MARKS: &'static [&'static str] = &["account-emptied", "overdraft-refused"];

    fn checkers() -> Vec<Box<dyn Checker<Self>>> {
        vec![Box::new(Receipts::default())]
    }

    fn parse(words: &str) -> Result<Op, String> {
        parse(words)
    }

    fn is_read(op: &Op) -> bool {
        !matches!(op, Op::Transfer { .. })
    }

    fn describe(shown: Shown<'_>) -> String {
        String::from_utf8_lossy(shown.bytes()).into_owned()
    }

    fn subjects(op: &Op) -> Vec<String> {
        match op {
            Op::Transfer { from, to, .. } => vec![from.to_string(), to.to_string()],
            Op::Balance(account) => vec![account.to_string()],
            Op::Total => Vec::new(),
        }
    }

    fn generate(dice: &mut Dice, _number: u32) -> Op {
        let account = |dice: &mut Dice| dice.below(ACCOUNTS as u32) as usize;
        match dice.below(10) {
            0..6 => {
                let (from, to) = (account(dice), account(dice));
                // Often more than there is.
                Op::Transfer { from, to, amount: dice.scaled(1, 200).into() }
            }
            6..9 => Op::Balance(account(dice)),
            _ => Op::Total,
        }
    }

    fn simpler(op: &Op) -> Vec<Op> {
        match *op {
            Op::Transfer { from, to, amount } if amount > 1 => {
                vec![Op::Transfer { from, to, amount: 1 }]
            }
            _ => Vec::new(),
        }
    }
}
