//! Bring your own state machine: a counter, and how to test it on a cluster in memory.
//!
//! The node, its log and its snapshots are the ones of production. What they run on is
//! [`stormkv::memory`]: a clock that is a number, disks that lose what was not synced, and a network
//! that is a queue. So a test of power loss is a few lines and takes milliseconds.
//!
//! Run it with `cargo run --example counter`, and its tests with `cargo test --example counter`.

use bytes::Bytes;
use stormkv::error::Error;
use stormkv::machine::{Chunks, Context, StateMachine};
use stormkv::memory::MemCluster;
use stormkv::types::NodeId;

/// The replicated state: one number. A command is eight bytes, the number to add.
struct Counter(u64);

impl StateMachine for Counter {
    type Params = ();

    fn new((): &()) -> Counter {
        Counter(0)
    }

    fn apply(&mut self, _context: Context, command: &[u8]) -> Bytes {
        // A malformed command is committed already, so every replica must answer it alike.
        let Ok(add) = command.try_into() else { return Bytes::from_static(b"malformed") };
        self.0 = self.0.wrapping_add(u64::from_le_bytes(add));
        self.query(b"")
    }

    fn query(&self, _query: &[u8]) -> Bytes {
        Bytes::from(self.0.to_string())
    }

    fn snapshot(&self) -> Chunks {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0.to_le_bytes())))
    }

    fn restore((): &(), chunks: &mut dyn Iterator<Item = Bytes>) -> Result<Self, String> {
        let chunk = chunks.next().ok_or("the snapshot is empty")?;
        let bytes = chunk[..].try_into().map_err(|_| "a counter has eight bytes")?;
        Ok(Counter(u64::from_le_bytes(bytes)))
    }

    fn digest(&self) -> u64 {
        self.0
    }
}

/// Adds a number through the leader. Returns the new value, as text.
fn add(cluster: &mut MemCluster<Counter>, number: u64) -> Bytes {
    cluster.command(number.to_le_bytes().to_vec())
}

fn main() -> Result<(), Error> {
    let mut cluster = MemCluster::new(3)?;
    for number in [40, 2] {
        println!("add {number}: {:?}", add(&mut cluster, number));
    }
    let members = [1, 2, 3].map(NodeId);
    // First all go down, so that no member can learn the state from another.
    members.into_iter().for_each(|id| cluster.crash(id));
    for id in members {
        cluster.restart(id)?;
    }
    println!("after a power failure: {:?}", cluster.query(""));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_commands_survive_power_loss() {
        let mut cluster = MemCluster::new(3).unwrap();
        add(&mut cluster, 40);
        add(&mut cluster, 2);
        for id in [1, 2, 3].map(NodeId) {
            cluster.crash(id);
            cluster.restart(id).unwrap();
        }
        assert_eq!(cluster.query(""), "42");
    }

    #[test]
    fn member_that_was_away_is_restored_from_a_snapshot() {
        let mut cluster = MemCluster::with_config(3, |config| {
            (config.snapshot_every, config.keep_entries) = (10, 0);
        })
        .unwrap();
        cluster.kill(NodeId(3));
        for number in 1..=50 {
            add(&mut cluster, number);
        }
        cluster.restart(NodeId(3)).unwrap();
        cluster.run(100);
        assert!(cluster.node(NodeId(3)).unwrap().status().first > 10, "entries are gone");
        assert_eq!(cluster.machine(NodeId(3)).0, 1275);
    }

    #[test]
    fn malformed_command_changes_nothing() {
        let mut cluster = MemCluster::<Counter>::new(1).unwrap();
        assert_eq!(cluster.command("seven"), "malformed");
        assert_eq!(cluster.query(""), "0");
    }
}
