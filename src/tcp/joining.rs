//! What a node that joins says while it waits to be added.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::tcp::handle::Handle;
use crate::types::NodeId;

/// For which a node that was added in time says nothing.
const QUIET: Duration = Duration::from_secs(2);
/// Between two reminders.
const AGAIN: Duration = Duration::from_secs(60);

/// Reminds whoever reads the log to add the node `id`, which its peers reach at `url`, until it is a member.
pub(super) async fn remind(handle: Handle, id: NodeId, url: String) {
    sleep(QUIET).await;
    let mut views = handle.watch();
    if views.borrow().membership.contains(id) {
        return;
    }
    let number = id.0;
    loop {
        warn!(
            "this node is not a member of the cluster yet, and waits: add it with `stormkv ctl add {number} \
             {url}`, or with curl http://MEMBER/v1/members -d '{{\"id\":{number},\"url\":\"{url}\"}}'"
        );
        match timeout(AGAIN, views.wait_for(|view| view.membership.contains(id))).await {
            Ok(Ok(_)) => return info!("this node was added to the cluster"),
            // It ends.
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}
