//! The tables of a recording. Each is in the order of the events; an event is named by its number, from 1,
//! which is also the number that a replay stops at.
//!
//! [`past`] finds the events that may have led to the violation.
//!
//! Rows are small and hold numbers; what is text is interned. A hundred thousand events take some
//! twenty megabytes while the run goes on.

pub mod past;

use rustc_hash::FxHashMap;

use crate::plan::MessageKind;

/// The number of an event, from 1; 0 for none.
pub type StepNumber = u32;

/// A place in [`Recording::lanes`].
pub type LaneNumber = u16;

/// The lane of what happens to nobody in particular: faults, and the end of all faults.
pub const STORM: LaneNumber = 0;

/// A text in [`Recording::strings`]; 0 is the empty one.
pub type Text = u32;

/// Declares names that a reader of the block finds in its lists, in the same order.
macro_rules! named {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            /// All names, in the order of their numbers.
            pub const NAMES: &[&str] = &[$($text,)*];

            /// Its name.
            pub fn name(self) -> &'static str {
                $name::NAMES[self as usize]
            }
        }
    };
}

named! {
    /// Whose lane it is.
    LaneKind {
        /// Nobody's.
        #[default]
        Storm = "storm",
        /// A node's.
        Node = "node",
        /// A client's, or one of its hands; the operator's is `c0`.
        Client = "client",
    }
}

named! {
    /// What an event is.
    StepKind {
        /// It could not happen when it was due: its node is paused or busy, or its disk hangs. It
        /// happens in a later event, or never.
        #[default]
        PutOff = "put-off",
        /// A node's timer.
        Tick = "tick",
        /// A message arrives at a node.
        Deliver = "deliver",
        /// A client's request arrives at a node.
        Request = "request",
        /// An answer arrives at a client.
        Reply = "reply",
        /// A node hears from its host that messages were lost.
        Notice = "notice",
        /// A client's timer: it begins, or asks again.
        Client = "client",
        /// A client's process is replaced by a new one.
        ClientRestart = "client-restart",
        /// A disk carries out an operation.
        Disk = "disk",
        /// A disk has read something.
        Read = "read",
        /// A node acts on the inputs that it has collected.
        Flush = "flush",
        /// A slow node hears from its disk.
        Complete = "complete",
        /// A slow node looks for its next input, and there is none.
        Serve = "serve",
        /// A node in a crash loop crashes.
        CrashAgain = "crash-again",
        /// A node is started.
        Start = "start",
        /// A fault strikes.
        Fault = "fault",
        /// A fault ends.
        Mend = "mend",
        /// All faults end.
        Heal = "heal",
        /// Has the cluster come to rest?
        Rest = "rest",
    }
}

named! {
    /// What became of a message.
    Fate {
        /// The run ended first.
        #[default]
        UnderWay = "under-way",
        /// It arrived.
        Delivered = "delivered",
        /// Lost when it was sent: by chance.
        Loss = "loss",
        /// Lost when it was sent: by a fault that makes links worse.
        Weather = "weather",
        /// Lost when it was sent: there is no way.
        Partition = "partition",
        /// Lost when it was sent: the plan says so of this one.
        Exception = "exception",
        /// Lost when it was sent: too much waits for the same connection.
        QueueFull = "queue-full",
        /// Lost when it was sent: the connection is broken, and its sender does not know.
        Broken = "broken",
        /// Lost on the way: a partition began meanwhile.
        Cut = "cut",
        /// Lost on the way, with its connection.
        Reset = "reset",
        /// Lost at its end: the receiver is down.
        Down = "down",
        /// Lost at its end: the receiver went down before it took it.
        Forgotten = "forgotten",
        /// Lost at its end: too much waits for a slow node.
        InboxFull = "inbox-full",
        /// Its bytes were damaged, and the receiver has noticed.
        Garbled = "garbled",
    }
}

named! {
    /// What a disk did.
    DiskVerb {
        /// Made a file.
        #[default]
        Create = "create",
        /// Wrote bytes.
        Write = "write",
        /// Made a file durable.
        Sync = "sync",
        /// Renamed a file.
        Rename = "rename",
        /// Removed a file.
        Remove = "remove",
        /// Made the names of the files durable.
        SyncDir = "sync-dir",
    }
}

named! {
    /// What happened to somebody, apart from messages, disk operations and changes of state.
    MarkKind {
        /// A node has lost its power, and what was not durable.
        #[default]
        Crash = "crash",
        /// A node's process was killed.
        Kill = "kill",
        /// A node has stopped by itself.
        Stop = "stop",
        /// A node has panicked.
        Panic = "panic",
        /// A node starts.
        Start = "start",
        /// A node does not start.
        Refused = "refused",
        /// A power loss left a part of something that was being written.
        Torn = "torn",
        /// A disk reports an error.
        DiskError = "disk-error",
        /// Bytes on a disk are damaged, and nobody knows yet.
        Damage = "damage",
        /// A node that was damaged has everything again.
        Whole = "whole",
        /// A node does not come back: it is outside of the core.
        Lost = "lost",
        /// The faults are over.
        Healed = "healed",
        /// A client's process was replaced.
        ClientRestart = "client-restart",
    }
}

named! {
    /// How a client's operation ended.
    Answered {
        /// It had not.
        #[default]
        Open = "open",
        /// With an answer.
        Ok = "ok",
        /// Without an effect.
        Refused = "refused",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

/// The role of a node, as [`State::role`] numbers them.
pub const ROLES: &[&str] = &["follower", "pre-candidate", "candidate", "leader"];

/// The name of each bit of [`State::condition`], the lowest first.
pub const CONDITIONS: &[&str] = &["up", "paused", "disk-hangs", "damaged", "slow", "gone"];

/// The bits of [`State::condition`].
pub mod condition {
    /// It runs.
    pub const UP: u64 = 1;
    /// It stands still.
    pub const PAUSED: u64 = 2;
    /// Its disk carries out nothing.
    pub const DISK_HANGS: u64 = 4;
    /// It knows that it has lost something, and has not got it back.
    pub const DAMAGED: u64 = 8;
    /// It takes time for its inputs.
    pub const SLOW: u64 = 16;
    /// It never starts again.
    pub const GONE: u64 = 32;
}

/// The kinds of messages by name, as [`MessageRecord::kind`] numbers them.
pub fn message_kinds() -> Vec<&'static str> {
    MessageKind::all().map(MessageKind::name).collect()
}

/// Who has a line of events of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// What traces call it.
    pub name: String,
    /// Whose it is.
    pub kind: LaneKind,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in simulated nanoseconds.
    pub at_ns: u64,
    /// Whom it happens to.
    pub lane: LaneNumber,
    /// What it is.
    pub kind: StepKind,
}

/// Consecutive entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// How many.
    pub count: u64,
    /// Their term.
    pub term: u64,
}

/// A message, or one of two copies of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRecord {
    /// The event in which it was sent.
    pub sent: StepNumber,
    /// By whom.
    pub from: LaneNumber,
    /// To whom.
    pub to: LaneNumber,
    /// What it is; see [`message_kinds`].
    pub kind: u8,
    /// The network made it of the one in the row before.
    pub copy: bool,
    /// It says no.
    pub reject: bool,
    /// It told its receiver nothing that still counts: its receiver was in a newer term already, or
    /// the client had gone on.
    pub stale: bool,
    /// What became of it.
    pub fate: Fate,
    /// The event in which that was decided; 0 if it is under way.
    pub end: StepNumber,
    /// The term that it speaks for; 0 for one that speaks for none.
    pub term: u64,
    /// Append: the entry before the first. Votes: the sender's last entry. Responses: the match.
    /// Chunks: the end of the snapshot. ReadIndexAnswer: the index.
    pub index: u64,
    /// The term of that entry.
    pub log_term: u64,
    /// What its sender knows to be committed.
    pub commit: u64,
    /// The terms of the entries that it carries, of which the first is at `index` + 1.
    pub entries: Box<[TermRun]>,
    /// What it says, if that is not in the numbers.
    pub text: Text,
    /// The operation that it is about, plus one; 0 if it is about none.
    pub op: u32,
}

/// An operation of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskWork {
    /// The event.
    pub step: StepNumber,
    /// Whose disk.
    pub lane: LaneNumber,
    /// What it did.
    pub verb: DiskVerb,
    /// To which file; the new name if it was renamed.
    pub file: Text,
    /// Where in it.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// It has failed.
    pub failed: bool,
}

/// Something that happened to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The event.
    pub step: StepNumber,
    /// Whom it happened to.
    pub lane: LaneNumber,
    /// What.
    pub kind: MarkKind,
    /// In words.
    pub text: Text,
}

/// What a node is after an event. That of one that is down is its last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Bits; see [`condition`].
    pub condition: u64,
    /// See [`ROLES`].
    pub role: u64,
    /// Its term.
    pub term: u64,
    /// The lane that it voted for; 0 for none.
    pub vote: u64,
    /// The lane that it follows; 0 for none.
    pub leader: u64,
    /// What it knows to be committed.
    pub commit: u64,
    /// What it has applied.
    pub applied: u64,
    /// The first entry of its log.
    pub first: u64,
    /// The last entry that its disk holds for sure.
    pub durable: u64,
    /// The end of its newest durable snapshot.
    pub snapshot: u64,
    /// The membership that it goes by, as a text.
    pub members: u64,
}

/// How a log changed: from an index on it holds other entries than before, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChange {
    /// The first index that is different.
    pub from: u64,
    /// The terms of what is there now.
    pub runs: Vec<TermRun>,
}

impl LogChange {
    /// The last index that is there now; the one before the first if nothing is.
    pub fn last(&self) -> u64 {
        self.from + self.runs.iter().map(|run| run.count).sum::<u64>() - 1
    }
}

/// An event has changed a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The event.
    pub step: StepNumber,
    /// Which node.
    pub lane: LaneNumber,
    /// What it is now.
    pub state: State,
    /// How its log changed, if it did.
    pub log: Option<Box<LogChange>>,
}

/// A client's operation, or the operator's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub lane: LaneNumber,
    /// The event in which it was called.
    pub call: StepNumber,
    /// The event in which it ended; 0 if it had not.
    pub ret: StepNumber,
    /// What it asks for, as a plan says it.
    pub what: Text,
    /// The keys that it is about, with a space between them.
    pub keys: Text,
    /// How it ended.
    pub outcome: Answered,
    /// What it was told.
    pub answer: Text,
    /// Where in the log it took effect, whatever it was told, or, for a read, up to where what it
    /// saw goes; 0 for nowhere.
    pub index: u64,
    /// The event at which it took effect, by the order of the log; 0 if there is none.
    pub point: StepNumber,
    /// It is part of the proof of the violation.
    pub proof: bool,
}

/// A fault, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSpan {
    /// Its number in the plan.
    pub number: u32,
    /// Its kind.
    pub kind: Text,
    /// What it is, as a plan says it.
    pub what: Text,
    /// The event in which it struck.
    pub start: StepNumber,
    /// The event in which it was mended; 0 if it was not.
    pub end: StepNumber,
    /// The nodes that it has hit.
    pub victims: Vec<LaneNumber>,
}

/// Who cannot reach whom from an event on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuts {
    /// The event.
    pub step: StepNumber,
    /// Senders and receivers.
    pub pairs: Vec<(LaneNumber, LaneNumber)>,
}

/// What an entry of the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryText {
    /// Its index.
    pub index: u64,
    /// Its term: there may be several entries of one index.
    pub term: u64,
    /// What it says.
    pub text: Text,
}

/// Texts, each kept once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings {
    all: Vec<String>,
    numbers: FxHashMap<String, Text>,
}

impl Default for Strings {
    fn default() -> Strings {
        let mut strings = Strings { all: Vec::new(), numbers: FxHashMap::default() };
        strings.number("");
        strings
    }
}

impl Strings {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> Text {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.all.len() as Text;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// All texts, by number.
    pub fn all(&self) -> &[String] {
        &self.all
    }

    /// A text.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn get(&self, number: Text) -> &str {
        &self.all[number as usize]
    }
}

/// A run as data. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The texts that the tables name.
    pub strings: Strings,
    /// First the storm, then the nodes by id, then the clients.
    pub lanes: Vec<Lane>,
    /// By number - 1.
    pub steps: Vec<Step>,
    /// In the order in which they were sent.
    pub messages: Vec<MessageRecord>,
    /// What disks did.
    pub disk: Vec<DiskWork>,
    /// What else happened.
    pub marks: Vec<Mark>,
    /// What nodes became.
    pub states: Vec<StateChange>,
    /// In the order of their calls.
    pub ops: Vec<Operation>,
    /// The faults that struck.
    pub faults: Vec<FaultSpan>,
    /// When the links that are cut changed.
    pub cuts: Vec<Cuts>,
    /// What the entries of the logs say, by index and term.
    pub entries: Vec<EntryText>,
    /// Indices, and the event in which each was committed for the first time anywhere.
    pub commits: Vec<(u64, StepNumber)>,
    /// The message that the violation is: its row, plus one; 0 if it is none.
    pub lie: u32,
    /// The node that the violation is about, if it is about one.
    pub blamed: Option<LaneNumber>,
    /// What the violation follows from: ranges of events, the last included. Empty if there is none.
    pub past: Vec<(StepNumber, StepNumber)>,
}

impl Recording {
    /// When an event happened, in nanoseconds.
    pub fn time_ns(&self, step: StepNumber) -> u64 {
        match step {
            0 => 0,
            step => self.steps[step as usize - 1].at_ns,
        }
    }

    /// A text.
    pub fn text(&self, number: Text) -> &str {
        self.strings.get(number)
    }

    /// What a lane is called.
    pub fn name(&self, lane: LaneNumber) -> &str {
        &self.lanes[usize::from(lane)].name
    }

    /// Whether the violation may follow from an event.
    pub fn is_past(&self, step: StepNumber) -> bool {
        let at = self.past.partition_point(|(_, last)| *last < step);
        self.past.get(at).is_some_and(|(first, _)| *first <= step)
    }
}
