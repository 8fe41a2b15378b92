//! A map by node: nodes have small numbers, and the checkers look several of them up at each event.

use stormkv::types::NodeId;

/// See the module.
pub(super) struct ByNode<T>(Vec<Option<T>>);

impl<T> Default for ByNode<T> {
    fn default() -> Self {
        ByNode(Vec::new())
    }
}

impl<T> ByNode<T> {
    #[inline]
    pub fn get(&self, id: NodeId) -> Option<&T> {
        self.0.get(id.0 as usize)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut T> {
        self.0.get_mut(id.0 as usize)?.as_mut()
    }

    /// Those that are there, in order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        (0..).zip(&self.0).filter(|(_, node)| node.is_some()).map(|(id, _)| NodeId(id))
    }

    /// Removes those for which `keep` is false.
    pub fn retain(&mut self, keep: impl Fn(NodeId) -> bool) {
        for (id, node) in (0..).zip(&mut self.0) {
            node.take_if(|_| !keep(NodeId(id)));
        }
    }
}

impl<T: Default> ByNode<T> {
    /// What there is of this node; the default if it was not there.
    #[inline]
    pub fn of(&mut self, id: NodeId) -> &mut T {
        let at = id.0 as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].get_or_insert_default()
    }
}
