//! A node saves its state when enough has happened since the last time, not more often.
//!
//! A snapshot costs as many bytes as the state has. A node that saves one for each entry, because it
//! takes a log that it keeps for others for one that needs a snapshot, writes many times what its
//! clients do, and its disk has no time for the log.
//!
//! Each node has an allowance, of which each snapshot takes one. It grows with what clients write, by count
//! and by bytes, as the configuration says, and with each cause that is not in the configuration: a start,
//! a transfer to a member, a change of the membership. It does not grow beyond a few, because what was not
//! needed for a long time is no reason to save one after the other now.

use std::collections::BTreeMap;

use stormkv::config::Config;
use stormkv::types::{LogIndex, NodeId};

use super::{Broken, Check};

/// An allowance is counted in parts of a snapshot.
const WHOLE: u64 = 1 << 20;
/// The largest allowance, in snapshots.
const MOST: u64 = 4;
/// Allowance for each cause, in snapshots.
const PER_CAUSE: u64 = 2;
/// Allowance for each snapshot that is due, in percent: places between two snapshots move with the members.
const DUE_PERCENT: u64 = 125;

/// Snapshots that a node may save.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// Parts of a snapshot.
    parts: u64,
    /// The applied index up to which entries are counted.
    counted: LogIndex,
}

impl Allowance {
    fn grow(&mut self, parts: u64) {
        self.parts = (self.parts + parts).min(MOST * WHOLE);
    }
}

/// Watches how often nodes save their states. See the module.
pub struct SnapshotRate {
    every: u64,
    log_bytes: u64,
    nodes: BTreeMap<NodeId, Allowance>,
}

/// Parts of a snapshot that are due after `amount`, if one is due after `every`.
fn due(amount: u64, every: u64) -> u64 {
    amount.min(MOST * every) * WHOLE / every * DUE_PERCENT / 100
}

impl SnapshotRate {
    /// For nodes with these settings.
    pub fn new(config: &Config) -> Self {
        let log_bytes = (config.max_log_bytes / 2).max(1);
        SnapshotRate { every: config.snapshot_every.max(1), log_bytes, nodes: BTreeMap::new() }
    }

    /// A node has started with everything applied up to `applied`.
    pub fn started(&mut self, id: NodeId, applied: LogIndex) {
        // The first place of a node may come at any time.
        self.nodes.insert(id, Allowance { parts: (PER_CAUSE + 1) * WHOLE, counted: applied });
    }

    /// Records that a node has written `bytes` bytes to its log.
    pub fn logged(&mut self, id: NodeId, bytes: u64) {
        self.allow(id, due(bytes, self.log_bytes));
    }

    /// A node begins to send a snapshot: it may need a newer one for that.
    pub fn sends(&mut self, id: NodeId) {
        self.allow(id, PER_CAUSE * WHOLE);
    }

    fn allow(&mut self, id: NodeId, parts: u64) {
        if let Some(allowance) = self.nodes.get_mut(&id) {
            allowance.grow(parts);
        }
    }

    /// The membership has changed, so that each node may need a snapshot that knows of it.
    pub fn changed(&mut self) {
        self.nodes.values_mut().for_each(|allowance| allowance.grow(PER_CAUSE * WHOLE));
    }

    /// A node saves its state as of `applied`.
    ///
    /// # Errors
    /// When it does that too often.
    pub fn saves(&mut self, id: NodeId, applied: LogIndex) -> Result<(), Broken> {
        let Some(allowance) = self.nodes.get_mut(&id) else { return Ok(()) };
        allowance.grow(due(applied.saturating_sub(allowance.counted), self.every));
        allowance.counted = allowance.counted.max(applied);
        match allowance.parts.checked_sub(WHOLE) {
            Some(left) => {
                allowance.parts = left;
                Ok(())
            }
            None => {
                let message = format!(
                    "{id} saves its state as of {applied} although little has happened since it did \
                     that last: a snapshot is due every {} entries or {} bytes of log, and \
                     {MOST} in a row are the most",
                    self.every, self.log_bytes
                );
                Err(Broken::new(Check::SnapshotRate, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: NodeId = NodeId(1);

    fn rate() -> SnapshotRate {
        let mut config = Config::new(ID, vec![ID]);
        (config.snapshot_every, config.max_log_bytes) = (100, 2000);
        let mut rate = SnapshotRate::new(&config);
        rate.started(ID, 1000);
        rate
    }

    /// How many snapshots may be saved in a row.
    fn allowed(rate: &mut SnapshotRate, applied: LogIndex) -> usize {
        (0..).find(|_| rate.saves(ID, applied).is_err()).expect("it ends")
    }

    #[test]
    fn snapshot_rate_one_is_due_every_so_many_entries() {
        let mut rate = rate();
        assert_eq!(allowed(&mut rate, 1000), 3);
        assert_eq!(allowed(&mut rate, 1330), 4);
        for applied in (1430..10_000).step_by(100) {
            rate.saves(ID, applied).expect("it is due");
        }
    }

    #[test]
    fn snapshot_rate_one_is_due_every_so_many_bytes() {
        let mut rate = rate();
        assert_eq!(allowed(&mut rate, 1000), 3);
        rate.logged(ID, 2500);
        assert_eq!(allowed(&mut rate, 1000), 3);
    }

    #[test]
    fn snapshot_rate_causes_allow_more() {
        let mut rate = rate();
        assert_eq!(allowed(&mut rate, 1000), 3);
        rate.sends(ID);
        assert_eq!(allowed(&mut rate, 1000), 2);
        rate.sends(ID);
        rate.changed();
        assert_eq!(allowed(&mut rate, 1000), 4);
        rate.started(ID, 1000);
        assert_eq!(allowed(&mut rate, 1000), 3);
    }

    #[test]
    fn snapshot_rate_does_not_save_up() {
        let mut rate = rate();
        assert_eq!(allowed(&mut rate, 1_000_000), MOST as usize);
    }
}
