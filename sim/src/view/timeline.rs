//! A recording in a few dozen lines: what a person would tell of a run.
//!
//! ```text
//!   1071.513 ms  n3 leads in term 1
//!   4911.800 ms  fault 2: isolate leader (n1)
//!                2 requests are tried again, by c1 and c2
//!   5062.708 ms  n3 leads in term 4
//! ```
//!
//! Who leads, from when until when; each fault, whom it hits and when it ends; which nodes stop, start
//! and get well; how often clients had to try again; the end of all faults. What makes up a run by its
//! sheer number (messages, operations, writes) is left to the other exports. The length is bounded: of
//! a long run, the middle is left out.

use super::words;
use crate::outcome::Skipped;
use crate::recording::{
    LaneKind, LaneNumber, MarkKind, Recording, StepKind, StepNumber, condition,
};

/// How many lines there are at most from the beginning of a run, and how many from its end.
const FIRST: usize = 15;
const LAST: usize = 35;

/// The number of a leader's role.
const LEADER: u64 = 3;

/// The lines of a recording and of the faults that it does not show because they hit nothing.
pub fn render(recording: &Recording, skipped: &[Skipped], plan: &crate::plan::Plan) -> String {
    let mut moments = Vec::new();
    leaders(recording, &mut moments);
    faults(recording, &mut moments);
    marks(recording, &mut moments);
    for Skipped { fault, at_ns, why } in skipped {
        let what = &plan.faults[*fault].fault;
        let step = recording.steps.partition_point(|step| step.at_ns <= *at_ns) as StepNumber;
        moments.push((step, format!("fault {fault}: {what} is skipped: {why}")));
    }
    // Stable: what happens in one event stays in the order of its tables.
    moments.sort_by_key(|(step, _)| *step);
    let cut = moments.len().saturating_sub(FIRST + LAST);
    let mut text = String::new();
    let mut retries = Retries::new(recording);
    for (at, (step, what)) in moments.iter().enumerate() {
        if cut > 0 && (FIRST..FIRST + cut).contains(&at) {
            if at == FIRST {
                retries.until(*step, &mut text);
                text.push_str(&format!("{:>13}  .. {cut} lines are left out\n", ""));
            }
            continue;
        }
        retries.until(*step, &mut text);
        let at_us = recording.time_ns(*step) / 1000;
        let (ms, us) = (at_us / 1000, at_us % 1000);
        text.push_str(&format!("{ms:>6}.{us:03} ms  {what}\n"));
    }
    retries.until(StepNumber::MAX, &mut text);
    text
}

type Moments = Vec<(StepNumber, String)>;

/// Who begins to lead, and who ceases to.
fn leaders(recording: &Recording, moments: &mut Moments) {
    let mut leads = vec![None; recording.lanes.len()];
    for change in &recording.states {
        let (state, lane) = (&change.state, usize::from(change.lane));
        let name = recording.name(change.lane);
        let is_up = state.condition & condition::UP != 0;
        let now = (is_up && state.role == LEADER).then_some(state.term);
        let before = std::mem::replace(&mut leads[lane], now);
        match (before, now) {
            (before, Some(term)) if before != now => {
                moments.push((change.step, format!("{name} leads in term {term}")));
            }
            (Some(term), None) if is_up => {
                let now = match state.term == term {
                    true => String::new(),
                    false => format!(", now {}", state.term),
                };
                moments.push((change.step, format!("{name} no longer leads (term {term}{now})")));
            }
            // That it is down is said by its mark.
            _ => {}
        }
    }
}

fn faults(recording: &Recording, moments: &mut Moments) {
    for fault in &recording.faults {
        let (number, what) = (fault.number, recording.text(fault.what));
        // A fault that names its node needs no other word about it.
        let hit: Vec<&str> = fault.victims.iter().map(|lane| recording.name(*lane)).collect();
        let names = |word: &str| what.split_whitespace().any(|part| part == word);
        let hit = match names("leader") || names("same") {
            true => format!(" (hits {})", hit.join(", ")),
            false => String::new(),
        };
        moments.push((fault.start, format!("fault {number}: {what}{hit}")));
        let ends_with_all = recording.steps.get(fault.end.wrapping_sub(1) as usize);
        if ends_with_all.is_some_and(|step| step.kind != StepKind::Heal) {
            moments.push((fault.end, format!("fault {number} ends: {what}")));
        }
    }
}

/// What happens to nodes, and the end of all faults. Several that go down or start at once share a
/// line.
fn marks(recording: &Recording, moments: &mut Moments) {
    let mut grouped: Vec<(StepNumber, MarkKind, Vec<LaneNumber>)> = Vec::new();
    for mark in &recording.marks {
        let name = recording.name(mark.lane);
        let what = match mark.kind {
            // At the beginning, all start.
            MarkKind::Start if recording.time_ns(mark.step) == 0 => continue,
            MarkKind::Crash | MarkKind::Kill | MarkKind::Start => {
                let at_ns = recording.time_ns(mark.step);
                match grouped.last_mut() {
                    Some((step, kind, lanes))
                        if *kind == mark.kind && recording.time_ns(*step) == at_ns =>
                    {
                        lanes.push(mark.lane);
                    }
                    _ => grouped.push((mark.step, mark.kind, vec![mark.lane])),
                }
                continue;
            }
            MarkKind::Torn | MarkKind::DiskError | MarkKind::Damage => continue,
            MarkKind::Healed => format!("all faults end: {}", recording.text(mark.text)),
            MarkKind::Whole => format!("{name} has everything again"),
            MarkKind::ClientRestart => format!("{name} restarts"),
            MarkKind::Stop | MarkKind::Panic | MarkKind::Refused | MarkKind::Lost => {
                format!("{name} {}", words::mark(recording, mark))
            }
        };
        moments.push((mark.step, what.replace('\n', " ")));
    }
    for (step, kind, lanes) in grouped {
        let names: Vec<&str> = lanes.iter().map(|lane| recording.name(*lane)).collect();
        let (names, one) = (names.join(", "), lanes.len() == 1);
        let what = match (kind, one) {
            (MarkKind::Crash, true) => "loses its power",
            (MarkKind::Crash, false) => "lose their power",
            (MarkKind::Kill, true) => "is killed",
            (MarkKind::Kill, false) => "are killed",
            (_, true) => "starts",
            (_, false) => "start",
        };
        moments.push((step, format!("{names} {what}")));
    }
}

/// The attempts of clients at operations that were tried before, in the order of time.
struct Retries<'a> {
    recording: &'a Recording,
    /// The event and the lane of each.
    attempts: Vec<(StepNumber, LaneNumber)>,
    told: usize,
}

impl<'a> Retries<'a> {
    fn new(recording: &'a Recording) -> Retries<'a> {
        let mut tried = vec![false; recording.ops.len() + 1];
        let is_client =
            |lane: LaneNumber| recording.lanes[usize::from(lane)].kind == LaneKind::Client;
        let requests =
            recording.messages.iter().filter(|letter| is_client(letter.from) && !letter.copy);
        let again = requests.filter(|letter| {
            let op = letter.op as usize;
            letter.op != 0 && std::mem::replace(&mut tried[op], true)
        });
        let attempts = again.map(|letter| (letter.sent, letter.from)).collect();
        Retries { recording, attempts, told: 0 }
    }

    /// Adds a line about the attempts before an event, if there are any.
    fn until(&mut self, step: StepNumber, text: &mut String) {
        let rest = &self.attempts[self.told..];
        let count = rest.partition_point(|(at, _)| *at < step);
        if count == 0 {
            return;
        }
        let mut lanes: Vec<LaneNumber> = rest[..count].iter().map(|(_, lane)| *lane).collect();
        self.told += count;
        lanes.sort_unstable();
        lanes.dedup();
        const NAMED: usize = 6;
        let names: Vec<&str> =
            lanes.iter().take(NAMED).map(|lane| self.recording.name(*lane)).collect();
        let more = if lanes.len() > NAMED { ", .." } else { "" };
        let what = if count == 1 { "1 request is" } else { &format!("{count} requests are") };
        let names = names.join(", ");
        text.push_str(&format!("{:>13}  {what} tried again ({names}{more})\n", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{FaultRow, Plan};
    use crate::recording::{FaultSpan, Lane, MessageRecord, Operation, State, StateChange, Step};

    /// A run of so many events, a millisecond each, of one node and one client.
    fn recording(steps: u64) -> Recording {
        let lane = |kind, name: &str| Lane { name: name.to_owned(), kind };
        let step = |at| Step { at_ns: at * 1_000_000, lane: 1, kind: StepKind::Tick };
        Recording {
            lanes: vec![
                lane(LaneKind::Storm, "storm"),
                lane(LaneKind::Node, "n1"),
                lane(LaneKind::Client, "c1"),
            ],
            steps: (1..=steps).map(step).collect(),
            ..Recording::default()
        }
    }

    fn plan(fault: &str) -> Plan {
        let mut plan = Plan::new("x", 0);
        let fault = fault.parse().expect("a fault");
        plan.faults = vec![FaultRow { at_us: 0, until_us: None, fault }];
        plan
    }

    #[test]
    fn leaders_faults_and_retries_are_in_the_order_of_time() {
        let mut recording = recording(9);
        let state = |step, role, term| {
            let state = State { condition: condition::UP, role, term, ..State::default() };
            StateChange { step, lane: 1, state, log: None }
        };
        recording.states = vec![state(2, LEADER, 3), state(3, LEADER, 3), state(8, 0, 4)];
        let (kind, what) =
            (recording.strings.number("isolate"), recording.strings.number("isolate leader"));
        let span = FaultSpan { number: 5, kind, what, start: 4, end: 7, victims: vec![1] };
        recording.faults = vec![span];
        recording.ops = vec![Operation { lane: 2, call: 1, ..Operation::default() }];
        let letter =
            |sent| MessageRecord { sent, from: 2, to: 1, op: 1, ..MessageRecord::default() };
        recording.messages = vec![letter(1), letter(5), letter(6)];
        let skipped = Skipped { fault: 0, at_ns: 1_000_000, why: "there is no leader" };
        assert_eq!(
            render(&recording, &[skipped], &plan("crash leader")),
            "     1.000 ms  fault 0: crash leader is skipped: there is no leader\n     \
             2.000 ms  n1 leads in term 3\n     \
             4.000 ms  fault 5: isolate leader (hits n1)\n               \
             2 requests are tried again (c1)\n     \
             7.000 ms  fault 5 ends: isolate leader\n     \
             8.000 ms  n1 no longer leads (term 3, now 4)\n"
        );
    }

    #[test]
    fn the_middle_of_a_long_run_is_left_out() {
        let mut recording = recording(500);
        let (kind, what) = (recording.strings.number("pause"), recording.strings.number("pause 1"));
        recording.faults = (1..=400)
            .map(|start| FaultSpan { number: start, kind, what, start, end: 0, victims: vec![1] })
            .collect();
        let text = render(&recording, &[], &Plan::new("x", 0));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), FIRST + LAST + 1);
        assert_eq!(lines[FIRST].trim_start(), ".. 350 lines are left out");
        assert!(
            lines[0].ends_with("fault 1: pause 1") && lines[50].ends_with("fault 400: pause 1")
        );
    }
}
