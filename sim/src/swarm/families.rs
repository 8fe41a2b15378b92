//! The plain families: each act is one fault (or, for links, a few of the same kind).

pub(super) mod clock;
pub(super) mod damage;
pub(super) mod disk;
pub(super) mod link;
pub(super) mod process;
