//! A command that comes again, and more requests than can be answered in time.

use std::time::Duration;

use super::*;
use crate::kv::Command;
use crate::node::Proposal;
use crate::types::SessionId;

/// Opens a session on a leader of three as entry 3@2.
fn with_session(adjust: impl FnOnce(&mut Config)) -> Host {
    let mut host = Host::leading_with(adjust);
    host.ask(1, Request::OpenSession);
    commit(&mut host, 3);
    let outputs = host.take();
    assert_eq!(replies(&outputs), [(1, &Reply::SessionOpened(SessionId(3)))]);
    host
}

/// Everything up to `index` becomes durable on two of three.
fn commit(host: &mut Host, index: u64) {
    host.persist();
    host.acknowledge(2, index);
}

fn command(session: u64, number: u64) -> Request {
    let session = Some((SessionId(session), number));
    let value = Bytes::from(format!("v{number}"));
    Request::Command { session, command: Command::Put { key: "k".into(), value }.encode() }
}

fn last(host: &Host) -> u64 {
    host.node.status().last.index
}

fn written(index: u64) -> Reply {
    Reply::Applied { index, response: Response::Written { revision: index }.encode() }
}

#[test]
fn a_retry_of_an_open_command_waits_for_its_entry() {
    let mut host = with_session(|_| ());
    host.ask(2, command(3, 1));
    host.receive(2, Message::Forward { id: 77, request: command(3, 1) });
    assert_eq!((last(&host), host.node.load().proposals), (4, 2));
    commit(&mut host, 4);
    let outputs = host.take();
    assert_eq!(replies(&outputs), [(2, &written(4))]);
    let answers = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Answer { id, reply } } => Some((to.0, *id, reply)),
        _ => None,
    });
    assert_eq!(answers.collect::<Vec<_>>(), [(2, 77, &written(4))]);
    assert_eq!(host.node.load().proposals, 0);
}

#[test]
fn a_retry_that_comes_together_with_its_command_waits_for_it() {
    let mut host = with_session(|_| ());
    for (id, number) in [(2, 1), (3, 1), (4, 2), (5, 1)] {
        host.node.request(RequestId(id), command(3, number));
    }
    host.collect();
    assert_eq!(last(&host), 5);
    commit(&mut host, 5);
    let outputs = host.take();
    let (one, two) = (written(4), written(5));
    assert_eq!(replies(&outputs), [(2, &one), (3, &one), (5, &one), (4, &two)]);
}

#[test]
fn a_retry_of_an_applied_command_is_answered_at_once_by_any_member() {
    let mut host = with_session(|_| ());
    host.ask(2, command(3, 1));
    host.ask(3, command(3, 2));
    commit(&mut host, 5);
    host.take();
    let response = Response::Written { revision: 5 }.encode();
    let answer = Reply::Applied { index: 5, response };
    host.ask(4, command(3, 2));
    assert_eq!(replies(&host.take()), [(4, &answer)]);
    // Its number is passed by.
    host.ask(5, command(3, 1));
    assert_eq!(replies(&host.take()), [(5, &Reply::Refused(Refusal::OutOfOrder))]);
    assert_eq!(last(&host), 5);
    // Deposed, and later entries are applied.
    host.append(3, (5, 2), 6);
    host.persist();
    host.take();
    host.ask(6, command(3, 2));
    let Reply::Applied { response, .. } = answer else { unreachable!("see above") };
    let outputs = host.take();
    assert_eq!(replies(&outputs), [(6, &Reply::Applied { index: 6, response })]);
}

#[test]
fn a_reused_number_is_refused_while_its_entry_is_open_and_afterwards() {
    let mut host = with_session(|_| ());
    let another = |number| {
        let session = Some((SessionId(3), number));
        Request::Command { session, command: Command::Delete { key: "k".into() }.encode() }
    };
    let refused = Reply::Refused(Refusal::NumberReused);
    host.ask(2, command(3, 1));
    host.ask(3, another(1));
    assert_eq!((last(&host), replies(&host.take())), (4, vec![(3, &refused)]));
    // Also if the two arrive together.
    host.node.request(RequestId(4), command(3, 2));
    host.node.request(RequestId(5), another(2));
    host.collect();
    assert_eq!((last(&host), replies(&host.take())), (5, vec![(5, &refused)]));
    commit(&mut host, 5);
    assert_eq!(replies(&host.take()), [(2, &written(4)), (4, &written(5))]);
    host.ask(6, another(2));
    assert_eq!((last(&host), replies(&host.take())), (5, vec![(6, &refused)]));
}

#[test]
fn only_the_log_says_that_a_session_is_gone() {
    let mut host = with_session(|_| ());
    host.ask(2, command(2, 1));
    assert_eq!((last(&host), replies(&host.take())), (4, vec![]));
    commit(&mut host, 4);
    assert_eq!(replies(&host.take()), [(2, &Reply::Refused(Refusal::SessionExpired))]);
}

/// A follower whose log ends with command 1 of session 2 as entry 3@2, appended by node 2, wins
/// term 3.
fn inherits_a_command() -> Host {
    let mut host = Host::founded(3);
    let Request::Command { session, command } = command(2, 1) else { unreachable!("it is one") };
    let mut message = raft(2, MessageType::MsgAppend, 2);
    (message.index, message.log_term, message.commit) = (1, 1, 1);
    let data = [Proposal::OpenSession, Proposal::Command(session, &command)];
    message.entries = (2..)
        .zip(data)
        .map(|(index, data)| eraftpb::Entry {
            index,
            term: 2,
            data: data.encode(Duration::ZERO),
            ..Default::default()
        })
        .collect();
    host.receive_raft(message);
    host.persist();
    host.campaign();
    host.persist();
    host.vote(2);
    host.take();
    assert_eq!((host.node.status().role, last(&host)), (Role::Leader, 4));
    host
}

#[test]
fn a_retry_waits_for_an_entry_of_an_earlier_leader() {
    let mut host = inherits_a_command();
    host.ask(7, command(2, 1));
    assert_eq!(last(&host), 4, "no copy");
    commit(&mut host, 4);
    assert_eq!(replies(&host.take()), [(7, &written(3))]);
}

#[test]
fn one_that_waited_for_a_replaced_entry_is_refused() {
    let mut host = inherits_a_command();
    host.ask(7, command(2, 1));
    host.ask(8, command(2, 1));
    host.take();
    // Node 2 leads without the command, and commits another entry in its place.
    host.append(4, (2, 2), 3);
    host.persist();
    let refused = Reply::Refused(Refusal::Superseded);
    assert_eq!(replies(&host.take()), [(7, &refused), (8, &refused)]);
}

#[test]
fn one_that_waits_for_a_displaced_entry_is_left_in_doubt() {
    let mut host = inherits_a_command();
    host.ask(7, command(2, 1));
    host.append(4, (2, 2), 2);
    host.persist();
    host.campaign();
    host.persist();
    host.vote(2);
    host.persist();
    // The entry 3@2 may still be on other members. What stands there now is 3@4, and then 4@5.
    host.take();
    host.ask(8, command(2, 1));
    assert_eq!(last(&host), 5, "its copy is gone from this log");
    commit(&mut host, 5);
    let refused = Reply::Refused(Refusal::Superseded);
    assert_eq!(replies(&host.take()), [(7, &refused), (8, &written(5))]);
}

#[test]
fn those_that_wait_for_one_entry_are_bounded() {
    let mut host = with_session(|config| config.max_pending = 4);
    for id in 2..=9 {
        host.ask(id, command(3, 1));
    }
    assert_eq!((last(&host), host.node.load().proposals), (4, 4));
    let busy = Reply::Refused(Refusal::Busy);
    assert_eq!(replies(&host.take()), [6, 7, 8, 9].map(|id| (id, &busy)));
}

#[test]
fn each_that_waits_has_its_own_deadline() {
    let mut host = with_session(|config| config.request_ticks = 8);
    host.ask(2, command(3, 1));
    (0..4).for_each(|_| host.tick());
    host.ask(3, command(3, 1));
    host.take();
    // Every fourth tick it looks whose time is up.
    (0..7).for_each(|_| host.tick());
    assert_eq!(replies(&host.take()), [(2, &Reply::Unknown)]);
    commit(&mut host, 4);
    assert_eq!(replies(&host.take()), [(3, &written(4))]);
}

/// Lets ticks pass in each of which this many commands arrive and one is applied. Returns how many
/// were refused.
fn pass(host: &mut Host, ticks: u64, arrive: u64) -> usize {
    let mut refused = 0;
    for _ in 0..ticks {
        for _ in 0..arrive {
            host.put(9);
        }
        let next = last(host).min(host.node.status().applied.index + 1);
        commit(host, next);
        host.tick();
        let outputs = host.take();
        let is_busy = |(_, reply): &&(u64, &Reply)| **reply == Reply::Refused(Refusal::Busy);
        refused += replies(&outputs).iter().filter(is_busy).count();
    }
    refused
}

#[test]
fn what_cannot_be_answered_in_time_is_refused_and_the_rest_is_answered() {
    let mut host = Host::leading_with(|config| config.request_ticks = 160);
    assert_eq!(pass(&mut host, 100, 1), 0, "as many as are applied");
    let refused = pass(&mut host, 400, 10);
    let open = host.node.load().proposals;
    assert!((80..=100).contains(&open), "half of the time of a request is queued: {open}");
    assert!(refused > 3000, "{refused}");
    // Many who come in the same moment are no exception.
    (0..1000).for_each(|_| host.node.request(RequestId(9), put(&[b'v'; 8])));
    host.collect();
    assert!(host.node.load().proposals <= 100, "{}", host.node.load().proposals);
    let open = host.node.load().proposals;
    host.take();
    // None of those that were taken has run into its deadline.
    assert_eq!(pass(&mut host, open as u64, 0), 0);
    assert_eq!(host.node.load().proposals, 0);
    assert_eq!(pass(&mut host, 10, 1), 0);
}

#[test]
fn request_that_never_left_is_refused() {
    let mut host = Host::founded(3);
    host.append(2, (1, 1), 1);
    host.persist();
    host.take();
    host.put(5);
    host.put(6);
    let ids: Vec<u64> = host
        .take()
        .iter()
        .filter_map(|output| match output {
            Output::Send { message: Message::Forward { id, .. }, .. } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 2);
    host.node.not_forwarded(ids[0]);
    host.node.not_forwarded(ids[0]);
    host.node.disconnected(NodeId(2));
    host.collect();
    let refused = Reply::Refused(Refusal::NotLeader(Some(NodeId(2))));
    assert_eq!(replies(&host.take()), [(5, &refused), (6, &Reply::LeaderLost)]);
}
