//! Plainer forms of a `do` text: words left out, numbers with fewer digits.
//!
//! This knows nothing of what a text means: whatever does not follow the grammar is thrown away. So
//! it holds for faults and operations that are not invented yet.

use std::fmt::Display;
use std::str::FromStr;

/// The most words that are left out together: `disk 3`, or `| 4 5 c1`.
const MOST_WORDS: usize = 4;

/// What the shorter forms of this text stand for, those with the fewest words first.
pub(super) fn plainer<T: Display + FromStr>(thing: &T) -> Vec<T> {
    let text = thing.to_string();
    let words: Vec<&str> = text.split(' ').collect();
    let mut forms = Vec::new();
    for count in (1..=MOST_WORDS.min(words.len() - 1)).rev() {
        // The verb stays.
        for at in 1..=words.len() - count {
            forms.push([&words[..at], &words[at + count..]].concat().join(" "));
        }
    }
    for at in 1..words.len() {
        for number in rounder(words[at]) {
            let mut changed: Vec<&str> = words.clone();
            changed[at] = &number;
            forms.push(changed.join(" "));
        }
    }
    forms.iter().filter_map(|form| form.parse().ok()).collect()
}

/// The word with fewer digits in its last number.
fn rounder(word: &str) -> Vec<String> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let Some(last) = word.rfind(|c: char| c.is_ascii_digit()) else { return Vec::new() };
    let end = last + 1;
    let begin = word[..end].rfind(|c| !is_number(c)).map_or(0, |at| at + 1);
    let number = &word[begin..end];
    let mut numbers = vec!["0".to_owned(), "1".to_owned()];
    // One digit that is not zero, then two.
    for digits in 1..=2 {
        let mut left = digits;
        let mut begun = false;
        let rounded: String = number
            .chars()
            .map(|c| {
                begun |= c.is_ascii_digit() && c != '0';
                match c {
                    '.' => c,
                    _ if begun && left == 0 => '0',
                    _ => {
                        left -= usize::from(begun);
                        c
                    }
                }
            })
            .collect();
        numbers.push(match rounded.contains('.') {
            true => rounded.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => rounded,
        });
    }
    numbers.retain(|rounded| rounded != number && !rounded.is_empty());
    numbers.iter().map(|number| format!("{}{number}{}", &word[..begin], &word[end..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Call, Fault};

    fn forms<T: Display + FromStr>(text: &str) -> Vec<String>
    where
        T::Err: std::fmt::Debug,
    {
        let thing: T = text.parse().unwrap();
        plainer(&thing).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_are_left_out_and_what_is_no_fault_is_thrown_away() {
        let plain = forms::<Fault>("crash 2 output 37");
        assert!(plain.contains(&"crash 2".to_owned()), "{plain:?}");
        assert!(plain.contains(&"crash 2 output 0".to_owned()), "{plain:?}");
        assert!(plain.contains(&"crash 2 output 30".to_owned()), "{plain:?}");
        let plain = forms::<Fault>("partition 1 2 | 3 c1 | 4");
        assert!(plain.contains(&"partition 1 2 | 3 c1".to_owned()), "{plain:?}");
        assert!(plain.contains(&"partition 1 2 | 3 | 4".to_owned()), "{plain:?}");
        let plain = forms::<Fault>("weather leader -> all drop=0.3725 delay_ms=14.5");
        for form in
            ["weather leader -> all drop=0.3725", "weather leader -> all drop=0.37 delay_ms=14.5"]
        {
            assert!(plain.contains(&form.to_owned()), "{plain:?}");
        }
        assert!(forms::<Fault>("crash all").is_empty());
    }

    #[test]
    fn operations_lose_their_node_their_conditions_and_their_steps() {
        assert!(forms::<Call>("put k v @3").contains(&"put k v".to_owned()));
        let plain = forms::<Call>("txn if a=1 then put a 2; get b else get a");
        for form in ["txn then put a 2; get b else get a", "txn if a=1 then put a 2; get b"] {
            assert!(plain.contains(&form.to_owned()), "{plain:?}");
        }
        assert!(forms::<Call>("change +4 ~5 -1").contains(&"change +4 -1".to_owned()));
    }
}
