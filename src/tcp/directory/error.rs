//! Why a data directory was refused, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::peers_file::PEERS;
use crate::tcp::identity::ClusterId;
use crate::types::NodeId;

// The standard library has no stable kinds for these; the numbers are the same on all Unix systems.
pub(super) const EIO: i32 = 5;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// A data directory that cannot be used. Nothing in it was changed, except by a node that has run
/// in it before it heard of [`OtherLife`](DirectoryError::OtherLife).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The system refused something.
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system said, and what may help.
        reason: String,
    },
    /// Something else is at the path.
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another user owns the directory.
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user id of this process.
        us: u32,
    },
    /// The directory has no identity and holds something that is not stormkv's.
    Strangers {
        /// The directory.
        path: PathBuf,
        /// One of the things that are in it.
        name: String,
    },
    /// Another process uses the directory.
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, if it can be told.
        pid: Option<u32>,
    },
    /// The directory belongs to another node.
    WrongNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wanted to use it.
        expected: NodeId,
    },
    /// The directory belongs to a node of another cluster.
    WrongCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: ClusterId,
        /// The cluster that was asked for.
        expected: ClusterId,
    },
    /// There are files of a node, but not what says whose.
    IdentityMissing {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        file: String,
    },
    /// No node has run in the directory.
    NoNode {
        /// The directory.
        path: PathBuf,
    },
    /// The node has lived, but its log is gone.
    LogMissing {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        node: NodeId,
    },
    /// A backup was to be restored into the directory, and that did not come to its end.
    Restoring {
        /// The directory.
        path: PathBuf,
    },
    /// A state was to be restored into a directory that has one.
    Used {
        /// The directory.
        path: PathBuf,
    },
    /// The peers know the node by another directory.
    OtherLife {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        node: NodeId,
        /// The peers that said so. Without them there is no quorum.
        peers: Vec<NodeId>,
    },
    /// A newer version of stormkv wrote a file.
    NewerVersion {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// Its format version.
        found: u32,
        /// The newest one this build reads.
        supported: u32,
    },
    /// A file is damaged.
    Damaged {
        /// The directory.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl DirectoryError {
    pub(super) fn io(operation: &'static str, path: &Path, error: &io::Error) -> DirectoryError {
        DirectoryError::Io { path: path.to_owned(), operation, reason: explain(error) }
    }

    /// The directory in question.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            DirectoryError::Io { path, .. }
            | DirectoryError::NotADirectory { path }
            | DirectoryError::NotOurs { path, .. }
            | DirectoryError::Strangers { path, .. }
            | DirectoryError::Locked { path, .. }
            | DirectoryError::WrongNode { path, .. }
            | DirectoryError::WrongCluster { path, .. }
            | DirectoryError::IdentityMissing { path, .. }
            | DirectoryError::NoNode { path }
            | DirectoryError::LogMissing { path, .. }
            | DirectoryError::Restoring { path }
            | DirectoryError::Used { path }
            | DirectoryError::OtherLife { path, .. }
            | DirectoryError::NewerVersion { path, .. }
            | DirectoryError::Damaged { path, .. } => path,
        }
    }
}

/// What the system said, and what usually helps.
pub(in crate::tcp) fn explain(error: &io::Error) -> String {
    use io::ErrorKind::{
        FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    let remedy = match (error.kind(), error.raw_os_error()) {
        (StorageFull, _) => {
            "free some space and start the node again, nothing that was \
                             acknowledged is lost"
        }
        (QuotaExceeded, _) => {
            "raise the quota or free some space and start the node again, \
                               nothing that was acknowledged is lost"
        }
        (ReadOnlyFilesystem, _) => {
            "the system mounts a file system read-only after an error: see \
                                    the kernel's log, repair and remount it"
        }
        (PermissionDenied, _) => {
            "start stormkv as the user that owns the directory, or give the directory to the user \
             that runs it (chown); on a volume of Kubernetes set securityContext.fsGroup, and name \
             a directory in the volume that does not exist yet"
        }
        (NotFound, _) => {
            "something else than stormkv removed it, or the file system is not \
                          mounted"
        }
        (FileTooLarge, _) => "raise the limit on the size of files (ulimit -f)",
        (_, Some(EIO)) => {
            "the device failed: see the kernel's log, replace it, and add the node \
                           as a new member if the data cannot be saved"
        }
        (_, Some(EMFILE | ENFILE)) => "raise the limit of open files (ulimit -n)",
        _ => return error.to_string(),
    };
    format!("{error}: {remedy}")
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data directory {}: ", self.path().display())?;
        match self {
            DirectoryError::Io { operation, reason, .. } => {
                write!(f, "{operation} failed: {reason}")
            }
            DirectoryError::NotADirectory { .. } => {
                write!(f, "this is a file; name a directory, or one that does not exist yet")
            }
            DirectoryError::NotOurs { owner, us, .. } => write!(
                f,
                "it belongs to the user with id {owner}, but stormkv runs as {us}; start it as \
                 that user, or give the directory and all in it to the other (chown -R); if it is \
                 the top of a volume, as Kubernetes mounts one with fsGroup, name a directory in it \
                 that does not exist yet, such as {}",
                self.path().join("stormkv").display()
            ),
            DirectoryError::Strangers { name, .. } => write!(
                f,
                "it holds `{name}`, which is not stormkv's; name an empty directory, or one that \
                 does not exist yet"
            ),
            DirectoryError::Locked { pid, .. } => {
                match pid {
                    Some(pid) => write!(f, "it is in use by the process {pid}")?,
                    None => write!(f, "it is in use by another process")?,
                }
                write!(
                    f,
                    "; stop that first, or give this node a directory of its own (--data-dir)"
                )
            }
            DirectoryError::Restoring { .. } => write!(
                f,
                "a backup was being restored into it, and that did not come to its end; run \
                 `stormkv restore` again, or remove the directory to begin without the backup"
            ),
            DirectoryError::Used { .. } => write!(
                f,
                "it holds a node's state already, and nothing is overwritten; restore into a \
                 directory that does not exist yet (--data-dir)"
            ),
            DirectoryError::WrongNode { found, expected, .. } => write!(
                f,
                "it belongs to node {}, not to node {}; start it with --id {}, or name the \
                 directory of node {}",
                found.0, expected.0, found.0, expected.0
            ),
            DirectoryError::WrongCluster { found, expected, .. } => write!(
                f,
                "it belongs to a node of cluster {found}, not {expected}; start it with the \
                 --cluster that it was founded with or, if the members have other addresses now, with \
                 those and --join, which takes the directory's word for it; or name another directory"
            ),
            DirectoryError::IdentityMissing { file, .. } => write!(
                f,
                "it holds {file}, but identity.toml, which says whose that is, is missing; \
                 restore that file from where the directory was copied, or name another directory"
            ),
            DirectoryError::NoNode { .. } => write!(
                f,
                "no node has run in it: identity.toml is missing; name the data directory of a member"
            ),
            DirectoryError::LogMissing { node, .. } => write!(
                f,
                "node {} has lived here, but its log (wal-*) is gone, and with it what it has \
                 promised: it must not vote again; restore the files, or remove the member from \
                 the cluster and add a new one with another id and an empty directory",
                node.0
            ),
            DirectoryError::OtherLife { node, peers, .. } => {
                let said: Vec<String> = peers.iter().map(|peer| peer.0.to_string()).collect();
                write!(
                    f,
                    "the peers (node {} said so) know node {} by another directory: what it \
                     promised is in that one, so it must not vote with this one; put the old \
                     directory back (is its disk mounted?), or remove the member from the cluster \
                     and add a new one with another id; a new cluster at the same URLs needs \
                     another --cluster-token",
                    said.join(" and node "),
                    node.0
                )
            }
            DirectoryError::NewerVersion { file, found, supported, .. } => write!(
                f,
                "{file} has format version {found}, this build reads up to {supported}; \
                 start the newer version of stormkv that wrote it"
            ),
            DirectoryError::Damaged { file: PEERS, reason, .. } => write!(
                f,
                "{PEERS}, which says by which directories this node knows its peers, is damaged \
                 ({reason}); restore it, or remove it if no other member has lost its directory: \
                 the node then meets its peers anew"
            ),
            DirectoryError::Damaged { file, reason, .. } => write!(
                f,
                "{file} is damaged ({reason}); restore it, or remove the member from the \
                 cluster and add a new one with another id and an empty directory"
            ),
        }
    }
}

impl std::error::Error for DirectoryError {}
