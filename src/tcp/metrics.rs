//! What `/metrics` shows: one registry per node, nothing global.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `stormkv_build_info` | `version` | always 1 |
//! | `stormkv_http_requests_total` | `route`, `method`, `status` | requests that were answered |
//! | `stormkv_http_request_duration_seconds` | `route` | from the head to the response's head |
//! | `stormkv_http_requests_in_flight` | | requests that wait for their answer |
//! | `stormkv_http_connections` | | open connections |
//! | `stormkv_http_connections_refused_total` | `reason` | `too_many`, `handshake`, `slow`, `accept`, `idle` |
//! | `stormkv_raft_term` | | the present term |
//! | `stormkv_raft_role` | `role` | 1 for the role it has, 0 for the others |
//! | `stormkv_raft_leader_known` | | whether it knows a leader |
//! | `stormkv_raft_leader_id` | | which member leads; 0 if it knows none |
//! | `stormkv_raft_commit_index` | | up to where entries are committed |
//! | `stormkv_raft_applied_index` | | up to where they are applied |
//! | `stormkv_raft_first_index` | | the first entry kept |
//! | `stormkv_raft_last_index` | | the last entry |
//! | `stormkv_raft_snapshot_index` | | the newest durable snapshot |
//! | `stormkv_raft_members` | `role` | `voter`, `learner` |
//! | `stormkv_raft_member_lag_entries` | `member` | entries it is behind; only on the leader |
//! | `stormkv_raft_member_in_snapshot` | `member` | it is sent a snapshot; only on the leader |
//! | `stormkv_keys` | | keys that the state holds |
//! | `stormkv_state_bytes` | | bytes of these keys and their values |
//! | `stormkv_sessions` | | sessions of clients |
//! | `stormkv_session_bytes` | | bytes of the sessions with the answers that they keep |
//! | `stormkv_log_bytes` | | bytes of the log's entries in memory, roughly |
//! | `stormkv_node_pending_requests` | | requests and reads that wait in the node |
//! | `stormkv_node_pending_proposals` | | requests that wait for their entry of the log |
//! | `stormkv_node_damaged` | | whether the log or the state is damaged and not repaired yet |
//! | `stormkv_node_stopped` | | whether the node has stopped |
//! | `stormkv_disk_full` | | whether commands that may grow the state are refused for lack of room |
//! | `stormkv_disk_free_bytes` | | free bytes on the disk; 0 if unknown |
//! | `stormkv_disk_hangs` | | whether the disk has completed nothing for so long that it may be broken |
//! | `stormkv_snapshots_dropped_total` | | snapshots since the start that did not fit on the disk |
//! | `stormkv_wal_segments` | | segments of the write-ahead log |
//!
//! Disk, peers and the process add theirs, see [`host`] and `process`. Values about raft are those of
//! the moment of the scrape.

pub mod host;
mod process;
mod text;

use std::fmt;
use std::time::Duration;

use hyper::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub(crate) use self::text::Format;
use super::handle::Handle;
use super::http::role;
use crate::node::Role;

/// What the names of all metrics begin with, but for those of the process.
const PREFIX: &str = "stormkv";

/// The `route` of paths that do not exist.
const NO_ROUTE: &str = "none";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

/// Counts what the server does, and shows it.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// The `route` of each route, and that of no route.
    routes: Vec<&'static str>,
    /// One for each of `routes`.
    durations: Vec<Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    refused: Family<ReasonLabel, Counter>,
}

/// Counts something down when it is over.
pub(crate) struct Under<'a>(&'a Gauge);

impl<'a> Under<'a> {
    fn new(gauge: &'a Gauge) -> Under<'a> {
        gauge.inc();
        Under(gauge)
    }
}

impl Drop for Under<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Metrics of a server with these routes.
    pub fn new(handle: Handle, mut routes: Vec<&'static str>) -> Metrics {
        let mut root = Registry::default();
        root.register_collector(Box::new(process::Process));
        let registry = root.sub_registry_with_prefix(PREFIX);
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What was built", build);
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("http_requests", "Requests that were answered", requests.clone());
        let duration = Family::<RouteLabel, Histogram>::new_with_constructor(|| {
            // From 50 us to about 13 s.
            Histogram::new(exponential_buckets(50e-6, 2.0, 19))
        });
        registry.register_with_unit(
            "http_request_duration",
            "From the head of a request to the head of its response",
            Unit::Seconds,
            duration.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "http_requests_in_flight",
            "Requests that wait for their answer",
            in_flight.clone(),
        );
        let connections = Gauge::default();
        registry.register("http_connections", "Open connections", connections.clone());
        let refused = Family::<ReasonLabel, Counter>::default();
        registry.register(
            "http_connections_refused",
            "Connections that were refused or cut off",
            refused.clone(),
        );
        // A rate needs a zero to start from.
        for reason in ["too_many", "handshake", "slow", "accept", "idle"] {
            drop(refused.get_or_create(&ReasonLabel { reason }));
        }
        registry.register_collector(Box::new(ViewCollector(handle)));
        routes.push(NO_ROUTE);
        let of_route = |route: &&'static str| duration.get_or_create_owned(&RouteLabel { route });
        let durations = routes.iter().map(of_route).collect();
        Metrics { registry: root, requests, routes, durations, in_flight, connections, refused }
    }

    /// For other parts of the host, before anybody is served.
    pub fn registry(&mut self) -> &mut Registry {
        self.registry.sub_registry_with_prefix(PREFIX)
    }

    /// A request has begun.
    pub fn begin(&self) -> Under<'_> {
        Under::new(&self.in_flight)
    }

    /// A connection was opened.
    pub fn connected(&self) -> Under<'_> {
        Under::new(&self.connections)
    }

    /// A request was answered. `route` is its number among the routes of the server.
    pub fn answered(
        &self,
        route: Option<usize>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let route = route.unwrap_or(self.routes.len() - 1);
        let labels = RequestLabels {
            route: self.routes[route],
            method: method_label(method),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        self.durations[route].observe(took.as_secs_f64());
    }

    fn refuse(&self, reason: &'static str, count: u64) {
        if count > 0 {
            self.refused.get_or_create(&ReasonLabel { reason }).inc_by(count);
        }
    }

    /// There were too many connections.
    pub fn turned_away(&self) {
        self.refuse("too_many", 1);
    }

    /// So many connections without a request under way were closed, for another one or because their
    /// address had too many.
    pub fn closed_idle(&self, count: u64) {
        self.refuse("idle", count);
    }

    /// TLS was not agreed upon.
    pub fn handshake_failed(&self) {
        self.refuse("handshake", 1);
    }

    /// Connections that were too slow.
    pub fn cut_off(&self, count: u64) {
        self.refuse("slow", count);
    }

    /// The system gave no connection.
    pub fn accept_failed(&self) {
        self.refuse("accept", 1);
    }

    /// All of it.
    pub fn encode(&self, format: Format) -> String {
        let mut open_metrics = String::new();
        encode(&mut open_metrics, &self.registry).expect("writing to memory cannot fail");
        match format {
            Format::OpenMetrics => open_metrics,
            Format::Text => text::plain(&open_metrics),
        }
    }
}

/// A client may invent methods, and must not invent labels.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Shows the node as it is at the moment.
struct ViewCollector(Handle);

impl fmt::Debug for ViewCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ViewCollector").finish()
    }
}

/// A value that is what it is now.
fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let value = ConstGauge::new(value);
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

/// The same with one label, once per value of it.
fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl Iterator<Item = (&'a str, u64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (text, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&[(label, text)])?)?;
    }
    Ok(())
}

impl Collector for ViewCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let view = self.0.view();
        let (status, load) = (&view.status, &view.load);
        let leader = status.leader.map_or(0, |leader| leader.0);
        for (name, help, value) in [
            ("raft_term", "The present term", status.hard_state.term),
            ("raft_leader_known", "Whether this node knows a leader", u64::from(leader > 0)),
            ("raft_leader_id", "Which member leads; 0 if unknown", leader),
            ("raft_commit_index", "Up to where entries are committed", status.hard_state.commit),
            ("raft_applied_index", "Up to where entries are applied", status.applied.index),
            ("raft_first_index", "The first entry kept", status.first),
            ("raft_last_index", "The last entry", status.last.index),
            ("raft_snapshot_index", "The newest durable snapshot", status.snapshot.index),
            ("keys", "Keys that the state holds", view.size.entries),
            ("state_bytes", "Bytes of these keys and their values", view.size.bytes),
            ("sessions", "Sessions of clients", load.sessions as u64),
            ("session_bytes", "Bytes of the sessions", load.session_bytes),
            ("log_bytes", "Bytes of the log's entries in memory", load.log_bytes),
            ("node_pending_requests", "Requests that wait in the node", view.pending as u64),
            ("node_pending_proposals", "Those that wait for an entry", load.proposals as u64),
            ("node_damaged", "Whether it waits for repair", u64::from(view.damage.is_some())),
            ("node_stopped", "Whether the node has stopped", u64::from(view.stopped.is_some())),
            ("disk_full", "Whether growth is refused", u64::from(view.space.is_short)),
            ("disk_free_bytes", "Free on the disk; 0 if unknown", view.space.free.unwrap_or(0)),
            ("disk_hangs", "Whether the disk completes nothing", u64::from(load.disk_hangs)),
            ("wal_segments", "Segments of the write-ahead log", view.segments as u64),
        ] {
            gauge(&mut encoder, name, help, value)?;
        }
        let (name, help) = ("snapshots_dropped", "Snapshots that did not fit on the disk");
        let dropped = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(view.space.misfits).encode(dropped)?;
        let roles = [Role::Follower, Role::PreCandidate, Role::Candidate, Role::Leader]
            .map(|known| (role(known), u64::from(known == status.role)));
        gauges(&mut encoder, "raft_role", "The role it has", "role", roles.into_iter())?;
        let membership = &view.membership;
        let members = [
            ("voter", membership.voters().len() as u64),
            ("learner", membership.learners().len() as u64),
        ];
        gauges(&mut encoder, "raft_members", "Members", "role", members.into_iter())?;
        let names: Vec<String> =
            view.progress.iter().map(|member| member.id.0.to_string()).collect();
        let members = || names.iter().map(String::as_str).zip(&view.progress);
        gauges(
            &mut encoder,
            "raft_member_lag_entries",
            "Entries it is behind the leader",
            "member",
            members().map(|(id, member)| (id, status.last.index.saturating_sub(member.matched))),
        )?;
        gauges(
            &mut encoder,
            "raft_member_in_snapshot",
            "Whether it is sent a snapshot",
            "member",
            members().map(|(id, member)| (id, u64::from(member.in_snapshot))),
        )
    }
}
