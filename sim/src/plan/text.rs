//! The canonical TOML of a plan: pleasant to read, and the same text for the same plan.
//!
//! Settings are dotted keys (`cluster.nodes = 5`), each left out when it has its default. Rows
//! are inline tables, one a line, so that a run reads as a timeline. This is the same data as
//! `[cluster]` tables and `[[op]]` rows, which a person may prefer to write; both are read.

use std::fmt::Write;

use super::units::show_ms;
use super::{Clients, Cluster, Delay, Disk, End, Load, Network, Plan, Wire};
use super::{NetEffect, NetRow};

/// The whole file.
pub(super) fn document(plan: &Plan) -> String {
    let mut out = String::with_capacity(1024 + 64 * (plan.ops.len() + plan.faults.len()));
    line(&mut out, "schema", plan.schema);
    line(&mut out, "name", quoted(&plan.name));
    if !plan.story.is_empty() {
        line(&mut out, "story", quoted(&plan.story));
    }
    if let Some(found) = &plan.found {
        let (seed, rev, events) = (found.seed, quoted(&found.rev), found.events_before);
        line(
            &mut out,
            "found",
            format_args!("{{ seed = {seed}, rev = {rev}, events_before = {events} }}"),
        );
    }
    if let Some(checker) = &plan.expect.violation {
        line(&mut out, "expect.violation", quoted(checker));
    }
    if !plan.expect.waypoints.is_empty() {
        let names: Vec<_> = plan.expect.waypoints.iter().map(|name| quoted(name)).collect();
        line(&mut out, "expect.waypoints", format_args!("[{}]", names.join(", ")));
    }
    setting(&mut out, "expect.no_skipped_faults", plan.expect.no_skipped_faults, false);
    write_run(&mut out, plan);
    out
}

/// Only what determines the run.
pub(super) fn run(plan: &Plan) -> String {
    let mut out = String::with_capacity(1024 + 64 * (plan.ops.len() + plan.faults.len()));
    line(&mut out, "schema", plan.schema);
    write_run(&mut out, plan);
    out
}

fn write_run(out: &mut String, plan: &Plan) {
    line(out, "seed", plan.seed);
    if let Some(bug) = &plan.bug {
        line(out, "bug", quoted(bug));
    }
    section(out, |out| write_cluster(out, &plan.cluster));
    section(out, |out| write_network(out, &plan.network));
    section(out, |out| write_disk(out, &plan.disk));
    section(out, |out| {
        setting(out, "cpu.input_us", plan.cpu.input_us, 0);
        setting(out, "cpu.us_per_kib", plan.cpu.us_per_kib, 0);
        setting(out, "cpu.work_us_per_kib", plan.cpu.work_us_per_kib, 0);
    });
    section(out, |out| write_clients(out, &plan.clients));
    section(out, |out| write_load(out, &plan.load));
    section(out, |out| write_end(out, &plan.end));
    let times = plan.ops.iter().map(|row| row.at_us);
    let width = time_width(times);
    rows(out, "op", &plan.ops, |out, row| {
        write!(out, "at_ms = {:>width$}, client = {}, ", show_ms(row.at_us), row.client)?;
        write!(out, "do = \"{}\"", row.call)
    });
    let times = plan.faults.iter().flat_map(|row| [row.at_us, row.until_us.unwrap_or(0)]);
    let width = time_width(times);
    rows(out, "fault", &plan.faults, |out, row| {
        write!(out, "at_ms = {:>width$}, ", show_ms(row.at_us))?;
        if let Some(until_us) = row.until_us {
            write!(out, "until_ms = {:>width$}, ", show_ms(until_us))?;
        }
        write!(out, "do = \"{}\"", row.fault)
    });
    rows(out, "net", &plan.net, |out, NetRow { effect, message }| match effect {
        NetEffect::Drop => write!(out, "drop = \"{message}\""),
        NetEffect::Duplicate => write!(out, "duplicate = \"{message}\""),
        NetEffect::Delay { by_us } => {
            write!(out, "delay = \"{message}\", by_ms = {}", show_ms(*by_us))
        }
    });
}

fn write_cluster(out: &mut String, cluster: &Cluster) {
    let default = Cluster::default();
    setting(out, "cluster.nodes", cluster.nodes, default.nodes);
    setting(out, "cluster.learners", cluster.learners, default.learners);
    millis(out, "cluster.tick_ms", cluster.tick_us, default.tick_us);
    if cluster.election_ticks != default.election_ticks {
        let [least, most] = cluster.election_ticks;
        line(out, "cluster.election_ticks", format_args!("[{least}, {most}]"));
    }
    setting(out, "cluster.heartbeat_ticks", cluster.heartbeat_ticks, default.heartbeat_ticks);
    setting(out, "cluster.snapshot_every", cluster.snapshot_every, default.snapshot_every);
    setting(out, "cluster.keep_entries", cluster.keep_entries, default.keep_entries);
    setting(out, "cluster.log_kib", cluster.log_kib, default.log_kib);
    setting(out, "cluster.segment_kib", cluster.segment_kib, default.segment_kib);
    setting(out, "cluster.sessions", cluster.sessions, default.sessions);
    setting(out, "cluster.session_kib", cluster.session_kib, default.session_kib);
    setting(out, "cluster.chunk_bytes", cluster.chunk_bytes, default.chunk_bytes);
    match cluster.wire {
        Wire::Value => {}
        Wire::Encoded => line(out, "cluster.wire", quoted("encoded")),
    }
    setting(out, "cluster.batch_us", cluster.batch_us, default.batch_us);
    setting(out, "cluster.backup_keys", cluster.backup_keys, default.backup_keys);
}

fn write_network(out: &mut String, network: &Network) {
    let default = Network::default();
    if network.latency != default.latency {
        let Delay { min_us, mean_extra_us } = network.latency;
        let (min, extra) = (show_ms(min_us), show_ms(mean_extra_us));
        line(out, "network.latency_ms", format_args!("[{min}, {extra}]"));
    }
    setting(out, "network.heavy_tail", network.heavy_tail, default.heavy_tail);
    setting(out, "network.drop", network.drop, default.drop);
    setting(out, "network.duplicate", network.duplicate, default.duplicate);
    setting(out, "network.fifo", network.fifo, default.fifo);
    setting(out, "network.spread", network.spread, default.spread);
    setting(out, "network.kib_per_s", network.kib_per_s, default.kib_per_s);
    millis(out, "network.queue_ms", network.queue_us, default.queue_us);
    setting(out, "network.garble", network.garble, default.garble);
    setting(out, "network.tells", network.tells, default.tells);
}

fn write_disk(out: &mut String, disk: &Disk) {
    let default = Disk::default();
    let mut delay = |key, value: Delay, default| {
        if value != default {
            line(out, key, format_args!("[{}, {}]", value.min_us, value.mean_extra_us));
        }
    };
    delay("disk.write_us", disk.write, default.write);
    delay("disk.sync_us", disk.sync, default.sync);
    delay("disk.read_us", disk.read, default.read);
    setting(out, "disk.kib_per_s", disk.kib_per_s, default.kib_per_s);
    setting(out, "disk.size_kib", disk.size_kib, default.size_kib);
}

fn write_clients(out: &mut String, clients: &Clients) {
    let default = Clients::default();
    setting(out, "clients.count", clients.count, default.count);
    millis(out, "clients.retry_ms", clients.retry_us, default.retry_us);
    millis(out, "clients.give_up_ms", clients.give_up_us, default.give_up_us);
    millis(out, "clients.think_ms", clients.think_us, default.think_us);
    setting(out, "clients.in_flight", clients.in_flight, default.in_flight);
    setting(out, "clients.operators", clients.operators, default.operators);
    setting(out, "clients.backs_off", clients.backs_off, default.backs_off);
}

fn write_load(out: &mut String, load: &Load) {
    for (name, us) in load.times().into_iter().filter(|(_, us)| *us > 0) {
        line(out, &format!("load.{name}"), show_ms(us));
    }
}

fn write_end(out: &mut String, end: &End) {
    if let Some(heal_at_us) = end.heal_at_us {
        line(out, "end.heal_at_ms", show_ms(heal_at_us));
    }
    let default = End::default();
    millis(out, "end.bound_ms", end.bound_us, default.bound_us);
    setting(out, "end.core", &end.core, &default.core);
    setting(out, "end.beyond_quorum", end.beyond_quorum, default.beyond_quorum);
}

fn line(out: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(out, "{key} = {value}").expect("writing to a string cannot fail");
}

fn setting<T: PartialEq + std::fmt::Display>(out: &mut String, key: &str, value: T, default: T) {
    if value != default {
        line(out, key, value);
    }
}

fn millis(out: &mut String, key: &str, value_us: u64, default_us: u64) {
    if value_us != default_us {
        line(out, key, show_ms(value_us));
    }
}

/// Separates a section by an empty line, if there is anything in it.
fn section(out: &mut String, write: impl FnOnce(&mut String)) {
    let before = out.len();
    out.push('\n');
    write(out);
    if out.len() == before + 1 {
        out.pop();
    }
}

/// How wide the widest of these times is, so that a column of them lines up.
fn time_width(times: impl Iterator<Item = u64>) -> usize {
    times.map(|us| show_ms(us).len()).max().unwrap_or(0)
}

fn rows<T>(
    out: &mut String,
    name: &str,
    rows: &[T],
    write_row: impl Fn(&mut String, &T) -> std::fmt::Result,
) {
    if rows.is_empty() {
        return;
    }
    write!(out, "\n{name} = [\n").expect("writing to a string cannot fail");
    for row in rows {
        out.push_str("  { ");
        write_row(out, row).expect("writing to a string cannot fail");
        out.push_str(" },\n");
    }
    out.push_str("]\n");
}

/// A TOML basic string. The texts of `do` need no escapes: their grammar has no such signs.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            '\n' => out.push_str("\\n"),
            char if char.is_control() => {
                write!(out, "\\u{:04X}", u32::from(char)).expect("writing to a string cannot fail");
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
