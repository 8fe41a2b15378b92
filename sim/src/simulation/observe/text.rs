//! The line that a person reads of an observation, in traces and in reports about failures.

use stormkv::env::DiskOp;
use stormkv::node::Role;
use stormkv::types::NodeId;
use stormkv::wire::{Kind, Message};

use super::Observation;
use crate::service::Describe;
use crate::words;

/// The line of a trace, if the observation has one.
pub(super) fn line(describe: Describe, observation: &Observation<'_>) -> Option<String> {
    let sent = |(from, to), message: &Message| self::message(describe, from, to, message);
    Some(match observation {
        Observation::Paused(id) => format!("{id} is paused: it may happen later"),
        Observation::Busy(id) => format!("{id} is busy"),
        Observation::DiskHangs(id) => format!("the disk of {id} hangs"),
        Observation::Tick(id) => format!("{id} ticks"),
        Observation::Flush(id) => format!("{id} acts on its inputs"),
        Observation::StartDue { node, .. } => format!("{node} starts"),
        Observation::StartRefused(id, error) => format!("{id} does not start: {error}"),
        Observation::GaveUp(id, error) => format!("{id} stopped: {error}"),
        Observation::Down(id) => format!("{id} is down"),
        Observation::Lost(id, loss) => format!("{id} {}", loss.describe()),
        Observation::DiskBatchGone(id) => format!("{id} is gone, and its disk batch with it"),
        Observation::DiskBatchEmpty(id) => format!("{id} disk has nothing to do"),
        Observation::CrashBeforeDiskOp(id) => format!("{id} crashes before a disk operation"),
        Observation::NamesLost(id) => format!("{id} loses its power and its newest names"),
        Observation::DiskOp(id, op, _) => format!("{id} disk {}", disk_op(op)),
        Observation::Read(id, file) => format!("{id} has read {file}"),
        Observation::Worked(id, work) => format!("{id} has done work beside it: {work:?}"),
        Observation::Damaged { node, file, .. } => format!("{node} {file} is damaged"),
        Observation::Whole(id) => format!("{id} is whole again"),
        Observation::CannotBeSpared(id) => format!("{id} cannot be spared"),
        Observation::LostOnArrival { ends, message, .. } => {
            format!("{} is lost", sent(*ends, message))
        }
        Observation::Delivered { ends, message, .. } => sent(*ends, message),
        Observation::FrameRefused { ends, message, error } => {
            format!("{} is refused: {error}", sent(*ends, message))
        }
        Observation::LossReported { node, peer, disconnected } => {
            let what = if *disconnected { "disconnected" } else { "unreachable" };
            format!("{node} hears that {peer} is {what}")
        }
        Observation::RequestArrives { client, node, request, passes, .. } => {
            let what = words::request(describe, request);
            format!("{client} -> {node} {what}{}", if *passes { "" } else { " is lost" })
        }
        Observation::ReplyArrives { client, node, reply, lost, .. } => {
            let what = words::reply(describe, reply);
            let lost = if lost.is_some() { " is lost" } else { "" };
            format!("{node} -> {client} {what}{lost}")
        }
        Observation::ClientTimer { client, valid, .. } => {
            format!("{client} {}", if *valid { "goes on" } else { "has gone on already" })
        }
        Observation::ClientRestarts(number) => format!("c{number} restarts"),
        Observation::FaultDue(at, fault) => format!("fault {at}: {fault}"),
        Observation::FaultSkipped(at, why) => format!("fault {at} is skipped: {why}"),
        Observation::FaultOver(at, fault) => format!("fault {at} ends: {fault}"),
        Observation::Heals(core) => (*core).to_owned(),
        Observation::NotAtRest(missing) => format!("not at rest: {missing}"),
        Observation::CoreLed => "the core has a leader".to_owned(),
        Observation::AtRest => "at rest".to_owned(),
        Observation::Excused(why) => format!("excused: {why}"),
        _ => return None,
    })
}

/// What a report about a failure says of a node, beside the lines of the trace.
pub(super) fn note(describe: Describe, observation: &Observation<'_>) -> Option<(NodeId, String)> {
    Some(match observation {
        Observation::RoleChanged(id, new, term) => {
            (*id, format!("{id} becomes {} in term {term}", role(*new)))
        }
        Observation::Panicked(id, _) => (*id, format!("{id} panics")),
        Observation::DiskOp(id, _, Err(error)) => (*id, format!("{id} disk fails: {error}")),
        Observation::FaultHits(at, fault, id) => (*id, format!("fault {at}: {fault}")),
        Observation::Forbidden { ends: (from, to), message, .. } => {
            let what = self::message(describe, *from, *to, message);
            (*from, format!("{what} is about to be sent"))
        }
        Observation::Sent { ends: (from, to), message, .. } if grants_vote(message) => {
            (*from, format!("{} is sent", self::message(describe, *from, *to, message)))
        }
        _ => return None,
    })
}

/// Whether a message grants a vote.
pub(in crate::simulation) fn grants_vote(message: &Message) -> bool {
    message.kind() == Kind::VoteResp
        && matches!(message, Message::Raft(message) if !message.reject())
}

/// A role in words, with its article.
pub(in crate::simulation) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "a follower",
        Role::PreCandidate => "a pre-candidate",
        Role::Candidate => "a candidate",
        Role::Leader => "a leader",
    }
}

fn disk_op(op: &DiskOp) -> String {
    match op {
        DiskOp::Create { file, len } => format!("creates {file} with {len} bytes"),
        DiskOp::Write { file, offset, data } => {
            format!("writes {file} {offset}..{}", offset + data.len() as u64)
        }
        DiskOp::Sync { file } => format!("syncs {file}"),
        DiskOp::Rename { from, to } => format!("renames {from} to {to}"),
        DiskOp::Remove { file } => format!("removes {file}"),
        DiskOp::SyncDir => "syncs the directory".to_owned(),
    }
}

/// `n1 -> n2 Append t2 prev=3@1 [4@2 5@2] commit=3`
pub(in crate::simulation) fn message(
    describe: Describe,
    from: NodeId,
    to: NodeId,
    message: &Message,
) -> String {
    let kind = message.kind();
    let mut text = format!("{from} -> {to} {}", kind.name());
    match message {
        Message::Raft(raft) => {
            text.push_str(&format!(" t{}", raft.term()));
            match kind {
                Kind::Append => {
                    text.push_str(&format!(" prev={}@{} [", raft.index(), raft.log_term()));
                    for (at, (index, term)) in raft.entries().enumerate() {
                        let space = if at > 0 { " " } else { "" };
                        text.push_str(&format!("{space}{index}@{term}"));
                    }
                    text.push_str(&format!("] commit={}", raft.commit()));
                }
                Kind::Vote | Kind::PreVote => {
                    text.push_str(&format!(" last={}@{}", raft.index(), raft.log_term()));
                }
                Kind::AppendResp => text.push_str(&format!(" match={}", raft.index())),
                Kind::Heartbeat => text.push_str(&format!(" commit={}", raft.commit())),
                _ => {}
            }
            if raft.reject() {
                text.push_str(" refused");
            }
        }
        Message::Chunk(chunk) => {
            let (end, id) = (chunk.offset + chunk.data.len() as u64, chunk.snapshot);
            text.push_str(&format!(
                " of snapshot {}@{} bytes {}..{end} of {}",
                id.index, id.term, chunk.offset, chunk.total
            ));
        }
        Message::ChunkAck { received, done, .. } => {
            text.push_str(&format!(" received={received}"));
            match done {
                Some(true) => text.push_str(" done"),
                Some(false) => text.push_str(" failed"),
                None => {}
            }
        }
        Message::ReadIndexAnswer { index: Some(index), .. } => {
            text.push_str(&format!(" index={index}"));
        }
        Message::Answer { reply, .. } => {
            text.push_str(&format!(" {}", words::reply(describe, reply)))
        }
        Message::Forward { request, .. } => {
            text.push_str(&format!(" {}", words::request(describe, request)))
        }
        _ => {}
    }
    text
}
