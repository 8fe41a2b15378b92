//! Frames on a byte stream: reading them safely, and the transport's own two kinds.
//!
//! What a frame looks like is said in [`wire`]. A reader trusts nothing: the length is
//! checked before memory is reserved for it, and even then memory is only reserved as bytes
//! arrive, so that a header alone costs nothing. The body is decoded in place: the payloads of
//! raft's entries share the reader's buffer instead of being copied.
//!
//! Beside messages there are pings and pongs, which never leave the transport: a dialer sends a
//! ping every second and measures how long the pong takes; a side that hears nothing for some
//! seconds gives the connection up.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::wire::{self, HEADER, MAX_FRAME, Message, WireError};

/// The kind of a ping: the dialer asks whether the acceptor still reads.
pub const PING: u8 = 3;
/// The kind of a pong: the acceptor's answer, with the same body.
pub const PONG: u8 = 4;

/// Bytes of a whole ping or pong.
pub const PING_BYTES: usize = HEADER + 1 + 8;

/// Room that is kept for bytes to arrive.
const ROOM: usize = 64 << 10;

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A message for the node.
    Message(Message),
    /// Asks for a [`Frame::Pong`] with the same number.
    Ping(u64),
    /// Answers a [`Frame::Ping`].
    Pong(u64),
}

impl Frame {
    /// Appends the frame as bytes.
    pub fn encode_into(&self, buffer: &mut Vec<u8>) {
        let mut nonce = |kind, number: u64| {
            wire::put_frame(buffer, kind, |buffer| buffer.extend_from_slice(&number.to_le_bytes()));
        };
        match self {
            Frame::Message(message) => message.encode_into(buffer),
            Frame::Ping(number) => nonce(PING, *number),
            Frame::Pong(number) => nonce(PONG, *number),
        }
    }
}

/// Why reading ended.
#[derive(Debug)]
pub enum ReadError {
    /// The stream failed, or ended in the middle of a frame.
    Io(io::Error),
    /// Nothing arrived for this long.
    Silent(Duration),
    /// What arrived is no frame.
    Garbage(WireError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(error) => write!(f, "{error}"),
            ReadError::Silent(limit) => write!(f, "nothing was heard for {limit:?}"),
            ReadError::Garbage(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for ReadError {}

/// Reads frames from a stream.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limit: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `stream` frames whose kind and body have at most `limit` bytes (and never more
    /// than [`MAX_FRAME`]).
    pub fn new(stream: R, limit: usize) -> Self {
        FrameReader { stream, buffer: BytesMut::new(), limit: limit.min(MAX_FRAME) }
    }

    /// The stream, for writing to it.
    pub fn stream(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The next frame; `None` when the stream has ended between two frames. Nothing is lost when
    /// the future is dropped before it is done.
    ///
    /// # Errors
    /// When the stream fails, sends no frame, or sends nothing for as long as `silence`.
    pub async fn next(&mut self, silence: Duration) -> Result<Option<Frame>, ReadError> {
        loop {
            let wanted = match self.take_frame().map_err(ReadError::Garbage)? {
                Ok(frame) => return Ok(Some(frame)),
                Err(wanted) => wanted,
            };
            // Never more than has arrived already, or a little: a length alone reserves nothing.
            self.buffer.reserve(wanted.min(self.buffer.len().max(ROOM)));
            let read = self.stream.read_buf(&mut self.buffer);
            match timeout(silence, read).await {
                Err(_) => return Err(ReadError::Silent(silence)),
                Ok(Err(error)) => return Err(ReadError::Io(error)),
                Ok(Ok(0)) if self.buffer.is_empty() => return Ok(None),
                Ok(Ok(0)) => return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(_)) => {}
            }
        }
    }

    /// The frame at the beginning of the buffer, or how many bytes are missing.
    fn take_frame(&mut self) -> Result<Result<Frame, usize>, WireError> {
        let Some(mut header) = self.buffer.get(..HEADER) else {
            return Ok(Err(HEADER - self.buffer.len()));
        };
        let (length, crc) = (header.get_u32_le() as usize, header.get_u32_le());
        if length > self.limit {
            return Err(WireError::TooLong(length));
        }
        if length == 0 {
            return Err(WireError::Truncated);
        }
        let whole = HEADER + length;
        if self.buffer.len() < whole {
            return Ok(Err(whole - self.buffer.len()));
        }
        let frame = self.buffer.split_to(whole).freeze();
        let kind = frame[HEADER];
        if kind != PING && kind != PONG {
            return Ok(Ok(Frame::Message(Message::decode(&frame)?)));
        }
        if crc32fast::hash(&frame[HEADER..]) != crc {
            return Err(WireError::Checksum);
        }
        let number: [u8; 8] = frame[HEADER + 1..]
            .try_into()
            .map_err(|_| WireError::Malformed("a ping has 8 bytes".to_owned()))?;
        let number = u64::from_le_bytes(number);
        Ok(Ok(if kind == PING { Frame::Ping(number) } else { Frame::Pong(number) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Request;
    use crate::tcp::choppy::{Choppy, poll_and_drop, steps};
    use bytes::Bytes;
    use proptest::prelude::*;

    const LONG: Duration = Duration::from_secs(60);

    fn read_all(bytes: &[u8], limit: usize) -> (Vec<Frame>, Result<(), ReadError>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut reader = FrameReader::new(bytes, limit);
        let mut frames = Vec::new();
        loop {
            match runtime.block_on(reader.next(LONG)) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, Ok(())),
                Err(error) => return (frames, Err(error)),
            }
        }
    }

    fn frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            any::<u64>().prop_map(Frame::Ping),
            any::<u64>().prop_map(Frame::Pong),
            any::<u64>().prop_map(|id| Frame::Message(Message::ReadIndex { id })),
            (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300_000)).prop_map(
                |(id, command)| {
                    let request = Request::Command { session: None, command: Bytes::from(command) };
                    Frame::Message(Message::Forward { id, request })
                }
            ),
        ]
    }

    fn encode(frames: &[Frame]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode_into(&mut bytes));
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn frames_come_back_in_order(frames in proptest::collection::vec(frame(), 0..6)) {
            let (found, end) = read_all(&encode(&frames), MAX_FRAME);
            prop_assert_eq!(found, frames);
            prop_assert!(end.is_ok());
        }

        #[test]
        fn a_damaged_stream_gives_a_true_beginning_and_an_error(
            frames in proptest::collection::vec(frame(), 1..6),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut bytes = encode(&frames);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let (found, end) = read_all(&bytes, MAX_FRAME);
            prop_assert!(end.is_err());
            prop_assert!(found.len() < frames.len());
            prop_assert_eq!(&found[..], &frames[..found.len()]);
        }

        #[test]
        fn a_cut_stream_gives_the_whole_frames_before_the_cut(
            frames in proptest::collection::vec(frame(), 1..6),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = encode(&frames);
            let at = at.index(bytes.len());
            let whole = (0..frames.len()).take_while(|n| encode(&frames[..=*n]).len() <= at).count();
            let (found, end) = read_all(&bytes[..at], MAX_FRAME);
            prop_assert_eq!(&found[..], &frames[..whole]);
            prop_assert_eq!(end.is_ok(), encode(&frames[..whole]).len() == at);
        }

        #[test]
        fn dropped_reads_lose_and_repeat_nothing(
            frames in proptest::collection::vec(frame(), 0..6),
            steps in steps(),
            polls in proptest::collection::vec(1..4_usize, 1..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.unwrap();
            let _guard = runtime.enter();
            let bytes = encode(&frames);
            let mut reader = FrameReader::new(Choppy::new(&bytes[..], steps), MAX_FRAME);
            let mut found = Vec::new();
            for polls in polls.into_iter().cycle() {
                match poll_and_drop(reader.next(LONG), polls) {
                    None => {}
                    Some(Ok(Some(frame))) => found.push(frame),
                    Some(Ok(None)) => break,
                    Some(Err(error)) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_all(&bytes, MAX_FRAME);
        }
    }

    #[test]
    fn a_ping_has_the_size_it_is_said_to_have() {
        assert_eq!(encode(&[Frame::Ping(7)]).len(), PING_BYTES);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_by_its_header() {
        let header = [0xff, 0xff, 0, 0, 1, 2, 3, 4];
        let (_, end) = read_all(&header, 1000);
        assert!(matches!(end, Err(ReadError::Garbage(WireError::TooLong(0xffff)))));
    }

    #[test]
    fn a_length_alone_reserves_no_memory() {
        let mut bytes = (MAX_FRAME as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 1000]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut reader = FrameReader::new(&bytes[..], MAX_FRAME);
        assert!(runtime.block_on(reader.next(LONG)).is_err());
        assert!(reader.buffer.capacity() <= 4 * ROOM, "{} bytes", reader.buffer.capacity());
    }
}
