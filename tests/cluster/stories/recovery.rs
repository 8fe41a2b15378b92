//! What operators do when little is left: a quorum is lost for good, or all addresses have changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::operations::{done, refused};
use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::{turn, until};

/// The files of a directory and what is in them.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).expect("it can be listed").map(|entry| {
        let path = entry.expect("it can be listed").path();
        (path.display().to_string(), fs::read(&path).expect("it can be read"))
    });
    files.collect()
}

/// Two of three disks are lost. A new cluster goes on with what the third one holds, and grows again.
#[test]
fn a_lost_quorum_is_recovered_from_what_is_left() {
    let _turn = turn();
    let mut fleet = Fleet::found_with(3, &["--snapshot-every", "20", "--keep-entries", "5"]);
    for number in 0..50 {
        fleet.put(1 + number % 3, &format!("key-{number}"), &number.to_string());
    }
    fleet.converge(&[1, 2, 3]);

    let mut new = Fleet::prepare(1, &[]);
    let (into, url) = (new.node(1).data.clone(), new.node(1).url.clone());
    let left = fleet.node(3).data.clone();
    let [from, to] = [&left, &into].map(|path| path.display().to_string());
    let words = ["recover", "--data-dir", &from, "--id", "1", "--cluster", &url, "--into", &to];
    refused(&words, "in use");
    fleet.kill_all();
    for id in [1, 2] {
        fs::remove_dir_all(&fleet.node(id).data).expect("its disk is lost");
    }

    let before = contents(&left);
    let report = done(&words);
    for part in [
        "with the voters 1, 2, 3",
        "node 3, the longest log",
        "possibly lost",
        "nothing was changed",
    ] {
        assert!(report.contains(part), "`{part}` is missing in: {report}");
    }
    assert!(!into.exists());
    let words = [&words[..], &["--yes"]].concat();
    done(&words);
    assert_eq!(contents(&left), before, "the old directory is only read");
    refused(&words, "exists");

    new.start_all();
    new.leader();
    for number in 0..50 {
        assert_eq!(new.get(1, &format!("key-{number}")), Some(number.to_string()));
    }
    new.put(1, "new", "and it goes on");
    let url = new.newcomer(2).url.clone();
    new.change(1, &Request::new("POST", "/2").body(url));
    new.node(2).start();
    assert_eq!(new.get(2, "key-7").as_deref(), Some("7"));
    assert_ne!(new.status(1).expect("it runs")["cluster"], json!(null));
    new.converge(&[1, 2]);

    // Started by mistake, the old member finds nobody, and does no harm.
    fleet.node(3).start();
    new.put(1, "after", "the old one is back");
}

/// Directories that do not belong together are refused, and none at all.
#[test]
fn recovery_refuses_what_does_not_belong_together() {
    let _turn = turn();
    let (mut one, mut two) = (Fleet::found(1), Fleet::found(1));
    one.put(1, "key", "value");
    one.kill_all();
    two.kill_all();
    let folder = one.folder().to_owned();
    let [first, second, nothing, copy, into] = [
        one.node(1).data.clone(),
        two.node(1).data.clone(),
        folder.join("nothing"),
        folder.join("copy"),
        folder.join("into"),
    ];
    fs::create_dir(&nothing).expect("created");
    fs::create_dir(&copy).expect("created");
    for (path, bytes) in contents(&first) {
        let name = Path::new(&path).file_name().expect("a file");
        fs::write(copy.join(name), bytes).expect("copied");
    }
    let [first, second, nothing, copy, into] =
        [&first, &second, &nothing, &copy, &into].map(|path| path.display().to_string());
    let rest = ["--id", "1", "--cluster", "http://127.0.0.1:1", "--into", &into];
    for (sources, words) in [
        (vec![&first, &second], "different clusters"),
        (vec![&first, &copy], "are both of node 1"),
        (vec![&nothing], "no node has run in it"),
        (vec![&into], "No such file"),
    ] {
        let mut arguments = vec!["recover"];
        arguments.extend(sources.iter().flat_map(|path| ["--data-dir", path.as_str()]));
        arguments.extend(rest);
        refused(&arguments, words);
    }
}

/// All machines have new addresses, as after a restore of images elsewhere: started with the new ones in
/// `--cluster` and with `--join` the members find each other, and the new addresses become those of the membership.
#[test]
fn all_members_may_move_to_new_addresses() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    fleet.converge(&[1, 2, 3]);
    fleet.kill_all();
    for id in 1..=3 {
        fleet.renumber(id);
    }
    fleet.start_all();
    fleet.leader();
    assert_eq!(fleet.get(2, "key").as_deref(), Some("value"));
    let urls: Vec<String> = fleet.nodes.values().map(|node| node.url.clone()).collect();
    let listed = |fleet: &Fleet, id| {
        let members = fleet.ask(id, &Request::new("GET", "/v1/members"), 200).json();
        let members = members["members"].as_array().expect("a list").clone();
        members.iter().map(|m| m["url"].as_str().expect("a URL").to_owned()).collect::<Vec<_>>()
    };
    until("the new addresses are replicated", || (listed(&fleet, 1) == urls).then_some(()));

    // One moves alone, and only its own flags say where it is.
    fleet.node(3).kill();
    fleet.renumber(3);
    let flags: Vec<Vec<String>> =
        [1, 2].iter().map(|id| fleet.node(*id).arguments.clone()).collect();
    fleet.node(3).start();
    let new = fleet.node(3).url.clone();
    until("its new address is replicated", || (listed(&fleet, 1)[2] == new).then_some(()));
    assert_eq!(fleet.get(3, "key").as_deref(), Some("value"));
    assert_eq!([1, 2].map(|id| fleet.nodes[&id].arguments.clone()).to_vec(), flags);
}
