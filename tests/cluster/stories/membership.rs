//! Members come and go, raftexample's way and the other.

use serde_json::json;

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::record::judge;
use crate::harness::{turn, until};

/// raftexample's dynamic reconfiguration from start to end, under load: node 4 joins with
/// `POST /4` and `--join`, node 3 is removed with `DELETE /3` and ends by itself. Its id is spent.
#[test]
fn one_joins_and_one_is_removed_for_ever() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let addresses: Vec<_> = [1, 2].iter().map(|id| fleet.node(*id).http).collect();
    let load = Load::start(&addresses, &Options::new(7));
    fleet.put(1, "before", "the newcomer");
    load.progress(100);

    let url = fleet.newcomer(4).url.clone();
    fleet.change(1, &Request::new("POST", "/4").body(url));
    fleet.node(4).start();
    assert_eq!(fleet.get(4, "before").as_deref(), Some("the newcomer"));
    fleet.put(4, "after", "through the newcomer");
    assert_eq!(fleet.get(2, "after").as_deref(), Some("through the newcomer"));
    until("everybody counts four", || {
        (1..=4).all(|id| fleet.members(id) == Some(vec![1, 2, 3, 4])).then_some(())
    });
    load.progress(100);

    fleet.change(1, &Request::new("DELETE", "/3"));
    let status = fleet.node(3).exit();
    assert!(status.success(), "a removed node has done nothing wrong: {status}");
    let log = fleet.node(3).printed();
    assert!(log.contains("removed"), "it should say why it ended:\n{log}");
    load.progress(100);

    // Started again it ends again: with its old directory, and with a clean one as a newcomer.
    fleet.node(3).start();
    assert!(fleet.node(3).exit().success());
    let data = fleet.node(3).data.clone();
    std::fs::remove_dir_all(data).expect("its old directory");
    fleet.node(3).arguments.push("--join".to_owned());
    fleet.node(3).start();
    assert!(fleet.node(3).exit().success());
    // And nobody can have its id, however clean the directory.
    let url = fleet.node(3).url.clone();
    let refused = fleet.ask(1, &Request::new("POST", "/3").body(url.clone()), 409);
    assert_eq!(refused.code(), "invalid_membership_change");
    let body = json!({ "id": 3, "url": url });
    let refused = fleet.ask(2, &Request::new("POST", "/v1/members").json(&body), 409);
    assert_eq!(refused.code(), "invalid_membership_change");
    let members = fleet.ask(4, &Request::new("GET", "/v1/members"), 200).json();
    assert_eq!(members["removed"], json!([3]));

    let mut done = load.finish();
    fleet.converge(&[1, 2, 4]);
    judge(&done.history, fleet.folder(), "members");
    done.nothing_is_lost();
}

/// The leader itself is removed: it sees to it that the change is committed, then ends.
#[test]
fn a_leader_can_be_removed() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let leader = fleet.leader();
    let others = fleet.others(leader);
    let request = Request::new("DELETE", format!("/v1/members/{leader}"));
    fleet.change(others[0], &request);
    let status = fleet.node(leader).exit();
    assert!(status.success(), "{status}");
    let next = fleet.leader_of(&others);
    assert_eq!(fleet.get(next, "key").as_deref(), Some("value"));
    assert_eq!(fleet.members(next), Some(others.clone()));
    fleet.put(others[0], "key", "two are enough");
    assert_eq!(fleet.get(others[1], "key").as_deref(), Some("two are enough"));
}

/// A learner receives everything and does not vote, until it is promoted.
#[test]
fn a_learner_is_promoted() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    let url = fleet.newcomer(4).url.clone();
    let body = json!({ "id": 4, "url": url, "learner": true });
    fleet.change(2, &Request::new("POST", "/v1/members").json(&body));
    fleet.node(4).start();
    fleet.put(1, "key", "value");
    assert_eq!(fleet.get(4, "key").as_deref(), Some("value"));
    let role = |fleet: &Fleet| {
        let members = fleet.ask(1, &Request::new("GET", "/v1/members"), 200).json();
        let members = members["members"].as_array().expect("a list").clone();
        members.iter().find(|member| member["id"] == 4).map(|member| member["role"].clone())
    };
    assert_eq!(role(&fleet), Some(json!("learner")));
    fleet.change(3, &Request::new("POST", "/v1/members/4/promote"));
    until("it votes", || (role(&fleet) == Some(json!("voter"))).then_some(()));
    // Two of four are no majority: without node 4's vote nothing would be written now.
    let leader = fleet.leader();
    let victim = fleet.others(leader).into_iter().find(|id| *id != 4).expect("another founder");
    fleet.node(victim).kill();
    fleet.put(4, "key", "with the fourth vote");
    assert_eq!(fleet.get(leader, "key").as_deref(), Some("with the fourth vote"));
}

/// A newcomer that is far behind gets a snapshot, streamed, and then the log.
#[test]
fn a_newcomer_gets_a_snapshot() {
    let _turn = turn();
    let mut fleet = Fleet::found_with(3, &["--snapshot-every", "50", "--keep-entries", "10"]);
    let value = "x".repeat(20_000);
    for number in 0..150 {
        fleet.put(1 + number % 3, &format!("key-{number:03}"), &value);
    }
    let url = fleet.newcomer(4).url.clone();
    fleet.change(1, &Request::new("POST", "/4").body(url));
    fleet.node(4).start();
    fleet.converge(&[1, 2, 3, 4]);
    let status = fleet.status(4).expect("it serves");
    assert!(status["snapshot"]["index"].as_u64() > Some(50), "no snapshot came: {status}");
    for number in [0, 75, 149] {
        let target = format!("/v1/kv/key-{number:03}?consistency=stale");
        let own = fleet.node(4).get(&target).expect("it serves");
        assert_eq!(own.text(), value, "key {number}");
    }
}
