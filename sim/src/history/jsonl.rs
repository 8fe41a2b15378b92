//! The JSON-lines form of a history: one event a line, in real-time order.
//!
//! ```json
//! {"process":3,"type":"invoke","f":"put","key":"x","value":"1","time":1200}
//! {"process":3,"type":"ok","f":"put","key":"x","value":"1","time":3400}
//! ```
//!
//! `type` is invoke, ok, fail or info; `time` (nanoseconds) is optional and only informative. By
//! action, `value` means:
//! - get, read: at ok, the value read; `null` if absent or initial.
//! - put, write, append: at invoke, the value. Append takes a string.
//! - cas: at invoke `[expected,new]`, expected `null` demands absence; ok has `"swapped":bool`,
//!   or `null` if it took effect and the system did not say how.
//! - delete: at ok, optionally, whether the key existed.
//! - scan: `key` is the prefix; at ok `[[key,value],..]`, ascending.
//! - txn (no key): at invoke `{"if":[[key,value|null],..],"then":[op,..],"else":[op,..]}` with the
//!   operations `["get",key]`, `["put",key,value]`, `["delete",key]`; at ok
//!   `{"succeeded":bool,"results":[..]}`, one result for each operation of the branch taken: the
//!   value read, `null` for a put, and for a delete whether the key existed, or `null`. Without
//!   `results` these are not checked; with `"succeeded":null`, nothing that it found is.
//!
//! `f` and `key` may be left out of the event that ends an operation. Errors name the file, the
//! line and the remedy.
//!
//! Values are compared by what they mean: numbers exactly by value, whatever their size and notation
//! (`1`, `1.0` and `10e-1` are one number, inside of arrays and objects, too), objects whatever the
//! order of their keys, strings whatever their escapes.

mod read;
mod write;

pub use read::read;
pub use write::write;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Answer, History, Model, Outcome};

    fn parse_as(text: &str, model: Model) -> Result<History, String> {
        read(text.as_bytes(), "h.jsonl", model, &mut |warning| panic!("{warning}"))
    }

    fn parse(text: &str) -> Result<History, String> {
        parse_as(text, Model::Kv)
    }

    #[test]
    fn every_action_survives_a_round_trip() {
        let text = r#"{"process":0,"type":"invoke","f":"put","key":"x","value":{"b":1,"a":[2]}}
{"process":1,"type":"invoke","f":"get","key":"x"}
{"process":0,"type":"ok","f":"put","key":"x","value":{"b":1,"a":[2]},"time":7}
{"process":1,"type":"ok","value":null}
{"process":0,"type":"invoke","f":"cas","key":"x","value":[null,"n"]}
{"process":0,"type":"ok","f":"cas","key":"x","value":[null,"n"],"swapped":false}
{"process":0,"type":"invoke","f":"delete","key":"x"}
{"process":0,"type":"ok","f":"delete","key":"x","value":true}
{"process":0,"type":"invoke","f":"append","key":"x","value":"\"t"}
{"process":0,"type":"info","f":"append","key":"x"}
{"process":0,"type":"invoke","f":"scan","key":""}
{"process":0,"type":"ok","f":"scan","key":"","value":[["x","1"]]}
{"process":0,"type":"invoke","f":"txn","value":{"if":[["x",null]],"then":[["put","x",1]],"else":[["get","x"],["delete","y"]]}}
{"process":0,"type":"ok","f":"txn","value":{"succeeded":false,"results":["1",null]}}
{"process":0,"type":"invoke","f":"delete","key":"x"}
{"process":0,"type":"fail","f":"delete","key":"x"}
{"process":0,"type":"invoke","f":"cas","key":"x","value":["n","m"]}
{"process":0,"type":"ok","f":"cas","key":"x","value":["n","m"],"swapped":null}
{"process":0,"type":"invoke","f":"txn","value":{"then":[["get","x"]]}}
{"process":0,"type":"ok","f":"txn","value":{"succeeded":null}}
{"process":0,"type":"invoke","f":"get","key":"x"}
"#;
        let history = parse(text).expect("valid");
        assert_eq!(history.ops().len(), 11);
        let unsaid = &Outcome::Ok(Answer::Unsaid);
        assert_eq!([&history.ops()[8].outcome, &history.ops()[9].outcome], [unsaid, unsaid]);
        assert_eq!((history.ops()[1].call, history.ops()[1].ret), (2, Some(4)));
        assert_eq!(history.ops()[4].outcome, Outcome::Info);
        assert_eq!(history.ops()[7].outcome, Outcome::Fail);
        let mut written = Vec::new();
        write(&history, &mut written).expect("memory");
        let again = parse(std::str::from_utf8(&written).expect("text")).expect("own output");
        assert_eq!(again, history);
    }

    #[test]
    fn register_lines_have_no_key() {
        let text = "{\"process\":1,\"type\":\"invoke\",\"f\":\"write\",\"value\":3}\n\
                    {\"process\":1,\"type\":\"ok\",\"f\":\"write\",\"value\":3}\n";
        let history = parse_as(text, Model::Register).expect("valid");
        assert!(matches!(&history.ops()[0].action, Action::Put { key, .. } if key.is_empty()));
        let mut written = Vec::new();
        write(&history, &mut written).expect("memory");
        assert_eq!(String::from_utf8(written).expect("text"), text);
    }

    #[test]
    fn errors_name_file_line_and_remedy() {
        let invoke = r#"{"process":1,"type":"invoke","f":"get","key":"x"}"#;
        let cases = [
            (format!("{invoke}\n{{"), "h.jsonl:2: not valid JSON"),
            ("[1]".into(), "h.jsonl:1: not a JSON object"),
            ("[1".into(), "h.jsonl:1: not valid JSON"),
            (r#"{"process":1,"process":2}"#.into(), "duplicate field `process`"),
            (r#"{"process":1.0,"type":"ok"}"#.into(), "\"process\" is missing or not a whole"),
            (r#"{"type":"ok"}"#.into(), "\"process\" is missing"),
            (r#"{"process":1,"type":"done"}"#.into(), "unknown type \"done\"; use invoke"),
            (r#"{"process":1,"type":"ok"}"#.into(), "ok of process 1 without an invoke"),
            (format!("{invoke}\n\n{invoke}"), "h.jsonl:3: process 1 invokes while its operation"),
            (format!("{invoke}\n{}", r#"{"process":1,"type":"ok"}"#), "h.jsonl:2: ok of a read"),
            (
                format!("{invoke}\n{}", r#"{"process":1,"type":"ok","key":"y","value":1}"#),
                "\"key\" is \"y\", but line 1 invoked \"x\"",
            ),
            (r#"{"process":1,"type":"invoke","f":"put","key":"x"}"#.into(), "put needs \"value\""),
            (r#"{"process":1,"type":"invoke","f":"get"}"#.into(), "get needs \"key\""),
            (r#"{"process":1,"type":"invoke","f":"read"}"#.into(), "unknown f \"read\""),
            (
                r#"{"process":1,"type":"invoke","f":"cas","key":"x","value":[1]}"#.into(),
                "cas needs \"value\":[expected,new]",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"append","key":"x","value":1}"#.into(),
                "append needs a string",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"put","key":"x","value":[1e9999999999999999999999999999999999999]}"#.into(),
                "more than 36 digits; write such a number as a string",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"txn","value":[[],[],[]]}"#.into(),
                "txn needs \"value\"",
            ),
            (
                r#"{"process":1,"type":"invoke","f":"txn","value":{"then":[["incr","x"]]}}"#.into(),
                "txn needs \"value\"",
            ),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text);
            assert!(error.starts_with("h.jsonl:"), "{error}");
            assert!(error.contains(expected), "{error:?} lacks {expected:?}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn a_null_is_not_a_missing_field() {
        let invoke = r#"{"process":1,"type":"invoke","f":"get","key":"x"}"#;
        let absent = parse(&format!("{invoke}\n{}", r#"{"process":1,"type":"ok","value":null}"#));
        let history = absent.expect("valid");
        assert_eq!(history.ops()[0].outcome, Outcome::Ok(Answer::Value(None)));
        let f = parse(&format!("{invoke}\n{}", r#"{"process":1,"type":"ok","f":null}"#));
        assert!(f.expect_err("another f").contains("\"f\" is null, but line 1 invoked \"get\""));
    }

    /// The values of all puts, and those that cas expects and writes.
    fn values(text: &str) -> Vec<String> {
        let history = parse(text).expect("valid");
        let values = history.ops().iter().flat_map(|op| match &op.action {
            Action::Put { value, .. } => vec![value.to_string()],
            Action::Cas { expected, new, .. } => {
                vec![expected.as_ref().expect("a value").to_string(), new.to_string()]
            }
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let puts: String =
            ["18446744073709551617", "-9223372036854775809", "0.1000000000000000000001"]
                .iter()
                .zip(1..)
                .map(|(number, process)| {
                    format!(
                        "{{\"process\":{process},\"type\":\"invoke\",\"f\":\"put\",\"key\":\"x\",\
                     \"value\":{number}}}\n"
                    )
                })
                .collect();
        assert_eq!(
            values(&puts),
            ["18446744073709551617", "-9223372036854775809", "0.1000000000000000000001"]
        );
        let cas =
            r#"{"process":1,"type":"invoke","f":"cas","key":"x","value":[10e-1,{"n":[1.50]}]}"#;
        assert_eq!(values(cas), ["1", "{\"n\":[1.5]}"]);
    }

    #[test]
    fn time_that_runs_backwards_is_a_warning_with_its_line() {
        let event = |process: u64, time: &str| {
            format!(
                "{{\"process\":{process},\"type\":\"invoke\",\"f\":\"get\",\"key\":\"x\"{time}}}\n"
            )
        };
        let text = [
            event(1, ",\"time\":500"),
            event(2, ""),
            event(3, ",\"time\":500"),
            event(4, ",\"time\":300"),
            event(5, ",\"time\":299"),
            event(6, ",\"time\":700"),
        ];
        let warnings = |text: &str| {
            let mut warnings = Vec::new();
            read(text.as_bytes(), "h.jsonl", Model::Kv, &mut |warning| warnings.push(warning))
                .expect("valid");
            warnings
        };
        let found = warnings(&text.concat());
        assert_eq!(found.len(), 1, "{found:?}");
        let start = "h.jsonl:4: \"time\" runs backwards, from 500 in line 3 to 300, and so does 1 later line; ";
        assert!(found[0].starts_with(start), "{found:?}");
        assert_eq!(warnings(&text[..3].concat()), Vec::<String>::new(), "standing still is fine");
    }
}
