//! Bytes in JSON: as text where they are text, in base64 where they are not.
//!
//! A field `key` has a twin `key_base64`; a request uses one of the two, and an answer too. In lists
//! the twin is an object, `{"base64": "…"}`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::body::{Body, Room};
use super::error::{ApiError, Code};

/// A body as JSON, whatever its `Content-Type` says: curl's `-d` calls everything a form.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(
            Code::InvalidBody,
            format!("the body is not the JSON that is wanted: {error}"),
        )
    })
}

/// An answer of status 200.
pub(super) fn answer(json: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(json.to_string()));
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The same, in memory that was reserved for it; `room` is for `most` bytes, no fewer than it has.
pub(super) fn large_answer(json: &Value, most: usize, room: Room) -> Response<Body> {
    let mut bytes = Vec::with_capacity(most);
    serde_json::to_writer(&mut bytes, json).expect("writing to memory cannot fail");
    let mut response = Response::new(Body::full(room.hold(bytes.into())));
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// How many bytes a field or an element has in JSON, with what stands around it; rather too many.
pub(crate) fn weight(bytes: &[u8]) -> usize {
    const AROUND: usize = 64;
    let escaped = |byte: &u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    AROUND
        + match std::str::from_utf8(bytes) {
            Ok(_) => bytes.iter().map(escaped).sum(),
            Err(_) => bytes.len().div_ceil(3) * 4,
        }
}

/// Sets the field, or its twin to bytes that are no text.
pub(crate) fn set(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => object.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => object.insert(name.to_owned(), text.into()),
        Some(Err(bytes)) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// An element of a list.
pub(crate) fn element(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

fn from_base64<E: serde::de::Error>(field: &str, text: &str) -> Result<Bytes, E> {
    let decoded = STANDARD.decode(text).map(Bytes::from);
    decoded.map_err(|error| E::custom(format!("`{field}` is not padded standard base64: {error}")))
}

/// An object all of whose fields are bytes or null, under the names in `NAMES` or their twins. Each
/// must be there: a field that was forgotten must not count as null.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<N>(pub Vec<Option<Bytes>>, std::marker::PhantomData<N>);

/// The names of the fields of an object.
pub(super) trait Names {
    const NAMES: &'static [&'static str];
}

impl<'de, N: Names> Deserialize<'de> for Fields<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<N>(std::marker::PhantomData<N>);

        impl<'de, N: Names> Visitor<'de> for Object<N> {
            type Value = Vec<Option<Bytes>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object with the fields {}", N::NAMES.join(", "))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found: Vec<Option<Option<Bytes>>> = vec![None; N::NAMES.len()];
                while let Some(name) = map.next_key::<String>()? {
                    let plain = name.strip_suffix("_base64").unwrap_or(&name);
                    let Some(at) = N::NAMES.iter().position(|known| *known == plain) else {
                        return Err(A::Error::custom(format!(
                            "unknown field `{name}`, known ones are {} (and the same with _base64)",
                            N::NAMES.join(", ")
                        )));
                    };
                    let text = map.next_value::<Option<String>>()?;
                    let bytes = match text {
                        Some(text) if plain != name => Some(from_base64(&name, &text)?),
                        text => text.map(Bytes::from),
                    };
                    if found[at].replace(bytes).is_some() {
                        return Err(A::Error::custom(format!("`{plain}` is there twice")));
                    }
                }
                let missing = |at: usize| {
                    A::Error::custom(format!("`{}` is missing (it may be null)", N::NAMES[at]))
                };
                let fields = found.into_iter().enumerate();
                fields.map(|(at, field)| field.ok_or_else(|| missing(at))).collect()
            }
        }

        let fields = deserializer.deserialize_map(Object(std::marker::PhantomData::<N>))?;
        Ok(Fields(fields, std::marker::PhantomData))
    }
}

/// A key alone: text, or `{"base64": "…"}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text(pub Bytes);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or {\"base64\": \"...\"}")]
        enum Either {
            Text(String),
            Coded { base64: String },
        }
        match Either::deserialize(deserializer)? {
            Either::Text(text) => Ok(Text(text.into())),
            Either::Coded { base64 } => from_base64("base64", &base64).map(Text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Pair;

    impl Names for Pair {
        const NAMES: &'static [&'static str] = &["key", "value"];
    }

    #[test]
    fn a_field_is_text_or_its_twin_is_base64() {
        let fields = |json: &str| parse::<Fields<Pair>>(json.as_bytes());
        let key = || Some(Bytes::from("k"));
        assert_eq!(fields(r#"{"key":"k","value":null}"#).unwrap().0, [key(), None]);
        let found = fields(r#"{"value_base64":"/w==","key_base64":"aw=="}"#).unwrap();
        assert_eq!(found.0, [key(), Some(Bytes::from_static(&[255]))]);
        for (json, part) in [
            (r#"{"key":"k"}"#, "`value` is missing (it may be null) at line 1 column 11"),
            (r#"{"key":"k","value":1}"#, "invalid type: integer `1`"),
            (r#"{"key":"k","key_base64":"aw=="}"#, "`key` is there twice"),
            (r#"{"kee":"k"}"#, "unknown field `kee`, known ones are key, value"),
            (r#"{"key_base64":"/w"}"#, "`key_base64` is not padded standard base64"),
            ("[]", "expected an object with the fields key, value"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ] {
            let error = fields(json).unwrap_err();
            assert!(error.message().contains(part), "{json}: {}", error.message());
            assert_eq!(error.code(), Code::InvalidBody);
        }
    }

    #[test]
    fn nothing_is_longer_than_its_weight() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for bytes in [&b"text"[..], b"", b"\xff", &[1; 1000], &[b'"'; 1000], &all] {
            let mut object = Map::new();
            set(&mut object, "revision", Some(bytes));
            assert!(Value::Object(object).to_string().len() <= weight(bytes));
            assert!(element(Some(bytes)).to_string().len() <= weight(bytes));
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for bytes in [&b"text"[..], b"", b"\xff\x00"] {
            let mut object = Map::new();
            set(&mut object, "key", Some(bytes));
            set(&mut object, "value", Some(bytes));
            let fields = parse::<Fields<Pair>>(Value::Object(object).to_string().as_bytes());
            let bytes = Bytes::copy_from_slice(bytes);
            assert_eq!(fields.unwrap().0, [Some(bytes.clone()), Some(bytes.clone())]);
            let text = parse::<Text>(element(Some(&bytes)).to_string().as_bytes());
            assert_eq!(text, Ok(Text(bytes)));
        }
        assert_eq!(element(None), Value::Null);
    }
}
