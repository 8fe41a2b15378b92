//! What clients are answered, judged as a whole: each field of an answer is compared with what the
//! reference makes of the committed log at the index that the answer names, and the index with the
//! log itself.
//!
//! An answer to a query is judged when the node gives it, any other one when it reaches its client.

use stormkv::api::{Consistency, Request};
use stormkv::types::{LogIndex, NodeId, SessionId};

use super::Simulation;
use super::client::{self, Asked};
use super::observe::{MessageId, Observation};
use crate::checker::{Broken, Check};
use crate::history::{Answer, Outcome};
use crate::outcome::Class;
use crate::plan::{Call, Fault, FaultRow, Manner, ProcessFault};
use crate::service::{Client, Pending, Service};

/// How many of the writes are named that a read has missed.
const MISSED: usize = 3;

impl<S: Service> Simulation<'_, S> {
    /// A node answers a query. Only the operation that is under way is judged: nobody waits for an
    /// answer to an older one.
    pub(super) fn judge_read(
        &mut self,
        (number, token): (u32, u64),
        node: NodeId,
        index: LogIndex,
        response: &[u8],
    ) -> Result<(), Broken> {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let Some(current) = &client.current else { return Ok(()) };
        if token < current.first_token {
            return Ok(());
        }
        let (call, recorded) = (&plan.ops[current.row].call, current.recorded);
        let asked = client::request(call, current);
        let Asked::Whole(Request::Query { query, consistency }) = asked else {
            let message = format!("{node} answered `{call}` as if it were a query");
            return Err(Broken::new(Check::Answer, message).shown_by(recorded));
        };
        // An earlier attempt was sent when as much was committed as at the first one, at least.
        let newest = client.token == token;
        let floor = if newest { current.floor } else { current.first_floor };
        if consistency == Consistency::Stale {
            self.reach("stale-read");
            if index < floor {
                self.reach("stale-read-behind");
            }
        } else if let Err(broken) = self.safety.read(node, index, floor) {
            return Err(self.stale(node, broken, recorded, (index, floor)));
        }
        let (incarnation, applied) = self
            .cluster
            .get_mut(node)
            .map_or((0, 0), |slot| (slot.incarnation, slot.surely_applied()));
        self.shows(number, (node, incarnation), index)?;
        self.safety
            .queried(node, &query, (index, applied), response)
            .map_err(|broken| self.about(recorded, broken).shown_by(recorded))
    }

    /// A node shows a client its state as of `index`: never an older one than it has shown that
    /// client before, as long as it lives.
    fn shows(
        &mut self,
        lane: u32,
        (node, incarnation): (NodeId, u64),
        index: LogIndex,
    ) -> Result<(), Broken> {
        let number = self.clients.all[lane as usize].number;
        let newest = self.clients.shown.entry((number, node)).or_default();
        if *newest > (incarnation, index) {
            let message = format!(
                "{node} showed c{number} its state as of entry {index}, after it had shown it that \
                 as of entry {}",
                newest.1
            );
            return Err(Broken::new(Check::ReadsGoBack, message).at(node));
        }
        self.safety.count(Check::ReadsGoBack, u64::from(newest.0 == incarnation));
        *newest = (incarnation, index);
        Ok(())
    }

    /// The same, with the name of the operation that was answered wrongly.
    fn about(&self, op: Option<usize>, broken: Broken) -> Broken {
        match op.map(|op| self.clients.history.name(op)) {
            Some(name) => {
                let message = format!("{name} was answered wrongly: {}", broken.message);
                Broken { message, ..broken }
            }
            None => broken,
        }
    }

    /// A read was answered from a state that is too old.
    fn stale(
        &mut self,
        node: NodeId,
        broken: Broken,
        op: Option<usize>,
        (index, floor): (u64, u64),
    ) -> Broken {
        let name = op.map_or_else(String::new, |op| self.clients.history.name(op) + ": ");
        self.observers.see(&Observation::StaleAnswer { node, index, recorded: op });
        // What the answer does not show.
        let effects = self.safety.effects().iter();
        let missed = effects.rev().skip_while(|(at, ..)| *at > floor);
        let missed = missed.take_while(|(at, ..)| *at > index).take(MISSED);
        let owner = &self.clients.owner;
        let writes = missed.filter_map(|(_, session, number)| owner.get(&(*session, *number)));
        let mut proof: Vec<usize> = writes.copied().chain(op).collect();
        proof.sort_unstable();
        let message = name + &broken.message;
        Broken { message, ..broken }.shown_by(proof)
    }

    /// A client hears what became of its operation.
    pub(super) fn answered(
        &mut self,
        (number, mail): (u32, MessageId),
        index: LogIndex,
        response: &[u8],
        read: bool,
    ) {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let (call, recorded) = (&plan.ops[current.row].call, current.recorded);
        // What a query is answered was judged when it was.
        if current.is_command()
            && let Err(broken) = self.judge_write(number, index, response, read)
        {
            let broken = self.about(recorded, broken);
            self.observers.see(&Observation::Accused(mail));
            return self.fail(Class::Safety, broken.shown_by(recorded));
        }
        if call.manner == Manner::Reused {
            // As good as refused: the answer is another command's.
            return self.finish(number, Outcome::Fail);
        }
        if let Some(requests) = &mut self.clients.requests {
            requests.answered(number, response);
        }
        self.learn(number, response);
        if self.go_on(number, index, response) {
            return;
        }
        let current = self.clients.all[number as usize].current.as_ref().expect("it goes on");
        let outcome = match &current.pending {
            Some(pending) => pending.outcome(response),
            None => Err("the operator has asked for no answer of the service".to_owned()),
        };
        match outcome {
            Ok(outcome) => self.finish(number, outcome),
            Err(reason) => {
                let who = self.clients.all[number as usize].name().to_owned();
                let message =
                    format!("the answer to {} of {who} is none to that: {reason}", call.op);
                self.observers.see(&Observation::Accused(mail));
                self.fail(Class::Safety, Broken::new(Check::Response, message).shown_by(recorded));
            }
        }
    }

    /// A command took effect, but what it found was too long to be kept.
    pub(super) fn acknowledged_only(
        &mut self,
        (number, mail): (u32, MessageId),
        index: LogIndex,
        bytes: u64,
    ) {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let recorded = current.recorded;
        let call = &plan.ops[current.row].call;
        let is_reused = call.manner == Manner::Reused;
        let judged = if is_reused {
            self.judge_reused(call, index)
        } else if current.uses_session(call.manner) {
            let session = client.session.expect("its command has a number in it");
            self.safety.not_kept(session, client.command + 1, index, bytes)
        } else {
            let loose = self.clients.applied_loose(recorded, index);
            self.safety.not_kept_loose(&loose.command, index, bytes)
        };
        if let Err(broken) = judged {
            let broken = self.about(recorded, broken);
            self.observers.see(&Observation::Accused(mail));
            return self.fail(Class::Safety, broken.shown_by(recorded));
        }
        self.reach("answer-not-kept");
        let outcome = if is_reused { Outcome::Fail } else { Outcome::Ok(Answer::Unsaid) };
        self.finish(number, outcome);
    }

    /// A client hears that its command was applied.
    fn judge_write(
        &mut self,
        number: u32,
        index: LogIndex,
        response: &[u8],
        read: bool,
    ) -> Result<(), Broken> {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let call = &plan.ops[current.row].call;
        if read {
            let message = format!("`{call}` was answered as if it were a query");
            return Err(Broken::new(Check::Answer, message));
        }
        if call.manner == Manner::Reused {
            return self.judge_reused(call, index);
        }
        if !current.uses_session(call.manner) {
            let recorded = current.recorded;
            self.reach("applied-without-session");
            let loose = self.clients.applied_loose(recorded, index);
            return self.safety.acknowledged_loose(&loose.command, index, response);
        }
        let session = client.session.expect("its command has a number in it");
        let command = client.command + 1;
        self.safety.acknowledged(session, command, index, response)?;
        let effects = self.safety.effects();
        let at = effects.partition_point(|(effect, ..)| *effect < index);
        if effects.get(at) != Some(&(index, session, command)) {
            self.reach("command-repeated");
        }
        Ok(())
    }

    /// A command with a reused number was acknowledged. Tables of sessions that earlier releases have saved do
    /// not say which command had the number.
    fn judge_reused(&self, call: &Call, index: LogIndex) -> Result<(), Broken> {
        let is_old =
            |row: &FaultRow| matches!(row.fault, Fault::Process(_, ProcessFault::OldFormat));
        if self.plan.faults.iter().any(is_old) {
            return Ok(());
        }
        let message = format!(
            "`{call}` was acknowledged at entry {index}, but another command of its session was applied \
             under that number, and this one was not"
        );
        Err(Broken::new(Check::Response, message))
    }

    /// A client remembers what it sees, for operations that depend on it.
    fn learn(&mut self, number: u32, response: &[u8]) {
        let client = &mut self.clients.all[number as usize];
        let pending = client.current.as_ref().and_then(|current| current.pending.as_ref());
        let mut reached = Vec::new();
        if let Some(pending) = pending {
            client.memory.learn(pending, response, &mut |name| reached.push(name));
        }
        self.reach_marks(reached);
    }

    /// Goes on with an operation that takes several requests, if it is not over. Returns whether it does.
    fn go_on(&mut self, number: u32, index: LogIndex, response: &[u8]) -> bool {
        let commit = self.safety.commit();
        let client = &mut self.clients.all[number as usize];
        let current = client.current.as_mut().expect("it was answered");
        let Some(pending) = &mut current.pending else { return false };
        let mut reached = Vec::new();
        let more = pending.go_on(index, response, &mut |name| reached.push(name));
        if more {
            // Answers to the request before are out of date.
            current.first_token = client.token + 1;
            current.first_floor = commit;
            current.attempts = 0;
            if let Some(requests) = &mut self.clients.requests {
                requests.called(number, pending.request());
            }
        }
        self.reach_marks(reached);
        if more {
            self.attempt(number);
        }
        more
    }

    /// The operator hears that its change was made, or that a transfer has begun.
    pub(super) fn accepted(&mut self, (number, mail): (u32, MessageId), index: Option<LogIndex>) {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let op = &plan.ops[current.row].call;
        let asked = client::request(op, current);
        let transfers = matches!(asked, Asked::Whole(Request::Transfer(_)));
        let recorded = current.recorded;
        if op.manner == Manner::Forced {
            self.reach("change-forced");
        }
        let judged = match (asked.change(), index) {
            (Some(change), Some(index)) => self.safety.reconfigured(index, &change),
            (None, None) if transfers => Ok(()),
            _ => {
                let message = format!("{op} was answered as if it were another request");
                Err(Broken::new(Check::Answer, message).shown_by(recorded))
            }
        };
        match judged {
            Ok(()) => self.finish(number, Outcome::Ok(Answer::Done)),
            Err(broken) => {
                self.observers.see(&Observation::Accused(mail));
                self.fail(Class::Safety, broken);
            }
        }
    }

    /// A client has got the session that its operation needs.
    pub(super) fn opened(&mut self, (number, mail): (u32, MessageId), session: SessionId) {
        if let Err(broken) = self.safety.opened(session) {
            self.observers.see(&Observation::Accused(mail));
            return self.fail(Class::Safety, broken);
        }
        let client = &mut self.clients.all[number as usize];
        (client.session, client.command) = (Some(session), 0);
        self.attempt(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KeyValue;
    use crate::plan::Plan;

    #[test]
    fn what_a_node_shows_a_client_never_goes_back() {
        let plan = Plan::new("shows", 1);
        let mut simulation = Simulation::<KeyValue>::new(&plan);
        let (c1, c2, n1, n2) = (1, 2, NodeId(1), NodeId(2));
        for (lane, node, incarnation, index, fits) in [
            (c1, n1, 1, 5, true),
            (c1, n1, 1, 5, true),
            (c1, n2, 1, 3, true),
            (c2, n1, 1, 4, true),
            (c1, n1, 1, 4, false),
            (c1, n1, 1, 7, true),
            // A new incarnation begins with what is durable.
            (c1, n1, 2, 2, true),
            (c1, n1, 2, 1, false),
        ] {
            let judged =
                simulation.shows(lane, (node, incarnation), index).map_err(|broken| broken.check);
            assert_eq!(judged, if fits { Ok(()) } else { Err("reads-go-back") }, "{node} {index}");
        }
    }
}
