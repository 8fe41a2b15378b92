//! The members of the cluster: who they are, and how that changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::Answer;
use super::ask::Asker;
use super::body::Body;
use super::error::{ApiError, Code};
use super::json;
use super::params::{Params, number};
use super::{ClientUrls, PeerRules};
use crate::api::{Consistency, Reconfigure};
use crate::node::{Membership, Role};
use crate::tcp::address::PeerUrl;
use crate::tcp::handle::View;
use crate::types::{LogIndex, NodeId, SnapshotId};

/// How long to wait for this node's view to show what its answer already reflects.
const VIEW_LAG: Duration = Duration::from_secs(1);

/// Raft gives up on a transfer after an election timeout; then it is asked for again.
const TRANSFER_AGAIN: Duration = Duration::from_millis(500);

/// A member's id out of a path.
pub(super) fn node_id(text: &str) -> Result<NodeId, ApiError> {
    number(text).filter(|id| *id > 0).map(NodeId).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        let message = format!("`{shown}` is no member id: use a number from 1");
        ApiError::new(Code::InvalidNodeId, message)
    })
}

/// A member's address, as the others will dial it.
fn address(id: NodeId, bytes: &[u8], peers: PeerRules) -> Result<String, ApiError> {
    let text = String::from_utf8_lossy(bytes);
    let url = text.trim().parse::<PeerUrl>().and_then(|url| {
        url.check(id, peers.tls, peers.allow_plaintext)?;
        Ok(url.to_string())
    });
    url.map_err(|message| ApiError::new(Code::InvalidUrl, message))
}

/// A view that shows all changes that were acknowledged before.
async fn fresh_view(asker: &Asker<'_>) -> Result<Arc<View>, ApiError> {
    let index = asker.barrier().await?;
    let mut views = asker.handle.watch();
    let shown = views.wait_for(|view| view.status.applied.index >= index);
    // If it does not come, the newest there is must do: the node checks each change once more.
    let _ = timeout(VIEW_LAG, shown).await;
    Ok(asker.handle.view())
}

/// Adds a member, or moves one that is there and has that role.
async fn add(
    asker: &Asker<'_>,
    id: NodeId,
    url: String,
    learner: bool,
    forced: bool,
) -> Result<LogIndex, ApiError> {
    let mut change =
        Reconfigure { addresses: BTreeMap::from([(id, url)]), ..Reconfigure::default() };
    if learner { &mut change.learners } else { &mut change.voters }.push(id);
    reconfigure(asker, id, change, forced).await
}

/// Removes a member.
pub(super) async fn remove(
    asker: &Asker<'_>,
    id: NodeId,
    forced: bool,
) -> Result<LogIndex, ApiError> {
    let view = fresh_view(asker).await?;
    member(&view, id)?;
    let change = Reconfigure { removed: vec![id], ..Reconfigure::default() };
    reconfigure(asker, id, change, forced).await
}

/// Fails if `id` is no member.
fn member(view: &View, id: NodeId) -> Result<(), ApiError> {
    if view.membership.contains(id) {
        return Ok(());
    }
    let was = if view.membership.removed().contains(&id) { " any more" } else { "" };
    let message = format!("{} is no member{was}: see GET /v1/members", id.0);
    Err(ApiError::new(Code::MemberNotFound, message))
}

/// Makes a change about `id`; if it is refused for good, says what is wrong with it.
async fn reconfigure(
    asker: &Asker<'_>,
    id: NodeId,
    change: Reconfigure,
    forced: bool,
) -> Result<LogIndex, ApiError> {
    let (url, learner) = (change.addresses.get(&id).cloned(), change.learners.contains(&id));
    let adds = url.is_some();
    let result = asker.reconfigure(change, forced).await;
    let Err(error) = &result else { return result };
    if error.code() != Code::InvalidMembershipChange {
        return result;
    }
    let view = fresh_view(asker).await.unwrap_or_else(|_| asker.handle.view());
    let membership = &view.membership;
    let url_of = membership
        .addresses()
        .iter()
        .find(|(other, at)| **other != id && Some(*at) == url.as_ref());
    let message = if let Some((other, at)) = url_of {
        format!(
            "member {other} is at {at}: give {id} the URL at which it listens itself, or, if it takes the \
             place of {other}, remove that one first",
            other = other.0,
            id = id.0
        )
    } else if membership.removed().contains(&id) {
        format!("{} was removed once, and ids are never used again: choose another one", id.0)
    } else if adds && learner && membership.is_promised(id) {
        format!(
            "{0} is a learner that becomes a voter: if that is not wanted any more, use \
             POST /v1/members/{0}/demote",
            id.0
        )
    } else if adds && learner && membership.votes(id) {
        format!(
            "{0} is a voter, and as a learner it would lose its vote: if that is wanted, use \
             POST /v1/members/{0}/demote",
            id.0
        )
    } else if adds && !learner && membership.learners().contains(&id) {
        format!(
            "{0} is a learner already: give it a vote with POST /v1/members/{0}/promote, or another \
             address with PUT /v1/members/{0}",
            id.0
        )
    } else if membership.voters().len() == 1 && membership.voters().contains(&id) {
        format!("{} is the last voter: add another one first", id.0)
    } else {
        return result;
    };
    Err(ApiError::new(Code::InvalidMembershipChange, message))
}

/// Adds a voter that the others reach at the address in `url`.
pub(super) async fn add_voter(
    asker: &Asker<'_>,
    id: NodeId,
    url: &[u8],
    peers: PeerRules,
    forced: bool,
) -> Result<LogIndex, ApiError> {
    add(asker, id, address(id, url, peers)?, false, forced).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMember {
    id: u64,
    url: String,
    #[serde(default)]
    learner: bool,
}

/// `POST /v1/members`.
pub(super) async fn add_member(
    asker: &Asker<'_>,
    body: &[u8],
    peers: PeerRules,
    forced: bool,
) -> Answer {
    let member: NewMember = json::parse(body)?;
    let id = node_id(&member.id.to_string())?;
    let url = address(id, member.url.as_bytes(), peers)?;
    done(add(asker, id, url, member.learner, forced).await?)
}

/// `DELETE /v1/members/<id>`.
pub(super) async fn remove_member(asker: &Asker<'_>, id: &str, forced: bool) -> Answer {
    done(remove(asker, node_id(id)?, forced).await?)
}

/// `POST /v1/members/<id>/promote`.
pub(super) async fn promote(asker: &Asker<'_>, id: &str, forced: bool) -> Answer {
    let id = node_id(id)?;
    let view = fresh_view(asker).await?;
    member(&view, id)?;
    let change = Reconfigure { voters: vec![id], ..Reconfigure::default() };
    done(reconfigure(asker, id, change, forced).await?)
}

/// `POST /v1/members/<id>/demote`.
pub(super) async fn demote(asker: &Asker<'_>, id: &str, forced: bool) -> Answer {
    let id = node_id(id)?;
    let view = fresh_view(asker).await?;
    member(&view, id)?;
    let change = Reconfigure { learners: vec![id], ..Reconfigure::default() };
    done(reconfigure(asker, id, change, forced).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    url: String,
}

/// `PUT /v1/members/<id>`. A change names its member in a role, and this one must not change it: the
/// leader refuses it if the role is another one by then, and it is made again for that one.
pub(super) async fn move_member(
    asker: &Asker<'_>,
    id: &str,
    body: &[u8],
    peers: PeerRules,
) -> Answer {
    let id = node_id(id)?;
    let Address { url } = json::parse(body)?;
    let url = address(id, url.as_bytes(), peers)?;
    let mut view = fresh_view(asker).await?;
    loop {
        member(&view, id)?;
        let change = view.membership.relocation(id, url.clone());
        let moved = reconfigure(asker, id, change.clone(), false).await;
        if !moved.as_ref().is_err_and(|error| error.code() == Code::InvalidMembershipChange) {
            return done(moved?);
        }
        view = fresh_view(asker).await?;
        if view.membership.relocation(id, url.clone()) == change {
            return done(moved?);
        }
    }
}

fn done(index: LogIndex) -> Answer {
    Ok(json::answer(&json!({ "index": index })))
}

/// `GET /v1/members`.
pub(super) async fn members(
    asker: &Asker<'_>,
    query: Option<&str>,
    client_urls: Option<&ClientUrls>,
) -> Answer {
    let view = match Params::parse(query, &["consistency"])?.consistency()? {
        Consistency::Linearizable => fresh_view(asker).await?,
        Consistency::Stale => asker.handle.view(),
    };
    let membership: &Membership = &view.membership;
    let learners = membership.learners().iter().filter(|id| !membership.votes(**id));
    let voters = membership.voters().iter().map(|id| (*id, "voter"));
    let leaving = membership.outgoing().difference(membership.voters()).map(|id| (*id, "outgoing"));
    let all: BTreeMap<NodeId, &str> =
        voters.chain(leaving).chain(learners.map(|id| (*id, "learner"))).collect();
    let members: Vec<Value> = all
        .iter()
        .map(|(id, role)| {
            json!({
                "id": id.0,
                "url": membership.addresses().get(id),
                "client_url": client_urls.and_then(|known| known(*id)),
                "role": role,
                "becomes_voter": membership.is_promised(*id),
                "leader": view.status.leader == Some(*id),
            })
        })
        .collect();
    let removed: Vec<u64> = membership.removed().iter().map(|id| id.0).collect();
    Ok(json::answer(&json!({ "members": members, "removed": removed })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leader {
    id: u64,
}

/// `POST /v1/leader`: hands leadership to a member and waits until it leads.
pub(super) async fn transfer(asker: &Asker<'_>, body: &[u8]) -> Answer {
    let Leader { id } = json::parse(body)?;
    let to = node_id(&id.to_string())?;
    let view = asker.handle.view();
    member(&view, to)?;
    if !view.membership.voters().contains(&to) {
        let message = format!("{id} has no vote, so it cannot lead: promote it first");
        return Err(ApiError::new(Code::InvalidMembershipChange, message));
    }
    let transferred = timeout(asker.patience, async {
        let mut views = asker.handle.watch();
        loop {
            asker.transfer(to).await?;
            let leads = views.wait_for(|view| view.status.leader == Some(to));
            if let Ok(Ok(_)) = timeout(TRANSFER_AGAIN, leads).await {
                return Ok(());
            }
            if let Some(stopped) = asker.stopped() {
                return Err(stopped);
            }
        }
    });
    match transferred.await {
        Ok(Ok(())) => Ok(json::answer(&json!({ "leader": id }))),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let message = format!(
                "{id} does not lead yet, and still may: is it up, and has it the newest entries? \
                 See GET /v1/status"
            );
            Err(ApiError::new(Code::OutcomeUnknown, message))
        }
    }
}

/// `GET /v1/status`: this node's own view of itself.
pub(super) fn status(asker: &Asker<'_>, uptime: Duration) -> Response<Body> {
    let view = asker.handle.view();
    let at = |id: SnapshotId| json!({ "index": id.index, "term": id.term });
    let status = &view.status;
    let mut json = json!({
        "id": status.id.0,
        "cluster": view.cluster.map(|cluster| cluster.to_string()),
        "version": env!("CARGO_PKG_VERSION"),
        "role": role(status.role),
        "term": status.hard_state.term,
        "vote": Some(status.hard_state.vote.0).filter(|vote| *vote > 0),
        "leader": status.leader.map(|leader| leader.0),
        "commit": status.hard_state.commit,
        "applied": at(status.applied),
        "first": status.first,
        "last": at(status.last),
        "snapshot": at(status.snapshot),
        "pending": view.pending,
        "keys": view.size.entries,
        "state_bytes": view.size.bytes,
        "log_bytes": view.load.log_bytes,
        "segments": view.segments,
        "disk_full": view.space.is_short,
        "disk_free_bytes": view.space.free,
        "uptime_s": uptime.as_secs(),
    });
    if status.role == Role::Leader {
        let members = view.progress.iter().map(|member| {
            json!({
                "id": member.id.0,
                "matched": member.matched,
                "next": member.next,
                "in_snapshot": member.in_snapshot,
            })
        });
        json["members"] = members.collect();
    }
    if let Some(damage) = &view.damage {
        json["damaged"] = json!({
            "file": damage.file.to_string(),
            "offset": damage.offset,
            "reason": damage.reason,
            "repaired_at": at(damage.floor),
        });
    }
    if let Some(error) = &view.stopped {
        json["stopped"] = error.to_string().into();
    }
    json::answer(&json)
}

pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

/// `GET /ready`: whether this node can serve, which takes a leader and a round to it.
pub(super) async fn ready(asker: &Asker<'_>, patience: Duration) -> Answer {
    if let Some(stopped) = asker.stopped() {
        return Err(stopped);
    }
    let view = asker.handle.view();
    if view.membership.voters().is_empty() {
        let message = format!(
            "this node is not a member of a cluster yet: add it with POST /v1/members at a member, and \
             {{\"id\":{},\"url\":\"..\"}} as body",
            view.status.id.0
        );
        return Err(ApiError::new(Code::NoLeader, message));
    }
    match timeout(patience, asker.barrier()).await {
        Ok(Ok(_)) => Ok(json::answer(&json!({ "ready": true }))),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let message = format!(
                "no linearizable read was answered within {} s: is a majority of the members up?",
                patience.as_secs_f32()
            );
            Err(ApiError::new(Code::NoLeader, message))
        }
    }
}

/// `GET /health`: whether this node runs. Says nothing about the others.
pub(super) fn health(asker: &Asker<'_>) -> Answer {
    match asker.stopped() {
        None => Ok(json::answer(&json!({ "health": "ok" }))),
        Some(stopped) => Err(stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_the_members_dial() {
        let (near, far) = (PeerRules::default(), PeerRules { allow_plaintext: true, tls: false });
        let tls = PeerRules { tls: true, allow_plaintext: false };
        let address = |text: &str, peers| address(NodeId(4), text.as_bytes(), peers);
        for (text, peers, wanted) in [
            ("http://127.0.0.1:42379", near, "http://127.0.0.1:42379"),
            ("http://[::1]:80", near, "http://[::1]:80"),
            ("http://node-4.example:2380", far, "http://node-4.example:2380"),
            ("https://node-4.example:2380/\n", tls, "https://node-4.example:2380"),
        ] {
            assert_eq!(address(text, peers), Ok(wanted.to_owned()));
        }
        let long = format!("http://{}:1", "a".repeat(1100));
        for (text, peers) in [
            ("", far),
            ("127.0.0.1:42379", far),
            ("http://host", far),
            ("ftp://host:1", far),
            ("http://host:0", far),
            ("http://host:1/path", far),
            ("http://u@host:1", far),
            ("\u{e4}", far),
            (&long, far),
            // Nobody would dial these.
            ("https://a!b:80", tls),
            ("https://127.0.0.1:80", far),
            ("http://host:1", near),
            ("http://127.0.0.1:1", tls),
        ] {
            let error = address(text, peers).unwrap_err();
            assert_eq!(error.code(), Code::InvalidUrl, "{text}");
            assert!(error.message().contains(": "), "no remedy: {}", error.message());
        }
        assert!(super::address(NodeId(4), &[0xff], far).is_err());
    }

    #[test]
    fn an_id_is_a_number_from_one() {
        assert_eq!(node_id("4"), Ok(NodeId(4)));
        for text in ["", "0", "04", "+4", "-4", "4/", "%34", "99999999999999999999", "key"] {
            let error = node_id(text).unwrap_err();
            assert_eq!(error.code(), Code::InvalidNodeId);
            assert!(error.message().ends_with("use a number from 1"));
        }
    }
}
