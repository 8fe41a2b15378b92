//! Both checkers against hand-damaged histories, against brute force, and on large histories.

mod histories;

use histories::{Generated, Rng, Shape, brute_force, damage, generate, hush};
use proptest::prelude::*;
use stormkv_sim::checker::linearizable::{self, Limits, Verdict};
use stormkv_sim::checker::witness::{self, Applied};
use stormkv_sim::history::{Action, Answer, History, Model, Outcome, Txn, TxnOp, Value};

const SMALL: Shape = Shape {
    model: Model::Kv,
    ops: 7,
    processes: 4,
    keys: 2,
    values: 2,
    actions: &["get", "get", "put", "append", "cas", "delete", "scan", "txn"],
    unknown: 10,
    failed: 5,
};

fn shapes() -> [Shape; 9] {
    let one_key = Shape { keys: 1, ..SMALL };
    [
        SMALL,
        Shape { actions: &["get", "put", "append", "cas", "delete"], ..one_key },
        Shape { actions: &["get", "put", "put", "delete"], unknown: 25, values: 3, ..one_key },
        Shape { actions: &["get", "append", "append", "put"], unknown: 20, ..one_key },
        Shape { actions: &["get", "get", "append", "put"], values: 0, unknown: 15, ..one_key },
        Shape { actions: &["get", "append", "delete", "cas"], values: 0, ..one_key },
        Shape { actions: &["get", "put", "scan"], ..SMALL },
        Shape { actions: &["get", "txn", "scan"], unknown: 20, ..SMALL },
        Shape {
            model: Model::Register,
            actions: &["get", "put", "cas"],
            unknown: 20,
            values: 3,
            ..one_key
        },
    ]
}

fn black_box(history: &History) -> Verdict {
    linearizable::check(history, Limits::default(), &mut || false)
}

/// A small history, legal or damaged, and its verdict by brute force.
fn small(seed: u64, shape: Shape) -> (Generated, bool) {
    let mut rng = Rng(seed);
    let mut generated = generate(&mut rng, shape);
    let damages = rng.below(3);
    (0..damages).for_each(|_| damage(&mut rng, &mut generated.history, shape.values));
    hush(&mut rng, &mut generated.history);
    let legal = brute_force(&generated.history);
    assert!(legal || damages > 0, "the generator made an illegal history");
    (generated, legal)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn black_box_agrees_with_brute_force(seed: u64, shape in 0_usize..9) {
        let (generated, legal) = small(seed, shapes()[shape]);
        match black_box(&generated.history) {
            Verdict::Linearizable => prop_assert!(legal, "accepted: {:#?}", generated.history),
            Verdict::Violation(why) => {
                prop_assert!(!legal, "rejected: {why}: {:#?}", generated.history);
                let one_line = !why.sentence.contains('\n') && why.sentence.len() < 600;
                prop_assert!(one_line, "{why}");
                prop_assert!((1..=4).contains(&why.ops.len()), "{why}: {:?}", why.ops);
                let told = |&op: &usize| why.sentence.contains(&generated.history.describe(op));
                prop_assert!(why.ops.iter().all(told), "{why}: {:?}", why.ops);
            }
            Verdict::Unknown(why) => prop_assert!(false, "{why}"),
        }
    }

    #[test]
    fn witness_accepts_valid_orders_and_never_an_illegal_history(seed: u64, shape in 0_usize..9) {
        let shape = shapes()[shape];
        let valid = generate(&mut Rng(seed), shape);
        if let Err(why) = witness::check(&valid.history, &valid.applied) {
            prop_assert!(false, "rejected a valid order: {why}: {:#?}", valid.history);
        }
        let (mut damaged, legal) = small(seed, shape);
        let mut rng = Rng(seed ^ 1);
        for _ in 0..rng.below(3) {
            // A wrong order: two writes change places.
            let count = damaged.applied.len() as u64;
            if count > 1 {
                let (a, b) = (rng.below(count) as usize, rng.below(count) as usize);
                let op = damaged.applied[a].op;
                damaged.applied[a].op = damaged.applied[b].op;
                damaged.applied[b].op = op;
            }
        }
        match witness::check(&damaged.history, &damaged.applied) {
            Ok(_) => prop_assert!(legal, "accepted: {:#?}", damaged.history),
            Err(why) => {
                let one_line = !why.sentence.contains('\n') && why.sentence.len() < 900;
                prop_assert!(one_line, "{why}");
                prop_assert!((1..=4).contains(&why.ops.len()), "{why}: {:?}", why.ops);
                let told = |&op: &usize| why.sentence.contains(&damaged.history.describe(op));
                prop_assert!(why.ops.iter().all(told), "{why}: {:?}", why.ops);
            }
        }
    }
}

#[test]
fn small_histories_are_of_both_kinds() {
    for (number, shape) in shapes().into_iter().enumerate() {
        let illegal = (0..200).filter(|&seed| !small(seed, shape).1).count();
        assert!((20..=150).contains(&illegal), "shape {number}: {illegal} of 200 are illegal");
    }
}

/// One operation: process, call, return (0: none), action, outcome. Positions are distinct.
type Line = (u64, u64, u64, Action, Outcome);

fn history(lines: &[Line]) -> History {
    let mut events: Vec<(u64, usize)> = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        events.push((line.1, index));
        if line.2 != 0 {
            events.push((line.2, index));
        }
    }
    events.sort_unstable();
    let mut history = History::new(Model::Kv);
    let mut ids = vec![usize::MAX; lines.len()];
    for (at, index) in events {
        let (process, _, _, action, outcome) = &lines[index];
        if ids[index] == usize::MAX {
            ids[index] = history.invoke(*process, action.clone(), at * 1_000_000);
        } else {
            history.complete(ids[index], outcome.clone(), at * 1_000_000);
        }
    }
    history
}

fn put(process: u64, call: u64, ret: u64, key: &str, value: &str) -> Line {
    let action = Action::Put { key: key.into(), value: Value::text(value) };
    let outcome = if ret == 0 { Outcome::Info } else { Outcome::Ok(Answer::Done) };
    (process, call, ret, action, outcome)
}

fn append(process: u64, call: u64, ret: u64, key: &str, value: &str) -> Line {
    let action = Action::Append { key: key.into(), value: Value::text(value) };
    (process, call, ret, action, Outcome::Ok(Answer::Done))
}

fn get(process: u64, call: u64, ret: u64, key: &str, value: &str) -> Line {
    let value = if value.is_empty() { None } else { Some(Value::text(value)) };
    (process, call, ret, Action::Get { key: key.into() }, Outcome::Ok(Answer::Value(value)))
}

fn cas(process: u64, call: u64, ret: u64, change: [&str; 2], swapped: bool) -> Line {
    let [expected, new] = change.map(Value::text);
    let action = Action::Cas { key: "x".into(), expected: Some(expected), new };
    (process, call, ret, action, Outcome::Ok(Answer::Swapped(swapped)))
}

fn scan(process: u64, call: u64, ret: u64, pairs: &[(&str, &str)]) -> Line {
    let pairs = pairs.iter().map(|(key, value)| ((*key).into(), Value::text(value))).collect();
    (process, call, ret, Action::Scan { prefix: "".into() }, Outcome::Ok(Answer::Pairs(pairs)))
}

fn applied(ops: &[usize]) -> Vec<Applied> {
    ops.iter().zip(10..).map(|(&op, index)| Applied { index, op }).collect()
}

/// Both checkers must reject; each explanation must contain the words given.
fn both_reject(lines: &[Line], order: &[usize], black_box_says: &str, witness_says: &str) {
    let history = history(lines);
    assert!(!brute_force(&history));
    match black_box(&history) {
        Verdict::Violation(why) => {
            assert!(why.sentence.contains(black_box_says), "{why:?} lacks {black_box_says:?}");
        }
        other => panic!("{other:?}"),
    }
    let why = witness::check(&history, &applied(order)).expect_err("illegal");
    assert!(why.sentence.contains(witness_says), "{why:?} lacks {witness_says:?}");
}

#[test]
fn stale_read() {
    both_reject(
        &[put(1, 1, 2, "x", "a"), put(2, 3, 4, "x", "b"), get(3, 5, 6, "x", "a")],
        &[0, 1],
        "get x -> \"a\" by process 3 (5.000000 ms to 6.000000 ms) fits into no order together \
         with put x \"a\" by process 1 (1.000000 ms to 2.000000 ms) and put x \"b\" by process 2 \
         (3.000000 ms to 4.000000 ms); without it the value can be \"b\" by then",
        "get x -> \"a\" by process 3 (5.000000 ms to 6.000000 ms) must see a state not older than \
         put x \"b\" by process 2 (3.000000 ms to 4.000000 ms), which took effect at index 11, \
         where x is \"b\"",
    );
}

#[test]
fn read_that_goes_back_behind_another_read() {
    both_reject(
        &[
            put(1, 1, 2, "x", "a"),
            put(2, 3, 10, "x", "b"),
            get(3, 4, 5, "x", "b"),
            get(4, 6, 7, "x", "a"),
        ],
        &[0, 1],
        "get x -> \"a\" by process 4",
        "which had seen the log up to index 11",
    );
}

#[test]
fn lost_update() {
    // Two swaps of the same old value cannot both succeed.
    both_reject(
        &[put(1, 1, 2, "x", "a"), cas(2, 3, 6, ["a", "b"], true), cas(3, 4, 5, ["a", "c"], true)],
        &[0, 1, 2],
        "swapped=true",
        "took effect at log index 12, where the answer must be -> swapped=false",
    );
    // An acknowledged write that never reached the log.
    let lost = history(&[put(1, 1, 2, "x", "a"), get(2, 3, 4, "x", "")]);
    assert!(matches!(black_box(&lost), Verdict::Violation(_)));
    let why = witness::check(&lost, &[]).expect_err("lost");
    assert!(why.sentence.contains("was acknowledged but never took effect"), "{why}");
}

#[test]
fn double_apply() {
    let lines = [append(1, 1, 2, "x", "a"), get(2, 3, 4, "x", "aa")];
    both_reject(&lines, &[0, 0], "get x -> \"aa\"", "took effect twice, at log index 10 and at 11");
    both_reject(&lines, &[0], "get x -> \"aa\"", "a value that x never had");
}

#[test]
fn wrong_cas_result() {
    both_reject(
        &[put(1, 1, 2, "x", "a"), cas(2, 3, 4, ["a", "b"], false)],
        &[0, 1],
        "cas x \"a\" to \"b\" -> swapped=false",
        "where the answer must be -> swapped=true",
    );
}

#[test]
fn value_never_written() {
    both_reject(
        &[put(1, 1, 2, "x", "a"), get(2, 3, 4, "x", "z")],
        &[0],
        "no operation that may have had an effect wrote \"z\"",
        "a value that x never had",
    );
}

#[test]
fn refused_write_that_is_seen() {
    let mut refused = put(1, 1, 2, "x", "a");
    refused.4 = Outcome::Fail;
    both_reject(
        &[refused, get(2, 3, 4, "x", "a")],
        &[0],
        "no operation that may have had an effect wrote \"a\"",
        "was refused for certain, yet it took effect",
    );
}

#[test]
fn read_from_the_future() {
    both_reject(
        &[get(2, 1, 2, "x", "a"), put(1, 3, 4, "x", "a")],
        &[1],
        "get x -> \"a\"",
        "it returned before put x \"a\" by process 1 (3.000000 ms to 4.000000 ms) was called",
    );
}

#[test]
fn real_time_inversion_of_writes() {
    let lines = [put(1, 1, 2, "x", "a"), put(2, 3, 4, "x", "b"), get(3, 5, 6, "x", "a")];
    both_reject(&lines, &[1, 0], "get x", "but took effect after it, at log index 11");
}

#[test]
fn torn_scan() {
    // y was written after x, so a scan with the new y must have the new x.
    both_reject(
        &[
            put(1, 1, 2, "x", "a"),
            put(1, 3, 4, "x", "b"),
            put(1, 5, 6, "y", "b"),
            scan(2, 1, 7, &[("x", "a"), ("y", "b")]),
        ]
        .map(|mut line| {
            line.1 += 10 * u64::from(line.0 == 1);
            line.2 += 10;
            line
        }),
        &[1, 2, 3],
        "[x=\"a\", y=\"b\"]",
        "no later moment has exactly these pairs",
    );
}

#[test]
fn scan_that_misses_a_key_or_is_stale() {
    let writes = [put(1, 1, 2, "x", "a"), put(1, 3, 4, "y", "b"), put(1, 5, 6, "y", "c")];
    let reject = |pairs: &[(&str, &str)]| {
        let [first, second, third] = writes.clone();
        let lines = [first, second, third, scan(2, 7, 8, pairs)];
        both_reject(&lines, &[0, 1, 2], "scan \"\"", "scan \"\"");
    };
    reject(&[("x", "a")]);
    reject(&[("x", "a"), ("y", "b")]);
    reject(&[("x", "a"), ("y", "c"), ("z", "c")]);
}

fn put_step(key: &str, value: &str) -> TxnOp {
    TxnOp::Put(key.into(), Value::text(value))
}

/// A transaction that asks for a value of x before it acts, and whose condition held.
fn txn(process: u64, call: u64, x: Option<&str>, then: &[TxnOp], results: &[Answer]) -> Line {
    let action = Action::Txn(Box::new(Txn {
        conditions: x.map(|x| ("x".into(), Some(Value::text(x)))).into_iter().collect(),
        then: then.to_vec(),
        otherwise: Vec::new(),
    }));
    let answer = Answer::Txn { succeeded: true, results: Some(results.to_vec()) };
    (process, call, call + 1, action, Outcome::Ok(answer))
}

#[test]
fn transaction_that_judges_or_reads_a_stale_value() {
    let [old, new] = [put(1, 1, 2, "x", "a"), put(1, 3, 4, "x", "b")];
    let judges = txn(2, 5, Some("a"), &[put_step("y", "c")], &[Answer::Done]);
    let wrong = "took effect at log index 12, where the answer must be";
    both_reject(&[old.clone(), new.clone(), judges], &[0, 1, 2], "txn", wrong);
    let stale = Answer::Value(Some(Value::text("a")));
    let reads = txn(2, 5, Some("b"), &[TxnOp::Get("x".into())], &[stale]);
    both_reject(&[old, new, reads], &[0, 1, 2], "txn", wrong);
}

#[test]
fn transaction_by_half_not_at_all_or_twice() {
    let both = [put_step("x", "a"), put_step("y", "b")];
    let done = txn(1, 1, None, &both, &[Answer::Done, Answer::Done]);
    let half = [done.clone(), get(2, 3, 4, "x", "a"), get(2, 5, 6, "y", "")];
    both_reject(&half, &[0], "get y -> null", "get y -> null");
    let nothing = [done.clone(), scan(2, 3, 4, &[])];
    both_reject(&nothing, &[0], "scan", "scan");
    both_reject(&nothing, &[], "scan", "was acknowledged but never took effect");
    // The second time, it overwrites what came between.
    let twice = [done, put(2, 3, 4, "x", "c"), get(2, 5, 6, "x", "a")];
    both_reject(&twice, &[0, 1, 0], "get x -> \"a\"", "took effect twice");
    both_reject(&twice, &[0, 1], "get x -> \"a\"", "get x -> \"a\"");
}

#[test]
fn refused_transaction_that_is_seen() {
    let mut refused = txn(1, 1, None, &[put_step("x", "a")], &[Answer::Done]);
    refused.4 = Outcome::Fail;
    let lines = [refused, scan(2, 3, 4, &[("x", "a")])];
    both_reject(&lines, &[0], "scan", "was refused for certain, yet it took effect");
    both_reject(&lines, &[], "scan", "scan");
}

#[test]
fn scan_out_of_order_or_outside_of_its_prefix() {
    let lines =
        [put(1, 1, 2, "x", "a"), put(1, 3, 4, "y", "a"), scan(2, 5, 6, &[("y", "a"), ("x", "a")])];
    both_reject(&lines, &[0, 1], "scan \"\"", "no later moment");
    let mut outside = scan(2, 5, 6, &[("x", "a"), ("y", "a")]);
    outside.3 = Action::Scan { prefix: "x".into() };
    both_reject(&[lines[0].clone(), lines[1].clone(), outside], &[0, 1], "scan \"x\"", "no later");
}

#[test]
fn unknown_outcomes_may_take_effect_late_or_never() {
    let late = [put(1, 1, 0, "x", "a"), get(2, 3, 4, "x", ""), get(2, 5, 6, "x", "a")];
    assert_eq!(black_box(&history(&late)), Verdict::Linearizable);
    let stats = witness::check(&history(&late), &applied(&[0])).expect("legal");
    assert_eq!((stats.unknown_effective, stats.gets, stats.answers), (1, 2, 0));
    let never = history(&late[..2]);
    assert_eq!(black_box(&never), Verdict::Linearizable);
    assert_eq!(witness::check(&never, &[]).expect("legal").unknown_ineffective, 1);
    // But it cannot be seen and then vanish.
    both_reject(
        &[put(1, 1, 0, "x", "a"), get(2, 3, 4, "x", "a"), get(2, 5, 6, "x", "")],
        &[0],
        "get x -> null",
        "where x is \"a\"",
    );
}

/// Unlike one of unknown outcome, it has its place before whatever was called later.
#[test]
fn unsaid_answers_took_effect_in_time() {
    let unsaid = |mut line: Line| {
        line.4 = Outcome::Ok(Answer::Unsaid);
        line
    };
    let swap = unsaid(cas(2, 3, 4, ["a", "b"], true));
    let seen = [put(1, 1, 2, "x", "a"), swap.clone(), get(2, 5, 6, "x", "b")];
    let missed = [put(1, 1, 2, "x", "a"), swap, get(2, 5, 6, "x", "a")];
    let idle =
        [put(1, 1, 2, "x", "a"), unsaid(cas(2, 3, 4, ["z", "b"], true)), get(2, 5, 6, "x", "a")];
    let both = txn(2, 3, Some("a"), &[put_step("x", "c")], &[Answer::Done]);
    let written = [put(1, 1, 2, "x", "a"), unsaid(both), get(2, 5, 6, "x", "c")];
    for legal in [seen, idle, written] {
        let history = history(&legal);
        assert_eq!(black_box(&history), Verdict::Linearizable);
        let stats = witness::check(&history, &applied(&[0, 1])).expect("legal");
        assert_eq!((stats.effects, stats.answers), (2, 2));
    }
    both_reject(&missed, &[0, 1], "get x -> \"a\"", "get x -> \"a\"");
    both_reject(&missed, &[0], "get x -> \"a\"", "was acknowledged but never took effect");
}

#[test]
fn an_undecided_key_does_not_hide_an_illegal_one() {
    // Key a: 30 concurrent unread appends before a read that is almost right, which takes
    // exponentially many orders to refute; key b: a plain stale read.
    let mut lines: Vec<Line> =
        (0..30).map(|n| append(n, 1 + n, 100 + n, "a", &n.to_string())).collect();
    lines.push(put(40, 50, 51, "a", "p"));
    lines.push((
        41,
        200,
        201,
        Action::Cas { key: "a".into(), expected: None, new: Value::text("q") },
        Outcome::Ok(Answer::Swapped(true)),
    ));
    let hard = history(&lines);
    let limits = Limits { steps: 300_000, ..Limits::default() };
    let undecided = linearizable::check(&hard, limits, &mut || false);
    assert!(matches!(&undecided, Verdict::Unknown(why) if why.contains("\"a\"")), "{undecided:?}");
    assert!(matches!(
        linearizable::check(&hard, Limits::default(), &mut || true),
        Verdict::Unknown(_)
    ));
    lines.push(put(42, 202, 203, "b", "1"));
    lines.push(get(42, 204, 205, "b", ""));
    let both = history(&lines);
    let verdict = linearizable::check(&both, limits, &mut || false);
    assert!(matches!(verdict, Verdict::Violation(why) if why.sentence.contains("get b -> null")));
}

const LARGE: Shape = Shape {
    model: Model::Kv,
    ops: 4_000,
    processes: 30,
    keys: 8,
    values: 0,
    actions: &["get", "get", "put", "append", "cas", "delete"],
    unknown: 1,
    failed: 1,
};

fn large() -> [Shape; 5] {
    [
        LARGE,
        Shape { actions: &["get", "put"], unknown: 3, ..LARGE },
        Shape { actions: &["get", "append", "append"], unknown: 0, ..LARGE },
        Shape { actions: &["get", "get", "put", "append", "append"], ..LARGE },
        Shape { actions: &["get", "put", "put", "scan", "txn"], processes: 8, ..LARGE },
    ]
}

#[test]
fn large_legal_histories_are_accepted() {
    for (number, shape) in large().into_iter().enumerate() {
        let generated = generate(&mut Rng(number as u64), shape);
        let verdict = black_box(&generated.history);
        assert_eq!(verdict, Verdict::Linearizable, "shape {number}");
        let stats = witness::check(&generated.history, &generated.applied).expect("legal");
        assert!(stats.gets > 500 && stats.answers > 1_000, "{stats:?}");
    }
}

#[test]
fn one_stale_read_in_a_large_history_is_found_and_explained_briefly() {
    for (number, shape) in large().into_iter().enumerate() {
        let mut generated = generate(&mut Rng(number as u64), shape);
        let ops = generated.history.ops_mut();
        let is_value = |op: &stormkv_sim::history::Op| {
            matches!(op.outcome, Outcome::Ok(Answer::Value(Some(_))))
        };
        let early = ops.iter().position(is_value).expect("a read");
        let key = ops[early].action.clone();
        let late = ops.iter().rposition(|op| is_value(op) && op.action == key).expect("a read");
        ops[late].outcome = ops[early].outcome.clone();
        let Verdict::Violation(why) = black_box(&generated.history) else {
            panic!("shape {number}: accepted or undecided")
        };
        assert!(why.sentence.starts_with(&generated.history.describe(late)), "{why}");
        assert!(why.sentence.matches("by process").count() <= 4, "{why}");
        assert!(witness::check(&generated.history, &generated.applied).is_err());
    }
}

#[test]
fn fifty_clients_on_few_keys_take_few_steps() {
    // Puts among appends: without the rules about useless operations some of these take seconds.
    let actions = &["get", "get", "get", "get", "put", "append", "append", "append", "append"];
    for seed in 0..10 {
        let shape = Shape { ops: 1_700, processes: 50, keys: 5, unknown: 0, actions, ..LARGE };
        let history = generate(&mut Rng(seed), shape).history;
        let limits = Limits { steps: 100_000, ..Limits::default() };
        let verdict = linearizable::check(&history, limits, &mut || false);
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}");
    }
}
