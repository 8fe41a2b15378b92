//! What `stormkv ctl` prints and exits with, against a server that answers as it is told.

#[path = "../../client/tests/mock.rs"]
mod mock;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::{Request, Response};

use super::*;

/// Status, revision for the `ETag`, body.
type Act = (u16, u64, &'static [u8]);

const SESSION: Act = (201, 0, br#"{"session":7}"#);
const UNSURE: Act = (504, 0, br#"{"code":"outcome_unknown","message":"it may have been applied"}"#);
const ABSENT: Act = (404, 0, br#"{"code":"key_not_found","message":"no"}"#);

#[derive(Clone, Default)]
struct Script {
    acts: Arc<Mutex<VecDeque<Act>>>,
    /// The bodies that were sent.
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Script {
    fn answer(&self, request: Request<Bytes>) -> Response<Full<Bytes>> {
        self.bodies.lock().unwrap().push(request.into_body().to_vec());
        let act = self.acts.lock().unwrap().pop_front();
        let (status, revision, body) = act.unwrap_or(UNSURE);
        let answer = Response::builder().status(status).header("etag", format!("\"{revision}\""));
        answer.body(Full::from(body)).unwrap()
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// What came of a command line.
struct Ran {
    code: u8,
    out: Vec<u8>,
    err: String,
    bodies: Vec<Vec<u8>>,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

async fn ctl(acts: &[Act], line: &[&str], input: &[u8], is_terminal: bool) -> Ran {
    let script = Script::default();
    script.acts.lock().unwrap().extend(acts);
    let answers = script.clone();
    let endpoint = mock::serve(move |request| Some(answers.answer(request))).await;
    let common = ["ctl", "--endpoints", &endpoint, "--timeout", "1"];
    let args = Cli::try_parse_from(common.iter().chain(line)).unwrap().args;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut printer = Printer::new(&mut out, args.json, is_terminal);
    let code = run(&args, &mut { input }, &mut printer, &mut err).await as u8;
    let bodies = script.bodies.lock().unwrap().clone();
    Ran { code, out, err: String::from_utf8(err).unwrap(), bodies }
}

#[tokio::test]
async fn values_are_bytes_on_the_way_in_and_out() {
    let bytes = [0xff, 0, b'\n'];
    let ran = ctl(&[SESSION, (204, 5, b"")], &["put", "k", "-"], &bytes, false).await;
    assert_eq!((ran.code, ran.text()), (0, "ok, revision 5\n"), "{}", ran.err);
    assert_eq!(ran.bodies[1], bytes);
    let ran = ctl(&[(200, 5, &[0xff, 0])], &["get", "k"], b"", false).await;
    assert_eq!((ran.code, &ran.out[..]), (0, &[0xff, 0][..]));
    let ran = ctl(&[(200, 5, b"hello")], &["get", "k"], b"", true).await;
    assert_eq!(ran.text(), "hello\n");
    let ran = ctl(&[(200, 5, &[0xff])], &["get", "k", "--json"], b"", true).await;
    assert_eq!(ran.text(), "{\"key\":\"k\",\"revision\":5,\"value_base64\":\"/w==\"}\n");
}

#[tokio::test]
async fn exit_codes_tell_what_is_known() {
    let busy: Act = (429, 0, br#"{"code":"busy","message":"too many"}"#);
    let forbidden: Act = (403, 0, br#"{"code":"forbidden","message":"admin only"}"#);
    let swapped: Act = (200, 0, br#"{"swapped":true,"current":null}"#);
    let not_swapped: Act = (200, 0, br#"{"swapped":false,"current":"x"}"#);
    let conflict: Act = (412, 0, br#"{"code":"precondition_failed","message":"","revision":8}"#);
    let cases: &[(u8, &[Act], &[&str], &str)] = &[
        (1, &[ABSENT], &["get", "k"], "there is no key k"),
        (1, &[SESSION, ABSENT], &["del", "k"], "there is no key k"),
        (0, &[SESSION, swapped], &["cas", "k", "--absent", "new"], ""),
        (1, &[SESSION, not_swapped], &["cas", "k", "old", "new"], ""),
        (1, &[SESSION, conflict], &["put", "k", "v", "--if-revision", "5"], "has revision 8"),
        (1, &[forbidden], &["remove", "3"], "nothing was changed: admin only"),
        (3, &[SESSION], &["put", "k", "v"], "the outcome is unknown: "),
        (3, &[UNSURE], &["add", "4", "http://127.0.0.1:9"], "the outcome is unknown: "),
        (64, &[], &["put", "", "v"], "the request is wrong"),
        (64, &[], &["cas", "k", "old"], "2 values are due"),
        (64, &[], &["cas", "k", "-", "-"], "only one of the values"),
        (69, &[busy; 100], &["put", "k", "v"], "too many"),
    ];
    for (code, acts, line, message) in cases {
        let ran = ctl(acts, line, b"", false).await;
        assert_eq!(ran.code, *code, "{line:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{line:?}: {}", ran.err);
        assert_eq!(ran.err.is_empty(), message.is_empty(), "{line:?}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_scan_is_a_table_or_lines_of_json() {
    let first: Act = (
        200,
        0,
        br#"{"entries":[{"key":"apple","value":"1\n2","revision":3},
            {"key":"b","value_base64":"/w==","revision":12}],"more":true,"next":"b"}"#,
    );
    let last: Act =
        (200, 0, br#"{"entries":[{"key":"c","value":"x","revision":13}],"more":false}"#);
    let ran = ctl(&[first, last], &["scan"], b"", true).await;
    let table = "KEY    REVISION  VALUE\n\
                 apple         3  1\\n2\n\
                 b            12  \\xff\n\
                 c  13  x\n";
    assert_eq!((ran.code, ran.text()), (0, table), "{}", ran.err);
    let ran = ctl(&[first, last], &["scan", "--json", "--limit", "1"], b"", true).await;
    assert_eq!(ran.text(), "{\"key\":\"apple\",\"revision\":3,\"value\":\"1\\n2\"}\n");
}

#[tokio::test]
async fn status_and_members_are_tables() {
    let status: Act = (
        200,
        0,
        br#"{"id":2,"cluster":null,"version":"0.1.0","role":"leader","term":3,"leader":2,
            "commit":120,"applied":{"index":117,"term":3},"uptime_s":1.5,"keys":7,
            "state_bytes":1536,"new":"field"}"#,
    );
    let members: Act = (
        200,
        0,
        br#"{"members":[{"id":2,"url":"http://a:1","role":"voter","leader":true},
            {"id":3,"url":"http://b:2","role":"voter"}],"removed":[]}"#,
    );
    let ran = ctl(&[status, members], &["status"], b"", true).await;
    let mut lines = ran.text().lines();
    let cells = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let head = "ID ENDPOINT ROLE LEADER TERM APPLIED LAG KEYS SIZE UPTIME VERSION".split(' ');
    assert!(cells(lines.next().unwrap()).iter().eq(head), "{}", ran.text());
    let cell = cells(lines.next().unwrap());
    let rest = ["leader", "2", "3", "117", "3", "7", "1.5", "KiB", "1", "s", "0.1.0"];
    assert_eq!((cell[0].as_str(), &cell[2..]), ("2", &rest.map(str::to_owned)[..]));
    assert_eq!(cells(lines.next().unwrap()), ["3", "-", "voter", "no", "answer"]);
    assert!(lines.next().unwrap().starts_with("member 3 (peers reach it at http://b:2): "));
    let ran = ctl(&[(500, 0, b"?")], &["status"], b"", true).await;
    assert_eq!(ran.code, 69);
    assert!(ran.text().contains("unreachable"), "{}", ran.text());
    let members: Act = (
        200,
        0,
        br#"{"members":[{"id":1,"url":"http://a:1","role":"voter","leader":true},
            {"id":10,"url":"http://b:2","role":"learner","leader":false},
            {"id":11,"url":"http://c:3","role":"learner","becomes_voter":true}],"removed":[2,3]}"#,
    );
    let ran = ctl(&[members], &["members"], b"", true).await;
    let table = "ID  ROLE                      LEADER  URL\n \
                 1  voter                     yes     http://a:1\n\
                 10  learner                           http://b:2\n\
                 11  learner, becomes a voter          http://c:3\n\
                 removed for ever: 2, 3\n";
    assert_eq!(ran.text(), table);
}

#[tokio::test]
async fn keys_and_values_may_begin_with_a_hyphen() {
    let written: Act = (204, 5, b"");
    for (line, value) in [
        (&["put", "k", "-h"][..], &b"-h"[..]),
        (&["put", "k", "-V"], b"-V"),
        (&["put", "k", "--", "--"], b"--"),
        (&["put", "k", "--", "--json"], b"--json"),
        (&["put", "--", "k", "--help"], b"--help"),
        (&["put", "k", "--unknown"], b"--unknown"),
        (&["put", "-k", "-1"], b"-1"),
        (&["put", "k", "-1", "--if-absent"], b"-1"),
    ] {
        let ran = ctl(&[SESSION, written], line, b"", false).await;
        assert_eq!((ran.code, &ran.bodies[1][..]), (0, value), "{line:?}: {}", ran.err);
    }
    let swapped: Act = (200, 0, br#"{"swapped":true,"current":null}"#);
    let ran = ctl(&[SESSION, swapped], &["cas", "-k", "-h", "-v"], b"", false).await;
    let body: serde_json::Value = serde_json::from_slice(&ran.bodies[1]).unwrap();
    assert_eq!(body, serde_json::json!({"key": "-k", "expected": "-h", "new": "-v"}));
    for line in [&["get", "-k"][..], &["get", "--", "-h"], &["get", "-1", "--stale"]] {
        let ran = ctl(&[(200, 5, b"v")], line, b"", false).await;
        assert_eq!((ran.code, ran.text()), (0, "v"), "{line:?}: {}", ran.err);
    }
    let ran = ctl(&[SESSION, (204, 0, b"")], &["del", "-k"], b"", false).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let page: Act = (200, 0, br#"{"entries":[],"more":false}"#);
    let ran = ctl(&[page], &["scan", "-k"], b"", false).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    // A value that is missing is none that is empty.
    for line in [&["put", "k"][..], &["put", "k", "--"], &["put", "k", "--json"], &["put", "-h"]] {
        let error = Cli::try_parse_from(["ctl"].iter().chain(line)).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::MissingRequiredArgument, "{line:?}");
    }
}

#[tokio::test]
async fn the_values_of_a_swap_may_be_files() {
    let file = std::env::temp_dir().join(format!("stormkv-ctl-{}", std::process::id()));
    std::fs::write(&file, [0xff, 0]).unwrap();
    let path = file.display().to_string();
    let swapped: Act = (200, 0, br#"{"swapped":true,"current":null}"#);
    let line = ["cas", "k", "--expected-file", &path, "--new-file", &path];
    let ran = ctl(&[SESSION, swapped], &line, b"", false).await;
    let body: serde_json::Value = serde_json::from_slice(&ran.bodies[1]).unwrap();
    let wanted = serde_json::json!({"key": "k", "expected_base64": "/wA=", "new_base64": "/wA="});
    assert_eq!((ran.code, body), (0, wanted), "{}", ran.err);
    std::fs::remove_file(&file).unwrap();
    let ran = ctl(&[], &line, b"", false).await;
    assert_eq!(ran.code, 74, "{}", ran.err);
}

#[test]
fn the_help_names_the_limits_as_they_are() {
    use clap::CommandFactory;
    use stormkv::kv::MAX_KEY;

    let mut command = Cli::command();
    let help = |command: &mut clap::Command, name: &str| {
        command.find_subcommand_mut(name).unwrap().render_long_help().to_string()
    };
    for name in ["put", "cas"] {
        let help = help(&mut command, name);
        assert!(help.contains(&format!("1 to {MAX_KEY} bytes")), "{help}");
        assert!(help.contains(&format!("at most {} MiB", MAX_VALUE >> 20)), "{help}");
    }
    assert!(help(&mut command, "scan").contains("[default: all]"));
    let help = command.render_long_help().to_string();
    assert!(help.contains("[default: 15]") && help.contains("Exit codes"), "{help}");
}
