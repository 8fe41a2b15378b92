//! The node of the key-value store.

use super::{Server, ServerError};
use crate::kv::Kv;
use crate::tcp::http::KvRoutes;
use crate::tcp::options::Options;

impl Server {
    /// Starts the node of the key-value store that `options` describe. Returns when it has read its
    /// disk and listens. [`start_with`](Server::start_with) does the same for other machines.
    ///
    /// # Errors
    /// When a directory, a file, a port or the node itself refuses.
    pub async fn start(options: Options) -> Result<Server, ServerError> {
        Server::start_node::<Kv, KvRoutes>(options, ()).await
    }
}
