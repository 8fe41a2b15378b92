//! The key-value machine and the session table against models that are too simple to be wrong.
//!
//! `Kv` runs random commands beside a plain `BTreeMap`, which must give the same answers. The
//! session table meets clients that retry, give up and are overtaken by their own duplicates, and
//! replicas that are rebuilt from a snapshot at any point: each command takes effect at most once,
//! and a rebuilt replica cannot be told from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use stormkv::kv::{
    Command, Compare, Guard, KeyValue, Kv, MAX_TXN, Query, Response, TxnOp, Versioned,
};
use stormkv::machine::{Chunks, Context, StateMachine};
use stormkv::session::{SessionLimits, Sessions, Verdict};
use stormkv::types::{LogIndex, SessionId};

/// The model of `Kv`: value and revision by key.
type Model = BTreeMap<Bytes, (Bytes, LogIndex)>;

fn model_value(model: &Model, key: &Bytes) -> Option<Bytes> {
    model.get(key).map(|(value, _)| value.clone())
}

fn model_write(model: &mut Model, key: &Bytes, value: Option<&Bytes>, index: LogIndex) {
    match value {
        Some(value) => {
            model.insert(key.clone(), (value.clone(), index));
        }
        None => {
            model.remove(key);
        }
    }
}

fn model_apply(model: &mut Model, index: LogIndex, command: &Command) -> Response {
    match command {
        Command::Put { key, value } => {
            model_write(model, key, Some(value), index);
            Response::Written { revision: index }
        }
        Command::Delete { key } => Response::Deleted { existed: model.remove(key).is_some() },
        Command::Cas { key, expected, new } => {
            let current = model_value(model, key);
            let swapped = current == *expected;
            if swapped {
                model_write(model, key, new.as_ref(), index);
            }
            Response::Swapped { swapped, current }
        }
        Command::Guarded { key, guard, value } => {
            let revision = model.get(key).map(|(_, revision)| *revision);
            let holds = match guard {
                Guard::Absent => revision.is_none(),
                Guard::Present => revision.is_some(),
                Guard::Revision(expected) => revision == Some(*expected),
            };
            if !holds {
                return Response::Conflict { revision };
            }
            model_write(model, key, value.as_ref(), index);
            match value {
                Some(_) => Response::Written { revision: index },
                None => Response::Deleted { existed: revision.is_some() },
            }
        }
        Command::Txn { compares, then, otherwise } => {
            let holds = |compare: &Compare| model_value(model, &compare.key) == compare.expected;
            let succeeded = compares.iter().all(holds);
            let mut results = Vec::new();
            for operation in if succeeded { then } else { otherwise } {
                match operation {
                    TxnOp::Get { key } => results.push(model_value(model, key)),
                    TxnOp::Put { key, value } => model_write(model, key, Some(value), index),
                    TxnOp::Delete { key } => model_write(model, key, None, index),
                }
            }
            Response::Committed { succeeded, results }
        }
    }
}

/// Few and short, over an alphabet with both extreme bytes, so that keys meet and share prefixes.
fn key() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![Just(0u8), Just(b'a'), Just(0xff)], 0..4).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(0u8..3, 0..3),
        1 => (0u8..3, 20_000usize..80_000).prop_map(|(byte, len)| vec![byte; len]),
    ]
    .prop_map(Bytes::from)
}

/// What a compare expects: short values only, which are likely to be met.
fn expected() -> impl Strategy<Value = Option<Bytes>> {
    option::of(vec(0u8..3, 0..2).prop_map(Bytes::from))
}

fn operation() -> impl Strategy<Value = TxnOp> {
    prop_oneof![
        key().prop_map(|key| TxnOp::Get { key }),
        (key(), vec(0u8..3, 0..3).prop_map(Bytes::from))
            .prop_map(|(key, value)| TxnOp::Put { key, value }),
        key().prop_map(|key| TxnOp::Delete { key }),
    ]
}

/// Low revisions, which keys are likely to have.
fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![Just(Guard::Absent), Just(Guard::Present), (1u64..8).prop_map(Guard::Revision),]
}

fn command() -> impl Strategy<Value = Command> {
    let compare = (key(), expected()).prop_map(|(key, expected)| Compare { key, expected });
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Command::Put { key, value }),
        2 => key().prop_map(|key| Command::Delete { key }),
        2 => (key(), expected(), option::of(value()))
            .prop_map(|(key, expected, new)| Command::Cas { key, expected, new }),
        2 => (key(), guard(), option::of(value()))
            .prop_map(|(key, guard, value)| Command::Guarded { key, guard, value }),
        2 => (vec(compare, 0..2), vec(operation(), 0..6), vec(operation(), 0..6))
            .prop_map(|(compares, then, otherwise)| Command::Txn { compares, then, otherwise }),
    ]
}

/// The machine makes nothing of time.
fn at(index: LogIndex) -> Context {
    Context::new(index, Duration::ZERO)
}

fn apply(kv: &mut Kv, index: LogIndex, command: &Command) -> Response {
    Response::decode(&kv.apply(at(index), &command.encode())).expect("a response")
}

fn ask(kv: &Kv, query: &Query) -> Response {
    Response::decode(&kv.query(&query.encode())).expect("a response")
}

fn restore(chunks: Chunks) -> Kv {
    Kv::restore(&(), &mut { chunks }).expect("a good snapshot")
}

/// Reads everything under a prefix, page by page.
fn scan(kv: &Kv, prefix: &Bytes, limit: u32) -> Vec<KeyValue> {
    let mut all: Vec<KeyValue> = Vec::new();
    loop {
        let after = all.last().map(|entry| entry.key.clone());
        let query = Query::Scan { prefix: prefix.clone(), after, limit };
        let Response::Entries { entries, more } = ask(kv, &query) else {
            panic!("a scan is answered with entries");
        };
        assert!(entries.len() <= limit as usize, "a page is no longer than asked for");
        assert!(!more || !entries.is_empty(), "a page that promises more is not empty");
        all.extend(entries);
        if !more {
            return all;
        }
    }
}

fn model_scan(model: &Model, prefix: &Bytes) -> Vec<KeyValue> {
    let entry = |(key, (value, revision)): (&Bytes, &(Bytes, LogIndex))| KeyValue {
        key: key.clone(),
        value: value.clone(),
        revision: *revision,
    };
    model.iter().filter(|(key, _)| key.starts_with(prefix)).map(entry).collect()
}

proptest! {
    #[test]
    fn kv_answers_like_the_model(
        commands in vec(command(), 1..80),
        prefixes in vec(key(), 4),
        limit in 1u32..5,
    ) {
        let (mut kv, mut model) = (Kv::default(), Model::new());
        for (index, command) in (1..).zip(&commands) {
            let response = apply(&mut kv, index, command);
            prop_assert_eq!(response, model_apply(&mut model, index, command));
            prop_assert_eq!(kv.len(), model.len());
        }
        for prefix in prefixes.iter().chain([&Bytes::new()]) {
            prop_assert_eq!(scan(&kv, prefix, limit), model_scan(&model, prefix));
            let found = model.get(prefix).map(|(value, revision)| Versioned {
                value: value.clone(),
                revision: *revision,
            });
            prop_assert_eq!(ask(&kv, &Query::Get { key: prefix.clone() }), Response::Value(found));
        }
    }

    #[test]
    fn digests_agree_exactly_if_states_do(commands in vec(command(), 1..80)) {
        let mut kv = Kv::default();
        let mut model = Model::new();
        let mut states = BTreeMap::new();
        let mut digests = BTreeSet::new();
        for (index, command) in (1..).zip(&commands) {
            apply(&mut kv, index, command);
            model_apply(&mut model, index, command);
            // The same state by another way: only what is left, the last key first.
            let mut direct = Kv::default();
            for (key, (value, revision)) in model.iter().rev() {
                let put = Command::Put { key: key.clone(), value: value.clone() };
                apply(&mut direct, *revision, &put);
            }
            prop_assert_eq!(kv.digest(), direct.digest());
            prop_assert_eq!(&kv, &direct);
            states.insert(model.clone(), kv.digest());
            digests.insert(kv.digest());
        }
        prop_assert_eq!(states.len(), digests.len(), "two states share a digest");
    }

    #[test]
    fn a_snapshot_is_frozen_and_restores_to_the_same_machine(
        before in vec(command(), 0..60),
        after in vec(command(), 1..40),
        read_late in 0usize..4,
    ) {
        let mut kv = Kv::default();
        for (index, command) in (1..).zip(&before) {
            apply(&mut kv, index, command);
        }
        let frozen = kv.clone();
        let expected: Vec<Bytes> = kv.snapshot().collect();
        // Some chunks are read before the machine moves on, some after.
        let mut stream = kv.snapshot();
        let mut chunks: Vec<Bytes> = stream.by_ref().take(read_late).collect();
        let start = before.len() as LogIndex + 1;
        let responses: Vec<Bytes> =
            (start..).zip(&after).map(|(index, command)| kv.apply(at(index), &command.encode())).collect();
        chunks.extend(stream);
        prop_assert_eq!(&chunks, &expected);

        let mut restored = restore(Box::new(chunks.into_iter()));
        prop_assert_eq!(&restored, &frozen);
        prop_assert_eq!(restored.digest(), frozen.digest());
        for ((index, command), response) in (start..).zip(&after).zip(&responses) {
            prop_assert_eq!(&restored.apply(at(index), &command.encode()), response);
        }
        prop_assert_eq!(restored.digest(), kv.digest());
        let (again, first) = (restored.snapshot(), kv.snapshot());
        prop_assert!(again.eq(first), "the same state has the same chunks");
    }

    #[test]
    fn foreign_bytes_are_refused_without_effect(
        bytes in vec(any::<u8>(), 0..60),
        commands in vec(command(), 1..10),
        flips in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8u8), 1..4),
    ) {
        let mut kv = Kv::default();
        for (index, command) in (1..).zip(&commands) {
            apply(&mut kv, index, command);
        }
        let before = kv.clone();
        let response = Response::decode(&kv.apply(at(99), &bytes)).expect("a response");
        if Command::decode(&bytes).is_err() {
            let invalid = matches!(response, Response::Invalid { .. });
            prop_assert!(invalid, "garbage is answered with {:?}", response);
            prop_assert_eq!(&kv, &before);
        }
        let response = Response::decode(&kv.query(&bytes)).expect("a response");
        let invalid = matches!(response, Response::Invalid { .. });
        prop_assert_eq!(invalid, Query::decode(&bytes).is_err());
        // A message that decodes means the same once it is encoded again.
        if let Ok(response) = Response::decode(&bytes) {
            prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
        }

        let chunks: Vec<Bytes> = before.snapshot().collect();
        let mut damaged: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        for (chunk, byte, bit) in flips {
            let chunk = chunk.index(damaged.len());
            let byte = byte.index(damaged[chunk].len());
            damaged[chunk][byte] ^= 1 << bit;
        }
        // Flips may cancel out; whatever is accepted must be the very same state.
        match Kv::restore(&(), &mut damaged.into_iter().map(Bytes::from)) {
            Ok(kv) => prop_assert_eq!(kv, before),
            Err(reason) => prop_assert!(reason.starts_with("the key-value snapshot: ")),
        }
        for foreign in [vec![bytes.clone()], vec![chunks[0].to_vec(), bytes.clone()]] {
            let foreign = || foreign.iter().cloned().map(Bytes::from);
            if let Ok(kv) = Kv::restore(&(), &mut foreign()) {
                prop_assert!(foreign().next() == chunks.first().cloned() || kv.is_empty());
            }
            if let Err(reason) = Sessions::restore(limits(1), &mut foreign()) {
                prop_assert!(reason.starts_with("the session table: "));
            }
        }
    }
}

fn limits(count: usize) -> SessionLimits {
    SessionLimits { count, bytes: 1 << 20 }
}

/// One thing that happens on the way from clients to the log.
#[derive(Clone, Debug)]
enum Step {
    /// A client opens a (new) session, and gives up what it was doing.
    Open { client: usize },
    /// A client sends its command: the next one if the last was answered, or else a retry.
    Send { client: usize, reply_lost: bool },
    /// A client gives up on its command and goes on with the next number.
    GiveUp { client: usize },
    /// A copy of a command that was sent before, by anyone, arrives only now.
    Duplicate { which: prop::sample::Index },
    /// The other replica is rebuilt from a snapshot of the first.
    Rebuild,
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..4usize;
    prop_oneof![
        2 => client.clone().prop_map(|client| Step::Open { client }),
        10 => (client.clone(), any::<bool>())
            .prop_map(|(client, reply_lost)| Step::Send { client, reply_lost }),
        1 => client.prop_map(|client| Step::GiveUp { client }),
        4 => any::<prop::sample::Index>().prop_map(|which| Step::Duplicate { which }),
        1 => Just(Step::Rebuild),
    ]
}

#[derive(Clone, Copy, Default)]
struct Client {
    session: Option<SessionId>,
    /// The number of the command it is sending.
    seq: u64,
}

/// A member of the cluster: table and machine, as they are driven by the log.
struct Replica {
    sessions: Sessions,
    /// Every command that took effect, in order: the machine, reduced to what matters here.
    effects: Vec<(SessionId, u64)>,
}

impl Replica {
    /// Applies one command as a node does, and returns the response if it has one.
    fn apply(&mut self, (id, seq): (SessionId, u64), index: LogIndex) -> Result<Bytes, Verdict> {
        match self.sessions.check(id, seq, &seq.to_le_bytes(), index) {
            Verdict::Fresh => {
                self.effects.push((id, seq));
                let response = Bytes::from(format!("{} of {} at {index}", seq, id.0));
                self.sessions.record(id, seq, &seq.to_le_bytes(), response.clone());
                Ok(response)
            }
            Verdict::Repeated(response) => Ok(response),
            refused => Err(refused),
        }
    }
}

/// Two replicas apply the same log, of which the second is rebuilt at times; the clients see the
/// first.
struct World {
    limit: usize,
    index: LogIndex,
    first: Replica,
    second: Replica,
    clients: [Client; 4],
    sent: Vec<(SessionId, u64)>,
    /// The response to each command that took effect, and the effect's number.
    responses: BTreeMap<(SessionId, u64), Bytes>,
    /// Open sessions by a model of eviction: the least recently used one first.
    model: Vec<SessionId>,
}

impl World {
    fn new(limit: usize) -> World {
        let replica = || Replica { sessions: Sessions::new(limits(limit)), effects: Vec::new() };
        World {
            limit,
            index: 0,
            first: replica(),
            second: replica(),
            clients: Default::default(),
            sent: Vec::new(),
            responses: BTreeMap::new(),
            model: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Open { client } => {
                self.index += 1;
                let id = self.first.sessions.open(self.index);
                prop_assert_eq!(self.second.sessions.open(self.index), id);
                self.model.push(id);
                if self.model.len() > self.limit {
                    self.model.remove(0);
                }
                self.clients[client] = Client { session: Some(id), seq: 1 };
            }
            Step::Send { client, reply_lost } => {
                let Client { session: Some(id), seq } = self.clients[client] else {
                    return Ok(());
                };
                self.sent.push((id, seq));
                let answered = self.arrive((id, seq))?;
                if answered && !reply_lost {
                    self.clients[client].seq += 1;
                }
            }
            Step::GiveUp { client } => self.clients[client].seq += 1,
            Step::Duplicate { which } if !self.sent.is_empty() => {
                self.arrive(self.sent[which.index(self.sent.len())])?;
            }
            Step::Duplicate { .. } => {}
            Step::Rebuild => {
                let chunks = &mut self.first.sessions.chunks();
                self.second.sessions =
                    Sessions::restore(limits(self.limit), chunks).expect("good chunks");
            }
        }
        prop_assert_eq!(self.first.sessions.digest(), self.second.sessions.digest());
        prop_assert_eq!(self.first.sessions.len(), self.model.len());
        prop_assert_eq!(self.second.sessions.len(), self.model.len());
        Ok(())
    }

    /// A command arrives in the log; returns whether it was answered.
    fn arrive(&mut self, command: (SessionId, u64)) -> Result<bool, TestCaseError> {
        self.index += 1;
        let before = self.first.effects.len();
        let outcome = self.first.apply(command, self.index);
        prop_assert_eq!(&self.second.apply(command, self.index), &outcome);
        let took_effect = self.first.effects.len() > before;

        let position = self.model.iter().position(|&id| id == command.0);
        if let Some(position) = position {
            let id = self.model.remove(position);
            self.model.push(id);
        }
        let newest = self.first.effects[..before]
            .iter()
            .filter_map(|&(id, seq)| (id == command.0).then_some(seq))
            .max()
            .unwrap_or(0);
        match outcome {
            Ok(response) => {
                prop_assert!(position.is_some(), "an evicted session is not served");
                prop_assert_eq!(took_effect, command.1 > newest, "fresh means newer than any");
                let first = self.responses.entry(command).or_insert_with(|| response.clone());
                prop_assert_eq!(&*first, &response, "a retry gets the first response");
                Ok(true)
            }
            Err(refused) => {
                let expected = match position {
                    Some(_) => Verdict::OutOfOrder,
                    None => Verdict::Expired,
                };
                prop_assert_eq!(refused, expected);
                prop_assert!(position.is_none() || command.1 < newest);
                Ok(false)
            }
        }
    }
}

proptest! {
    #[test]
    fn each_command_takes_effect_at_most_once(
        steps in vec(step(), 1..150),
        limit in 1usize..5,
    ) {
        let mut world = World::new(limit);
        for step in steps {
            world.step(step)?;
        }
        let once: BTreeSet<_> = world.first.effects.iter().collect();
        prop_assert_eq!(once.len(), world.first.effects.len());
        prop_assert_eq!(&world.first.effects, &world.second.effects);
    }
}

#[test]
fn a_transaction_beyond_the_limit_is_refused_on_every_replica_alike() {
    let put = TxnOp::Put { key: "k".into(), value: "v".into() };
    let txn = |count| Command::Txn {
        compares: vec![],
        then: vec![put.clone(); count],
        otherwise: vec![],
    };
    let (mut one, mut other) = (Kv::default(), restore(Kv::default().snapshot()));
    let refused = one.apply(at(1), &txn(MAX_TXN + 1).encode());
    assert_eq!(refused, other.apply(at(1), &txn(MAX_TXN + 1).encode()));
    assert!(matches!(Response::decode(&refused), Ok(Response::Invalid { .. })));
    assert_eq!(one, Kv::default());
    let committed = Response::Committed { succeeded: true, results: vec![] };
    assert_eq!(apply(&mut one, 2, &txn(MAX_TXN)), committed);
    assert_eq!(one.len(), 1);
}
