//! Which records of a log are vouched for: damage to them can be told from a torn tail.
//!
//! For those who damage logs on purpose, and for those who explain what a damaged log can lose. It
//! judges by the same rule as recovery: a record is vouched for by the watermark of a later one in
//! its segment, or by the header of the next segment. The record with the highest watermark of its
//! segment is never listed, so whatever is damaged of the listed ones, the voucher stays.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::record::Record;
use super::segment;

/// A record whose damage recovery notices.
#[derive(Clone, Debug)]
pub struct Vouched {
    /// The segment it is in.
    pub segment: u64,
    /// Its bytes there; a header includes the preamble before it.
    pub bytes: Range<u64>,
    /// What it says.
    pub record: Record,
}

/// The records of these segments (by number, with their whole content) that are vouched for, in
/// order. Of a segment with a damaged header there are none: nobody looks into it.
pub fn vouched(segments: &BTreeMap<u64, Bytes>) -> Vec<Vouched> {
    let headers: Vec<(u64, Record)> = segments
        .iter()
        .filter_map(|(&number, data)| Some((number, header(number, data)?)))
        .collect();
    let mut found = Vec::new();
    for (number, header) in &headers {
        let data = &segments[number];
        let end = segment::header_end(header.floor);
        let mut own = vec![Vouched { segment: *number, bytes: 0..end, record: header.clone() }];
        own.extend(segment::survivors(*number, data, end as usize).map(|(record, end)| {
            let bytes = record.position.offset..end as u64;
            Vouched { segment: *number, bytes, record }
        }));
        let within = own.iter().filter(|found| found.record.synced.segment == *number);
        let within = within.map(|found| found.record.synced.offset).max().unwrap_or(0);
        let followed = headers.iter().filter(|(_, next)| next.synced.segment == *number);
        let followed = followed.map(|(_, next)| next.synced.offset).max().unwrap_or(0);
        // A header is only missed if a record follows it.
        let missed = own.len() > 1;
        own.retain(|found| match found.bytes.start {
            0 => missed && found.bytes.end <= within,
            _ => found.bytes.end <= within.max(followed),
        });
        found.append(&mut own);
    }
    found
}

fn header(number: u64, data: &Bytes) -> Option<Record> {
    segment::decode_header(number, data).ok().flatten()
}
