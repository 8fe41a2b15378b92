//! What is listed as vouched for is what recovery can tell from a torn tail.

use std::collections::BTreeMap;

use super::*;

/// Every single byte of a record that is listed as vouched for can be damaged, and recovery says so;
/// the last record is not listed, and damage to it is taken for a torn tail.
#[test]
fn damage_to_what_is_vouched_for_is_noticed_wherever_it_is() {
    let mut files = Files::default();
    let mut wal = files.open().wal;
    for index in 1..=20 {
        append(&mut files, &mut wal, hard(1, index - 1), None, &[entry(index, 1, 40)]);
    }
    assert!(files.segments().len() > 1, "the log goes over several segments");
    let segments: BTreeMap<u64, Bytes> = files
        .segments()
        .into_iter()
        .map(|number| (number, Bytes::from(files.content(FileName::Segment(number)).to_vec())))
        .collect();
    let listed = vouched(&segments);
    assert_eq!(listed.iter().filter(|found| !found.record.entries.is_empty()).count(), 19);
    for found in &listed {
        for at in found.bytes.clone() {
            let mut files = files.clone();
            files.flip(found.segment, at);
            assert!(!is_whole(&files.recover()), "byte {at} of segment {}", found.segment);
        }
    }
    let last = segments.keys().max().unwrap();
    files.flip(*last, wal.position().offset() - 8);
    let recovered = files.recover();
    assert!(is_whole(&recovered) && recovered.unwrap().torn.is_some());
}

/// Whether the log was recovered without a word about damage.
fn is_whole(recovered: &Result<Recovered, Error>) -> bool {
    recovered.as_ref().is_ok_and(|recovered| recovered.damage.is_none())
}
