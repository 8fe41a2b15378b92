//! For tests: a byte stream that gives and takes bytes as a script has it, and futures that are
//! dropped before they are done.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a call of the stream does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// It is not ready, and wakes its task at once.
    Pending,
    /// It takes or gives at most so many bytes.
    Bytes(usize),
}

/// Any steps, with at least one that makes progress.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![1..4_usize, 1..100_usize, 1..200_000_usize].prop_map(Step::Bytes);
    let step = prop_oneof![1 => Just(Step::Pending), 2 => bytes.clone()];
    (proptest::collection::vec(step, 0..12), bytes).prop_map(|(mut steps, last)| {
        steps.push(last);
        steps
    })
}

/// Hands reads and writes through to `stream`, in pieces that follow the steps, which begin anew
/// when they are through.
#[derive(Debug)]
pub(super) struct Choppy<S> {
    stream: S,
    steps: Vec<Step>,
    at: usize,
}

impl<S> Choppy<S> {
    pub(super) fn new(stream: S, steps: Vec<Step>) -> Choppy<S> {
        Choppy { stream, steps, at: 0 }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    fn step(&mut self, cx: &Context<'_>) -> Poll<usize> {
        let step = self.steps[self.at % self.steps.len()];
        self.at += 1;
        match step {
            Step::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Step::Bytes(bytes) => Poll::Ready(bytes),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Choppy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = ready!(self.step(cx)).min(into.remaining());
        let mut piece = vec![0; bytes];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        into.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Choppy<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bytes = ready!(self.step(cx)).min(data.len());
        Pin::new(&mut self.stream).poll_write(cx, &data[..bytes])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.step(cx));
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Polls a future `polls` times, unless it is done before, and drops it.
pub(super) fn poll_and_drop<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Some(output);
        }
    }
    None
}
