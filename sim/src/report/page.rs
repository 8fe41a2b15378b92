//! The page about a failure: the operations that matter, the faults before it, and what each node
//! was and did last. It stands above the last words, which say what broke and how to see it again.
//!
//! A page fits on a screen: what is too much is left out, and what is too wide is shortened in the
//! middle. Left out on purpose is all that a replay with `--trace` tells.

use std::fmt::Write as _;

use stormkv::node::Role;

use super::Paint;
use super::text::{one_line, thousands};
use crate::outcome::Violation;
use crate::simulation::{Choice, FailureReport, Line, NodeRecord, Operation, State, Struck};

/// How many nodes are told.
const NODES: usize = 7;
/// How many lines the first node gets, if the violation is about it, and how many the others.
const LINES: (usize, usize) = (5, 3);
/// How many lines all operations get together, and how many each at least.
const ATTEMPTS: (usize, usize) = (8, 2);
/// How many columns an operation may take, an answer, what happened to a node, and why it is down.
const WHAT: usize = 38;
const ANSWER: usize = 26;
const EVENT: usize = 72;
const CONDITION: usize = 40;

/// The page about a violation, ending in a newline.
pub fn page(recorded: &FailureReport, violation: &Violation, paint: Paint) -> String {
    let mut text = String::new();
    operations(&mut text, recorded, paint);
    faults(&mut text, &recorded.faults, paint);
    nodes(&mut text, recorded, violation, paint);
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("a string takes all");
}

// ---- operations ----

fn operations(text: &mut String, recorded: &FailureReport, paint: Paint) {
    let count = recorded.operations.len();
    let heading = match recorded.choice {
        _ if count == 0 => "no operation had begun".to_owned(),
        Choice::Proof => "the operations that prove it".to_owned(),
        Choice::Around { open, told } => {
            let open = match open {
                0 => "no operation was open".to_owned(),
                1 => "the operation that was open".to_owned(),
                _ if open == told => format!("the {open} operations that were open"),
                _ => format!("the {told} oldest of {open} operations that were open"),
            };
            match count - told {
                0 => open,
                1 => format!("{open}, and the last one that had ended"),
                ended => format!("{open}, and the last {ended} that had ended"),
            }
        }
    };
    line(text, &paint.bold(&heading));
    if count == 0 {
        return;
    }
    let rows: Vec<[String; 5]> = recorded.operations.iter().map(row).collect();
    let names = ["called ms", "returned ms", "client", "operation", "answer"].map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&names]).map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let [w0, w1, w2, w3] = [0, 1, 2, 3].map(width);
    let most = (ATTEMPTS.0 / count).max(ATTEMPTS.1);
    let attempts = recorded.operations.iter().map(|operation| last(&operation.attempts, most));
    let attempts: Vec<&[Line]> = attempts.collect();
    let columns = Columns::of(&attempts);
    for (at, row) in [&names].into_iter().chain(&rows).enumerate() {
        let [called, returned, client, what, answer] = row;
        let row = format!("  {called:>w0$}  {returned:>w1$}  {client:<w2$}  {what:<w3$}  {answer}");
        line(text, &row);
        let attempts = at.checked_sub(1).map_or(&[][..], |at| attempts[at]);
        attempts.iter().for_each(|attempt| line(text, &columns.line(attempt)));
    }
}

fn row(operation: &Operation) -> [String; 5] {
    [
        ms(operation.call_ns),
        operation.return_ns.map_or_else(|| "-".to_owned(), ms),
        one_line(&operation.client),
        shorten(&operation.what, WHAT),
        shorten(&operation.answer, ANSWER),
    ]
}

// ---- faults ----

fn faults(text: &mut String, faults: &[Struck], paint: Paint) {
    if faults.is_empty() {
        return;
    }
    line(text, "");
    line(text, &paint.bold("the last faults before it"));
    let width = faults.iter().map(|fault| ms(fault.at_ns).len()).max().unwrap_or_default();
    for fault in faults {
        let until = fault.end_ns.map_or_else(String::new, |ns| format!(", until {}", ms(ns)));
        let what = shorten(&fault.what, EVENT - until.len());
        line(text, &format!("  {:>width$} ms  {what}{until}", ms(fault.at_ns)));
    }
}

// ---- nodes ----

fn nodes(text: &mut String, recorded: &FailureReport, violation: &Violation, paint: Paint) {
    let nodes = &recorded.nodes[..recorded.nodes.len().min(NODES)];
    let lines = |(at, node): (usize, &'_ NodeRecord)| {
        let most = if at == 0 { LINES.0 } else { LINES.1 };
        node.lines.len().min(most)
    };
    let counts: Vec<usize> = nodes.iter().enumerate().map(lines).collect();
    let lines = nodes.iter().zip(counts).map(|(node, count)| last(&node.lines, count));
    let lines: Vec<&[Line]> = lines.collect();
    let (step, at) = (thousands(violation.step.into()), ms(violation.at_ns));
    let what = match lines.iter().all(|lines| lines.is_empty()) {
        true => " in the end",
        false => " and its last events",
    };
    let heading = format!("each node{what}, at event {step} after {at} ms");
    line(text, "");
    line(text, &paint.bold(&heading));
    let columns = Columns::of(&lines);
    let names = nodes.iter().map(|node| node.id.to_string().len()).max().unwrap_or_default();
    for (node, lines) in nodes.iter().zip(lines) {
        let name = node.id.to_string();
        let pad = " ".repeat(names - name.len());
        line(text, &format!("  {}{pad}  {}", paint.bold(&name), summary(node)));
        lines.iter().for_each(|event| line(text, &columns.line(event)));
    }
    match recorded.nodes.len() - nodes.len() {
        0 => {}
        1 => line(text, "  and 1 more node"),
        more => line(text, &format!("  and {more} more nodes")),
    }
}

fn summary(node: &NodeRecord) -> String {
    let condition = shorten(&node.condition, CONDITION);
    let Some(State { role, term, last: (index, of_term), commit, applied }) = node.state else {
        return condition;
    };
    let role = match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    };
    let is_up = condition.starts_with("up") || condition == "paused";
    let was = if is_up { "" } else { "was " };
    format!(
        "{condition}: {was}{role} in term {term}, log to {index}@{of_term}, commit {commit}, \
         applied {applied}"
    )
}

// ---- lines of a trace ----

/// At most so many of the last ones.
fn last(lines: &[Line], most: usize) -> &[Line] {
    &lines[lines.len().saturating_sub(most)..]
}

/// How wide the numbers and times of some lines are.
struct Columns {
    step: usize,
    time: usize,
}

impl Columns {
    fn of(lines: &[&[Line]]) -> Columns {
        let lines = || lines.iter().flat_map(|lines| lines.iter());
        let step = lines().map(|line| thousands(line.step.into()).len()).max();
        let time = lines().map(|line| ms(line.at_ns).len()).max();
        Columns { step: step.unwrap_or_default(), time: time.unwrap_or_default() }
    }

    fn line(&self, Line { step, at_ns, text, times }: &Line) -> String {
        let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
        let event = shorten(text, EVENT - often.len());
        let (step, at, (w0, w1)) = (thousands((*step).into()), ms(*at_ns), (self.step, self.time));
        format!("    {step:>w0$}  {at:>w1$} ms  {event}{often}")
    }
}

// ---- text ----

/// Milliseconds with microseconds behind the point, as traces have them.
fn ms(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns / 1000 % 1000)
}

/// At most so many characters, on one line; what is too much is left out in the middle.
fn shorten(text: &str, most: usize) -> String {
    let text = one_line(text);
    let count = text.chars().count();
    if count <= most {
        return text;
    }
    let head = (most - 2) * 2 / 3;
    let tail = most - 2 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}..{end}")
}

#[cfg(test)]
mod tests {
    use stormkv::types::NodeId;

    use super::*;
    use crate::outcome::Class;

    const VIOLATION: Violation = Violation {
        class: Class::Safety,
        checker: "read-index",
        message: String::new(),
        step: 12_345,
        at_ns: 7_000_250_999,
    };

    fn event(step: u64, text: &str, times: u32) -> Line {
        Line { step, at_ns: step * 500_000, text: text.to_owned(), times }
    }

    fn operation(what: &str, return_ns: Option<u64>, answer: &str) -> Operation {
        let [what, answer, client] = [what, answer, "c1"].map(str::to_owned);
        let attempts = Vec::new();
        Operation { call_ns: 900_500_000, return_ns, client, what, answer, attempts }
    }

    fn node(id: u64, condition: &str, state: Option<State>, lines: Vec<Line>) -> NodeRecord {
        NodeRecord { id: NodeId(id), condition: condition.to_owned(), state, lines }
    }

    fn state(role: Role, term: u64) -> Option<State> {
        Some(State { role, term, last: (12, 3), commit: 11, applied: 10 })
    }

    fn recorded() -> FailureReport {
        let put = operation("put x 1", Some(1_200_000_000), "ok, entry 11");
        let get = operation("get x", None, "open");
        let attempts = vec![event(12_000, "c1 -> n2 get x", 1), event(12_345, "n2 answers", 1)];
        let last = (1..=6).map(|n| event(12_339 + n, &format!("n1 -> n2 Append [{n}@3]"), 1));
        FailureReport {
            choice: Choice::Proof,
            operations: vec![put, Operation { attempts, ..get }],
            faults: vec![
                Struck { at_ns: 99_900_000, end_ns: None, what: "crash 1".to_owned() },
                Struck {
                    at_ns: 1_000_000_000,
                    end_ns: Some(1_500_000_000),
                    what: "pause leader (n2)".to_owned(),
                },
            ],
            nodes: vec![
                node(2, "up", state(Role::Leader, 3), last.collect()),
                node(1, "paused", state(Role::Follower, 2), Vec::new()),
                node(3, "down", state(Role::Candidate, 4), vec![event(900, "n3 is down", 2)]),
                node(10, "never started", None, Vec::new()),
            ],
        }
    }

    const PAGE: &str = "\
the operations that prove it
  called ms  returned ms  client  operation  answer
    900.500     1200.000  c1      put x 1    ok, entry 11
    900.500            -  c1      get x      open
    12,000  6000.000 ms  c1 -> n2 get x
    12,345  6172.500 ms  n2 answers

the last faults before it
    99.900 ms  crash 1
  1000.000 ms  pause leader (n2), until 1500.000

each node and its last events, at event 12,345 after 7000.250 ms
  n2   up: leader in term 3, log to 12@3, commit 11, applied 10
    12,341  6170.500 ms  n1 -> n2 Append [2@3]
    12,342  6171.000 ms  n1 -> n2 Append [3@3]
    12,343  6171.500 ms  n1 -> n2 Append [4@3]
    12,344  6172.000 ms  n1 -> n2 Append [5@3]
    12,345  6172.500 ms  n1 -> n2 Append [6@3]
  n1   paused: follower in term 2, log to 12@3, commit 11, applied 10
  n3   down: was candidate in term 4, log to 12@3, commit 11, applied 10
       900   450.000 ms  n3 is down (2 times)
  n10  never started
";

    #[test]
    fn a_page_reads_well() {
        assert_eq!(page(&recorded(), &VIOLATION, Paint::plain()), PAGE);
        let painted = page(&recorded(), &VIOLATION, Paint::coloured());
        assert!(painted.contains("  \u{1b}[1mn2\u{1b}[0m   up: leader"), "{painted}");
        let bare = painted.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
        assert_eq!(bare, PAGE);
    }

    #[test]
    fn the_heading_says_which_operations_follow() {
        let heading = |open, told, count| {
            let operations = vec![operation("get x", None, "open"); count];
            let choice = Choice::Around { open, told };
            let recorded = FailureReport { choice, operations, ..FailureReport::default() };
            let page = page(&recorded, &VIOLATION, Paint::plain());
            page.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(heading(0, 0, 0), "no operation had begun");
        assert_eq!(heading(0, 0, 3), "no operation was open, and the last 3 that had ended");
        assert_eq!(
            heading(1, 1, 2),
            "the operation that was open, and the last one that had ended"
        );
        assert_eq!(heading(2, 2, 2), "the 2 operations that were open");
        let many = "the 5 oldest of 31 operations that were open, and the last 3 that had ended";
        assert_eq!(heading(31, 5, 8), many);
    }

    #[test]
    fn what_is_found_in_the_end_has_no_last_events() {
        let nodes = vec![node(1, "up", state(Role::Leader, 3), Vec::new())];
        let recorded = FailureReport { nodes, ..FailureReport::default() };
        let page = page(&recorded, &VIOLATION, Paint::plain());
        let end =
            "\neach node in the end, at event 12,345 after 7000.250 ms\n  n1  up: leader in term 3";
        assert!(page.contains(end), "{page}");
    }

    #[test]
    fn a_page_is_bounded_and_holds_no_control_characters() {
        let long = "\u{1b}[2J\u{7}\nv".to_owned() + &"é".repeat(500);
        let lines = vec![event(u64::MAX / 1_000_000, &long, u32::MAX); 9];
        let mut recorded = recorded();
        recorded.nodes = (1..=30)
            .map(|id| node(id, &long, state(Role::Leader, 1 << 40), lines.clone()))
            .collect();
        recorded.operations = vec![operation(&long, Some(1 << 50), &long); 4];
        recorded.operations.iter_mut().for_each(|operation| operation.attempts = lines.clone());
        recorded.faults.iter_mut().for_each(|fault| fault.what = long.clone());
        let page = page(&recorded, &VIOLATION, Paint::plain());
        assert!(page.ends_with("\n  and 23 more nodes\n"), "{page}");
        assert!(!page.contains(|c: char| c.is_control() && c != '\n'), "{page:?}");
        let count = page.lines().count();
        assert!(count <= 53, "{count} lines");
        let widest = page.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(125), "{widest:?} columns");
    }

    #[test]
    fn what_is_too_wide_loses_its_middle() {
        assert_eq!(shorten("abcdefghij", 10), "abcdefghij");
        assert_eq!(shorten("abcdefghijk", 10), "abcde..ijk");
        assert_eq!(shorten("  a\tb\r\n", 10), "a b");
        assert_eq!(shorten(&"é".repeat(90), 10).chars().count(), 10);
    }
}
