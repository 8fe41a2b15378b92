//! Concurrent clients, each with its own idea of what to do next and where.
//!
//! Half of them use sessions: what was not answered they repeat at another node, with the same
//! idempotency key, and it must take effect once. The others ask once and take an unknown outcome
//! as it comes. All are threads that block, as simple programs do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use stormkv_sim::history::{Action, Answer, History, Key, Outcome, Txn, TxnOp, Value};
use stormkv_sim::rng::{Purpose, Stream};

use super::http::{Connection, Request, encode};
use super::kv::{self, Told};
use super::record::Recorder;

/// The pause before another attempt.
const PAUSE: Duration = Duration::from_millis(20);

/// What clients share.
#[derive(Clone, Debug)]
pub struct Options {
    /// Drives what they do.
    pub seed: u64,
    /// How many there are.
    pub clients: u64,
    /// Keys come in groups that scans and transactions stay within.
    pub groups: u64,
    /// Keys of a group.
    pub keys: u64,
    /// Between an answer and the next operation, about.
    pub think: Duration,
    /// How long they wait for an answer.
    pub patience: Duration,
    /// How long they repeat an operation, if they do.
    pub give_up: Duration,
}

impl Options {
    /// Eight clients on four groups of three keys.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            clients: 8,
            groups: 4,
            keys: 3,
            think: Duration::from_millis(3),
            patience: Duration::from_secs(2),
            give_up: Duration::from_secs(15),
        }
    }
}

/// One client.
pub struct Client {
    recorder: Arc<Recorder>,
    nodes: Vec<Connection>,
    at: usize,
    process: u64,
    /// Added to the number after an unknown outcome: a process does one thing at a time.
    stride: u64,
    /// The session and the number of its newest command, if it uses one.
    session: Option<(u64, u64)>,
    once: bool,
    give_up: Duration,
}

impl Client {
    /// A client of the nodes at these addresses. `once`: with sessions and retries.
    pub fn new(
        recorder: Arc<Recorder>,
        addresses: &[SocketAddr],
        process: u64,
        stride: u64,
        once: bool,
        options: &Options,
    ) -> Client {
        let node = |address: &SocketAddr| Connection::new(*address, options.patience);
        Client {
            recorder,
            nodes: addresses.iter().map(node).collect(),
            at: process as usize % addresses.len(),
            process,
            stride,
            session: None,
            once,
            give_up: options.give_up,
        }
    }

    /// The next attempt goes to another node.
    fn elsewhere(&mut self) {
        self.at = (self.at + 1) % self.nodes.len();
    }

    /// The next attempt goes to the node at this place in the list.
    pub fn visit(&mut self, at: usize) {
        self.at = at % self.nodes.len();
    }

    /// Does one thing, writes it down, and says what came of it.
    pub fn perform(&mut self, action: Action) -> Outcome {
        let once = self.next_key(&action);
        let op = self.recorder.invoke(self.process, action.clone());
        let outcome = self.attempts(&action, once);
        self.recorder.complete(op, outcome.clone());
        if outcome == Outcome::Info {
            self.process += self.stride;
        }
        outcome
    }

    fn attempts(&mut self, action: &Action, once: Option<(u64, u64)>) -> Outcome {
        let began = Instant::now();
        let repeats = once.is_some() || action.is_read();
        let mut doubt = false;
        loop {
            let request = kv::request(action, once);
            match kv::judge(action, self.nodes[self.at].ask(&request)) {
                Told::Done(answer) => {
                    if doubt && !action.is_read() {
                        self.recorder.retried();
                    }
                    return Outcome::Ok(answer);
                }
                Told::Refused => {}
                Told::Unknown => doubt = true,
                Told::SessionLost => {
                    // The node may have tried more than once: an earlier attempt may have worked.
                    self.session = None;
                    return Outcome::Info;
                }
                Told::Wrong(what) => {
                    self.recorder.wrong(what);
                    return Outcome::Info;
                }
            }
            self.elsewhere();
            if !repeats || began.elapsed() > self.give_up {
                return if doubt && !action.is_read() { Outcome::Info } else { Outcome::Fail };
            }
            thread::sleep(PAUSE);
        }
    }

    /// The idempotency key of the next command.
    fn next_key(&mut self, action: &Action) -> Option<(u64, u64)> {
        if !self.once || action.is_read() {
            return None;
        }
        if self.session.is_none() {
            let answer = self.nodes[self.at].ask(&Request::new("POST", "/v1/sessions"));
            match answer.ok().and_then(|answer| answer.json()["session"].as_u64()) {
                Some(session) => self.session = Some((session, 0)),
                // Without one it is asked only once.
                None => self.elsewhere(),
            }
        }
        let (session, sequence) = self.session.as_mut()?;
        *sequence += 1;
        Some((*session, *sequence))
    }

    /// All keys that begin with this, and their values, page by page.
    #[track_caller]
    pub fn list(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut after = String::new();
        loop {
            let target =
                format!("/v1/kv?prefix={}&after={}&limit=1000", encode(prefix), encode(&after));
            let page = super::until("a page of a scan is answered", || {
                let answer = self.nodes[self.at].ask(&Request::new("GET", target.clone())).ok();
                let answer = answer.filter(|answer| answer.status == 200);
                if answer.is_none() {
                    self.elsewhere();
                }
                answer.map(|answer| answer.json())
            });
            for entry in page["entries"].as_array().expect("entries") {
                let text = |name: &str| entry[name].as_str().expect("a text").to_owned();
                found.insert(text("key"), text("value"));
            }
            if page["more"] != true {
                return found;
            }
            after = found.keys().next_back().expect("there are more after it").clone();
        }
    }

    /// Reads until there is an answer.
    #[track_caller]
    pub fn read(&mut self, key: &Key) -> Option<Value> {
        let began = Instant::now();
        loop {
            let outcome = self.perform(Action::Get { key: key.clone() });
            if let Outcome::Ok(Answer::Value(value)) = outcome {
                return value;
            }
            assert!(began.elapsed() < super::PATIENCE * 2, "nobody answers a read of {key}");
        }
    }
}

/// What keys that are written once begin with.
const ONCE: &str = "once/";

/// The threads of a swarm. They end with it, even if the test fails.
struct Crew {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn stop(&mut self) -> Vec<thread::Result<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(JoinHandle::join).collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A swarm of clients, at work until it is stopped.
pub struct Load {
    recorder: Arc<Recorder>,
    /// The number of the window; held for reading while an operation is under way.
    window: Arc<RwLock<u64>>,
    crew: Crew,
    reader: Client,
    options: Options,
}

impl Load {
    /// Sets clients to work on these nodes.
    pub fn start(addresses: &[SocketAddr], options: &Options) -> Load {
        let recorder = Arc::new(Recorder::default());
        let window = Arc::new(RwLock::new(0));
        let stride = options.clients + 1;
        let client = |number: u64, once: bool| {
            Client::new(recorder.clone(), addresses, number, stride, once, options)
        };
        let mut crew = Crew { stop: Arc::default(), threads: Vec::new() };
        for number in 1..=options.clients {
            let worker = Worker::new(client(number, number % 2 == 0), number, options.clone());
            let (stop, window) = (crew.stop.clone(), window.clone());
            crew.threads.push(thread::spawn(move || worker.run(&stop, &window)));
        }
        let reader = client(0, false);
        Load { recorder, window, crew, reader, options: options.clone() }
    }

    /// What came of everything so far.
    pub fn counts(&self) -> super::record::Counts {
        self.recorder.counts()
    }

    /// The keys of the puts that were acknowledged so far and are done only once.
    pub fn written(&self) -> Vec<String> {
        self.recorder.written()
    }

    /// Waits until so many more operations were answered.
    #[track_caller]
    pub fn progress(&self, more: u64) {
        let before = self.counts().ok;
        super::until("the clients get on", || (self.counts().ok >= before + more).then_some(()));
    }

    /// Ends the window: waits until nothing is under way, reads all its keys, and begins the next
    /// with other keys. Returns the number and the history of the window that is over.
    #[track_caller]
    pub fn rotate(&mut self) -> (u64, History) {
        let window = self.window.clone();
        let mut number = window.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys(*number, &self.options) {
            self.reader.read(&key);
        }
        *number += 1;
        (*number - 1, self.recorder.take())
    }

    /// Stops the clients and reads all keys of the window.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        for ended in self.crew.stop() {
            ended.expect("a client does not panic");
        }
        let written = self.recorder.written();
        let counts = self.recorder.counts();
        let (window, history) = self.rotate();
        Finished { window, history, written, counts, reader: self.reader, options: self.options }
    }
}

/// What a swarm leaves.
pub struct Finished {
    /// The number of the last window.
    pub window: u64,
    /// Its history.
    pub history: History,
    /// Keys that were acknowledged and are written only once, each with its own name as value.
    pub written: Vec<String>,
    /// What came of all operations.
    pub counts: super::record::Counts,
    reader: Client,
    options: Options,
}

impl Finished {
    /// Reads the keys of a window once more.
    #[track_caller]
    pub fn readings(&mut self, window: u64) -> BTreeMap<Key, Option<Value>> {
        let keys = keys(window, &self.options);
        keys.into_iter().map(|key| (key.clone(), self.reader.read(&key))).collect()
    }

    /// Nothing that was acknowledged may be missing.
    #[track_caller]
    pub fn nothing_is_lost(&mut self) {
        are_there(&self.written, &self.reader.list(ONCE));
    }
}

/// Reads the keys that are written once at this address, whose node leads or knows a leader.
#[track_caller]
pub fn list_written(address: SocketAddr) -> BTreeMap<String, String> {
    let options = Options::new(0);
    Client::new(Arc::default(), &[address], 0, 1, false, &options).list(ONCE)
}

/// None of the acknowledged keys may be missing in what was found.
#[track_caller]
pub fn are_there(written: &[String], found: &BTreeMap<String, String>) {
    for key in written {
        assert_eq!(found.get(key), Some(key), "the acknowledged put of {key} is lost");
    }
}

/// All keys of a window.
fn keys(window: u64, options: &Options) -> Vec<Key> {
    let group = |group| (0..options.keys).map(move |key| name(window, group, key));
    (0..options.groups).flat_map(group).collect()
}

fn name(window: u64, group: u64, key: u64) -> Key {
    format!("{}k{key}", prefix(window, group)).into()
}

/// With a slash, so that keys need encoding in a path.
fn prefix(window: u64, group: u64) -> String {
    format!("w{window}/g{group}/")
}

/// A client with something to do.
struct Worker {
    client: Client,
    number: u64,
    choices: Stream,
    /// What it saw last, by key: so that its compares hold now and then.
    seen: BTreeMap<Key, Option<Value>>,
    count: u64,
    options: Options,
}

impl Worker {
    fn new(client: Client, number: u64, options: Options) -> Worker {
        Worker {
            client,
            number,
            choices: Stream::new(options.seed, Purpose::Client, [number]),
            seen: BTreeMap::new(),
            count: 0,
            options,
        }
    }

    fn run(mut self, stop: &AtomicBool, window: &RwLock<u64>) {
        let mut last = 0;
        while !stop.load(Ordering::Relaxed) {
            {
                let window = window.read().unwrap_or_else(PoisonError::into_inner);
                if *window != last {
                    self.seen.clear();
                    last = *window;
                }
                self.step(*window);
            }
            let think = self.options.think.as_micros() as u64;
            thread::sleep(Duration::from_micros(self.choices.below(2 * think + 1)));
        }
    }

    fn step(&mut self, window: u64) {
        self.count += 1;
        // Mostly at one node, sometimes elsewhere.
        if self.choices.below(8) == 0 {
            let at = self.choices.below(64) as usize;
            self.client.visit(at);
        }
        let group = self.choices.below(self.options.groups);
        let mut pick = || name(window, group, self.choices.below(self.options.keys));
        let (key, other) = (pick(), pick());
        let value = Value::text(&format!("{}.{}", self.number, self.count));
        let seen = self.seen.get(&key).cloned().flatten();
        let action = match self.choices.below(100) {
            0..28 => Action::Put { key: key.clone(), value: value.clone() },
            28..56 => Action::Get { key: key.clone() },
            56..72 => Action::Cas { key: key.clone(), expected: seen, new: value.clone() },
            72..78 => Action::Delete { key: key.clone() },
            78..84 => Action::Scan { prefix: prefix(window, group).into() },
            84..92 => Action::Txn(Box::new(Txn {
                conditions: vec![(key.clone(), seen)],
                then: vec![TxnOp::Put(key.clone(), value.clone()), TxnOp::Get(other.clone())],
                otherwise: vec![TxnOp::Get(key.clone()), TxnOp::Delete(other)],
            })),
            _ => return self.write_once(window),
        };
        let outcome = self.client.perform(action.clone());
        self.learn(key, value, &action, &outcome);
    }

    fn learn(&mut self, key: Key, value: Value, action: &Action, outcome: &Outcome) {
        let Outcome::Ok(answer) = outcome else { return };
        match (action, answer) {
            (Action::Put { .. }, _) | (Action::Cas { .. }, Answer::Swapped(true)) => {
                self.seen.insert(key, Some(value));
            }
            (Action::Get { .. }, Answer::Value(value)) => {
                self.seen.insert(key, value.clone());
            }
            (Action::Delete { .. }, _) => {
                self.seen.insert(key, None);
            }
            (Action::Cas { .. }, Answer::Swapped(false)) => {
                self.seen.remove(&key);
            }
            (Action::Txn(_), Answer::Txn { succeeded, results }) => {
                let first = results.iter().flatten().next();
                let value = match first {
                    Some(Answer::Value(value)) if !succeeded => value.clone(),
                    _ => Some(value),
                };
                self.seen.insert(key, value);
            }
            _ => {}
        }
    }

    /// A key that only this client writes, once, and that is never written again: if the put was
    /// acknowledged, it must be there for ever. No checker is needed to see that.
    fn write_once(&mut self, window: u64) {
        let key = format!("{ONCE}{window}/{}/{}", self.number, self.count);
        let action = Action::Put { key: key.as_str().into(), value: Value::text(&key) };
        if matches!(self.client.perform(action), Outcome::Ok(_)) {
            self.client.recorder.acknowledged(key);
        }
    }
}
