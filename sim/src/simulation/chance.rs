//! What chance did to single messages, as rows of a plan.
//!
//! A plan with these rows needs no chance any more: that is how a shrunk plan keeps the one message
//! whose loss matters.

use stormkv::types::NodeId;

use crate::network::{Endpoint, NetAction, NetRule};
use crate::plan::{Member, MessageKind, MessageRef, NetEffect, NetRow};

/// The rows that say what these exceptions say. Delays are rounded up to whole microseconds.
pub(super) fn rows(noted: Vec<NetRule>) -> Vec<NetRow> {
    noted.into_iter().filter_map(row).collect()
}

/// `None` if the network carries a kind of message that no plan can name, or too many of them.
fn row(rule: NetRule) -> Option<NetRow> {
    let kind = MessageKind::all().find(|kind| kind.code() == rule.kind)?;
    let number = u32::try_from(rule.nth).ok()?;
    let effect = match rule.action {
        NetAction::Drop => NetEffect::Drop,
        NetAction::Duplicate => NetEffect::Duplicate,
        NetAction::DelayNs(ns) => NetEffect::Delay { by_us: ns.div_ceil(1000) },
    };
    let (from, to) = (member(rule.from)?, member(rule.to)?);
    Some(NetRow { effect, message: MessageRef { from, to, kind, number } })
}

fn member(endpoint: Endpoint) -> Option<Member> {
    match endpoint {
        Endpoint::Node(id) => Some(Member::Node(NodeId(id))),
        // The operator has no name in a file.
        Endpoint::Client(0) => None,
        Endpoint::Client(number) => u32::try_from(number).ok().map(Member::Client),
    }
}
