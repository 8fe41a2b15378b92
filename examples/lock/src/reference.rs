//! The reference of the lock service, written anew from its documentation: one lease a lock at most, by
//! construction.

use bytes::Bytes;
use stormkv::machine::{Context, StateMachine};
use stormkv::types::LogIndex;
use stormkv_sim::service::Model;

use super::{Ask, LOCKS, Limits, Locks, Token};

/// The token of a lock's lease and the time at which it expires, in milliseconds.
type Leases = [Option<(Token, u64)>; LOCKS];

/// The leases in force after each command that was committed.
#[derive(Clone, Debug)]
pub struct Reference<const REVIVING: bool = false> {
    limits: Limits,
    /// Each with its index and its time.
    pages: Vec<(LogIndex, u64, Leases)>,
}

impl<const REVIVING: bool> Reference<REVIVING> {
    /// The leases in force as of an index.
    fn as_of(&self, index: LogIndex) -> Leases {
        let page = self.pages.partition_point(|(at, ..)| *at <= index);
        page.checked_sub(1).map_or([None; LOCKS], |page| self.pages[page].2)
    }
}

impl<const REVIVING: bool> Model for Reference<REVIVING> {
    type Machine = Locks<REVIVING>;

    fn new(limits: &<Locks<REVIVING> as StateMachine>::Params) -> Self {
        Reference { limits: limits.clone(), pages: Vec::new() }
    }

    fn apply(&mut self, context: Context, command: &[u8]) -> Bytes {
        let now = context.time.as_millis() as u64;
        let until = |ms: u64| now + ms.min(self.limits.longest_ms);
        let mut page = self.as_of(LogIndex::MAX);
        for lease in &mut page {
            lease.take_if(|(_, expires)| *expires <= now);
        }
        let answer = match Ask::parse(command) {
            Ok(Ask::Acquire { lock, ms }) => match page[lock] {
                Some((_, expires)) => format!("held until {expires}"),
                None => {
                    page[lock] = Some((context.index, until(ms)));
                    format!("granted {} until {}", context.index, until(ms))
                }
            },
            Ok(Ask::Renew { lock, token, ms }) => match &mut page[lock] {
                Some((holder, expires)) if *holder == token => {
                    *expires = until(ms);
                    format!("renewed until {expires}")
                }
                _ => "lost".to_owned(),
            },
            Ok(Ask::Release { lock, token }) => {
                match page[lock].take_if(|(holder, _)| *holder == token) {
                    Some(_) => "released".to_owned(),
                    None => "lost".to_owned(),
                }
            }
            _ => String::new(),
        };
        self.pages.push((context.index, now, page));
        answer.into()
    }

    fn query(&self, index: LogIndex, query: &[u8]) -> Option<Bytes> {
        let Ok(Ask::Holder(lock)) = Ask::parse(query) else { return None };
        Some(match self.as_of(index)[lock] {
            Some((token, expires)) => format!("{token} until {expires}").into(),
            None => "free".into(),
        })
    }

    fn compare(&self, machine: &Locks<REVIVING>) -> Result<(), String> {
        let page = self.as_of(LogIndex::MAX);
        for (lock, lease) in page.iter().enumerate() {
            let held: Vec<_> = machine.in_force(lock).collect();
            if !held.iter().eq(lease) {
                return Err(format!(
                    "holds {held:?} on lock {lock}, where the log makes {lease:?}"
                ));
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.pages.drain(..self.pages.len().saturating_sub(1));
    }

    fn remembered(&self) -> usize {
        self.pages.len()
    }
}
