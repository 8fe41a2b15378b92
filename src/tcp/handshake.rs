//! The first words on a connection between peers: who is there, of which cluster, speaking what.
//!
//! ```text
//! Hello (dialer)     magic (8) | version min (2) | version max (2) | lane (1) | zero (3)
//!                    | cluster (8) | from (8) | to (8) | life (8) | url length (2) | url
//!                    | CRC-32 (4)
//! Welcome (acceptor) magic (8) | version (2) | status (1) | zero (1) | cluster (8) | id (8)
//!                    | life (8) | CRC-32 (4)
//! ```
//!
//! All numbers are little endian; a cluster of 0 is one that is not known yet. A life names the
//! data directory of who speaks, and is never 0. The layout stays the same for all versions: what
//! comes after it may differ, and that is what the versions are for.
//! A connection carries the messages of one *lane* from its dialer to its acceptor, so that
//! heartbeats and votes never wait behind entries, nor entries behind a snapshot.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::api::MAX_ADDRESS;
use crate::tcp::identity::{ClusterId, Life};
use crate::types::NodeId;
pub use crate::wire::Lane;

/// How both sides begin.
pub const MAGIC: [u8; 8] = *b"stormkv\0";
/// The versions of the protocol that this program speaks, from and up to.
pub const VERSIONS: (u16, u16) = (1, 1);

/// Bytes of a [`Hello`] before its URL.
const HELLO_HEAD: usize = 50;
/// Where in it the length of the URL is.
const URL_LENGTH: usize = 48;
/// Bytes of a [`Welcome`].
const WELCOME: usize = 40;

/// What a dialer says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions that the dialer speaks, from and up to.
    pub versions: (u16, u16),
    /// The number of the lane; see [`Lane::from_number`].
    pub lane: u8,
    /// The dialer's cluster, if it knows it.
    pub cluster: Option<ClusterId>,
    /// The dialer.
    pub from: NodeId,
    /// Whom it means to talk to.
    pub to: NodeId,
    /// The dialer's data directory.
    pub life: Life,
    /// Where the peers reach the dialer and, behind a space, where clients reach it; the second may be
    /// missing. At most [`MAX_ADDRESS`] bytes together.
    pub url: String,
}

/// What the acceptor makes of a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Messages may follow.
    Ok,
    /// The two are members of different clusters.
    WrongCluster,
    /// The acceptor is not the node that the dialer means.
    WrongNode,
    /// The dialer was removed from the cluster for good.
    Removed,
    /// They have no version in common.
    NoCommonVersion,
    /// The dialer's certificate is not that of the node it says it is, or it is not one that a
    /// joining node may learn from.
    NotAllowed,
    /// Not now; try again.
    Busy,
    /// The acceptor knows the dialer by another data directory: this one has forgotten what was
    /// promised there.
    OtherLife,
}

impl Status {
    /// All statuses, in the order of their numbers.
    pub const ALL: [Status; 8] = [
        Status::Ok,
        Status::WrongCluster,
        Status::WrongNode,
        Status::Removed,
        Status::NoCommonVersion,
        Status::NotAllowed,
        Status::Busy,
        Status::OtherLife,
    ];

    /// The status's name, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::WrongCluster => "wrong_cluster",
            Status::WrongNode => "wrong_node",
            Status::Removed => "removed",
            Status::NoCommonVersion => "no_common_version",
            Status::NotAllowed => "not_allowed",
            Status::Busy => "busy",
            Status::OtherLife => "other_life",
        }
    }
}

/// What an acceptor answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version to speak from now on.
    pub version: u16,
    /// Whether messages may follow.
    pub status: Status,
    /// The acceptor's cluster, if it knows it.
    pub cluster: Option<ClusterId>,
    /// The acceptor.
    pub id: NodeId,
    /// The acceptor's data directory.
    pub life: Life,
}

/// Bytes that are no handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandshakeError(String);

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no handshake of stormkv: {}", self.0)
    }
}

impl std::error::Error for HandshakeError {}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

fn error<T>(what: impl Into<String>) -> Result<T, HandshakeError> {
    Err(HandshakeError(what.into()))
}

/// The little-endian number of `N` bytes at `at`; the caller knows that they are there.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

/// The life at `at`; the caller knows that its bytes are there.
fn life_at(bytes: &[u8], at: usize) -> Result<Life, HandshakeError> {
    match Life::from_number(u64::from_le_bytes(bytes_at(bytes, at))) {
        Some(life) => Ok(life),
        None => error("a life of 0"),
    }
}

fn check_magic(bytes: &[u8]) -> Result<(), HandshakeError> {
    let common = bytes.len().min(MAGIC.len());
    if bytes[..common] == MAGIC[..common] {
        return Ok(());
    }
    error("it begins with other bytes. Is a peer's URL that of another service or of TLS?")
}

fn check_crc(bytes: &[u8]) -> Result<(), HandshakeError> {
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    if crc32fast::hash(body).to_le_bytes() == crc {
        return Ok(());
    }
    error("its checksum does not match its bytes")
}

impl Hello {
    /// The bytes to send. A URL that is too long is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let url = if self.url.len() <= MAX_ADDRESS { self.url.as_bytes() } else { &[] };
        let mut bytes = Vec::with_capacity(HELLO_HEAD + url.len() + 4);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.versions.0.to_le_bytes());
        bytes.extend_from_slice(&self.versions.1.to_le_bytes());
        bytes.extend_from_slice(&[self.lane, 0, 0, 0]);
        bytes.extend_from_slice(&self.cluster.map_or(0, ClusterId::number).to_le_bytes());
        bytes.extend_from_slice(&self.from.0.to_le_bytes());
        bytes.extend_from_slice(&self.to.0.to_le_bytes());
        bytes.extend_from_slice(&self.life.number().to_le_bytes());
        bytes.extend_from_slice(&(url.len() as u16).to_le_bytes());
        bytes.extend_from_slice(url);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a hello from the beginning of `bytes`, and says how many of them it took. `None`:
    /// more bytes are needed.
    ///
    /// # Errors
    /// When `bytes` do not begin with a hello.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Hello, usize)>, HandshakeError> {
        check_magic(bytes)?;
        if bytes.len() < HELLO_HEAD {
            return Ok(None);
        }
        let url_len = usize::from(u16::from_le_bytes(bytes_at(bytes, URL_LENGTH)));
        if url_len > MAX_ADDRESS {
            return error(format!("a URL of {url_len} bytes; the limit is {MAX_ADDRESS}"));
        }
        let whole = HELLO_HEAD + url_len + 4;
        let Some(bytes) = bytes.get(..whole) else { return Ok(None) };
        check_crc(bytes)?;
        let Ok(url) = str::from_utf8(&bytes[HELLO_HEAD..whole - 4]) else {
            return error("a URL that is not UTF-8");
        };
        let number = |at| u64::from_le_bytes(bytes_at(bytes, at));
        let hello = Hello {
            versions: (
                u16::from_le_bytes(bytes_at(bytes, 8)),
                u16::from_le_bytes(bytes_at(bytes, 10)),
            ),
            lane: bytes[12],
            cluster: ClusterId::from_number(number(16)),
            from: NodeId(number(24)),
            to: NodeId(number(32)),
            life: life_at(bytes, 40)?,
            url: url.to_owned(),
        };
        Ok(Some((hello, whole)))
    }

    /// Reads a hello from a stream, and not a byte more.
    ///
    /// # Errors
    /// When the stream fails or says something else.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Hello> {
        let mut bytes = vec![0; HELLO_HEAD];
        // A stranger is sent away by its first bytes: it may wait for us to speak.
        stream.read_exact(&mut bytes[..MAGIC.len()]).await?;
        check_magic(&bytes[..MAGIC.len()])?;
        stream.read_exact(&mut bytes[MAGIC.len()..]).await?;
        let url_len =
            usize::from(u16::from_le_bytes(bytes_at(&bytes, URL_LENGTH))).min(MAX_ADDRESS);
        bytes.resize(HELLO_HEAD + url_len + 4, 0);
        stream.read_exact(&mut bytes[HELLO_HEAD..]).await?;
        match Hello::parse(&bytes)? {
            Some((hello, _)) => Ok(hello),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The newest version that both speak.
    #[must_use]
    pub fn common_version(&self) -> Option<u16> {
        let newest = self.versions.1.min(VERSIONS.1);
        (newest >= self.versions.0.max(VERSIONS.0)).then_some(newest)
    }
}

impl Welcome {
    /// The bytes to send.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WELCOME);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&[self.status as u8, 0]);
        bytes.extend_from_slice(&self.cluster.map_or(0, ClusterId::number).to_le_bytes());
        bytes.extend_from_slice(&self.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.life.number().to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a welcome from the beginning of `bytes`, and says how many of them it took. `None`:
    /// more bytes are needed.
    ///
    /// # Errors
    /// When `bytes` do not begin with a welcome.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Welcome, usize)>, HandshakeError> {
        check_magic(bytes)?;
        let Some(bytes) = bytes.get(..WELCOME) else { return Ok(None) };
        check_crc(bytes)?;
        let Some(&status) = Status::ALL.get(usize::from(bytes[10])) else {
            return error(format!("an unknown status {}", bytes[10]));
        };
        let welcome = Welcome {
            version: u16::from_le_bytes(bytes_at(bytes, 8)),
            status,
            cluster: ClusterId::from_number(u64::from_le_bytes(bytes_at(bytes, 12))),
            id: NodeId(u64::from_le_bytes(bytes_at(bytes, 20))),
            life: life_at(bytes, 28)?,
        };
        Ok(Some((welcome, WELCOME)))
    }

    /// Reads a welcome from a stream, and not a byte more.
    ///
    /// # Errors
    /// When the stream fails or says something else.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Welcome> {
        let mut bytes = [0; WELCOME];
        stream.read_exact(&mut bytes).await?;
        match Welcome::parse(&bytes)? {
            Some((welcome, _)) => Ok(welcome),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::choppy::{Choppy, poll_and_drop, steps};
    use proptest::prelude::*;

    fn life() -> impl Strategy<Value = Life> {
        any::<u64>().prop_filter_map("0 is no life", Life::from_number)
    }

    fn hello() -> impl Strategy<Value = Hello> {
        let versions = (any::<u16>(), any::<u16>());
        let ids = (any::<u64>(), any::<u64>(), any::<u64>());
        (versions, any::<u8>(), ids, life(), "\\PC{0,200}").prop_map(
            |(versions, lane, (cluster, from, to), life, url)| Hello {
                versions,
                lane,
                cluster: ClusterId::from_number(cluster),
                from: NodeId(from),
                to: NodeId(to),
                life,
                url,
            },
        )
    }

    fn welcome() -> impl Strategy<Value = Welcome> {
        (any::<u16>(), 0..Status::ALL.len(), any::<u64>(), any::<u64>(), life()).prop_map(
            |(version, status, cluster, id, life)| Welcome {
                version,
                status: Status::ALL[status],
                cluster: ClusterId::from_number(cluster),
                id: NodeId(id),
                life,
            },
        )
    }

    proptest! {
        #[test]
        fn a_hello_comes_back(hello in hello(), more in any::<[u8; 3]>()) {
            let mut bytes = hello.encode();
            let whole = bytes.len();
            for cut in 0..whole {
                prop_assert_eq!(Hello::parse(&bytes[..cut]), Ok(None));
            }
            bytes.extend_from_slice(&more);
            prop_assert_eq!(Hello::parse(&bytes), Ok(Some((hello, whole))));
        }

        #[test]
        fn a_welcome_comes_back(welcome in welcome()) {
            let bytes = welcome.encode();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Welcome::parse(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(Welcome::parse(&bytes), Ok(Some((welcome, WELCOME))));
        }

        #[test]
        fn reading_in_pieces_takes_what_it_needs(
            hello in hello(),
            welcome in welcome(),
            more in proptest::collection::vec(any::<u8>(), 0..50),
            steps in steps(),
        ) {
            let bytes = [hello.encode(), welcome.encode(), more.clone()].concat();
            let mut stream = Choppy::new(&bytes[..], steps);
            let read = poll_and_drop(Hello::read(&mut stream), usize::MAX).expect("it is there");
            prop_assert_eq!(read.expect("it is whole"), hello);
            let read = poll_and_drop(Welcome::read(&mut stream), usize::MAX).expect("as well");
            prop_assert_eq!(read.expect("it is whole"), welcome);
            prop_assert_eq!(stream.into_inner(), &more[..], "frames may follow");
        }

        #[test]
        fn damaged_ones_are_refused(
            hello in hello(),
            welcome in welcome(),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut bytes = hello.encode();
            let place = at.index(bytes.len());
            bytes[place] ^= flip;
            prop_assert!(!matches!(Hello::parse(&bytes), Ok(Some(_))));
            let mut bytes = welcome.encode();
            let place = at.index(bytes.len());
            bytes[place] ^= flip;
            prop_assert!(Welcome::parse(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Hello::parse(&bytes), Welcome::parse(&bytes));
            let mut begun = MAGIC.to_vec();
            begun.extend_from_slice(&bytes);
            let _ = (Hello::parse(&begun), Welcome::parse(&begun));
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let hello = Hello {
            versions: (1, 2),
            lane: 2,
            cluster: ClusterId::from_number(3),
            from: NodeId(4),
            to: NodeId(5),
            life: Life::from_number(6).unwrap(),
            url: "ab".to_owned(),
        };
        let mut bytes = b"stormkv\0\x01\0\x02\0\x02\0\0\0".to_vec();
        bytes.extend_from_slice(b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        bytes.extend_from_slice(b"\x06\0\0\0\0\0\0\0\x02\0ab");
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(hello.encode(), bytes);

        let (version, status, id) = (1, Status::Removed, NodeId(4));
        let welcome = Welcome { version, status, cluster: hello.cluster, id, life: hello.life };
        let mut bytes = b"stormkv\0\x01\0\x03\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0".to_vec();
        bytes.extend_from_slice(b"\x06\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(welcome.encode(), bytes);
    }

    #[test]
    fn a_life_of_0_is_refused() {
        let bytes = |head: &[u8], life_at: usize, whole: usize| {
            let mut bytes = head.to_vec();
            bytes[life_at..life_at + 8].fill(0);
            let crc = crc32fast::hash(&bytes[..whole - 4]).to_le_bytes();
            bytes[whole - 4..].copy_from_slice(&crc);
            bytes
        };
        let (id, life) = (NodeId(1), Life::random());
        let url = String::new();
        let hello =
            Hello { versions: VERSIONS, lane: 0, cluster: None, from: id, to: id, life, url };
        let hello = hello.encode();
        assert!(Hello::parse(&bytes(&hello, 40, hello.len())).is_err());
        let welcome = Welcome { version: 1, status: Status::Ok, cluster: None, id, life };
        assert!(Welcome::parse(&bytes(&welcome.encode(), 28, WELCOME)).is_err());
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let hello = |versions| Hello {
            versions,
            lane: 0,
            cluster: None,
            from: NodeId(1),
            to: NodeId(2),
            life: Life::random(),
            url: String::new(),
        };
        assert_eq!(hello((0, 9)).common_version(), Some(VERSIONS.1));
        assert_eq!(hello((VERSIONS.1 + 1, 9)).common_version(), None);
        assert_eq!(hello((0, 0)).common_version(), None);
        assert_eq!(hello((9, 0)).common_version(), None);
    }
}
