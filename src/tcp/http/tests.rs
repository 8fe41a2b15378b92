//! The API over real sockets: against a node that says what the test tells it to say, and against a
//! real one, the only member of its cluster, on a disk in memory.

mod abuse;
mod auth;
mod connections;
mod data;
mod errors;
mod machine;
mod members;
mod node;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{HttpOptions, KvRoutes, Limits, Routes, serve_routes};
use crate::tcp::handle::Handle;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that serves until it is dropped or stopped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// A server of the key-value store.
    async fn new(handle: Handle, options: HttpOptions) -> Server {
        Server::with::<KvRoutes>(handle, options).await
    }

    /// A server with these routes beside those of every node.
    async fn with<R: Routes>(handle: Handle, mut options: HttpOptions) -> Server {
        options.hosts.push("x".to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve_routes::<R>(listener, handle, options, shutdown));
        Server { address, stop: Some(stop), task }
    }

    /// With limits that are short enough to be run into.
    async fn limited(handle: Handle, limit: impl FnOnce(&mut Limits)) -> Server {
        let mut limits = Limits::default();
        limit(&mut limits);
        Server::new(handle, HttpOptions { limits, ..HttpOptions::default() }).await
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), buffer: Vec::new() }
    }

    /// One request, on a connection of its own.
    async fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.connect().await.ask(method, path, &[], body).await
    }

    async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        self.connect().await.ask(method, path, headers, body).await
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Checks the shape of an error.
    #[track_caller]
    fn is_error(&self, status: u16, code: &str) {
        let json = self.json();
        assert_eq!((self.status, json["code"].as_str()), (status, Some(code)), "{json}");
        let message = json["message"].as_str().unwrap();
        assert!(message.contains(": ") || message.contains("; "), "no remedy: {message}");
        assert_eq!(self.header("content-type"), "application/json");
    }
}

/// A connection that reads one answer at a time.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let body = body.as_ref();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.send([head.as_bytes(), b"\r\n", body].concat()).await;
        self.answer(method != "HEAD").await
    }

    /// More bytes; whether there are any.
    async fn more(&mut self) -> bool {
        // On the heap: in a future, each function around it would have room for it on the stack.
        let mut piece = vec![0; 65536];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut piece)).await;
        let count = read.expect("bytes or the end in time").unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..count]);
        count > 0
    }

    /// Waits until the server has closed the connection; what it said before.
    async fn rest(mut self) -> Vec<u8> {
        while self.more().await {}
        self.buffer
    }

    async fn answer(&mut self, has_body: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more().await, "the connection ended before an answer");
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let body = if !has_body {
            Vec::new()
        } else if headers.contains_key("transfer-encoding") {
            self.chunks().await
        } else {
            let len = headers.get("content-length").map_or(0, |len| len.parse().unwrap());
            self.take(len).await
        };
        Answer { status, headers, body }
    }

    async fn take(&mut self, len: usize) -> Vec<u8> {
        while self.buffer.len() < len {
            assert!(self.more().await, "the connection ended within a body");
        }
        self.buffer.drain(..len).collect()
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                    break at;
                }
                assert!(self.more().await, "the connection ended within a body");
            };
            let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let len = usize::from_str_radix(str::from_utf8(&line[..end]).unwrap(), 16).unwrap();
            let mut chunk = self.take(len + 2).await;
            chunk.truncate(len);
            if len == 0 {
                return body;
            }
            body.extend(chunk);
        }
    }
}
