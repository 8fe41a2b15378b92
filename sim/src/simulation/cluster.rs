//! The nodes of a simulation, and what is known of them together: the roles before the present event,
//! and the memberships in force.

use std::iter::Flatten;
use std::slice::{Iter, IterMut};

use stormkv::node::{Membership, Node, Role, Status};
use stormkv::types::{LogIndex, NodeId, Term};

use super::in_force::Past;
use super::node::SimNode;
use crate::service::Service;

/// All nodes that ever were. See the module.
pub(super) struct Cluster<S: Service> {
    /// By id; place 0 is empty.
    nodes: Vec<Option<SimNode<S>>>,
    /// Role and term of each node before the present event.
    roles: Vec<(Role, Term)>,
    /// The highest index that any node has ever applied, and the membership as of it.
    newest: (LogIndex, Membership),
    past: Past,
}

impl<S: Service> Cluster<S> {
    pub fn new() -> Self {
        Cluster {
            nodes: Vec::new(),
            roles: Vec::new(),
            newest: (0, Membership::default()),
            past: Past::default(),
        }
    }

    /// Makes room for a node, unless it is there already.
    pub fn place(&mut self, id: NodeId, new: impl FnOnce() -> SimNode<S>) {
        let at = id.0 as usize;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
            self.roles.resize(at + 1, (Role::Follower, 0));
        }
        self.nodes[at].get_or_insert_with(new);
    }

    pub fn get(&self, id: NodeId) -> Option<&SimNode<S>> {
        self.nodes.get(id.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut SimNode<S>> {
        self.nodes.get_mut(id.0 as usize)?.as_mut()
    }

    /// By id.
    pub fn iter(&self) -> Flatten<Iter<'_, Option<SimNode<S>>>> {
        self.nodes.iter().flatten()
    }

    /// By id.
    pub fn iter_mut(&mut self) -> Flatten<IterMut<'_, Option<SimNode<S>>>> {
        self.nodes.iter_mut().flatten()
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.iter().map(|node| node.id).collect()
    }

    /// The product's node, if it is up.
    pub fn node(&self, id: NodeId) -> Option<&Node<S::Machine>> {
        Some(self.get(id)?.driver.as_ref()?.node())
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(SimNode::is_up)
    }

    pub fn status(&self, id: NodeId) -> Option<Status> {
        self.node(id).map(Node::status)
    }

    // ---- roles ----

    /// The roles and terms of all nodes before the present event, by id.
    pub fn roles(&self) -> impl Iterator<Item = (NodeId, Role, Term)> + '_ {
        let all = (0..).zip(&self.roles);
        all.map(|(id, (role, term))| (NodeId(id), *role, *term))
    }

    /// The role and the term of a node before the present event.
    pub fn role(&self, id: NodeId) -> (Role, Term) {
        self.roles[id.0 as usize]
    }

    /// Notes the role of a node after the present event. Returns the one before.
    pub fn set_role(&mut self, id: NodeId, role: (Role, Term)) -> (Role, Term) {
        std::mem::replace(&mut self.roles[id.0 as usize], role)
    }

    pub fn leads(&self, id: NodeId) -> bool {
        self.roles.get(id.0 as usize).is_some_and(|(role, _)| *role == Role::Leader)
    }

    /// The leader of the newest term that any node `of` these leads.
    pub fn leader_of(&self, of: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let leaders = self.roles().filter(|(id, role, _)| *role == Role::Leader && of(*id));
        leaders.max_by_key(|(_, _, term)| *term).map(|(id, ..)| id)
    }

    /// The leader of the newest term that any node leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader_of(|_| true)
    }

    // ---- memberships ----

    /// The highest index that any node has ever applied.
    pub fn newest_applied(&self) -> LogIndex {
        self.newest.0
    }

    /// The membership as of the highest index that any node has ever applied.
    pub fn membership(&self) -> &Membership {
        &self.newest.1
    }

    /// The memberships that were the newest.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// Notes that a node has applied all up to this index. Returns the newest membership before, if
    /// it is another one now.
    pub fn note_applied(&mut self, id: NodeId, applied: LogIndex) -> Option<Membership> {
        if applied <= self.newest.0 {
            return None;
        }
        self.newest.0 = applied;
        let membership = self.node(id).expect("it has just been used").membership();
        if self.newest.1 == *membership {
            return None;
        }
        let now = membership.clone();
        let before = std::mem::replace(&mut self.newest.1, now);
        self.past.note(applied, &self.newest.1);
        Some(before)
    }
}
