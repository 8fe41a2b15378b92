//! A client of HTTP/1.1, small enough that it is clear what was sent and what was not.
//!
//! That is the whole point of it: whether a command may have had an effect depends on whether a
//! byte of it may have left this machine, and libraries retry and pool behind the caller's back.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// The longest body that is read.
const MAX_BODY: usize = 64 << 20;

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection: the request certainly was not seen.
    NotSent(io::Error),
    /// The request was sent, at least in part. Nobody knows what became of it.
    Lost(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotSent(error) => write!(f, "no connection: {error}"),
            Failure::Lost(error) => write!(f, "the answer was lost: {error}"),
        }
    }
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// GET, PUT, ...
    pub method: &'static str,
    /// Path and query, percent-encoded.
    pub target: String,
    /// More headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &'static str, target: impl Into<String>) -> Request {
        Request { method, target: target.into(), ..Request::default() }
    }

    /// With this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// With a JSON body.
    pub fn json(self, body: &Json) -> Request {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// With one more header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    fn encode(&self, host: SocketAddr) -> Vec<u8> {
        let (method, target, length) = (self.method, &self.target, self.body.len());
        let mut bytes =
            format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n");
        for (name, value) in &self.headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A text as part of a path or of a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A connection to one node, opened when it is needed and used for one request after the other.
pub struct Connection {
    to: SocketAddr,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// To this node; `timeout` is for each single wait.
    pub fn new(to: SocketAddr, timeout: Duration) -> Connection {
        Connection { to, timeout, stream: None }
    }

    /// Sends a request and waits for its answer. Never sends it twice.
    ///
    /// # Errors
    /// When there is no answer. The next request uses a new connection then.
    pub fn ask(&mut self, request: &Request) -> Result<Response, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().map_err(Failure::NotSent)?,
        };
        let (response, reusable) =
            exchange(&mut stream, &request.encode(self.to)).map_err(Failure::Lost)?;
        if reusable {
            self.stream = Some(stream);
        }
        Ok(response)
    }

    /// Sends a request and leaves its answer for [`receive`](Self::receive).
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self, request: &Request) -> io::Result<()> {
        let mut stream = self.open()?;
        stream.get_mut().write_all(&request.encode(self.to))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Waits for the answer of what was sent.
    ///
    /// # Errors
    /// When there is none.
    pub fn receive(&mut self) -> io::Result<Response> {
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        read_response(&mut stream).map(|(response, _)| response)
    }

    fn open(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.to, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(BufReader::new(stream))
    }
}

fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<(Response, bool)> {
    stream.get_mut().write_all(request)?;
    read_response(stream)
}

/// The response, and whether the connection can be used again.
fn read_response(stream: &mut impl BufRead) -> io::Result<(Response, bool)> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| invalid(format!("`{first}` is no status line")))?;
    let mut headers = Vec::new();
    loop {
        let text = line(stream)?;
        if text.is_empty() {
            break;
        }
        let (name, value) =
            text.split_once(':').ok_or_else(|| invalid(format!("`{text}` is no header")))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    let mut reusable = response.header("connection").is_none_or(|value| value != "close");
    if response.header("transfer-encoding").is_some_and(|value| value == "chunked") {
        response.body = read_chunks(stream)?;
    } else if let Some(length) = response.header("content-length") {
        let length = length.parse().map_err(|_| invalid(format!("length `{length}`")))?;
        response.body = read_exactly(stream, length)?;
    } else if status != 204 && status != 304 {
        stream.take(MAX_BODY as u64).read_to_end(&mut response.body)?;
        reusable = false;
    }
    Ok((response, reusable))
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let text = line(stream)?;
        let length = usize::from_str_radix(text.trim(), 16)
            .map_err(|_| invalid(format!("`{text}` is no length of a chunk")))?;
        body.extend(read_exactly(stream, length)?);
        if body.len() > MAX_BODY {
            return Err(invalid("the body is too long".to_owned()));
        }
        line(stream)?;
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(stream: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(invalid("the body is too long".to_owned()));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(64 << 10).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| invalid("a line is not text".to_owned()))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
