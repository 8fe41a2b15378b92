//! A run as data: the data block, read as its description says, and the exports, each taken apart by
//! something that does not share code with what wrote it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

use protobuf::CodedInputStream;
use protobuf::wire_format::WireType;
use serde_json::Value;
use stormkv_sim::kv::{self, KeyValue};
use stormkv_sim::plan::Plan;
use stormkv_sim::recording::{Fate, State};
use stormkv_sim::simulation::RunOptions;
use stormkv_sim::version;
use stormkv_sim::view::curve::{self, Original};
use stormkv_sim::view::{About, Recording, block, perfetto, shiviz, text};
use stormkv_sim::{scenario, swarm};

/// A put, the crash of a node, a partition; and a bound that nobody can keep.
const SCENARIO: &str = r#"
schema = 1
name = "small"
seed = 7

[end]
bound_ms = 1

[[op]]
at_ms = 150
client = 1
do = "put a 1"

[[op]]
at_ms = 160
client = 1
do = "get a"

[[fault]]
at_ms = 170
until_ms = 200
do = "crash 1"

[[fault]]
at_ms = 210
until_ms = 240
do = "partition 1 | 2 3 c1"
"#;

fn small() -> Plan {
    scenario::parse::<KeyValue>("small.toml", SCENARIO).expect("a scenario")
}

fn recording(plan: &Plan) -> (About, Recording) {
    let kept = Rc::new(RefCell::new(None));
    let sink = Rc::clone(&kept);
    let recording = Box::new(move |recording| *sink.borrow_mut() = Some(recording));
    let mut options = RunOptions { recording: Some(recording), ..RunOptions::default() };
    let outcome = kv::run(plan, &mut options);
    let about = About {
        title: plan.name.clone(),
        replay: "cargo sim replay small.toml".to_owned(),
        plan_hash: plan.hash(),
        trace_hash: outcome.trace_hash,
        bug: None,
        violation: outcome.violation,
        curve: None,
    };
    (about, kept.take().expect("it was recorded"))
}

/// Some runs that are different in kind, with all that happens in a storm.
fn records() -> impl Iterator<Item = (About, Recording)> {
    std::iter::once(small())
        .chain((0..8).map(swarm::generate::<KeyValue>))
        .map(|plan| recording(&plan))
}

// ---- the data block ----

fn column(table: &Value, name: &str) -> Vec<u64> {
    let numbers = table[name].as_array().unwrap_or_else(|| panic!("{name} is missing"));
    let numbers = numbers.iter().map(|number| number.as_u64().expect("no number is below 0"));
    let mut sum = 0;
    let add = |number: u64| {
        sum += number;
        sum
    };
    if name.ends_with("_delta") { numbers.map(add).collect() } else { numbers.collect() }
}

/// A row of `states` as it is read: step, lane, all fields, and the terms of the log by index.
type Row = (u64, u64, Vec<u64>, BTreeMap<u64, u64>);

/// Reads `states` as the description says.
fn states(block: &Value) -> Vec<Row> {
    let table = &block["states"];
    let names = block["names"]["state"].as_array().expect("a list");
    let lanes = column(&block["lanes"], "kind").len();
    let mut known = vec![(vec![0; names.len() - 1], BTreeMap::new()); lanes];
    let mut values = column(table, "values").into_iter();
    let mut next = || values.next().expect("a value for each bit");
    let mut rows = Vec::new();
    let steps = column(table, "step_delta").into_iter().zip(column(table, "lane"));
    for ((step, lane), mask) in steps.zip(column(table, "mask")) {
        let (fields, log) = &mut known[lane as usize];
        for bit in (0..names.len()).filter(|bit| mask & 1 << bit != 0) {
            if names[bit] != "log" {
                fields[bit] = next();
                continue;
            }
            let (mut index, runs) = (next(), next());
            log.split_off(&index);
            for _ in 0..runs {
                let (count, term) = (next(), next());
                log.extend((index..index + count).map(|index| (index, term)));
                index += count;
            }
        }
        let first = names.iter().position(|name| name == "first").expect("a name");
        *log = log.split_off(&fields[first]);
        rows.push((step, lane, fields.clone(), log.clone()));
    }
    assert_eq!(values.next(), None, "nothing is left");
    rows
}

fn fields(state: &State) -> Vec<u64> {
    let State { condition, role, term, vote, leader, commit, applied, .. } = *state;
    let State { first, durable, snapshot, members, .. } = *state;
    vec![condition, role, term, vote, leader, commit, applied, first, durable, snapshot, members]
}

#[test]
fn a_block_that_is_read_as_its_description_says_holds_the_film() {
    for (about, recording) in records() {
        let block: Value = serde_json::from_str(&block::json(&recording, &about)).expect("JSON");
        assert_eq!((&block["format"], &block["version"]), (&"stormkv-view".into(), &1.into()));
        let times = column(&block["steps"], "time_delta");
        assert_eq!(times.len(), recording.steps.len());
        assert_eq!(times.last(), recording.steps.last().map(|step| &step.at_ns));
        let messages = &block["messages"];
        let (sent, took) = (column(messages, "sent_delta"), column(messages, "took"));
        for (row, letter) in recording.messages.iter().enumerate() {
            assert_eq!(sent[row], u64::from(letter.sent));
            if letter.fate != Fate::UnderWay {
                assert_eq!(sent[row] + took[row], u64::from(letter.end));
            }
        }
        let rows = states(&block);
        assert_eq!(rows.len(), recording.states.len());
        for ((step, lane, read, log), change) in rows.iter().zip(&recording.states) {
            assert_eq!((*step, *lane), (change.step.into(), change.lane.into()));
            assert_eq!(read, &fields(&change.state));
            if let Some(change) = change.log.as_ref().filter(|change| !change.runs.is_empty()) {
                assert_eq!(log.keys().next_back(), Some(&change.last()));
            }
        }
        // The rest is columns of the same length.
        for table in ["messages", "disk", "marks", "ops", "faults", "cuts", "entries", "commits"] {
            let odd = |name: &str| {
                (table, name) == ("messages", "entries") || (table, name) == ("disk", "failed")
            };
            let columns = block[table].as_object().expect("a table").iter();
            let lengths: BTreeSet<usize> = columns
                .filter(|(name, _)| !odd(name))
                .map(|(_, column)| column.as_array().expect("a column").len())
                .collect();
            assert_eq!(lengths.len(), 1, "{table}: {lengths:?}");
        }
        let past: Vec<u64> = match &block["past"] {
            Value::Null => Vec::new(),
            turns => turns.as_array().expect("turns").iter().filter_map(Value::as_u64).collect(),
        };
        let (mut step, mut read) = (0, BTreeSet::new());
        for turn in past.chunks(2) {
            step += turn[0];
            read.extend(step + 1..=step + turn[1]);
            step += turn[1];
        }
        let all = 1..=recording.steps.len() as u32;
        let there = all.filter(|step| recording.is_past(*step)).map(u64::from);
        assert_eq!(read, there.collect());
    }
}

/// The block of a small run, as it is kept. If a change of the simulator changes the run, or a new
/// field comes, `STORM_BLESS=1 cargo test -p stormkv-sim --test view` keeps what there is now; a
/// change of what a field means needs a new version.
#[test]
fn the_block_of_a_small_run_is_as_it_was() {
    let plan = small();
    let (mut about, recording) = recording(&plan);
    let violation = about.violation.as_ref().expect("a bound that nobody can keep");
    let (last, checker) = (violation.step as u32, Some(violation.checker));
    let original = Original { plan: &plan, last, checker };
    let run = |plan: &Plan, mut options| kv::run(plan, &mut options);
    about.curve = Some(curve::curve(&original, 4, 2, &run, &mut |_, _| ()));
    let block = block::json(&recording, &about).replace(version::BUILD, "BUILD");
    // A line for each table.
    let mut lines = String::new();
    let object: serde_json::Map<String, Value> = serde_json::from_str(&block).expect("an object");
    for (name, value) in &object {
        lines += &format!("{name}: {value}\n");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/view-block.txt");
    if std::env::var_os("STORM_BLESS").is_some() {
        std::fs::write(&path, &lines).expect("the directory is there");
    }
    let kept = std::fs::read_to_string(&path).expect("it is kept");
    for (kept, line) in kept.lines().zip(lines.lines()) {
        assert_eq!(kept, line);
    }
    assert_eq!(kept.lines().count(), lines.lines().count());
}

/// What records say of failures whose cause is known, because it was planted.
#[cfg(feature = "bugs")]
mod bugs {
    use stormkv_sim::recording::{MarkKind, MessageRecord, Operation};

    use super::*;

    /// A story of a planted bug, as the failure and the recording of it.
    fn story(name: &str) -> (About, Recording) {
        let path = format!("{}/../scenarios/bugs/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).expect("each bug has a story");
        let (about, recording) =
            recording(&scenario::parse::<KeyValue>(&path, &source).expect("a scenario"));
        assert!(about.violation.is_some(), "{name} breaks nothing");
        (about, recording)
    }

    fn proof(recording: &Recording) -> Vec<&Operation> {
        recording.ops.iter().filter(|op| op.proof).collect()
    }

    #[test]
    fn a_write_that_never_took_effect_has_no_point() {
        let (about, recording) = story("completed-by-index");
        let sentence = &about.violation.expect("a lie").message;
        assert!(sentence.ends_with("was answered as if it were another request"), "{sentence}");
        let [delete] = proof(&recording)[..] else { panic!("{:?}", recording.ops) };
        assert_eq!(delete.point, 0, "{delete:?}");
    }

    #[test]
    fn a_stale_read_has_no_point() {
        let (_, recording) = story("lease-survives-transfer");
        let [.., write, get] = proof(&recording)[..] else { panic!("{:?}", recording.ops) };
        assert!((write.call..=write.ret).contains(&write.point), "{write:?}");
        assert_eq!(get.point, 0, "what it has seen was over when it was called");
    }

    /// The message that a violation is, as the text has it, and the block.
    fn lie(about: &About, recording: &Recording) -> (MessageRecord, String) {
        let block: Value = serde_json::from_str(&block::json(recording, about)).expect("JSON");
        assert_eq!(block["violation"]["message"], recording.lie);
        let row = recording.lie.checked_sub(1).expect("it is a message");
        let text = text::render(recording, |_| true);
        let marked: Vec<&str> = text.lines().filter(|line| line.contains("(the viol")).collect();
        let [line] = marked[..] else { panic!("{marked:?}") };
        (recording.messages[row as usize].clone(), line.to_owned())
    }

    #[test]
    fn a_message_that_must_not_be_sent_is_in_the_film() {
        for name in [
            "messages-before-sync",
            "hard-state-only-with-entries",
            "lone-voter-sends-early",
            "term-stamped-when-sent",
            "removal-drops-hard-state",
            "appends-glued",
        ] {
            let (about, recording) = story(name);
            let (letter, line) = lie(&about, &recording);
            let violation = about.violation.expect("there is one");
            assert_eq!(violation.checker, "promise-durability", "{name}");
            let (from, to) = (recording.name(letter.from), recording.name(letter.to));
            assert!(violation.message.starts_with(&format!("{from} tells {to} ")), "{name}");
            assert_eq!((letter.fate, letter.end), (Fate::UnderWay, 0), "{name}");
            assert_eq!(u64::from(letter.sent), violation.step, "{name}");
            assert!(line.ends_with(" (under way) (the violation)"), "{name}: {line}");
            assert_eq!(recording.blamed, Some(letter.from), "{name}");
        }
    }

    #[test]
    fn an_answer_that_must_not_be_given_is_in_the_film() {
        let (about, recording) = story("read-index-forwarded");
        let (letter, line) = lie(&about, &recording);
        assert!(line.contains("n4 -> c4 Reply ") && letter.fate == Fate::UnderWay, "{line}");
        assert!(recording.ops[letter.op as usize - 1].proof, "it is about the read");
        // The bug is that raft's own message is used; no other kind says what it is.
        let text = text::render(&recording, |_| true);
        assert!(text.contains(" n3 -> n4 Other MsgReadIndex\n"), "{text}");
        let (about, recording) = story("acknowledged-on-append");
        let (letter, line) = lie(&about, &recording);
        assert!(line.contains(" -> c5 Reply applied at "), "{line}");
        assert_eq!(letter.fate, Fate::Delivered);
    }

    #[test]
    fn a_violation_is_about_the_node_that_was_started_although_more_has_hit_it() {
        let (about, recording) = story("unreadable-hard-state-is-default");
        let sentence = about.violation.expect("a forgotten term").message;
        assert!(sentence.starts_with("n2 has lost"), "{sentence}");
        assert_eq!(recording.blamed.map(|lane| recording.name(lane)), Some("n2"));
        let last = recording.marks.last().expect("it was started");
        assert_eq!((last.kind, last.step), (MarkKind::Damage, recording.steps.len() as u32));
        let others =
            (1..).zip(&recording.steps).filter(|(_, step)| recording.name(step.lane) != "n2");
        assert!(
            others.map(|(step, _)| step).any(|step| !recording.is_past(step)),
            "{:?}",
            recording.past
        );
    }
}

// ---- the exports ----

#[test]
fn a_text_has_a_line_for_each_event_in_columns() {
    for (_, recording) in records() {
        let text = text::render(&recording, |_| true);
        let mut told = BTreeSet::new();
        for line in text.lines() {
            let step: u32 = line[..7].trim().parse().expect("a number");
            told.insert(step);
            assert_eq!((&line[14..15], &line[18..23]), (".", " ms  "), "{line}");
            let at_us = recording.time_ns(step) / 1000;
            let time = format!("{:>6}.{:03}", at_us / 1000, at_us % 1000);
            assert_eq!(line[8..18], time, "{line}");
        }
        let untold: Vec<u32> =
            (1..=recording.steps.len() as u32).filter(|step| !told.contains(step)).collect();
        let kinds: Vec<_> =
            untold.iter().map(|at| recording.steps[*at as usize - 1].kind).collect();
        assert!(untold.is_empty(), "{untold:?}: {kinds:?}");
        let half = text::render(&recording, |step| step % 2 == 0);
        let kept = text.lines().filter(|line| line[..7].trim().parse::<u32>().unwrap() % 2 == 0);
        assert!(kept.eq(half.lines()), "leaving out events changes no other line");
    }
}

#[test]
fn a_text_tells_a_message_with_an_arrow() {
    let (_, recording) = recording(&small());
    let text = text::render(&recording, |_| true);
    let is_append = |line: &&str| line.contains("@2 -> n") && line.contains(" Append prev=");
    let append = text.lines().find(is_append).expect("a leader of term 2");
    assert!(append.contains("[2@2] commit="), "{append}");
    for part in
        ["lost: partition\n", "  calls put a 1\n", "  fault 0: crash 1\n", " becomes leader"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

/// What a line of the log says: who, and how many events of whom it knows.
fn clock(line: &str) -> (String, BTreeMap<String, u64>) {
    let (host, rest) = line.split_once(' ').expect("a host");
    let (clock, _) = rest.split_once("} ").expect("a clock");
    (host.to_owned(), serde_json::from_str(&format!("{clock}}}")).expect("JSON"))
}

#[test]
fn the_clocks_for_shiviz_grow_by_one_and_know_what_was_sent() {
    for (about, recording) in records() {
        let whole = shiviz::render(&recording, |_| true);
        let mut logs = vec![whole];
        if about.violation.is_some() {
            logs.push(shiviz::render(&recording, |step| recording.is_past(step)));
        }
        for log in logs {
            let mut lines = log.lines();
            assert_eq!((lines.next(), lines.next()), (Some(shiviz::PARSER), Some("")));
            let mut now: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
            let mut messages = 0;
            for line in lines {
                let (host, clock) = clock(line);
                let before = now.insert(host.clone(), clock.clone()).unwrap_or_default();
                let own = |clock: &BTreeMap<String, u64>| clock.get(&host).copied().unwrap_or(0);
                assert_eq!(own(&clock), own(&before) + 1, "{line}");
                for (other, count) in clock.iter().filter(|(other, _)| **other != host) {
                    let there = now.get(other).and_then(|clock| clock.get(other));
                    assert!(there.is_some_and(|there| there >= count), "{line}");
                    assert!(before.get(other).is_none_or(|before| before <= count), "{line}");
                    messages += u64::from(before.get(other) != Some(count));
                }
            }
            assert!(messages > 10, "{messages} messages");
        }
    }
}

/// A field of a message, as the library reads it.
#[derive(Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Bytes(_) => panic!("{self:?} is no number"),
        }
    }

    fn message(&self) -> BTreeMap<u32, Field> {
        match self {
            Field::Bytes(bytes) => message(bytes).into_iter().collect(),
            Field::Number(_) => panic!("{self:?} is no message"),
        }
    }

    fn text(&self) -> String {
        match self {
            Field::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            Field::Number(_) => panic!("{self:?} is no text"),
        }
    }
}

fn message(bytes: &[u8]) -> Vec<(u32, Field)> {
    let mut stream = CodedInputStream::from_bytes(bytes);
    let mut fields = Vec::new();
    while !stream.eof().expect("it can be read") {
        let (number, kind) = stream.read_tag_unpack().expect("a tag");
        let field = match kind {
            WireType::WireTypeVarint => Field::Number(stream.read_uint64().expect("a number")),
            WireType::WireTypeFixed64 => Field::Number(stream.read_fixed64().expect("a number")),
            WireType::WireTypeLengthDelimited => Field::Bytes(stream.read_bytes().expect("bytes")),
            other => panic!("{other:?} is not written"),
        };
        fields.push((number, field));
    }
    fields
}

#[test]
fn a_trace_for_perfetto_has_tracks_nested_slices_and_flows() {
    for (_, recording) in records() {
        let bytes = perfetto::render(&recording, |_| true);
        let (mut tracks, mut open) = (BTreeMap::new(), BTreeMap::<u64, u64>::new());
        let (mut begun, mut ended) = (BTreeSet::new(), BTreeSet::new());
        let mut last_ns = 0;
        for (number, packet) in message(&bytes) {
            assert_eq!(number, 1, "packets only");
            let packet = packet.message();
            assert_eq!(packet[&10].number(), 1, "one sequence");
            if let Some(track) = packet.get(&60) {
                let track = track.message();
                let parent = track.get(&5).map_or(0, Field::number);
                assert!(parent == 0 || tracks.contains_key(&parent));
                assert!(tracks.insert(track[&1].number(), track[&2].text()).is_none());
                continue;
            }
            let at_ns = packet[&8].number();
            assert!(at_ns >= last_ns, "in order");
            last_ns = at_ns;
            let event = packet[&11].message();
            let track = event[&11].number();
            assert!(tracks.contains_key(&track), "{track} is no track");
            match event[&9].number() {
                1 => *open.entry(track).or_default() += 1,
                2 => *open.get_mut(&track).filter(|open| **open > 0).expect("it was begun") -= 1,
                kind => assert_eq!(kind, 3),
            }
            if event[&9].number() != 2 {
                assert!(!event[&23].text().is_empty());
                let annotation = event[&4].message();
                assert_eq!(annotation[&10].text(), "step");
                assert_eq!(recording.time_ns(annotation[&3].number() as u32), at_ns);
            }
            begun.extend(event.get(&47).map(Field::number));
            if let Some(flow) = event.get(&48).map(Field::number) {
                assert!(begun.contains(&flow), "sent before it arrives");
                ended.insert(flow);
            }
        }
        assert!(open.values().all(|open| *open == 0), "all slices end: {open:?}");
        let delivered =
            recording.messages.iter().filter(|letter| letter.fate == Fate::Delivered).count();
        assert_eq!((begun.len(), ended.len()), (delivered, delivered));
        assert_eq!(last_ns, recording.time_ns(recording.steps.len() as u32));
        let nodes = tracks.values().filter(|name| name.starts_with('n')).count();
        assert!(nodes >= 1, "{tracks:?}");
    }
}
