//! A small, fast 64-bit hash whose results never change.
//!
//! Replicas compare digests of their states, on different machines and, during an upgrade, in
//! different builds. So the hash must be a fixed function of its input: the standard library's
//! hashers promise no such thing. It guards against mistakes, not against people: anyone who
//! tries can make two states with the same digest.
//!
//! A state made of many entries is hashed as the wrapping sum of one hash per entry. The sum does
//! not depend on the order in which the entries came about, and one entry is added or taken away
//! in O(1).

/// Spreads one word over 64 bits when multiplied with it. Odd, with about half of the bits set.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The same for the last step, so that a hash is not a prefix state of a longer input's hash.
const FINISH: u64 = 0xd6e8_feb8_6659_fd93;

/// A hash in the making.
///
/// ```
/// use stormkv::digest::Digest;
/// let hash = Digest::new(1).bytes(b"key").u64(7).finish();
/// assert_ne!(hash, Digest::new(2).bytes(b"key").u64(7).finish());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Digest {
    /// Starts a hash. Give each kind of thing its own seed: equal bytes of two kinds then hash
    /// differently.
    #[must_use]
    pub const fn new(seed: u64) -> Digest {
        // Scattered, so that small numbers that follow cannot cancel a small seed.
        Digest(seed.wrapping_mul(SPREAD) ^ FINISH)
    }

    /// Takes in one number.
    #[must_use]
    pub const fn u64(self, word: u64) -> Digest {
        Digest(fold(self.0 ^ word, SPREAD))
    }

    /// Takes in a string of bytes. Its length counts too, so that two neighbouring strings cannot
    /// exchange bytes unnoticed.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Digest {
        let mut digest = self.u64(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            digest = digest.u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            digest = digest.u64(u64::from_le_bytes(last));
        }
        digest
    }

    /// The hash.
    #[must_use]
    pub const fn finish(self) -> u64 {
        fold(self.0 ^ FINISH, FINISH)
    }
}

/// Multiplies to 128 bits and folds the halves together: every bit of `a` reaches both ends.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PINNED: [u64; 4] = [
        0xc9d8_74ca_57d9_e055,
        0x5383_e532_91b3_afb7,
        0x76f1_ce6b_93cc_f46c,
        0x240d_4ced_dd30_c784,
    ];

    #[test]
    fn values_are_pinned() {
        // Digests are compared between builds: if this test fails, they no longer can be.
        assert_eq!(Digest::new(1).finish(), PINNED[0]);
        assert_eq!(Digest::new(1).u64(2).finish(), PINNED[1]);
        assert_eq!(Digest::new(1).bytes(b"").finish(), PINNED[2]);
        assert_eq!(Digest::new(1).bytes(b"a key of 19 bytes..").u64(3).finish(), PINNED[3]);
    }

    #[test]
    fn lengths_and_boundaries_count() {
        let hash = |parts: &[&[u8]]| {
            parts.iter().fold(Digest::new(7), |digest, part| digest.bytes(part)).finish()
        };
        let mut seen = BTreeSet::new();
        for zeros in 0..100 {
            assert!(seen.insert(hash(&[&vec![0; zeros]])), "{zeros} zeros");
        }
        for (seed, word) in (50..99).flat_map(|seed| (0..50).map(move |word| (seed, word))) {
            assert!(seen.insert(Digest::new(seed).u64(word).finish()), "{word} after {seed}");
        }
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"ab", b""]), hash(&[b"", b"ab"]));
    }

    #[test]
    fn one_flipped_bit_changes_about_half_of_the_hash() {
        let input = *b"twenty-four bytes here!!";
        let hash = Digest::new(7).bytes(&input).finish();
        let mut total = 0;
        for bit in 0..input.len() * 8 {
            let mut flipped = input;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let changed = (hash ^ Digest::new(7).bytes(&flipped).finish()).count_ones();
            assert!((10..=54).contains(&changed), "bit {bit} changes {changed} bits");
            total += changed;
        }
        let mean = f64::from(total) / (input.len() * 8) as f64;
        assert!((30.0..34.0).contains(&mean), "{mean} bits change on average");
    }
}
