//! Growth: a cluster of one or two voters with a large state gets one more, while its clients go on.
//!
//! There a new voter does most harm, because every quorum needs it at once. The mixed changes of the
//! membership seldom meet a large state and so few voters.

use stormkv::types::NodeId;

use crate::plan::{Cluster, Op, OpRow};

use super::dice::{Dice, Purpose};

/// Share of the plans, in percent.
const PERCENT: u32 = 3;
/// Time at which the clients have written the state, unless the disks are slow.
const FILLED_MS: u32 = 1000;
/// Share of these plans that have no faults, in percent: almost any fault excuses so small a cluster.
const CALM_PERCENT: u32 = 60;

/// Growth of one plan.
pub(super) struct Growth {
    /// Voters at the start.
    nodes: u32,
    after_ms: u32,
    /// No fault strikes.
    pub is_calm: bool,
}

/// Draws the growth of a plan; most plans have none.
pub(super) fn draw(seed: u64) -> Option<Growth> {
    let dice = &mut Dice::new(seed, Purpose::Growth);
    let grows = dice.percent(PERCENT);
    let growth = Growth {
        nodes: dice.weighted(&[(2, 1), (1, 2)]),
        after_ms: dice.between(FILLED_MS, 2 * FILLED_MS),
        is_calm: dice.percent(CALM_PERCENT),
    };
    grows.then_some(growth)
}

impl Growth {
    /// Makes the cluster as small as it is at the start.
    pub fn shape(&self, cluster: &mut Cluster) {
        (cluster.nodes, cluster.learners) = (self.nodes, 0);
    }

    /// The request of the operator.
    pub fn operation(&self) -> OpRow {
        let call = Op::Add(NodeId(u64::from(self.nodes) + 1)).into();
        OpRow { at_us: u64::from(self.after_ms) * 1000, client: 0, call }
    }
}
