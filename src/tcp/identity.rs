//! Which cluster a node belongs to, and who it is in it.
//!
//! Two clusters must never mix: a node that found itself in another one would hand its log to
//! strangers. So each has an id, a hash of what its founders agreed on, which is stored in every
//! data directory and said in every handshake. A node that joins does not know it yet; it learns it
//! in its first handshake, once and for all.
//!
//! Two data directories of one member must not mix either: what it promised is in one of them only.
//! So each directory has a number of its own, its life, which is said in every handshake too.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use rand::RngCore;
use rand::rngs::OsRng;

use crate::digest::Digest;
use crate::types::NodeId;

/// Sets cluster ids apart from other hashes.
const CLUSTER_SEED: u64 = 0x636c_7573_7465_7269;

/// Defines a kind of identifier: a number other than 0, written as 16 hexadecimal digits.
macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(NonZeroU64);

        impl $name {
            #[doc = concat!("Returns the ", $what, " with this number; `None` for 0, which is none.")]
            #[must_use]
            pub fn from_number(number: u64) -> Option<$name> {
                NonZeroU64::new(number).map($name)
            }

            /// Returns the number, never 0.
            #[must_use]
            pub fn number(self) -> u64 {
                self.0.get()
            }

            fn from_any(number: u64) -> $name {
                $name(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let id = u64::from_str_radix(text, 16).ok().and_then($name::from_number);
                id.filter(|id| id.to_string() == text).ok_or_else(|| {
                    let wanted = concat!("is no ", $what, ": it has 16 hexadecimal digits");
                    format!("`{text}` {wanted}")
                })
            }
        }
    };
}

identifier! {
    /// Names a cluster. 0 means "not known yet" on the wire.
    ClusterId, "cluster id"
}

identifier! {
    /// Names a data directory, from the moment it became that of a node. Moved elsewhere it keeps its
    /// life; emptied and begun anew it has another one.
    Life, "life"
}

identifier! {
    /// Names a restore of a backup. All initial members of the cluster that it founds are given the same.
    RestoreId, "restore id"
}

impl ClusterId {
    /// The id of the cluster that is founded by these members at these addresses. `token` sets
    /// clusters apart that are founded at the same addresses, one after the other.
    #[must_use]
    pub fn founded_by(addresses: &BTreeMap<NodeId, String>, token: &str) -> ClusterId {
        let start = Digest::new(CLUSTER_SEED).bytes(token.as_bytes());
        let digest = addresses
            .iter()
            .fold(start, |digest, (id, address)| digest.u64(id.0).bytes(address.as_bytes()));
        ClusterId::from_any(digest.finish())
    }

    /// The id of the cluster that is founded so, but begins with a state: its backup and its restore
    /// have this digest. So a founder that was restored and one that was not never mix.
    #[must_use]
    pub fn restored(self, state: u64) -> ClusterId {
        ClusterId::from_any(Digest::new(CLUSTER_SEED).u64(self.number()).u64(state).finish())
    }
}

impl Life {
    /// A life that no other directory has.
    #[must_use]
    pub fn random() -> Life {
        Life::from_any(OsRng.next_u64())
    }
}

impl RestoreId {
    /// An id that no other restore has.
    #[must_use]
    pub fn random() -> RestoreId {
        RestoreId::from_any(OsRng.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founders_addresses_and_token_all_matter() {
        let addresses = |list: &[(u64, &str)]| {
            list.iter().map(|(id, address)| (NodeId(*id), (*address).to_owned())).collect()
        };
        let ids = [
            ClusterId::founded_by(&addresses(&[(1, "a"), (2, "b")]), ""),
            ClusterId::founded_by(&addresses(&[(1, "a"), (3, "b")]), ""),
            ClusterId::founded_by(&addresses(&[(1, "a"), (2, "c")]), ""),
            ClusterId::founded_by(&addresses(&[(1, "a"), (2, "b")]), "second"),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(id.to_string().parse(), Ok(*id));
            assert!(!ids[..at].contains(id));
        }
    }

    #[test]
    fn a_life_is_read_as_it_is_written() {
        let (one, other) = (Life::random(), Life::random());
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(Life::from_number(one.number()), Some(one));
        for text in ["0000000000000000", "12", "+00000000000000a", "000000000000000A"] {
            assert!(text.parse::<Life>().unwrap_err().contains("16 hexadecimal digits"));
        }
    }

    #[test]
    fn zero_is_no_id() {
        assert!("0000000000000000".parse::<ClusterId>().is_err());
        assert!("12".parse::<ClusterId>().unwrap_err().contains("16 hexadecimal digits"));
    }
}
