//! What clients are answered, judged as a whole: each field of an answer is compared with what the
//! reference makes of the committed log at the index that the answer names, and the index with the
//! log itself.
//!
//! An answer to a query is judged when the node gives it, any other one when it reaches its client.

use stormkv::api::Request;
use stormkv::types::{LogIndex, NodeId, SessionId};

use super::World;
use super::camera::Mail;
use super::client::{self, Asked};
use crate::checker::Broken;
use crate::history::{Answer, Outcome};
use crate::outcome::Class;

/// How many of the writes are named that a read has missed.
const MISSED: usize = 3;

impl World<'_> {
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
        let (op, recorded) = (&plan.ops[current.row].call.op, current.recorded);
        let Asked::Whole(Request::Query { query, .. }) = client::request(op, None) else {
            let message = format!("{node} answered {op} as if it were a query");
            return Err(Broken::new("answer", message).shown_by(recorded));
        };
        // An earlier attempt was sent when as much was committed as at the first one, at least.
        let newest = client.token == token;
        let floor = if newest { current.floor } else { current.first_floor };
        if let Err(broken) = self.safety.read(node, index, floor) {
            return Err(self.stale(node, broken, recorded, (index, floor)));
        }
        let applied = self.slot(node).map_or(0, |slot| slot.surely_applied());
        self.safety
            .queried(node, &query, (index, applied), response)
            .map_err(|broken| self.about(recorded, broken).shown_by(recorded))
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
        let line = || format!("{node} is about to answer as of {index}");
        self.trace.attempt(op, self.now_ns, line);
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
        (number, mail): (u32, Mail),
        index: LogIndex,
        response: &[u8],
        read: bool,
    ) {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let (op, recorded) = (&plan.ops[current.row].call.op, current.recorded);
        if let (Some(session), false) = (client.session, read) {
            let command = client.command + 1;
            if let Err(broken) = self.safety.acknowledged(session, command, index, response) {
                let broken = self.about(recorded, broken);
                self.trace.film(|camera| camera.accuse(mail));
                return self.fail(Class::Safety, broken.shown_by(recorded));
            }
            let effects = self.safety.effects();
            let at = effects.partition_point(|(effect, ..)| *effect < index);
            if effects.get(at).is_none_or(|(effect, ..)| *effect != index) {
                self.reach("command-repeated");
            }
        }
        match client::outcome(op, response) {
            Ok(outcome) => {
                if outcome == Outcome::Ok(Answer::Swapped(false)) {
                    self.reach("cas-refused");
                }
                self.finish(number, outcome);
            }
            Err(reason) => {
                let who = self.clients.all[number as usize].name();
                let message = format!("the answer to {op} of {who} is none to that: {reason}");
                self.trace.film(|camera| camera.accuse(mail));
                self.fail(Class::Safety, Broken::new("response", message).shown_by(recorded));
            }
        }
    }

    /// The operator hears that its change was made, or that a transfer has begun.
    pub(super) fn accepted(&mut self, (number, mail): (u32, Mail), index: Option<LogIndex>) {
        let plan = self.plan;
        let client = &self.clients.all[number as usize];
        let current = client.current.as_ref().expect("it was answered");
        let op = &plan.ops[current.row].call.op;
        let judged = match (client::request(op, current.aim), index) {
            (Asked::Whole(Request::Reconfigure(change)), Some(index)) => {
                self.safety.reconfigured(index, &change)
            }
            (Asked::Whole(Request::Transfer(_)), None) => Ok(()),
            _ => {
                let message = format!("{op} was answered as if it were another request");
                Err(Broken::new("answer", message).shown_by(current.recorded))
            }
        };
        match judged {
            Ok(()) => self.finish(number, Outcome::Ok(Answer::Done)),
            Err(broken) => {
                self.trace.film(|camera| camera.accuse(mail));
                self.fail(Class::Safety, broken);
            }
        }
    }

    /// A client has got the session that its operation needs.
    pub(super) fn opened(&mut self, (number, mail): (u32, Mail), session: SessionId) {
        if let Err(broken) = self.safety.opened(session) {
            self.trace.film(|camera| camera.accuse(mail));
            return self.fail(Class::Safety, broken);
        }
        let client = &mut self.clients.all[number as usize];
        (client.session, client.command) = (Some(session), 0);
        self.attempt(number);
    }
}
