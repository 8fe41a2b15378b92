//! Names of kinds, waypoints and checkers: text of the program, also when it comes out of a file.
//!
//! A run counts under names that are part of the program, so that counting costs no allocation.
//! Rows of a campaign that are read back bring the same names as text. [`intern`] gives each text
//! one static name: what is read is then the very type that a run returns, and a name that this
//! build does not know is kept like any other. An interned name is never freed; there are as many
//! as there are different names, which is a few hundred.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A name that lives as long as the program.
pub type Name = &'static str;

/// The one static name of this text.
pub fn intern(text: &str) -> Name {
    static NAMES: Mutex<BTreeSet<Name>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(name) = names.get(text) {
        return name;
    }
    let name: Name = Box::leak(text.into());
    names.insert(name);
    name
}

/// Reads a name.
///
/// # Errors
/// When there is no text.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
    Interned::deserialize(deserializer).map(|interned| interned.0)
}

/// Reads counts by name.
///
/// # Errors
/// When there is no map from text to numbers.
pub fn counts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Name, u64>, D::Error> {
    let counts = BTreeMap::<Interned, u64>::deserialize(deserializer)?;
    Ok(counts.into_iter().map(|(name, count)| (name.0, count)).collect())
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Interned(Name);

impl<'de> Deserialize<'de> for Interned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Interned, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Interned;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Interned, E> {
                Ok(Interned(intern(text)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_name_and_unknown_ones_are_kept() {
        let made_up = format!("a-fault-of-{}", "tomorrow");
        let first = intern(&made_up);
        assert_eq!(first, "a-fault-of-tomorrow");
        assert!(std::ptr::eq(first, intern("a-fault-of-tomorrow")));
        assert_ne!(first, intern("crash"));
    }
}
