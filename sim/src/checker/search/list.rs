//! The linked lists that the search removes operations from and restores them to.

/// No operation: both ends of a list.
pub const END: u32 = u32::MAX;

/// A doubly linked list of operations that forgets and restores members in O(1) ("dancing links").
/// Operation `i` is node `i + 1`; node 0 is both ends.
pub struct List {
    next: Vec<u32>,
    prev: Vec<u32>,
    member: Vec<bool>,
}

impl List {
    /// A list over operations `0..size`, of which only `members` are in it, in this order.
    pub fn new(size: usize, members: impl Iterator<Item = usize>) -> List {
        let mut list =
            List { next: vec![0; size + 1], prev: vec![0; size + 1], member: vec![false; size] };
        let mut last = 0;
        for op in members {
            let node = op + 1;
            list.member[op] = true;
            list.next[last] = node as u32;
            list.prev[node] = last as u32;
            last = node;
        }
        list.next[last] = 0;
        list.prev[0] = last as u32;
        list
    }

    /// The first member, or [`END`].
    pub fn first(&self) -> u32 {
        self.next[0].wrapping_sub(1)
    }

    /// The member after `op`, or [`END`]; `op` itself may have been lifted last.
    pub fn after(&self, op: u32) -> u32 {
        self.next[op as usize + 1].wrapping_sub(1)
    }

    /// Removes `op` if it is a member.
    pub fn lift(&mut self, op: usize) {
        if self.member[op] {
            let (prev, next) = (self.prev[op + 1], self.next[op + 1]);
            self.next[prev as usize] = next;
            self.prev[next as usize] = prev;
        }
    }

    /// Restores `op`; in the reverse order of the removals.
    pub fn unlift(&mut self, op: usize) {
        if self.member[op] {
            let (prev, next) = (self.prev[op + 1], self.next[op + 1]);
            self.next[prev as usize] = op as u32 + 1;
            self.prev[next as usize] = op as u32 + 1;
        }
    }
}
