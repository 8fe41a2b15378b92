//! The time that the disk of a node takes.

use stormkv::types::NodeId;

use crate::plan::Delay;
use crate::rng::{Purpose, Stream};

/// No operation takes longer on a slow disk than this, unless it would on a healthy one.
const SLOWEST_NS: u64 = 3_000_000_000;

/// A device that transfers for one operation at a time.
pub(in crate::simulation) struct Device {
    latency: Stream,
    /// When it has transferred all that it was asked to, in ns.
    free_ns: u64,
    /// When the last operation ends that began while it was slow, in ns.
    slowed_until_ns: u64,
}

impl Device {
    pub fn new(seed: u64, id: NodeId) -> Self {
        let latency = Stream::new(seed, Purpose::DiskLatency, [id.0]);
        Device { latency, free_ns: 0, slowed_until_ns: 0 }
    }

    /// From now on, chance decides as in the fork with this salt.
    pub fn fork(&mut self, salt: u64) {
        self.latency.fork(salt);
    }

    /// When the last operation ends that began while the disk was slow, in ns.
    pub fn slowed_until_ns(&self) -> u64 {
        self.slowed_until_ns
    }

    /// When the next operation ends, in ns, if it begins now, transfers so many bytes at `kib_per_s` (0: at
    /// once) and takes `delay` besides. What comes on top of a transfer (seeks, the kernel) overlaps. A slow
    /// disk stretches both by `slowness`, within bounds, because an operation under way keeps its time when
    /// the fault ends.
    pub fn ends_ns(
        &mut self,
        now_ns: u64,
        delay: Delay,
        bytes: u64,
        kib_per_s: u32,
        slowness: u64,
    ) -> u64 {
        let stretched = |ns: u64| ns.max((ns * slowness).min(SLOWEST_NS));
        let usual = delay.min_us * 1000 + self.latency.exponential_ns(delay.mean_extra_us * 1000);
        let usual = stretched(usual);
        let mut ends_ns = now_ns + usual;
        if kib_per_s > 0 && bytes > 0 {
            let transfer = bytes * 1_000_000_000 / (u64::from(kib_per_s) << 10);
            let begins_ns = self.free_ns.max(now_ns);
            self.free_ns = begins_ns + stretched(transfer);
            ends_ns = self.free_ns + usual;
        }
        if slowness > 1 {
            self.slowed_until_ns = self.slowed_until_ns.max(ends_ns);
        }
        ends_ns
    }
}
