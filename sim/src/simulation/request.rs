//! The clients' side of the events: attempts, replies, patience.

use stormkv::api::{Reply, Request, RequestId};
use stormkv::types::NodeId;

use super::client::{self, Client, Current, Next};
use super::message::lost;
use super::observe::{MessageId, Observation};
use super::{Event, EventKind, Simulation};
use crate::checker::{Broken, Check};
use crate::history::Outcome;
use crate::network::{Connection, DropReason, Endpoint, Fate};
use crate::outcome::Class;
use crate::plan::{Manner, MessageKind, Op, Part, Phase, Plan};
use crate::service::{self, Pending, Service, parsed};

/// How long a client waits after a refusal.
const PAUSE_NS: u64 = 20_000_000;
/// The longest that a client waits for an answer, unless its plan says so.
const LONGEST_NS: u64 = 3_000_000_000;
/// How often the operator looks whether the damaged members are whole again.
const UNTIL_REPAIRED_NS: u64 = 100_000_000;

impl<S: Service> Simulation<'_, S> {
    /// Begins the client's next operation, or waits for its time.
    pub(super) fn begin(&mut self, number: u32) {
        let plan = self.plan;
        let repair_goes_on = self.repair_goes_on();
        let client = &mut self.clients.all[number as usize];
        if client.current.is_some() {
            return;
        }
        let Some(&at) = client.rows.front() else { return };
        let row = &plan.ops[at];
        let due_ns = self.kernel.plan_time_ns(row.at_us);
        if due_ns > self.kernel.now_ns() {
            client.token += 1;
            let event = Event::worker(number, EventKind::ClientTimer { token: client.token });
            self.kernel.at(due_ns, event);
            return;
        }
        let late_us = (self.kernel.now_ns() - due_ns) / 1000;
        if late_us > plan.clients.give_up_us
            && plan.load.phase_at(row.at_us) == Some(Phase::Overload)
        {
            // A client gives up a request that it could not even send for so long.
            client.rows.pop_front();
            return self.begin(number);
        }
        let adds =
            matches!(row.call.op, Op::Add(_) | Op::Learner(_) | Op::Promote(_) | Op::Move { .. });
        let removes = row.call.op.is_admin() && !adds && !matches!(row.call.op, Op::Transfer(_));
        let healed = self.healed_ns.is_some();
        let damaged = if healed { repair_goes_on } else { !self.atlas.is_blank() };
        let imprudent = row.call.is_imprudent();
        if removes && damaged && !imprudent {
            // Nobody should be removed while the others may be needed for a repair; once all is
            // healed, what nobody has noticed is never noticed.
            client.token += 1;
            let event = Event::worker(number, EventKind::ClientTimer { token: client.token });
            self.kernel.after(UNTIL_REPAIRED_NS, event);
            return;
        }
        client.rows.pop_front();
        if !imprudent && !self.is_prudent(&row.call.op) {
            self.reach("change-put-off");
            return self.begin(number);
        }
        let reused = row.call.manner == Manner::Reused;
        if reused && !self.clients.all[number as usize].can_reuse_for(&row.call.op, plan) {
            return self.begin(number);
        }
        self.clients.progress_ns = self.kernel.now_ns();
        self.clients.was_imprudent |= imprudent;
        let removes_leader = match &row.call.op {
            Op::Remove(id) | Op::Replace { old: id, .. } => self.cluster.leader() == Some(*id),
            Op::Change(parts) => {
                self.cluster.leader().is_some_and(|leader| parts.contains(&Part::Remove(leader)))
            }
            op => op.is_aimed(),
        };
        self.note_overlap(number);
        let client = &mut self.clients.all[number as usize];
        let members = u64::from(plan.cluster.nodes);
        let target = row.call.node.unwrap_or(NodeId(1 + client.choices.below(members)));
        let op = &row.call.op;
        let aim = self.cluster.leader().filter(|_| op.is_aimed());
        let learns = matches!(op, Op::Move { node, .. } if self.cluster.membership().learners().contains(node));
        let client = &mut self.clients.all[number as usize];
        let pending = parsed::<S>(op).map(|op| service::Client::begin(&client.memory, op));
        let action = pending
            .as_ref()
            .and_then(|pending| client::recorded_action::<S>(row.call.manner, pending.op()));
        let recorded = action.map(|action| {
            self.clients.history.invoke(client.process, action, self.kernel.now_ns())
        });
        if let Some(requests) = &mut self.clients.requests
            && let Some(pending) = &pending
            && !matches!(row.call.manner, Manner::Stale | Manner::Reused)
        {
            requests.called(number, pending.request());
        }
        let called = Observation::Called { lane: number, row: at, call: &row.call, recorded };
        self.observers.see(&called);
        let current = client.current.insert(Current {
            row: at,
            recorded,
            since_ns: self.kernel.now_ns(),
            first_token: client.token + 1,
            attempts: 0,
            sent: 0,
            refused: 0,
            ambiguous: false,
            opening: false,
            pausing: false,
            target,
            floor: 0,
            first_floor: self.safety.commit(),
            removes_leader,
            pending,
            aim,
            learns,
        });
        if current.is_command() && !reused {
            self.clients.goodput.asked(&plan.load, self.kernel.plan_now_us());
        }
        for id in row.call.op.new_nodes() {
            self.place(id, false);
            if plan.bug.as_deref() == Some("ids-reused") {
                self.begin_anew(id);
            }
            self.start(id);
        }
        self.attempt(number);
    }

    /// Whether it gives a member the address that another one has.
    fn is_taken(&self, op: &Op) -> bool {
        let Op::Move { node, address } = op else { return false };
        self.cluster.membership().addresses().iter().any(|(id, at)| id != node && at == address)
    }

    /// Notes that a client, or the operator, has several operations under way.
    fn note_overlap(&mut self, lane: u32) {
        let number = self.clients.all[lane as usize].number;
        let busy = |other: &Client<S>| other.number == number && other.current.is_some();
        if self.clients.all.iter().any(busy) {
            self.reach(if number == 0 { "changes-overlapped" } else { "operations-overlapped" });
        }
    }

    pub(super) fn attempt(&mut self, number: u32) {
        let plan = self.plan;
        let (commit, leader) = (self.safety.commit(), self.cluster.leader());
        let client = &mut self.clients.all[number as usize];
        let current = client.current.as_mut().expect("an operation is under way");
        // Once the faults have stopped everything must be answered in the end.
        let patient = self.healed_ns.is_some();
        if !patient && self.kernel.now_ns() >= current.since_ns + plan.clients.give_up_us * 1000 {
            let outcome = if current.ambiguous { Outcome::Info } else { Outcome::Fail };
            return self.finish(number, outcome);
        }
        if plan.ops[current.row].call.op.is_aimed() && current.aim.is_none() {
            current.aim = leader;
            if leader.is_none() {
                return self.pause(number);
            }
        }
        if current.sent > 0
            && current.sent == current.refused
            && let Some(session) = client.session
        {
            self.safety.all_refused(session, client.command + 1);
        }
        current.attempts += 1;
        current.pausing = false;
        current.floor = commit;
        let node = current.target;
        let backoff = backoff(plan, patient, current.attempts);
        if current.attempts > 1 {
            self.reach("request-retried");
        }
        let client = &mut self.clients.all[number as usize];
        let row = &plan.ops[client.current.as_ref().expect("still").row];
        let request = client.request(row, &mut self.clients.owner, &mut self.clients.loose);
        if let Request::ForceReconfigure(change) = &request
            && !self.clients.forced.contains(change)
        {
            self.clients.forced.push(change.clone());
        }
        let client = &mut self.clients.all[number as usize];
        client.token += 1;
        let token = client.token;
        let retry_ns = plan.clients.retry_us * 1000;
        let patience = self.kernel.now_ns() + (retry_ns << backoff).min(retry_ns.max(LONGEST_NS));
        self.kernel.at(patience, Event::worker(number, EventKind::ClientTimer { token }));
        let ends = (client.endpoint(), Endpoint::Node(node.0));
        let fate =
            self.network.fate(self.kernel.now_ns(), ends.0, ends.1, MessageKind::Request.code());
        let id = self.observers.number_message();
        let dropped = dropped(fate);
        self.observers.see(&Observation::RequestSent {
            lane: number,
            node,
            request: &request,
            id,
            dropped,
        });
        if let Fate::Delivered { at_ns, connection, .. } = fate {
            let request = Box::new(request);
            let event = Event::node(
                node,
                EventKind::ClientRequest { lane: number, token, request, connection },
            )
            .about(id);
            self.kernel.at(at_ns, event);
        }
    }

    pub(super) fn asked(
        &mut self,
        (number, token): (u32, u64),
        node: NodeId,
        request: Request,
        connection: Connection,
        mail: MessageId,
    ) {
        let client = &self.clients.all[number as usize];
        let ends = (client.endpoint(), Endpoint::Node(node.0));
        let arrives = self.network.arrives(ends.0, ends.1, connection);
        let up = self.cluster.is_up(node);
        self.observers.see(&Observation::RequestArrives {
            client: client.name(),
            node,
            token,
            request: &request,
            id: mail,
            lost: lost(up, arrives),
            stale: !client.waits_for(token),
            recorded: client.recorded(token),
            passes: arrives.is_ok(),
        });
        if arrives.is_ok() {
            let id = RequestId(token);
            self.with(node, |driver| driver.request(id, request));
        }
    }

    /// A node answers.
    pub(super) fn reply(&mut self, node: NodeId, request: RequestId, reply: Reply) {
        let number = (request.0 >> 40) as u32;
        if matches!(reply, Reply::Refused(_)) {
            self.reach("request-refused");
        }
        if let Reply::Value { index, response } = &reply {
            if let Err(broken) = self.judge_read((number, request.0), node, *index, response) {
                let id = self.observers.number_message();
                let (lane, reply) = (number, &reply);
                let sent =
                    Observation::ReplySent { lane, node, reply, id, waits: true, dropped: None };
                self.observers.see(&sent);
                self.observers.see(&Observation::Accused(id));
                return self.fail(Class::Safety, broken);
            }
            if !self.cluster.leads(node) {
                self.reach("read-by-follower");
            }
        }
        let ends = (Endpoint::Node(node.0), self.clients.all[number as usize].endpoint());
        let fate =
            self.network.fate(self.kernel.now_ns(), ends.0, ends.1, MessageKind::Reply.code());
        let token = request.0;
        let waits = self.clients.all[number as usize].waits_for(token);
        let id = self.observers.number_message();
        let dropped = dropped(fate);
        self.observers.see(&Observation::ReplySent {
            lane: number,
            node,
            reply: &reply,
            id,
            waits,
            dropped,
        });
        if let Fate::Delivered { at_ns, connection, .. } = fate {
            let reply = Box::new(reply);
            let event =
                Event::worker(number, EventKind::ClientResponse { node, token, reply, connection })
                    .about(id);
            self.kernel.at(at_ns, event);
        }
    }

    pub(super) fn told(
        &mut self,
        (number, token): (u32, u64),
        node: NodeId,
        reply: Reply,
        connection: Connection,
        mail: MessageId,
    ) {
        let client = &mut self.clients.all[number as usize];
        let ends = (Endpoint::Node(node.0), client.endpoint());
        let arrives = self.network.arrives(ends.0, ends.1, connection);
        self.observers.see(&Observation::ReplyArrives {
            lane: number,
            client: client.name(),
            node,
            token,
            reply: &reply,
            id: mail,
            lost: lost(true, arrives),
            stale: !client.waits_for(token),
            recorded: client.recorded(token),
        });
        let arrives = arrives.is_ok();
        let (newest, is_healed) = (client.token == token, self.healed_ns.is_some());
        let Some(current) = client.current.as_mut() else { return };
        if !arrives || token < current.first_token {
            return;
        }
        let plan = self.plan;
        let call = &plan.ops[current.row].call;
        let uses_session = current.uses_session(call.manner);
        let reused = call.manner == Manner::Reused;
        let forced = call.manner == Manner::Forced;
        match client::judge(reply) {
            Next::Answered { index, response, read } if !current.opening => {
                self.answered((number, mail), index, &response, read);
            }
            Next::NotKept { index, bytes } if !current.opening => {
                self.acknowledged_only((number, mail), index, bytes);
            }
            Next::Accepted(index) => self.accepted((number, mail), index),
            Next::Opened(session) if newest && current.opening => {
                self.opened((number, mail), session);
            }
            // Those who come next may delete something.
            Next::NoRoom if newest && !is_healed && !current.opening => {
                current.refused += 1;
                let outcome = if current.ambiguous { Outcome::Info } else { Outcome::Fail };
                self.reach("disk-full-refused");
                self.finish(number, outcome);
            }
            Next::NoRoom if newest => {
                current.refused += u32::from(!current.opening);
                self.elsewhere(number);
                self.pause(number);
            }
            Next::AtRisk if forced => {
                let message = format!("{node} refused a change that was to be made at any risk");
                self.fail(Class::Safety, Broken::new(Check::Answer, message));
            }
            // Nobody comes back any more for whom the operator could wait.
            Next::AtRisk if newest && is_healed => {
                self.reach("change-at-risk-refused");
                self.finish(number, Outcome::Fail);
            }
            Next::AtRisk if newest => {
                self.reach("change-at-risk-refused");
                self.pause(number);
            }
            Next::Pointless if newest => {
                if self.is_taken(&call.op) {
                    self.reach("taken-address-refused");
                }
                self.finish(number, Outcome::Fail);
            }
            Next::Retry(hint) if newest => {
                current.refused += u32::from(!current.opening);
                current.target = hint.unwrap_or(current.target);
                if hint.is_none() {
                    self.elsewhere(number);
                }
                self.pause(number);
            }
            // Its session may be gone, or a copy of the attempt may arrive late.
            Next::SessionLost if newest && reused => self.finish(number, Outcome::Fail),
            Next::NumberReused if newest => {
                if !reused {
                    let message =
                        format!("{node} refused a command for a number that was not reused");
                    return self.fail(Class::Safety, Broken::new(Check::Answer, message));
                }
                self.reach("reused-number-refused");
                self.finish(number, Outcome::Fail);
            }
            Next::SessionLost if newest => {
                if !uses_session {
                    let message = format!("{node} answered as if it had known a session");
                    return self.fail(Class::Safety, Broken::new(Check::Answer, message));
                }
                self.reach("session-expired");
                let client = &mut self.clients.all[number as usize];
                client.session = None;
                if client.current.as_ref().is_some_and(|current| current.ambiguous) {
                    self.finish(number, Outcome::Info);
                } else {
                    self.attempt(number);
                }
            }
            Next::Doubt if newest => self.doubt(number),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, number: u32, outcome: Outcome) {
        let plan = self.plan;
        let lanes = self.clients.all.len() as u64;
        let client = &mut self.clients.all[number as usize];
        let current = client.current.take().expect("an operation is under way");
        client.token += 1;
        let token = client.token;
        let (row, since_ns) = (current.row, current.since_ns);
        let returned = Observation::Returned { lane: number, row, since_ns, outcome: &outcome };
        self.observers.see(&returned);
        if let Some(requests) = &mut self.clients.requests {
            requests.returned(number, &outcome);
        }
        let (op, call) = (&plan.ops[current.row].call.op, &plan.ops[current.row].call);
        let unknown = outcome == Outcome::Info;
        let accepted = matches!(outcome, Outcome::Ok(_));
        if current.ambiguous
            && op.is_admin()
            && let Some(change) = client::request(call, &current).change()
            && !self.clients.doubtful_changes.contains(&change)
        {
            self.clients.doubtful_changes.push(change);
        }
        let client = &mut self.clients.all[number as usize];
        if let Some(recorded) = current.recorded {
            if current.uses_session(call.manner)
                && let Some(session) = client.session
            {
                client.command += 1;
                if accepted {
                    client.applied = Some((session, client.command, current.row));
                }
                // Judged in the end, because an entry may be committed late.
                if current.refused > 0 {
                    let counts = (current.sent, current.refused);
                    self.clients.refused.insert((session, client.command), counts);
                }
            }
            if unknown {
                client.process += lanes;
                if call.manner == Manner::NoSession {
                    self.reach("unknown-without-session");
                }
            }
            self.clients.history.complete(recorded, outcome, self.kernel.now_ns());
        }
        self.clients.acknowledged += u64::from(accepted);
        if accepted && current.is_command() {
            self.clients.goodput.answered(&plan.load, self.kernel.plan_now_us());
        }
        self.clients.progress_ns = self.kernel.now_ns();
        self.note_answer(current.since_ns);
        if unknown {
            self.reach("outcome-unknown");
        }
        if accepted && op.is_admin() {
            self.changed(op);
            if current.removes_leader {
                self.reach("leader-removed");
            }
        }
        let at_ns = self.kernel.now_ns() + plan.clients.think_us * 1000;
        self.kernel.at(at_ns, Event::worker(number, EventKind::ClientTimer { token }));
    }

    fn changed(&mut self, op: &Op) {
        match op {
            Op::Add(_) => self.reach("voter-added"),
            Op::Learner(_) => self.reach("learner-added"),
            Op::Promote(_) => self.reach("learner-promoted"),
            Op::Remove(_) => self.reach("member-removed"),
            Op::RemoveLeader => self.reach("member-removed"),
            Op::Replace { .. } | Op::ReplaceLeader(_) => {
                if let Op::Replace { old, new } = op {
                    self.clients.replaced.push((*old, *new));
                }
                self.reach("member-removed");
                self.reach("joint-configuration");
            }
            Op::Move { .. } => self.reach("member-moved"),
            Op::Change(parts) if parts.len() > 1 => self.reach("several-members-changed"),
            _ => {}
        }
    }

    /// A client's process dies and forgets what it had under way; a new one takes its place.
    pub(super) fn restart_client(&mut self, number: u32) {
        self.observers.see(&Observation::ClientRestarts(number));
        let lanes = self.clients.all.len() as u64;
        for lane in 0..lanes as u32 {
            let client = &self.clients.all[lane as usize];
            if client.number != number {
                continue;
            }
            let (session, process) = (client.session, client.process);
            if let Some(current) = &client.current {
                // Nobody is left who could hear an answer.
                let sent = current.sent > 0 || current.ambiguous;
                self.finish(lane, if sent { Outcome::Info } else { Outcome::Fail });
                if sent {
                    self.reach("client-restarted-in-doubt");
                }
            }
            let client = &mut self.clients.all[lane as usize];
            client.session = None;
            self.observers.see(&Observation::WorkerRestarts(lane));
            client.process = process + lanes;
            if session.is_some() {
                self.reach("client-restarted");
            }
        }
    }

    pub(super) fn client_timer(&mut self, number: u32, token: u64) {
        let client = &mut self.clients.all[number as usize];
        let valid = client.token == token;
        let (lane, client_name) = (number, client.name());
        let timer = Observation::ClientTimer { lane, client: client_name, token, valid };
        self.observers.see(&timer);
        if !valid {
            return;
        }
        match &mut client.current {
            None => self.begin(number),
            Some(current) if current.pausing => self.attempt(number),
            Some(_) => self.doubt(number),
        }
    }

    /// An attempt got no answer, or one that leaves it open. It is made again elsewhere, unless that
    /// might make its effect twice.
    fn doubt(&mut self, number: u32) {
        let plan = self.plan;
        let client = &mut self.clients.all[number as usize];
        let Some(current) = &mut client.current else { return };
        current.ambiguous |= !current.opening;
        if plan.ops[current.row].call.manner == Manner::NoSession {
            return self.finish(number, Outcome::Info);
        }
        self.elsewhere(number);
        self.attempt(number);
    }

    /// The next attempt goes to another node.
    fn elsewhere(&mut self, number: u32) {
        let ids: Vec<NodeId> =
            self.cluster.iter().filter(|slot| !slot.is_gone()).map(|slot| slot.id).collect();
        let client = &mut self.clients.all[number as usize];
        let Some(current) = &mut client.current else { return };
        let pick = client.choices.below(ids.len() as u64) as usize;
        let other = ids[pick];
        current.target = if other == current.target { ids[(pick + 1) % ids.len()] } else { other };
    }

    /// The next attempt is made after a moment.
    fn pause(&mut self, number: u32) {
        let (plan, patient) = (self.plan, self.healed_ns.is_some());
        let client = &mut self.clients.all[number as usize];
        let Some(current) = &mut client.current else { return };
        current.pausing = true;
        client.token += 1;
        let backoff = backoff(plan, patient, current.attempts);
        let wait = (PAUSE_NS / 2 + client.choices.below(PAUSE_NS)) << backoff;
        let event = Event::worker(number, EventKind::ClientTimer { token: client.token });
        self.kernel.after(wait, event);
    }
}

/// Why a message does not go on its way, if it does not.
fn dropped(fate: Fate) -> Option<DropReason> {
    match fate {
        Fate::Delivered { .. } => None,
        Fate::Dropped(reason) => Some(reason),
    }
}

/// How often a client has doubled its waits. Before the faults stop, clients press on, to be there
/// at every moment; afterwards they behave. If they did not, a cluster with a backlog of what they
/// have asked for again and again would have to work it off before any of it is news to them, and
/// they would add to it at the same pace. Some behave all the time.
fn backoff(plan: &Plan, patient: bool, attempts: u32) -> u32 {
    match (plan.clients.backs_off, patient) {
        (true, _) => attempts.min(6),
        (false, true) => (attempts / 8).min(5),
        (false, false) => 0,
    }
}
