//! What the simulator asks of a service: a state machine, an independent model of it, and operations.
//!
//! A plan has words for an operation of the service, such as `put k v`. [`Service::parse`] makes an
//! operation of them, and its [`Client`] turns that into requests. The simulator compares each response
//! and each read with what the [`Model`] makes of the committed log at the same index.

mod checker;
mod fault;

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use stormkv::machine::{Context, StateMachine};
use stormkv::types::LogIndex;

pub use self::checker::{
    CheckContext, Checker, Committed, End, Finding, Observation, Stamp, Worker,
};

use crate::history::{Action, Answer, Outcome};
use crate::plan::{self, Call, Clients, Cluster, Grammar, Manner, OpRow, Words};
use crate::swarm::{self, Dice};

pub use fault::{CustomFault, Injector};
pub(crate) use fault::{Injectable, check_fault, find_fault};

/// An operation as the state machine takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Goes through the log and may change the state.
    Command(Bytes),
    /// Reads the state.
    Query(Bytes),
}

/// Bytes of the service that are shown to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'a> {
    /// A command.
    Command(&'a [u8]),
    /// A query.
    Query(&'a [u8]),
    /// A response to either of them.
    Response(&'a [u8]),
    /// A response with everything in it that a comparison may have found to differ.
    Exact(&'a [u8]),
}

impl<'a> Shown<'a> {
    /// The bytes, whatever they are.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Shown::Command(bytes)
            | Shown::Query(bytes)
            | Shown::Response(bytes)
            | Shown::Exact(bytes) => bytes,
        }
    }
}

impl fmt::Display for Shown<'_> {
    /// The bytes as they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Shown::Command(_) => "command ",
            Shown::Query(_) => "query ",
            Shown::Response(_) | Shown::Exact(_) => "",
        };
        write!(f, "{what}{:?}", Bytes::copy_from_slice(self.bytes()))
    }
}

/// Describes bytes of a service.
pub type Describe = fn(Shown<'_>) -> String;

/// Takes the name of a mark that was reached, one of [`Service::MARKS`]; panics at any other.
pub type Reach<'a> = &'a mut dyn FnMut(&'static str);

/// A pass over all operations of a plan: lists that may take their place, most promising first.
pub type Pass<O> = fn(&[O]) -> Vec<Vec<O>>;

/// A check of a state, which may reach marks; the error is the end of a sentence that begins with the node.
pub type Invariant<M> = fn(&M, Reach<'_>) -> Result<(), String>;

/// The black-box search for an order of all requests that explains every response, for services whose model
/// can be cloned. It suits services whose responses do not depend on the index of a command.
#[derive(Debug)]
pub struct Search<M> {
    clone: fn(&M) -> M,
    digest: fn(&M) -> u64,
}

impl<M: Clone> Search<M> {
    /// The search. `digest` is a hash of the state of the model, the same for all models that answer alike from
    /// then on.
    pub const fn new(digest: fn(&M) -> u64) -> Search<M> {
        Search { clone: M::clone, digest }
    }
}

impl<M> Search<M> {
    pub(crate) fn clone(&self, model: &M) -> M {
        (self.clone)(model)
    }

    pub(crate) fn digest(&self, model: &M) -> u64 {
        (self.digest)(model)
    }
}

/// A service that is replicated and tested.
pub trait Service: Sized + Send + Sync + 'static {
    /// The state machine that is replicated.
    type Machine: StateMachine;
    /// The model that its answers are compared with.
    type Model: Model<Machine = Self::Machine>;
    /// An operation of a client.
    type Op: Clone + fmt::Debug + fmt::Display + 'static;
    /// A client.
    type Client: Client<Op = Self::Op>;

    /// The command that starts the program that calls `stormkv_sim::main` for this service; empty for
    /// the name of the program. Failures print it; those of tests print `PROGRAM` if it is empty.
    const COMMAND: &'static str = "";

    /// The verbs of the operations, each with its form.
    const GRAMMAR: &'static Grammar;

    /// What machines and models are constructed with; the same in all runs.
    fn params() -> <Self::Machine as StateMachine>::Params {
        Default::default()
    }

    /// Checks what must hold in every state of the machine, after each input that a node has applied.
    const INVARIANT: Option<Invariant<Self::Machine>> = None;

    /// A search that judges the responses of some runs without knowing the order of the log: an opinion of its
    /// own beside the model's, which is asked about each index. Responses of such a service must not depend
    /// on the index or the time of a command, which the search does not know.
    const SEARCH: Option<Search<Self::Model>> = None;

    /// Names of the situations that a campaign should reach, beside the waypoints of the simulator. Client,
    /// invariant and checkers report them; those that no run has reached are printed, and a scenario may expect
    /// them (`expect.waypoints`).
    const MARKS: &'static [&'static str] = &[];

    /// Passes over all operations of a plan that make names plainer, in their order.
    const PASSES: &'static [Pass<Self::Op>] = &[];

    /// Faults that are specific to this service.
    const FAULTS: &'static [&'static dyn CustomFault] = &[];

    /// The checkers of the service, anew for each run.
    fn checkers() -> Vec<Box<dyn Checker<Self>>> {
        Vec::new()
    }

    /// Parses the words of an operation.
    ///
    /// # Errors
    /// What is wrong with them, and behind `; ` the remedy.
    fn parse(words: &str) -> Result<Self::Op, String>;

    /// Returns whether an operation only reads, and so may be asked for as a stale read.
    fn is_read(op: &Self::Op) -> bool;

    /// Describes bytes for a person.
    fn describe(shown: Shown<'_>) -> String {
        shown.to_string()
    }

    /// The things that an operation is about, such as keys, each once.
    fn subjects(_op: &Self::Op) -> Vec<String> {
        Vec::new()
    }

    /// Draws an operation. `number` counts the operations of a plan from 1, so that what one writes can be
    /// told from what others write.
    fn generate(dice: &mut Dice, number: u32) -> Self::Op;

    /// Draws the operations of a plan: one of some client for each of these times, in microseconds.
    fn workload(seed: u64, times: &[u64], cluster: &Cluster, clients: &Clients) -> Vec<OpRow> {
        swarm::usual::<Self>(seed, times, cluster, clients)
    }

    /// Makes the operations of a few plans harder, and the limits of the cluster fit for them.
    fn strain(_seed: u64, _ops: &mut Vec<OpRow>, _cluster: &mut Cluster, _clients: &Clients) {}

    /// Has some operations of some plans asked for in another way.
    fn vary(seed: u64, ops: &mut [OpRow]) {
        swarm::manners::<Self>(seed, ops);
    }

    /// Makes an operation, the one with this number from 0, write as much in each window of a long run.
    fn even_out(_op: &mut Self::Op, _number: usize) {}

    /// An operation that writes a value of `bytes` bytes, called `word`, to a place that others with the
    /// same name overwrite; `None` if the service has none. Plans of large states and of overload need it.
    fn write(_place: &str, _word: &str, _bytes: u32) -> Option<Self::Op> {
        None
    }

    /// An operation that makes such a place empty.
    fn erase(_place: &str) -> Option<Self::Op> {
        None
    }

    /// An operation that reads such a place.
    fn read(_place: &str) -> Option<Self::Op> {
        None
    }

    /// Bytes that an operation writes at most, of values.
    fn written_bytes(_op: &Self::Op) -> u64 {
        0
    }

    /// Operations that do less than this one, for a smaller plan that fails in the same way.
    fn simpler(_op: &Self::Op) -> Vec<Self::Op> {
        Vec::new()
    }

    /// The number of different names in operations.
    fn names(_ops: &[Self::Op]) -> u64 {
        0
    }

    /// An operation as part of a history; `None` for one that histories leave out. Those are judged by
    /// the index that their answer names only, which for reads is all that there is to judge.
    fn action(op: &Self::Op) -> Option<Action> {
        (!Self::is_read(op)).then(|| Action::Other { words: op.to_string().into() })
    }

    /// The whole state as one write of a history.
    fn state_as_action(_model: &Self::Model) -> Action {
        Action::Other { words: "all that was there before".into() }
    }

    /// A query whose answer shows the whole state, if there is one.
    fn whole_state() -> Option<Bytes> {
        None
    }

    /// The command with this number, from 1, of those that a backup is made with; `None` for a service
    /// whose clusters are never founded with one.
    fn backup_command(_number: u32) -> Option<Bytes> {
        None
    }
}

/// An independent reference of a state machine.
///
/// It is written anew, from the documentation of the machine, so that it does not repeat its mistakes.
pub trait Model: Sized + Send + 'static {
    /// The machine.
    type Machine: StateMachine;

    /// Constructs the model of a machine with these parameters, before the first command.
    fn new(params: &<Self::Machine as StateMachine>::Params) -> Self;

    /// Applies the command that is committed at the index and the time of `context`, and returns its
    /// response.
    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes;

    /// Returns the answer to a query as of `index`, which may lie before the newest command; `None` if it
    /// is no query.
    fn query(&self, index: LogIndex, query: &[u8]) -> Option<Bytes>;

    /// Returns whether a response says that its command has changed nothing.
    fn is_refusal(_response: &[u8]) -> bool {
        false
    }

    /// Compares the machine with the state after the newest command.
    ///
    /// # Errors
    /// How they differ, as the end of a sentence that begins with the node.
    fn compare(&self, machine: &Self::Machine) -> Result<(), String>;

    /// Forgets everything but the state after the newest command.
    fn forget(&mut self) {}

    /// Facts beside that state that are remembered.
    fn remembered(&self) -> usize {
        0
    }
}

/// A client of the service, with what it remembers from one operation to the next.
pub trait Client: Default {
    /// An operation.
    type Op;
    /// An operation under way.
    type Pending: Pending<Op = Self::Op>;

    /// Begins an operation.
    fn begin(&self, op: Self::Op) -> Self::Pending;

    /// Learns from a response.
    fn learn(&mut self, _pending: &Self::Pending, _response: &[u8], _reach: Reach<'_>) {}
}

/// An operation under way.
pub trait Pending: Clone + fmt::Debug {
    /// An operation.
    type Op;

    /// The operation.
    fn op(&self) -> &Self::Op;

    /// The request for it, the same in all attempts.
    fn request(&self) -> Request;

    /// Goes on to the next request of an operation that takes several, after the response to this one as
    /// of `index`; false if the operation is over.
    fn go_on(&mut self, _index: LogIndex, _response: &[u8], _reach: Reach<'_>) -> bool {
        false
    }

    /// Returns the outcome that a response means.
    ///
    /// # Errors
    /// The response, if it is none to this operation.
    fn outcome(&self, response: &[u8]) -> Result<Outcome, String>;
}

/// The operation that the words of a plan stand for; `None` for one that is not the service's.
///
/// # Panics
/// If the service does not have it. A plan that was read from a file, or drawn, has no such words.
pub(crate) fn parsed<S: Service>(op: &plan::Op) -> Option<S::Op> {
    let plan::Op::Service(words) = op else { return None };
    let parsed = S::parse(words.as_str());
    Some(parsed.unwrap_or_else(|error| panic!("the plan was not checked: {error}")))
}

/// Checks the words of an operation of the service and how it is asked for. Returns the call with its words
/// in their usual form. What client 0 does is the operator's; for the others a verb that the service has
/// means the service.
///
/// # Errors
/// What is wrong, and behind `; ` the remedy.
pub fn checked<S: Service>(client: u32, call: &Call) -> Result<Call, String> {
    let verb = call.op.kind();
    let is_ours = client > 0 && S::GRAMMAR.iter().any(|(known, _)| *known == verb);
    let again = match (&call.op, is_ours) {
        (plan::Op::Service(_), true) => Ok(call.clone()),
        // Words with a verb of the operator are what its grammar does not allow.
        (plan::Op::Service(_), false) => Call::parse(&call.to_string()),
        (_, true) => Call::parse_words(&call.to_string()),
        (_, false) => return Ok(call.clone()),
    };
    let call = again.map_err(|error| error.to_string())?;
    let plan::Op::Service(words) = &call.op else { return Ok(call) };
    call.check_verb(S::GRAMMAR).map_err(|error| error.to_string())?;
    let op = S::parse(words.as_str())?;
    let fits = match call.manner {
        Manner::Usual => true,
        Manner::Stale => S::is_read(&op),
        _ => !S::is_read(&op),
    };
    if fits {
        return Ok(Call { op: self::call::<S>(&op).op, ..call.clone() });
    }
    let verb = words.verb();
    let form = S::GRAMMAR.iter().find(|(known, _)| *known == verb).map_or("", |(_, form)| *form);
    Err(format!("`{verb}` cannot be asked for like that in `{call}`; write `{form}`"))
}

/// The call of an operation, in the usual manner.
pub(crate) fn call<S: Service>(op: &S::Op) -> Call {
    Call::from(plan::Op::Service(Words::new(&op.to_string())))
}

/// An operation that is a request by itself, whatever its client has seen before.
pub trait Encode: Clone + fmt::Debug {
    /// The request.
    fn encode(&self) -> Request;
}

/// A client that remembers nothing: enough for services whose operations are [`Encode`].
#[derive(Debug)]
pub struct Stateless<O>(PhantomData<O>);

impl<O> Default for Stateless<O> {
    fn default() -> Self {
        Stateless(PhantomData)
    }
}

impl<O: Encode> Client for Stateless<O> {
    type Op = O;
    type Pending = Single<O>;

    fn begin(&self, op: O) -> Single<O> {
        Single(op)
    }
}

/// An operation that is one request.
#[derive(Clone, Debug)]
pub struct Single<O>(O);

impl<O: Encode> Pending for Single<O> {
    type Op = O;

    fn op(&self) -> &O {
        &self.0
    }

    fn request(&self) -> Request {
        self.0.encode()
    }

    /// A response that differs from the model's was found before; there is nothing else to say of it.
    fn outcome(&self, _response: &[u8]) -> Result<Outcome, String> {
        Ok(Outcome::Ok(Answer::Unsaid))
    }
}

/// Commands between two states that [`MachineAsModel`] keeps.
const COMMANDS_PER_STATE: usize = 32;

/// The machine itself as the model, for services that have no other one.
///
/// It finds replicas that differ, answers from the wrong state, and commands that are lost or applied
/// twice. It does not find what the machine itself does wrong: for that, write a [`Model`].
#[derive(Clone, Debug)]
pub struct MachineAsModel<M> {
    first: M,
    machine: M,
    newest: LogIndex,
    /// States of the past, with the index of the newest command in each.
    states: Vec<(LogIndex, M)>,
    /// The commands since the first of these states.
    commands: Vec<(Context, Bytes)>,
}

impl<M: StateMachine + Clone> MachineAsModel<M> {
    /// The black-box search, for [`Service::SEARCH`].
    pub const SEARCH: Search<MachineAsModel<M>> = Search::new(|model| model.machine.digest());

    /// The state as of an index that lies before the newest command.
    fn past(&self, index: LogIndex) -> M {
        let known = self.states.partition_point(|(at, _)| *at <= index);
        let (from, mut machine) = match known.checked_sub(1) {
            Some(at) => self.states[at].clone(),
            None => (0, self.first.clone()),
        };
        let begin = self.commands.partition_point(|(at, _)| at.index <= from);
        for (at, command) in self.commands[begin..].iter().take_while(|(at, _)| at.index <= index) {
            machine.apply(*at, command);
        }
        machine
    }
}

impl<M: StateMachine + Clone> Model for MachineAsModel<M> {
    type Machine = M;

    fn new(params: &M::Params) -> Self {
        let (first, machine) = (M::new(params), M::new(params));
        MachineAsModel { first, machine, newest: 0, states: Vec::new(), commands: Vec::new() }
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        assert!(context.index > self.newest, "the log has an order");
        if self.commands.len().is_multiple_of(COMMANDS_PER_STATE) {
            self.states.push((self.newest, self.machine.clone()));
        }
        self.commands.push((context, Bytes::copy_from_slice(command)));
        self.newest = context.index;
        self.machine.apply(context, command)
    }

    fn query(&self, index: LogIndex, query: &[u8]) -> Option<Bytes> {
        let is_newest = index >= self.newest;
        Some(if is_newest { self.machine.query(query) } else { self.past(index).query(query) })
    }

    fn compare(&self, machine: &M) -> Result<(), String> {
        match machine.digest() == self.machine.digest() {
            true => Ok(()),
            false => Err("holds another state than the committed log makes".to_owned()),
        }
    }

    fn forget(&mut self) {
        self.commands.clear();
        self.states = vec![(self.newest, self.machine.clone())];
    }

    fn remembered(&self) -> usize {
        self.commands.len() + self.states.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use stormkv::kv::{Command, Kv, Query};

    #[test]
    fn machine_as_model_answers_as_of_any_index() {
        let mut model = MachineAsModel::<Kv>::new(&());
        let key = Bytes::from_static(b"k");
        let mut states = vec![(0, Kv::default())];
        for index in (1..=100).map(|number| number * 3) {
            let value = Bytes::from(index.to_string());
            let command = Command::Put { key: key.clone(), value }.encode();
            let mut machine = states[states.len() - 1].1.clone();
            let context = Context::new(index, Duration::ZERO);
            assert_eq!(model.apply(context, &command), machine.apply(context, &command));
            states.push((index, machine));
        }
        let query = Query::Get { key }.encode();
        for (index, machine) in &states {
            assert_eq!(model.query(*index, &query), Some(machine.query(&query)), "{index}");
            assert_eq!(model.query(index + 2, &query), Some(machine.query(&query)), "{index}");
        }
        assert_eq!(model.compare(&states[100].1), Ok(()));
        assert!(model.compare(&states[99].1).is_err());
        let before = model.remembered();
        model.forget();
        assert!(model.remembered() < before);
        assert_eq!(model.query(300, &query), Some(states[100].1.query(&query)));
    }
}
