//! How a run ends: when the faults stop, for whom, and how long the rest may take.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use stormkv::types::NodeId;

use super::units;

/// Who is healed when the faults stop. All others keep their failures for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Core {
    /// Everybody (in the file: `"all"`).
    #[default]
    All,
    /// A quorum or more, drawn when the faults stop, because who can be in it depends on the state
    /// then (in the file: `"random"`). Everybody, if it is not clear then what a quorum is.
    Random,
    /// These nodes (in the file: `[1, 2]`). If they are no quorum, the cluster stands still, and
    /// the run says so.
    Only(BTreeSet<NodeId>),
}

/// How the run ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct End {
    /// When all faults stop, in microseconds (in the file: `heal_at_ms`). `None`: after the last
    /// operation or fault, see [`Plan::heal_at_us`](super::Plan::heal_at_us).
    #[serde(rename = "heal_at_ms", deserialize_with = "units::some_ms")]
    pub heal_at_us: Option<u64>,
    /// How long the cluster may take from there to answer everything that was asked before, and
    /// from the last operation that began or ended to converge, in microseconds (in the file:
    /// `bound_ms`).
    #[serde(rename = "bound_ms", deserialize_with = "units::ms")]
    pub bound_us: u64,
    /// Who is healed.
    #[serde(deserialize_with = "core")]
    pub core: Core,
    /// The plan may damage more than a quorum can repair: then the cluster may stand still, as long
    /// as it stops instead of answering wrongly.
    pub beyond_quorum: bool,
}

impl Default for End {
    fn default() -> Self {
        End { heal_at_us: None, bound_us: 10_000_000, core: Core::All, beyond_quorum: false }
    }
}

impl fmt::Display for Core {
    /// As it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Core::All => f.write_str("\"all\""),
            Core::Random => f.write_str("\"random\""),
            Core::Only(nodes) => {
                let ids: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
                write!(f, "[{}]", ids.join(", "))
            }
        }
    }
}

struct CoreVisitor;

impl<'de> Visitor<'de> for CoreVisitor {
    type Value = Core;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`\"all\"`, `\"random\"` or a list of nodes")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Core, E> {
        match word {
            "all" => Ok(Core::All),
            "random" => Ok(Core::Random),
            _ => Err(E::custom(format!(
                "the core \"{word}\" is unknown; write \"all\", \"random\" or a list of nodes such \
                 as [1, 2]"
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Core, A::Error> {
        let mut nodes = BTreeSet::new();
        while let Some(id) = seq.next_element::<u64>()? {
            if !nodes.insert(NodeId(id)) {
                let message = format!("node {id} stands twice in the core; name it once");
                return Err(A::Error::custom(message));
            }
        }
        if nodes.is_empty() {
            let message = "the core is empty; name the nodes that are healed, or write \"all\"";
            return Err(A::Error::custom(message));
        }
        Ok(Core::Only(nodes))
    }
}

fn core<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Core, D::Error> {
    deserializer.deserialize_any(CoreVisitor)
}
