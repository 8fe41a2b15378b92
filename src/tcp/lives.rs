//! By which data directory this node knows each of its peers.
//!
//! A member whose directory was emptied looks like itself, with its old id and at its old address,
//! but has forgotten for whom it voted and what it acknowledged. Were it believed, it could vote
//! twice in a term, and what a majority has stored would be with a majority no longer. So whoever
//! is met first under an id is remembered, by the life of its directory, and nobody else is talked
//! to under that id: neither in the connections that it makes nor in those made to it.
//!
//! Only members are remembered. A node that dials before it is added may be a trial that is started anew
//! with an empty directory, and nothing that it says counts for a quorum. A first meeting with a member is
//! durable before the connection carries another message. Later ones cost a look into a map. What is
//! remembered belongs to one cluster, and is kept for good: ids are not used twice.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tcp::directory::{Directory, DirectoryError};
use crate::tcp::identity::{ClusterId, Life};
use crate::types::NodeId;

/// Peers that are remembered, at most. More are only met once some have left the cluster.
const MAX_PEERS: usize = 4096;

/// What this node remembers of its peers.
pub struct Lives {
    directory: Arc<Directory>,
    /// Those whose life is durable.
    met: Mutex<BTreeMap<NodeId, Life>>,
    /// Held while a first meeting is stored.
    storing: Mutex<()>,
}

/// The peer is known by another life, which is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OtherLife(pub Life);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards changes last of all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lives {
    /// What `directory` says. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub fn open(directory: Arc<Directory>) -> Result<Lives, DirectoryError> {
        let met = Mutex::new(directory.read_peers()?);
        Ok(Lives { directory, met, storing: Mutex::default() })
    }

    /// Whether `peer` is the one that is known, if one is known.
    pub(super) fn check(&self, peer: NodeId, life: Life) -> Option<Result<(), OtherLife>> {
        let known = locked(&self.met).get(&peer).copied()?;
        Some(if known == life { Ok(()) } else { Err(OtherLife(known)) })
    }

    /// Meets `peer`, and remembers it durably if that is for the first time in `cluster`. Those of
    /// whom `has_left` may be forgotten. Blocks.
    ///
    /// # Errors
    /// When it cannot be stored: then the peer was not met.
    pub(super) fn meet(
        &self,
        cluster: ClusterId,
        peer: NodeId,
        life: Life,
        has_left: impl Fn(NodeId) -> bool,
    ) -> io::Result<Result<(), OtherLife>> {
        let _storing = locked(&self.storing);
        if let Some(known) = self.check(peer, life) {
            return Ok(known);
        }
        let mut met = locked(&self.met).clone();
        if met.len() >= MAX_PEERS {
            met.retain(|peer, _| !has_left(*peer));
            if met.len() >= MAX_PEERS {
                return Err(io::Error::other(format!("{MAX_PEERS} are known already")));
            }
        }
        met.insert(peer, life);
        self.directory.write_peers(cluster, &met)?;
        *locked(&self.met) = met;
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tcp::directory::Expected;
    use crate::tcp::scratch::Scratch;

    fn cluster(number: u64) -> ClusterId {
        ClusterId::from_number(number).unwrap()
    }

    fn life(number: u64) -> Life {
        Life::from_number(number).unwrap()
    }

    fn directory(scratch: &Scratch) -> Arc<Directory> {
        let expected = Expected { node: NodeId(1), cluster: Some(cluster(7)) };
        Arc::new(Directory::open(scratch.path(), expected).unwrap())
    }

    fn lives(scratch: &Scratch) -> Lives {
        Lives::open(directory(scratch)).unwrap()
    }

    /// Meets a peer while everybody is a member.
    fn meet(lives: &Lives, peer: u64, number: u64) -> Result<(), OtherLife> {
        lives.meet(cluster(7), NodeId(peer), life(number), |_| false).unwrap()
    }

    #[test]
    fn the_first_life_is_remembered_for_good() {
        let scratch = Scratch::new();
        let first = lives(&scratch);
        assert_eq!(first.check(NodeId(2), life(1)), None);
        assert_eq!(meet(&first, 2, 1), Ok(()));
        assert_eq!(meet(&first, 3, 9), Ok(()));
        assert_eq!(meet(&first, 2, 1), Ok(()), "the same");
        assert_eq!(meet(&first, 2, 8), Err(OtherLife(life(1))));
        drop(first);
        let second = lives(&scratch);
        assert_eq!(second.check(NodeId(2), life(1)), Some(Ok(())));
        assert_eq!(second.check(NodeId(2), life(8)), Some(Err(OtherLife(life(1)))));
        assert_eq!(second.check(NodeId(3), life(9)), Some(Ok(())));
        assert_eq!(second.check(NodeId(4), life(9)), None);
    }

    #[test]
    fn what_another_cluster_met_does_not_count() {
        let scratch = Scratch::new();
        let old = lives(&scratch);
        old.meet(cluster(8), NodeId(2), life(1), |_| false).unwrap().unwrap();
        drop(old);
        let new = lives(&scratch);
        assert_eq!(new.check(NodeId(2), life(2)), None);
        assert_eq!(meet(&new, 2, 2), Ok(()));
        drop(new);
        assert_eq!(lives(&scratch).check(NodeId(2), life(2)), Some(Ok(())));
    }

    #[test]
    fn who_cannot_be_remembered_is_not_met() {
        let scratch = Scratch::new();
        let known = lives(&scratch);
        let blocked = scratch.path().join("peers.toml.tmp");
        fs::create_dir(&blocked).unwrap();
        assert!(known.meet(cluster(7), NodeId(2), life(1), |_| false).is_err());
        assert_eq!(known.check(NodeId(2), life(1)), None);
        fs::remove_dir(&blocked).unwrap();
        assert_eq!(meet(&known, 2, 1), Ok(()));
    }

    #[test]
    fn there_is_an_end_to_it_and_those_who_left_make_room() {
        let scratch = Scratch::new();
        let known = lives(&scratch);
        let many = (1..=MAX_PEERS as u64).map(|id| (NodeId(id + 10), life(id)));
        known.directory.write_peers(cluster(7), &many.collect()).unwrap();
        let known = Lives::open(known.directory.clone()).unwrap();
        let newest =
            |left: u64| known.meet(cluster(7), NodeId(2), life(1), |id| id == NodeId(left));
        assert!(newest(9).unwrap_err().to_string().contains("4096 are known"));
        assert_eq!(newest(11).unwrap(), Ok(()));
        assert_eq!(known.check(NodeId(11), life(1)), None, "it has left");
        assert_eq!(known.check(NodeId(12), life(2)), Some(Ok(())));
        let again = Lives::open(known.directory.clone()).unwrap();
        assert_eq!(*locked(&again.met), *locked(&known.met));
    }

    #[test]
    fn a_damaged_memory_is_refused() {
        let scratch = Scratch::new();
        assert_eq!(meet(&lives(&scratch), 2, 1), Ok(()));
        let path = scratch.path().join("peers.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("life.2", "life.3")).unwrap();
        let error = Lives::open(directory(&scratch)).err().expect("it is refused").to_string();
        assert!(error.contains("peers.toml") && error.contains("meets its peers anew"), "{error}");
        fs::write(&path, "version = 9\n").unwrap();
        let error = Lives::open(directory(&scratch)).err().expect("it is refused").to_string();
        assert!(error.contains("peers.toml has format version 9"), "{error}");
    }
}
