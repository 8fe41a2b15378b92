//! Keys in paths: any text is a key or an error, strictly, and every key can be written as text.

use bytes::Bytes;

use stormkv::kv::MAX_KEY;
use stormkv::tcp::http::{KeyError, parse_key, percent_decode, percent_encode};

/// Takes the bytes as a key, and as a path if they are text.
pub fn check(data: &[u8]) {
    let encoded = percent_encode(data);
    assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()), "{encoded:?}");
    let expected = match data.len() {
        0 => Err(KeyError::Empty),
        len if len > MAX_KEY => Err(KeyError::TooLong(len)),
        _ => Ok(Bytes::copy_from_slice(data)),
    };
    assert_eq!(parse_key(&encoded), expected, "a key must survive being written");
    if let Ok(text) = std::str::from_utf8(data) {
        check_path(text);
    }
}

fn check_path(path: &str) {
    let bytes = path.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let is_bad = |at: &usize| bytes[*at] == b'%' && !(is_hex(at + 1) && is_hex(at + 2));
    let bad = (0..bytes.len()).find(is_bad);
    match (percent_decode(path), bad) {
        (Ok(key), None) => {
            let escapes = bytes.iter().filter(|byte| **byte == b'%').count();
            assert_eq!(key.len(), bytes.len() - 2 * escapes);
            assert_eq!(percent_decode(&percent_encode(&key)).as_deref(), Ok(&*key));
        }
        (Err(at), Some(bad)) => assert_eq!(at, bad, "the first bad escape is named"),
        (found, bad) => panic!("{path:?} is {found:?}, though the bad escape is {bad:?}"),
    }
    match parse_key(path) {
        Ok(key) => assert!((1..=MAX_KEY).contains(&key.len()) && bad.is_none()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
