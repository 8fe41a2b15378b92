//! What the clients did and were told, in one real-time order, and its judgement.
//!
//! The order is that of one lock: an operation is written down before its request is sent and
//! after its answer is read. The judge is the simulator's checker, unchanged. A long run is judged
//! in windows, so that neither the history nor the search grows with it: each window has keys of
//! its own, ends when no operation is under way, with a reading of all its keys, and leaves a short
//! history behind, of what was read last and of the commands that may still take effect. To that
//! the readings at the very end are added, and it is judged once more.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stormkv_sim::checker::linearizable::{self, Limits, Verdict};
use stormkv_sim::history::{Action, Answer, History, Key, Model, Outcome, Value, jsonl};

/// How long the checker may search. It takes far below a second as a rule.
const JUDGE: Duration = Duration::from_secs(120);

/// Counts of what came of the operations of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered.
    pub ok: u64,
    /// Certainly without effect.
    pub fail: u64,
    /// Unknown.
    pub info: u64,
    /// Answered after an attempt of unknown outcome: what exactly-once is for.
    pub retried: u64,
}

struct State {
    history: History,
    counts: Counts,
    /// What no correct node says.
    wrong: Vec<String>,
    /// Keys whose only put was acknowledged, each with its own name as value.
    written: Vec<String>,
}

/// Takes down what clients do.
pub struct Recorder {
    began: Instant,
    state: Mutex<State>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        let state = State {
            history: History::new(Model::Kv),
            counts: Counts::default(),
            wrong: Vec::new(),
            written: Vec::new(),
        };
        Recorder { began: Instant::now(), state: Mutex::new(state) }
    }
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A client is about to do something.
    pub fn invoke(&self, process: u64, action: Action) -> usize {
        let mut state = self.lock();
        let now = self.now_ns();
        state.history.invoke(process, action, now)
    }

    /// It was told this.
    pub fn complete(&self, op: usize, outcome: Outcome) {
        let mut state = self.lock();
        match outcome {
            Outcome::Ok(_) => state.counts.ok += 1,
            Outcome::Fail => state.counts.fail += 1,
            Outcome::Info => state.counts.info += 1,
        }
        let now = self.now_ns();
        state.history.complete(op, outcome, now);
    }

    /// An operation was answered although an attempt before had an unknown outcome.
    pub fn retried(&self) {
        self.lock().counts.retried += 1;
    }

    /// A node said what no correct node says.
    pub fn wrong(&self, what: String) {
        self.lock().wrong.push(what);
    }

    /// The only put of this key was acknowledged.
    pub fn acknowledged(&self, key: String) {
        self.lock().written.push(key);
    }

    /// The keys whose only put was acknowledged so far.
    pub fn written(&self) -> Vec<String> {
        self.lock().written.clone()
    }

    /// What came of all operations so far, of earlier windows too.
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Takes the history out, and begins another. No operation may be under way.
    ///
    /// # Panics
    /// If a node has said what no correct node says.
    #[track_caller]
    pub fn take(&self) -> History {
        let mut state = self.lock();
        assert!(state.wrong.is_empty(), "wrong answers:\n{}", state.wrong.join("\n"));
        std::mem::replace(&mut state.history, History::new(Model::Kv))
    }
}

/// Judges a history. Fails the test unless it is linearizable; the history is kept in `folder`.
#[track_caller]
pub fn judge(history: &History, folder: &Path, name: &str) {
    let (operations, began) = (history.ops().len(), Instant::now());
    let why = match verdict(history) {
        Verdict::Linearizable => {
            println!("{name}: {operations} operations, linearizable ({:?})", began.elapsed());
            return;
        }
        Verdict::Violation(why) => why.sentence,
        Verdict::Unknown(why) => format!("not decided: {why}"),
    };
    let path = folder.join(format!("{name}.jsonl"));
    let file = File::create(&path).expect("a file for the history");
    jsonl::write(history, BufWriter::new(file)).expect("the history is written");
    panic!(
        "{name}: {operations} operations are not linearizable: {why}\n\
         check again: cargo sim check {}",
        path.display()
    );
}

/// What the simulator's checker says.
pub fn verdict(history: &History) -> Verdict {
    let began = Instant::now();
    let limits = Limits { steps: u64::MAX, states: 24_000_000 };
    linearizable::check(history, limits, &mut || began.elapsed() > JUDGE)
}

/// What a window that was judged leaves behind.
pub struct Remnant {
    history: History,
}

impl Remnant {
    /// Of a history that ends with a reading of each of its keys.
    pub fn of(history: &History) -> Remnant {
        let mut last: BTreeMap<Key, Option<Value>> = BTreeMap::new();
        for op in history.ops() {
            if let (Action::Get { key }, Outcome::Ok(Answer::Value(value))) =
                (&op.action, &op.outcome)
            {
                last.insert(key.clone(), value.clone());
            }
        }
        let mut short = History::new(Model::Kv);
        for (key, value) in last {
            if let Some(value) = value {
                let op = short.invoke(0, Action::Put { key, value }, 0);
                short.complete(op, Outcome::Ok(Answer::Done), 0);
            }
        }
        // Unknown for ever: any of them may take effect at any time, or never.
        for op in history.ops() {
            if op.outcome == Outcome::Info && !op.action.is_read() {
                short.invoke(op.process, op.action.clone(), 0);
            }
        }
        Remnant { history: short }
    }

    /// Adds what was read of its keys in the end, and judges.
    #[track_caller]
    pub fn judge(mut self, readings: &BTreeMap<Key, Option<Value>>, folder: &Path, name: &str) {
        for (key, value) in readings {
            let op = self.history.invoke(0, Action::Get { key: key.clone() }, 0);
            self.history.complete(op, Outcome::Ok(Answer::Value(value.clone())), 0);
        }
        judge(&self.history, folder, name);
    }
}
