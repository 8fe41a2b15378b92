//! What could be saved if, at the moment at which the faults stop, only some of the disks were left.
//!
//! An operator who has lost a quorum for good founds a new cluster with the longest log that survives. That log
//! must contain each committed entry that any survivor holds. Which log is the longest is judged for each two
//! disks, which covers all choices of survivors, because it is an order. Nothing of this touches the run: it is
//! done with copies of the disks, of which those of running members lose their power first.

use stormkv::error::Error;
use stormkv::machine::StateMachine;
use stormkv::node::Survivor;
use stormkv::types::{LogIndex, NodeId};

use super::Simulation;
use super::founding::{Unwatched, with_state_of};
use super::life::config;
use super::node::SimNode;
use crate::checker::{Broken, Check};
use crate::disk::Crash;
use crate::outcome::Class;
use crate::port::Port;
use crate::rng::{Purpose, Stream};
use crate::service::Service;

/// One run in so many is judged.
const SAMPLE: u64 = 4;
/// The number of the power loss; no fault of a plan has it.
const POWER_LOSS: u32 = u32::MAX;

impl<S: Service> Simulation<'_, S> {
    /// Judges what a new cluster would begin with.
    pub(super) fn judge_survivors(&mut self) {
        let mut draws = Stream::new(self.plan.seed, Purpose::Survivors, []);
        // Beyond a quorum, members may have lost what they have promised, and then nothing is certain.
        if draws.below(SAMPLE) > 0 || self.atlas.is_exceeded() {
            return;
        }
        let mut survivors = Vec::new();
        let mut judged = Ok(());
        for slot in self.cluster.iter().filter(|slot| !slot.faults.is_wiped()) {
            match self.survivor(slot) {
                Ok(survivor) => survivors.extend(survivor.map(|survivor| (slot.id, survivor))),
                Err(broken) => judged = Err(broken),
            }
        }
        if !survivors.is_empty() {
            judged = judged.and_then(|()| self.judge_choices(&survivors));
            let one = survivors.swap_remove(draws.below(survivors.len() as u64) as usize);
            judged = judged.and_then(|()| self.judge_state(one));
        }
        if let Err(broken) = judged {
            self.fail(Class::Safety, broken);
        }
    }

    /// Reads what the disk of a member holds, if it can be read at all.
    fn survivor(&self, slot: &SimNode<S>) -> Result<Option<Survivor<S::Machine>>, Broken> {
        let mut disk = slot.disk.clone();
        if slot.driver.is_some() {
            disk.crash(Crash::PowerLoss, POWER_LOSS);
        }
        let config = config(self.plan, slot.id, false, slot.incarnation);
        let (disk, mut effects) = (&mut disk, Vec::new());
        let mut port = Port { now_ns: 0, disk, effects: &mut effects, watch: Unwatched };
        match Survivor::read(&S::params(), &config, &mut port) {
            Ok(survivor) => Ok(survivor),
            // A fault that the plan has for the next read.
            Err(Error::Disk(_)) => Ok(None),
            Err(_) if self.atlas.marks().any(|(id, _)| id == slot.id) => Ok(None),
            Err(error) => {
                let message =
                    format!("the disk of {} cannot be read for a recovery: {error}", slot.id);
                Err(Broken::new(Check::Recovery, message).at(slot.id))
            }
        }
    }

    /// Of each two survivors the one whose log is chosen must contain what the other one has of the committed
    /// log.
    fn judge_choices(
        &mut self,
        survivors: &[(NodeId, Survivor<S::Machine>)],
    ) -> Result<(), Broken> {
        self.safety.count(Check::Recovery, survivors.len() as u64 - 1);
        for (at, one) in survivors.iter().enumerate() {
            for other in &survivors[..at] {
                let chosen = Survivor::longest([&one.1, &other.1]);
                let pair = if chosen == Some(0) { (one, other) } else { (other, one) };
                self.judge_choice(pair.0, pair.1)?;
                if one.1.last() != other.1.last() {
                    self.reach("recovered-from-different-logs");
                }
            }
        }
        Ok(())
    }

    fn judge_choice(
        &self,
        (winner, longest): &(NodeId, Survivor<S::Machine>),
        (id, survivor): &(NodeId, Survivor<S::Machine>),
    ) -> Result<(), Broken> {
        let held = self.committed_part(survivor);
        let term = self.safety.committed_term(held);
        if held <= longest.snapshot().index || term.is_none() || longest.term_at(held) == term {
            return Ok(());
        }
        let last = longest.last();
        let message = format!(
            "{id} holds the committed entries up to {held}, but a recovery goes on with the log of {winner}, \
             which ends at {}@{} and does not contain them",
            last.index, last.term
        );
        Err(Broken::new(Check::Recovery, message).at(*winner))
    }

    /// The state with which a new cluster goes on is what the reference makes of the same log.
    fn judge_state(
        &mut self,
        (id, survivor): (NodeId, Survivor<S::Machine>),
    ) -> Result<(), Broken> {
        let last = survivor.last().index;
        let is_committed = self.committed_part(&survivor) == last;
        let query = S::whole_state();
        let backup = survivor.into_backup().flatten().collect();
        let answer = with_state_of::<S, _>(backup, |machine| Some(machine.query(query.as_ref()?)));
        // What may never be committed, the reference does not know.
        if !is_committed {
            self.reach("recovered-uncommitted-entries");
            return Ok(());
        }
        let (Some(query), Some(answer)) = (query, answer) else { return Ok(()) };
        self.safety.queried(id, &query, (last, last), &answer).map_err(|broken| Broken {
            check: Check::Recovery.name(),
            message: format!(
                "a recovery with the log of {id} has another state: {}",
                broken.message
            ),
            ..broken
        })
    }

    /// The last committed entry that the survivor holds. All before it are committed, too.
    fn committed_part(&self, survivor: &Survivor<S::Machine>) -> LogIndex {
        let base = survivor.snapshot().index;
        let is_committed = |index: &LogIndex| {
            let term = survivor.term_at(*index);
            term.is_some() && term == self.safety.committed_term(*index)
        };
        (base..=survivor.last().index).rev().find(is_committed).unwrap_or(base)
    }
}
