//! What the operator of a random plan does: members come, are promoted, leave, are replaced.
//!
//! The sequence makes sense if every step succeeds, and no step of these takes the cluster below two
//! voters (see `churn.rs` for what goes further). Only now and then the operator adds a member again
//! that has left, and must be refused. Some steps follow so closely that they overlap.

use stormkv::types::NodeId;

use crate::plan::{Cluster, Op, OpRow};

use super::churn;
use super::dice::{Dice, Purpose};

/// The most voters a random plan grows to.
pub(super) const MOST_VOTERS: usize = 7;

#[derive(Clone, Copy)]
enum Change {
    Add,
    Learner,
    Promote,
    Remove,
    RemoveLearner,
    Replace,
    Transfer,
    /// Adds a member that has left, which must be refused.
    AddAgain,
}

/// Who will be there if every step succeeds.
pub(super) struct Members {
    pub voters: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    removed: Vec<NodeId>,
    next: u64,
}

/// Draws the operator's operations, in order of time.
pub(super) fn operations(seed: u64, cluster: &Cluster, horizon_us: u64) -> Vec<OpRow> {
    if let Some(rows) = churn::operations(seed, cluster, horizon_us) {
        return rows;
    }
    let dice = &mut Dice::new(seed, Purpose::Membership);
    let horizon_ms = (horizon_us / 1000) as u32;
    let mut members = Members::founders(cluster);
    let changes: &[(u32, Change)] = if dice.percent(30) {
        &[
            (3, Change::Add),
            (3, Change::Learner),
            (4, Change::Promote),
            (3, Change::Remove),
            (1, Change::RemoveLearner),
            (3, Change::Replace),
            (4, Change::Transfer),
            (2, Change::AddAgain),
        ]
    } else if dice.percent(20) {
        &[(1, Change::Transfer)]
    } else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    let mut at_us = dice.time_us(100, horizon_ms / 2);
    for _ in 0..dice.between(1, 8) {
        if at_us > horizon_us {
            break;
        }
        let change = dice.weighted(changes);
        if let Some(op) = members.apply(dice, change) {
            rows.push(OpRow { at_us, client: 0, call: op.into() });
            at_us +=
                if dice.percent(60) { dice.time_us(200, 1500) } else { dice.scaled_us(1, 100) };
        }
    }
    rows
}

impl Members {
    pub fn founders(cluster: &Cluster) -> Members {
        let nodes = u64::from(cluster.nodes);
        let next = nodes + u64::from(cluster.learners) + 1;
        Members {
            voters: (1..=nodes).map(NodeId).collect(),
            learners: (nodes + 1..next).map(NodeId).collect(),
            removed: Vec::new(),
            next,
        }
    }

    /// Makes the change if it is possible now.
    fn apply(&mut self, dice: &mut Dice, change: Change) -> Option<Op> {
        let voters = self.voters.len();
        match change {
            Change::Add if voters < MOST_VOTERS => {
                let node = self.new_node();
                self.voters.push(node);
                Some(Op::Add(node))
            }
            Change::Learner if self.learners.len() < 2 => {
                let node = self.new_node();
                self.learners.push(node);
                Some(Op::Learner(node))
            }
            Change::Promote if !self.learners.is_empty() && voters < MOST_VOTERS => {
                let node = take(dice, &mut self.learners);
                self.voters.push(node);
                Some(Op::Promote(node))
            }
            Change::Remove if voters > 3 || (voters == 3 && dice.percent(30)) => {
                let node = take(dice, &mut self.voters);
                self.removed.push(node);
                Some(Op::Remove(node))
            }
            Change::RemoveLearner if !self.learners.is_empty() => {
                let node = take(dice, &mut self.learners);
                self.removed.push(node);
                Some(Op::Remove(node))
            }
            Change::AddAgain if !self.removed.is_empty() => Some(Op::Add(dice.pick(&self.removed))),
            Change::Replace if voters >= 3 => {
                let old = take(dice, &mut self.voters);
                self.removed.push(old);
                let new = self.new_node();
                self.voters.push(new);
                Some(Op::Replace { old, new })
            }
            Change::Transfer if voters > 1 => Some(Op::Transfer(dice.pick(&self.voters))),
            _ => None,
        }
    }

    /// A number that no node has had.
    pub fn new_node(&mut self) -> NodeId {
        self.next += 1;
        NodeId(self.next - 1)
    }
}

/// Takes any of them out.
pub(super) fn take(dice: &mut Dice, nodes: &mut Vec<NodeId>) -> NodeId {
    nodes.remove(dice.below(nodes.len() as u32) as usize)
}
