//! Connections: kept, shared, limited, cut off, and ended in good order.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::node::{always, nothing, real, scripted};
use super::{Client, HttpOptions, Limits, PATIENCE, Server};
use crate::api::{Reply, Request};
use crate::kv::{Query, Response};
use crate::tcp::certs::generate;
use crate::tcp::http::KvRoutes;
use crate::tcp::http::accept::Accept;
use crate::tcp::scratch::Scratch;
use crate::tcp::tls::{ServerTls, ServerTlsFiles, client_config};
use crate::types::NodeId;

#[tokio::test]
async fn a_connection_is_kept_and_requests_may_be_pipelined() {
    let server = Server::new(real(), HttpOptions::default()).await;
    let mut client = server.connect().await;
    for number in 0..20 {
        let value = number.to_string();
        assert_eq!(client.ask("PUT", "/k", &[], &value).await.status, 204);
        assert_eq!(client.ask("GET", "/k", &[], "").await.body, value.as_bytes());
    }
    let put = "PUT /p HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n";
    let get = "GET /p HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send(format!("{put}1{get}{put}2{get}")).await;
    for value in ["1", "2"] {
        assert_eq!(client.answer(true).await.status, 204);
        assert_eq!(client.answer(true).await.body, value.as_bytes());
    }
}

#[tokio::test]
async fn a_chunked_body_is_a_body() {
    let server = Server::new(real(), HttpOptions::default()).await;
    let mut client = server.connect().await;
    client
        .send("PUT /k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n")
        .await;
    client.send("3\r\nllo\r\n0\r\n\r\n").await;
    assert_eq!(client.answer(true).await.status, 204);
    assert_eq!(client.ask("GET", "/k", &[], "").await.body, b"hello");
}

#[tokio::test]
async fn a_slow_head_is_cut_off_however_lively_it_is() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.header = Duration::from_millis(300)).await;
    // One that says nothing, and one that says something all the time.
    let silent = server.connect().await;
    assert!(silent.rest().await.is_empty());
    let mut slow = server.connect().await.stream;
    let began = tokio::time::Instant::now();
    loop {
        assert!(began.elapsed() < PATIENCE, "never cut off");
        if slow.write_all(b"x").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that was quick before is not served for ever, either.
    let mut client = server.connect().await;
    assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
    client.send("GET /k HTT").await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_resting_connection_has_a_limit_of_its_own() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| {
        limits.header = PATIENCE * 2;
        limits.idle = Duration::from_millis(200);
    })
    .await;
    let mut client = server.connect().await;
    assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_slow_body_is_told_so() {
    let (handle, _views) = always(nothing());
    let server =
        Server::limited(handle, |limits| limits.body_time = Duration::from_millis(200)).await;
    let mut client = server.connect().await;
    client.send("PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhel").await;
    client.answer(true).await.is_error(408, "timeout");
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let (handle, _views) = always(nothing());
    let server =
        Server::limited(handle, |limits| limits.sending = Duration::from_millis(300)).await;
    let mut client = server.connect().await;
    // The backup of this node has no end, so only the server can end it.
    client.send("GET /v1/backup HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let cut_off = "stormkv_http_connections_refused_total{reason=\"slow\"} 1";
    let began = tokio::time::Instant::now();
    loop {
        let metrics = server.ask("GET", "/metrics", "").await.body;
        if String::from_utf8(metrics).unwrap().lines().any(|line| line == cut_off) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "never cut off");
    }
    // What was on its way arrives still, and then the end.
    client.rest().await;
}

#[tokio::test]
async fn large_bodies_share_a_bounded_memory() {
    let server = Server::limited(real(), |limits| limits.bodies = 1 << 20).await;
    let body = vec![b'x'; 600 << 10];
    let (last, most) = body.split_last().unwrap();
    let mut first = server.connect().await;
    let head = "PUT /a HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n";
    first.send(format!("{head}content-length: {}\r\n\r\n", body.len())).await;
    assert_eq!(first.answer(false).await.status, 100);
    first.send(most).await;
    // By the time that these are answered, what was sent before has been read.
    for _ in 0..100 {
        assert_eq!(server.ask("GET", "/health", "").await.status, 200);
    }
    server.ask("PUT", "/b", &body).await.is_error(429, "busy");
    // Small ones need no memory of that.
    assert_eq!(server.ask("PUT", "/c", vec![b'x'; 60 << 10]).await.status, 204);
    first.send([*last]).await;
    assert_eq!(first.answer(true).await.status, 204);
    assert_eq!(server.ask("PUT", "/b", &body).await.status, 204);
}

#[tokio::test]
async fn announced_bodies_take_no_memory_before_they_arrive() {
    let server = Server::limited(real(), |limits| limits.bodies = 1 << 20).await;
    let mut waiting = Vec::new();
    for number in 0..40 {
        let mut client = server.connect().await;
        let head = match number % 2 {
            0 => "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
            _ => "content-length: 1500000\r\n\r\nx",
        };
        client.send(format!("PUT /a HTTP/1.1\r\nhost: x\r\n{head}")).await;
        waiting.push(client);
    }
    // Each of them has been read as far as it goes.
    let body = vec![b'x'; 900 << 10];
    for _ in 0..5 {
        assert_eq!(server.ask("PUT", "/b", &body).await.status, 204);
    }
    waiting[0].send("0\r\n\r\n").await;
    assert_eq!(waiting[0].answer(true).await.status, 204);
    assert_eq!(server.ask("GET", "/b", "").await.body, body);
}

#[tokio::test]
async fn who_does_not_begin_tls_is_cut_off_and_holds_nobody_up() {
    let dir = Scratch::new();
    let localhost = "localhost".to_owned();
    generate(dir.path(), &[NodeId(1)], std::slice::from_ref(&localhost), &[]).unwrap();
    let file = |name: &str| dir.path().join(name);
    let (cert, key) = (file("server-1.pem"), file("server-1.key"));
    let files = ServerTlsFiles { client_ca: None, cert, key };
    let tls = ServerTls::load(files).unwrap();
    let (handle, _views) = always(nothing());
    let mut options =
        HttpOptions { tls: Some(Arc::new(move || tls.config())), ..Default::default() };
    options.limits.handshake = Duration::from_secs(2);
    let server = Server::new(handle, options).await;

    let silent = server.connect().await;
    let mut plain = server.connect().await;
    plain.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!plain.rest().await.starts_with(b"HTTP"), "at most an alert of TLS");
    let config = Arc::new(client_config(Some(&file("server-ca.pem")), None).unwrap());
    let name = ServerName::try_from(localhost).unwrap();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let mut secure = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    secure
        .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut said = String::new();
    secure.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(silent.rest().await.is_empty());
}

#[tokio::test]
async fn a_large_body_is_refused_before_it_is_read() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.body = 1000).await;
    let mut client = server.connect().await;
    client.send("PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n").await;
    client.answer(true).await.is_error(413, "too_large");
    // One that does not say how much is coming is stopped on its way.
    let mut client = server.connect().await;
    client.send("PUT /k HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send(format!("3e9\r\n{}\r\n", "x".repeat(1001))).await;
    client.answer(true).await.is_error(413, "too_large");
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.head = 2000).await;
    let long = "x".repeat(3000);
    assert_eq!(server.ask_with("GET", "/k", &[("x", &long)], "").await.status, 431);
}

/// A server with two connections, both of which wait for an answer that never comes.
async fn full(limit: impl FnOnce(&mut Limits)) -> (Server, [Client; 2], impl Sized) {
    let (handle, views) = scripted(|request| match request {
        Request::Query { query, .. } if query == Query::Get { key: "k".into() }.encode() => None,
        _ => Some(nothing()),
    });
    let server = Server::limited(handle, |limits| {
        limits.connections = 2;
        limit(limits);
    })
    .await;
    let mut busy = [server.connect().await, server.connect().await];
    for client in &mut busy {
        client.send("GET /k HTTP/1.1\r\nhost: x\r\n\r\n").await;
    }
    // Until both requests have arrived, a new connection would take the place of one of them.
    let in_flight = async {
        loop {
            let metrics = server.ask("GET", "/metrics", "").await.body;
            // The two, and this one.
            if String::from_utf8(metrics).unwrap().contains("requests_in_flight 3") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, in_flight).await.expect("both are in flight");
    (server, busy, views)
}

#[tokio::test]
async fn surplus_connection_is_answered_about_the_state_of_the_node_only() {
    let (server, busy, _views) = full(|_| ()).await;
    for (path, status) in
        [("/health", 200), ("/v1/status", 200), ("/metrics", 200), ("/ready", 200)]
    {
        let mut client = server.connect().await;
        let answer = client.ask("GET", path, &[], "").await;
        assert_eq!((answer.status, answer.header("connection")), (status, "close"), "{path}");
        assert!(client.rest().await.is_empty());
    }
    let mut client = server.connect().await;
    // All of a large body can be sent, so that the answer is not lost.
    let answer = client.ask("PUT", "/k", &[], vec![b'x'; 1 << 20]).await;
    answer.is_error(503, "too_many_connections");
    assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    server.ask("GET", "/no/such/path", "").await.is_error(503, "too_many_connections");
    drop(busy);
    // As soon as the server notices, there is a place again.
    let free = async { while server.ask("GET", "/other", "").await.status != 404 {} };
    tokio::time::timeout(PATIENCE, free).await.expect("a place is free");
}

#[tokio::test]
async fn silent_surplus_connections_keep_nobody_out() {
    let (server, _busy, _views) = full(|limits| limits.surplus = 2).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.connect().await);
    }
    let began = tokio::time::Instant::now();
    assert_eq!(server.ask("GET", "/health", "").await.status, 200);
    assert!(began.elapsed() < Duration::from_secs(3), "it had to wait for the others to time out");
}

#[tokio::test]
async fn connection_at_rest_gives_way_to_a_new_one() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.connections = 3).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
        clients.push(client);
        // So that the watchdog's clock tells them apart.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    let mut new = server.connect().await;
    assert_eq!(new.ask("GET", "/k", &[], "").await.status, 404);
    assert!(clients.remove(0).rest().await.is_empty(), "the one that has rested longest");
    for mut client in clients {
        assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
    }
}

#[tokio::test]
async fn silent_connection_gives_way_to_a_new_one() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.connections = 20).await;
    let mut silent = Vec::new();
    for number in 0..20 {
        let mut client = server.connect().await;
        if number % 2 == 0 {
            client.send("GET /k").await;
        }
        silent.push(client);
    }
    let began = tokio::time::Instant::now();
    let served = async { while server.ask("GET", "/k", "").await.status != 404 {} };
    tokio::time::timeout(PATIENCE, served).await.expect("a place is free");
    assert!(began.elapsed() < Duration::from_secs(8), "only when the time for a head was over");
}

#[tokio::test]
async fn address_keeps_only_so_many_connections_at_rest() {
    let (handle, _views) = always(nothing());
    let server = Server::limited(handle, |limits| limits.idle_per_address = 2).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
        clients.push(client);
    }
    let mut closed = 0;
    let mut kept = Vec::new();
    for mut client in clients {
        match tokio::time::timeout(Duration::from_secs(2), client.more()).await {
            Ok(more) => closed += usize::from(!more),
            Err(_) => kept.push(client),
        }
    }
    assert_eq!((closed, kept.len()), (3, 2));
    for client in &mut kept {
        assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
    }
}

/// A listener of a process that has run out of files a few times.
struct Exhausted(VecDeque<i32>, TcpListener);

impl Accept for Exhausted {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.0.pop_front() {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Accept::accept(&mut self.1).await,
        }
    }
}

#[tokio::test]
async fn the_accept_loop_survives_running_out_of_files() {
    let (emfile, enfile, econnaborted) = (24, 23, 103);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let codes = VecDeque::from([emfile, enfile, econnaborted, emfile]);
    let (handle, _views) = always(nothing());
    let server = super::super::server::<KvRoutes>(handle, &mut HttpOptions::default());
    tokio::spawn(server.run(Exhausted(codes, listener), std::future::pending()));
    let mut client =
        Client { stream: TcpStream::connect(address).await.unwrap(), buffer: Vec::new() };
    assert_eq!(client.ask("GET", "/k", &[], "").await.status, 404);
    let text = String::from_utf8(client.ask("GET", "/metrics", &[], "").await.body).unwrap();
    assert!(text.contains("stormkv_http_connections_refused_total{reason=\"accept\"} 3"), "{text}");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_at_shutdown() {
    let (answer_now, told) = std::sync::mpsc::channel::<()>();
    let (asked, was_asked) = oneshot::channel();
    let mut asked = Some(asked);
    let (handle, _views) = scripted(move |_| {
        if let Some(asked) = asked.take() {
            asked.send(()).unwrap();
            told.recv().unwrap();
        }
        Some(Reply::Applied { index: 5, response: Response::Written { revision: 5 }.encode() })
    });
    let mut server = Server::new(handle, HttpOptions::default()).await;
    let (mut busy, resting) = (server.connect().await, server.connect().await);
    busy.send("PUT /k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1").await;
    was_asked.await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    // The one that does nothing goes at once, the other one with its answer.
    assert!(resting.rest().await.is_empty());
    answer_now.send(()).unwrap();
    let answer = busy.answer(true).await;
    assert_eq!((answer.status, answer.header("connection")), (204, "close"));
    assert!(busy.rest().await.is_empty());
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_server() {
    let (handle, _views) = scripted(|_| None);
    let mut server =
        Server::limited(handle, |limits| limits.grace = Duration::from_millis(200)).await;
    let mut client = server.connect().await;
    client.send("GET /k HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(PATIENCE, server.task).await.expect("it returns").unwrap();
    assert!(client.rest().await.is_empty());
}
