//! The open entries of a leader's log: those that it has not applied yet, whoever proposed them.
//!
//! Two questions are answered from here. *Is this command in the log already?* Then a retry of it
//! waits for that entry instead of adding a copy. *How long would a new entry wait?* Then a request
//! that cannot make its deadline is refused at once, which certainly has no effect, instead of being
//! queued to die.
//!
//! Only a leader asks, and a leader never replaces entries of its log or installs a snapshot. So the
//! backlog is read from the log once, when a leader takes up its first request in a term (which
//! covers entries of earlier terms, and those from before a restart), and from then on follows what
//! it proposes and applies. A backlog of an earlier term is stale and is never read.
//!
//! The bound is that of the log: one small record per open entry.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::replica::Proposal;
use crate::types::{LogIndex, SessionId, Term};

/// Work of an entry beside its data, in bytes: records, messages and replies of small commands.
const ENTRY_WORK: u64 = 128;
/// For so many spans of time after an entry has waited for one, the log counts as under pressure.
const PRESSED_SPANS: u64 = 2;

/// What an entry with these data costs, in bytes.
pub(super) fn work(data: &Bytes) -> u64 {
    data.len() as u64 + ENTRY_WORK
}

/// An entry that is not applied.
#[derive(Debug)]
struct OpenEntry {
    index: LogIndex,
    /// When the leader added or found it, in ticks.
    since: u64,
    /// What it costs, in bytes.
    work: u64,
    command: Option<(SessionId, u64)>,
}

/// Work that was done within a number of ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    work: u64,
    ticks: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The term in which this node leads the log that this was read from; 0 for none.
    term: Term,
    /// In the order of the log.
    entries: VecDeque<OpenEntry>,
    /// Where the commands of sessions stand. Several copies of one may be open: leaders of earlier
    /// terms could not see each other's.
    commands: BTreeSet<(SessionId, u64, LogIndex)>,
    /// The sum of the entries' work.
    work: u64,
    /// What was applied lately, while something was open: in the present span of time, and in the
    /// one before.
    present: Served,
    before: Served,
    /// The log is under pressure before this tick.
    pressed_until: u64,
}

impl Backlog {
    /// The term of the leader whose open entries these are; 0 for none.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Begins anew as the leader of `term`, whose log holds these `entries` behind the last applied
    /// one.
    pub fn begin<'a>(
        &mut self,
        term: Term,
        now: u64,
        entries: impl Iterator<Item = (LogIndex, &'a Bytes)>,
    ) {
        *self = Backlog { term, ..Backlog::default() };
        for (index, data) in entries {
            self.push(now, index, data);
        }
    }

    /// The leader has added an entry.
    pub fn push(&mut self, now: u64, index: LogIndex, data: &Bytes) {
        let newest = self.entries.back().map_or(0, |entry| entry.index);
        assert!(newest < index, "entry {index} is not behind {newest}: a leader only appends");
        let command = match Proposal::decode(data) {
            Some(Proposal::Command(session, _)) => session,
            _ => None,
        };
        if let Some((session, number)) = command {
            self.commands.insert((session, number, index));
        }
        let work = work(data);
        self.work += work;
        self.entries.push_back(OpenEntry { index, since: now, work, command });
    }

    /// All up to `index` is applied.
    pub fn applied(&mut self, index: LogIndex) {
        while self.entries.front().is_some_and(|first| first.index <= index) {
            let first = self.entries.pop_front().expect("just seen");
            if let Some((session, number)) = first.command {
                self.commands.remove(&(session, number, first.index));
            }
            self.work -= first.work;
            self.present.work += first.work;
        }
        assert!(!self.entries.is_empty() || (self.work == 0 && self.commands.is_empty()));
    }

    /// The first open entry that holds this command.
    pub fn copy_of(&self, session: SessionId, number: u64) -> Option<LogIndex> {
        let copies = (session, number, 0)..=(session, number, LogIndex::MAX);
        self.commands.range(copies).next().map(|(.., index)| *index)
    }

    /// A tick has passed; a span of time is `span` ticks long.
    pub fn tick(&mut self, now: u64, span: u64) {
        let Some(oldest) = self.entries.front() else {
            // An idle log says nothing of how fast it could be: only what was done until now counts.
            if self.present.work > 0 {
                self.present.ticks += 1;
                self.before = std::mem::take(&mut self.present);
            }
            return;
        };
        if now - oldest.since >= span {
            self.pressed_until = now + PRESSED_SPANS * span;
        }
        self.present.ticks += 1;
        // While nothing is done the span goes on, or the next one would know nothing at all. Large
        // batches are done in one go, rarely.
        if self.present.ticks >= span && self.present.work > 0 {
            self.before = std::mem::take(&mut self.present);
        }
    }

    /// How many ticks a new entry would probably wait until it is applied, behind what is open and
    /// so much `more` work; 0 as long as the log is not under pressure.
    ///
    /// While entries pass quickly, how much is done says how much is asked for, and nothing of how
    /// much could be done. But once the oldest has waited for a span, there was always something to
    /// do in that time, and what was done is all that could be done: what is open takes so much
    /// longer. That is still so for a while after the pressure has gone: all who were refused may
    /// come back in the same moment. Not for longer, because what is done quickly is not seen. A
    /// stall is forgiven as soon as it is over: all that waited is done together then, and counts.
    pub fn wait(&self, now: u64, more: u64) -> u64 {
        if now >= self.pressed_until {
            return 0;
        }
        let done = self.before.work + self.present.work;
        let ticks = self.before.ticks + self.present.ticks;
        match done {
            // Nothing was ever done: what has lasted so long may last as long again.
            0 => self.entries.front().map_or(0, |entry| now - entry.since),
            _ => {
                let work = u128::from(self.work + more);
                u64::try_from(work * u128::from(ticks) / u128::from(done)).unwrap_or(u64::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SPAN: u64 = 10;

    fn command(session: u64, number: u64) -> Bytes {
        Proposal::Command(Some((SessionId(session), number)), b"command").encode(Duration::ZERO)
    }

    /// A backlog in the order of a log, and the clock.
    struct Leader {
        backlog: Backlog,
        now: u64,
        last: LogIndex,
        applied: LogIndex,
    }

    impl Leader {
        fn new() -> Leader {
            let mut backlog = Backlog::default();
            backlog.begin(1, 0, [].into_iter());
            Leader { backlog, now: 0, last: 0, applied: 0 }
        }

        /// Ticks in each of which this many entries arrive and this many are applied.
        fn pass(&mut self, ticks: u64, arrive: u64, apply: u64) {
            for _ in 0..ticks {
                for _ in 0..arrive {
                    self.last += 1;
                    self.backlog.push(self.now, self.last, &command(1, self.last));
                }
                self.applied = self.last.min(self.applied + apply);
                self.backlog.applied(self.applied);
                self.now += 1;
                self.backlog.tick(self.now, SPAN);
            }
        }

        fn wait(&self) -> u64 {
            self.backlog.wait(self.now, 0)
        }
    }

    #[test]
    fn copies_are_found_as_long_as_they_are_open() {
        let mut backlog = Backlog::default();
        let (one, two) = (command(7, 1), command(7, 2));
        backlog.begin(3, 0, [(5, &one), (6, &two), (8, &one)].into_iter());
        let find = |backlog: &Backlog, number| backlog.copy_of(SessionId(7), number);
        assert_eq!(
            (find(&backlog, 1), find(&backlog, 2), find(&backlog, 3)),
            (Some(5), Some(6), None)
        );
        assert_eq!(backlog.copy_of(SessionId(6), 1), None);
        backlog.applied(6);
        assert_eq!((find(&backlog, 1), find(&backlog, 2)), (Some(8), None));
        backlog.push(0, 9, &two);
        assert_eq!(find(&backlog, 2), Some(9));
        backlog.applied(9);
        assert_eq!((find(&backlog, 1), find(&backlog, 2)), (None, None));
        backlog.begin(4, 0, [].into_iter());
        assert_eq!(backlog.term(), 4);
    }

    #[test]
    fn quick_entries_are_never_late() {
        let mut leader = Leader::new();
        leader.pass(100, 1, 1);
        // A burst on top of little load: the rate so far says nothing of what is possible.
        leader.pass(1, 1000, 0);
        leader.pass(SPAN - 2, 1, 0);
        assert_eq!(leader.wait(), 0);
        leader.pass(1, 0, 2000);
        assert_eq!(leader.wait(), 0);
    }

    #[test]
    fn under_overload_the_wait_is_what_is_open_at_the_rate_of_late() {
        let mut leader = Leader::new();
        leader.pass(100, 10, 2);
        let expected = (leader.last - leader.applied) / 2;
        let wait = leader.wait();
        assert!((expected * 9 / 10..=expected * 11 / 10).contains(&wait), "{wait} for {expected}");
        // It works off what is open, and takes everything again.
        leader.pass(expected - 5, 0, 2);
        assert!(leader.wait() <= SPAN, "{}", leader.wait());
        leader.pass(10, 0, 2);
        assert_eq!(leader.wait(), 0);
    }

    #[test]
    fn a_stall_is_forgiven_as_soon_as_it_is_over() {
        let mut leader = Leader::new();
        leader.pass(3, 2, 0);
        leader.pass(100, 2, 2);
        leader.pass(50, 2, 0);
        assert!(leader.wait() > 50, "{}", leader.wait());
        leader.pass(1, 2, 1000);
        leader.pass(3, 2, 0);
        assert!(leader.wait() <= 5, "{}", leader.wait());
        leader.pass(20, 2, 2);
        assert!(leader.wait() <= 5, "{}", leader.wait());
    }

    #[test]
    fn those_who_come_back_together_are_not_all_taken() {
        let mut leader = Leader::new();
        leader.pass(100, 10, 2);
        let open = leader.last - leader.applied;
        leader.pass(open / 2, 0, 2);
        assert_eq!(leader.wait(), 0, "all is worked off");
        leader.pass(1, 100, 0);
        assert!((45..=55).contains(&leader.wait()), "{}", leader.wait());
        let batch = 100 * work(&command(1, leader.last));
        let wait = leader.backlog.wait(leader.now, batch);
        assert!((90..=110).contains(&wait), "{wait}");
        // After a while of quick service, nothing is known of what is possible.
        leader.pass(1, 0, 100);
        leader.pass(PRESSED_SPANS * SPAN, 0, 0);
        leader.pass(1, 100, 0);
        assert_eq!(leader.wait(), 0);
    }

    #[test]
    fn a_new_leader_knows_nothing_and_takes_what_comes() {
        let mut leader = Leader::new();
        leader.pass(100, 10, 2);
        let open: Vec<_> =
            (leader.applied + 1..=leader.last).map(|at| (at, command(1, at))).collect();
        leader.backlog.begin(2, leader.now, open.iter().map(|(at, data)| (*at, data)));
        assert_eq!(leader.wait(), 0);
        // As long as nothing is done, the wait is what it was.
        leader.pass(30, 0, 0);
        assert_eq!(leader.wait(), 30);
    }
}
