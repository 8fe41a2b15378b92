//! A checker of the ledger's own: each receipt has a transfer of its own.
//!
//! The response to a transfer and the index that it names are a receipt. The model judges each receipt alone;
//! this checker judges them together, as an auditor would: for every receipt there is a transfer that was
//! committed up to that index, before the receipt was handed out, and that no other receipt was given for.

use std::collections::BTreeMap;

use stormkv::types::LogIndex;
use stormkv_sim::service::{CheckContext, Checker, Finding, Observation};

use crate::{Ledger, Op};

/// The committed transfers without a receipt.
#[derive(Debug, Default)]
pub struct Receipts {
    transfers: BTreeMap<LogIndex, Op>,
}

impl<const LEAKY: bool> Checker<Ledger<LEAKY>> for Receipts {
    fn name(&self) -> &'static str {
        "receipts"
    }

    fn observe(
        &mut self,
        seen: &Observation<'_, Ledger<LEAKY>>,
        context: &mut CheckContext<'_>,
    ) -> Result<(), Finding> {
        match seen {
            Observation::Committed(entry) => {
                if let Ok(transfer) = crate::parse(&String::from_utf8_lossy(entry.command)) {
                    self.transfers.insert(entry.index, transfer);
                }
                Ok(())
            }
            Observation::Response {
                worker, op: op @ Op::Transfer { .. }, index, response, ..
            } => {
                context.checked();
                context.sometimes("overdraft-refused", response.starts_with(b"refused"));
                self.receipt(worker.client, **op, *index)
            }
            _ => Ok(()),
        }
    }
}

impl Receipts {
    /// A client receives a receipt. The index is that of the transfer, or a later one if the client has repeated
    /// the request: then it is the index at which the repetition was recognized.
    fn receipt(&mut self, client: u32, op: Op, index: LogIndex) -> Result<(), Finding> {
        let mut earlier = self.transfers.range(..=index).rev();
        // The latest one: it leaves the earlier ones to receipts for earlier indices.
        match earlier.find(|(_, transfer)| **transfer == op).map(|(at, _)| *at) {
            Some(at) => {
                self.transfers.remove(&at);
                Ok(())
            }
            None => Err(Finding::new(format!(
                "c{client} has a receipt for `{op}` as of entry {index}, but no such transfer up to there \
                 is without a receipt"
            ))),
        }
    }
}
