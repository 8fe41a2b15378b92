//! Priorities of links, instead of chance, decide which message comes first.
//!
//! Probabilistic concurrency testing (Burckhardt et al., ASPLOS 2010; for messages: Ozkan et al.,
//! OOPSLA 2018): schedules by strict priorities, which change at few random moments, reach an order
//! of d events with a chance that does not fall exponentially in d. Here each link from one node to
//! another has a priority, and the lower it is, the longer each message takes; at a moment of change
//! a link falls behind all others. It is all said by faults of the plan, so that a plan remains all
//! there is to say about a run.

use stormkv::types::NodeId;

use crate::plan::{FaultRow, LinkFault, Member, Path};

use super::dice::{Dice, Purpose};
use super::storm::Cast;

/// The most moments at which a priority changes.
const MOST_CHANGES: u32 = 5;

/// Draws how late each link between these nodes is, and when that changes.
pub(super) fn lags(seed: u64, nodes: &[NodeId], cast: &Cast) -> Vec<FaultRow> {
    let dice = &mut Dice::new(seed, Purpose::Priorities);
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
    let mut links: Vec<(NodeId, NodeId)> = pairs.filter(|(from, to)| from != to).collect();
    if links.is_empty() {
        return Vec::new();
    }
    // The first has the highest priority and is not late at all.
    dice.shuffle(&mut links);
    let election_ms = (cast.election_us / 1000).max(1) as u32;
    let span_us = dice.scaled_us(1, 2 * election_ms);
    let late_us = |rank: u64| span_us * rank / links.len() as u64 / 100 * 100;
    // By link: since when it is so late.
    let mut since: Vec<(u64, u64)> =
        (0..links.len() as u64).map(|rank| (0, late_us(rank))).collect();
    let changes = dice.between(1, MOST_CHANGES);
    let mut moments: Vec<u64> =
        (0..changes).map(|_| dice.time_us(0, (cast.horizon_us / 1000) as u32)).collect();
    moments.sort_unstable();
    let mut rows = Vec::new();
    let mut row = |link: usize, at_us: u64, delay_us: u64, until_us: Option<u64>| {
        if delay_us > 0 && until_us != Some(at_us) {
            let (from, to) = links[link];
            let path = Path::Between { from: vec![Member::Node(from)], to: vec![Member::Node(to)] };
            rows.push(FaultRow {
                at_us,
                until_us,
                fault: LinkFault::Lag { path, delay_us }.into(),
            });
        }
    };
    for (moment, last_rank) in moments.into_iter().zip(links.len() as u64..) {
        let link = dice.below(links.len() as u32) as usize;
        let (at_us, delay_us) = std::mem::replace(&mut since[link], (moment, late_us(last_rank)));
        row(link, at_us, delay_us, Some(moment));
    }
    for (link, (at_us, delay_us)) in since.into_iter().enumerate() {
        row(link, at_us, delay_us, None);
    }
    rows
}
