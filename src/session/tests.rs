//! The table in one thread: retries, eviction, bounds, formats.

use super::*;

fn at_most(count: usize) -> SessionLimits {
    SessionLimits { count, bytes: 1 << 20 }
}

const COMMAND: &[u8] = b"command";

fn applied(table: &mut Sessions, id: SessionId, seq: u64, index: LogIndex, response: &str) {
    assert_eq!(table.check(id, seq, COMMAND, index), Verdict::Fresh);
    table.record(id, seq, COMMAND, Bytes::copy_from_slice(response.as_bytes()));
}

#[test]
fn a_retry_gets_the_first_response() {
    let mut table = Sessions::new(at_most(10));
    let id = table.open(5);
    assert_eq!(id, SessionId(5));
    applied(&mut table, id, 1, 6, "one");
    assert_eq!(table.check(id, 1, COMMAND, 7), Verdict::Repeated("one".into()));
    applied(&mut table, id, 2, 8, "two");
    assert_eq!(table.check(id, 2, COMMAND, 9), Verdict::Repeated("two".into()));
    assert_eq!(table.check(id, 1, COMMAND, 10), Verdict::OutOfOrder);
}

#[test]
fn a_judgement_is_no_use_of_a_session() {
    let mut table = Sessions::new(at_most(10));
    let id = table.open(5);
    applied(&mut table, id, 2, 6, "two");
    let digest = table.digest();
    let judged = [0, 1, 2, 3].map(|seq| table.judge(id, seq, COMMAND));
    let two = Verdict::Repeated("two".into());
    assert_eq!(judged, [Verdict::OutOfOrder, Verdict::OutOfOrder, two, Verdict::Fresh]);
    assert_eq!(table.judge(SessionId(6), 1, COMMAND), Verdict::Expired);
    assert_eq!(table.digest(), digest);
}

#[test]
fn skipped_numbers_are_gone() {
    let mut table = Sessions::new(at_most(10));
    let id = table.open(1);
    applied(&mut table, id, 7, 2, "seven");
    assert_eq!(table.check(id, 6, COMMAND, 3), Verdict::OutOfOrder);
    applied(&mut table, id, u64::MAX, 4, "last");
    assert_eq!(table.check(id, u64::MAX, COMMAND, 5), Verdict::Repeated("last".into()));
}

#[test]
fn number_zero_is_never_applied() {
    let mut table = Sessions::new(at_most(10));
    let id = table.open(1);
    assert_eq!(table.check(id, 0, COMMAND, 2), Verdict::OutOfOrder);
}

#[test]
fn the_least_recently_used_session_is_evicted() {
    let mut table = Sessions::new(at_most(2));
    let (first, second) = (table.open(1), table.open(2));
    applied(&mut table, first, 1, 3, "");
    let third = table.open(4);
    assert_eq!(table.len(), 2);
    assert_eq!(table.check(second, 1, COMMAND, 5), Verdict::Expired);
    assert_eq!(table.check(first, 1, COMMAND, 6), Verdict::Repeated(Bytes::new()));
    // Even a refused command is a use.
    assert_eq!(table.check(third, 0, COMMAND, 7), Verdict::OutOfOrder);
    table.open(8);
    assert_eq!(table.check(first, 2, COMMAND, 9), Verdict::Expired);
    assert_eq!(table.check(third, 1, COMMAND, 10), Verdict::Fresh);
}

#[test]
fn the_digest_covers_use_number_and_response() {
    let table = |steps: &dyn Fn(&mut Sessions, SessionId)| {
        let mut table = Sessions::new(at_most(3));
        let id = table.open(1);
        steps(&mut table, id);
        table.digest()
    };
    let digests = BTreeSet::from([
        Sessions::new(at_most(3)).digest(),
        table(&|_, _| {}),
        table(&|table, id| assert_eq!(table.check(id, 1, COMMAND, 2), Verdict::Fresh)),
        table(&|table, id| applied(table, id, 1, 2, "")),
        table(&|table, id| applied(table, id, 2, 2, "")),
        table(&|table, id| applied(table, id, 1, 2, "a")),
        table(&|table, id| applied(table, id, 1, 3, "a")),
    ]);
    assert_eq!(digests.len(), 7);
    // An evicted session leaves nothing behind.
    let mut evicted = Sessions::new(at_most(1));
    let id = evicted.open(1);
    applied(&mut evicted, id, 1, 2, "a");
    evicted.open(9);
    let mut fresh = Sessions::new(at_most(1));
    fresh.open(9);
    assert_eq!(evicted.digest(), fresh.digest());
}

#[test]
fn a_snapshot_is_frozen_and_a_lower_limit_evicts_late() {
    let mut table = Sessions::new(at_most(9));
    let ids: Vec<SessionId> = (1..=4).map(|index| table.open(index)).collect();
    let (chunks, digest) = (table.chunks(), table.digest());
    applied(&mut table, ids[0], 1, 5, "later");
    let mut restored = Sessions::restore(at_most(2), &mut { chunks }).unwrap();
    assert_eq!((restored.len(), restored.digest()), (4, digest));
    restored.open(5);
    assert_eq!(restored.len(), 2);
    assert_eq!(restored.check(ids[3], 1, COMMAND, 6), Verdict::Fresh);
    assert_eq!(restored.check(ids[2], 1, COMMAND, 7), Verdict::Expired);
}

#[test]
#[should_panic(expected = "applied in order")]
fn the_log_does_not_go_back() {
    let mut table = Sessions::new(at_most(2));
    let id = table.open(5);
    let _ = table.check(id, 1, COMMAND, 4);
}

/// A response of so many bytes.
fn long(len: usize) -> String {
    "r".repeat(len)
}

#[test]
fn response_over_the_limit_is_not_kept() {
    let mut table = Sessions::new(at_most(10));
    let id = table.open(1);
    let empty = table.bytes();
    applied(&mut table, id, 1, 2, &long(MAX_KEPT_RESPONSE));
    assert_eq!(table.bytes(), empty + MAX_KEPT_RESPONSE as u64);
    assert_eq!(table.check(id, 1, COMMAND, 3), Verdict::Repeated(long(MAX_KEPT_RESPONSE).into()));
    applied(&mut table, id, 2, 4, &long(MAX_KEPT_RESPONSE + 1));
    assert_eq!(table.bytes(), empty);
    assert_eq!(table.check(id, 2, COMMAND, 5), Verdict::NotKept(MAX_KEPT_RESPONSE as u64 + 1));
    assert_eq!(table.check(id, 1, COMMAND, 6), Verdict::OutOfOrder);
    let mut restored = Sessions::restore(at_most(10), &mut table.chunks()).unwrap();
    assert_eq!((restored.bytes(), restored.digest()), (table.bytes(), table.digest()));
    assert_eq!(restored.check(id, 2, COMMAND, 7), Verdict::NotKept(MAX_KEPT_RESPONSE as u64 + 1));
}

#[test]
fn bytes_over_the_limit_evict_the_least_recently_used() {
    let full = SessionLimits::LEAST_BYTES;
    let mut table = Sessions::new(SessionLimits { count: 10, bytes: 2 * full });
    let ids: Vec<SessionId> = (1..=4).map(|index| table.open(index)).collect();
    applied(&mut table, ids[0], 1, 5, &long(MAX_KEPT_RESPONSE));
    assert_eq!(table.len(), 4);
    // Room for the two largest, so the two others go: first those that were only opened.
    applied(&mut table, ids[3], 1, 6, &long(MAX_KEPT_RESPONSE));
    assert_eq!((table.len(), table.bytes()), (2, 2 * full));
    assert_eq!(table.check(ids[1], 1, COMMAND, 7), Verdict::Expired);
    assert_eq!(table.check(ids[2], 1, COMMAND, 8), Verdict::Expired);
    let _new = table.open(9);
    assert_eq!(table.check(ids[0], 1, COMMAND, 10), Verdict::Expired);
    assert!(matches!(table.check(ids[3], 1, COMMAND, 11), Verdict::Repeated(_)));
}

#[test]
fn lower_byte_limit_evicts_late() {
    let mut table = Sessions::new(at_most(9));
    for index in 1..=9 {
        table.open(index);
    }
    let lower = SessionLimits { count: 9, bytes: SessionLimits::LEAST_BYTES };
    let mut restored = Sessions::restore(lower, &mut table.chunks()).unwrap();
    assert_eq!((restored.len(), restored.digest()), (9, table.digest()));
    applied(&mut restored, SessionId(9), 1, 10, &long(1000));
    assert_eq!((restored.len(), restored.bytes()), (1, SESSION_BYTES + 1000));
}

#[test]
fn another_command_with_the_same_number_is_refused() {
    let mut table = Sessions::new(at_most(9));
    let id = table.open(1);
    applied(&mut table, id, 1, 2, "one");
    assert_eq!(table.check(id, 1, b"another", 3), Verdict::Reused);
    assert_eq!(table.judge(id, 1, b"another"), Verdict::Reused);
    assert_eq!(table.judge(id, 1, COMMAND), Verdict::Repeated("one".into()));
    let mut restored = Sessions::restore(at_most(9), &mut table.chunks()).unwrap();
    assert_eq!(restored.digest(), table.digest());
    assert_eq!(restored.check(id, 1, b"another", 4), Verdict::Reused);
    // An older number says nothing of its command any more.
    applied(&mut restored, id, 2, 5, "two");
    assert_eq!(restored.check(id, 1, b"another", 6), Verdict::OutOfOrder);
}

/// Streams of version 1 hold every response in full, and those of version 2 nothing of the command.
#[test]
fn former_versions_are_still_read() {
    let mut table = Sessions::new(at_most(9));
    let (small, large) = (table.open(1), table.open(2));
    applied(&mut table, small, 3, 3, "small");
    applied(&mut table, large, 4, 4, &long(5000));
    let restored = |version: u8, sessions: Vec<Vec<u8>>| {
        let header = postcard::to_extend(&(2u64, table.digest()), vec![version]).unwrap();
        let mut chunks = [header].into_iter().chain(sessions).map(Bytes::from);
        Sessions::restore(at_most(9), &mut chunks).unwrap()
    };
    let former = [(small, 3u64, 3u64, "small".to_owned()), (large, 4, 4, long(5000))];
    let encoded = |response: &dyn Fn(String) -> Vec<u8>| {
        let session = |(id, used, seq, text): &(SessionId, u64, u64, String)| {
            let mut bytes = postcard::to_stdvec(&(id, used, seq)).unwrap();
            bytes.extend(response(text.clone()));
            bytes
        };
        former.iter().map(session).collect()
    };
    let first = encoded(&|text| postcard::to_stdvec(&Bytes::from(text)).unwrap());
    let second = encoded(&|text| postcard::to_stdvec(&Kept::new(text.into())).unwrap());
    for (version, sessions) in [(1, first), (2, second)] {
        let mut restored = restored(version, sessions);
        assert_eq!((restored.bytes(), restored.digest()), (table.bytes(), table.digest()));
        assert_eq!(restored.check(small, 3, b"any", 5), Verdict::Repeated("small".into()));
        assert_eq!(restored.check(large, 4, b"any", 6), Verdict::NotKept(5000));
        applied(&mut restored, small, 4, 7, "next");
        assert_eq!(restored.check(small, 4, b"any", 8), Verdict::Reused);
    }
}
