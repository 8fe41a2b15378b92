//! A disk, a host and a cluster in memory, for tests of state machines and of hosts.
//!
//! A node waits for nothing, so a test can be its whole world: a clock that is a number, a disk that
//! is a map, a network that is a queue. The three types of this module are that world, each usable
//! without the next:
//!
//! - [`MemDisk`] is one data directory. It carries out what it is given when the test asks for it,
//!   loses in a crash what was not synced, fails on order, and can be full.
//! - [`MemHost`] is the [`Host`](crate::driver::Host) of one node: such a disk, a clock, and lists
//!   of what the node has sent and answered.
//! - [`MemCluster`] is several nodes on such hosts and the network between them. Its smallest steps
//!   are one tick, one message and one disk operation; its largest is a request together with all
//!   that it takes to answer it.
//!
//! Nothing happens but by a call, and no call draws a random number: the same calls give the same
//! run. A test of a state machine needs a few of them:
//!
//! ```
//! use stormkv::kv::{Command, Kv, Query, Response};
//! use stormkv::memory::MemCluster;
//! use stormkv::types::NodeId;
//!
//! # fn main() -> Result<(), stormkv::error::Error> {
//! let mut cluster = MemCluster::<Kv>::new(3)?;
//! let put = Command::Put { key: "city".into(), value: "Bern".into() };
//! cluster.command(put.encode());
//!
//! // The machines lose power. Only what was synced comes back.
//! for id in [1, 2, 3].map(NodeId) {
//!     cluster.crash(id);
//!     cluster.restart(id)?;
//! }
//! let answer = cluster.query(Query::Get { key: "city".into() }.encode());
//! let Ok(Response::Value(Some(found))) = Response::decode(&answer) else { panic!("lost") };
//! assert_eq!(found.value, "Bern");
//! # Ok(())
//! # }
//! ```
//!
//! A test of one node in slow motion takes a [`MemHost`] and a
//! [`Driver`](crate::driver::Driver), and hands back completions one by one:
//!
//! ```
//! use stormkv::config::Config;
//! use stormkv::driver::Driver;
//! use stormkv::kv::Kv;
//! use stormkv::memory::MemHost;
//! use stormkv::types::NodeId;
//!
//! # fn main() -> Result<(), stormkv::error::Error> {
//! let mut host = MemHost::new();
//! let mut driver = Driver::<Kv>::start(Config::new(NodeId(1), vec![NodeId(1)]), &mut host)?;
//! while let Some(completion) = host.disk_mut().poll() {
//!     assert!(driver.is_writing());
//!     driver.complete(completion);
//!     driver.flush(&mut host);
//! }
//! assert!(host.disk().files().count() > 0);
//! # Ok(())
//! # }
//! ```
//!
//! Left out on purpose: latency, bandwidth, random faults and checkers. The crate `stormkv-sim` has
//! them, and draws the schedules that nobody writes by hand.

mod cluster;
mod disk;
mod host;
#[cfg(test)]
mod tests;

pub use self::cluster::{MemCluster, Packet};
pub use self::disk::{MemDisk, Pending};
pub use self::host::MemHost;
