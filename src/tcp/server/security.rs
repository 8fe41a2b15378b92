//! Whole nodes with TLS: what clients and peers must prove, and what a change of files changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Server, ServerError};
use crate::api::Consistency;
use crate::client::{Builder, Client, Error, ErrorKind, TLS_MISMATCH};
use crate::tcp::certs::generate;
use crate::tcp::handshake::{Lane, Status};
use crate::tcp::identity::ClusterId;
use crate::tcp::options::Settings;
use crate::tcp::scratch::Scratch;
use crate::tcp::testing::{TestNode, eventually, free_port};
use crate::tcp::tls::{PeerTls, TlsFiles};
use crate::types::NodeId;

/// Certificates of a CA of their own, for three nodes and the clients alice and bob.
fn certify(dir: &Scratch) {
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let clients = ["alice".to_owned(), "bob".to_owned()];
    generate(dir.path(), &[1, 2, 3].map(NodeId), &hosts, &clients).unwrap();
}

/// Everything that belongs to one test: certificates, tokens and data.
struct Room(Scratch);

impl Room {
    fn new() -> Room {
        let dir = Scratch::new();
        certify(&dir);
        Room(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts the files of another room in the place of those of this one.
    fn replace(&self, names: &[&str]) {
        let other = Room::new();
        for name in names {
            fs::rename(other.file(name), self.file(name)).unwrap();
        }
    }

    /// A cluster of one, open to all on this machine.
    async fn open(&self) -> Server {
        let settings = Settings {
            id: Some(1),
            cluster: Some(vec!["http://127.0.0.1:1".to_owned()]),
            listen_peer: Some("127.0.0.1:0".to_owned()),
            port: Some(0),
            data_dir: Some(self.file("open")),
            ..Settings::default()
        };
        Server::start(settings.resolve().unwrap()).await.unwrap()
    }

    /// A cluster of one, whose clients need certificates and tokens.
    async fn alone(&self) -> Server {
        use std::os::unix::fs::PermissionsExt;
        let tokens = self.file("tokens");
        fs::write(&tokens, "client c-token\nadmin a-token\n").unwrap();
        fs::set_permissions(&tokens, PermissionsExt::from_mode(0o600)).unwrap();
        let settings = Settings {
            id: Some(1),
            cluster: Some(vec!["http://127.0.0.1:1".to_owned()]),
            listen_peer: Some("127.0.0.1:0".to_owned()),
            port: Some(0),
            data_dir: Some(self.file("data")),
            cert: Some(self.file("server-1.pem")),
            key: Some(self.file("server-1.key")),
            client_ca: Some(self.file("client-ca.pem")),
            token_file: Some(tokens),
            ..Settings::default()
        };
        Server::start(settings.resolve().unwrap()).await.unwrap()
    }

    /// A client without a certificate, which gives up soon.
    fn stranger(&self, server: &Server) -> Builder {
        Client::builder([format!("https://{}", server.client_address())])
            .ca_file(self.file("server-ca.pem"))
            .deadline(Duration::from_secs(1))
    }

    fn alice(&self, server: &Server) -> Builder {
        let (chain, key) = (self.file("alice.pem"), self.file("alice.key"));
        self.stranger(server).identity(chain, key).deadline(Duration::from_secs(30))
    }

    fn peer_files(&self, id: u64) -> TlsFiles {
        TlsFiles {
            ca: self.file("peer-ca.pem"),
            cert: self.file(&format!("node-{id}.pem")),
            key: self.file(&format!("node-{id}.key")),
        }
    }

    /// Node `id` of a cluster of three whose peers prove themselves with the files of `proof`.
    async fn member(&self, id: u64, proof: u64, urls: &[String]) -> Result<Server, ServerError> {
        let files = self.peer_files(proof);
        let settings = Settings {
            id: Some(id),
            cluster: Some(urls.to_vec()),
            port: Some(0),
            data_dir: Some(self.file(&format!("data-{id}"))),
            peer_ca: Some(files.ca),
            peer_cert: Some(files.cert),
            peer_key: Some(files.key),
            ..Settings::default()
        };
        Server::start(settings.resolve().unwrap()).await
    }
}

async fn get(client: &Builder) -> Result<Option<u64>, Error> {
    let client = client.clone().build().unwrap();
    let found = client.get("k", Consistency::Linearizable).await;
    found.map(|found| found.map(|found| found.revision))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_prove_themselves_and_have_roles() {
    let room = Room::new();
    let server = room.alone().await;
    let alice = room.alice(&server);
    let client = alice.clone().token("c-token").build().unwrap();
    let revision = client.put("k", "v").await.unwrap();
    assert_eq!(get(&alice.clone().token("c-token")).await, Ok(Some(revision)));

    // Certificates say who may connect, tokens say who may do what.
    let refused = client.add_member(2, "http://127.0.0.1:2", false).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Refused, "forbidden"), "{refused}");
    for stranger in [alice.clone().token("x-token"), alice.clone()] {
        assert_eq!(get(&stranger).await.unwrap_err().code(), "unauthorized");
    }
    let admin = alice.clone().token("a-token").build().unwrap();
    admin.add_member(2, "http://127.0.0.1:2", true).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_the_right_certificate_are_not_served() {
    let (room, other) = (Room::new(), Room::new());
    let server = room.alone().await;
    let token = |builder: Builder| builder.token("a-token");
    assert_eq!(get(&token(room.alice(&server))).await, Ok(None));

    let (chain, key) = (other.file("alice.pem"), other.file("alice.key"));
    let forged = room.stranger(&server).identity(chain, key);
    let (chain, key) = (room.file("node-1.pem"), room.file("node-1.key"));
    let peer = room.stranger(&server).identity(chain, key);
    for client in [room.stranger(&server), forged, peer] {
        let error = get(&token(client.clone())).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, TLS_MISMATCH), "{error}");
        let error = token(client).build().unwrap().put("k", "v").await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    // Whom the client does not trust learns nothing from it, not even a token.
    let mistaken = token(room.alice(&server)).ca_file(other.file("server-ca.pem"));
    let mistaken = mistaken.deadline(Duration::from_secs(2)).build().unwrap();
    let error = mistaken.put("k", "v").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(get(&token(room.alice(&server))).await, Ok(None), "nothing was written");
    server.stop().await;
}

/// What does not pass is not tried again for half a minute, and says what to change.
#[tokio::test(flavor = "multi_thread")]
async fn a_mismatch_of_tls_fails_at_once_and_names_the_remedy() {
    let (room, other) = (Room::new(), Room::new());
    let (closed, open) = (room.alone().await, room.open().await);
    let (closed_at, open_at) = (closed.client_address(), open.client_address());
    let to = |scheme: &str, address| {
        Client::builder([format!("{scheme}://{address}")]).ca_file(room.file("server-ca.pem"))
    };
    let untrusted = to("https", closed_at).ca_file(other.file("server-ca.pem"));
    let (chain, key) = (other.file("alice.pem"), other.file("alice.key"));
    for (client, remedy) in [
        (to("http", closed_at), "this port speaks TLS"),
        (to("https", open_at), "this port does not speak TLS"),
        (untrusted, "--ca-file"),
        (to("https", closed_at), "--cert-file"),
        (to("https", closed_at).identity(chain, key), "its CA for clients"),
    ] {
        let client = client.deadline(Duration::from_secs(60)).build().unwrap();
        let began = tokio::time::Instant::now();
        for error in [
            client.get("k", Consistency::Linearizable).await.unwrap_err(),
            client.put("k", "v").await.unwrap_err(),
            client.get("k", Consistency::Stale).await.unwrap_err(),
            client.members().await.unwrap_err(),
            client.backup(&mut Vec::new()).await.unwrap_err(),
            client.status().await.remove(0).1.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, TLS_MISMATCH), "{error}");
            assert!(error.message().contains(remedy), "{remedy}: {error}");
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{remedy}: {:?}", began.elapsed());
    }
    // One endpoint that is wrong does not spoil one that is right.
    let both = [format!("https://{open_at}"), format!("http://{open_at}")];
    let both = Client::builder(both).ca_file(room.file("server-ca.pem")).build().unwrap();
    both.put("k", "v").await.unwrap();
    assert!(both.get("k", Consistency::Stale).await.unwrap().is_some());
    closed.stop().await;
    open.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_at_the_port_for_tls_disturbs_nobody() {
    let room = Room::new();
    let server = room.alone().await;
    let alice = room.alice(&server).token("c-token");
    // One that says nothing at all, all the while.
    let _silent = TcpStream::connect(server.client_address()).await.unwrap();
    let mut plain = TcpStream::connect(server.client_address()).await.unwrap();
    plain.write_all(b"GET /k HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    // Perhaps it is reset.
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(get(&alice).await, Ok(None));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_for_clients_is_used_without_a_restart() {
    let room = Room::new();
    let server = room.alone().await;
    let old = room.alice(&server).token("c-token").build().unwrap();
    let revision = old.put("k", "v").await.unwrap();
    room.replace(&["server-ca.pem", "server-1.pem", "server-1.key"]);
    // Trusts the new CA alone; each attempt is a connection of its own.
    let new = room.alice(&server).token("c-token").deadline(Duration::from_secs(1));
    let mut attempts = 0;
    while get(&new).await != Ok(Some(revision)) {
        attempts += 1;
        assert!(attempts < 600, "the new certificate is never used");
        // A certificate that is not trusted fails at once.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(old.get("k", Consistency::Linearizable).await.is_ok(), "its connection goes on");
    server.stop().await;
}

/// Waits until a node has applied a command of this revision.
async fn applied(server: &Server, revision: u64) {
    let handle = server.handle();
    let applied = || handle.view().status.applied.index >= revision;
    eventually("the command arrives", applied).await;
}

fn client(servers: &BTreeMap<u64, Server>) -> Client {
    let endpoint = |server: &Server| format!("http://{}", server.client_address());
    let builder = Client::builder(servers.values().map(endpoint));
    builder.deadline(Duration::from_secs(30)).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_with_certificates_are_a_cluster() {
    let room = Room::new();
    let urls: Vec<_> = (0..3).map(|_| format!("https://127.0.0.1:{}", free_port())).collect();
    // Not even a start with the certificate of another.
    let error = room.member(3, 2, &urls).await.err().expect("it is another's").to_string();
    assert!(error.contains("node-2.pem") && error.contains("node-3.stormkv"), "{error}");
    let mut servers = BTreeMap::new();
    for id in 1..=3 {
        servers.insert(id, room.member(id, id, &urls).await.unwrap());
    }
    let revision = client(&servers).put("k", "v").await.unwrap();
    for server in servers.values() {
        applied(server, revision).await;
    }

    // A program that does not look at its certificate: the others do.
    let addresses = (1..).map(NodeId).zip(urls.iter().cloned()).collect();
    let tls = PeerTls::load(NodeId(2), room.peer_files(2)).unwrap();
    let mut thief = TestNode::with(3, |options| {
        options.cluster = Some(ClusterId::founded_by(&addresses, ""));
        options.tls = Some(tls);
    })
    .await;
    thief.peers.update_addresses(&addresses);
    let to_first = thief.network.stats().peer(NodeId(1));
    let control = to_first.lane(Lane::Control);
    eventually("it is refused", || control.last_error().is_some()).await;
    let error = control.last_error().unwrap();
    assert!(error.contains("its certificate is another's"), "{error}");
    assert_eq!(control.connects.get(), 0);
    assert_eq!(thief.network.stats().answered(Status::Ok).get(), 0);
    for (_, server) in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_change_their_certificates_without_a_restart() {
    let room = Room::new();
    let urls: Vec<_> = (0..3).map(|_| format!("https://127.0.0.1:{}", free_port())).collect();
    let mut servers = BTreeMap::new();
    for id in 1..=3 {
        servers.insert(id, room.member(id, id, &urls).await.unwrap());
    }
    client(&servers).put("k", "v").await.unwrap();

    let names: Vec<_> =
        (1..=3).map(|id| [format!("node-{id}.pem"), format!("node-{id}.key")]).collect();
    let names: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    room.replace(&[&["peer-ca.pem"], &names[..]].concat());
    // The connections among these two go on.
    servers.remove(&3).unwrap().stop().await;
    let revision = client(&servers).put("k", "w").await.unwrap();
    // This one knows the new certificates only, and so must those who talk to it.
    let third = room.member(3, 3, &urls).await.unwrap();
    applied(&third, revision).await;
    servers.insert(3, third);
    for (_, server) in servers {
        server.stop().await;
    }
}
