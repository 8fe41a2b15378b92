//! A checker of the ledger's own: what clients may do with their receipts.
//!
//! The response to a transfer and the index that it names are a receipt. The model holds each receipt for itself;
//! this checker holds them together, as an auditor would: every receipt names a transfer that was committed
//! before the receipt was handed out, and no two clients hold a receipt for the same one.

use std::collections::BTreeMap;

use stormkv::types::LogIndex;
use stormkv_sim::service::{Checker, Context, Finding, Observation, Worker};

use crate::{Ledger, Op};

/// The transfers that are committed, each with the client that has a receipt for it.
#[derive(Debug, Default)]
pub struct Receipts {
    transfers: BTreeMap<LogIndex, (Op, Option<Worker>)>,
}

impl<const LEAKY: bool> Checker<Ledger<LEAKY>> for Receipts {
    fn name(&self) -> &'static str {
        "receipts"
    }

    fn observe(
        &mut self,
        seen: &Observation<'_, Ledger<LEAKY>>,
        context: &mut Context<'_>,
    ) -> Result<(), Finding> {
        match seen {
            Observation::Committed(entry) => {
                if let Ok(transfer) = crate::parse(&String::from_utf8_lossy(entry.command)) {
                    self.transfers.insert(entry.index, (transfer, None));
                }
                Ok(())
            }
            Observation::Response {
                worker, op: op @ Op::Transfer { .. }, index, response, ..
            } => {
                context.checked();
                context.sometimes("overdraft-refused", response.starts_with(b"refused"));
                self.receipt(*worker, **op, *index)
            }
            _ => Ok(()),
        }
    }
}

impl Receipts {
    /// A client receives a receipt. One for a transfer that the client has repeated may name a later index, at
    /// which the repetition was recognized; there is no transfer there.
    fn receipt(&mut self, worker: Worker, op: Op, index: LogIndex) -> Result<(), Finding> {
        let Some((transfer, holder)) = self.transfers.get_mut(&index) else { return Ok(()) };
        let client = worker.client;
        if *transfer != op {
            let message = format!(
                "c{client} has a receipt for `{op}` at entry {index}, which is `{transfer}`"
            );
            return Err(Finding::new(message));
        }
        match holder.replace(worker) {
            Some(other) if other != worker => {
                let other = other.client;
                let message = format!(
                    "c{client} and c{other} both have a receipt for `{op}` at entry {index}"
                );
                Err(Finding::new(message))
            }
            _ => Ok(()),
        }
    }
}
