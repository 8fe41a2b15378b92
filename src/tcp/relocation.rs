//! Members that are no longer where the membership says.
//!
//! When machines are restored from images or a network is renumbered, the replicated addresses are wrong, and
//! without them no leader can be elected who could replicate others. So a link that fails tries the address
//! from the settings and the one that the peer itself has given, too (see `link`). The handshake proves that
//! the right member is there. Once there is a leader it makes the addresses that work the replicated ones; a
//! follower asks it to do the same for the leader's own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, info};

use crate::api::{Reply, Request};
use crate::node::Role;
use crate::tcp::handle::View;
use crate::tcp::network::Network;
use crate::types::NodeId;

/// Between two looks. Long against an election, so that a link has had the time to try the usual address.
const EVERY: Duration = Duration::from_secs(2);

/// Moves members to where this node has found them, for ever.
pub(super) async fn run(network: Arc<Network>) {
    loop {
        sleep(EVERY).await;
        let view = network.handle.view();
        for (id, url) in found_elsewhere(&network, &view) {
            let change = view.membership.relocation(id, url.clone());
            match network.handle.request(Request::Reconfigure(change)).await {
                Reply::Reconfigured { index } => {
                    info!(member = %id, url, index, "a member has moved to another address");
                }
                // It is tried again as long as it is true.
                reply => debug!(member = %id, url, ?reply, "a member could not be moved"),
            }
        }
    }
}

/// The members that this node should see to, and where they are.
fn found_elsewhere(network: &Network, view: &View) -> Vec<(NodeId, String)> {
    let (me, leader) = (view.status.id, view.status.leader);
    let mine = |id: NodeId| match view.status.role {
        Role::Leader => id != me,
        _ => Some(id) == leader,
    };
    let mut found: Vec<(NodeId, String)> = view
        .membership
        .addresses()
        .iter()
        .filter(|(id, _)| mine(**id))
        .filter_map(|(id, known)| Some((*id, network.reached(*id).filter(|url| url != known)?)))
        .collect();
    // Nobody else could say where the only member is, and those who join are told to dial it.
    if view.membership.is_only_member(me) && view.status.role == Role::Leader {
        let own = &network.options.url;
        let moved = view.membership.addresses().get(&me).is_some_and(|known| known != own);
        found.extend((moved && !own.is_empty()).then(|| (me, own.clone())));
    }
    found
}
