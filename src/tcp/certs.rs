//! Makes certificates for a cluster: enough to run one with mutual TLS, and for tests.
//!
//! ```text
//! DIR/peer-ca.pem    peer-ca.key     signs nodes, nothing else
//! DIR/node-1.pem     node-1.key      node 1 to its peers; carries `node-1.stormkv`
//! DIR/server-ca.pem  server-ca.key   clients trust it
//! DIR/server-1.pem   server-1.key    node 1 to its clients; carries the hosts
//! DIR/client-ca.pem  client-ca.key   nodes trust it, if clients need certificates
//! DIR/alice.pem      alice.key       the client alice
//! ```
//!
//! Three CAs, because each is trusted with something else: a client's certificate must not make a
//! node, and a node's must not make a client. What exists is never overwritten: CAs are used again,
//! so that a node or a client can be added later, and leaf certificates are left alone; remove one
//! to have it made anew.
//!
//! Left out on purpose: everything that a company's own CA does better. Any certificates with these
//! names and uses will do.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Use, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use crate::tcp::tls::node_name;
use crate::types::NodeId;

/// For how many years certificates are valid.
const YEARS: i32 = 10;

/// Makes, in `dir`, the CAs and the certificates of these nodes and clients as far as they do not
/// exist. `hosts` are the names and IP addresses by which clients reach the nodes. Private keys can
/// be read by the owner only (0600).
///
/// # Errors
/// When a file cannot be read or written, when an existing CA cannot be used, or when a name is not
/// one: a host that is no DNS name or address, a client that is not letters, digits, `-` and `_`.
pub fn generate(
    dir: &Path,
    nodes: &[NodeId],
    hosts: &[String],
    clients: &[String],
) -> io::Result<()> {
    if let Some(client) = clients.iter().find(|client| !is_file_name(client)) {
        let why = format!("`{client}` is no name for a client: use letters, digits, `-` and `_`");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    fs::create_dir_all(dir)?;
    let peers = authority(dir, "peer-ca", "stormkv peers")?;
    for node in nodes {
        // Peers are verified by the node's name alone; the hosts help other tools.
        let mut names = vec![node_name(*node)];
        names.extend_from_slice(hosts);
        let uses = [Use::ServerAuth, Use::ClientAuth];
        leaf(dir, &format!("node-{}", node.0), names, &uses, &peers)?;
    }
    let servers = authority(dir, "server-ca", "stormkv servers")?;
    for node in nodes {
        leaf(dir, &format!("server-{}", node.0), hosts.to_vec(), &[Use::ServerAuth], &servers)?;
    }
    let trusted = authority(dir, "client-ca", "stormkv clients")?;
    for client in clients {
        leaf(dir, client, Vec::new(), &[Use::ClientAuth], &trusted)?;
    }
    Ok(())
}

fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let ours = name.ends_with("-ca") || name.starts_with("node-") || name.starts_with("server-");
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain) && !ours
}

fn params(name: &str, names: Vec<String>) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, name);
    #[allow(clippy::disallowed_methods, reason = "certificates are valid from a date on")]
    let now = SystemTime::now();
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
    // The mean length of a year; a clock that is a little off is covered by the year before.
    let year = 1970 + i32::try_from(since_1970.as_secs() / 31_556_952).map_err(io::Error::other)?;
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + YEARS, 1, 1);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The CA `file` in `dir`; made if it does not exist. An existing one is known by its key: its name
/// is always the same.
fn authority(dir: &Path, file: &str, name: &str) -> io::Result<Issuer<'static, KeyPair>> {
    let (cert, key) = (dir.join(format!("{file}.pem")), dir.join(format!("{file}.key")));
    let mut params = params(name, Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    if !cert.try_exists()? {
        let pair = KeyPair::generate().map_err(io::Error::other)?;
        let made = params.self_signed(&pair).map_err(io::Error::other)?;
        write_new(&key, &pair.serialize_pem(), 0o600)?;
        write_new(&cert, &made.pem(), 0o644)?;
    }
    let unusable =
        |why: String| io::Error::other(format!("{} cannot be used: {why}", key.display()));
    let pem = fs::read_to_string(&key).map_err(|error| unusable(error.to_string()))?;
    let pair = KeyPair::from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
    Ok(Issuer::new(params, pair))
}

fn leaf(
    dir: &Path,
    file: &str,
    names: Vec<String>,
    uses: &[Use],
    issuer: &Issuer<'static, KeyPair>,
) -> io::Result<()> {
    let (cert, key) = (dir.join(format!("{file}.pem")), dir.join(format!("{file}.key")));
    if cert.try_exists()? {
        return Ok(());
    }
    let mut params = params(file, names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = uses.to_vec();
    let pair = KeyPair::generate().map_err(io::Error::other)?;
    let made = params.signed_by(&pair, issuer).map_err(io::Error::other)?;
    write_new(&key, &pair.serialize_pem(), 0o600)?;
    write_new(&cert, &made.pem(), 0o644)
}

/// Writes a file whole or not at all. A key that was left without its certificate is replaced.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let partial = path.with_extension("part");
    if partial.try_exists()? {
        fs::remove_file(&partial)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
