//! The state as a file, while the node goes on.
//!
//! The pieces are made on a thread of their own, at the pace at which the client takes them: a few
//! wait in a channel, never all.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use tokio::sync::{Semaphore, mpsc};

use super::answer::Answer;
use super::ask::Asker;
use super::body::{Answering, Body};
use super::error::{ApiError, Code};
use super::watch::Watched;

/// Pieces, of about 64 KiB each, that may wait for the client.
const WAITING: usize = 8;

/// `GET /v1/backup`. Holds all that was acknowledged before it was asked for.
pub(super) async fn backup(
    asker: &Asker<'_>,
    running: &Arc<Semaphore>,
    connection: &Arc<Watched>,
) -> Answer {
    let Ok(permit) = Arc::clone(running).try_acquire_owned() else {
        let message = "other backups are under way: try again later";
        return Err(ApiError::new(Code::Busy, message));
    };
    asker.barrier().await?;
    let Some(snapshot) = asker.handle.backup().await else {
        let message = "the node is too busy or stopping: try again, or at another member";
        return Err(asker.stopped().unwrap_or_else(|| ApiError::new(Code::Busy, message)));
    };
    let (sender, receiver) = mpsc::channel::<Bytes>(WAITING);
    tokio::task::spawn_blocking(move || {
        // Ends, too, when the client has gone: then nobody receives.
        for piece in snapshot {
            if sender.blocking_send(piece).is_err() {
                break;
            }
        }
        drop(permit);
    });
    let mut response =
        Response::new(Body::Stream { pieces: receiver, _busy: Answering(Arc::clone(connection)) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let name = HeaderValue::from_static("attachment; filename=\"stormkv.snap\"");
    headers.insert(CONTENT_DISPOSITION, name);
    Ok(response)
}
