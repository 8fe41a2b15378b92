//! The harness itself is tested: a proxy that lets through what it should hold, or a judge that
//! nods at everything, would make every story come out well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use stormkv::tcp::handshake::{Hello, Lane, VERSIONS};
use stormkv::tcp::identity::{ClusterId, Life};
use stormkv::types::NodeId;
use stormkv_sim::checker::linearizable::Verdict;
use stormkv_sim::history::{Action, Answer, History, Model, Outcome, Value};

use crate::harness::http::{Connection, Failure, Request, encode};
use crate::harness::net::{Network, State};
use crate::harness::record::{Remnant, verdict};
use crate::harness::until;

/// A listener that sends back whatever it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut twin = stream.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut &stream, &mut twin);
            });
        }
    });
    address
}

/// A Hello from this node.
fn hello(from: u64) -> Vec<u8> {
    let hello = Hello {
        versions: VERSIONS,
        lane: Lane::Bulk.number(),
        cluster: ClusterId::from_number(7),
        from: NodeId(from),
        to: NodeId(2),
        life: Life::from_number(from + 1).expect("it is not 0"),
        url: String::new(),
    };
    hello.encode()
}

/// Dials as this node, says Hello, and hears it again.
fn dial(door: SocketAddr, from: u64) -> TcpStream {
    let mut stream = TcpStream::connect(door).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(&hello(from)).expect("sent");
    let mut heard = vec![0; hello(from).len()];
    stream.read_exact(&mut heard).expect("the echo of the Hello");
    assert_eq!(heard, hello(from));
    stream
}

fn says(stream: &mut TcpStream, word: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(word).ok()?;
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).ok()?;
    Some(heard)
}

#[test]
fn the_proxy_knows_who_dials_and_breaks_only_that_link() {
    let mut network = Network::new();
    let door = network.door(2, echo());
    let (mut one, mut three) = (dial(door, 1), dial(door, 3));
    assert_eq!(says(&mut one, b"a"), Some(b"a".to_vec()));

    // Silent: the bytes are held back, and arrive when the link is mended.
    network.set((1, 2), State::Silent);
    one.write_all(b"held").expect("a silent link takes bytes");
    assert_eq!(says(&mut three, b"b"), Some(b"b".to_vec()), "another link");
    one.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let mut heard = [0; 4];
    let error = one.read(&mut heard).expect_err("nothing passes");
    assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    one.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    network.heal();
    one.read_exact(&mut heard).expect("what was held back");
    assert_eq!(&heard, b"held");

    // Refused: closed at once, and again for who dials anew.
    network.set((1, 2), State::Refused);
    assert_eq!(says(&mut one, b"c"), None);
    let mut again = TcpStream::connect(door).expect("the proxy listens");
    again.write_all(&hello(1)).expect("sent");
    again.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    assert!(matches!(again.read(&mut heard), Ok(0) | Err(_)), "closed");
    assert_eq!(says(&mut three, b"d"), Some(b"d".to_vec()), "another link");

    // Cut: who is connected is thrown out, but may come back.
    network.heal();
    assert_eq!(network.cut((3, 2)), 1);
    assert_eq!(says(&mut three, b"e"), None);
    assert_eq!(says(&mut dial(door, 3), b"f"), Some(b"f".to_vec()));
    assert!(network.carried()[&(3, 2)] > network.carried()[&(1, 2)]);
}

#[test]
fn a_connection_without_a_hello_passes_unnamed() {
    let mut network = Network::new();
    let door = network.door(2, echo());
    network.set((1, 2), State::Refused);
    let mut stream = TcpStream::connect(door).expect("the proxy listens");
    assert_eq!(
        says(&mut stream, b"\x16\x03\x01 as TLS begins"),
        Some(b"\x16\x03\x01 as TLS begins".to_vec())
    );
    assert!(network.carried()[&(0, 2)] > 0);
}

/// A server that answers each connection with these bytes, whatever it is asked.
fn canned(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn the_http_client_tells_unsent_from_lost() {
    let ask = |to| Connection::new(to, Duration::from_secs(10)).ask(&Request::new("GET", "/x"));
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    assert!(matches!(ask(nobody.expect("a free port")), Err(Failure::NotSent(_))));
    assert!(matches!(ask(canned(b"")), Err(Failure::Lost(_))));
    assert!(matches!(ask(canned(b"HTTP/1.1 200 OK\r\n")), Err(Failure::Lost(_))));
    let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc";
    assert!(matches!(ask(canned(cut)), Err(Failure::Lost(_))), "a body that is cut off");
    let whole = b"HTTP/1.1 200 OK\r\nETag: \"7\"\r\ntransfer-encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let answer = ask(canned(whole)).expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"));
    assert_eq!(answer.header("etag"), Some("\"7\""));
    assert_eq!(encode("w1/g é"), "w1%2Fg%20%C3%A9");
}

/// A history in which everything happens one after the other.
fn history(ops: &[(Action, Outcome)]) -> History {
    let mut history = History::new(Model::Kv);
    for (action, outcome) in ops {
        let op = history.invoke(1, action.clone(), 0);
        history.complete(op, outcome.clone(), 0);
    }
    history
}

fn put(value: &str, outcome: Outcome) -> (Action, Outcome) {
    (Action::Put { key: "k".into(), value: Value::text(value) }, outcome)
}

fn get(value: Option<&str>) -> (Action, Outcome) {
    let answer = Answer::Value(value.map(Value::text));
    (Action::Get { key: "k".into() }, Outcome::Ok(answer))
}

#[test]
fn the_judge_can_refuse_and_a_remnant_keeps_what_matters() {
    let done = || Outcome::Ok(Answer::Done);
    let good = history(&[put("1", done()), put("2", Outcome::Info), get(Some("1"))]);
    assert_eq!(verdict(&good), Verdict::Linearizable);
    let lost = history(&[put("1", done()), get(None)]);
    assert!(matches!(verdict(&lost), Verdict::Violation(_)));

    // The put of 2 may still take effect after the window; that of 1 must not vanish.
    let judge = |value: Option<&str>| {
        let folder = crate::harness::fleet::Folder::new();
        let readings = [("k".into(), value.map(Value::text))].into_iter().collect();
        let remnant = Remnant::of(&good);
        stormkv_sim::caught::caught(|| remnant.judge(&readings, folder.path(), "remnant")).is_ok()
    };
    assert!(judge(Some("1")) && judge(Some("2")));
    assert!(!judge(None) && !judge(Some("3")));
}

#[test]
fn waiting_ends() {
    let mut looks = 0;
    let third = until("the third look", || {
        looks += 1;
        (looks == 3).then_some("found")
    });
    assert_eq!(third, "found");
    let limit = Duration::from_millis(20);
    let waited =
        stormkv_sim::caught::caught(|| crate::harness::within(limit, "pigs fly", || None::<()>));
    assert!(waited.unwrap_err().message.contains("until pigs fly"));
}
