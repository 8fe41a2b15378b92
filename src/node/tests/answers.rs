//! Long answers to small commands: neither kept in sessions nor made without bound.

use super::*;
use crate::kv::Command;
use crate::session::{MAX_KEPT_RESPONSE, SESSION_BYTES};
use crate::types::SessionId;

/// A compare-and-swap that fails, and so is answered with the value that is there.
fn failing_cas(session: Option<(SessionId, u64)>) -> Request {
    let (expected, new) = (Some("never".into()), None);
    Request::Command { session, command: Command::Cas { key: "k".into(), expected, new }.encode() }
}

/// A leader with a value of so many bytes, and a session.
fn leading(value: usize, settings: impl FnOnce(&mut Config)) -> (Host, SessionId) {
    let mut host = Host::found(1, settings);
    for _ in 0..40 {
        host.tick();
        host.persist();
    }
    host.ask(1, put(&vec![b'v'; value]));
    host.persist();
    host.ask(2, Request::OpenSession);
    host.persist();
    let outputs = host.take();
    let Some((2, Reply::SessionOpened(session))) = replies(&outputs).pop() else {
        panic!("no session in {outputs:?}")
    };
    let session = *session;
    (host, session)
}

#[test]
fn repetition_of_command_with_long_answer_is_not_kept() {
    let (mut host, session) = leading(50_000, |_| ());
    let told = |host: &mut Host, id| {
        host.ask(id, failing_cas(Some((session, 1))));
        host.persist();
        replies(&host.take()).pop().map(|(_, reply)| reply.clone())
    };
    let first = told(&mut host, 3);
    let Some(Reply::Applied { response, .. }) = first else { panic!("{first:?}") };
    let bytes = response.len() as u64;
    assert!(bytes > 50_000);
    let second = told(&mut host, 4);
    assert!(matches!(second, Some(Reply::NotKept { bytes: told, .. }) if told == bytes));
    assert_eq!(host.node.load().session_bytes, SESSION_BYTES);
}

#[test]
fn sessions_are_bounded_in_bytes() {
    let room = 4 * (SESSION_BYTES + MAX_KEPT_RESPONSE as u64);
    let (mut host, _) = leading(1000, |config| config.max_session_bytes = room);
    for id in (10..50).step_by(2) {
        host.ask(id, Request::OpenSession);
        host.persist();
        let outputs = host.take();
        let Some((_, Reply::SessionOpened(session))) = replies(&outputs).pop() else {
            panic!("no session in {outputs:?}")
        };
        host.ask(id + 1, failing_cas(Some((*session, 1))));
        host.persist();
        assert!(host.node.load().session_bytes <= room);
    }
    assert_eq!(host.node.load().sessions, 4, "as many as have room");
}

#[test]
fn long_answers_to_commands_are_bounded_in_one_go() {
    let (mut host, session) = leading(3000, |config| config.max_answer_bytes = 5000);
    for id in 10..15 {
        host.node.request(RequestId(id), failing_cas(None));
    }
    // A short answer needs no room.
    host.node.request(RequestId(15), put(b"v"));
    host.node.request(RequestId(16), failing_cas(Some((session, 1))));
    host.collect();
    host.persist();
    let outputs = host.take();
    let whole = |reply: &Reply| matches!(reply, Reply::Applied { .. });
    let replies: Vec<bool> = replies(&outputs).iter().map(|(_, reply)| whole(reply)).collect();
    assert_eq!(replies, [true, true, false, false, false, true, true]);
}
