//! File descriptors: how many the process may have, how they are divided, and what happens without.
//!
//! Sockets and files come out of one limit. If connections had no limit below it, whoever opens
//! enough of them would take the descriptor that the next segment of the log needs. So:
//!
//! - [`raise_limit`] raises the soft limit of the process to the hard one. The soft limit is usually
//!   1024, for programs that use `select`, which this one does not.
//! - [`Budget`] divides the limit among the connections of clients, those of peers, and everything
//!   else, which comes first.
//! - A call that fails because no descriptor is free (`EMFILE` of the process, `ENFILE` of the
//!   machine) is repeated until one is: nothing was done yet, so nothing is in doubt. A disk that
//!   waits slows the node down, as a slow disk does.
//!
//! Left out: descriptors that other parts of a program use that embeds a node. Their share comes out
//! of the reserve of 64.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info, warn};

/// Descriptors for everything but connections: files of the log and of snapshots (up to 16 open for
/// writing, and a few for reading), the runtime, listeners, standard streams, look-ups of names, and
/// files that are read again when they change.
const RESERVE: usize = 64;

/// The fewest descriptors with which a node starts.
pub(super) const MINIMUM: usize = 160;

/// A soft limit above this has no use: it is many times what the largest budget needs.
const MAX_SOFT_LIMIT: u64 = 1 << 20;

/// The limit that a macOS process may have although its hard limit is said to be infinite.
const MACOS_LIMIT: u64 = 10_240;

/// Pause between two attempts to get a descriptor.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two warnings about the same shortage.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Raises the soft limit of open files of this process to its hard limit, and returns the limit that
/// holds then. Meant for the start of a program; a library has no business with it.
pub fn raise_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MAX_SOFT_LIMIT).min(MAX_SOFT_LIMIT);
    for target in [wanted, wanted.min(MACOS_LIMIT)] {
        if current.is_none_or(|current| current >= target) {
            break;
        }
        let raised = Rlimit { current: Some(target), maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => break,
            Err(error) => debug!(target, %error, "cannot raise the limit of open files"),
        }
    }
    limit()
}

/// The number of files that this process may have open.
pub(super) fn limit() -> usize {
    let current = getrlimit(Resource::Nofile).current.unwrap_or(MAX_SOFT_LIMIT);
    usize::try_from(current).unwrap_or(usize::MAX)
}

/// The connections that a limit of descriptors allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Connections of clients.
    pub clients: usize,
    /// Connections of clients beyond those, which are only answered about the state of the node.
    pub surplus: usize,
    /// Connections that peers have made.
    pub peers: usize,
    /// Connections to the port for peers that have not finished their handshake.
    pub handshakes: usize,
}

impl Budget {
    /// Divides `limit` descriptors; `clients` is the number of connections of clients that the
    /// settings ask for.
    ///
    /// # Errors
    /// When the limit is too low for a node.
    pub fn of(limit: usize, clients: usize) -> Result<Budget, String> {
        if limit < MINIMUM {
            return Err(format!(
                "this process may have {limit} files open, and a node needs {MINIMUM}: raise the \
                 hard limit (`ulimit -Hn`, or LimitNOFILE= of systemd)"
            ));
        }
        let rest = limit - RESERVE;
        let surplus = (rest / 32).clamp(3, 32);
        let handshakes = (rest / 16).clamp(6, 128);
        // Three of each member, and as many to it.
        let peers = (rest / 8).clamp(15, 768);
        // A surplus connection may be open while the one that it displaces is about to be closed.
        let taken = 2 * surplus + handshakes + 2 * peers;
        let clients = clients.clamp(1, rest - taken);
        let budget = Budget { clients, surplus, peers, handshakes };
        assert!(RESERVE + taken + clients <= limit, "{budget:?} is beyond {limit}");
        Ok(budget)
    }
}

/// Whether a call failed because neither the process nor the machine had a descriptor for it.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    code == Some(Errno::MFILE.raw_os_error()) || code == Some(Errno::NFILE.raw_os_error())
}

/// Calls `open` until it does not fail for lack of a descriptor.
///
/// # Errors
/// When `open` fails for another reason.
pub(super) fn wait_for<T>(path: &Path, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut shortage = Shortage::default();
    loop {
        match open() {
            Err(error) if is_exhausted(&error) => {
                if let Some(waited) = shortage.warn() {
                    warn!(
                        path = %path.display(), %error, ?waited,
                        "no file descriptor is free, so the disk waits: raise `ulimit -n`"
                    );
                }
                sleep(PAUSE);
            }
            result => {
                if let Some(waited) = shortage.waited() {
                    info!(path = %path.display(), ?waited, "got a file descriptor");
                }
                return result;
            }
        }
    }
}

/// A lack of descriptors that lasts: limits the rate of warnings about it.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    began: Option<Instant>,
    warned: Option<Instant>,
}

impl Shortage {
    /// Notes a failed attempt. Returns for how long there have been such if a warning is due.
    pub fn warn(&mut self) -> Option<Duration> {
        let now = now();
        let began = *self.began.get_or_insert(now);
        if self.warned.is_some_and(|warned| now.duration_since(warned) < WARN_EVERY) {
            return None;
        }
        self.warned = Some(now);
        Some(now.duration_since(began))
    }

    /// The time since the first failed attempt, if there was one.
    pub fn waited(&self) -> Option<Duration> {
        self.began.map(|began| began.elapsed())
    }
}

#[allow(clippy::disallowed_methods, reason = "the host has real time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a thread of the disk may wait")]
fn sleep(pause: Duration) {
    thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_fits_into_every_limit() {
        for limit in (MINIMUM..5000).chain([20_000, 1 << 20, usize::MAX]) {
            let budget = Budget::of(limit, 4096).unwrap();
            assert!(budget.clients >= 16, "{limit}: {budget:?}");
            // Five members at least: each makes three connections.
            assert!(budget.peers >= 15, "{limit}: {budget:?}");
        }
        assert_eq!(Budget::of(20_000, 4096).unwrap().clients, 4096);
        assert!(Budget::of(1024, 4096).unwrap().clients >= 512);
        assert_eq!(Budget::of(1024, 10).unwrap().clients, 10);
    }

    #[test]
    fn budget_refuses_a_limit_that_is_too_low() {
        let error = Budget::of(MINIMUM - 1, 4096).unwrap_err();
        assert!(error.contains("ulimit"), "{error}");
    }

    #[test]
    fn wait_for_repeats_only_exhaustion() {
        let (emfile, enfile, eacces) = (24, 23, 13);
        let mut codes = vec![eacces, enfile, emfile];
        let path = Path::new("wal");
        let result = wait_for(path, || {
            codes.pop().map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
        });
        assert_eq!(result.unwrap_err().raw_os_error(), Some(eacces));
        assert!(codes.is_empty());
        assert_eq!(wait_for(path, || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn shortage_warns_once_in_a_while() {
        let mut shortage = Shortage::default();
        assert_eq!(shortage.waited(), None);
        assert!(shortage.warn().is_some());
        assert!(shortage.warn().is_none());
        assert!(shortage.waited().is_some());
    }

    #[test]
    fn raise_limit_reaches_the_hard_limit() {
        let raised = raise_limit();
        assert_eq!(raised, limit());
        let hard = getrlimit(Resource::Nofile).maximum;
        assert!(hard.is_none_or(|hard| raised as u64 >= hard.min(MACOS_LIMIT)));
    }
}
