//! What a person may set, and what it comes to.
//!
//! Every setting has one name. It can be given as a flag (`--data-dir`), as an environment variable
//! (`STORMKV_DATA_DIR`) and as a key of a TOML file (`data-dir`); the first one found counts, in
//! this order. [`Settings`] is what was given, [`Options`] is what the whole means, checked: a node
//! never starts with settings that contradict each other.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::config::Config;
use crate::tcp::address::{PeerUrl, check_plaintext};
use crate::tcp::identity::ClusterId;
use crate::tcp::tls::{ServerTlsFiles, TlsFiles};
use crate::types::NodeId;

/// What was given. Everything is optional here; [`Settings::resolve`] knows what is not.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// This member's number in the cluster, from 1
    #[arg(long, env = "STORMKV_ID", value_name = "N")]
    pub id: Option<u64>,
    /// The members' peer URLs, the first one's for member 1, and so on; or `ID=URL` each
    #[arg(long, env = "STORMKV_CLUSTER", value_name = "URL,..", value_delimiter = ',')]
    pub cluster: Option<Vec<String>>,
    /// Join an existing cluster, which was told about this member (`POST /v1/members`) [default: false]
    #[arg(long, env = "STORMKV_JOIN", num_args = 0..=1, default_missing_value = "true")]
    pub join: Option<bool>,
    /// Port for clients, on the loopback address [default: 9121]
    #[arg(long, env = "STORMKV_PORT", value_name = "PORT")]
    pub port: Option<u16>,
    /// Address for clients, instead of --port [default: the loopback address]
    #[arg(long, env = "STORMKV_LISTEN_CLIENT", value_name = "ADDR:PORT")]
    pub listen_client: Option<String>,
    /// URL by which clients reach this node, for `stormkv ctl status` and GET /v1/members [default: the
    /// address for clients, with the host of this member's own URL if it listens everywhere]
    #[arg(long, env = "STORMKV_ADVERTISE_CLIENT", value_name = "URL")]
    pub advertise_client: Option<String>,
    /// Address for peers [default: the one in this member's own URL]
    #[arg(long, env = "STORMKV_LISTEN_PEER", value_name = "ADDR:PORT")]
    pub listen_peer: Option<String>,
    /// Where the data is [default: stormkv-ID]
    #[arg(long, env = "STORMKV_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Sets clusters apart that are founded at the same URLs one after the other [default: none]
    #[arg(long, env = "STORMKV_CLUSTER_TOKEN", value_name = "TEXT")]
    pub cluster_token: Option<String>,
    /// Talk to others than this machine without TLS; whoever can reach the ports can do anything
    /// [default: false]
    #[arg(long, env = "STORMKV_ALLOW_PLAINTEXT", num_args = 0..=1, default_missing_value = "true")]
    pub allow_plaintext: Option<bool>,

    /// Certificates that sign the peers' certificates (PEM); peers then use TLS [default: no TLS]
    #[arg(long, env = "STORMKV_PEER_CA", value_name = "FILE")]
    pub peer_ca: Option<PathBuf>,
    /// This member's certificate for peers
    #[arg(long, env = "STORMKV_PEER_CERT", value_name = "FILE")]
    pub peer_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "STORMKV_PEER_KEY", value_name = "FILE")]
    pub peer_key: Option<PathBuf>,
    /// The certificate shown to clients (PEM); the client port then uses TLS [default: no TLS]
    #[arg(long, env = "STORMKV_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "STORMKV_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Certificates that sign the clients' certificates; clients then must have one [default: none]
    #[arg(long, env = "STORMKV_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Bearer tokens, a line each: `client|admin|metrics TOKEN`; mode 0600; at most 256 of 128
    /// characters [default: everybody may do everything]
    #[arg(long, env = "STORMKV_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Names by which clients may call this node, besides those in --cluster, `localhost` and IP
    /// addresses; only checked without tokens and client certificates, against web pages [default:
    /// none]
    #[arg(long, env = "STORMKV_HOST_NAMES", value_name = "NAME,..", value_delimiter = ',')]
    pub host_names: Option<Vec<String>>,

    /// Silence of the leader after which an election begins, at least; at most twice that; in steps
    /// of 10 ms, more than --heartbeat-ms [default: 200]
    #[arg(long, env = "STORMKV_ELECTION_MS", value_name = "MS")]
    pub election_ms: Option<u32>,
    /// Time between two heartbeats of a leader, at least 10 [default: a fifth of --election-ms]
    #[arg(long, env = "STORMKV_HEARTBEAT_MS", value_name = "MS")]
    pub heartbeat_ms: Option<u32>,
    /// Take a snapshot after so many commands, at least 1 [default: 100000]
    #[arg(long, env = "STORMKV_SNAPSHOT_EVERY", value_name = "N")]
    pub snapshot_every: Option<u64>,
    /// Entries kept behind a snapshot, for members that lag [default: 10000]
    #[arg(long, env = "STORMKV_KEEP_ENTRIES", value_name = "N")]
    pub keep_entries: Option<u64>,
    /// Size of a segment of the write-ahead log, at least 1 [default: 16]
    #[arg(long, env = "STORMKV_SEGMENT_MIB", value_name = "MIB")]
    pub segment_mib: Option<u64>,
    /// Part of the disk that is for the log alone: near it, writes are refused while reads and deletes go
    /// on; at least two segments [default: two segments and about 16 MiB]
    #[arg(long, env = "STORMKV_RESERVE_MIB", value_name = "MIB")]
    pub reserve_mib: Option<u64>,
    /// Rate at which a snapshot is sent to a member, at least 1 [default: 64]
    #[arg(long, env = "STORMKV_SNAPSHOT_RATE_MIB", value_name = "MIB/S")]
    pub snapshot_rate_mib: Option<u64>,
    /// Connections of clients at the same time, at least 1 [default: 4096]
    #[arg(long, env = "STORMKV_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// How the log looks [default: pretty]
    #[arg(long, env = "STORMKV_LOG", value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or per module as in `info,stormkv::node=debug`
    /// [default: info]
    #[arg(long, env = "STORMKV_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A whole, checked set of settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// For the node. Its incarnation is drawn when the node starts.
    pub config: Config,
    /// The peer URLs of the members, as far as they were given.
    pub addresses: BTreeMap<NodeId, PeerUrl>,
    /// The cluster, unless this node joins one that it does not know yet.
    pub cluster: Option<ClusterId>,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Where to listen for clients.
    pub listen_client: SocketAddr,
    /// Where clients reach this node, if that is not where it listens.
    pub advertise_client: Option<PeerUrl>,
    /// Where to listen for peers.
    pub listen_peer: SocketAddr,
    /// For peers; `None` for plaintext.
    pub peer_tls: Option<TlsFiles>,
    /// For clients; `None` for plaintext.
    pub client_tls: Option<ServerTlsFiles>,
    /// Who may do what; `None`: everybody everything.
    pub token_file: Option<PathBuf>,
    /// Names by which clients may call this node.
    pub host_names: Vec<String>,
    /// Plaintext beyond the loopback address was allowed by name.
    pub allow_plaintext: bool,
    /// Bytes of snapshots per second and peer.
    pub snapshot_rate: u64,
    /// Connections of clients at the same time.
    pub max_connections: usize,
}

/// The port of raftexample.
const DEFAULT_PORT: u16 = 9121;
const TICK: Duration = Duration::from_millis(10);
/// Smaller than the default: a start writes a whole new one.
const SEGMENT_BYTES: u64 = 16 << 20;
/// The default reserve of the disk is two segments and so many of the largest commands.
const COMMANDS_IN_RESERVE: u64 = 8;
/// Limit of a command, in bytes: two values of 1 MiB, a key of 4 KiB, lengths and a session. Any value
/// that can be put into the key-value store can also be compared with, and replaced by, another one.
const MAX_COMMAND_BYTES: usize = (2 << 20) + (5 << 10);
const DEFAULT_ELECTION_MS: u32 = 200;
const DEFAULT_SNAPSHOT_RATE_MIB: u64 = 64;
const DEFAULT_MAX_CONNECTIONS: usize = 4096;

impl Options {
    /// Where clients reach a node that listens for them at `listening`.
    #[must_use]
    pub fn client_url(&self, listening: SocketAddr) -> String {
        if let Some(url) = &self.advertise_client {
            return url.to_string();
        }
        let own = self.addresses.get(&self.config.id).filter(|_| listening.ip().is_unspecified());
        let host = own.map_or_else(|| listening.ip().to_string(), |url| url.host.clone());
        PeerUrl { tls: self.client_tls.is_some(), host, port: listening.port() }.to_string()
    }
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// Names the file, the line and the key.
    pub fn read(path: &Path) -> Result<Settings, String> {
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            format!("{}:{line}: {}", path.display(), error.message())
        })
    }

    /// These settings, and what `other` says where these are silent.
    #[must_use]
    pub fn or(self, other: Settings) -> Settings {
        Settings {
            id: self.id.or(other.id),
            cluster: self.cluster.or(other.cluster),
            join: self.join.or(other.join),
            port: self.port.or(other.port),
            listen_client: self.listen_client.or(other.listen_client),
            advertise_client: self.advertise_client.or(other.advertise_client),
            listen_peer: self.listen_peer.or(other.listen_peer),
            data_dir: self.data_dir.or(other.data_dir),
            cluster_token: self.cluster_token.or(other.cluster_token),
            allow_plaintext: self.allow_plaintext.or(other.allow_plaintext),
            peer_ca: self.peer_ca.or(other.peer_ca),
            peer_cert: self.peer_cert.or(other.peer_cert),
            peer_key: self.peer_key.or(other.peer_key),
            cert: self.cert.or(other.cert),
            key: self.key.or(other.key),
            client_ca: self.client_ca.or(other.client_ca),
            token_file: self.token_file.or(other.token_file),
            host_names: self.host_names.or(other.host_names),
            election_ms: self.election_ms.or(other.election_ms),
            heartbeat_ms: self.heartbeat_ms.or(other.heartbeat_ms),
            snapshot_every: self.snapshot_every.or(other.snapshot_every),
            keep_entries: self.keep_entries.or(other.keep_entries),
            segment_mib: self.segment_mib.or(other.segment_mib),
            reserve_mib: self.reserve_mib.or(other.reserve_mib),
            snapshot_rate_mib: self.snapshot_rate_mib.or(other.snapshot_rate_mib),
            max_connections: self.max_connections.or(other.max_connections),
            log: self.log.or(other.log),
            log_level: self.log_level.or(other.log_level),
        }
    }

    /// What these settings come to.
    ///
    /// # Errors
    /// Names the setting that is missing or wrong, and what it may be.
    pub fn resolve(self) -> Result<Options, String> {
        let id = self.id.ok_or("--id is missing: it says which member this is, from 1")?;
        if id == 0 {
            return Err("--id is 0: members are numbered from 1".to_owned());
        }
        let id = NodeId(id);
        let join = self.join.unwrap_or(false);
        let addresses = members(self.cluster.as_deref().unwrap_or_default())?;
        let own = addresses.get(&id).ok_or_else(|| {
            format!(
                "--cluster has no URL for member {}: it lists the peer URL of every member, this \
                 one's too, as in --cluster http://127.0.0.1:12379,http://127.0.0.1:22379",
                id.0
            )
        })?;
        let allow_plaintext = self.allow_plaintext.unwrap_or(false);
        let peer_tls = self.peer_tls()?;
        for (member, url) in &addresses {
            url.check(*member, peer_tls.is_some(), allow_plaintext)?;
        }
        let listen_peer = match &self.listen_peer {
            Some(address) => socket("--listen-peer", address)?,
            None => socket("this member's own URL in --cluster", &own.authority())
                .map_err(|error| format!("{error}; --listen-peer says where to listen instead"))?,
        };
        let listen_client = self.listen_client()?;
        let client_tls = self.client_tls()?;
        let advertise_client = self.advertise_client.as_deref().map(|url| {
            url.trim().parse::<PeerUrl>().map_err(|error| format!("--advertise-client: {error}"))
        });
        let open = [
            ("--listen-peer", listen_peer, peer_tls.is_some()),
            ("--listen-client", listen_client, client_tls.is_some()),
        ];
        for (flag, address, tls) in open {
            check_plaintext(address.ip(), tls, allow_plaintext)
                .map_err(|error| format!("{flag}: {error} (--allow-plaintext)"))?;
        }
        let cluster = (!join).then(|| {
            ClusterId::founded_by(&texts(&addresses), self.cluster_token.as_deref().unwrap_or(""))
        });
        let mut host_names = self.host_names.clone().unwrap_or_default();
        host_names.extend(addresses.values().map(|url| url.host.clone()));
        let mib =
            |setting: Option<u64>, default: u64| setting.unwrap_or(default).saturating_mul(1 << 20);
        let rate = mib(self.snapshot_rate_mib, DEFAULT_SNAPSHOT_RATE_MIB);
        if rate == 0 {
            return Err("--snapshot-rate-mib is 0: a snapshot would never arrive".to_owned());
        }
        Ok(Options {
            config: self.config(id, join, &addresses)?,
            cluster,
            data_dir: self.data_dir.unwrap_or_else(|| format!("stormkv-{}", id.0).into()),
            listen_client,
            advertise_client: advertise_client.transpose()?,
            listen_peer,
            peer_tls,
            client_tls,
            token_file: self.token_file,
            host_names,
            allow_plaintext,
            snapshot_rate: rate,
            max_connections: self.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS).max(1),
            addresses,
        })
    }

    fn peer_tls(&self) -> Result<Option<TlsFiles>, String> {
        let pair = pair("peer-", &self.peer_cert, &self.peer_key)?;
        match (pair, &self.peer_ca) {
            (Some((cert, key)), Some(ca)) => Ok(Some(TlsFiles { ca: ca.clone(), cert, key })),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err("--peer-ca is missing: peers prove to each other who they are".to_owned())
            }
            (None, Some(_)) => {
                Err("--peer-cert is missing: TLS needs a certificate and its key".to_owned())
            }
        }
    }

    fn client_tls(&self) -> Result<Option<ServerTlsFiles>, String> {
        let client_ca = self.client_ca.clone();
        match pair("", &self.cert, &self.key)? {
            Some((cert, key)) => Ok(Some(ServerTlsFiles { client_ca, cert, key })),
            None if client_ca.is_none() => Ok(None),
            None => Err("--cert is missing: TLS needs a certificate and its key".to_owned()),
        }
    }

    fn listen_client(&self) -> Result<SocketAddr, String> {
        match (&self.listen_client, self.port) {
            (Some(_), Some(_)) => {
                Err("--listen-client and --port contradict each other: give one \
                                       of them"
                    .to_owned())
            }
            (Some(address), None) => socket("--listen-client", address),
            (None, port) => {
                let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
                Ok(SocketAddr::new(loopback, port.unwrap_or(DEFAULT_PORT)))
            }
        }
    }

    fn config(
        &self,
        id: NodeId,
        join: bool,
        addresses: &BTreeMap<NodeId, PeerUrl>,
    ) -> Result<Config, String> {
        let founders = if join { Vec::new() } else { addresses.keys().copied().collect() };
        let mut config = Config::new(id, founders);
        if !join {
            config.addresses = texts(addresses);
        }
        let ticks = |ms: u32| ms.div_ceil(TICK.as_millis() as u32);
        config.segment_bytes = SEGMENT_BYTES;
        config.max_command_bytes = MAX_COMMAND_BYTES;
        let election = ticks(self.election_ms.unwrap_or(DEFAULT_ELECTION_MS));
        config.tick = TICK;
        config.election_ticks = (election, election.saturating_mul(2));
        config.hang_ticks = election.saturating_mul(4);
        config.heartbeat_ticks = self.heartbeat_ms.map_or(election / 5, ticks).max(1);
        config.snapshot_every = self.snapshot_every.unwrap_or(config.snapshot_every);
        config.keep_entries = self.keep_entries.unwrap_or(config.keep_entries);
        if let Some(mib) = self.segment_mib {
            config.segment_bytes = mebibytes(mib);
        }
        config.reserve_bytes = match self.reserve_mib {
            Some(mib) => mebibytes(mib),
            None => {
                2 * config.segment_bytes + COMMANDS_IN_RESERVE * config.max_command_bytes as u64
            }
        };
        config.validate().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// Bytes of a size that a user gives, of a tebibyte at most: no disk of today misses the rest.
fn mebibytes(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20).min(1 << 40)
}

/// The members that `--cluster` names: `URL` takes the next number, `ID=URL` says its own.
fn members(list: &[String]) -> Result<BTreeMap<NodeId, PeerUrl>, String> {
    let mut members = BTreeMap::new();
    let mut taken = BTreeMap::new();
    for (place, item) in (1u64..).zip(list) {
        let (id, url) = match item.trim().split_once('=') {
            Some((id, url)) => {
                let id = id.trim().parse().ok().filter(|id| *id > 0);
                let id = id.ok_or_else(|| {
                    format!("--cluster: `{item}` does not begin with a member's number, from 1")
                })?;
                (NodeId(id), url)
            }
            None => (NodeId(place), item.as_str()),
        };
        let url: PeerUrl = url.trim().parse().map_err(|error| format!("--cluster: {error}"))?;
        if let Some(other) = taken.insert(url.to_string(), id) {
            return Err(format!(
                "--cluster: {url} is given for member {} and member {}",
                other.0, id.0
            ));
        }
        if members.insert(id, url).is_some() {
            return Err(format!("--cluster: member {} is given twice", id.0));
        }
    }
    Ok(members)
}

fn texts(addresses: &BTreeMap<NodeId, PeerUrl>) -> BTreeMap<NodeId, String> {
    addresses.iter().map(|(id, url)| (*id, url.to_string())).collect()
}

/// A certificate and its key come together or not at all.
fn pair(
    prefix: &str,
    cert: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let missing =
        |what| Err(format!("--{prefix}{what} is missing: TLS needs a certificate and its key"));
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
        (None, None) => Ok(None),
        (None, _) => missing("cert"),
        (_, None) => missing("key"),
    }
}

fn socket(what: &str, address: &str) -> Result<SocketAddr, String> {
    let found = address.to_socket_addrs().map_err(|error| format!("{what}: {address}: {error}"))?;
    found.into_iter().next().ok_or_else(|| format!("{what}: {address} has no address"))
}

#[cfg(test)]
mod help;
#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Settings {
        let urls = ["http://127.0.0.1:12379", "http://127.0.0.1:22379", "http://127.0.0.1:32379"];
        Settings {
            id: Some(2),
            cluster: Some(urls.map(str::to_owned).to_vec()),
            port: Some(22380),
            ..Settings::default()
        }
    }

    #[test]
    fn raftexamples_flags_are_enough() {
        let options = three().resolve().unwrap();
        assert_eq!(options.config.id, NodeId(2));
        assert_eq!(options.config.founders, [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(options.config.addresses[&NodeId(3)], "http://127.0.0.1:32379");
        assert_eq!(options.listen_client.to_string(), "127.0.0.1:22380");
        assert_eq!(options.listen_peer.to_string(), "127.0.0.1:22379");
        assert_eq!(options.data_dir, Path::new("stormkv-2"));
        assert!(options.cluster.is_some());
    }

    #[test]
    fn clients_are_sent_where_they_can_connect() {
        let at = |settings: Settings, listening: &str| {
            settings.resolve().unwrap().client_url(listening.parse().unwrap())
        };
        assert_eq!(at(three(), "127.0.0.1:5"), "http://127.0.0.1:5");
        assert_eq!(at(three(), "0.0.0.0:5"), "http://127.0.0.1:5");
        assert_eq!(at(three(), "[::1]:5"), "http://[::1]:5");
        let url = Some("https://kv.example:443".to_owned());
        let settings = Settings { advertise_client: url, ..three() };
        assert_eq!(at(settings, "0.0.0.0:5"), "https://kv.example:443");
    }

    #[test]
    fn who_joins_founds_nothing() {
        let options = Settings { join: Some(true), ..three() }.resolve().unwrap();
        assert!(options.config.founders.is_empty());
        assert!(options.config.addresses.is_empty());
        assert_eq!((options.cluster, options.addresses.len()), (None, 3));
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_remedy() {
        let wrong = |change: fn(&mut Settings)| {
            let mut settings = three();
            change(&mut settings);
            settings.resolve().expect_err("this makes no sense")
        };
        let cases = [
            (wrong(|s| s.id = None), "--id is missing"),
            (wrong(|s| s.id = Some(0)), "numbered from 1"),
            (wrong(|s| s.advertise_client = Some("here".into())), "--advertise-client: "),
            (wrong(|s| s.id = Some(4)), "no URL for member 4"),
            (wrong(|s| s.cluster = None), "no URL for member 2"),
            (wrong(|s| s.listen_client = Some("0.0.0.0:1".into())), "contradict"),
            (wrong(|s| s.listen_peer = Some("0.0.0.0:1".into())), "--allow-plaintext"),
            (wrong(|s| s.peer_ca = Some("c".into())), "--peer-cert is missing"),
            (wrong(|s| s.peer_cert = Some("c".into())), "--peer-key is missing"),
            (wrong(|s| s.client_ca = Some("c".into())), "--cert is missing"),
            (wrong(|s| s.heartbeat_ms = Some(500)), "election_ticks"),
            (wrong(|s| s.segment_mib = Some(0)), "segment_bytes"),
            (wrong(|s| s.reserve_mib = Some(1)), "reserve_bytes"),
            (wrong(|s| s.snapshot_rate_mib = Some(0)), "never arrive"),
        ];
        for (error, part) in cases {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn a_cluster_list_is_read_strictly() {
        let list = |items: &[&str]| {
            members(&items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
        };
        let named = list(&["4=http://a:1", "7=http://b:1"]).unwrap();
        assert_eq!(named.keys().map(|id| id.0).collect::<Vec<_>>(), [4, 7]);
        assert!(list(&["http://a:1", "http://a:1"]).unwrap_err().contains("member 1 and member 2"));
        assert!(list(&["2=http://a:1", "http://b:1"]).unwrap_err().contains("given twice"));
        assert!(list(&["x=http://a:1"]).unwrap_err().contains("member's number"));
        assert!(list(&["a:1"]).unwrap_err().contains("http://"));
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = Settings {
            id: Some(1),
            port: Some(1),
            log: Some(LogFormat::Json),
            ..Settings::default()
        };
        let both = three().or(file);
        assert_eq!((both.id, both.port, both.log), (Some(2), Some(22380), Some(LogFormat::Json)));
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let path =
            std::env::temp_dir().join(format!("stormkv-options-{}.toml", std::process::id()));
        fs::write(&path, "id = 1\nprot = 5\n").unwrap();
        let error = Settings::read(&path).unwrap_err();
        fs::write(&path, "id = 1\njoin = true\ndata-dir = \"d\"\n").unwrap();
        let read = Settings::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(error.contains(".toml:2: unknown field `prot`"), "{error}");
        assert_eq!((read.id, read.join), (Some(1), Some(true)));
        assert!(Settings::read(&path).unwrap_err().contains("No such file"));
    }
}
