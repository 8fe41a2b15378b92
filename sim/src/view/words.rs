//! What the exports say alike: a message, a disk operation, a change, in few words.

use crate::recording::{
    DiskVerb, DiskWork, Fate, Mark, MessageRecord, ROLES, Recording, State, StateChange,
    StepNumber, TermRun, condition, message_kinds,
};

/// What became of a recording, by event: which rows of each table belong to it.
pub struct Index<'a> {
    recording: &'a Recording,
    /// Messages by the event in which their fate was decided.
    ends: Vec<u32>,
    pub faults: Spans,
    pub ops: Spans,
}

impl<'a> Index<'a> {
    pub fn new(recording: &'a Recording) -> Index<'a> {
        let mut ends: Vec<u32> = (0..recording.messages.len() as u32).collect();
        ends.sort_by_key(|row| recording.messages[*row as usize].end);
        let faults = Spans::of(recording.faults.iter().map(|fault| (fault.start, fault.end)));
        let ops = Spans::of(recording.ops.iter().map(|op| (op.call, op.ret)));
        Index { recording, ends, faults, ops }
    }

    /// The messages whose fate was decided in an event after they were sent.
    pub fn ended(&self, step: u32) -> impl Iterator<Item = (usize, &'a MessageRecord)> + '_ {
        let recording = self.recording;
        let end = |row: &u32| recording.messages[*row as usize].end;
        let first = self.ends.partition_point(|row| end(row) < step);
        let rows = self.ends[first..].iter().take_while(move |row| end(row) == step);
        let rows = rows.map(move |row| (*row as usize, &recording.messages[*row as usize]));
        rows.filter(|(_, letter)| !is_lost_at_once(letter))
    }

    /// The messages that were sent in an event.
    pub fn sent(&self, step: u32) -> impl Iterator<Item = (usize, &'a MessageRecord)> + use<'a> {
        rows(&self.recording.messages, step, |letter| letter.sent)
    }

    /// What disks did in an event.
    pub fn disk(&self, step: u32) -> impl Iterator<Item = &'a DiskWork> + use<'a> {
        rows(&self.recording.disk, step, |work| work.step).map(|(_, work)| work)
    }

    /// What else happened in an event.
    pub fn marks(&self, step: u32) -> impl Iterator<Item = &'a Mark> + use<'a> {
        rows(&self.recording.marks, step, |mark| mark.step).map(|(_, mark)| mark)
    }

    /// What an event has changed.
    pub fn states(&self, step: u32) -> impl Iterator<Item = &'a StateChange> + use<'a> {
        rows(&self.recording.states, step, |change| change.step).map(|(_, change)| change)
    }
}

/// The rows of an event in a table that is in the order of the events.
fn rows<T>(
    table: &[T],
    step: u32,
    of: impl Fn(&T) -> u32 + Copy,
) -> impl Iterator<Item = (usize, &T)> {
    let first = table.partition_point(|row| of(row) < step);
    (first..).zip(&table[first..]).take_while(move |(_, row)| of(row) == step)
}

/// When each row of a table begins and ends.
pub struct Spans {
    begins: Vec<(StepNumber, usize)>,
    ends: Vec<(StepNumber, usize)>,
    open: Vec<usize>,
}

impl Spans {
    fn of(spans: impl Iterator<Item = (StepNumber, StepNumber)>) -> Spans {
        let mut all = Spans { begins: Vec::new(), ends: Vec::new(), open: Vec::new() };
        for (row, (start, end)) in spans.enumerate() {
            all.begins.push((start, row));
            match end {
                0 => all.open.push(row),
                end => all.ends.push((end, row)),
            }
        }
        all.begins.sort_unstable();
        all.ends.sort_unstable();
        all
    }

    /// The rows that begin in an event.
    pub fn begins(&self, step: StepNumber) -> impl Iterator<Item = usize> + '_ {
        Spans::at(&self.begins, step)
    }

    /// The rows that end in an event.
    pub fn ends(&self, step: StepNumber) -> impl Iterator<Item = usize> + '_ {
        Spans::at(&self.ends, step)
    }

    /// The rows that never end.
    pub fn open(&self) -> impl Iterator<Item = usize> + '_ {
        self.open.iter().copied()
    }

    fn at(moments: &[(StepNumber, usize)], step: StepNumber) -> impl Iterator<Item = usize> + '_ {
        let first = moments.partition_point(|(at, _)| *at < step);
        moments[first..].iter().take_while(move |(at, _)| *at == step).map(|(_, row)| *row)
    }
}

/// Whether a message never went on its way.
pub fn is_lost_at_once(letter: &MessageRecord) -> bool {
    matches!(
        letter.fate,
        Fate::Loss
            | Fate::Weather
            | Fate::Partition
            | Fate::Exception
            | Fate::QueueFull
            | Fate::Broken
    )
}

/// `4@2`, or `4..6@2 7@3` for several.
fn entries(first: u64, runs: &[TermRun]) -> String {
    let mut at = first;
    let one = |run: &TermRun| {
        let start = at;
        at += run.count;
        match run.count {
            1 => format!("{start}@{}", run.term),
            _ => format!("{start}..{}@{}", at - 1, run.term),
        }
    };
    runs.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A message: `Append prev=3@1 [4@2] commit=3`.
pub fn message(recording: &Recording, letter: &MessageRecord) -> String {
    let kind = message_kinds()[usize::from(letter.kind)];
    let mut text = kind.to_owned();
    match kind {
        "Append" => {
            let entries = entries(letter.index + 1, &letter.entries);
            let (index, term, commit) = (letter.index, letter.log_term, letter.commit);
            text += &format!(" prev={index}@{term} [{entries}] commit={commit}");
        }
        "Vote" | "PreVote" => text += &format!(" last={}@{}", letter.index, letter.log_term),
        "AppendResp" => text += &format!(" match={}", letter.index),
        "Heartbeat" => text += &format!(" commit={}", letter.commit),
        "Chunk" => text += &format!(" of snapshot {}@{}", letter.index, letter.log_term),
        "ReadIndexAnswer" if !letter.reject => text += &format!(" index={}", letter.index),
        _ => {}
    }
    if letter.text > 0 {
        text += &format!(" {}", recording.text(letter.text));
    }
    for (is, word) in [(letter.reject, "refused"), (letter.copy, "again"), (letter.stale, "stale")]
    {
        if is {
            text += &format!(" ({word})");
        }
    }
    text
}

/// Who sends or receives: `n1@2`, with the term that a message speaks for.
pub fn sender(recording: &Recording, letter: &MessageRecord) -> String {
    let name = recording.name(letter.from);
    if letter.term > 0 { format!("{name}@{}", letter.term) } else { name.to_owned() }
}

/// What a disk did: `writes wal-1 0..512`.
pub fn disk(recording: &Recording, work: &DiskWork) -> String {
    let file = recording.text(work.file);
    let failed = if work.failed { " and fails" } else { "" };
    let what = match work.verb {
        DiskVerb::Create => format!("creates {file} with {} bytes", work.len),
        DiskVerb::Write => format!("writes {file} {}..{}", work.offset, work.offset + work.len),
        DiskVerb::Sync => format!("syncs {file}"),
        DiskVerb::Rename => format!("renames to {file}"),
        DiskVerb::Remove => format!("removes {file}"),
        DiskVerb::SyncDir => "syncs the directory".to_owned(),
    };
    format!("{what}{failed}")
}

/// What happened to somebody: `crash: 2 unsynced sectors lost`.
pub fn mark(recording: &Recording, mark: &Mark) -> String {
    match recording.text(mark.text) {
        "" => mark.kind.name().to_owned(),
        text => format!("{}: {text}", mark.kind.name()),
    }
}

/// How a node has changed: `becomes leader of term 3, appends 4@3, commits 4`. Empty if nobody would
/// want to know.
pub fn change(recording: &Recording, before: &State, last: u64, change: &StateChange) -> String {
    let now = &change.state;
    let mut parts = Vec::new();
    if now.condition & condition::UP != 0 && (before.role, before.term) != (now.role, now.term) {
        let part = match before.role == now.role {
            true => format!("is {} in term {}", ROLES[now.role as usize], now.term),
            false => format!("becomes {} in term {}", ROLES[now.role as usize], now.term),
        };
        parts.push(part);
    }
    if before.vote != now.vote && now.vote > 0 {
        parts.push(format!("votes for {}", recording.name(now.vote as u16)));
    }
    if let Some(log) = &change.log {
        if log.from <= last {
            parts.push(format!("cuts off {}..{last}", log.from));
        }
        if !log.runs.is_empty() {
            parts.push(format!("appends {}", entries(log.from, &log.runs)));
        }
    }
    for (old, new, verb) in [
        (before.durable, now.durable, "has durable"),
        (before.commit, now.commit, "commits"),
        (before.applied, now.applied, "applies"),
        (before.snapshot, now.snapshot, "has a snapshot of"),
    ] {
        if old != new {
            parts.push(format!("{verb} {new}"));
        }
    }
    parts.join(", ")
}

/// The end of a node's log after a change.
pub fn last(before: u64, change: &StateChange) -> u64 {
    let last = change.log.as_ref().map_or(before, |log| log.last());
    last.max(change.state.first.saturating_sub(1))
}
