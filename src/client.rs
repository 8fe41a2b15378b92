//! A client of a cluster: finds the leader, retries safely, and says plainly what is not known.
