//! What survives of unsynced changes: one style per event, then one fate per change.
//!
//! A uniform subset alone would almost never lose everything or keep everything, and those are the
//! cases that recovery code handles worst. So a style is drawn first.

use super::SECTOR;
use crate::rng::{Chance, Stream};

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    /// A part of it survived.
    Torn,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Nothing,
    Everything,
    /// Each change survives with this probability.
    Subset(Chance),
    /// Of each file (and of the directory) the first changes survive.
    Prefix,
}

/// Decides the fate of one change after another.
#[derive(Clone, Debug)]
pub(super) struct Survival {
    style: Style,
    draws: Stream,
    /// How many more changes a prefix holds.
    prefix: u64,
    /// How many more changes until the one that is torn.
    torn_after: Option<u64>,
    /// Whether the end of a prefix may be torn.
    tears_prefix: bool,
}

impl Survival {
    /// Draws a style. Nothing is torn until [`tear_one_of`](Self::tear_one_of) is called.
    pub fn draw(mut draws: Stream) -> Self {
        let style = match draws.below(8) {
            0 | 1 => Style::Nothing,
            2 => Style::Everything,
            3..=5 => Style::Subset(Chance::new([0.125, 0.5, 0.875][draws.below(3) as usize])),
            _ => Style::Prefix,
        };
        Survival { style, draws, prefix: 0, torn_after: None, tears_prefix: false }
    }

    /// Lets one of the next `changes` be torn, if chance wants it.
    pub fn tear_one_of(&mut self, changes: u64) {
        match self.style {
            Style::Subset(_) if changes > 0 && self.draws.chance(0.5) => {
                self.torn_after = Some(self.draws.below(changes));
            }
            Style::Prefix => self.tears_prefix = self.draws.chance(0.75),
            _ => {}
        }
    }

    /// Turns to the next file, which has this many changes.
    pub fn begin(&mut self, changes: u64) {
        if let Style::Prefix = self.style {
            self.prefix = self.draws.below(changes + 1);
        }
    }

    /// The fate of the next change.
    pub fn next_fate(&mut self) -> Fate {
        match self.style {
            Style::Nothing => Fate::Lost,
            Style::Everything => Fate::Kept,
            Style::Subset(chance) => {
                let torn = self.torn_after == Some(0);
                self.torn_after = self.torn_after.and_then(|after| after.checked_sub(1));
                match (torn, chance.hit(self.draws.draw())) {
                    (true, _) => Fate::Torn,
                    (false, true) => Fate::Kept,
                    (false, false) => Fate::Lost,
                }
            }
            Style::Prefix if self.prefix > 0 => {
                self.prefix -= 1;
                Fate::Kept
            }
            Style::Prefix if std::mem::take(&mut self.tears_prefix) => Fate::Torn,
            Style::Prefix => Fate::Lost,
        }
    }

    /// Whether the new size of a file survives, whatever became of its content.
    pub fn keeps_size(&mut self) -> bool {
        match self.style {
            Style::Nothing => false,
            Style::Everything => true,
            Style::Subset(_) | Style::Prefix => self.draws.chance(0.5),
        }
    }
}

/// A sector that was being written when the power went: new up to some byte and old behind it, or
/// the other way round, or new and then garbage. Bytes that were not changing stay as they are.
pub(super) fn tear(
    survival: &mut Survival,
    old: &[u8; SECTOR],
    new: &[u8; SECTOR],
) -> [u8; SECTOR] {
    let draws = &mut survival.draws;
    // The cut lies among the bytes that change: elsewhere it would tear nothing.
    let changes = |&i: &usize| old[i] != new[i];
    let first = (0..SECTOR).find(changes).unwrap_or(0);
    let last = (0..SECTOR).rfind(changes).unwrap_or(0);
    let cut = first + draws.below((last - first + 1) as u64) as usize;
    let (mut head, mut tail) = (*new, *old);
    match draws.below(3) {
        0 => {}
        1 => (head, tail) = (*old, *new),
        _ => {
            for i in cut..SECTOR {
                if old[i] != new[i] {
                    tail[i] = draws.next_u64() as u8;
                }
            }
        }
    }
    head[cut..].copy_from_slice(&tail[cut..]);
    head
}
