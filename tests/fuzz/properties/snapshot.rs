//! Snapshot files: any bytes start a node that works, or are refused with a reason.

use std::collections::BTreeMap;

use bytes::Bytes;

use stormkv::api::{Consistency, Request, RequestId};
use stormkv::config::Config;
use stormkv::env::{Completion, FileName};
use stormkv::error::Error;
use stormkv::kv::{Command, Kv, Query};
use stormkv::memory::MemDisk;
use stormkv::node::{Node, Output};
use stormkv::snapshot;
use stormkv::types::{HardState, NodeId, SnapshotId};
use stormkv::wal::{Wal, WalConfig};

use super::input::Input;

const FRAME: usize = 9;
const PREFIX: usize = 12;

/// A snapshot file out of the input: bytes as they are, frames of any content, or a good file with
/// changes in its frames. The checksums fit, but for the first.
pub fn any_file(input: &mut Input<'_>) -> Bytes {
    match input.byte() % 4 {
        0 => Bytes::copy_from_slice(input.some()),
        1 => {
            let mut file = prefix(input);
            while !input.is_empty() && file.len() < 4096 {
                let kind = input.byte();
                push(&mut file, kind % 7, input.some());
            }
            mend(file)
        }
        _ => {
            let mut file = good(input).to_vec();
            for _ in 0..input.byte() % 4 {
                let at = PREFIX + input.up_to(file.len() - PREFIX - 1);
                file[at] = input.byte();
            }
            mend(file)
        }
    }
}

fn prefix(input: &mut Input<'_>) -> Vec<u8> {
    let mut file = b"stormsnp".to_vec();
    file.extend((3 ^ u32::from(input.byte() & 3)).to_le_bytes());
    file
}

fn push(file: &mut Vec<u8>, kind: u8, data: &[u8]) {
    file.extend((data.len() as u32).to_le_bytes());
    file.extend([0; 4]);
    file.push(kind);
    file.extend(data);
}

/// Writes the checksums anew, as far as there are whole frames.
fn mend(mut file: Vec<u8>) -> Bytes {
    let (mut at, mut crc) = (PREFIX, 0);
    while let Some(word) = file.get(at..at + 4) {
        let len = u32::from_le_bytes(word.try_into().expect("4 bytes")) as usize;
        let Some(content) = file.get(at + 8..(at + FRAME).saturating_add(len)) else { break };
        let mut hasher = crc32fast::Hasher::new_with_initial(crc);
        hasher.update(content);
        crc = hasher.finalize();
        file[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += FRAME + len;
    }
    file.into()
}

/// What postcard makes of a number.
fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The file of an empty machine with any name and any membership.
pub fn good(input: &mut Input<'_>) -> Bytes {
    let index = input.near(&[1, 2, 4, 10, 100]);
    let term = input.near(&[1, 2, 5]);
    good_named(SnapshotId { index, term }, input)
}

/// As [`good`], with this name.
pub fn good_named(id: SnapshotId, input: &mut Input<'_>) -> Bytes {
    let mut head = Vec::new();
    number(id.index, &mut head);
    number(id.term, &mut head);
    // Voters, outgoing voters, learners, learners to be, whether to leave by itself, removed.
    for part in 0..6 {
        if part == 4 {
            head.push(input.byte() & 1);
            continue;
        }
        let members = input.byte();
        number(u64::from(members.count_ones()), &mut head);
        // Bit 0 is node 1, and bit 7 is the node that cannot be.
        let present = (0..8u64).filter(|bit| members >> bit & 1 == 1);
        present.for_each(|bit| number((bit + 1) % 8, &mut head));
    }
    number(0, &mut head);
    let mut file = b"stormsnp".to_vec();
    file.extend(3u32.to_le_bytes());
    push(&mut file, 1, &head);
    // Session table and machine: version, no entries, digest 0.
    push(&mut file, 5, &[2, 0, 0]);
    push(&mut file, 3, &[1, 0, 0]);
    push(&mut file, 4, &[]);
    mend(file)
}

/// Judges the file, and starts nodes from it: as the founding state, and as what the disk holds.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let file = any_file(&mut input);
    let name = FileName::Snapshot(7, 1);
    let id = match snapshot::check(name, &file) {
        Ok(id) => id,
        Err(error) => return assert_names(&error),
    };
    let mut config = config();
    config.founding_state = Some(file.clone());
    match Node::<Kv>::start(config.clone(), &mut MemDisk::new()) {
        Ok(node) => check_works(node, &MemDisk::new()),
        Err(error) => assert!(matches!(error, Error::Config(_)), "{error}"),
    }
    config.founding_state = None;
    config.founders.clear();
    // No log names a snapshot of nothing, or one whose last index has no next.
    if id.index == 0 || id.index == u64::MAX {
        return;
    }
    let mut disk = MemDisk::new();
    let recovered = Wal::recover(&mut disk, WalConfig { segment_bytes: config.segment_bytes });
    let mut recovered = recovered.expect("an empty disk is a new log");
    let state = HardState { term: id.term, vote: NodeId(0), commit: id.index };
    recovered.wal.append(state, Some(id), &[], &mut recovered.ops);
    disk.run(&recovered.ops).expect("nothing fails");
    disk.insert(FileName::Snapshot(id.index, id.term), file.to_vec());
    match Node::<Kv>::start(config, &mut disk) {
        Ok(node) => {
            // What is damaged is left alone, in the hope for a leader that has a better one.
            match node.damage() {
                None => assert_eq!(node.status().applied, id),
                Some(damage) => {
                    assert_eq!(damage.file, FileName::Snapshot(id.index, id.term));
                    assert_eq!(node.status().applied, SnapshotId::default());
                }
            }
            check_works(node, &disk);
        }
        Err(error) => assert_names(&error),
    }
}

/// The name of the file and the offset are in the error.
fn assert_names(error: &Error) {
    let named = matches!(error, Error::Corrupt { .. } | Error::NewerVersion { .. });
    assert!(named, "no place is named: {error}");
}

fn config() -> Config {
    let mut config = Config::new(NodeId(1), vec![NodeId(1)]);
    config.segment_bytes = 4096;
    config.addresses = BTreeMap::from([(NodeId(1), "one".to_owned())]);
    config
}

/// The node can be talked to, leads if it is alone, and can be started again.
fn check_works(mut node: Node<Kv>, disk: &MemDisk) {
    let mut disk = disk.image();
    for round in 0..40 {
        node.tick();
        if round == 35 {
            let command = Command::Put { key: "k".into(), value: "v".into() }.encode();
            node.request(RequestId(1), Request::Command { session: None, command });
            let query = Query::Get { key: "k".into() }.encode();
            let consistency = Consistency::Stale;
            node.request(RequestId(2), Request::Query { query, consistency });
        }
        let mut outputs = Vec::new();
        node.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Disk { queue, ticket, ops } => {
                    disk.run(&ops).expect("nothing fails");
                    node.complete(Completion::Done(queue, ticket, Ok(())));
                }
                Output::Work { ticket, work } => {
                    node.complete(Completion::Worked(ticket, Ok(work.run(&mut disk))));
                }
                _ => {}
            }
        }
    }
    let applied = node.status().applied;
    let mut config = config();
    config.founders.clear();
    let again = Node::<Kv>::start(config, &mut disk).expect("what was written can be read");
    assert!(again.status().applied <= applied);
}
