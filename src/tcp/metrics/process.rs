//! What `/metrics` says about the process, under the names that all Prometheus clients use.
//!
//! | metric | |
//! |---|---|
//! | `process_cpu_seconds_total` | user and system time |
//! | `process_resident_memory_bytes` | memory that is in RAM |
//! | `process_virtual_memory_bytes` | address space |
//! | `process_open_fds` | file descriptors in use |
//! | `process_max_fds` | the soft limit of file descriptors |
//! | `process_start_time_seconds` | seconds since 1970 |
//!
//! All are read from `/proc` at the moment of the scrape. What a system does not tell is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

#[derive(Debug)]
pub(super) struct Process;

/// Virtual and resident memory, in bytes.
fn memory() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').map(|word| word.parse::<u64>().ok());
    let bytes = |pages: u64| pages.saturating_mul(page_size() as u64);
    Some((bytes(pages.next()??), bytes(pages.next()??)))
}

/// The CPU time and the start of the process, in seconds; the start counts from 1970.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program is in parentheses, and may have any character. Behind it stands the
    // third field, the state.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let per_second = clock_ticks_per_second() as f64;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    let booted: f64 = booted.trim().parse().ok()?;
    let cpu = (ticks(14)? + ticks(15)?) / per_second;
    Some((cpu, booted + ticks(22)? / per_second))
}

fn open_files() -> Option<u64> {
    // Reading the directory opens one more.
    fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1))
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let descriptor = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(descriptor)
        };
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        let (memory, times) = (memory(), times());
        let start = "process_start_time";
        gauge(start, "Start, in seconds since 1970", seconds, times.map(|times| times.1))?;
        let resident = memory.map(|memory| memory.1 as f64);
        gauge("process_resident_memory", "Memory that is in RAM", bytes, resident)?;
        let address_space = memory.map(|memory| memory.0 as f64);
        gauge("process_virtual_memory", "Address space", bytes, address_space)?;
        let open = open_files().map(|count| count as f64);
        gauge("process_open_fds", "File descriptors in use", None, open)?;
        let limit = getrlimit(Resource::Nofile).current.map_or(f64::INFINITY, |most| most as f64);
        gauge("process_max_fds", "Limit of file descriptors", None, Some(limit))?;
        let Some((cpu, _)) = times else { return Ok(()) };
        let help = "User and system time";
        let counter =
            encoder.encode_descriptor("process_cpu", help, seconds, MetricType::Counter)?;
        ConstCounter::new(cpu).encode(counter)
    }
}
