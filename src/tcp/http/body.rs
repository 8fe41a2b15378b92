//! Bodies: of requests, within limits of size, time and memory, and of responses.
//!
//! Large ones share one budget, whichever way they go: a client that sends slowly holds memory, and
//! so does one that takes its answer slowly. The memory for a request is reserved as its bytes arrive,
//! twice as much as there are at most: what is only announced costs nothing, and keeps nobody out. The
//! memory for an answer is reserved before the answer is made, and belongs to its bytes until the last
//! of them is sent.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::error::{ApiError, Code};
use super::service::now;
use super::watch::Watched;

/// Bodies up to this size do not count against the memory for all bodies.
const SMALL: usize = 64 << 10;

/// What bounds the bodies of requests, and together with them those of large responses.
pub(crate) struct Bodies {
    max: usize,
    patience: Duration,
    /// One permit per KiB that all large bodies together may take.
    memory: Arc<Semaphore>,
}

/// All of a request's body.
pub(crate) struct Arrived {
    pub bytes: Bytes,
    /// To be kept as long as the bytes are.
    pub memory: Option<OwnedSemaphorePermit>,
    /// When the last byte came, if it had to be waited for.
    pub at: Option<Instant>,
}

impl Bodies {
    pub fn new(max: usize, patience: Duration, memory: usize) -> Bodies {
        let kib = (memory >> 10).clamp(1, Semaphore::MAX_PERMITS);
        Bodies { max, patience, memory: Arc::new(Semaphore::new(kib)) }
    }

    /// The same for bodies of another size, in the same memory.
    pub fn of_size(&self, max: usize) -> Bodies {
        Bodies { max, patience: self.patience, memory: Arc::clone(&self.memory) }
    }

    /// All of a body.
    pub async fn read(&self, body: Incoming) -> Result<Arrived, ApiError> {
        let expected = body.size_hint();
        if expected.lower() > self.max as u64 {
            return Err(self.too_large());
        }
        if body.is_end_stream() {
            return Ok(Arrived { bytes: Bytes::new(), memory: None, at: None });
        }
        let mut collected = pin!(self.collect(body, expected));
        // Mostly it came together with its head, and needs neither a timer nor a clock.
        let first = poll_fn(|cx| Poll::Ready(collected.as_mut().poll(cx))).await;
        if let Poll::Ready(result) = first {
            let (bytes, memory) = result?;
            return Ok(Arrived { bytes, memory, at: None });
        }
        match timeout(self.patience, collected).await {
            Ok(result) => {
                let (bytes, memory) = result?;
                Ok(Arrived { bytes, memory, at: Some(now()) })
            }
            Err(_) => {
                let message = format!(
                    "the body did not arrive within {} s: send it faster, or a smaller one",
                    self.patience.as_secs_f32()
                );
                Err(ApiError::new(Code::Timeout, message).and_close())
            }
        }
    }

    async fn collect(
        &self,
        mut body: Incoming,
        expected: SizeHint,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
        let most = expected.upper().map_or(self.max, |upper| (upper as usize).min(self.max));
        let mut reserved = Reserved { memory: &self.memory, bytes: SMALL, permit: None };
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let message = format!("the body broke off: {error}: send it again");
                ApiError::new(Code::InvalidBody, message).and_close()
            })?;
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let arrived = first.len() + rest.len() + data.len();
            if arrived > self.max {
                return Err(self.too_large());
            }
            let room = reserved.grow(arrived, most).ok_or_else(|| {
                let message = "too many large bodies are on their way: try again later";
                ApiError::new(Code::Busy, message).and_close()
            })?;
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                rest.reserve(room.min(most).saturating_sub(rest.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
                rest.extend_from_slice(&data);
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, reserved.permit))
    }

    fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.memory).try_acquire_many_owned(kib).ok()
    }

    /// Memory for the body of an answer, if there is that much.
    fn room(&self, bytes: usize) -> Option<Room> {
        if bytes <= SMALL { Some(Room(None)) } else { self.reserve(bytes).map(Some).map(Room) }
    }

    /// The same for the answer to a question.
    pub fn room_to_answer(&self, bytes: usize) -> Result<Room, ApiError> {
        let message = "too many large answers are on their way: take them faster, ask for less, or \
                       try again later";
        self.room(bytes).ok_or_else(|| ApiError::new(Code::Busy, message))
    }

    /// The same for the answer to a command. The command has taken effect, so to refuse it now would
    /// state the opposite of what is true.
    pub fn room_after_command(&self, bytes: usize) -> Result<Room, ApiError> {
        let message = "the command was applied, but too many large answers are on their way to make \
                       its own: read what it did";
        self.room(bytes).ok_or_else(|| ApiError::new(Code::AnswerNotKept, message))
    }

    fn too_large(&self) -> ApiError {
        let message = format!("the body is larger than {} bytes: split it", self.max);
        ApiError::new(Code::TooLarge, message).and_close()
    }
}

/// Memory for the body of a request that is arriving.
struct Reserved<'a> {
    memory: &'a Arc<Semaphore>,
    /// Bytes for which there is room; the first [`SMALL`] need no permit.
    bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Reserved<'_> {
    /// Makes room for `arrived` bytes of a body that has `most`, and returns the room there is now;
    /// `None` if there is not so much memory. The room doubles each time, so that the body is copied
    /// a few times only.
    fn grow(&mut self, arrived: usize, most: usize) -> Option<usize> {
        if arrived > self.bytes {
            let wanted = arrived.max(most.min(2 * self.bytes)).next_multiple_of(1 << 10);
            let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = u32::try_from((wanted >> 10) - held).ok()?;
            let more = Arc::clone(self.memory).try_acquire_many_owned(more).ok()?;
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                None => self.permit = Some(more),
            }
            self.bytes = wanted;
        }
        assert!(arrived <= self.bytes, "there is room for what has arrived");
        Some(self.bytes)
    }
}

/// Memory for the body of an answer.
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// The bytes, which give the memory back with the last of them.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        match self.0 {
            None => bytes,
            Some(permit) => Bytes::from_owner(Held { bytes, _memory: permit }),
        }
    }
}

struct Held {
    bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of a response.
pub(crate) enum Body {
    /// All of it; `None` once it is sent.
    Full(Option<Bytes>),
    /// Pieces as they are produced. The connection is busy until it is dropped.
    Stream { pieces: mpsc::Receiver<Bytes>, _busy: Answering },
}

impl Body {
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        let bytes = bytes.into();
        Body::Full(if bytes.is_empty() { None } else { Some(bytes) })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream { pieces, .. } => {
                pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Body::Stream { .. } => SizeHint::default(),
        }
    }
}

/// Tells the watchdog, when it is dropped, that only the sending is left.
pub(crate) struct Answering(pub Arc<Watched>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering();
    }
}
