//! What the clients of a random plan do with keys.
//!
//! Mostly few keys, so that operations meet, in other seeds many of which some are popular; every written
//! value is unique, so that a read shows which write it saw. The mix of operations is drawn per seed: a seed with reads only between writes
//! finds other bugs than one of transactions.

use stormkv::types::NodeId;

use super::{Condition, Guard, Op, Step, Value};
use crate::plan::{self, Call, Clients, Cluster, Manner, OpRow};
use crate::swarm::{Dice, Purpose, REUSING, VARIED, restart_clients};

/// What is drawn, with its weight in each mix: put, get, delete, cas, scan, txn.
const KINDS: [&str; 6] = ["put", "get", "delete", "cas", "scan", "txn"];
const MIXES: [[u32; 6]; 6] = [
    [30, 30, 8, 15, 7, 10],
    [15, 70, 3, 5, 5, 2],
    [80, 15, 2, 3, 0, 0],
    [10, 25, 5, 55, 3, 2],
    [20, 15, 10, 5, 25, 25],
    [40, 45, 15, 0, 0, 0],
];

/// The most keys of a random plan.
const MOST_KEYS: u32 = 64;
/// A huge value takes at most so many chunks of a snapshot, and so many bytes.
const HUGE_CHUNKS: u32 = 64;
const HUGE_BYTES: u32 = 256 << 10;

/// What is drawn once per seed.
struct Style {
    keys: Vec<String>,
    /// Weight and position of each key.
    popularity: Vec<(u32, usize)>,
    hot_percent: u32,
    weights: [(u32, &'static str); 6],
    big_percent: u32,
    pin_percent: u32,
    nodes: u32,
    /// The number of the newest value that may stand under each key.
    newest: Vec<Option<u32>>,
}

/// Draws one operation of some client for each of these times.
pub(super) fn operations(seed: u64, times: &[u64], cluster: &Cluster, clients: u32) -> Vec<OpRow> {
    let dice = &mut Dice::new(seed, Purpose::Operations);
    let few = dice.between(1, 8);
    let special = &mut Dice::new(seed, Purpose::Keys);
    let popularity = popularity(special, few);
    let keys = popularity.len();
    let mix = dice.pick(&MIXES);
    let mut style = Style {
        keys: (1..=keys).map(|key| format!("k{key}")).collect(),
        popularity,
        hot_percent: if dice.percent(50) { dice.between(30, 90) } else { 0 },
        weights: std::array::from_fn(|kind| (mix[kind], KINDS[kind])),
        big_percent: if dice.percent(20) { dice.between(1, 15) } else { 0 },
        pin_percent: if dice.percent(30) { dice.between(10, 60) } else { 0 },
        nodes: cluster.nodes + cluster.learners,
        newest: vec![None; keys],
    };
    let mut rows = Vec::with_capacity(times.len());
    for (position, at_us) in times.iter().enumerate() {
        let client = dice.between(1, clients);
        let call = style.call(dice, position as u32 + 1);
        rows.push(OpRow { at_us: *at_us, client, call });
    }
    if special.percent(5) {
        write_huge_values(special, &mut rows, cluster.chunk_bytes);
    }
    if special.percent(20) {
        restart_clients(special, &mut rows, clients);
    }
    rows
}

/// Draws how popular each key is: a few keys that are all alike, or many of which the first is asked
/// for twice as often as the second, three times as often as the third, and so on (Zipf's law).
fn popularity(dice: &mut Dice, few: u32) -> Vec<(u32, usize)> {
    if dice.percent(80) {
        return (0..few as usize).map(|key| (1, key)).collect();
    }
    let many = dice.scaled(8, MOST_KEYS);
    (1..=many).map(|rank| (1000 / rank, rank as usize - 1)).collect()
}

/// Makes a few puts so large that the value alone fills many chunks of a snapshot.
fn write_huge_values(dice: &mut Dice, rows: &mut [OpRow], chunk_bytes: u32) {
    let most = (HUGE_CHUNKS * chunk_bytes).min(HUGE_BYTES);
    for number in 1..=dice.between(1, 3) {
        let at = dice.below(rows.len() as u32) as usize;
        if let Some(Op::Put { key, .. }) = Op::of(&rows[at].call.op) {
            let value = Value::padded(format!("huge{number}"), dice.between(most / 4, most));
            rows[at].call.op = Op::Put { key, value }.into();
        }
    }
}

/// Bytes of the largest value that small commands are answered with.
const MOST_ANSWER_BYTES: u32 = 64 << 10;
/// Bytes of a session with the longest response that is kept, about.
const SESSION_BYTES: u32 = 1200;

/// In a few seeds, small commands have large answers: compare-and-swaps that fail and transactions
/// that read, through sessions that come and go. Some answers are just short enough to be kept. In
/// some of these seeds, the sessions with their answers do not all have room.
pub(super) fn large_answers(
    seed: u64,
    rows: &mut Vec<OpRow>,
    cluster: &mut Cluster,
    clients: &Clients,
) {
    let dice = &mut Dice::new(seed, Purpose::Answers);
    if !dice.percent(3) {
        return;
    }
    cluster.chunk_bytes = cluster.chunk_bytes.max(MOST_ANSWER_BYTES / HUGE_CHUNKS);
    if dice.percent(40) {
        let all = (clients.count * clients.in_flight * SESSION_BYTES).div_ceil(1 << 10);
        cluster.session_kib = (all * dice.between(50, 200) / 100).max(4);
    }
    let keys = dice.between(1, 2);
    for (number, row) in (1..).zip(rows.iter_mut()) {
        let key = format!("k{}", dice.between(1, keys));
        let kind = dice.below(if number == 1 { 1 } else { 10 });
        let is_kept = row.call.op == plan::Op::Restart || kind > 7;
        let op = match kind {
            _ if is_kept => continue,
            0 | 1 => Op::Put { key, value: large_value(dice, number) },
            2..6 => {
                let new = Value::new(format!("swapped{number}"));
                Op::Cas { key, old: Some(Value::new("never")), new }
            }
            _ => {
                let conditions = vec![Condition { key: key.clone(), value: None }];
                let reads = vec![Step::Get { key: key.clone() }, Step::Get { key }];
                Op::Txn { conditions, then: reads.clone(), otherwise: reads }
            }
        };
        row.call.op = op.into();
    }
    restart_clients(dice, rows, clients.count);
}

fn large_value(dice: &mut Dice, number: u32) -> Value {
    let len = match dice.percent(25) {
        true => dice.between(256, 1100),
        false => dice.scaled(4 << 10, MOST_ANSWER_BYTES),
    };
    Value::padded(format!("large{number}"), len)
}

impl Style {
    fn call(&mut self, dice: &mut Dice, number: u32) -> Call {
        let key = self.key(dice);
        let op = match dice.weighted(&self.weights) {
            "put" => Op::Put { key: self.name(key), value: self.write(dice, key, number, "") },
            "get" => Op::Get { key: self.name(key) },
            "delete" => {
                self.newest[key] = None;
                Op::Delete { key: self.name(key) }
            }
            "cas" => {
                let old = self.guess(dice, key);
                Op::Cas { key: self.name(key), old, new: self.write(dice, key, number, "") }
            }
            "scan" => {
                let prefix = if dice.percent(70) { String::new() } else { self.name(key) };
                Op::Scan { prefix, limit: 0 }
            }
            _ => self.transaction(dice, key, number),
        };
        let pinned = dice.percent(self.pin_percent);
        let node = pinned.then(|| NodeId(dice.between(1, self.nodes).into()));
        Call { node, ..Call::from(op) }
    }

    fn key(&self, dice: &mut Dice) -> usize {
        if dice.percent(self.hot_percent) { 0 } else { dice.weighted(&self.popularity) }
    }

    fn name(&self, key: usize) -> String {
        self.keys[key].clone()
    }

    /// A value that no other operation writes; `part` tells the writes of one operation apart.
    fn write(&mut self, dice: &mut Dice, key: usize, number: u32, part: &str) -> Value {
        let word = format!("v{number}{part}");
        if dice.percent(self.big_percent) {
            return Value::padded(word, dice.scaled(256, 16384));
        }
        if part.is_empty() {
            self.newest[key] = Some(number);
        }
        Value::new(word)
    }

    /// What probably stands under this key: a comparison that always fails tests little.
    fn guess(&self, dice: &mut Dice, key: usize) -> Option<Value> {
        let newest = self.newest[key]?;
        match dice.below(10) {
            0 => None,
            1 => Some(Value::new(format!("v{}", dice.between(1, newest)))),
            _ => Some(Value::new(format!("v{newest}"))),
        }
    }

    fn transaction(&mut self, dice: &mut Dice, key: usize, number: u32) -> Op {
        let mut conditions = Vec::new();
        for _ in 0..dice.below(3) {
            let key = self.key(dice);
            conditions.push(Condition { key: self.name(key), value: self.guess(dice, key) });
        }
        let mut then = Vec::new();
        for part in ["a", "b", "c"].into_iter().take(dice.between(1, 3) as usize) {
            let key = if part == "a" { key } else { self.key(dice) };
            then.push(self.step(dice, key, number, part));
        }
        let mut otherwise = Vec::new();
        if !conditions.is_empty() && dice.percent(60) {
            let key = self.key(dice);
            otherwise.push(self.step(dice, key, number, "d"));
        }
        Op::Txn { conditions, then, otherwise }
    }

    fn step(&mut self, dice: &mut Dice, key: usize, number: u32, part: &str) -> Step {
        let value = self.write(dice, key, number, part);
        match dice.below(10) {
            0..6 => Step::Put { key: self.name(key), value },
            6..8 => Step::Get { key: self.name(key) },
            _ => Step::Delete { key: self.name(key) },
        }
    }
}

/// Changes how some operations are asked for.
pub(super) fn vary(seed: u64, rows: &mut [OpRow]) {
    let dice = &mut Dice::new(seed, Purpose::Surface);
    if !dice.percent(VARIED) {
        return;
    }
    let mut share = || if dice.percent(50) { dice.between(10, 70) } else { 0 };
    let (no_session, guarded, stale, paged) = (share(), share(), share(), share());
    for row in rows.iter_mut() {
        let call = &mut row.call;
        let Some(op) = Op::of(&call.op) else { continue };
        let op = match op {
            Op::Put { key, value } if dice.percent(guarded) => {
                Op::Guarded { key, guard: guard(dice), value: Some(value) }
            }
            Op::Delete { key } if dice.percent(guarded) => {
                Op::Guarded { key, guard: guard(dice), value: None }
            }
            Op::Scan { prefix, .. } if dice.percent(paged) => {
                Op::Scan { prefix, limit: dice.between(1, 4) }
            }
            op => op,
        };
        if !op.is_read() && dice.percent(no_session) {
            call.manner = Manner::NoSession;
        }
        if op.is_read() && dice.percent(stale) {
            call.manner = Manner::Stale;
        }
        call.op = op.into();
    }
    if dice.percent(REUSING) {
        let share = dice.between(5, 30);
        let puts = rows.iter_mut().map(|row| &mut row.call);
        let puts = puts.filter(|call| matches!(Op::of(&call.op), Some(Op::Put { .. })));
        for call in puts.filter(|call| call.manner == Manner::Usual) {
            if dice.percent(share) {
                call.manner = Manner::Reused;
            }
        }
    }
}

fn guard(dice: &mut Dice) -> Guard {
    dice.weighted(&[(6, Guard::Seen), (2, Guard::Absent), (2, Guard::Present)])
}

/// One operation in so many writes a large value in a long run, of so many bytes.
const LARGE_EVERY: usize = 32;
const LARGE_BYTES: u32 = 4096;

/// Makes the sizes of values the same in all windows of a long run: a large one now and then.
pub(super) fn even_out(op: &mut Op, at: usize) {
    let word = |part: &str| Value::new(format!("v{}{part}", at + 1));
    match op {
        Op::Put { value, .. } if at.is_multiple_of(LARGE_EVERY) => {
            *value = Value::padded(format!("v{}", at + 1), LARGE_BYTES);
        }
        Op::Put { value, .. } => *value = word(""),
        Op::Cas { new, .. } => *new = word(""),
        Op::Txn { then, otherwise, .. } => {
            let steps = then.iter_mut().chain(otherwise);
            for (step, part) in steps.zip(["a", "b", "c", "d"]) {
                if let Step::Put { value, .. } = step {
                    *value = word(part);
                }
            }
        }
        _ => {}
    }
}

/// Bytes of the values that an operation writes at most.
pub(super) fn written_bytes(op: &Op) -> u64 {
    let len = |value: &Value| value.bytes().len() as u64;
    let steps = |steps: &[Step]| {
        let values = steps.iter().filter_map(|step| match step {
            Step::Put { value, .. } => Some(len(value)),
            _ => None,
        });
        values.sum::<u64>()
    };
    match op {
        Op::Put { value, .. }
        | Op::Cas { new: value, .. }
        | Op::Guarded { value: Some(value), .. } => len(value),
        Op::Txn { then, otherwise, .. } => steps(then).max(steps(otherwise)),
        _ => 0,
    }
}
