//! What can go wrong with the clock of one node.
//!
//! That clocks of different nodes show different times is no fault: they always do.

use std::fmt;

use super::super::grammar::{GrammarError, Tokens};
use super::super::units;
use super::{Fault, Kind, Who, parse_who};

/// The longest step of a clock: an hour, in microseconds.
const MAX_STEP_US: u64 = 3_600_000_000;
/// The latest that a timer fires: ten seconds, in microseconds.
const MAX_JITTER_US: u64 = 10_000_000;
/// The rate of a good clock.
const TRUE_RATE: u32 = 1_000_000;

/// One thing that goes wrong with a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockFault {
    /// `drift N 1.2`: the clock runs 20 % fast (0.8: slow), in millionths. Runs well again from
    /// until on.
    Drift(u32),
    /// `step N +500ms`, `step N -500ms`: the clock jumps, in microseconds. Jumps back at until.
    Step(i64),
    /// `jitter N 30ms`: each timer fires up to this much late, in microseconds.
    Jitter(u64),
}

/// The kinds of this family.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        verb: "drift",
        form: "drift N|leader|same RATE` with a rate from 0.1 to 10 such as `1.2",
        names: &["clock-drift"],
        parse: |tokens| Ok(Fault::Clock(parse_who(tokens)?, parse_rate(tokens)?)),
    },
    Kind {
        verb: "step",
        form: "step N|leader|same +Tms|-Tms` with up to an hour such as `+500ms",
        names: &["clock-step-back", "clock-step-forward"],
        parse: |tokens| Ok(Fault::Clock(parse_who(tokens)?, parse_step(tokens)?)),
    },
    Kind {
        verb: "jitter",
        form: "jitter N|leader|same Tms` with up to ten seconds such as `30ms",
        names: &["timer-jitter"],
        parse: |tokens| {
            let who = parse_who(tokens)?;
            let late_us = tokens.duration_us("how late", 1, MAX_JITTER_US)?;
            Ok(Fault::Clock(who, ClockFault::Jitter(late_us)))
        },
    },
];

impl ClockFault {
    /// The name under which it is counted.
    pub(super) fn kind(self) -> &'static str {
        match self {
            ClockFault::Drift(_) => "clock-drift",
            ClockFault::Step(by) if by < 0 => "clock-step-back",
            ClockFault::Step(_) => "clock-step-forward",
            ClockFault::Jitter(_) => "timer-jitter",
        }
    }

    /// Writes the whole text, given whom it hits.
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>, who: Who) -> fmt::Result {
        match self {
            ClockFault::Drift(rate) => {
                let (whole, rest) = (rate / TRUE_RATE, rate % TRUE_RATE);
                let decimals = format!("{rest:06}");
                write!(f, "drift {who} {whole}.{}", &decimals[..1])?;
                f.write_str(decimals[1..].trim_end_matches('0'))
            }
            ClockFault::Step(by_us) => {
                let sign = if by_us < 0 { '-' } else { '+' };
                write!(f, "step {who} {sign}{}ms", units::show_ms(by_us.unsigned_abs()))
            }
            ClockFault::Jitter(us) => write!(f, "jitter {who} {}ms", units::show_ms(us)),
        }
    }
}

fn parse_rate(tokens: &mut Tokens<'_>) -> Result<ClockFault, GrammarError> {
    let word = tokens.need("the rate")?;
    let (whole, decimals) = word.split_once('.').unwrap_or((word, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let rate = if digits(whole) && digits(decimals) && whole.len() <= 2 && decimals.len() <= 6 {
        format!("{whole}{decimals:0<6}").parse().ok()
    } else {
        None
    };
    match rate.filter(|rate| (TRUE_RATE / 10..=TRUE_RATE * 10).contains(rate)) {
        Some(rate) => Ok(ClockFault::Drift(rate)),
        None => tokens.fail(format!("`{word}` is not a rate")),
    }
}

fn parse_step(tokens: &mut Tokens<'_>) -> Result<ClockFault, GrammarError> {
    let word = tokens.need("the step")?;
    let by_us = |text: &str| {
        let us = units::parse_ms(text.strip_suffix("ms")?)?;
        i64::try_from(us).ok().filter(|_| (1..=MAX_STEP_US).contains(&us))
    };
    let step = match (word.strip_prefix('+'), word.strip_prefix('-')) {
        (Some(ahead), _) => by_us(ahead),
        (_, Some(back)) => by_us(back).map(|us| -us),
        _ => None,
    };
    match step {
        Some(by_us) => Ok(ClockFault::Step(by_us)),
        None => tokens.fail(format!("`{word}` is not a step")),
    }
}
