//! `identity.toml`: whose data the directory holds.

use serde::Deserialize;

use super::sealed::{Unreadable, VERSION, damaged, seal, unseal};
use crate::tcp::identity::{ClusterId, Life};
use crate::types::NodeId;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) cluster: Option<ClusterId>,
    /// Names this directory among all that the node may ever have.
    pub(super) life: Life,
    /// Whether a log was begun, so that it must not be missing.
    pub(super) begun: bool,
    /// The digest of the backup that the cluster was founded with, if there was one.
    pub(super) restored: Option<u64>,
    /// A backup is being restored; until that is done, nothing in here means anything.
    pub(super) restoring: bool,
}

/// Numbers are text, because those of TOML end at 2^63.
#[derive(Deserialize)]
struct Fields {
    node: String,
    cluster: Option<String>,
    life: String,
    begun: bool,
    restored: Option<String>,
    #[serde(default)]
    restoring: bool,
}

impl Identity {
    pub(super) fn encode(&self) -> String {
        let cluster = match self.cluster {
            Some(cluster) => format!("cluster = \"{cluster}\"\n"),
            None => String::new(),
        };
        let restored = match self.restored {
            Some(state) => format!("restored = \"{state:016x}\"\n"),
            None => String::new(),
        };
        let restoring = if self.restoring { "restoring = true\n" } else { "" };
        seal(&format!(
            "# Whose data this directory holds. Written by stormkv: do not edit it, and do not \
             copy it\n# to another node.\nversion = {VERSION}\nnode = \"{}\"\n{cluster}\
             life = \"{}\"\nbegun = {}\n{restored}{restoring}",
            self.node.0, self.life, self.begun
        ))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Identity, Unreadable> {
        let fields: Fields = unseal(bytes)?;
        let node = fields.node.parse().map_err(|_| damaged("the node id is no number"))?;
        let cluster = fields.cluster.map(|text| text.parse().map_err(Unreadable::Damaged));
        let state = |text: String| {
            u64::from_str_radix(&text, 16).map_err(|_| damaged("the restored state is no number"))
        };
        Ok(Identity {
            node: NodeId(node),
            cluster: cluster.transpose()?,
            life: fields.life.parse().map_err(Unreadable::Damaged)?,
            begun: fields.begun,
            restored: fields.restored.map(state).transpose()?,
            restoring: fields.restoring,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sealed::notices_all_damage;
    use super::*;

    fn identities() -> [Identity; 3] {
        let cluster = ClusterId::from_number(0x1234);
        let first = Identity {
            node: NodeId(1),
            cluster,
            life: Life::random(),
            begun: true,
            restored: None,
            restoring: false,
        };
        [
            first,
            Identity { node: NodeId(7), cluster: None, begun: false, restoring: true, ..first },
            Identity { node: NodeId(u64::MAX), begun: false, restored: Some(u64::MAX), ..first },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for identity in identities() {
            assert_eq!(Identity::decode(identity.encode().as_bytes()), Ok(identity));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for identity in identities() {
            notices_all_damage(&identity.encode(), Identity::decode);
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let text = "version = 2\nowner = 1\n";
        assert_eq!(Identity::decode(text.as_bytes()), Err(Unreadable::Newer(2)));
    }
}
