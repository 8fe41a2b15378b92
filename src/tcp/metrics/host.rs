//! What the disk, the transport and the events of the node add to `/metrics`.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `stormkv_disk_written_bytes_total` | | written for the node, without the zeros of new segments |
//! | `stormkv_disk_sync_duration_seconds` | | how long each fsync took |
//! | `stormkv_leader_changes_total` | | leaders that this node has come to know |
//! | `stormkv_snapshot_duration_seconds` | `operation` | `save`, `send`, `install`: how long each took |
//! | `stormkv_snapshot_size_bytes` | | the newest one that was saved or installed since the start |
//! | `stormkv_peer_connected` | `peer`, `lane` | whether the connection to it lives |
//! | `stormkv_peer_round_trip_seconds` | `peer`, `lane` | of the newest ping |
//! | `stormkv_peer_sent_messages_total` | `peer`, `lane` | |
//! | `stormkv_peer_sent_bytes_total` | `peer`, `lane` | pings included |
//! | `stormkv_peer_received_messages_total` | `peer`, `lane` | |
//! | `stormkv_peer_received_bytes_total` | `peer`, `lane` | payload |
//! | `stormkv_peer_dropped_messages_total` | `peer`, `lane`, `reason` | `full`, `unreached`, `broken`, `inbox` |
//! | `stormkv_peer_connection_failures_total` | `peer`, `lane` | connections that broke or failed |
//! | `stormkv_peer_handshakes_total` | `status` | answered to peers that dialed |
//! | `stormkv_peer_garbage_connections_total` | | closed because of what they sent |

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::tcp::disk::DiskStats;
use crate::tcp::handshake::{Lane, Status};
use crate::tcp::http::Register;
use crate::tcp::journal::NodeStats;
use crate::tcp::stats::{LaneStats, Stats};

/// Adds the metrics of these to a registry.
pub fn register(disk: Arc<DiskStats>, peers: Arc<Stats>, node: NodeStats) -> Register {
    Box::new(|registry: &mut Registry| {
        let NodeStats { leader_changes, snapshot_seconds, snapshot_bytes } = node;
        let help = "Leaders that this node has come to know";
        registry.register("leader_changes", help, leader_changes);
        let (name, help) = ("snapshot_duration", "How long each snapshot took");
        registry.register_with_unit(name, help, Unit::Seconds, snapshot_seconds);
        let (name, help) = ("snapshot_size", "The newest snapshot that was saved or installed");
        registry.register_with_unit(name, help, Unit::Bytes, snapshot_bytes);
        registry.register_collector(Box::new(Disk(disk)));
        registry.register_collector(Box::new(Peers(peers)));
    })
}

#[derive(Debug)]
struct Disk(Arc<DiskStats>);

impl Collector for Disk {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let written = encoder.encode_descriptor(
            "disk_written",
            "Bytes written for the node",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        ConstCounter::new(self.0.bytes_written()).encode(written)?;
        let mut syncs = encoder.encode_descriptor(
            "disk_sync_duration",
            "How long each fsync took",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        // The registry wants each bucket's own count, and adds them up itself.
        let mut before = 0;
        let buckets: Vec<(f64, u64)> = self
            .0
            .sync_buckets()
            .into_iter()
            .map(|(bound, up_to)| {
                let own = up_to.saturating_sub(before);
                before = before.max(up_to);
                (bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()), own)
            })
            .collect();
        let time = self.0.sync_time().as_secs_f64();
        syncs.encode_histogram::<NoLabelSet>(time, before, &buckets, None)
    }
}

#[derive(Debug)]
struct Peers(Arc<Stats>);

type OfLane = fn(&LaneStats) -> u64;

const COUNTERS: [(&str, &str, OfLane); 5] = [
    ("peer_sent_messages", "Messages sent", |lane| lane.sent.get()),
    ("peer_sent_bytes", "Bytes sent", |lane| lane.sent_bytes.get()),
    ("peer_received_messages", "Messages received", |lane| lane.received.get()),
    ("peer_received_bytes", "Bytes of messages received", |lane| lane.received_bytes.get()),
    ("peer_connection_failures", "Connections that broke or failed", |lane| lane.failures.get()),
];

const DROPS: [(&str, OfLane); 4] = [
    ("full", |lane| lane.dropped_full.get()),
    ("unreached", |lane| lane.dropped_unreached.get()),
    ("broken", |lane| lane.dropped_broken.get()),
    ("inbox", |lane| lane.dropped_inbox.get()),
];

impl Collector for Peers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let peers = self.0.peers();
        let names: Vec<(String, _)> =
            peers.iter().map(|(id, stats)| (id.0.to_string(), stats.clone())).collect();
        let lanes: Vec<([(&str, &str); 2], &LaneStats)> = names
            .iter()
            .flat_map(|(id, stats)| {
                Lane::ALL
                    .map(|lane| ([("peer", id.as_str()), ("lane", lane.name())], stats.lane(lane)))
            })
            .collect();

        for (name, help, of) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, lane) in &lanes {
                ConstCounter::new(of(lane)).encode(family.encode_family(labels)?)?;
            }
        }
        let help = "Messages dropped";
        let name = "peer_dropped_messages";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, lane) in &lanes {
            for (reason, of) in DROPS {
                let labels = [labels[0], labels[1], ("reason", reason)];
                ConstCounter::new(of(lane)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Whether the connection lives";
        let mut family =
            encoder.encode_descriptor("peer_connected", help, None, MetricType::Gauge)?;
        for (labels, lane) in &lanes {
            let connected = i64::from(lane.connected_for().is_some());
            ConstGauge::new(connected).encode(family.encode_family(labels)?)?;
        }
        let (name, help) = ("peer_round_trip", "Of the newest ping");
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, lane) in &lanes {
            if let Some(rtt) = lane.rtt() {
                ConstGauge::new(rtt.as_secs_f64()).encode(family.encode_family(labels)?)?;
            }
        }
        let (name, help) = ("peer_handshakes", "Handshakes of peers that dialed");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for status in Status::ALL {
            let count = self.0.answered(status).get();
            ConstCounter::new(count).encode(family.encode_family(&[("status", status.name())])?)?;
        }
        let (name, help) = ("peer_garbage_connections", "Closed because of what they sent");
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.garbage.get()).encode(family)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::types::NodeId;

    #[test]
    fn every_metric_of_the_table_is_shown() {
        let (disk, peers) = (Arc::new(DiskStats::default()), Arc::new(Stats::default()));
        peers.peer(NodeId(2)).lane(Lane::Bulk).connected(std::time::Duration::from_millis(1));
        let mut registry = Registry::with_prefix("stormkv");
        register(disk, peers, NodeStats::default())(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let table = include_str!("host.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let mut count = 0;
        for name in table.filter_map(|row| row.split('`').next()) {
            let shown = text.lines().any(|line| line.starts_with(name) && !line.starts_with('#'));
            assert!(shown, "{name} is not in:\n{text}");
            count += 1;
        }
        assert!(count > 10, "{count}");
        let all = "stormkv_disk_sync_duration_seconds_bucket{le=\"+Inf\"} 0";
        assert!(text.contains(all), "{text}");
        assert!(text.contains("stormkv_peer_connected{peer=\"2\",lane=\"bulk\"} 1"), "{text}");
    }
}
