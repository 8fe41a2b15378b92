//! One keep-alive HTTP/1.1 connection, as cheap as it gets.
//!
//! The generator of the load shares its machine with the nodes, so every microsecond that it takes
//! is one that they do not get. A request is a few bytes put together in a buffer that is used
//! again, one write; an answer is one read, its head parsed in place, its body skipped. Only what
//! a stormkv node answers is understood: a length, no chunks.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::load::Failure;

/// The longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// The longest body of an answer.
const MAX_BODY: usize = 16 << 20;

/// What a connection consists of: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// An open connection.
pub struct Http {
    stream: Box<dyn Stream>,
    out: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` was read.
    filled: usize,
}

/// The head of an answer.
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    length: usize,
}

impl Http {
    /// A connection over this stream.
    pub fn new(stream: Box<dyn Stream>) -> Http {
        Http { stream, out: Vec::with_capacity(1024), input: vec![0; 8 * 1024], filled: 0 }
    }

    /// Sends a request (`head`: the first line and the headers, without those that say the length,
    /// each line with its end) and waits for the whole answer. Returns its status, and its body
    /// for those that are no success.
    ///
    /// # Errors
    /// If the connection broke, or what came is no answer: it must not be used again.
    pub async fn exchange(&mut self, head: &[&[u8]], body: &[u8]) -> io::Result<(u16, &[u8])> {
        self.out.clear();
        for part in head {
            self.out.extend_from_slice(part);
        }
        if !body.is_empty() {
            self.out.extend_from_slice(b"content-length: ");
            self.out.extend_from_slice(body.len().to_string().as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out).await?;
        self.filled = 0;
        let head = loop {
            self.read().await?;
            if let Some(head) = parse(&self.input[..self.filled])? {
                break head;
            }
            if self.filled > MAX_HEAD {
                return Err(io::Error::other("the head of the answer does not end"));
            }
        };
        let whole = head.body + head.length;
        if self.input.len() < whole {
            self.input.resize(whole, 0);
        }
        while self.filled < whole {
            self.read().await?;
        }
        if self.filled > whole {
            return Err(io::Error::other("more came than was asked for"));
        }
        Ok((head.status, &self.input[head.body..whole]))
    }

    async fn read(&mut self) -> io::Result<()> {
        if self.filled == self.input.len() {
            self.input.resize(self.input.len() * 2, 0);
        }
        match self.stream.read(&mut self.input[self.filled..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.filled += read;
                Ok(())
            }
        }
    }
}

/// The head of an answer, once it has arrived.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(body) => body,
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.unwrap_or_default();
    let mut length = None;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok());
        }
    }
    let length = match (status, length) {
        (204, _) => 0,
        (_, Some(length)) if length <= MAX_BODY => length,
        _ => return Err(io::Error::other("the answer does not say how long it is")),
    };
    Ok(Some(Head { status, body, length }))
}

/// What an answer means for an operation: anything but success, or a key that is absent, is a
/// failure.
///
/// # Errors
/// See [`Failure`].
pub fn outcome(status: u16, body: &[u8]) -> Result<(), Failure> {
    if matches!(status, 200..=299) {
        return Ok(());
    }
    let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match answer["code"].as_str() {
        Some("key_not_found") => Ok(()),
        Some("outcome_unknown") | None => Err(Failure::Unknown),
        Some(code) => Err(Failure::Refused(code.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers these pieces, whatever it is asked, and then closes.
    fn answering(pieces: &'static [&'static [u8]]) -> Http {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let mut asked = [0; 1024];
            assert!(far.read(&mut asked).await.unwrap() > 0);
            for piece in pieces {
                far.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        Http::new(Box::new(near))
    }

    async fn ask(pieces: &'static [&'static [u8]]) -> io::Result<(u16, Vec<u8>)> {
        let mut http = answering(pieces);
        let answer = http.exchange(&[b"GET /k HTTP/1.1\r\nhost: x\r\n"], b"").await;
        answer.map(|(status, body)| (status, body.to_vec()))
    }

    #[tokio::test]
    async fn an_answer_may_come_in_pieces() {
        let pieces: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 5\r\n\r\nhe", b"llo"];
        assert_eq!(ask(pieces).await.unwrap(), (200, b"hello".to_vec()));
        let pieces: &[&[u8]] = &[b"HTTP/1.1 204 No Content\r\netag: \"7\"\r\n\r\n"];
        assert_eq!(ask(pieces).await.unwrap(), (204, Vec::new()));
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error() {
        for pieces in [
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello" as &[u8]]
                as &'static [&[u8]],
            &[b"HTTP/1.1 200 OK\r\n\r\nhello"],
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"],
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nhello"],
            &[b"SSH-2.0-OpenSSH\r\n"],
            &[b"HTTP/1.1 200 OK\r\nx: ", &[b'y'; 20_000]],
            &[],
        ] {
            assert!(ask(pieces).await.is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn outcomes_are_told_apart() {
        assert_eq!(outcome(204, b""), Ok(()));
        assert_eq!(outcome(404, br#"{"code":"key_not_found","message":"x"}"#), Ok(()));
        let busy = outcome(429, br#"{"code":"busy","message":"x"}"#);
        assert_eq!(busy, Err(Failure::Refused("busy".to_owned())));
        assert_eq!(outcome(504, br#"{"code":"outcome_unknown"}"#), Err(Failure::Unknown));
        assert_eq!(outcome(502, b"<html>"), Err(Failure::Unknown));
    }
}
