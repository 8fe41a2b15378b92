//! Mutual TLS between real nodes: who gets in, who does not, and what a reload changes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::tcp::certs::generate;
use crate::tcp::handshake::{Lane, Status};
use crate::tcp::scratch::Scratch;
use crate::tcp::testing::{TestNode, cluster, eventually, heartbeat};

fn certificates() -> Scratch {
    let dir = Scratch::new();
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    generate(dir.path(), &[1, 2, 3].map(NodeId), &hosts, &["alice".to_owned()]).unwrap();
    dir
}

fn files(dir: &Scratch, node: u64) -> TlsFiles {
    let file = |name: &str| dir.path().join(name);
    TlsFiles {
        ca: file("peer-ca.pem"),
        cert: file(&format!("node-{node}.pem")),
        key: file(&format!("node-{node}.key")),
    }
}

fn tls(dir: &Scratch, node: u64) -> Arc<PeerTls> {
    PeerTls::load(NodeId(node), files(dir, node)).unwrap()
}

async fn node(id: u64, tls: &Arc<PeerTls>) -> TestNode {
    TestNode::with(id, |options| {
        options.cluster = cluster(7);
        options.tls = Some(tls.clone());
    })
    .await
}

/// One dials two; gives why it failed.
async fn failure(one: &mut TestNode, two: &TestNode) -> String {
    one.meet(&[two]);
    let stats = one.network.stats().peer(two.id);
    let control = stats.lane(Lane::Control);
    eventually("it fails", || control.last_error().is_some()).await;
    assert_eq!(control.connects.get(), 0);
    control.last_error().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_with_their_own_certificates_talk() {
    let dir = certificates();
    let (mut one, mut two) = (node(1, &tls(&dir, 1)).await, node(2, &tls(&dir, 2)).await);
    one.meet(&[&two]);
    two.meet(&[&one]);
    one.peers.send(two.id, heartbeat(1, 2, 4));
    two.peers.send(one.id, heartbeat(2, 1, 5));
    assert_eq!(two.message().await, (one.id, heartbeat(1, 2, 4)));
    assert_eq!(one.message().await, (two.id, heartbeat(2, 1, 5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_does_not_get_in() {
    let (dir, other) = (certificates(), certificates());
    let (mut one, two) = (node(1, &tls(&other, 1)).await, node(2, &tls(&dir, 2)).await);
    let error = failure(&mut one, &two).await;
    assert!(error.contains("certificate"), "{error}");

    // One trusts two's CA, but has no certificate of it.
    let mixed = TlsFiles { ca: dir.path().join("peer-ca.pem"), ..files(&other, 1) };
    let mut one = node(1, &PeerTls::load(NodeId(1), mixed).unwrap()).await;
    failure(&mut one, &two).await;
    assert_eq!(two.network.stats().answered(Status::Ok).get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_node_does_not_get_in() {
    let dir = certificates();
    let (mut thief, two) = (node(1, &tls(&dir, 3)).await, node(2, &tls(&dir, 2)).await);
    let error = failure(&mut thief, &two).await;
    assert!(error.contains("its certificate is another's"), "{error}");
    assert!(two.network.stats().answered(Status::NotAllowed).get() > 0);

    let (mut one, fake) = (node(1, &tls(&dir, 1)).await, node(2, &tls(&dir, 3)).await);
    let error = failure(&mut one, &fake).await;
    assert!(error.contains("node-2.stormkv"), "{error}");

    let error = PeerTls::load(NodeId(1), files(&dir, 3)).err().unwrap().to_string();
    assert!(error.contains("node-3.pem") && error.contains("node-1.stormkv"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_and_tls_do_not_mix() {
    let dir = certificates();
    let (mut plain, mut secure) = (TestNode::start(1).await, node(2, &tls(&dir, 2)).await);
    let error = failure(&mut plain, &secure).await;
    assert!(error.contains("is https, but this node speaks plain TCP"), "{error}");
    let error = failure(&mut secure, &plain).await;
    assert!(error.contains("is http, but this node speaks TLS"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_are_used_and_broken_ones_are_not() {
    let (dir, other) = (certificates(), certificates());
    let (first, second) = (tls(&dir, 1), tls(&dir, 2));
    assert!(!first.reload().unwrap(), "nothing has changed");
    fs::write(dir.path().join("node-1.pem"), "no certificate").unwrap();
    let error = first.reload().unwrap_err().to_string();
    assert!(error.contains("node-1.pem"), "{error}");
    let (mut one, mut two) = (node(1, &first).await, node(2, &second).await);
    one.meet(&[&two]);
    one.peers.send(two.id, heartbeat(1, 2, 1));
    assert_eq!(two.message().await.1, heartbeat(1, 2, 1), "the old one is still in use");

    // Everything is replaced, node by node: what one offers, two does not know yet.
    for name in ["peer-ca.pem", "node-1.pem", "node-1.key", "node-2.pem", "node-2.key"] {
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    }
    assert!(first.reload().unwrap());
    one.peers.send(two.id, heartbeat(1, 2, 2));
    assert_eq!(two.message().await.1, heartbeat(1, 2, 2), "a connection that exists goes on");
    two.stop_listening().await;
    two.listen().await;
    let stats = one.network.stats().peer(two.id);
    let control = stats.lane(Lane::Control);
    let refused = || control.last_error().is_some_and(|error| error.contains("certificate"));
    eventually("it is refused", refused).await;
    assert!(second.reload().unwrap());
    let before = control.connects.get();
    eventually("it is accepted again", || control.connects.get() > before).await;
}

#[tokio::test]
async fn clients_need_a_certificate_where_there_is_a_ca_for_them() {
    let dir = certificates();
    let file = |name: &str| dir.path().join(name);
    let server = |client_ca| {
        let (cert, key) = (file("server-1.pem"), file("server-1.key"));
        ServerTls::load(ServerTlsFiles { client_ca, cert, key }).unwrap()
    };
    let roots = roots(&read(&file("server-ca.pem")).unwrap(), &file("server-ca.pem")).unwrap();
    let builder = || {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let cert = CertificateDer::from_pem_file(file("alice.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("alice.key")).unwrap();
    let alice = Arc::new(builder().with_client_auth_cert(vec![cert], key).unwrap());
    let nobody = Arc::new(builder().with_no_client_auth());

    for (client_ca, client, expected) in [
        (None, &nobody, true),
        (Some(file("client-ca.pem")), &alice, true),
        (Some(file("client-ca.pem")), &nobody, false),
        (Some(file("peer-ca.pem")), &alice, false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(server(client_ca).config());
        let serving = async {
            let (stream, _) = listener.accept().await?;
            acceptor.accept(stream).await?.write_all(b"welcome").await
        };
        let asking = async {
            let name = ServerName::try_from("localhost").unwrap();
            let stream = TcpStream::connect(address).await?;
            let mut stream = TlsConnector::from(client.clone()).connect(name, stream).await?;
            let mut said = [0; 7];
            stream.read_exact(&mut said).await
        };
        let (served, asked) = tokio::join!(serving, asking);
        assert_eq!((served.is_ok(), asked.is_ok()), (expected, expected));
    }
}

#[test]
fn a_key_that_others_can_read_is_noticed() {
    let dir = certificates();
    let key = dir.path().join("node-1.key");
    assert_eq!(exposed(&key), None);
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&key, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(exposed(&key), Some(mode));
    }
    tls(&dir, 1);
}

#[test]
fn keys_are_private_and_nothing_is_overwritten() {
    let dir = certificates();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let keys = ["peer-ca", "server-ca", "client-ca", "node-1", "server-2", "alice"];
    for name in keys {
        let mode =
            fs::metadata(dir.path().join(format!("{name}.key"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let before = (read("peer-ca.pem"), read("node-1.pem"), read("node-1.key"));
    // A node that is added later is of the same CA.
    generate(dir.path(), &[1, 4].map(NodeId), &[], &[]).unwrap();
    assert_eq!(before, (read("peer-ca.pem"), read("node-1.pem"), read("node-1.key")));
    tls(&dir, 4);
    let refused = generate(dir.path(), &[], &[], &["../alice".to_owned()]).unwrap_err();
    assert!(refused.to_string().contains("../alice"));
}
