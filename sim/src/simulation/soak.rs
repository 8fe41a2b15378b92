//! A run of days: one cluster, never started anew, and one window of its incarnation after the other.
//!
//! A window is a plan. It ends as every run does: all is healed, the cluster comes to rest, all
//! members agree, and what the clients were told is judged. Then the simulation forgets what cannot
//! matter any more, and the next window begins on the same nodes, disks, sessions and links. So the
//! memory of a run does not depend on its length. What is kept between windows:
//!
//! - all that the nodes, disks and links hold, and whatever is on its way;
//! - the contents, as one operation at the beginning of the next history: a read in the next
//!   window that shows anything else is a violation there;
//! - the operations that have had no effect yet but may have one later, as operations of the next
//!   history;
//! - what the checkers of each event need: see `checker/forget.rs`.
//!
//! What is given up: a history is judged per window, so the black-box search never looks at two
//! windows at once. The boundary is a moment at which nothing is under way, where no order of
//! operations is lost. Counts of faults on the disks of members that have left are dropped with
//! these disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use stormkv::types::{LogIndex, NodeId, SessionId};

use super::Simulation;
use crate::checker::{Broken, Check, Peaks, witness};
use crate::disk::SimDisk;
use crate::history::{Action, Answer, History, Model, Outcome as End};
use crate::outcome::{Class, Outcome, Recovery};
use crate::plan::Plan;
use crate::service::Service;

/// What a simulation without a plan goes by, between two windows.
static NOTHING: LazyLock<Plan> = LazyLock::new(|| Plan::new("between-windows", 0));

/// The peaks of each quarter of the run.
pub type Quarters = [BTreeMap<&'static str, u64>; 4];

/// How far a soak is.
#[derive(Clone, Copy, Debug)]
pub struct SoakProgress {
    /// Windows that are over, and how many there will be.
    pub windows: (u64, u64),
    /// Simulated nanoseconds.
    pub sim_ns: u64,
    /// Events processed.
    pub events: u64,
    /// Facts that the checkers remember after they have forgotten the rest.
    pub remembered: usize,
}

/// What came of a soak.
#[derive(Clone, Debug)]
pub struct Soaked {
    /// As of any run.
    pub outcome: Outcome,
    /// The peaks by quarter of the windows.
    pub quarters: Quarters,
    /// Windows that were completed.
    pub windows: u64,
    /// The most facts that the checkers remembered between two windows, in each quarter.
    pub remembered: [usize; 4],
}

/// Runs so many windows (at least 4, so that each quarter has one). `window` makes the plan of each;
/// they share cluster, network, disks and number of clients, and each names its nodes anew.
///
/// # Panics
/// If there are fewer than 4 windows.
pub fn soak<S: Service>(
    windows: u64,
    window: &dyn Fn(u64) -> Plan,
    progress: &mut dyn FnMut(&SoakProgress),
) -> Soaked {
    assert!(windows >= 4, "a soak has quarters");
    let first = window(0);
    let mut idle = Simulation::<S>::new(&first).under(&NOTHING);
    let (mut peaks, mut all) = ([Peaks::default(); 4], Peaks::default());
    let (mut remembered, mut done) = ([0; 4], 0);
    for number in 0..windows {
        let quarter = (number * 4 / windows) as usize;
        let plan = window(number);
        let mut simulation = idle.under(&plan);
        if number > 0 {
            simulation.clients.deal(&plan);
            simulation.enter();
        }
        simulation.drive(u64::MAX);
        let window_peaks = simulation.bounds.take_peaks();
        peaks[quarter].merge(&window_peaks);
        all.merge(&window_peaks);
        let failed = simulation.violation.is_some();
        if !failed {
            done += 1;
            simulation.forget();
        }
        idle = simulation.under(&NOTHING);
        if failed {
            break;
        }
        let facts = idle.safety.remembered();
        remembered[quarter] = facts.max(remembered[quarter]);
        progress(&SoakProgress {
            windows: (done, windows),
            sim_ns: idle.kernel.now_ns(),
            events: idle.kernel.step(),
            remembered: facts,
        });
    }
    let quarters = peaks.map(|peaks| peaks.named());
    if idle.violation.is_none()
        && let Some(message) = growth(&quarters[0], &quarters[3])
    {
        idle.fail(Class::Safety, Broken::new(Check::Bounds, message));
    }
    let outcome = Outcome { peaks: all.named(), ..idle.outcome() };
    Soaked { outcome, quarters, windows: done, remembered }
}

/// Says what grew from the first quarter to the last, if something did. Peaks of random load differ
/// by some, and small ones by a multiple; what leaks in each window outgrows both soon.
fn growth(
    first: &BTreeMap<&'static str, u64>,
    last: &BTreeMap<&'static str, u64>,
) -> Option<String> {
    first.iter().find_map(|(name, &before)| {
        let slack = if name.ends_with("bytes") { 1 << 20 } else { 128 };
        let now = last.get(name).copied().unwrap_or_default();
        (now > before + before / 2 + slack).then(|| {
            format!(
                "the peak of {name} grew from {before} in the first quarter to {now} in the last"
            )
        })
    })
}

impl<S: Service> Simulation<'_, S> {
    /// The same simulation under another plan.
    fn under(self, plan: &Plan) -> Simulation<'_, S> {
        let Simulation {
            plan: _,
            mut kernel,
            founding,
            network,
            cluster,
            clients,
            safety,
            bounds,
            snapshot_rate,
            observers,
            effects,
            violation,
            healed_ns,
            rested,
            victims,
            last_leader_hit,
            core,
            recovery,
            open_at_heal,
            handed_over,
            atlas,
            availability,
            catch_up,
            displaced,
        } = self;
        kernel.begin_epoch(plan.seed);
        Simulation {
            plan,
            kernel,
            founding,
            network,
            cluster,
            clients,
            safety,
            bounds,
            snapshot_rate,
            observers,
            effects,
            violation,
            healed_ns,
            rested,
            victims,
            last_leader_hit,
            core,
            recovery,
            open_at_heal,
            handed_over,
            atlas,
            availability,
            catch_up,
            displaced,
        }
    }

    /// At rest: forgets what cannot matter any more, and makes ready for another window.
    fn forget(&mut self) {
        (self.healed_ns, self.rested, self.last_leader_hit) = (None, false, None);
        (self.core, self.recovery, self.open_at_heal) = (None, Recovery::default(), 0);
        self.victims.clear();
        // Their rows are those of the plan that is over.
        drop(self.observers.coverage.take_skipped());
        let mut present: Vec<(NodeId, u64)> = Vec::new();
        for slot in self.cluster.iter_mut() {
            if slot.faults.is_retired() {
                slot.disk = SimDisk::new(0, slot.id.0);
            } else {
                let first = slot.driver.as_ref().map(|driver| driver.node().status().first);
                present.push((slot.id, first.unwrap_or(u64::MAX)));
            }
        }
        self.begin_history();
        self.safety.forget(&present);
    }

    /// Lets the history begin with the contents, as one operation that took effect at `index`.
    pub(super) fn write_before(&mut self, index: LogIndex) {
        // The search begins with an empty state.
        self.clients.requests = None;
        let state = S::state_as_action(self.safety.model());
        let history = &mut self.clients.history;
        // The operator's operations are not recorded, so this process is free.
        let answer = match &state {
            Action::Other { .. } => Answer::Unsaid,
            _ => Answer::Txn { succeeded: true, results: None },
        };
        let op = history.invoke(0, state, self.kernel.now_ns());
        history.complete(op, End::Ok(answer), self.kernel.now_ns());
        self.clients.before = Some(witness::Applied { index, op });
    }

    /// Begins a new history with what is left of the old one.
    fn begin_history(&mut self) {
        let loose = self.own_loose().expect("the history was judged");
        let names = self.clients.history.names().clone();
        let new = History::new(Model::Kv).called(names);
        let old = std::mem::replace(&mut self.clients.history, new);
        self.write_before(self.safety.commit());
        let history = &mut self.clients.history;
        let mut open: Vec<((SessionId, u64), usize)> = self.clients.owner.drain().collect();
        open.retain(|((session, number), _)| self.safety.may_take_effect(*session, *number));
        open.sort_unstable();
        for (command, op) in open {
            let op = &old.ops()[op];
            let kept = history.invoke(op.process, op.action.clone(), self.kernel.now_ns());
            history.complete(kept, op.outcome.clone(), self.kernel.now_ns());
            self.clients.owner.insert(command, kept);
        }
        let done: BTreeSet<usize> = loose.iter().map(|applied| applied.op).collect();
        for loose in &mut self.clients.loose {
            let op = &old.ops()[loose.recorded];
            if op.outcome != End::Info || done.contains(&loose.recorded) {
                loose.index = Some(0);
                continue;
            }
            loose.recorded = history.invoke(op.process, op.action.clone(), self.kernel.now_ns());
            history.complete(loose.recorded, End::Info, self.kernel.now_ns());
        }
        self.clients.loose.retain(|loose| loose.index.is_none());
        let safety = &self.safety;
        self.clients
            .refused
            .retain(|(session, number), _| safety.may_take_effect(*session, *number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::history;
    use crate::kv::KeyValue;
    use crate::swarm;

    #[test]
    fn some_hours_in_bounded_memory_give_the_same_run_twice() {
        let run = || {
            soak::<KeyValue>(12, &|number| swarm::soak_window::<KeyValue>(3, number), &mut |_| ())
        };
        let (one, two) = (run(), run());
        assert_eq!(one.outcome.violation, None);
        assert_eq!(one.windows, 12);
        assert!(one.outcome.sim_ns > 7_000_000_000_000, "{} ns", one.outcome.sim_ns);
        assert!(one.outcome.checks["linearizability"] > 5_000, "{:?}", one.outcome.checks);
        assert_eq!(one.outcome.trace_hash, two.outcome.trace_hash);
        let [first, .., last] = one.remembered;
        assert!(last < 2 * first + 1_000, "the checkers forget: {:?}", one.remembered);
    }

    #[test]
    fn a_read_of_the_next_window_must_show_what_the_last_one_left() {
        let plan = swarm::soak_window::<KeyValue>(3, 0);
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        simulation.drive(u64::MAX);
        assert_eq!(simulation.violation, None);
        simulation.forget();
        let (key, value) =
            simulation.safety.model().contents().next().expect("something was written");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (key, value) = (text(key), history::Value::text(&text(value)));
        let lie = history::Value::text("never written");
        for (told, breaks) in [(value, false), (lie, true)] {
            let action = Action::Get { key: Arc::from(key.as_str()) };
            let get = simulation.clients.history.invoke(1, action, simulation.kernel.now_ns());
            simulation.clients.history.complete(
                get,
                End::Ok(Answer::Value(Some(told))),
                simulation.kernel.now_ns(),
            );
            simulation.judge_history();
            let found = simulation.violation.take().map(|violation| violation.checker);
            assert_eq!(found, breaks.then_some("linearizability"));
        }
    }

    #[test]
    fn a_peak_that_grows_is_a_violation() {
        let peaks = |entries, bytes| BTreeMap::from([("entries", entries), ("bytes", bytes)]);
        assert_eq!(growth(&peaks(400, 0), &peaks(700, 1 << 20)), None);
        let message = growth(&peaks(400, 0), &peaks(729, 0)).expect("it grew");
        assert!(message.contains("entries grew from 400"), "{message}");
        assert!(growth(&peaks(400, 0), &peaks(400, 2 << 20)).is_some());
    }
}
