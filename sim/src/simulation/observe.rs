//! Observers: whatever looks at a simulation without being part of it.
//!
//! A simulation emits one stream of [`Observation`]s. The trace hash takes in each of them; the text trace,
//! the report about a failure and the recording are there only if a run is made for them, and cost one
//! comparison otherwise. No observer can change the run: a run that is observed is the same run.
//!
//! - `observation.rs` is what there is to see,
//! - `hash.rs` is the trace hash, `text.rs` the line that a person reads,
//! - `coverage.rs` counts faults and waypoints,
//! - `recorder.rs` fills a recording, `failure.rs` collects what a report about a failure needs,
//! - `checkers.rs` shows the checkers of the service what they need,
//! - `fingerprint.rs` is a coarse picture of the cluster, for a search for new behaviour.

mod checkers;
mod coverage;
pub(super) mod failure;
pub(super) mod fingerprint;
mod hash;
mod observation;
pub(super) mod recorder;
pub(super) mod text;

use self::checkers::Checkers;
pub(super) use self::coverage::Coverage;
use self::failure::FailureRecorder;
use self::fingerprint::Portrait;
use self::hash::TraceHash;
pub(super) use self::observation::Observation;
use self::recorder::Recorder;
use super::RunOptions;
use super::client::Clients;
use super::cluster::Cluster;
use crate::checker::{Broken, Safety};
use crate::history::History;
use crate::network::Network;
use crate::plan::Plan;
pub(super) use crate::service::Stamp;
use crate::service::{self, Service};

/// Takes the line of one event.
pub type Sink = Box<dyn FnMut(&str)>;

/// Takes the rolling hash after one event.
pub type Digest = Box<dyn FnMut(u64)>;

/// The number of a message in a recording, from 1; 0 if there is no recording, or no message.
pub(super) type MessageId = u32;

/// All observers of a run.
pub(super) struct Observers<S: Service> {
    now: Stamp,
    hash: TraceHash,
    digest: Option<Digest>,
    text: TextTrace,
    failure: Option<Box<FailureRecorder>>,
    recorder: Option<Box<Recorder>>,
    pub fingerprint: Option<Box<Portrait>>,
    pub coverage: Coverage,
    /// Messages that the recording has numbered.
    numbered: MessageId,
    checkers: Option<Box<Checkers<S>>>,
}

impl<S: Service> Observers<S> {
    /// Those that each run has: the trace hash, coverage, and the checkers of the service.
    pub fn new(clients: &Clients<S>) -> Self {
        Observers {
            now: Stamp::default(),
            hash: TraceHash::default(),
            digest: None,
            text: TextTrace::default(),
            failure: None,
            recorder: None,
            fingerprint: None,
            coverage: Coverage::default(),
            numbered: 0,
            checkers: Checkers::new(clients),
        }
    }

    /// Takes over whatever is to observe the run.
    pub fn attach(&mut self, options: &mut RunOptions, plan: &Plan, clients: &Clients<S>) {
        self.text.sink = options.trace.take();
        self.digest = options.digest.take();
        self.fingerprint = options.pictures.take().map(|sink| Box::new(Portrait::new(sink)));
        if options.record.is_some() {
            self.record_failure();
        }
        if options.recording.is_some() {
            self.record(plan, clients);
        }
    }

    /// Gives back what was lent.
    pub fn detach(&mut self, options: &mut RunOptions) {
        options.trace = self.text.sink.take();
        options.pictures = self.fingerprint.take().map(|fingerprint| fingerprint.sink);
    }

    /// From now on, what a report about a failure needs is collected.
    pub fn record_failure(&mut self) {
        self.failure = Some(Box::default());
    }

    /// From now on, the run is recorded.
    pub fn record(&mut self, plan: &Plan, clients: &Clients<S>) {
        self.recorder = Some(Box::new(Recorder::new(plan, clients)));
    }

    pub fn take_failure(&mut self) -> Option<Box<FailureRecorder>> {
        self.failure.take()
    }

    pub fn take_recorder(&mut self) -> Option<Box<Recorder>> {
        self.recorder.take()
    }

    /// Whether lines are read that are not made otherwise.
    pub fn has_text(&self) -> bool {
        self.text.sink.is_some()
    }

    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Gives a message that is about to be sent its number.
    pub fn number_message(&mut self) -> MessageId {
        self.numbered += MessageId::from(self.recorder.is_some());
        self.numbered
    }

    /// An event begins.
    pub fn begin(&mut self, now: Stamp) {
        self.now = now;
        self.hash.begin(now.at_ns);
        self.text.begun = false;
        if let Some(recorder) = &mut self.recorder {
            recorder.begin(now);
        }
    }

    /// An event is over: looks at all nodes and links.
    pub fn end(&mut self, cluster: &Cluster<S>, network: &Network, safety: &Safety<S>) {
        if let Some(recorder) = &mut self.recorder {
            for node in cluster.iter() {
                recorder.look(node, safety.durable(node.id));
            }
            recorder.look_at_links(network);
        }
        if let Some(digest) = &mut self.digest {
            digest(self.hash.value());
        }
    }

    /// Shows an observation to all observers. Inlined, so that each place keeps only its own arm of the
    /// match in the trace hash.
    #[inline(always)]
    pub fn see(&mut self, observation: &Observation<'_>) {
        self.hash.observe(observation);
        if self.text.sink.is_some()
            || self.failure.is_some()
            || self.recorder.is_some()
            || self.checkers.is_some()
        {
            self.show(observation);
        }
    }

    /// The same, to those who are not always there.
    #[cold]
    fn show(&mut self, observation: &Observation<'_>) {
        if self.text.sink.is_some() || self.failure.is_some() {
            let line = text::line(S::describe, observation);
            if let Some(failure) = &mut self.failure {
                failure.observe(self.now, S::describe, observation, line.as_deref());
            }
            if let Some(line) = line {
                self.text.write(self.now, &line);
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.observe::<S>(observation);
        }
        if let Some(checkers) = &mut self.checkers {
            checkers.observe(self.now, observation, &mut self.coverage);
        }
    }

    /// Whether the service has checkers, who see more than the others.
    pub fn has_checkers(&self) -> bool {
        self.checkers.is_some()
    }

    /// Shows the checkers of the service what nobody else sees.
    pub fn show_checkers(&mut self, seen: &service::Observation<'_, S>) {
        if let Some(checkers) = &mut self.checkers {
            checkers.show(self.now, seen, &mut self.coverage);
        }
    }

    /// Shows the checkers of the service the whole history.
    pub fn finish_checkers(&mut self, history: &History) {
        if let Some(checkers) = &mut self.checkers {
            checkers.finish(self.now, history, &mut self.coverage);
        }
    }

    /// What a checker of the service has found.
    pub fn take_found(&mut self) -> Option<Broken> {
        self.checkers.as_mut()?.take_found()
    }

    /// How often each checker of the service has compared something.
    pub fn checked(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.checkers.iter().flat_map(|checkers| checkers.counts())
    }
}

/// Hands the lines of a trace to a reader.
#[derive(Default)]
struct TextTrace {
    sink: Option<Sink>,
    /// The present event has its first line.
    begun: bool,
}

impl TextTrace {
    /// The first line of an event begins with its number and time.
    fn write(&mut self, now: Stamp, line: &str) {
        let Some(sink) = &mut self.sink else { return };
        if std::mem::replace(&mut self.begun, true) {
            return sink(&format!("{:>20}  ..{line}", ""));
        }
        let (ms, us) = (now.at_ns / 1_000_000, now.at_ns / 1000 % 1000);
        sink(&format!("{:>6} {ms:>6}.{us:03} ms  {line}", now.step));
    }
}
