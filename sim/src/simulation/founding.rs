//! What a cluster is founded with: nothing, or a backup.
//!
//! A backup is made by a node of its own, as it would be by an operator: the only member of a cluster
//! of the past, which has nothing to do with the network, the disks and the chance of the run.

use std::time::Duration;

use bytes::Bytes;
use stormkv::api::{Reply, Request, RequestId};
use stormkv::config::Config;
use stormkv::driver::Driver;
use stormkv::env::{Completion, DiskOp};
use stormkv::machine::Context;
use stormkv::node::{Applied, Role};
use stormkv::types::{NodeId, SnapshotId};

use crate::disk::SimDisk;
use crate::port::{Effect, Port, Watch};
use crate::service::Service;

/// The member of the cluster of the past.
const LONE: NodeId = NodeId(1);
/// Size of its log segments, in bytes. A disk fills a new segment with zeros, and of the 64 MiB that
/// are usual in production its few commands need next to nothing.
const SEGMENT_BYTES: u64 = 64 << 10;

/// The state in which a cluster is founded.
pub(super) struct Founding {
    /// The backup, if there is one.
    pub state: Option<Bytes>,
    /// Where the log begins.
    pub id: SnapshotId,
    /// The commands that made it.
    pub commands: Vec<(Context, Bytes)>,
}

impl Founding {
    /// With so many keys from a backup, or empty for 0.
    pub fn new<S: Service>(backup_keys: u32) -> Founding {
        if backup_keys == 0 || S::backup_command(1).is_none() {
            let id = SnapshotId { index: 1, term: 1 };
            return Founding { state: None, id, commands: Vec::new() };
        }
        let mut past = Lone::<S>::start(None);
        while past.driver.node().status().role != Role::Leader {
            past.tick();
        }
        let commands = (1..=backup_keys).map(|number| {
            let command = S::backup_command(number).expect("it has the first one");
            (past.apply(number, command.clone()), command)
        });
        let commands = commands.collect();
        let state: Bytes = past.driver.node().backup().flatten().collect();
        let id = Lone::<S>::start(Some(state.clone())).driver.node().status().applied;
        Founding { state: Some(state), id, commands }
    }
}

/// Takes no notice of what a node does.
pub(super) struct Unwatched;

impl Watch for Unwatched {
    fn applied(&mut self, _: Applied) {}

    fn queued(&mut self, _: &[DiskOp]) {}
}

/// Looks at the machine in the state of a backup.
pub(super) fn with_state_of<S: Service, T>(
    backup: Bytes,
    look: impl FnOnce(&S::Machine) -> T,
) -> T {
    look(Lone::<S>::start(Some(backup)).driver.node().machine())
}

/// A node that is alone, on a disk that does at once what it is asked for.
struct Lone<S: Service> {
    now_ns: u64,
    disk: SimDisk,
    driver: Driver<S::Machine>,
    effects: Vec<Effect>,
    reply: Option<Reply>,
}

impl<S: Service> Lone<S> {
    fn start(founding_state: Option<Bytes>) -> Self {
        let mut config = Config::new(LONE, vec![LONE]);
        config.founding_state = founding_state;
        config.segment_bytes = SEGMENT_BYTES;
        let (mut disk, mut effects) = (SimDisk::new(0, LONE.0), Vec::new());
        let mut port = Port { now_ns: 0, disk: &mut disk, effects: &mut effects, watch: Unwatched };
        let driver = Driver::start_with(S::params(), config, &mut port)
            .expect("an empty disk that never fails");
        Lone { now_ns: 0, disk, driver, effects, reply: None }
    }

    fn tick(&mut self) {
        self.now_ns += 10_000_000;
        let now = Duration::from_nanos(self.now_ns);
        self.turn(|driver| driver.wake(now));
    }

    /// Applies a command; returns with what.
    fn apply(&mut self, number: u32, command: Bytes) -> Context {
        let request = Request::Command { session: None, command };
        self.turn(|driver| driver.request(RequestId(number.into()), request));
        match self.reply.take() {
            Some(Reply::Applied { index, .. }) => Context::new(index, self.driver.node().time()),
            other => panic!("a node that is alone does it at once, but answered {other:?}"),
        }
    }

    /// Gives the node an input and does all that it then asks for.
    fn turn(&mut self, input: impl FnOnce(&mut Driver<S::Machine>)) {
        input(&mut self.driver);
        loop {
            let (disk, effects) = (&mut self.disk, &mut self.effects);
            let mut port = Port { now_ns: self.now_ns, disk, effects, watch: Unwatched };
            self.driver.flush(&mut port);
            if self.effects.is_empty() && !self.driver.has_work() {
                return;
            }
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Submit(queue, ticket, ops) => {
                        for op in ops {
                            self.disk.execute(&op).expect("this disk never fails");
                        }
                        self.driver.complete(Completion::Done(queue, ticket, Ok(())));
                    }
                    Effect::Work(ticket, work) => {
                        let product = work.run(&mut self.disk);
                        self.driver.complete(Completion::Worked(ticket, Ok(product)));
                    }
                    Effect::Fetch(ticket, file, offset, len) => {
                        let read = self.disk.read(file, offset, len as usize);
                        self.driver.complete(Completion::Fetched(ticket, read));
                    }
                    Effect::Reply(_, reply) => self.reply = Some(reply),
                    Effect::Send(..) => unreachable!("nobody else is there"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use stormkv::types::LogIndex;

    use super::*;
    use crate::kv::KeyValue;

    #[test]
    fn backup_holds_its_keys_and_the_log_goes_on_far_behind() {
        let (one, two) = (Founding::new::<KeyValue>(3), Founding::new::<KeyValue>(3));
        assert_eq!(one.state, two.state, "it is the same in every run");
        let revisions: Vec<LogIndex> = one.commands.iter().map(|(at, _)| at.index).collect();
        assert!(revisions.is_sorted() && revisions.len() == 3, "{revisions:?}");
        assert!(one.id.index > revisions[2] + 1_000_000_000, "{:?}", one.id);
        assert_eq!(Founding::new::<KeyValue>(0).id.index, 1);
    }
}
