//! `peers.toml`: the data directories of this node's peers, as it first met them.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use super::sealed::{Unreadable, VERSION, damaged, seal, unseal};
use super::{Directory, DirectoryError, read_small};
use crate::tcp::identity::{ClusterId, Life};
use crate::types::NodeId;

/// The name of the file.
pub(super) const PEERS: &str = "peers.toml";
/// Its name until it is whole.
pub(super) const PEERS_NEW: &str = "peers.toml.tmp";
/// Bytes of it that are read; there are never so many.
const MAX_BYTES: u64 = 4 << 20;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peers {
    /// The cluster in which they were met.
    cluster: ClusterId,
    lives: BTreeMap<NodeId, Life>,
}

#[derive(Deserialize)]
struct Fields {
    cluster: String,
    #[serde(default)]
    life: BTreeMap<String, String>,
}

impl Peers {
    fn encode(&self) -> String {
        let mut text = format!(
            "# Which data directories this node's peers have. Written by stormkv: do not edit it.\n\
             version = {VERSION}\ncluster = \"{}\"\n",
            self.cluster
        );
        for (peer, life) in &self.lives {
            text += &format!("life.{} = \"{life}\"\n", peer.0);
        }
        seal(&text)
    }

    fn decode(bytes: &[u8]) -> Result<Peers, Unreadable> {
        let fields: Fields = unseal(bytes)?;
        let mut lives = BTreeMap::new();
        for (peer, life) in fields.life {
            let peer = peer.parse().map_err(|_| damaged("a peer's id is no number"))?;
            lives.insert(NodeId(peer), life.parse().map_err(Unreadable::Damaged)?);
        }
        Ok(Peers { cluster: fields.cluster.parse().map_err(Unreadable::Damaged)?, lives })
    }
}

impl Directory {
    /// The lives of the peers that were met in this node's cluster.
    pub(in crate::tcp) fn read_peers(&self) -> Result<BTreeMap<NodeId, Life>, DirectoryError> {
        let peers = read_small(&self.path, PEERS, MAX_BYTES, Peers::decode)?;
        // A directory that was given to another cluster, by a restore, has met nobody in that one.
        let here = peers.filter(|peers| Some(peers.cluster) == self.cluster());
        Ok(here.map(|peers| peers.lives).unwrap_or_default())
    }

    /// Stores, durably, which lives were met in `cluster`. After a crash there is what was stored
    /// before or this. Not to be called by two threads at once.
    pub(in crate::tcp) fn write_peers(
        &self,
        cluster: ClusterId,
        lives: &BTreeMap<NodeId, Life>,
    ) -> io::Result<()> {
        let peers = Peers { cluster, lives: lives.clone() };
        self.replace(PEERS, PEERS_NEW, &peers.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sealed::notices_all_damage;
    use super::*;

    fn some() -> [Peers; 2] {
        let cluster = ClusterId::from_number(7).unwrap();
        let life = |number| Life::from_number(number).unwrap();
        let lives = [(NodeId(2), life(1)), (NodeId(10), life(7)), (NodeId(u64::MAX), life(7))];
        [Peers { cluster, lives: BTreeMap::new() }, Peers { cluster, lives: BTreeMap::from(lives) }]
    }

    #[test]
    fn what_is_written_is_read() {
        for peers in some() {
            assert_eq!(Peers::decode(peers.encode().as_bytes()), Ok(peers));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for peers in some() {
            notices_all_damage(&peers.encode(), Peers::decode);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(Peers::decode(b"version = 2\npeers = 1\n"), Err(Unreadable::Newer(2)));
    }
}
