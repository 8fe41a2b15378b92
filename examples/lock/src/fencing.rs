//! A checker of the lock service's own: fencing tokens grow.
//!
//! The model judges each answer by itself. This checker looks at what a resource relies on that the lock
//! protects: who acquires the lock after another one's grant was answered has a higher token, whatever clients
//! and nodes have crashed in between.

use std::collections::BTreeMap;

use stormkv_sim::service::{CheckContext, Checker, Finding, Observation, Worker};

use super::{Granted, LOCKS, LockService, Op, Token};

/// See the module.
#[derive(Debug, Default)]
pub struct Fencing {
    /// The highest token of each lock that a client has received, and whether its release was answered.
    newest: [(Token, bool); LOCKS],
    /// That token when a worker began to acquire the lock.
    floors: BTreeMap<Worker, Token>,
}

impl<const REVIVING: bool> Checker<LockService<REVIVING>> for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn observe(
        &mut self,
        seen: &Observation<'_, LockService<REVIVING>>,
        context: &mut CheckContext<'_>,
    ) -> Result<(), Finding> {
        match seen {
            Observation::Called { worker, op: Op::Acquire { lock, .. }, .. } => {
                self.floors.insert(*worker, self.newest[*lock].0);
            }
            Observation::Response { worker, op: Op::Acquire { lock, .. }, response, .. } => {
                let Some(Granted { token, .. }) = Granted::parse(response) else { return Ok(()) };
                let floor = self.floors.get(worker).copied().unwrap_or(0);
                context.checked();
                if token <= floor {
                    return Err(Finding::new(format!(
                        "c{} was granted lock {lock} with token {token}, although {floor} had been handed out \
                         before it asked",
                        worker.client
                    )));
                }
                let (newest, is_released) = &mut self.newest[*lock];
                context.sometimes("taken-over", *newest > 0 && !*is_released);
                if token > *newest {
                    (*newest, *is_released) = (token, false);
                }
            }
            Observation::Response { op: Op::Release(lock), response, .. } => {
                self.newest[*lock].1 |= *response == b"released";
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use stormkv::types::NodeId;
    use stormkv_sim::service::Stamp;

    use super::*;

    type Seen<'a> = Observation<'a, LockService>;

    #[test]
    fn lower_token_after_a_higher_one_is_noticed() {
        let (op, node) = (Op::Acquire { lock: 1, ms: 100 }, NodeId(1));
        let [one, other] = [0, 1].map(|number| Worker { client: number + 1, number });
        let called = |worker| Seen::Called { worker, op: &op, is_stale: false, recorded: None };
        let granted = |worker, response| Seen::Response {
            worker,
            op: &op,
            node,
            index: 9,
            response,
            recorded: None,
        };
        let judge = |observations: &[Seen<'_>]| {
            let mut fencing = Fencing::default();
            observations.iter().try_for_each(|seen| {
                let (mut checked, mut reach) = (0, |_| ());
                let at = Stamp::default();
                fencing.observe(seen, &mut CheckContext::new(at, &mut checked, &mut reach))
            })
        };
        let [low, high] = [&b"granted 7 until 100"[..], b"granted 9 until 300"];
        // Two that overlap may be answered in any order.
        let overlapping = [called(one), called(other), granted(other, high), granted(one, low)];
        assert_eq!(judge(&overlapping), Ok(()));
        let reused = [called(other), granted(other, high), called(one), granted(one, low)];
        assert!(judge(&reused).is_err());
    }
}
