//! Moves a node's outputs to its host and the host's completions back: the same in both worlds.
//!
//! A host hands over what has happened: [`wake`](Driver::wake), [`receive`](Driver::receive),
//! [`request`](Driver::request), [`complete`](Driver::complete), [`unreachable`](Driver::unreachable),
//! [`disconnected`](Driver::disconnected). None of these does anything to the world. [`flush`](Driver::flush) lets the node act on all of
//! it, and carries out what it wants. The more inputs there are between two flushes, the more the
//! node does at once: 256 puts that came together are one append to each follower and one write.
//! So a busy host hands over what its queue holds, up to a bound, and flushes; an idle one flushes
//! after a single input, and nothing ever waits for company. A flush does a bounded amount of work;
//! if [`has_work`](Driver::has_work) says that some is left, the host takes the inputs that are
//! there, without waiting for any, and flushes again.
//!
//! The driver turns time into ticks, and merges disk batches: while one is on its way, the next
//! ones wait and are then submitted as one, with one fsync for all of them (group commit).

use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{Request, RequestId};
use crate::bugs::{Bug, planted};
use crate::config::Config;
use crate::env::{Clock, Completion, Disk, DiskOp, DiskQueue, Transport};
use crate::error::{DiskError, Error};
use crate::machine::StateMachine;
use crate::node::{Applied, Node, Output};
use crate::types::{NodeId, Ticket};
use crate::wire::Message;

/// Ticks made up for after a pause. More would only let a node that was paused for long believe
/// that it had heard from nobody, although it did not listen.
const MAX_CATCH_UP: u32 = 2;

/// All that a node needs from its world.
pub trait Host: Clock + Transport + Disk {
    /// An entry was applied. For metrics and for checkers; does nothing by default.
    fn applied(&mut self, applied: Applied) {
        let _ = applied;
    }

    /// The node wants this done on its disk; it will be submitted later, perhaps merged with other
    /// batches. For checkers; does nothing by default.
    fn queued(&mut self, ops: &[DiskOp]) {
        let _ = ops;
    }
}

/// A node and its connection to a [`Host`].
///
/// What was handed over but not flushed when the process ends is lost, as if it had never arrived:
/// nothing was said or written because of it.
pub struct Driver<M: StateMachine> {
    node: Node<M>,
    tick: Duration,
    next_tick: Duration,
    outputs: Vec<Output>,
    /// By number of the [`DiskQueue`].
    queues: [Batches; DiskQueue::ALL.len()],
    /// Bytes of batches that are merged, at most, unless a single one has more.
    max_batch_bytes: u64,
}

/// The batches of one queue of the disk.
#[derive(Default)]
struct Batches {
    /// Those that wait for the one in flight, with their bytes.
    waiting: VecDeque<(Ticket, u64, Vec<DiskOp>)>,
    in_flight: Option<Ticket>,
    /// The batch in flight, for [`Bug::FsyncRetried`]; otherwise empty.
    tried: Vec<DiskOp>,
}

impl<M: StateMachine> Driver<M> {
    /// Starts a node; see [`Node::start`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start(config: Config, host: &mut impl Host) -> Result<Self, Error> {
        Self::start_with(M::Params::default(), config, host)
    }

    /// Starts a node whose machine has these parameters; see [`Node::start_with`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_with(
        params: M::Params,
        config: Config,
        host: &mut impl Host,
    ) -> Result<Self, Error> {
        let (tick, max_batch_bytes) = (config.tick, config.max_batch_bytes);
        let node = Node::start_with(params, config, host)?;
        let mut driver = Driver {
            node,
            tick,
            next_tick: host.now() + tick,
            outputs: Vec::new(),
            queues: Default::default(),
            max_batch_bytes,
        };
        driver.flush(host);
        Ok(driver)
    }

    /// The node.
    pub fn node(&self) -> &Node<M> {
        &self.node
    }

    /// Draws other election timeouts from now on; see [`Node::reseed`].
    pub fn reseed(&mut self, seed: u64) {
        self.node.reseed(seed);
    }

    /// Whether anything waits for the disk.
    pub fn is_writing(&self) -> bool {
        self.queues.iter().any(|queue| queue.in_flight.is_some() || !queue.waiting.is_empty())
    }

    /// Batches that wait for the one that was submitted to the same queue: they are submitted
    /// together, as far as the limit of bytes allows.
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    /// Whether the last [`flush`](Self::flush) left something to do at once: see
    /// [`Node::has_work`]. A host that forgets to ask lets it wait for the next input or tick.
    pub fn has_work(&self) -> bool {
        self.node.has_work()
    }

    /// How long the host may wait, on its own clock, before it calls [`wake`](Self::wake): zero if a
    /// tick is due, and never more than one tick, so that a clock that was set back is noticed.
    pub fn due_in(&self, now: Duration) -> Duration {
        self.next_tick.saturating_sub(now).min(self.tick)
    }

    /// It is `now` on the host's clock. May be called at any time; does nothing if no tick is due.
    ///
    /// A clock that jumps forward makes the node catch up on two ticks at most. If it was set back,
    /// the next tick is due one tick from now: waiting until the clock has made up for the step
    /// could take hours, in which the node would neither send heartbeats nor miss those of others.
    pub fn wake(&mut self, now: Duration) {
        self.next_tick = self.next_tick.min(now.saturating_add(self.tick));
        for _ in 0..MAX_CATCH_UP {
            if now < self.next_tick {
                break;
            }
            self.next_tick = self.next_tick.saturating_add(self.tick);
            self.node.tick();
        }
        if now >= self.next_tick {
            self.next_tick = now.saturating_add(self.tick);
        }
    }

    /// A message has arrived.
    pub fn receive(&mut self, from: NodeId, message: Message) {
        self.node.receive(from, message);
    }

    /// A client's request has arrived.
    pub fn request(&mut self, id: RequestId, request: Request) {
        self.node.request(id, request);
    }

    /// Work for the disk is done.
    ///
    /// # Panics
    /// If it is a batch that was not submitted last: a bug of the host.
    pub fn complete(&mut self, completion: Completion) {
        if let Completion::Done(queue, ticket, result) = &completion {
            let queue = &mut self.queues[*queue as usize];
            assert_eq!(queue.in_flight, Some(*ticket), "the completion of a batch not in flight");
            queue.in_flight = None;
            if planted(Bug::FsyncRetried) && queue.tries_again(*ticket, result) {
                return;
            }
        }
        if let Completion::Done(DiskQueue::Snapshot, _, Err(error)) = &completion
            && error.is_full()
        {
            // They go on with files that are not there: the node asks for them again.
            self.queues[DiskQueue::Snapshot as usize].waiting.clear();
        }
        self.node.complete(completion);
    }

    /// Reports how many bytes are free on the disk, `None` if that is not known. To be called every
    /// second or so; see [`Node::report_free`].
    pub fn report_free(&mut self, free: Option<u64>) {
        self.node.report_free(free);
    }

    /// Messages to `peer` were dropped.
    pub fn unreachable(&mut self, peer: NodeId) {
        self.node.unreachable(peer);
    }

    /// The connection that carries requests to `peer` was lost, with whatever was on it.
    pub fn disconnected(&mut self, peer: NodeId) {
        self.node.disconnected(peer);
    }

    /// The forwarded request `id` was dropped before it reached a connection.
    pub fn not_forwarded(&mut self, id: u64) {
        self.node.not_forwarded(id);
    }

    /// Lets the node act on all that was handed over since the last call, and carries out what it
    /// wants, in order. To be called before the host waits for anything.
    pub fn flush(&mut self, host: &mut impl Host) {
        self.node.process();
        self.node.take_outputs(&mut self.outputs);
        for output in self.outputs.drain(..) {
            match output {
                Output::Disk { queue, ticket, ops } => {
                    host.queued(&ops);
                    let bytes = ops.iter().map(DiskOp::bytes).sum();
                    self.queues[queue as usize].waiting.push_back((ticket, bytes, ops));
                }
                Output::Work { ticket, work } => host.work(ticket, work),
                Output::Fetch { ticket, file, offset, len } => {
                    host.fetch(ticket, file, offset, len);
                }
                Output::Send { to, message } => host.send(to, message),
                Output::Reply { request, reply } => host.reply(request, reply),
                Output::Applied(applied) => host.applied(applied),
            }
        }
        if self.node.stopped().is_some() {
            return;
        }
        for queue in DiskQueue::ALL {
            let batches = &mut self.queues[queue as usize];
            if let Some((ticket, ops)) = batches.next(self.max_batch_bytes) {
                host.submit(queue, ticket, ops);
            }
        }
    }
}

impl Batches {
    /// Merges what waits into the next batch, unless one is in flight. A bound on its bytes keeps a
    /// single sync short, so that a disk that works is not taken for one that hangs.
    fn next(&mut self, max_bytes: u64) -> Option<(Ticket, Vec<DiskOp>)> {
        if self.in_flight.is_some() {
            return None;
        }
        let (mut ticket, mut bytes, mut ops) = self.waiting.pop_front()?;
        // What waits was written in one go when responses to heartbeats waited for it.
        let max_bytes = if planted(Bug::HeartbeatsWaitForLog) { u64::MAX } else { max_bytes };
        let mut merged = false;
        while let Some((next, more, _)) = self.waiting.front()
            && bytes + more <= max_bytes
        {
            assert!(*next > ticket, "tickets of a queue count upwards");
            (ticket, bytes, merged) = (*next, bytes + more, true);
            let (_, _, next_ops) = self.waiting.pop_front().expect("just seen");
            ops.extend(next_ops);
        }
        if merged {
            ops = merge_syncs(ops);
        }
        self.in_flight = Some(ticket);
        if planted(Bug::FsyncRetried) {
            self.tried = ops.clone();
        }
        Some((ticket, ops))
    }

    /// Whether a batch goes on from the sync that failed, as [`Bug::FsyncRetried`] has it.
    fn tries_again(&mut self, ticket: Ticket, result: &Result<(), DiskError>) -> bool {
        let Err(DiskError { file, operation: "fsync", .. }) = result else { return false };
        let sync = file.map_or(DiskOp::SyncDir, |file| DiskOp::Sync { file });
        let Some(at) = self.tried.iter().position(|op| *op == sync) else { return false };
        self.waiting.push_front((ticket, 0, self.tried.split_off(at)));
        true
    }
}

/// Drops each sync of a file that is synced again later, when only writes stand between: nothing
/// can have relied on it.
fn merge_syncs(ops: Vec<DiskOp>) -> Vec<DiskOp> {
    let mut synced_later = Vec::new();
    let mut kept: Vec<DiskOp> = Vec::with_capacity(ops.len());
    for op in ops.into_iter().rev() {
        match &op {
            DiskOp::Sync { file } if synced_later.contains(file) => continue,
            DiskOp::Sync { file } => synced_later.push(*file),
            DiskOp::Write { .. } => {}
            DiskOp::Create { .. }
            | DiskOp::Rename { .. }
            | DiskOp::Remove { .. }
            | DiskOp::SyncDir => synced_later.clear(),
        }
        kept.push(op);
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::FileName;
    use crate::memory::MemHost;
    use bytes::Bytes;

    fn write(number: u64) -> DiskOp {
        DiskOp::Write { file: FileName::Segment(number), offset: 0, data: Bytes::new() }
    }

    fn sync(number: u64) -> DiskOp {
        DiskOp::Sync { file: FileName::Segment(number) }
    }

    const TICK: Duration = Duration::from_millis(10);
    const HOUR: Duration = Duration::from_secs(3600);

    /// A driver that was started at `now`.
    fn started(now: Duration) -> Driver<crate::kv::Kv> {
        let mut config = Config::new(NodeId(1), vec![NodeId(1), NodeId(2), NodeId(3)]);
        config.tick = TICK;
        Driver::start(config, &mut MemHost::at(now)).unwrap()
    }

    /// Does all that it is told by `due_in`, for so long on its clock; says how often it woke.
    fn live(driver: &mut Driver<crate::kv::Kv>, mut now: Duration, span: Duration) -> u32 {
        let (end, mut wakes) = (now + span, 0);
        while now < end {
            now += driver.due_in(now);
            driver.wake(now);
            driver.flush(&mut MemHost::at(now));
            wakes += 1;
        }
        wakes
    }

    #[test]
    fn a_clock_that_is_set_back_costs_less_than_a_tick_and_no_more_wakes() {
        let mut driver = started(2 * HOUR);
        live(&mut driver, 2 * HOUR, 3 * TICK);
        let back = HOUR;
        assert_eq!(driver.due_in(back), TICK);
        driver.wake(back);
        assert_eq!(driver.due_in(back), TICK);
        // Before the clock has made up for the hour, the node has long missed its leader.
        let wakes = live(&mut driver, back, 100 * TICK);
        assert_eq!(wakes, 100);
        assert_ne!(driver.node().status().role, crate::node::Role::Follower);
        // Back by less than a tick: it only waits for longer.
        let early = back + 100 * TICK - TICK / 2;
        driver.wake(early);
        assert_eq!(driver.due_in(early), TICK);
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_caught_up_on_with_two_ticks() {
        let mut driver = started(HOUR);
        live(&mut driver, HOUR, TICK);
        let ahead = 3 * HOUR;
        assert_eq!(driver.due_in(ahead), Duration::ZERO);
        driver.wake(ahead);
        driver.flush(&mut MemHost::at(ahead));
        assert_eq!(driver.due_in(ahead), TICK);
        assert_eq!(driver.node().status().role, crate::node::Role::Follower);
        // It never overflows, whatever the clock says.
        driver.wake(Duration::MAX);
        driver.wake(Duration::ZERO);
        assert_eq!(driver.due_in(Duration::ZERO), TICK);
    }

    #[test]
    fn writes_to_one_file_share_their_last_sync() {
        let merged = merge_syncs(vec![write(1), sync(1), write(1), sync(1), write(1), sync(1)]);
        assert_eq!(merged, [write(1), write(1), write(1), sync(1)]);
    }

    #[test]
    fn a_sync_before_a_change_of_the_directory_stays() {
        let ops = vec![write(1), sync(1), DiskOp::SyncDir, write(1), sync(1)];
        assert_eq!(merge_syncs(ops.clone()), ops);
    }

    #[test]
    fn the_syncs_of_different_files_stay() {
        let ops = vec![write(1), sync(1), write(2), sync(2)];
        assert_eq!(merge_syncs(ops.clone()), ops);
    }
}
