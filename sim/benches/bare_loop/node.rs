//! One node of the bare loop: the crate `raft`, a storage without locks, a log of bytes, a map.

use std::collections::BTreeMap;

use raft::eraftpb::{ConfState, Entry, HardState, Message, Snapshot};
use raft::{GetEntriesContext, RaftState, RawNode, Ready, Storage, StorageError};

/// Length of the frame around an encoded message or entry: its length and its checksum.
const FRAME: usize = 8;

/// Ticks until an election: from the first, below the second. As in `stormkv::config::Config`.
const ELECTION_TICKS: (u64, u64) = (15, 30);
const HEARTBEAT_TICKS: usize = 3;

/// The storage that raft reads. Nothing is compacted.
pub struct Store {
    voters: Vec<u64>,
    hard_state: HardState,
    /// From index 1 on.
    entries: Vec<Entry>,
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState { voters: self.voters.clone(), ..ConfState::default() };
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let mut entries = self.entries[low as usize - 1..high as usize - 1].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == 0 {
            return Ok(0);
        }
        let entry = self.entries.get(index as usize - 1);
        entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.entries.len() as u64)
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        unreachable!("nothing is compacted")
    }
}

/// The log on an in-memory disk: frames of a hard state and entries. A write is durable at once.
#[derive(Default)]
pub struct Disk {
    bytes: Vec<u8>,
}

const HARD_STATE: u8 = 0;
const ENTRY: u8 = 1;

impl Disk {
    fn append(&mut self, kind: u8, message: &impl protobuf::Message) {
        self.bytes.push(kind);
        encode(message, &mut self.bytes);
    }

    fn recover(&self, voters: &[u64]) -> Store {
        let mut store = Store {
            voters: voters.to_vec(),
            hard_state: HardState::default(),
            entries: Vec::new(),
        };
        let mut rest = &self.bytes[..];
        while let Some((kind, frame)) = rest.split_first() {
            rest = match *kind {
                HARD_STATE => {
                    let (hard_state, rest) = decode(frame);
                    store.hard_state = hard_state;
                    rest
                }
                ENTRY => {
                    let (entry, rest) = decode::<Entry>(frame);
                    store.entries.truncate(entry.index as usize - 1);
                    store.entries.push(entry);
                    rest
                }
                kind => panic!("a record of kind {kind}"),
            };
        }
        store
    }
}

/// Appends a message in a frame.
pub fn encode(message: &impl protobuf::Message, bytes: &mut Vec<u8>) {
    let begin = bytes.len();
    bytes.resize(begin + FRAME, 0);
    message.write_to_vec(bytes).expect("memory takes it");
    let len = (bytes.len() - begin - FRAME) as u32;
    let checksum = crc32fast::hash(&bytes[begin + FRAME..]);
    bytes[begin..begin + 4].copy_from_slice(&len.to_le_bytes());
    bytes[begin + 4..begin + FRAME].copy_from_slice(&checksum.to_le_bytes());
}

/// Takes a message out of the frame at the beginning. Returns what is behind it, too.
pub fn decode<T: protobuf::Message>(bytes: &[u8]) -> (T, &[u8]) {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (body, rest) = bytes[FRAME..].split_at(number(0) as usize);
    assert_eq!(crc32fast::hash(body), number(4), "the checksum");
    (T::parse_from_bytes(body).expect("the checksum fits"), rest)
}

/// A node that runs.
pub struct Node {
    raft: RawNode<Store>,
    /// Sets its draws apart from those of others and of its earlier starts.
    key: u64,
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub applied: u64,
}

impl Node {
    pub fn start(id: u64, voters: &[u64], disk: &Disk, key: u64) -> Node {
        let (min, max) = ELECTION_TICKS;
        let config = raft::Config {
            id,
            election_tick: min as usize,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: min as usize,
            max_election_tick: max as usize,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, disk.recover(voters), &logger).expect("it is valid");
        let mut node = Node { raft, key, state: BTreeMap::new(), applied: 0 };
        node.settle();
        node
    }

    /// Draws the election timeout anew: raft takes it from a generator without a seed.
    fn settle(&mut self) {
        let (min, max) = ELECTION_TICKS;
        let raft = &mut self.raft.raft;
        let draw = super::cluster::mix(self.key ^ raft.term << 2 ^ raft.state as u64);
        raft.set_randomized_election_timeout((min + draw % (max - min)) as usize);
    }

    pub fn tick(&mut self) {
        self.raft.tick();
        self.settle();
    }

    pub fn step(&mut self, message: Message) {
        // A refusal is a lost message.
        let _ = self.raft.step(message);
        self.settle();
    }

    /// Returns whether the command is in the log of a leader now.
    pub fn propose(&mut self, command: Vec<u8>) -> bool {
        self.leads() && self.raft.propose(Vec::new(), command).is_ok()
    }

    pub fn leads(&self) -> bool {
        self.raft.raft.state == raft::StateRole::Leader
    }

    pub fn term(&self) -> u64 {
        self.raft.raft.term
    }

    /// Carries out what raft wants: writes, then lists messages to send and commands applied.
    pub fn ready(&mut self, disk: &mut Disk, sent: &mut Vec<Message>, done: &mut Vec<u64>) {
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            sent.append(&mut ready.take_messages());
            self.apply(ready.take_committed_entries(), done);
            self.write(&ready, disk);
            sent.append(&mut ready.take_persisted_messages());
            let mut light = self.raft.advance(ready);
            sent.append(&mut light.take_messages());
            self.apply(light.take_committed_entries(), done);
            self.raft.advance_apply();
        }
    }

    fn write(&mut self, ready: &Ready, disk: &mut Disk) {
        let store = self.raft.mut_store();
        for entry in ready.entries() {
            disk.append(ENTRY, entry);
            store.entries.truncate(entry.index as usize - 1);
            store.entries.push(entry.clone());
        }
        if let Some(hard_state) = ready.hs() {
            disk.append(HARD_STATE, hard_state);
            store.hard_state = hard_state.clone();
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, done: &mut Vec<u64>) {
        for entry in entries {
            assert_eq!(entry.index, self.applied + 1, "entries are applied in order");
            self.applied = entry.index;
            // A new leader's first entry is empty.
            let Some((number, value)) = entry.data.split_first_chunk() else { continue };
            let number = u64::from_le_bytes(*number);
            self.state.insert(format!("k{}", number % 16).into_bytes(), value.to_vec());
            done.push(number);
        }
    }
}
