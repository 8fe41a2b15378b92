//! Servers that lie, to see whether the clients and the judge find them out.
//!
//! A small server in this process speaks enough of the API for the clients of the stories. It can
//! be honest, and then nobody may complain; or it can break one promise, and then somebody must.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value as Json, json};
use stormkv_sim::caught::caught;
use stormkv_sim::checker::linearizable::Verdict;
use stormkv_sim::checker::model;
use stormkv_sim::history::{Action, Answer, Key, Txn, TxnOp, Value};

use crate::harness::clients::{Finished, Load, Options};
use crate::harness::kv;
use crate::harness::record::verdict;
use crate::harness::turn;

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// Every so many writes, one is acknowledged and not done.
    Forgets,
    /// Now and then a read is answered from an older state.
    Stale,
    /// Some answers are lost, and a retry takes effect again.
    Twice,
    /// Some answers are lost, and a retry gets its first answer: as it should be.
    LosesAnswers,
}

#[derive(Default)]
struct Store {
    now: BTreeMap<Key, Value>,
    older: BTreeMap<Key, Value>,
    answers: BTreeMap<String, Answer>,
    sessions: u64,
    count: u64,
}

struct Asked {
    method: String,
    target: String,
    once: Option<String>,
    only_new: bool,
    body: String,
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|count| *count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut once, mut only_new, mut length) = (None, false, 0);
    loop {
        let header = line()?;
        match header.split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().ok()?,
            Some(("idempotency-key", value)) => once = Some(value.to_owned()),
            Some(("if-none-match", _)) => only_new = true,
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, target, once, only_new, body: String::from_utf8(body).ok()? })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().expect("a digit"), rest.next().expect("a digit")];
            let digits = std::str::from_utf8(&digits).expect("digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("text")
}

/// The action that a request asks for.
fn action(asked: &Asked) -> Action {
    let value = |text: &Json| Value::from_json(text);
    let word = |text: &Json| Key::from(text.as_str().expect("a text"));
    if let Some(query) = asked.target.strip_prefix("/v1/kv?prefix=") {
        return Action::Scan { prefix: decode(query.split('&').next().expect("a part")).into() };
    }
    if let Some(key) = asked.target.strip_prefix("/v1/kv/") {
        let (key, new): (Key, Value) = (decode(key).into(), Value::text(&asked.body));
        return match asked.method.as_str() {
            "GET" => Action::Get { key },
            "DELETE" => Action::Delete { key },
            _ if asked.only_new => Action::Cas { key, expected: None, new },
            _ => Action::Put { key, value: new },
        };
    }
    let body: Json = serde_json::from_str(&asked.body).expect("JSON");
    if asked.target == "/v1/cas" {
        let new = value(&body["new"]).expect("a value");
        return Action::Cas { key: word(&body["key"]), expected: value(&body["expected"]), new };
    }
    let step = |step: &Json| match step {
        step if step["put"].is_object() => {
            TxnOp::Put(word(&step["put"]["key"]), value(&step["put"]["value"]).expect("a value"))
        }
        step if step["get"].is_string() => TxnOp::Get(word(&step["get"])),
        step => TxnOp::Delete(word(&step["delete"])),
    };
    let list = |name: &str| body[name].as_array().expect("a list").clone();
    let steps = |name: &str| list(name).iter().map(step).collect();
    let conditions =
        list("compare").iter().map(|c| (word(&c["key"]), value(&c["value"]))).collect();
    Action::Txn(Box::new(Txn { conditions, then: steps("then"), otherwise: steps("else") }))
}

fn shown(value: &Option<Value>) -> Json {
    value.as_ref().map_or(Json::Null, |value| kv::text(value).into())
}

/// Status and body of an answer.
fn response(action: &Action, answer: &Answer) -> (u16, String) {
    let absent = || (404, json!({ "code": "key_not_found" }).to_string());
    match (action, answer) {
        (_, Answer::Value(Some(value))) => (200, kv::text(value)),
        (_, Answer::Value(None)) | (_, Answer::Deleted(Some(false))) => absent(),
        (Action::Cas { expected: None, .. }, Answer::Swapped(false)) => {
            (412, json!({ "code": "precondition_failed" }).to_string())
        }
        (Action::Cas { expected: Some(expected), .. }, Answer::Swapped(swapped)) => {
            // What it was instead is not asked for.
            let current = swapped.then(|| kv::text(expected));
            (200, json!({ "swapped": swapped, "current": current }).to_string())
        }
        (_, Answer::Pairs(pairs)) => {
            let entry = |(key, value): &(Key, Value)| json!({ "key": &**key, "value": kv::text(value), "revision": 1 });
            let entries: Vec<Json> = pairs.iter().map(entry).collect();
            (200, json!({ "entries": entries, "more": false }).to_string())
        }
        (_, Answer::Txn { succeeded, results }) => {
            let read = |answer: &Answer| match answer {
                Answer::Value(value) => Some(shown(value)),
                _ => None,
            };
            let results: Vec<Json> = results.iter().flatten().filter_map(read).collect();
            (200, json!({ "succeeded": succeeded, "results": results }).to_string())
        }
        _ => (204, String::new()),
    }
}

impl Store {
    /// The answer, or silence.
    fn serve(&mut self, asked: &Asked, lie: Lie) -> Option<(u16, String)> {
        self.count += 1;
        let strikes = self.count.is_multiple_of(40);
        if asked.target == "/v1/sessions" {
            self.sessions += 1;
            return Some((201, json!({ "session": self.sessions }).to_string()));
        }
        let action = action(asked);
        let known = asked.once.as_ref().and_then(|once| self.answers.get(once)).cloned();
        let answer = match known {
            Some(answer) if lie != Lie::Twice => answer,
            _ if strikes && lie == Lie::Stale && action.is_read() => {
                model::apply(&mut self.older.clone(), &action)
            }
            _ if strikes && lie == Lie::Forgets => model::apply(&mut self.now.clone(), &action),
            _ => {
                if self.count.is_multiple_of(10) {
                    self.older = self.now.clone();
                }
                model::apply(&mut self.now, &action)
            }
        };
        if let Some(once) = &asked.once {
            self.answers.insert(once.clone(), answer.clone());
        }
        let silent = strikes && matches!(lie, Lie::Twice | Lie::LosesAnswers);
        (!silent).then(|| response(&action, &answer))
    }
}

fn liar(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let store = Arc::new(Mutex::new(Store::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = store.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some(asked) = read(&mut stream) {
                    let told = store.lock().expect("nobody panics").serve(&asked, lie);
                    let Some((status, body)) = told else { break };
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
                    if stream.get_mut().write_all((head + &body).as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Lets the clients work, in two windows, and returns what is left, and whether all was in order.
fn work(lie: Lie) -> (Finished, bool) {
    let _turn = turn();
    let address = liar(lie);
    let mut options = Options::new(lie as u64);
    options.think = std::time::Duration::from_micros(200);
    let mut load = Load::start(&[address, address], &options);
    load.progress(1200);
    let (_, first) = load.rotate();
    load.progress(400);
    let mut done = load.finish();
    let linearizable = |history| verdict(history) == Verdict::Linearizable;
    let kept = caught(|| done.nothing_is_lost()).is_ok();
    let fine = linearizable(&first) && linearizable(&done.history) && kept;
    (done, fine)
}

#[test]
fn an_honest_server_passes() {
    let (done, fine) = work(Lie::None);
    assert!(fine);
    assert_eq!((done.counts.fail, done.counts.info), (0, 0));
    assert!(done.written.len() > 50, "{}", done.written.len());
}

#[test]
fn an_honest_server_with_lost_answers_passes() {
    let (done, fine) = work(Lie::LosesAnswers);
    assert!(fine);
    assert!(done.counts.retried > 5 && done.counts.info > 5, "{:?}", done.counts);
}

#[test]
fn liars_are_found_out() {
    for lie in [Lie::Forgets, Lie::Stale, Lie::Twice] {
        let (done, fine) = work(lie);
        assert!(!fine, "{lie:?} was not noticed: {:?}", done.counts);
    }
}
