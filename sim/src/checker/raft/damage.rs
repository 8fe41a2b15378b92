//! The rules of a member whose disk was damaged in silence.
//!
//! Damage may take what was durable, and with it what other members count on. So a member that
//! comes back with less than it had durably must know it, and must be bound by what it had: it
//! names a *floor* that is not before the last entry it held durably, it is in a term in which it
//! has promised nothing, and what it still holds is the beginning of a log that was. Until its log
//! reaches the floor again it stands for no election, and votes for nobody whose log ends before
//! the floor. That is also why it goes on to count for the entries that it had durably: an entry is
//! safe with it if nobody gets its vote without that entry.

use stormkv::node::Status;
use stormkv::types::{HardState, NodeId, SnapshotId, Term};
use stormkv::wire::{Kind, RaftMessage};

use super::super::ledger::Ledger;
use super::super::shadow::{Image, Shadow, Step};
use super::super::view::View;
use super::super::{Broken, Check, Checks};
use super::RaftChecker;

/// What the checker knows of the damage of one member.
#[derive(Default)]
pub(super) struct Wound {
    /// The disk was damaged since a start last found it whole, or since a start that has noticed it
    /// has made that durable.
    latent: bool,
    /// The term of the start that has noticed the damage: once it is durable, so is the notice.
    noticed_in: Option<Term>,
    /// The floor that the member names, as long as it says that it is not whole.
    floor: Option<SnapshotId>,
    /// The last entry that it held durably, and the newest term in which it may have promised
    /// anything, before it noticed.
    owed: SnapshotId,
    term: Term,
    /// The last entry that it had to have again when it started last, if that was only cached: a power
    /// loss may take it before it is durable.
    cached: SnapshotId,
    /// Its log, as it was durable before.
    past: Option<Image>,
}

impl Wound {
    /// Whether it held this entry durably before the damage, and is bound by that still.
    pub fn held(&self, id: SnapshotId) -> bool {
        self.past.as_ref().is_some_and(|past| {
            id.index <= past.base().index
                || past.at(id.index).is_some_and(|(term, _)| term == id.term)
        })
    }
}

fn rank(id: SnapshotId) -> (Term, u64) {
    (id.term, id.index)
}

fn show(id: SnapshotId) -> String {
    format!("{}@{}", id.index, id.term)
}

impl RaftChecker {
    /// The simulation has damaged the disk of `id`.
    pub fn damaged(&mut self, id: NodeId) {
        let wound = &mut self.nodes.of(id).wound;
        (wound.latent, wound.noticed_in) = (true, None);
    }

    /// A node is back. `explained` says whether it has all that it had durably. Returns whether all
    /// is well: if it has less, it must know that, and keep to the rules.
    pub(super) fn recovered_damaged(
        &mut self,
        id: NodeId,
        found: &impl View,
        explained: bool,
        checks: &mut Checks,
    ) -> Result<bool, Broken> {
        let Some(node) = self.nodes.get_mut(id) else { return Ok(explained) };
        let (wound, shadow) = (&mut node.wound, &mut node.shadow);
        if wound.noticed_in.is_some_and(|term| shadow.durable.term >= term) {
            wound.latent = false;
        }
        let durable = shadow.durable.last().0;
        if rank(durable) > rank(wound.owed) {
            wound.owed = durable;
        }
        let floor = found.damage();
        let last = found.status().last;
        if floor.is_none() && explained {
            // Some of it may only be cached; the first batch makes it durable.
            let owed = std::mem::take(wound).owed;
            wound.cached = owed;
            return match rank(last) < rank(owed) {
                true => Err(whole_too_early(id, last, owed)),
                false => Ok(true),
            };
        }
        if !wound.latent && wound.floor.is_none() {
            if floor.is_none() {
                return Ok(false);
            }
            if rank(durable) >= rank(wound.cached) {
                let message =
                    format!("{id} says that it is damaged, but its disk is as it was left");
                return Err(Broken::new(Check::DamageImagined, message));
            }
            // The power loss took entries that the last start had found in the cache.
            wound.owed = wound.cached;
        }
        checks.hit(Check::DamageNoticed);
        if rank(floor.unwrap_or(last)) < rank(wound.owed) {
            return Err(too_low(id, floor, last, wound.owed));
        }
        wound.floor = floor;
        if explained {
            // New damage was in what nobody needs any more.
            (wound.latent, wound.noticed_in) = (false, None);
            return Ok(true);
        }
        self.shrink(id, found)?;
        Ok(true)
    }

    /// A node has noticed that it has less than it had durably: that is all it has from now on.
    fn shrink(&mut self, id: NodeId, found: &impl View) -> Result<(), Broken> {
        let node = self.nodes.get_mut(id).expect("it has started");
        let (wound, shadow) = (&mut node.wound, &mut node.shadow);
        let status = found.status();
        wound.term = wound.term.max(shadow.durable.term);
        if status.hard_state.term <= wound.term {
            let message = format!(
                "{id} has lost a part of its log, but is still in term {}, in which it may have \
                 acknowledged what it lost",
                status.hard_state.term
            );
            return Err(Broken::new(Check::DamageTerm, message));
        }
        let Some(left) = what_is_left(found, shadow, &self.ledger) else {
            let message = format!(
                "{id} has lost a part of its log and came back with one up to {}, which is not the \
                 beginning of any that there ever was",
                show(status.last)
            );
            return Err(Broken::new(Check::DamagePrefix, message));
        };
        let before = shadow.shrink(left, status.hard_state.term);
        // One that is whole at once is bound by what it has.
        if wound.floor.is_some() {
            wound.past.get_or_insert(before);
        }
        wound.noticed_in = Some(status.hard_state.term);
        Ok(())
    }

    /// What a node says of its damage after an event.
    pub(super) fn after_damage(
        &mut self,
        id: NodeId,
        node: &impl View,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let Some(watched) = self.nodes.get_mut(id) else { return Ok(()) };
        if watched.wound.floor.is_none() {
            return Ok(());
        }
        watched.wound.floor = node.damage();
        if watched.wound.floor.is_some() {
            return Ok(());
        }
        checks.hit(Check::DamageRepaired);
        let (latent, noticed_in) = (watched.wound.latent, watched.wound.noticed_in);
        let wound = std::mem::take(&mut watched.wound);
        // New damage since the start is still to be noticed.
        watched.wound.latent = latent && noticed_in.is_none();
        let last = watched.shadow.durable.last().0;
        if rank(last) < rank(wound.owed) {
            return Err(whole_too_early(id, last, wound.owed));
        }
        Ok(())
    }

    /// A node that is not whole sends a message.
    pub(super) fn check_damaged_vote(
        &mut self,
        id: NodeId,
        to: NodeId,
        message: &RaftMessage,
        checks: &mut Checks,
    ) -> Result<(), Broken> {
        let (kind, term) = (message.kind(), message.term());
        if kind == Kind::PreVote {
            let end = SnapshotId { index: message.index(), term: message.log_term() };
            let known = self.pre_candidates.entry((id, term)).or_insert(end);
            if rank(end) > rank(*known) {
                *known = end;
            }
        }
        let Some(floor) = self.nodes.get(id).and_then(|node| node.wound.floor) else {
            return Ok(());
        };
        let candidates = match kind {
            Kind::Vote | Kind::PreVote => {
                let message = format!("{id} stands for election in term {term}, but is not whole");
                return Err(Broken::new(Check::DamagedCandidate, message));
            }
            Kind::VoteResp if !message.reject() => &self.candidates,
            Kind::PreVoteResp if !message.reject() => &self.pre_candidates,
            _ => return Ok(()),
        };
        let Some(end) = candidates.get(&(to, term)) else { return Ok(()) };
        checks.hit(Check::DamagedVote);
        if rank(*end) < rank(floor) {
            let message = format!(
                "{id}, whose log must reach {} to be whole, votes in term {term} for {to}, whose \
                 log ends at {}",
                show(floor),
                show(*end)
            );
            return Err(Broken::new(Check::DamagedVote, message));
        }
        Ok(())
    }
}

fn too_low(id: NodeId, floor: Option<SnapshotId>, last: SnapshotId, owed: SnapshotId) -> Broken {
    let owed = show(owed);
    match floor {
        Some(floor) => {
            let message = format!(
                "{id} has lost a part of its log, which was durable up to {owed}, but would vote \
                 for whoever holds {}",
                show(floor)
            );
            Broken::new(Check::DamageFloor, message)
        }
        None => {
            let message = format!(
                "{id} came back from a damaged disk with a log up to {}, of one up to {owed} that \
                 was durable, and says nothing: it may vote for a leader that lacks the rest",
                show(last)
            );
            Broken::new(Check::DamageUnnoticed, message)
        }
    }
}

fn whole_too_early(id: NodeId, last: SnapshotId, owed: SnapshotId) -> Broken {
    let message = format!(
        "{id} says that it is whole again with a log up to {}, but it had a durable one up to {}",
        show(last),
        show(owed)
    );
    Broken::new(Check::DamageFloor, message)
}

/// The log of a node that has lost some of it; `None` if it never was a log at all. It may be an
/// older one than the node had last: what replaced its end may be lost, too.
fn what_is_left(found: &impl View, shadow: &Shadow, ledger: &Ledger) -> Option<Image> {
    let Status { snapshot, last, .. } = found.status();
    let mut hash = match snapshot.index {
        0 => 0,
        index => {
            let (term, hash, _) = ledger.committed(index)?;
            (term == snapshot.term).then_some(hash)?
        }
    };
    let base = (snapshot.index > 0).then_some((snapshot, hash));
    let mut entries = Vec::new();
    for index in snapshot.index + 1..=last.index {
        let entry = found.entry(index)?;
        hash = ledger.follows(hash, &entry)?;
        entries.push((entry.term, hash));
    }
    let Image { term, vote, .. } = shadow.durable;
    let hard_state = HardState { term, vote, commit: 0 };
    let mut left = Image::default();
    left.apply(&Step { hard_state, snapshot: base, first: snapshot.index + 1, entries });
    Some(left)
}

/// Whether `image` is what a node that has just started believes in.
pub(super) fn explains(image: &Image, node: &impl View, status: &Status, ledger: &Ledger) -> bool {
    if image.is_blank() {
        // Nothing was durable: a founder begins with its founding snapshot, or a joiner with
        // nothing.
        return status.last.index <= ledger.founding();
    }
    let (last, _) = image.last();
    (status.hard_state.term, status.hard_state.vote) == (image.term, image.vote)
        && status.last == last
        && status.snapshot == image.snapshot
        && image.entries().all(|(index, term, _)| match node.entry(index) {
            Some(entry) => {
                entry.term == term
                    && ledger.version(index, term).is_some_and(|version| version.data == entry.data)
            }
            None => index <= status.snapshot.index,
        })
}
