//! How single values of a plan are read from TOML: times, delays and the `do` texts.
//!
//! Texts are parsed inside a serde visitor, because only an error that arises there carries the
//! position of the value in the file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::{Delay, GrammarError};

/// No time in a file may be larger: far beyond any run, and exact as a floating-point number.
const LARGEST_MS: u64 = 1_000_000_000;

/// Writes microseconds as milliseconds with no more decimals than needed.
pub(super) fn show_ms(us: u64) -> String {
    let (whole, rest) = (us / 1000, us % 1000);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:03}").trim_end_matches('0').to_string()
}

/// Reads what [`show_ms`] writes.
pub(super) fn parse_ms(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok().filter(|ms| *ms <= LARGEST_MS)?;
    let rest: u64 = format!("{decimals:0<3}").parse().ok()?;
    Some(whole * 1000 + rest)
}

struct Millis;

impl Visitor<'_> for Millis {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of milliseconds")
    }

    fn visit_i64<E: Error>(self, ms: i64) -> Result<u64, E> {
        match u64::try_from(ms) {
            Ok(ms) => self.visit_u64(ms),
            Err(_) => Err(E::custom(format!("the time {ms} is negative; write 0 or more"))),
        }
    }

    fn visit_u64<E: Error>(self, ms: u64) -> Result<u64, E> {
        if ms > LARGEST_MS {
            let message = format!("the time {ms} ms is too large; a run may last an hour");
            return Err(E::custom(message));
        }
        Ok(ms * 1000)
    }

    fn visit_f64<E: Error>(self, ms: f64) -> Result<u64, E> {
        // The shortest decimal form is what was written, so it can be judged digit by digit.
        parse_ms(&ms.to_string()).ok_or_else(|| {
            E::custom(format!(
                "the time {ms} cannot be; write milliseconds, 0 or more, up to three decimals"
            ))
        })
    }
}

/// Reads milliseconds as microseconds.
pub(super) fn ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_any(Millis)
}

/// Reads milliseconds that may be absent.
pub(super) fn some_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    ms(deserializer).map(Some)
}

struct Pair {
    in_ms: bool,
}

impl<'de> Visitor<'de> for Pair {
    type Value = Delay;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a delay `[min, mean_extra]`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Delay, A::Error> {
        let in_ms = self.in_ms;
        let next = |seq: &mut A| -> Result<Option<u64>, A::Error> {
            if in_ms {
                Ok(seq.next_element::<MillisValue>()?.map(|value| value.0))
            } else {
                seq.next_element::<u64>()
            }
        };
        let (min, extra, more) = (next(&mut seq)?, next(&mut seq)?, next(&mut seq)?);
        match (min, extra, more) {
            (Some(min_us), Some(mean_extra_us), None) => Ok(Delay { min_us, mean_extra_us }),
            _ => Err(A::Error::custom("a delay has two numbers; write `[min, mean_extra]`")),
        }
    }
}

struct MillisValue(u64);

impl<'de> serde::Deserialize<'de> for MillisValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ms(deserializer).map(MillisValue)
    }
}

/// Reads `[min, mean_extra]` in milliseconds.
pub(super) fn delay_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Delay, D::Error> {
    deserializer.deserialize_seq(Pair { in_ms: true })
}

/// Reads `[min, mean_extra]` in microseconds.
pub(super) fn delay_us<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Delay, D::Error> {
    deserializer.deserialize_seq(Pair { in_ms: false })
}

struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = GrammarError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Reads a value from its text form.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = GrammarError>,
{
    deserializer.deserialize_str(Text(PhantomData))
}

/// Reads a value that may be absent from its text form.
pub(super) fn some_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = GrammarError>,
{
    text(deserializer).map(Some)
}

/// Reads a word, `none` standing for nothing.
pub(super) fn none_or_word<'de, D>(deserializer: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let word: String = serde::Deserialize::deserialize(deserializer)?;
    Ok((word != "none").then_some(word))
}
