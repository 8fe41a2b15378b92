//! Plans are data: what is written is read back, and mistakes are named with their line.

use stormkv::types::NodeId;
use stormkv::wire::Kind;
use stormkv_sim::kv::KeyValue;
use stormkv_sim::kv::{self, Value};
use stormkv_sim::plan::{
    Call, Clients, Cluster, Core, Cpu, Delay, Disk, End, Expect, Fault, FaultRow, Found, LinkFault,
    Member, MessageKind, MessageRef, NetEffect, NetRow, Network, Op, OpRow, Plan, Who, Wire,
};
use stormkv_sim::scenario;
use stormkv_sim::service::checked;
use stormkv_sim::swarm::generate;

/// The error that this scenario gives, without the file's name.
fn error_of(text: &str) -> String {
    match scenario::parse::<KeyValue>("story.toml", text) {
        Ok(plan) => panic!("accepted: {plan:?}"),
        Err(error) => {
            let line = error.to_string();
            line.strip_prefix("story.toml:").expect("the file is named first").to_string()
        }
    }
}

/// A scenario with this fault in its last line, which is line 5.
fn fault_error(text: &str) -> String {
    let head = "schema = 1\nname = \"x\"\n\n[[fault]]\n";
    error_of(&format!("{head}at_ms = 1\ndo = \"{text}\"\n"))
}

/// A scenario with this operation in its last line, which is line 6.
fn op_error(text: &str) -> String {
    let head = "schema = 1\nname = \"x\"\n\n[[op]]\n";
    error_of(&format!("{head}at_ms = 1\nclient = 1\ndo = \"{text}\"\n"))
}

/// A plan in which nothing has its default.
fn unusual_plan() -> Plan {
    let message = |number| MessageRef {
        from: Member::Node(NodeId(2)),
        to: Member::Client(1),
        kind: MessageKind::Peer(Kind::AppendResp),
        number,
    };
    Plan {
        story: "Quotes \" and \\ and\na new line, a bell \u{7}, an umlaut ü.".to_string(),
        found: Some(Found { seed: u64::MAX, rev: "0a1b".to_string(), events_before: 77 }),
        expect: Expect {
            no_skipped_faults: true,
            violation: Some("linearizability".to_string()),
            waypoints: vec!["entries-truncated".to_string(), "snapshot-installed".to_string()],
        },
        cluster: Cluster {
            nodes: 5,
            learners: 1,
            tick_us: 12_345,
            election_ticks: [11, 31],
            heartbeat_ticks: 3,
            snapshot_every: 7,
            keep_entries: 0,
            log_kib: 77,
            segment_kib: 4,
            sessions: 5,
            session_kib: 9,
            chunk_bytes: 100,
            wire: Wire::Encoded,
            batch_us: 1500,
            backup_keys: 9,
        },
        network: Network {
            latency: Delay { min_us: 1, mean_extra_us: 1_000_001 },
            heavy_tail: 0.001,
            drop: 1.0,
            duplicate: 0.3,
            fifo: true,
            spread: 8,
            kib_per_s: 100,
            queue_us: 20_001,
            garble: 0.002,
            tells: 0.5,
        },
        disk: Disk {
            write: Delay { min_us: 1, mean_extra_us: 2 },
            sync: Delay { min_us: 3, mean_extra_us: 4 },
            read: Delay { min_us: 5, mean_extra_us: 6 },
            kib_per_s: 640,
            size_kib: 4096,
        },
        clients: Clients {
            count: 1,
            retry_us: 1,
            give_up_us: 2001,
            think_us: 30,
            in_flight: 3,
            operators: 2,
            backs_off: true,
        },
        cpu: Cpu { input_us: 7, us_per_kib: 8, work_us_per_kib: 9 },
        ops: vec![OpRow { at_us: 1, client: 1, call: "put x 1 @2".parse().unwrap() }],
        faults: vec![
            FaultRow { at_us: 10_010, until_us: Some(3_599_999_999), fault: Fault::CrashAll },
            FaultRow { at_us: 0, until_us: None, fault: Fault::Kill(Who::Same) },
        ],
        net: vec![
            NetRow { effect: NetEffect::Drop, message: message(1) },
            NetRow { effect: NetEffect::Duplicate, message: message(2) },
            NetRow { effect: NetEffect::Delay { by_us: 1500 }, message: message(3) },
        ],
        end: End {
            heal_at_us: Some(3_600_000_000),
            bound_us: 999,
            core: Core::Only([1, 3].map(NodeId).into()),
            beyond_quorum: true,
        },
        ..Plan::new("unusual", u64::MAX)
    }
}

#[test]
fn every_setting_survives_the_way_to_toml_and_back() {
    let plan = unusual_plan();
    let back = scenario::parse::<KeyValue>("unusual", &scenario::save(&plan)).unwrap();
    assert_eq!(back, plan);
}

#[test]
fn the_core_is_a_word_or_a_list_of_nodes() {
    let end = |value: &str| format!("schema = 1\nname = \"x\"\nend.core = {value}\n");
    for (value, core) in [
        ("\"all\"", Core::All),
        ("\"random\"", Core::Random),
        ("[3, 1]", Core::Only([1, 3].map(NodeId).into())),
    ] {
        let plan = scenario::parse::<KeyValue>("x", &end(value)).unwrap();
        assert_eq!(plan.end.core, core);
        assert_eq!(scenario::parse::<KeyValue>("x", &scenario::save(&plan)).unwrap(), plan);
    }
    for (value, expected) in [
        ("\"most\"", "3: the core \"most\" is unknown; write \"all\", \"random\" or a list"),
        ("[]", "3: the core is empty; name the nodes that are healed"),
        ("[2, 2]", "3: node 2 stands twice in the core; name it once"),
        ("[1, 4]", "3: there is no node 4; use one of 1 2 3"),
        ("7", "3: invalid type: integer `7`, expected `\"all\"`, `\"random\"` or a list"),
    ] {
        let error = error_of(&end(value));
        assert!(error.starts_with(expected), "{value}: {error}");
    }
}

#[test]
fn a_canonical_file_is_pleasant_to_read() {
    let mut plan = Plan::new("old-leader-crashes", 42);
    plan.story = "A leader comes back from isolation and crashes.".to_string();
    plan.cluster.nodes = 5;
    plan.network.latency = Delay { min_us: 500, mean_extra_us: 3000 };
    plan.ops = vec![
        OpRow { at_us: 10_500, client: 1, call: "put x 1".parse().unwrap() },
        OpRow { at_us: 200_000, client: 2, call: "get x".parse().unwrap() },
    ];
    plan.faults = vec![FaultRow {
        at_us: 300_000,
        until_us: Some(1_250_000),
        fault: LinkFault::Isolate(Who::Leader).into(),
    }];
    let text = r#"schema = 1
name = "old-leader-crashes"
story = "A leader comes back from isolation and crashes."
seed = 42

cluster.nodes = 5

network.latency_ms = [0.5, 3]

op = [
  { at_ms = 10.5, client = 1, do = "put x 1" },
  { at_ms =  200, client = 2, do = "get x" },
]

fault = [
  { at_ms =  300, until_ms = 1250, do = "isolate leader" },
]
"#;
    assert_eq!(scenario::save(&plan), text);
}

#[test]
fn an_unknown_name_in_an_expectation_is_refused_with_a_suggestion() {
    for (expect, wrong) in [
        (
            "waypoints = [\"leader-elected\", \"entries-truncatd\"]",
            "x.toml:4: there is no waypoint `entries-truncatd`; did you mean `entries-truncated`?",
        ),
        (
            "violation = \"read-indx\"",
            "x.toml:4: there is no checker `read-indx`; did you mean `read-index`?",
        ),
        (
            "violation = \"luck\"",
            "x.toml:4: there is no checker `luck`; use one of election-safety,",
        ),
    ] {
        let text = format!("schema = 1\nname = \"x\"\n[expect]\n{expect}\n");
        let error = scenario::parse::<KeyValue>("x.toml", &text).expect_err(expect).to_string();
        assert!(error.starts_with(wrong), "{error}");
    }
}

#[test]
fn a_file_in_tables_is_the_same_plan() {
    let text = r#"
schema = 1
name = "x"
[expect]
violation = "none"
[cluster]
nodes = 5
[clients]
retry_ms = 12.5
[[op]]
at_ms = 1.0
client = 3
do = "  put  x   1*10   @2 "
[[op]]
at_ms = 2
do = "add 6"
[[fault]]
at_ms = 100
do = "partition 1 2|c3 6"
until_ms = 200.125
[[net]]
drop = "2->1 AppendResp #4"
[end]
heal_at_ms = 300
"#;
    let mut plan = Plan::new("x", 0);
    plan.cluster.nodes = 5;
    plan.clients.retry_us = 12_500;
    let put = kv::Op::Put { key: "x".to_string(), value: Value::padded("1", 10) };
    let add = Call::from(Op::Add(NodeId(6)));
    plan.ops = vec![
        OpRow { at_us: 1000, client: 3, call: Call { node: Some(NodeId(2)), ..Call::from(put) } },
        OpRow { at_us: 2000, client: 0, call: add },
    ];
    let node = |id| Member::Node(NodeId(id));
    plan.faults = vec![FaultRow {
        at_us: 100_000,
        until_us: Some(200_125),
        fault: LinkFault::Partition(vec![vec![node(1), node(2)], vec![Member::Client(3), node(6)]])
            .into(),
    }];
    plan.net = vec![NetRow {
        effect: NetEffect::Drop,
        message: MessageRef {
            from: node(2),
            to: node(1),
            kind: MessageKind::Peer(Kind::AppendResp),
            number: 4,
        },
    }];
    plan.end.heal_at_us = Some(300_000);
    assert_eq!(scenario::parse::<KeyValue>("x", text).unwrap(), plan);
}

#[test]
fn every_fault_form_is_read_and_written_alike() {
    for text in [
        "crash 2",
        "crash leader",
        "crash same",
        "crash all",
        "crash 2 output 0",
        "crash leader disk 3",
        "kill 64",
        "kill leader",
        "kill all",
        "pause same",
        "partition 1 2 | 3 4 5",
        "partition 1 c1 | 2 | 3 c2",
        "isolate leader",
        "oneway 1 2 -> 3 c1",
        "bridge 3 : 1 2 | 4 5",
        "clog 1 -> 2",
        "clog c1 -> 2",
        "weather drop=0.2 duplicate=0.1 delay_ms=50",
        "weather delay_ms=0.125",
        "weather drop=0",
        "weather leader -> all drop=0.5",
        "weather all -> 2 duplicate=0.5",
        "weather 1 c1 -> 2 3 delay_ms=5",
        "ring 1 2 3 4",
        "ring 5 3 1 2 4",
        "lag 1 2 -> 3 delay_ms=0.5",
        "lag leader -> all delay_ms=300",
        "lag all delay_ms=3",
        "throttle all -> 3 kib_per_s=16",
        "throttle c1 -> 3 kib_per_s=1 queue_ms=20",
        "garble all share=0.01",
        "garble same -> all share=1",
        "reset 3",
        "reset leader",
        "reset 1 | 2 c1",
        "fsync-fail 1",
        "disk-error 1 write",
        "disk-error leader read",
        "disk-error same space",
        "disk-error 1 sync directory",
        "disk-error leader rename snapshot",
        "disk-error 2 write log 2",
        "disk-error 2 create partial",
        "disk-error 2 remove snapshot 3",
        "disk-error same read log",
        "slow-disk 3 20",
        "drift 1 1.2",
        "drift leader 0.100001",
        "drift same 10.0",
        "step 2 +500ms",
        "step leader -3600000ms",
        "step same -0.5ms",
        "jitter 3 12.5ms",
        "slow 1 5ms",
        "slow leader 0.001ms",
        "slow-apply 2 20ms",
        "crash-loop 1 50ms",
        "crash-loop leader disk 3",
        "wipe 3",
        "old-format same",
        "short-write 1",
        "stall-disk leader",
        "lose-entry same",
        "rot 2 log 1",
        "rot leader snapshot 1000",
        "rot 2 log zeros",
        "rot 2 snapshot garbage",
        "misdirect 3 log",
        "stale-read same snapshot",
    ] {
        let fault: Fault = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(fault.to_string(), text);
    }
}

#[test]
fn every_operation_form_is_read_and_written_alike() {
    for text in [
        "put k v",
        "put a:b/c_d.e-f v*4096 @2",
        "get then",
        "delete -k",
        "cas k - new",
        "cas k old new @7",
        "scan *",
        "scan k",
        "scan * limit 1",
        "scan k limit 1000 !stale @2",
        "get k !stale",
        "put k v !no-session @2",
        "delete k !no-session",
        "guarded k absent v",
        "guarded k present - !no-session",
        "guarded k seen v*100 @1",
        "txn then put a 1; get b !no-session",
        "move 2 host-a:2380 @1",
        "remove 2 !imprudent",
        "change -1 -2 !imprudent @3",
        "txn then put a 1",
        "txn if k=v k2=- k3=v*10 then put a 1; delete b; get c else get d; put else 2 @3",
        "add 6",
        "learner 6",
        "promote 6",
        "remove 2",
        "replace 2 6",
        "transfer 3 @1",
        "change +4 ~5 ^3 _2 -1 @1",
        "remove leader",
        "replace leader 4 @2",
        "restart",
    ] {
        let call: Call = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(call.to_string(), text);
        let checked =
            checked::<KeyValue>(1, &call).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(checked, call);
    }
    let unusual: Call = "  txn then put a  1;get b !no-session  @2 ".parse().expect("a call");
    let usual = checked::<KeyValue>(1, &unusual).expect("an operation").to_string();
    assert_eq!(usual, "txn then put a 1; get b !no-session @2");
    assert_eq!(&Value::padded("ab", 5).bytes()[..], b"ab...");
    assert_eq!(&Value::new("ab").bytes()[..], b"ab");
}

#[test]
fn a_wrong_fault_is_named_with_its_grammar() {
    for (text, error) in [
        (
            "",
            "unknown fault ``; write one of crash, kill, pause, partition, isolate, oneway, \
             bridge, clog, weather, ring, lag, throttle, garble, reset, fsync-fail, disk-error, \
             slow-disk, short-write, stall-disk, lose-entry, rot, misdirect, stale-read, drift, step, \
             jitter, slow, slow-apply, crash-loop, wipe, old-format",
        ),
        ("crsh", "unknown fault `crsh`; did you mean `crash`?"),
        (
            "crash",
            "a node is missing in `crash`; write `crash N|leader|same|all` or \
                   `crash N|leader|same output|disk K`",
        ),
        ("pause n1", "`n1` is not a node in `pause n1`; write `pause N|leader|same`"),
        ("pause 0", "`0` is not a node in `pause 0`; write `pause N|leader|same`"),
        ("pause 01", "`01` is not a node in `pause 01`; write `pause N|leader|same`"),
        ("pause 65", "`65` is not a node in `pause 65`; write `pause N|leader|same`"),
        ("pause all", "`all` is not a node in `pause all`; write `pause N|leader|same`"),
        ("pause 1 2", "`2` is too much in `pause 1 2`; write `pause N|leader|same`"),
        (
            "crash 1 disk 0",
            "`0` is not a count of disk operations (1 to 1000000) in \
                            `crash 1 disk 0`; write `crash N|leader|same|all` or \
                            `crash N|leader|same output|disk K`",
        ),
        (
            "partition 1 2",
            "`|` is missing in `partition 1 2`; write \
                           `partition MEMBER.. | MEMBER.. [| MEMBER..]`",
        ),
        (
            "partition 1 | 1 2",
            "`1` stands in two groups in `partition 1 | 1 2`; write \
                               `partition MEMBER.. | MEMBER.. [| MEMBER..]`",
        ),
        (
            "partition 1 1 | 2",
            "`1` stands twice in `partition 1 1 | 2`; write \
                               `partition MEMBER.. | MEMBER.. [| MEMBER..]`",
        ),
        (
            "partition 1 | x",
            "`x` is not a node or client in `partition 1 | x`; write \
                             `partition MEMBER.. | MEMBER.. [| MEMBER..]`",
        ),
        (
            "partition 1 |",
            "a node or client is missing in `partition 1 |`; write \
                           `partition MEMBER.. | MEMBER.. [| MEMBER..]`",
        ),
        (
            "bridge 3: 1 | 2",
            "`3:` is not a node in `bridge 3: 1 | 2`; write \
                             `bridge N : MEMBER.. | MEMBER..`",
        ),
        (
            "clog 1 2",
            "`2` stands where `->` is expected in `clog 1 2`; write \
                      `clog MEMBER -> MEMBER`",
        ),
        (
            "weather",
            "a setting is missing in `weather`; write \
                     `weather [MEMBER..|leader|same|all -> MEMBER..|leader|same|all] [drop=0..1] \
                     [duplicate=0..1] [delay_ms=T]`",
        ),
        (
            "weather drop=2",
            "`drop=2` is not a setting in `weather drop=2`; write \
                            `weather [MEMBER..|leader|same|all -> MEMBER..|leader|same|all] [drop=0..1] \
                     [duplicate=0..1] [delay_ms=T]`",
        ),
        (
            "disk-error 1 seek",
            "`seek` is not a kind of error in `disk-error 1 seek`; write \
                               `disk-error N|leader|same write|read|space` or \
                               `disk-error N|leader|same create|write|sync|rename|remove|read \
                               log|snapshot|partial|directory [K]`",
        ),
        (
            "disk-error 1 write directory",
            "no disk ever does `write directory` in `disk-error 1 write directory`; write \
                               `disk-error N|leader|same write|read|space` or \
                               `disk-error N|leader|same create|write|sync|rename|remove|read \
                               log|snapshot|partial|directory [K]`",
        ),
        (
            "slow-disk 1 1",
            "`1` is not a factor (2 to 10000) in `slow-disk 1 1`; write \
                           `slow-disk N|leader|same FACTOR`",
        ),
        (
            "drift 1 fast",
            "`fast` is not a rate in `drift 1 fast`; write `drift N|leader|same RATE` with a rate \
                      from 0.1 to 10 such as `1.2`",
        ),
        (
            "drift 1 0.09",
            "`0.09` is not a rate in `drift 1 0.09`; write `drift N|leader|same RATE` with a rate \
                      from 0.1 to 10 such as `1.2`",
        ),
        (
            "step 1 500ms",
            "`500ms` is not a step in `step 1 500ms`; write `step N|leader|same +Tms|-Tms` with \
                      up to an hour such as `+500ms`",
        ),
        (
            "step 1 +0ms",
            "`+0ms` is not a step in `step 1 +0ms`; write `step N|leader|same +Tms|-Tms` with \
                      up to an hour such as `+500ms`",
        ),
        (
            "jitter 1",
            "how late is missing in `jitter 1`; write `jitter N|leader|same Tms` with up to ten \
                      seconds such as `30ms`",
        ),
        (
            "slow 1 5",
            "`5` does not say how slow (0.001ms to 1000ms) in `slow 1 5`; write `slow \
                      N|leader|same Tms` with up to a second such as `5ms`",
        ),
        (
            "crash-loop 1 0.5ms",
            "`0.5ms` does not say how long it lives (1ms to 60000ms) in `crash-loop 1 0.5ms`; \
                      write `crash-loop N|leader|same Tms` or `crash-loop N|leader|same disk K`",
        ),
        ("wipe all", "`all` is not a node in `wipe all`; write `wipe N|leader|same`"),
        (
            "crash 7",
            "there is no node 7; use one of 1 2 3 (raise cluster.nodes, or add the node \
                     by an operation)",
        ),
        ("clog c4 -> 1", "there is no client c4; use up to c3, or raise clients.count"),
    ] {
        assert_eq!(fault_error(text), format!("6: {error}"), "{text}");
    }
}

#[test]
fn a_wrong_operation_is_named_with_its_grammar() {
    let txn = "write `txn [if KEY=VALUE|-..] then STEP[; STEP..] [else STEP[; STEP..]] [!no-session] [@N]`";
    for (text, error) in [
        (
            "change +4 5",
            "`5` is not a change of a member in `change +4 5`; write \
                     `change +N|~N|^N|_N|-N.. [!imprudent|!forced] [@N]`"
                .to_string(),
        ),
        (
            "change +4 -4",
            "node 4 stands twice in `change +4 -4`; write `change +N|~N|^N|_N|-N.. [!imprudent|!forced] [@N]`"
                .to_string(),
        ),
        ("putt k v", "unknown operation `putt`; did you mean `put`?".to_string()),
        (
            "get k !no-session",
            "`get` cannot be asked for like that in `get k !no-session`; write \
                     `get KEY [!stale] [@N]`"
                .to_string(),
        ),
        (
            "put k v !stale",
            "`put` cannot be asked for like that in `put k v !stale`; write \
                     `put KEY VALUE [!no-session|!reused] [@N]`"
                .to_string(),
        ),
        (
            "delete k !gently",
            "`!gently` is no way to ask in `delete k !gently`; write `OPERATION [!MANNER] [@N]`"
                .to_string(),
        ),
        ("put k", "a value is missing in `put k`; write `put KEY VALUE [!no-session|!reused] [@N]`".to_string()),
        ("put k v w", "`w` is too much in `put k v w`; write `put KEY VALUE [!no-session|!reused] [@N]`".to_string()),
        (
            "put k ü",
            "`ü` is not a value (letters, digits, _ . / : -) in `put k ü`; write \
                     `put KEY VALUE [!no-session|!reused] [@N]`"
                .to_string(),
        ),
        (
            "put k v*x",
            "`v*x` has no length after its `*` in `put k v*x`; write \
                       `put KEY VALUE [!no-session|!reused] [@N]`"
                .to_string(),
        ),
        (
            "put k word*2",
            "`word*2` has an impossible length (4 to 1048576) in `put k word*2`; \
                          write `put KEY VALUE [!no-session|!reused] [@N]`"
                .to_string(),
        ),
        (
            "put k v @x",
            "`@x` is not a node in `put k v @x`; write `OPERATION [!MANNER] [@N]`".to_string(),
        ),
        (
            "cas k - -",
            "`-` is not a value (letters, digits, _ . / : -) in `cas k - -`; write \
                       `cas KEY OLD|- NEW [!no-session] [@N]`"
                .to_string(),
        ),
        ("txn put a 1", format!("`put` stands where `then` is expected in `txn put a 1`; {txn}")),
        ("txn if a then", format!("`a` is not a condition in `txn if a then`; {txn}")),
        ("txn then", format!("a step is missing in `txn then`; {txn}")),
        (
            "txn then cas a",
            format!(
                "`cas` is not a step (put, delete, get) in `txn then cas a`; \
                                    {txn}"
            ),
        ),
        (
            "get k @4",
            "there is no node 4; use one of 1 2 3 (raise cluster.nodes, or add the node \
                      by an operation)"
                .to_string(),
        ),
    ] {
        assert_eq!(op_error(text), format!("7: {error}"), "{text}");
    }
    // The line is that of the wrong key in the row.
    assert_eq!(
        op_error("add 4"),
        "6: client 1 cannot do `add`; leave it to the operator, client 0"
    );
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let head = "schema = 1\nname = \"x\"\n";
    for (rest, error) in [
        (
            "cluster = {",
            "3: damaged TOML: unclosed inline table, expected `}`; mend the syntax here",
        ),
        ("[cluster]\nnode = 3", "4: unknown key `node`; did you mean `nodes`?"),
        (
            "[cluster]\nnodes = \"a\"",
            "4: invalid type: string \"a\", expected u32; correct the value",
        ),
        ("[cluster]\nnodes = 32", "4: nodes = 32 is out of range; use 1 to 31"),
        ("cluster.nodes = 0", "3: nodes = 0 is out of range; use 1 to 31"),
        ("[cluster]\nwire = \"bytes\"", "4: unknown value `bytes`; write one of value, encoded"),
        (
            "[cluster]\nheartbeat_ticks = 10",
            "3: election_ticks = [10, 20] cannot work; use [least, \
          most] with heartbeat_ticks < least < most <= 10000",
        ),
        ("[network]\nlatency_ms = [1]", "4: a delay has two numbers; write `[min, mean_extra]`"),
        ("[network]\n\ndrop = 1.5", "5: drop = 1.5 is not a share; use 0 to 1"),
        (
            "[network]\nxyz = 1",
            "4: unknown key `xyz`; the keys here are latency_ms, heavy_tail, \
          drop, duplicate, fifo, spread, kib_per_s, queue_ms, garble, tells",
        ),
        ("[[fault]]\ndo = \"crash 1\"", "3: the key `at_ms` is missing; add `at_ms = ..`"),
        ("[[fault]]\ndo = \"crash 1\"\nat_ms = -1", "5: the time -1 is negative; write 0 or more"),
        (
            "[[fault]]\ndo = \"crash 1\"\nat_ms = 0.0001",
            "5: the time 0.0001 cannot be; write \
          milliseconds, 0 or more, up to three decimals",
        ),
        (
            "[[fault]]\ndo = \"crash 1\"\nat_ms = 3600000.001",
            "5: at_ms = 3600000.001 is out of \
          range; use 0 to 3600000 (one simulated hour)",
        ),
        (
            "fault = [\n  { at_ms = 1, do = \"crash 1\" },\n  { at_ms = 9, until_ms = 9, \
          do = \"crash 1\" },\n]",
            "5: until_ms = 9 is not after at_ms = 9; mend the fault later, \
          or leave until_ms out",
        ),
        (
            "[[fault]]\nat_ms = 9\ndo = \"crash 1\"\n[end]\nheal_at_ms = 8",
            "4: at_ms = 9 is after \
          the end of all faults; move the fault, or raise end.heal_at_ms",
        ),
        (
            "[[fault]]\nat_ms = 9\nuntil = 10\ndo = \"crash 1\"",
            "5: unknown key `until`; the keys \
          here are at_ms, until_ms, do",
        ),
        (
            "[[op]]\nat_ms = 9\nclient = 4\ndo = \"get x\"",
            "5: there is no client 4 to do `get`; \
          use a client from 1 to 3, or raise clients.count",
        ),
        (
            "[[op]]\nat_ms = 9\ndo = \"get x\"",
            "3: there is no client 0 to do `get`; \
          use a client from 1 to 3, or raise clients.count",
        ),
        (
            "[[op]]\nat_ms = 9\ndo = \"add 3\"",
            "5: node 3 was there before; use a new number, ids \
          are never used again",
        ),
        (
            "[[op]]\nat_ms = 9\ndo = \"learner 4\"\n[[op]]\nat_ms = 9\ndo = \"replace 1 4\"",
            "8: node 4 was there before; use a new number, ids are never used again",
        ),
        (
            "[[net]]\ndrop = \"2->1 AppendResp\"",
            "4: the message's number is missing in `2->1 \
          AppendResp`; write `FROM->TO KIND #NUMBER`",
        ),
        (
            "[[net]]\ndrop = \"2->1 AppendResp #0\"",
            "4: `#0` is not a message's number in `2->1 \
          AppendResp #0`; write `FROM->TO KIND #NUMBER`",
        ),
        (
            "[[net]]\ndelay = \"2->1 AppendResp #1\"",
            "3: a net row says one thing; write `drop`, \
          or `duplicate`, or `delay` together with `by_ms`",
        ),
        (
            "[[net]]\ndrop = \"2->9 AppendResp #1\"",
            "4: there is no node 9; use one of 1 2 3 (raise \
          cluster.nodes, or add the node by an operation)",
        ),
    ] {
        assert_eq!(error_of(&format!("{head}{rest}\n")), error, "{rest}");
    }
    assert_eq!(
        error_of("schema = 2\nspeed = 9"),
        "1: schema 2 is unknown; this build reads schema 1"
    );
    assert_eq!(error_of("name = \"x\""), "1: the key `schema` is missing; add `schema = ..`");
}

#[test]
fn too_many_rows_are_refused() {
    let mut plan = Plan::new("x", 0);
    let row = OpRow { at_us: 0, client: 1, call: "get x".parse().unwrap() };
    plan.ops = vec![row; 100_000];
    assert_eq!(plan.check(), Ok(()));
    plan.ops.push(plan.ops[0].clone());
    let problem = plan.check().unwrap_err();
    assert_eq!(problem.to_string(), "op: 100001 op rows are too many; use up to 100000");
}

#[test]
fn a_missing_file_is_named() {
    let error = scenario::load::<KeyValue>("no/such/story.toml").unwrap_err().to_string();
    assert!(error.starts_with("no/such/story.toml: cannot read the scenario: "), "{error}");
    assert!(error.ends_with("; check the path, and that it is a text file"), "{error}");
}

#[test]
fn the_run_heals_after_everything_the_plan_names() {
    let mut plan = Plan::new("x", 0);
    assert_eq!(plan.heal_at_us(), 0);
    plan.ops = vec![OpRow { at_us: 500, client: 1, call: "get x".parse().unwrap() }];
    assert_eq!(plan.heal_at_us(), 500);
    plan.faults = vec![FaultRow { at_us: 100, until_us: Some(900), fault: Fault::CrashAll }];
    assert_eq!(plan.heal_at_us(), 900);
    plan.end.heal_at_us = Some(200);
    assert_eq!(plan.heal_at_us(), 200);
}

#[test]
fn the_hash_is_that_of_the_run() {
    let plan = generate::<KeyValue>(7);
    let mut told = plan.clone();
    told.name = "another".to_string();
    told.story = "A story.".to_string();
    told.expect.violation = Some("linearizability".to_string());
    told.found = Some(Found::default());
    assert_eq!(told.hash(), plan.hash());
    let mut changed = plan.clone();
    changed.seed += 1;
    assert_ne!(changed.hash(), plan.hash());
    let mut changed = plan.clone();
    changed.ops[0].at_us += 1;
    assert_ne!(changed.hash(), plan.hash());
}
