//! The data block: a recording as one JSON object, for a viewer or any other program.
//!
//! # Rules
//! `format` is `stormkv-view` and `version` is 1. A reader must refuse another format or version, and
//! ignore fields that it does not know: those may be added within a version. Whatever changes the
//! meaning of a field makes a new version.
//!
//! A table is an object of *columns*, arrays of the same length: row `i` is made of their elements `i`.
//! All numbers are integers from 0 to 2^53 - 1. A column whose name ends in `_delta` holds differences:
//! its value in row `i` is the sum of its elements 0 to `i`. Numbers stand for names and texts:
//! - a *step* is the number of an event, from 1, as `replay --until` takes it; 0 is none,
//! - a *lane* is a row of `lanes`; lane 0 is the storm, that is nobody; where a lane is optional, 0 is
//!   none,
//! - a *text* is a place in `strings`; 0 is the empty text,
//! - a *name* is a place in the list of `names` that is given with the column.
//!
//! # Fields
//! `about`: `build` (version and revision of the simulator), `title` (what was run), `replay` (a command
//! that runs it again; ` --until STEP` behind it stops after that event), `plan_hash` and `trace_hash`
//! (16 hexadecimal digits), `bug` (the bug that was planted, or null), `verdict` (`clean`, `violation`,
//! `liveness` or `unknown`), `steps` (how many events), `sim_ns` (the time of the last).
//!
//! `names`: lists of names, in the order of their numbers: `lane`, `step`, `message`, `fate`, `disk`,
//! `mark`, `role`, `condition` (names of bits, the lowest first), `outcome`, and `state` (names of
//! bits, see below).
//!
//! `strings`: all texts.
//!
//! `lanes`: `name` (a string: `n1`, `c1`; `c1.2` is the second hand of client 1, `c0` the operator) and
//! `kind` (names.lane). First the storm, then the nodes by id, then the clients.
//!
//! `steps`, a row for each event, the first is step 1: `time_delta` (nanoseconds), `lane` (whom it
//! happens to) and `kind` (names.step). A `put-off` event has no effect: its node is paused or busy, or
//! its disk hangs. What it would have done is done by a later event, or never.
//!
//! `messages`, a row for each message or copy of one, in the order in which they were sent:
//! - `sent_delta` (step), `from` and `to` (lanes), `kind` (names.message),
//! - `flags`: 1 a copy that the network made of the message in the row before, 2 it says no, 4 stale:
//!   it told its receiver nothing that still counts. It was delivered to a node that was in a newer term
//!   before this event, or the client that waited for an answer to it, or for it, had gone on,
//! - `fate` (names.fate) and `took`, how many steps after it was sent its fate was decided: it was
//!   delivered or lost in step sent + took. 0 for what was lost when it was sent. A message that is
//!   `under-way` has neither arrived nor been lost when the run ends; its `took` is 0,
//! - `term`, `index`, `log_term`, `commit`. Append: the entry before the first that it carries is
//!   `index` of term `log_term`. Vote and PreVote: that is the sender's last entry; the term of a
//!   PreVote is the one that the sender would campaign for. AppendResp: `index` is the match. Chunk:
//!   `index` and `log_term` name the snapshot. ReadIndexAnswer: `index`,
//! - `text`: what a request, an answer or a part of a snapshot says; of a message of kind `Other`, what
//!   the raft crate calls it,
//! - `op`: the row in `ops` that a request or answer belongs to, plus one; 0 for none,
//! - `entries`, not a column but a list with an element for each message that carries entries:
//!   `[row, count, term, count, term, ..]`; the entries begin at `index` + 1.
//!
//! `disk`, a row for each operation of a disk: `step_delta`, `lane`, `verb` (names.disk), `file` (text),
//! `offset` and `len` (bytes); and `failed`, a list of rows.
//!
//! `marks`, a row for each other thing that happened, each worth a glyph: `step_delta`, `lane`, `kind`
//! (names.mark), `text`.
//!
//! `states`, a row for each event that changed a node: `step_delta`, `lane`, `mask` and `values`. To know
//! what a node is after an event, apply its rows up to and including that event to a state of zeros and
//! an empty log. `mask` says which parts change, by the bits in names.state. `values`, which is longer
//! than the other columns, has the new values, row by row, in the order of the bits:
//! - `condition`: bits, see names.condition. A node that is not `up` keeps its last values, but for
//!   `durable`. `gone` is one that never starts again or is outside of the core in the end,
//! - `role` (names.role), `term`, `vote` (lane), `leader` (lane), `commit`, `applied`,
//! - `first`: the first index in the log; entries before it leave the log,
//! - `durable`: the last index that a crash cannot take,
//! - `snapshot`: the last index of the newest durable snapshot,
//! - `members`: the membership it goes by, as a text: `none known` if it has lost its own, or never had one,
//! - `log`: several values, `from, n`, then n times `count, term`. Entries from index `from` on are
//!   cut off, if there are any (a viewer may leave their ghosts), and replaced by `count` entries of
//!   `term`, and so on. The first of them has the index `from`.
//!
//! `ops`, a row for each operation of a client or the operator, by call: `lane`, `call_delta` (step),
//! `ret` (step; 0 if it had not ended), `what`, `keys` (separated by spaces; a prefix ends in `*`) and
//! `answer` (texts), `outcome` (names.outcome), `index` (where in the log it took effect, by what was
//! committed there and not by what its client was told; for a read, how much of the log it has seen; 0 for
//! nowhere), `point` (the linearization point that the order of the log gives it, as a step: when a write
//! was committed, even if that was after `ret`, or when a read was called if all that it has seen was
//! committed before, or else when that was; 0 for none: a write that never took effect, and a read that
//! missed a command that was committed before it was called, that returned too soon, or that the
//! violation refutes).
//!
//! `faults`, a row for each fault that struck: `number` (its row in the plan), `kind` and `what` (texts),
//! `start` and `end` (steps; 0 if it was not mended), and `victims`, a list of lanes in each row.
//!
//! `cuts`: `step`, and `pairs`, a list `[from, to, from, to, ..]` in each row: from this step on, nothing
//! gets from these lanes to those, until the next row. Before the first row everybody can reach everybody.
//!
//! `entries`, what the entries of all logs say: `index`, `term`, `text`.
//!
//! `commits`: `index_delta` and `step_delta`: when each index was committed for the first time anywhere.
//!
//! `violation`: null, or `class` (`safety`, `liveness`, `unknown`), `checker`, `sentence`, `detail`
//! (further lines, or empty), `step` and `time` (when it was seen), `lane` (of the node that it is about;
//! 0 for none), `ops` (rows of `ops` that prove it) and `message` (if a message breaks the promise by what
//! it says: its row in `messages` plus one; 0 for none). A message that was not let go because of what it
//! says is `under-way` in the last event.
//!
//! `past`: the causal past of the violation: steps in ranges, `[skip, take, skip, take, ..]`; the first
//! `skip` steps are no part of it, the next `take` are, and so on. null without a violation. See
//! [`past`](crate::recording::past).
//!
//! `curve`: null, or which continuations of the run fail: the run up to an event, and from there on the
//! same plan with other chance. `runs` is how many there are from each event on. Columns, a row for each
//! of some events in their order: `step` (the last event that they share with the run; 0 is its
//! beginning), `failed` (how many break safety or liveness) and `same` (how many do so by the word of the
//! checker that the violation is of; 0 without one). See [`curve`](super::curve).

use serde::Serialize;

use super::About;
use super::curve::Curve;
use crate::outcome::{Class, Violation};
use crate::recording::{
    Answered, CONDITIONS, DiskVerb, Fate, LaneKind, MarkKind, ROLES, Recording, State, StateChange,
    StepKind, StepNumber, TermRun, message_kinds,
};
use crate::report::verdict;
use crate::version::BUILD;

/// What `format` says.
pub const FORMAT: &str = "stormkv-view";

/// The version that is written.
pub const VERSION: u32 = 1;

/// The names of the bits of a mask in `states`: the fields of a [`State`] in order, and the log.
pub const STATE: &[&str] = &[
    "condition",
    "role",
    "term",
    "vote",
    "leader",
    "commit",
    "applied",
    "first",
    "durable",
    "snapshot",
    "members",
    "log",
];

type Column = Vec<u64>;

#[derive(Serialize)]
struct Block<'a> {
    format: &'static str,
    version: u32,
    about: AboutObject<'a>,
    names: Names,
    strings: &'a [String],
    lanes: Lanes<'a>,
    steps: Steps,
    messages: Messages,
    disk: Disk,
    marks: Marks,
    states: States,
    ops: Ops,
    faults: Faults,
    cuts: CutTable,
    entries: Entries,
    commits: Commits,
    violation: Option<ViolationObject<'a>>,
    past: Option<Column>,
    curve: Option<CurveObject>,
}

#[derive(Serialize)]
struct AboutObject<'a> {
    build: &'static str,
    title: &'a str,
    replay: &'a str,
    plan_hash: String,
    trace_hash: String,
    bug: Option<&'a str>,
    verdict: &'static str,
    steps: usize,
    sim_ns: u64,
}

#[derive(Serialize)]
struct Names {
    lane: &'static [&'static str],
    step: &'static [&'static str],
    message: Vec<&'static str>,
    fate: &'static [&'static str],
    disk: &'static [&'static str],
    mark: &'static [&'static str],
    role: &'static [&'static str],
    condition: &'static [&'static str],
    outcome: &'static [&'static str],
    state: &'static [&'static str],
}

#[derive(Default, Serialize)]
struct Lanes<'a> {
    name: Vec<&'a str>,
    kind: Column,
}

#[derive(Default, Serialize)]
struct Steps {
    time_delta: Column,
    lane: Column,
    kind: Column,
}

#[derive(Default, Serialize)]
struct Messages {
    sent_delta: Column,
    from: Column,
    to: Column,
    kind: Column,
    flags: Column,
    fate: Column,
    took: Column,
    term: Column,
    index: Column,
    log_term: Column,
    commit: Column,
    text: Column,
    op: Column,
    entries: Vec<Column>,
}

#[derive(Default, Serialize)]
struct Disk {
    step_delta: Column,
    lane: Column,
    verb: Column,
    file: Column,
    offset: Column,
    len: Column,
    failed: Column,
}

#[derive(Default, Serialize)]
struct Marks {
    step_delta: Column,
    lane: Column,
    kind: Column,
    text: Column,
}

#[derive(Default, Serialize)]
struct States {
    step_delta: Column,
    lane: Column,
    mask: Column,
    values: Column,
}

#[derive(Default, Serialize)]
struct Ops {
    lane: Column,
    call_delta: Column,
    ret: Column,
    what: Column,
    keys: Column,
    answer: Column,
    outcome: Column,
    index: Column,
    point: Column,
}

#[derive(Default, Serialize)]
struct Faults {
    number: Column,
    kind: Column,
    what: Column,
    start: Column,
    end: Column,
    victims: Vec<Column>,
}

#[derive(Default, Serialize)]
struct CutTable {
    step: Column,
    pairs: Vec<Column>,
}

#[derive(Default, Serialize)]
struct Entries {
    index: Column,
    term: Column,
    text: Column,
}

#[derive(Default, Serialize)]
struct Commits {
    index_delta: Column,
    step_delta: Column,
}

#[derive(Serialize)]
struct ViolationObject<'a> {
    class: Class,
    checker: &'a str,
    sentence: &'a str,
    detail: &'a str,
    step: u64,
    time: u64,
    lane: u64,
    ops: Column,
    message: u64,
}

#[derive(Serialize)]
struct CurveObject {
    runs: u32,
    step: Column,
    failed: Column,
    same: Column,
}

/// The data block of a recording, without a line break.
pub fn json(recording: &Recording, about: &About) -> String {
    let block = Block {
        format: FORMAT,
        version: VERSION,
        about: about_object(recording, about),
        names: names(),
        strings: recording.strings.all(),
        lanes: Lanes {
            name: recording.lanes.iter().map(|lane| lane.name.as_str()).collect(),
            kind: column(&recording.lanes, |lane| lane.kind as u64),
        },
        steps: Steps {
            time_delta: deltas(recording.steps.iter().map(|step| step.at_ns)),
            lane: column(&recording.steps, |step| step.lane.into()),
            kind: column(&recording.steps, |step| step.kind as u64),
        },
        messages: messages(recording),
        disk: disk(recording),
        marks: Marks {
            step_delta: deltas(recording.marks.iter().map(|mark| mark.step.into())),
            lane: column(&recording.marks, |mark| mark.lane.into()),
            kind: column(&recording.marks, |mark| mark.kind as u64),
            text: column(&recording.marks, |mark| mark.text.into()),
        },
        states: states(recording),
        ops: ops(recording),
        faults: faults(recording),
        cuts: CutTable {
            step: column(&recording.cuts, |cuts| cuts.step.into()),
            pairs: recording.cuts.iter().map(|cuts| pairs(&cuts.pairs)).collect(),
        },
        entries: Entries {
            index: column(&recording.entries, |entry| entry.index),
            term: column(&recording.entries, |entry| entry.term),
            text: column(&recording.entries, |entry| entry.text.into()),
        },
        commits: Commits {
            index_delta: deltas(recording.commits.iter().map(|(index, _)| *index)),
            step_delta: deltas(recording.commits.iter().map(|(_, step)| (*step).into())),
        },
        violation: about.violation.as_ref().map(|violation| violation_object(recording, violation)),
        past: about.violation.as_ref().map(|_| past(&recording.past)),
        curve: about.curve.as_ref().map(curve_object),
    };
    serde_json::to_string(&block).expect("our objects have string keys")
}

/// One number of each row.
fn column<T>(rows: &[T], number: impl Fn(&T) -> u64) -> Column {
    rows.iter().map(number).collect()
}

/// Ascending numbers, each less the one before.
fn deltas(numbers: impl Iterator<Item = u64>) -> Column {
    let mut last = 0;
    numbers.map(|number| number - std::mem::replace(&mut last, number)).collect()
}

fn about_object<'a>(recording: &Recording, about: &'a About) -> AboutObject<'a> {
    AboutObject {
        build: BUILD,
        title: &about.title,
        replay: &about.replay,
        plan_hash: format!("{:016x}", about.plan_hash),
        trace_hash: format!("{:016x}", about.trace_hash),
        bug: about.bug.as_deref(),
        verdict: verdict(about.violation.as_ref()),
        steps: recording.steps.len(),
        sim_ns: recording.time_ns(recording.steps.len() as StepNumber),
    }
}

fn names() -> Names {
    Names {
        lane: LaneKind::NAMES,
        step: StepKind::NAMES,
        message: message_kinds(),
        fate: Fate::NAMES,
        disk: DiskVerb::NAMES,
        mark: MarkKind::NAMES,
        role: ROLES,
        condition: CONDITIONS,
        outcome: Answered::NAMES,
        state: STATE,
    }
}

fn messages(recording: &Recording) -> Messages {
    let rows = &recording.messages;
    let carries = rows.iter().enumerate().filter(|(_, letter)| !letter.entries.is_empty());
    Messages {
        sent_delta: deltas(rows.iter().map(|letter| letter.sent.into())),
        from: column(rows, |letter| letter.from.into()),
        to: column(rows, |letter| letter.to.into()),
        kind: column(rows, |letter| letter.kind.into()),
        flags: column(rows, |letter| {
            u64::from(letter.copy) | u64::from(letter.reject) << 1 | u64::from(letter.stale) << 2
        }),
        fate: column(rows, |letter| letter.fate as u64),
        took: column(rows, |letter| letter.end.saturating_sub(letter.sent).into()),
        term: column(rows, |letter| letter.term),
        index: column(rows, |letter| letter.index),
        log_term: column(rows, |letter| letter.log_term),
        commit: column(rows, |letter| letter.commit),
        text: column(rows, |letter| letter.text.into()),
        op: column(rows, |letter| letter.op.into()),
        entries: carries
            .map(|(row, letter)| std::iter::once(row as u64).chain(flat(&letter.entries)).collect())
            .collect(),
    }
}

fn flat(runs: &[TermRun]) -> impl Iterator<Item = u64> + '_ {
    runs.iter().flat_map(|run| [run.count, run.term])
}

fn disk(recording: &Recording) -> Disk {
    let rows = &recording.disk;
    let failed = rows.iter().enumerate().filter(|(_, work)| work.failed);
    Disk {
        step_delta: deltas(rows.iter().map(|work| work.step.into())),
        lane: column(rows, |work| work.lane.into()),
        verb: column(rows, |work| work.verb as u64),
        file: column(rows, |work| work.file.into()),
        offset: column(rows, |work| work.offset),
        len: column(rows, |work| work.len),
        failed: failed.map(|(row, _)| row as u64).collect(),
    }
}

/// The fields of a state in the order of [`STATE`].
fn fields(state: &State) -> [u64; STATE.len() - 1] {
    [
        state.condition,
        state.role,
        state.term,
        state.vote,
        state.leader,
        state.commit,
        state.applied,
        state.first,
        state.durable,
        state.snapshot,
        state.members,
    ]
}

fn states(recording: &Recording) -> States {
    let mut known = vec![State::default(); recording.lanes.len()];
    let mut table = States {
        step_delta: deltas(recording.states.iter().map(|change| change.step.into())),
        lane: column(&recording.states, |change| change.lane.into()),
        ..States::default()
    };
    for StateChange { lane, state, log, .. } in &recording.states {
        let before = std::mem::replace(&mut known[usize::from(*lane)], *state);
        let mut mask = 0;
        for (bit, (old, new)) in fields(&before).into_iter().zip(fields(state)).enumerate() {
            if old != new {
                mask |= 1 << bit;
                table.values.push(new);
            }
        }
        if let Some(log) = log {
            mask |= 1 << (STATE.len() - 1);
            table.values.extend([log.from, log.runs.len() as u64]);
            table.values.extend(flat(&log.runs));
        }
        table.mask.push(mask);
    }
    table
}

fn ops(recording: &Recording) -> Ops {
    let rows = &recording.ops;
    Ops {
        lane: column(rows, |op| op.lane.into()),
        call_delta: deltas(rows.iter().map(|op| op.call.into())),
        ret: column(rows, |op| op.ret.into()),
        what: column(rows, |op| op.what.into()),
        keys: column(rows, |op| op.keys.into()),
        answer: column(rows, |op| op.answer.into()),
        outcome: column(rows, |op| op.outcome as u64),
        index: column(rows, |op| op.index),
        point: column(rows, |op| op.point.into()),
    }
}

fn faults(recording: &Recording) -> Faults {
    let rows = &recording.faults;
    Faults {
        number: column(rows, |fault| fault.number.into()),
        kind: column(rows, |fault| fault.kind.into()),
        what: column(rows, |fault| fault.what.into()),
        start: column(rows, |fault| fault.start.into()),
        end: column(rows, |fault| fault.end.into()),
        victims: rows.iter().map(|fault| column(&fault.victims, |lane| (*lane).into())).collect(),
    }
}

fn pairs(pairs: &[(u16, u16)]) -> Column {
    pairs.iter().flat_map(|(from, to)| [u64::from(*from), u64::from(*to)]).collect()
}

fn violation_object<'a>(recording: &Recording, violation: &'a Violation) -> ViolationObject<'a> {
    let message = violation.message.as_str();
    let (sentence, detail) = message.split_once("\n\n").unwrap_or((message, ""));
    let proof = recording.ops.iter().enumerate().filter(|(_, op)| op.proof);
    ViolationObject {
        class: violation.class,
        checker: violation.checker,
        sentence,
        detail,
        step: violation.step,
        time: violation.at_ns,
        lane: recording.blamed.unwrap_or(0).into(),
        ops: proof.map(|(row, _)| row as u64).collect(),
        message: recording.lie.into(),
    }
}

fn curve_object(curve: &Curve) -> CurveObject {
    CurveObject {
        runs: curve.runs,
        step: column(&curve.points, |point| point.step.into()),
        failed: column(&curve.points, |point| point.failed.into()),
        same: column(&curve.points, |point| point.same.into()),
    }
}

/// Ranges as how many are left out and how many are not, in turn.
fn past(ranges: &[(StepNumber, StepNumber)]) -> Column {
    let mut end = 0;
    let turns = ranges.iter().flat_map(|(first, last)| {
        let skip = first - 1 - std::mem::replace(&mut end, *last);
        [u64::from(skip), u64::from(last + 1 - first)]
    });
    turns.collect()
}
