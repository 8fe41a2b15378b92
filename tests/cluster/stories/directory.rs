//! Data directories: in use, of somebody else, emptied, and full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::clients::{Load, Options};
use crate::harness::fleet::Fleet;
use crate::harness::http::Request;
use crate::harness::nodes::free_address;
use crate::harness::record::judge;
use crate::harness::{turn, until};

/// Starts the node, which must refuse to: with a failure, and these words in its log.
#[track_caller]
fn refuses_to_start(fleet: &mut Fleet, id: u64, words: &[&str]) {
    let before = fleet.node(id).printed().len();
    fleet.node(id).start();
    let status = fleet.node(id).exit();
    let said = fleet.node(id).printed().split_off(before);
    assert!(!status.success(), "it should not run:\n{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Two processes on one directory would vote twice. The second one is turned away.
#[test]
fn a_directory_serves_one_process_at_a_time() {
    let _turn = turn();
    let mut fleet = Fleet::found(1);
    let first = fleet.node(1).arguments.clone();
    let data = fleet.node(1).data.display().to_string();
    fleet.put(1, "key", "value");
    // The same member again, on ports of its own, so that only the directory is in the way.
    let mut twin = crate::harness::nodes::Node::new(
        9,
        fleet.folder(),
        free_address(),
        free_address(),
        String::new(),
    );
    twin.arguments = first;
    for (name, address) in [("--port", twin.http), ("--listen-peer", twin.peers)] {
        let at = twin.arguments.iter().position(|word| word == name).expect("it is set") + 1;
        let port_only = name == "--port";
        twin.arguments[at] =
            if port_only { address.port().to_string() } else { address.to_string() };
    }
    fleet.nodes.insert(9, twin);
    refuses_to_start(&mut fleet, 9, &[&data]);
    assert_eq!(fleet.get(1, "key").as_deref(), Some("value"), "the first is not disturbed");
}

/// Directories of two nodes are mixed up, or belong to another cluster: nobody starts on them.
#[test]
fn a_directory_of_somebody_else_is_refused() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    fleet.kill_all();
    let (one, two) = (fleet.node(1).data.clone(), fleet.node(2).data.clone());
    let aside = fleet.folder().join("aside");
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).expect("directories can be swapped");
    }
    let shown = one.display().to_string();
    refuses_to_start(&mut fleet, 1, &[&shown]);
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        fs::rename(from, to).expect("directories can be swapped back");
    }
    // Another cluster, founded at other addresses.
    let mut other = Fleet::prepare(3, &[]);
    let at = other.node(1).arguments.iter().position(|word| *word == "--data-dir").expect("set");
    other.node(1).arguments[at + 1] = shown.clone();
    refuses_to_start(&mut other, 1, &[&shown]);
    // Nothing of that did any harm.
    fleet.start_all();
    fleet.leader();
    assert_eq!(fleet.get(1, "key").as_deref(), Some("value"));
}

/// A node that comes back with less than it had promised is found out, and does not take part:
/// here a follower whose log was deleted.
#[test]
fn a_directory_without_its_log_is_refused() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    fleet.put(1, "key", "value");
    let leader = fleet.leader();
    let victim = fleet.others(leader)[0];
    fleet.node(victim).kill();
    let data = fleet.node(victim).data.clone();
    for entry in fs::read_dir(&data).expect("its directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("wal-") || name.starts_with("snap-") {
            fs::remove_file(path).expect("removed");
        }
    }
    refuses_to_start(&mut fleet, victim, &[&data.display().to_string()]);
    fleet.put(leader, "key", "the others go on");
}

/// A follower comes back under its old id with nothing at all. Its peers know it by another
/// directory and tell it so: it stops and says what to do, which is done: remove the member, and add
/// a new one.
#[test]
fn a_member_that_lost_its_disk_is_replaced() {
    let _turn = turn();
    let mut fleet = Fleet::found(3);
    for number in 0..30 {
        fleet.put(1 + number % 3, &format!("key-{number}"), &number.to_string());
    }
    let leader = fleet.leader();
    let others = fleet.others(leader);
    let (victim, witness) = (others[0], others[1]);
    fleet.converge(&[1, 2, 3]);
    fleet.node(victim).kill();
    fs::remove_dir_all(&fleet.node(victim).data).expect("removed");
    fleet.put(leader, "key-0", "changed");
    fleet.node(victim).start();
    assert_eq!(fleet.node(victim).exit().code(), Some(74));
    let said = fleet.node(victim).printed();
    assert!(said.contains("by another directory"), "it does not say why:\n{said}");

    let removal = Request::new("DELETE", format!("/v1/members/{victim}"));
    fleet.change(witness, &removal);
    let url = fleet.newcomer(4).url.clone();
    fleet.change(leader, &Request::new("POST", "/4").body(url));
    fleet.node(4).start();
    for number in [1, 15, 29] {
        assert_eq!(fleet.get(4, &format!("key-{number}")), Some(number.to_string()));
    }
    fleet.converge(&[leader, witness, 4]);
}

/// A small file system of its own, as only root can have it. Unmounted in the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, mib: u32) -> Result<SmallDisk, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let size = format!("size={mib}m,mode=0700");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "stormkv-test"])
            .arg(at)
            .output()
            .map_err(|error| format!("no `mount`: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: a process that was killed may not be gone yet.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The disk of a node fills up under load. It refuses what may grow the state and says why, reads and
/// deletes go on, also after a kill, and after room was made everything that it acknowledged is there.
#[test]
fn full_disk_refuses_growth_and_loses_nothing() {
    let _turn = turn();
    let mut fleet = Fleet::prepare(
        1,
        &["--segment-mib", "1", "--snapshot-every", "1000000", "--reserve-mib", "2"],
    );
    let at = fleet.folder().join("small");
    let disk = match SmallDisk::mount(&at, 24) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: a small disk cannot be mounted here: {why}"),
    };
    let data = fleet.node(1).arguments.iter().position(|word| word == "--data-dir").expect("set");
    fleet.node(1).arguments[data + 1] = at.join("data").display().to_string();
    // What is in the way, and can be removed later.
    let balloon = at.join("balloon");
    fs::write(&balloon, vec![0; 8 << 20]).expect("room for it");
    fleet.start_all();
    fleet.leader();

    let addresses = [fleet.node(1).http];
    let mut options = Options::new(8);
    options.clients = 4;
    let load = Load::start(&addresses, &options);
    let mut acknowledged = Vec::new();
    let value = "x".repeat(100_000);
    let refusal = until("the disk is full", || {
        let key = format!("big-{:04}", acknowledged.len());
        let put = Request::new("PUT", format!("/{key}")).body(value.as_str());
        let answer = fleet.node(1).ask(&put).ok()?;
        match answer.status {
            204 => acknowledged.push(key),
            507 => return Some(answer),
            _ => {}
        }
        (acknowledged.len() > 1000).then(|| panic!("the disk is never full"))
    });
    let said = String::from_utf8_lossy(&refusal.body).into_owned();
    assert!(said.contains("the disk of member n1 is nearly full"), "{said}");
    assert!(acknowledged.len() > 20, "only {} writes fitted", acknowledged.len());
    let delete = Request::new("DELETE", "/v1/kv/nothing");
    let deleted = fleet.node(1).ask(&delete).expect("it runs").status;
    assert!([204, 404].contains(&deleted), "{deleted}");
    fleet.node(1).kill();

    fs::remove_file(&balloon).expect("room is made");
    fleet.node(1).start();
    fleet.leader();
    load.progress(100);
    for key in &acknowledged {
        assert_eq!(fleet.get(1, key).as_ref(), Some(&value), "{key} was acknowledged");
    }
    let mut done = load.finish();
    judge(&done.history, fleet.folder(), "full-disk");
    done.nothing_is_lost();
    println!(
        "{} large writes fitted, then: {}",
        acknowledged.len(),
        said.lines().last().unwrap_or_default()
    );
    // Before the folder that it is mounted in is removed.
    fleet.kill_all();
    drop(disk);
}
