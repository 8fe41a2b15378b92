//! The faults that one node suffers from.
//!
//! Some are states: a pause, a disk that hangs or is slow, timers that are late, a crash loop. Others are
//! armed and wait for their moment: the n-th effect of a flush, the n-th operation of the disk. A fault of
//! the plan is known by its number, so that it ends without ending another one.

use super::super::core::Loss;
use super::super::event::Event;
use crate::plan::{Again, DiskFault};
use crate::rng::Stream;

/// A crash that waits for so many steps, and the number of its fault.
#[derive(Clone, Copy, Debug)]
struct Fuse {
    steps: u32,
    fault: u32,
}

impl Fuse {
    /// Counts a step down. Returns the number of the fault if that was the last one.
    fn step(fuse: &mut Option<Fuse>) -> Option<u32> {
        let Fuse { steps, fault } = fuse.as_mut()?;
        *steps -= 1;
        (*steps == 0).then_some(*fault)
    }
}

/// What a node suffers from. See the module.
pub(in crate::simulation) struct NodeFaults {
    paused: bool,
    /// Events that are due while it is paused.
    deferred: Vec<Event>,
    disk_hangs: bool,
    /// Events that need the disk while it hangs.
    held: Vec<Event>,
    /// Disk operations take this many times as long.
    disk_slowness: u64,
    at_effect: Option<Fuse>,
    at_disk_op: Option<Fuse>,
    /// A power loss that takes names that are not durable waits for an operation at which there are some.
    name_loss: Option<Fuse>,
    /// At the next start, some of what is read is old; with the number of the fault.
    stale_read: Option<(DiskFault, usize)>,
    crash_loop: Option<(Again, u32)>,
    /// How late its timers may fire, in ns, and the draws.
    jitter: Option<(u64, Stream)>,
    retired: bool,
    wiped: bool,
    lost: Option<Loss>,
}

impl NodeFaults {
    pub fn none() -> Self {
        NodeFaults {
            paused: false,
            deferred: Vec::new(),
            disk_hangs: false,
            held: Vec::new(),
            disk_slowness: 1,
            at_effect: None,
            at_disk_op: None,
            name_loss: None,
            stale_read: None,
            crash_loop: None,
            jitter: None,
            retired: false,
            wiped: false,
            lost: None,
        }
    }

    // ---- pauses ----

    pub fn pause(&mut self) {
        self.paused = true;
    }

    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// An event waits until the node goes on.
    pub fn defer(&mut self, event: Event) {
        assert!(self.paused && self.lost.is_none(), "nothing waits for a node that never goes on");
        self.deferred.push(event);
    }

    /// The events that wait until the node goes on.
    pub fn deferred(&self) -> impl Iterator<Item = &Event> {
        self.deferred.iter()
    }

    /// The node goes on. Returns what was due while it was paused.
    pub fn resume(&mut self) -> Vec<Event> {
        self.paused = false;
        std::mem::take(&mut self.deferred)
    }

    // ---- the disk ----

    pub fn hang_disk(&mut self) {
        self.disk_hangs = true;
    }

    pub fn disk_hangs(&self) -> bool {
        self.disk_hangs
    }

    /// An event waits until the disk goes on.
    pub fn hold(&mut self, event: Event) {
        assert!(self.disk_hangs, "nothing waits for a disk that works");
        self.held.push(event);
    }

    /// The disk goes on. Returns what has waited for it.
    pub fn release_disk(&mut self) -> Vec<Event> {
        self.disk_hangs = false;
        std::mem::take(&mut self.held)
    }

    /// Disk operations take `factor` times as long; 1 is the usual speed.
    pub fn slow_disk(&mut self, factor: u64) {
        self.disk_slowness = factor;
    }

    pub fn disk_slowness(&self) -> u64 {
        self.disk_slowness
    }

    /// At the next start, some of what is read is old.
    pub fn arm_stale_read(&mut self, fault: DiskFault, number: usize) {
        self.stale_read = Some((fault, number));
    }

    pub fn disarm_stale_read(&mut self, number: usize) {
        self.stale_read.take_if(|(_, armed)| *armed == number);
    }

    pub fn take_stale_read(&mut self) -> Option<(DiskFault, usize)> {
        self.stale_read.take()
    }

    // ---- crashes to come ----

    /// The node crashes after so many effects of one flush.
    pub fn arm_crash_at_effect(&mut self, count: u32, fault: u32) {
        self.at_effect = Some(Fuse { steps: count, fault });
    }

    /// Of so many effects of a flush, how many are carried out, and the fault that cuts off the rest.
    pub fn cut_off(&self, effects: usize) -> Option<(usize, u32)> {
        let Fuse { steps, fault } = self.at_effect?;
        (effects > steps as usize).then_some((steps as usize, fault))
    }

    /// The node crashes instead of the n-th operation of its disk from now on.
    pub fn arm_crash_at_disk_op(&mut self, count: u32, fault: u32) {
        self.at_disk_op = Some(Fuse { steps: count, fault });
    }

    /// An operation of the disk is due. Returns the fault by which the node crashes before it.
    pub fn crash_before_disk_op(&mut self) -> Option<u32> {
        Fuse::step(&mut self.at_disk_op)
    }

    /// The node loses its power, and names with it, at the n-th moment at which there are some to lose.
    pub fn arm_name_loss(&mut self, count: u32, fault: u32) {
        self.name_loss = Some(Fuse { steps: count, fault });
    }

    pub fn awaits_name_loss(&self) -> bool {
        self.name_loss.is_some()
    }

    /// There are names to lose. Returns the fault by which they are lost now.
    pub fn lose_names(&mut self) -> Option<u32> {
        Fuse::step(&mut self.name_loss)
    }

    pub fn enter_crash_loop(&mut self, again: Again, fault: u32) {
        self.crash_loop = Some((again, fault));
    }

    pub fn crash_loop(&self) -> Option<(Again, u32)> {
        self.crash_loop
    }

    pub fn leave_crash_loop(&mut self, fault: u32) {
        self.crash_loop.take_if(|(_, number)| *number == fault);
    }

    /// The faults by which the node crashes at some moment to come.
    pub fn fuses(&self) -> impl Iterator<Item = u32> + use<> {
        let fuses = [self.at_effect, self.at_disk_op, self.name_loss];
        fuses.into_iter().flatten().map(|fuse| fuse.fault)
    }

    /// All faults that wait for their moment.
    pub fn armed(&self) -> impl Iterator<Item = u32> + use<> {
        self.fuses().chain(self.stale_read.map(|(_, fault)| fault as u32))
    }

    /// This fault does not wait for its moment any more.
    pub fn disarm(&mut self, fault: u32) {
        for fuse in [&mut self.at_effect, &mut self.at_disk_op, &mut self.name_loss] {
            fuse.take_if(|fuse| fuse.fault == fault);
        }
    }

    // ---- timers ----

    /// Timers fire up to `most_ns` late, by these draws.
    pub fn delay_timers(&mut self, most_ns: u64, draws: Stream) {
        self.jitter = Some((most_ns, draws));
    }

    pub fn end_timer_delay(&mut self) {
        self.jitter = None;
    }

    pub fn has_late_timers(&self) -> bool {
        self.jitter.is_some()
    }

    /// How late the next timer fires, in ns.
    pub fn draw_lateness_ns(&mut self) -> u64 {
        match &mut self.jitter {
            Some((most_ns, draws)) => draws.below(*most_ns + 1),
            None => 0,
        }
    }

    /// From now on, chance decides as in the fork with this salt.
    pub fn fork(&mut self, salt: u64) {
        if let Some((_, draws)) = &mut self.jitter {
            draws.fork(salt);
        }
    }

    // ---- for good ----

    /// The node was removed from the cluster: it is never started again.
    pub fn retire(&mut self) {
        self.retired = true;
    }

    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Its disk is gone for ever.
    pub fn wipe(&mut self) {
        self.wiped = true;
    }

    pub fn is_wiped(&self) -> bool {
        self.wiped
    }

    /// It is outside of the core, and never recovers.
    pub fn lose(&mut self, loss: Loss) {
        self.lost = Some(loss);
        self.deferred.clear();
    }

    pub fn lost(&self) -> Option<Loss> {
        self.lost
    }

    /// It never starts again.
    pub fn is_gone(&self) -> bool {
        self.retired || self.wiped || self.lost.is_some()
    }

    /// A removed or wiped node may start again after all.
    pub fn revive(&mut self) {
        (self.retired, self.wiped) = (false, false);
    }

    // ---- ends ----

    /// The node has gone down: what concerned its process is over.
    pub fn process_ended(&mut self) {
        (self.at_effect, self.at_disk_op, self.name_loss) = (None, None, None);
        self.held.clear();
        self.deferred.clear();
        self.paused = false;
    }

    /// All faults end that are not held by events: those are given back by [`resume`](Self::resume) and
    /// [`release_disk`](Self::release_disk).
    pub fn heal(&mut self) {
        (self.at_effect, self.at_disk_op, self.name_loss) = (None, None, None);
        (self.stale_read, self.crash_loop, self.jitter) = (None, None, None);
        self.disk_slowness = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_end_by_their_own_number_only() {
        let mut faults = NodeFaults::none();
        faults.arm_crash_at_disk_op(2, 7);
        faults.arm_name_loss(1, 8);
        faults.arm_stale_read(DiskFault::Sync, 9);
        assert_eq!(faults.armed().collect::<Vec<_>>(), [7, 8, 9]);
        faults.disarm(7);
        faults.disarm_stale_read(8);
        assert_eq!(faults.armed().collect::<Vec<_>>(), [8, 9]);
        assert_eq!((faults.crash_before_disk_op(), faults.lose_names()), (None, Some(8)));
    }

    #[test]
    fn fuse_burns_down_to_its_last_step() {
        let mut faults = NodeFaults::none();
        faults.arm_crash_at_disk_op(2, 7);
        assert_eq!((faults.crash_before_disk_op(), faults.crash_before_disk_op()), (None, Some(7)));
        faults.arm_crash_at_effect(3, 5);
        assert_eq!((faults.cut_off(3), faults.cut_off(4)), (None, Some((3, 5))));
    }
}
