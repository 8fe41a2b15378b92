//! The canonical text of a JSON value: equal values have equal texts, and different values different
//! ones.
//!
//! - White space between tokens is dropped, strings have no needless escapes, the keys of objects are
//!   sorted, and of a key that occurs twice the last value counts.
//! - Numbers are compared by value, exactly, whatever their size and notation: `1`, `1.0` and `10e-1`
//!   are one number, and 2^64 and 2^64 + 1 are two. No machine number is involved, so nothing is
//!   rounded. A number far from 1 keeps its exponent (`1e400`), so that its text stays short.
//!
//! Left out: exponents of more than [`EXPONENT_DIGITS`] digits and nesting beyond [`MAX_DEPTH`],
//! which are refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The deepest nesting of arrays and objects, as in `serde_json`: the reader recurses.
const MAX_DEPTH: usize = 127;

/// The most digits of an exponent: 128 bits hold it, and what a line can add to it.
const EXPONENT_DIGITS: usize = 36;

/// The most digits before the decimal point that a number may get by zeros at its end.
const MAX_PLAIN: i128 = 40;

/// The most zeros between the decimal point and the first other digit.
const MAX_ZEROS: i128 = 5;

/// The canonical text of a valid JSON text.
///
/// # Errors
/// What is beyond the limits, and the remedy.
pub(super) fn canonical(json: &str) -> Result<Cow<'_, str>, String> {
    if is_plain(json) {
        return Ok(Cow::Borrowed(json));
    }
    let mut text = String::with_capacity(json.len());
    let mut reader = Reader { rest: json };
    reader.value(&mut text, 0)?;
    Ok(Cow::Owned(text))
}

/// True of most values: a string without escapes, or a short integer.
fn is_plain(json: &str) -> bool {
    let is_digits = json.len() <= MAX_PLAIN as usize && json.bytes().all(|b| b.is_ascii_digit());
    is_digits || (json.starts_with('"') && !json.contains('\\'))
}

/// Reads a JSON text that is known to be valid.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("a value is nested more than {MAX_DEPTH} deep; flatten it"));
        }
        match self.peek() {
            '{' => self.object(out, depth),
            '[' => self.array(out, depth),
            '"' => string(self.string(), out),
            _ => {
                let end = self.rest.find([',', ']', '}', ' ', '\t', '\n', '\r']);
                let word = self.take(end.unwrap_or(self.rest.len()));
                match word {
                    "true" | "false" | "null" => out.push_str(word),
                    _ => number(word, out)?,
                }
                Ok(())
            }
        }
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Result<(), String> {
        self.take(1);
        out.push('[');
        while self.peek() != ']' {
            self.value(out, depth + 1)?;
            if self.peek() == ',' {
                out.push_str(self.take(1));
            }
        }
        out.push_str(self.take(1));
        Ok(())
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), String> {
        self.take(1);
        let mut members: BTreeMap<String, String> = BTreeMap::new();
        while self.peek() != '}' {
            let (mut key, mut value) = (String::new(), String::new());
            string(self.string(), &mut key)?;
            self.peek();
            self.take(1);
            self.value(&mut value, depth + 1)?;
            members.insert(key, value);
            if self.peek() == ',' {
                self.take(1);
                self.peek();
            }
        }
        self.take(1);
        let members: Vec<String> =
            members.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
        out.push('{');
        out.push_str(&members.join(","));
        out.push('}');
        Ok(())
    }

    /// The string that begins here, with its quotes and escapes.
    fn string(&mut self) -> &'a str {
        let bytes = self.rest.as_bytes();
        let mut end = 1;
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        self.take(end + 1)
    }

    /// The next character that is no white space.
    fn peek(&mut self) -> char {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.chars().next().expect("a valid text does not end here")
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }
}

/// Appends a string with as few escapes as possible.
fn string(raw: &str, out: &mut String) -> Result<(), String> {
    if !raw.contains('\\') {
        out.push_str(raw);
        return Ok(());
    }
    // The syntax was checked before, but not that surrogates come in pairs.
    let text: String = serde_json::from_str(raw)
        .map_err(|_| format!("{raw} is no text; write code points in pairs of surrogates"))?;
    out.push_str(&serde_json::to_string(&text).expect("a string has a JSON text"));
    Ok(())
}

/// Appends a number in its canonical form.
fn number(raw: &str, out: &mut String) -> Result<(), String> {
    let (negative, unsigned) = match raw.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, raw),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // The value is 0.DIGITS * 10^point. Zeros at either end of the digits say nothing.
    let all = [whole, fraction].concat();
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        out.push('0');
        return Ok(());
    }
    let leading = (all.len() - digits.len()) as i128;
    let digits = digits.trim_end_matches('0');
    let point = self::exponent(raw, exponent)? + whole.len() as i128 - leading;
    if negative {
        out.push('-');
    }
    write_decimal(digits, point, out);
    Ok(())
}

fn exponent(raw: &str, text: &str) -> Result<i128, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = digits.trim_start_matches('0');
    if digits.len() > EXPONENT_DIGITS {
        let start: String = raw.chars().take(20).collect();
        return Err(format!(
            "the exponent of {start}.. has more than {EXPONENT_DIGITS} digits; write such a number as \
             a string"
        ));
    }
    let value: i128 = if digits.is_empty() { 0 } else { digits.parse().expect("digits that fit") };
    Ok(sign * value)
}

/// Appends 0.DIGITS * 10^point: plain if that is short, with an exponent otherwise.
fn write_decimal(digits: &str, point: i128, out: &mut String) {
    debug_assert!(!digits.starts_with('0') && !digits.ends_with('0'));
    let count = digits.len() as i128;
    let zeros = |count: i128| "0".repeat(usize::try_from(count).expect("a few"));
    if point == count || (count < point && point <= MAX_PLAIN) {
        out.push_str(digits);
        out.push_str(&zeros(point - count));
    } else if 0 < point && point < count {
        let (whole, fraction) = digits.split_at(point as usize);
        out.push_str(whole);
        out.push('.');
        out.push_str(fraction);
    } else if (-MAX_ZEROS..=0).contains(&point) {
        out.push_str("0.");
        out.push_str(&zeros(-point));
        out.push_str(digits);
    } else {
        let (first, rest) = digits.split_at(1);
        out.push_str(first);
        if !rest.is_empty() {
            out.push('.');
            out.push_str(rest);
        }
        out.push_str(&format!("e{}", point - 1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(json: &str) -> String {
        canonical(json).expect(json).into_owned()
    }

    #[test]
    fn numbers_are_equal_by_value_whatever_their_notation() {
        for (same, text) in [
            (&["1", "1.0", "10e-1", "1E0", "0.1e+1", "100e-2", "1.000"][..], "1"),
            (&["0", "-0", "0.0", "-0.00e5", "0e99999999999999999999999999999999999999999"], "0"),
            (&["-1.50", "-15e-1", "-0.015E2"], "-1.5"),
            (&["0.001", "1e-3", "10e-0004"], "0.001"),
            (&["100", "1e2", "1.00e+2"], "100"),
            (&["18446744073709551616", "1844674407370955161.6e1"], "18446744073709551616"),
            (&["1e400", "10e399", "0.1e401"], "1e400"),
            (&["1.25e-400", "125e-402"], "1.25e-400"),
        ] {
            for json in same {
                assert_eq!(of(json), text, "{json}");
            }
        }
    }

    #[test]
    fn numbers_that_a_machine_would_round_stay_apart() {
        let apart = [
            "18446744073709551616",
            "18446744073709551617",
            "-9223372036854775809",
            "-9223372036854775810",
            "170141183460469231731687303715884105728",
            "170141183460469231731687303715884105729",
            "0.1",
            "0.10000000000000000000000000000000000000001",
            "1e400",
            "1e401",
            "-1e400",
            "1e-400",
            "0",
        ];
        let texts: std::collections::BTreeSet<String> = apart.iter().map(|json| of(json)).collect();
        assert_eq!(texts.len(), apart.len(), "{texts:?}");
    }

    #[test]
    fn a_huge_exponent_takes_no_memory_and_one_beyond_128_bits_is_refused() {
        assert_eq!(of("1e999999999999999999999999"), "1e999999999999999999999999");
        assert_eq!(of("-2.50e-999999999999999999999999"), "-2.5e-999999999999999999999999");
        let error = canonical(&format!("[1e{}]", "9".repeat(40))).expect_err("too large");
        assert!(
            error.contains("has more than 36 digits; write such a number as a string"),
            "{error}"
        );
    }

    #[test]
    fn numbers_inside_arrays_and_objects_are_numbers_too() {
        let one = of(r#" { "b" : [ 1.0 , {"n":10e-1} , "1.0" ], "a":-0 } "#);
        assert_eq!(one, r#"{"a":0,"b":[1,{"n":1},"1.0"]}"#);
        assert_ne!(of("[18446744073709551616]"), of("[18446744073709551617]"));
        assert_eq!(of(r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#, "the last one counts");
        assert_eq!(
            (of("[ ]"), of("{ }"), of("[[],{}]")),
            ("[]".into(), "{}".into(), "[[],{}]".into())
        );
    }

    #[test]
    fn text_is_equal_whatever_its_escapes() {
        assert_eq!(of(r#""\u0041\/\u00e9""#), "\"A/é\"");
        assert_eq!(of(r#""\"\\\n""#), r#""\"\\\n""#);
        assert!(canonical(r#""\ud800""#).is_err_and(|error| error.contains("surrogates")));
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(of(&nested(MAX_DEPTH + 1)), nested(MAX_DEPTH + 1));
        assert!(canonical(&nested(100_000)).is_err_and(|error| error.contains("nested more than")));
    }

    proptest! {
        /// A number written in another way is the same, and its last digit counts.
        #[test]
        fn shifting_the_point_against_the_exponent_changes_nothing(
            digits in "[1-9][0-9]{0,50}[1-9]",
            exponent in -60_i64..60,
            shift in 1_usize..50,
            negative: bool,
        ) {
            let sign = if negative { "-" } else { "" };
            let whole = format!("{sign}{digits}e{exponent}");
            let padded = format!("{digits}{}", "0".repeat(shift));
            let (left, right) = padded.split_at(padded.len().min(shift));
            let moved = (padded.len() - left.len()) as i64 - shift as i64;
            let other = format!("{sign}{left}.{right}0E{}", exponent + moved);
            prop_assert_eq!(of(&whole), of(&other));
            prop_assert_eq!(of(&of(&whole)), of(&whole), "it is canonical already");
            let mut next = digits.clone();
            let last = next.pop().expect("a digit");
            next.push(if last == '1' { '2' } else { '1' });
            prop_assert_ne!(of(&whole), of(&format!("{sign}{next}e{exponent}")));
        }

        /// What a machine number holds exactly keeps its value.
        #[test]
        fn integers_are_themselves(number: i64) {
            prop_assert_eq!(of(&number.to_string()), number.to_string());
            prop_assert_eq!(of(&format!("{number}.0e0")), number.to_string());
        }
    }
}
