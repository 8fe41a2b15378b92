//! The client against scripted servers: each answers as it is told, and remembers what it was
//! asked.

mod mock;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Frame;
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::*;

/// What a server does when it is asked.
#[derive(Clone, Debug)]
enum Act {
    /// Answers.
    Say(u16, &'static str),
    /// Answers without a body, with this `ETag`.
    Etag(u16, u64),
    /// Never answers.
    Hang,
    /// Takes the request and closes the connection in the middle of an answer.
    Break,
}

use Act::{Break, Etag, Hang, Say};

const NO_LEADER: Act = Say(503, r#"{"code":"no_leader","message":"no leader is known"}"#);
const UNSURE: Act = Say(504, r#"{"code":"outcome_unknown","message":"it may have been applied"}"#);
const EXPIRED: Act = Say(410, r#"{"code":"session_expired","message":"the session is unknown"}"#);
const SESSION_7: Act = Say(201, r#"{"session":7}"#);
const SESSION_9: Act = Say(201, r#"{"session":9}"#);
const GARBAGE: Act = Say(502, "<html>Bad Gateway</html>");

#[derive(Default)]
struct Script {
    /// Answers to all but the status, in order. When there are none left, the server hangs.
    acts: VecDeque<Act>,
    /// Who it says leads; it is node 1, 2, ... by its place.
    leader: u64,
    id: u64,
    /// What it was asked: `METHOD path [idempotency key]`.
    asked: Vec<String>,
}

#[derive(Clone)]
struct Server {
    script: Arc<Mutex<Script>>,
    endpoint: String,
}

/// What a server says, or begins to say.
type Said = Response<Either<Full<Bytes>, Broken>>;

impl Script {
    /// The answer to a request, if there ever is one.
    fn answer(&mut self, request: &Request<Bytes>) -> Option<Said> {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let said = Response::builder();
        let whole = |body: &str| Either::Left(Full::from(body.to_owned()));
        if path == "/v1/status" {
            let (id, leader) = (self.id, self.leader);
            let status = format!(r#"{{"id":{id},"leader":{leader},"role":"x"}}"#);
            return Some(said.body(whole(&status)).unwrap());
        }
        let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap());
        self.asked.push(format!("{} {path} {}", request.method(), key.unwrap_or("-")));
        let said = match self.acts.pop_front().unwrap_or(Hang) {
            Say(code, body) => said.status(code).body(whole(body)),
            Etag(code, revision) => {
                said.status(code).header("etag", format!("\"{revision}\"")).body(whole(""))
            }
            Hang => return None,
            Break => said.body(Either::Right(Broken)),
        };
        Some(said.unwrap())
    }
}

/// A body that fails at once.
struct Broken;

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Ready(Some(Err(std::io::Error::other("broken on purpose"))))
    }
}

impl Server {
    async fn start(id: u64, leader: u64, acts: impl IntoIterator<Item = Act>) -> Server {
        let acts = acts.into_iter().collect();
        let script = Script { acts, leader, id, asked: Vec::new() };
        let script = Arc::new(Mutex::new(script));
        let answers = script.clone();
        let answer = move |request: Request<Bytes>| answers.lock().unwrap().answer(&request);
        let endpoint = mock::serve(answer).await;
        Server { script, endpoint }
    }

    fn asked(&self) -> Vec<String> {
        self.script.lock().unwrap().asked.clone()
    }

    fn believes(&self, leader: u64) {
        self.script.lock().unwrap().leader = leader;
    }
}

fn builder(servers: &[&Server]) -> Builder {
    Client::builder(servers.iter().map(|server| server.endpoint.clone()))
        .deadline(Duration::from_secs(20))
}

fn client(servers: &[&Server]) -> Client {
    builder(servers).build().unwrap()
}

/// A place where nobody listens.
async fn nobody() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    Server { script: Arc::default(), endpoint }
}

#[tokio::test]
async fn a_command_opens_a_session_and_counts() {
    let server = Server::start(1, 1, [SESSION_7, Etag(204, 11), Etag(204, 12)]).await;
    let client = client(&[&server]);
    assert_eq!(client.put("a b/é", "x").await, Ok(11));
    assert_eq!(client.put([0xff], "y").await, Ok(12));
    assert_eq!(
        server.asked(),
        ["POST /v1/sessions -", "PUT /v1/kv/a%20b%2F%C3%A9 7-1", "PUT /v1/kv/%FF 7-2"]
    );
}

#[tokio::test]
async fn refused_attempts_are_repeated_freely() {
    let acts = [NO_LEADER, NO_LEADER, Etag(204, 5)];
    let server = Server::start(1, 1, acts).await;
    let plain = builder(&[&server]).sessions(0).build().unwrap();
    assert_eq!(plain.put("k", "v").await, Ok(5));
    assert_eq!(server.asked(), ["PUT /v1/kv/k -"; 3]);
}

#[tokio::test]
async fn an_unknown_outcome_is_final_without_a_session() {
    for act in [UNSURE, Break, GARBAGE, Say(200, "hello")] {
        let server = Server::start(1, 1, [act.clone(), Etag(204, 5)]).await;
        let plain = builder(&[&server]).sessions(0).build().unwrap();
        let error = plain.put("k", "v").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{act:?}: {error}");
        assert!(error.to_string().contains("the outcome is unknown"), "{error}");
        assert_eq!(server.asked().len(), 1, "{act:?}");
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_with_a_session() {
    let acts = [SESSION_7, UNSURE, Break, GARBAGE, NO_LEADER, Etag(204, 5)];
    let server = Server::start(1, 1, acts).await;
    assert_eq!(client(&[&server]).put("k", "v").await, Ok(5));
    assert_eq!(server.asked()[1..], ["PUT /v1/kv/k 7-1"; 5], "the same number each time");
}

#[tokio::test]
async fn answer_that_was_not_kept_ends_the_doubt() {
    let not_kept = Say(504, r#"{"code":"answer_not_kept","message":"applied once"}"#);
    let server = Server::start(1, 1, [SESSION_7, UNSURE, not_kept, Etag(204, 5)]).await;
    let client = client(&[&server]);
    let error = client.cas("k", None, None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Applied, "answer_not_kept"), "{error}");
    assert!(error.to_string().starts_with("done, but the answer is lost"), "{error}");
    assert!(!error.is_unavailable());
    assert_eq!(client.put("k", "v").await, Ok(5));
    assert_eq!(server.asked()[3], "PUT /v1/kv/k 7-2", "the session goes on");
}

#[tokio::test]
async fn a_later_refusal_does_not_make_an_unknown_outcome_known() {
    let unauthorized = Say(401, r#"{"code":"unauthorized","message":"no token"}"#);
    let out_of_order = Say(409, r#"{"code":"sequence_out_of_order","message":"too late"}"#);
    for last in [unauthorized, out_of_order, EXPIRED] {
        let server = Server::start(1, 1, [SESSION_7, UNSURE, last.clone(), Etag(204, 5)]).await;
        let error = client(&[&server]).put("k", "v").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unknown, "{last:?}: {error}");
        assert_eq!(server.asked().len(), 3, "{last:?}");
    }
    let acts = [SESSION_7, UNSURE].into_iter().chain(std::iter::repeat_n(NO_LEADER, 1000));
    let server = Server::start(1, 1, acts).await;
    let short = builder(&[&server]).deadline(Duration::from_secs(1)).build().unwrap();
    let error = short.put("k", "v").await.unwrap_err();
    assert_eq!((error.kind(), error.is_unavailable()), (ErrorKind::Unknown, false), "{error}");
}

#[tokio::test]
async fn an_expired_session_is_replaced_if_nothing_was_tried_with_it() {
    let acts = [SESSION_7, Etag(204, 5), EXPIRED, SESSION_9, Etag(204, 6)];
    let server = Server::start(1, 1, acts).await;
    let client = client(&[&server]);
    assert_eq!(client.put("k", "v").await, Ok(5));
    assert_eq!(client.put("k", "w").await, Ok(6));
    assert_eq!(server.asked()[4], "PUT /v1/kv/k 9-1");
}

#[tokio::test]
async fn a_wrong_request_is_sent_once_or_not_at_all() {
    let wrong = Say(400, r#"{"code":"invalid_command","message":"too much is read"}"#);
    let server = Server::start(1, 1, [SESSION_7, wrong]).await;
    let client = client(&[&server]);
    let error = client.txn(&Txn::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, "invalid_command"));
    assert_eq!(server.asked().len(), 2);
    for error in [
        client.put("", "v").await.unwrap_err(),
        client.put("k", vec![0; MAX_VALUE + 1]).await.unwrap_err(),
        client.get(vec![0; MAX_KEY + 1], Consistency::Stale).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn the_leader_is_asked_and_its_successor_after_it() {
    let found = |body| Say(200, body);
    let first = Server::start(1, 2, []).await;
    let second = Server::start(2, 2, [SESSION_7, Etag(204, 5), NO_LEADER]).await;
    let third = Server::start(3, 2, [Etag(204, 6), found("x")]).await;
    let client = client(&[&first, &second, &third]);
    assert_eq!(client.put("k", "v").await, Ok(5));
    second.believes(3);
    third.believes(3);
    assert_eq!(client.put("k", "w").await, Ok(6));
    assert_eq!(client.find_leader().await, Some(third.endpoint.clone()));
    assert_eq!(second.asked(), ["POST /v1/sessions -", "PUT /v1/kv/k 7-1", "PUT /v1/kv/k 7-2"]);
    assert_eq!(third.asked(), ["PUT /v1/kv/k 7-2"]);
    assert_eq!(first.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_leader_that_fell_silent_is_left_for_its_successor() {
    let old = Server::start(1, 1, [SESSION_7]).await;
    let new = Server::start(2, 1, [Etag(204, 5)]).await;
    let client = client(&[&old, &new]);
    let (result, ()) = tokio::join!(client.put("k", "v"), async {
        while old.asked().len() < 2 {
            tokio::task::yield_now().await;
        }
        // The old one hangs, and believes that it leads still.
        new.believes(2);
    });
    assert_eq!(result, Ok(5));
    assert_eq!(old.asked()[1], new.asked()[0], "with the same number");
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_passed_over() {
    let (first, last) = (nobody().await, nobody().await);
    let server = Server::start(2, 3, [SESSION_7, Etag(204, 5)]).await;
    let client = client(&[&first, &server, &last]);
    assert_eq!(client.put("k", "v").await, Ok(5), "a follower passes it on");
    let statuses = client.status().await;
    assert_eq!(statuses[1].1.as_ref().map(|status| status.id), Ok(2));
    assert!(statuses[0].1.as_ref().unwrap_err().is_unavailable());
    assert_eq!(statuses[2].0, last.endpoint);
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_changed() {
    let short = builder(&[&nobody().await, &nobody().await]).deadline(Duration::from_secs(1));
    for sessions in [0, 1] {
        let client = short.clone().sessions(sessions).build().unwrap();
        let error = client.put("k", "v").await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, UNAVAILABLE), "{error}");
        assert!(error.is_unavailable() && error.to_string().contains("nothing was changed"));
        let error = client.add_member(4, "http://127.0.0.1:1", false).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
}

#[tokio::test]
async fn a_read_is_never_of_unknown_outcome() {
    let value = Say(200, "hello");
    for act in [UNSURE, Break, GARBAGE, NO_LEADER] {
        let server =
            Server::start(1, 1, [act, Say(404, r#"{"code":"key_not_found","message":""}"#)]);
        let found = client(&[&server.await]).get("k", Consistency::Linearizable).await;
        assert_eq!(found, Ok(None));
    }
    let server = Server::start(1, 1, [value]).await;
    let error = client(&[&server]).get("k", Consistency::Stale).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, BAD_ANSWER), "no ETag: {error}");
    let hanging = Server::start(1, 1, []).await;
    let short = builder(&[&hanging]).deadline(Duration::from_secs(1)).build().unwrap();
    let error = short.get("k", Consistency::Linearizable).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}

#[tokio::test]
async fn a_membership_change_is_not_repeated_in_doubt() {
    let pending = Say(409, r#"{"code":"reconfiguration_pending","message":"wait"}"#);
    let server = Server::start(1, 1, [pending, UNSURE, Say(200, r#"{"index":9}"#)]).await;
    let client = client(&[&server]);
    let error = client.add_member(4, "http://127.0.0.1:42379", true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    assert_eq!(server.asked(), ["POST /v1/members -"; 2]);
    assert_eq!(client.remove_member(4, false).await, Ok(()));
}

#[tokio::test]
async fn a_membership_change_that_risks_the_quorum_is_refused_with_its_remedy() {
    let risk = Say(409, r#"{"code":"quorum_at_risk","message":"start the missing members"}"#);
    let server = Server::start(1, 1, [risk]).await;
    let error = client(&[&server]).remove_member(2, false).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Refused, "quorum_at_risk"));
    assert_eq!((error.message(), error.is_unavailable()), ("start the missing members", false));
    assert_eq!(server.asked().len(), 1, "nothing changes as long as nobody acts");
}

#[tokio::test]
async fn guards_swaps_and_transactions_read_their_answers() {
    let conflict = r#"{"code":"precondition_failed","message":"no","revision":8}"#;
    let absent = r#"{"code":"key_not_found","message":"no"}"#;
    let server = Server::start(
        1,
        1,
        [
            SESSION_7,
            Say(412, conflict),
            Etag(204, 9),
            Say(404, absent),
            Say(200, r#"{"swapped":false,"current_base64":"/w=="}"#),
            Say(200, r#"{"swapped":true}"#),
        ],
    )
    .await;
    let client = client(&[&server]);
    let guard = Guard::Revision(5);
    let conflicting = Guarded::Conflict { revision: Some(8) };
    assert_eq!(client.put_if("k", guard, "v").await, Ok(conflicting));
    let done = Guarded::Done { revision: Some(9) };
    assert_eq!(client.put_if("k", Guard::Absent, "v").await, Ok(done));
    assert_eq!(client.delete("k").await, Ok(false));
    let swap = client.cas("k", None, Some("v".into())).await.unwrap();
    assert_eq!(swap, Swap { swapped: false, current: Some(vec![0xff].into()) });
    let error = client.cas("k", None, None).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unknown, BAD_ANSWER), "{error}");
}

#[tokio::test]
async fn a_scan_goes_from_page_to_page() {
    let pages = [
        Say(200, r#"{"entries":[{"key":"a","value":"1","revision":3}],"more":true,"next":"a"}"#),
        NO_LEADER,
        Say(200, r#"{"entries":[{"key_base64":"/w==","value":"2","revision":4}],"more":false}"#),
    ];
    let server = Server::start(1, 1, pages).await;
    let client = client(&[&server]);
    let mut scan = client.scan("").page_size(1);
    assert_eq!(scan.next().await.unwrap().unwrap().key, "a");
    assert_eq!(scan.next().await.unwrap().unwrap().key, vec![0xff]);
    assert_eq!(scan.next().await, Ok(None));
    assert_eq!(scan.next_page().await, Ok(None));
    let path = "GET /v1/kv?prefix=&limit=1&consistency=linearizable";
    assert_eq!(server.asked()[0], format!("{path} -"));
    assert_eq!(server.asked()[2], format!("{path}&after=a -"));
}

#[tokio::test]
async fn a_backup_is_whole_or_an_error() {
    let refusing = Say(503, r#"{"code":"stopping","message":"it stops"}"#);
    let server = Server::start(1, 1, [Say(200, "a snapshot"), Break, refusing]).await;
    let client = client(&[&server]);
    let mut file = Vec::new();
    assert_eq!(client.backup(&mut file).await, Ok(10));
    assert_eq!(file, b"a snapshot");
    assert!(client.backup(&mut Vec::new()).await.unwrap_err().is_unavailable());
    let error = client.backup(&mut Vec::new()).await.unwrap_err();
    assert!(error.message().contains("503"), "{error}");
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let wrong = |builder: Builder| builder.build().err().expect("it is wrong").to_string();
    assert!(wrong(Client::builder(Vec::<String>::new())).contains("no endpoint"));
    for endpoint in ["127.0.0.1:1", "ftp://x", "http://x/v1", "http://", "http://x y"] {
        assert!(wrong(Client::builder([endpoint])).contains("http://host:port"), "{endpoint}");
    }
    assert!(wrong(Client::builder(["https://x:1"])).contains("needs a CA file"));
    let plain = Client::builder(["http://x:1/"]);
    assert!(plain.clone().build().is_ok());
    assert!(wrong(plain.clone().token("a\nb")).contains("no header may"));
    assert!(wrong(plain.clone().ca_file("/does/not/exist")).contains("/does/not/exist"));
    assert!(wrong(plain.ca_file("Cargo.toml")).contains("holds no certificate"));
}

/// Any node's answer will do, so one that is silent costs a second, not the time of an attempt.
#[tokio::test]
async fn stale_reads_and_the_status_move_on_from_a_silent_endpoint() {
    let silent = Server::start(1, 2, []).await;
    let good = Server::start(2, 2, std::iter::repeat_n(Etag(200, 5), 100)).await;
    // A client begins with any of its endpoints.
    while silent.asked().is_empty() {
        let began = tokio::time::Instant::now();
        let found = client(&[&silent, &good]).get("k", Consistency::Stale).await;
        assert_eq!(found.unwrap().unwrap().revision, 5);
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    // The system accepts connections for it, and it never reads them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let deaf = Server { script: Arc::default(), endpoint };
    let began = tokio::time::Instant::now();
    let statuses = client(&[&deaf, &good]).status().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(statuses[0].1.as_ref().is_err_and(Error::is_unavailable), "{statuses:?}");
    assert_eq!(statuses[1].1.as_ref().unwrap().id, 2);
}
