//! How the plan sets up the network.

use crate::network::{Capacity, Endpoint, NetworkConfig};
use crate::plan::{self, Member};

pub(super) fn endpoint(member: &Member) -> Endpoint {
    match member {
        Member::Node(id) => Endpoint::Node(id.0),
        Member::Client(number) => Endpoint::Client(u64::from(*number)),
    }
}

pub(super) fn network_config(network: &plan::Network) -> NetworkConfig {
    NetworkConfig {
        latency_min_ns: network.latency.min_us * 1000,
        latency_mean_extra_ns: network.latency.mean_extra_us * 1000,
        tail_probability: network.heavy_tail,
        tail_factor: 50,
        drop: network.drop,
        duplicate: network.duplicate,
        fifo: network.fifo,
        spread: network.spread,
        capacity: capacity(network.kib_per_s, network.queue_us),
        garble: network.garble,
        tells: network.tells,
    }
}

/// `None` for a connection without bounds, 0 KiB per second.
pub(super) fn capacity(kib_per_s: u32, queue_us: u64) -> Option<Capacity> {
    let bytes_per_s = u64::from(kib_per_s) * 1024;
    (bytes_per_s > 0).then_some(Capacity { bytes_per_s, queue_ns: queue_us * 1000 })
}
