//! TLS: who may talk to a node, and what proves it.
//!
//! *Peers* prove themselves to each other. Their certificates come from a CA of their own, which
//! signs nothing else, and the certificate of node 7 carries the DNS name `node-7.stormkv` among
//! its subject alternative names. The dialer asks for that name, whatever the URL says; the
//! acceptor checks that the dialer's certificate bears the name of the node that its hello says it
//! is. So a stolen certificate of one node is no certificate of another. Peers speak TLS 1.3 only.
//!
//! *Clients* verify a server by its host name as usual. With a CA for clients, which should not be
//! that of the peers, a client must show a certificate of it.
//!
//! Certificates are read again when their files change: new connections use the new ones, those
//! that exist go on. What cannot be read or does not fit together changes nothing, and is logged.
//!
//! A private key should be readable by its owner only. One that is not is used, with a warning
//! (unlike a token file, which is refused: keys come from other tools, and are mounted with modes
//! that nobody can choose).
//!
//! Left out on purpose: revocation lists. Give certificates short lives, and replace them.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracing::{error, info, warn};

use crate::types::NodeId;

/// The name that a certificate of `node` carries.
#[must_use]
pub fn node_name(node: NodeId) -> String {
    format!("node-{}.stormkv", node.0)
}

/// Whether a certificate is that of `node`. Says nothing about who signed it.
///
/// # Errors
/// When it is not.
pub(crate) fn check_node(
    certificate: &CertificateDer<'_>,
    node: NodeId,
) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(node_name(node))
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    verify_server_name(&ParsedCertificate::try_from(certificate)?, &name)
}

/// Why certificates cannot be used.
#[derive(Debug)]
pub struct TlsError {
    file: PathBuf,
    reason: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

impl std::error::Error for TlsError {}

/// Where the certificates of a node are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA of all peers.
    pub ca: PathBuf,
    /// This node's certificate, and those between it and the CA if there are any.
    pub cert: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// Where the certificates for clients' connections are, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsFiles {
    /// The CA of clients: if there is one, each client must show a certificate of it.
    pub client_ca: Option<PathBuf>,
    /// The server's certificate, and those between it and its CA if there are any.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}

/// The contents of the files, compared to find out whether they changed.
#[derive(PartialEq, Eq)]
struct Loaded {
    ca: Option<Vec<u8>>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| failed(file, error))
}

/// Says so if others can read a private key. It is used all the same: who mounts secrets into a
/// container can often not narrow their modes.
fn warn_if_exposed(key: &Path) {
    if let Some(mode) = exposed(key) {
        let file = key.display();
        warn!(%file, "others can read this private key (mode {mode:04o}): chmod 600 {file}");
    }
}

/// The mode of a file that others than its owner can read or write.
fn exposed(file: &Path) -> Option<u32> {
    let mode = fs::metadata(file).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

fn failed(file: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError { file: file.to_owned(), reason: reason.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(pem: &[u8], file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| failed(file, error))?;
        roots.add(certificate).map_err(|error| failed(file, error))?;
    }
    if roots.is_empty() {
        return Err(failed(file, "it holds no certificate (`BEGIN CERTIFICATE`)"));
    }
    Ok(Arc::new(roots))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The chain and the key in these files, whose contents are `cert` and `key`.
fn identity(files: (&Path, &Path), cert: &[u8], key: &[u8]) -> Result<Identity, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
    let chain = chain.map_err(|error| failed(files.0, error))?;
    if chain.is_empty() {
        return Err(failed(files.0, "it holds no certificate (`BEGIN CERTIFICATE`)"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(files.1, error))?;
    Ok((chain, key))
}

/// For a client: the CA that it trusts, if any, and its own certificate and key, if it has them.
pub(crate) fn client_config(
    ca: Option<&Path>,
    own: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let roots = match ca {
        Some(file) => roots(&read(file)?, file)?,
        None => Arc::new(RootCertStore::empty()),
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions need")
        .with_root_certificates(roots);
    let Some((cert, key)) = own else { return Ok(config.with_no_client_auth()) };
    let (chain, secret) = identity((cert, key), &read(cert)?, &read(key)?)?;
    warn_if_exposed(key);
    config.with_client_auth_cert(chain, secret).map_err(|error| failed(cert, error))
}

/// What is made of files, and made anew when they change.
struct Current<T> {
    held: RwLock<(Loaded, T)>,
}

impl<T: Clone> Current<T> {
    fn get(&self) -> T {
        self.held.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Replaces what is held, if the files, of which `key` is the private one, have other contents
    /// now.
    fn renew(
        &self,
        loaded: Loaded,
        key: &Path,
        make: impl FnOnce(&Loaded) -> Result<T, TlsError>,
    ) -> Result<bool, TlsError> {
        if self.held.read().unwrap_or_else(PoisonError::into_inner).0 == loaded {
            return Ok(false);
        }
        let made = make(&loaded)?;
        warn_if_exposed(key);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = (loaded, made);
        Ok(true)
    }
}

/// Why files that were read again cannot be used.
pub(crate) type ReloadError = Box<dyn std::error::Error + Send + Sync>;

/// Secrets that can be read again.
pub(crate) trait Reload: Send + Sync {
    /// What is read, for the log.
    fn what(&self) -> &'static str;

    /// Reads the files again. Says whether they have changed; what begins now then uses them. Blocks
    /// for a moment.
    ///
    /// # Errors
    /// When the files cannot be used. What was read before stays in use.
    fn reload(&self) -> Result<bool, ReloadError>;
}

/// Reads the files again because somebody asked for it, and logs what comes of it in any case.
pub(crate) async fn reload_now(secrets: Arc<dyn Reload>) {
    let what = secrets.what();
    match tokio::task::spawn_blocking(move || secrets.reload()).await {
        Ok(Ok(true)) => info!(what, "read again, as it has changed"),
        Ok(Ok(false)) => info!(what, "read again; nothing has changed"),
        Ok(Err(error)) => {
            error!(what, %error, "cannot be used; what was read before stays in use");
        }
        // The runtime is shutting down.
        Err(_) => {}
    }
}

/// Reads certificates again every so often, for ever. Logs what comes of it; a failure only when it
/// is another one than before.
pub(crate) async fn keep_fresh(certificates: Arc<dyn Reload>, every: Duration) {
    let mut failure = String::new();
    loop {
        tokio::time::sleep(every).await;
        let certificates = certificates.clone();
        let reloaded = tokio::task::spawn_blocking(move || certificates.reload()).await;
        match reloaded {
            Ok(Ok(false)) => failure.clear(),
            Ok(Ok(true)) => {
                failure.clear();
                info!("certificates have changed; new connections use them");
            }
            Ok(Err(error)) => {
                let text = error.to_string();
                if text != failure {
                    warn!(%error, "changed certificates cannot be used; the old ones stay in use");
                    failure = text;
                }
            }
            // The runtime is shutting down.
            Err(_) => return,
        }
    }
}

/// Mutual TLS between peers.
pub(crate) struct PeerTls {
    node: NodeId,
    files: TlsFiles,
    current: Current<(Arc<ClientConfig>, Arc<ServerConfig>)>,
}

impl PeerTls {
    /// Reads the certificates of `node`.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the certificate is not that of `node`.
    pub fn load(node: NodeId, files: TlsFiles) -> Result<Arc<PeerTls>, TlsError> {
        let loaded = Self::read(&files)?;
        let made = Self::make(node, &files, &loaded)?;
        warn_if_exposed(&files.key);
        let current = Current { held: RwLock::new((loaded, made)) };
        Ok(Arc::new(PeerTls { node, files, current }))
    }

    fn read(files: &TlsFiles) -> Result<Loaded, TlsError> {
        let (ca, cert, key) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
        Ok(Loaded { ca: Some(ca), cert, key })
    }

    fn make(
        node: NodeId,
        files: &TlsFiles,
        loaded: &Loaded,
    ) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), TlsError> {
        let roots = roots(loaded.ca.as_deref().unwrap_or_default(), &files.ca)?;
        let (chain, key) = identity((&files.cert, &files.key), &loaded.cert, &loaded.key)?;
        check_node(&chain[0], node).map_err(|_| {
            let name = node_name(node);
            failed(&files.cert, format!("it is not for {node}: it needs the DNS name `{name}`"))
        })?;
        let versions = &[&rustls::version::TLS13];
        let of_ca = |error: rustls::client::VerifierBuilderError| failed(&files.ca, error);
        let of_cert = |error: rustls::Error| failed(&files.cert, error);

        let servers = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider());
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(of_cert)?
            .with_webpki_verifier(servers.build().map_err(of_ca)?)
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(of_cert)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(of_cert)?
            .with_client_cert_verifier(clients.build().map_err(of_ca)?)
            .with_single_cert(chain, key)
            .map_err(of_cert)?;
        Ok((Arc::new(client), Arc::new(server)))
    }

    /// For dialing a peer; with the name that its certificate must carry.
    ///
    /// # Errors
    /// Never, as node names are valid; the type says otherwise.
    pub fn connector(&self, to: NodeId) -> std::io::Result<(TlsConnector, ServerName<'static>)> {
        let name = ServerName::try_from(node_name(to)).map_err(std::io::Error::other)?;
        Ok((TlsConnector::from(self.current.get().0), name))
    }

    /// For accepting peers.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.get().1)
    }
}

impl Reload for PeerTls {
    fn what(&self) -> &'static str {
        "certificates for peers"
    }

    fn reload(&self) -> Result<bool, ReloadError> {
        let loaded = Self::read(&self.files)?;
        let make = |loaded: &Loaded| Self::make(self.node, &self.files, loaded);
        Ok(self.current.renew(loaded, &self.files.key, make)?)
    }
}

/// TLS for clients' connections.
pub(crate) struct ServerTls {
    files: ServerTlsFiles,
    current: Current<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Reads the certificates.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn load(files: ServerTlsFiles) -> Result<Arc<ServerTls>, TlsError> {
        let loaded = Self::read(&files)?;
        let made = Self::make(&files, &loaded)?;
        warn_if_exposed(&files.key);
        Ok(Arc::new(ServerTls { files, current: Current { held: RwLock::new((loaded, made)) } }))
    }

    fn read(files: &ServerTlsFiles) -> Result<Loaded, TlsError> {
        let ca = files.client_ca.as_deref().map(read).transpose()?;
        Ok(Loaded { ca, cert: read(&files.cert)?, key: read(&files.key)? })
    }

    fn make(files: &ServerTlsFiles, loaded: &Loaded) -> Result<Arc<ServerConfig>, TlsError> {
        let (chain, key) = identity((&files.cert, &files.key), &loaded.cert, &loaded.key)?;
        let of_cert = |error: rustls::Error| failed(&files.cert, error);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(of_cert)?;
        let builder = match (&loaded.ca, &files.client_ca) {
            (Some(pem), Some(file)) => {
                let clients =
                    WebPkiClientVerifier::builder_with_provider(roots(pem, file)?, provider());
                let clients = clients.build().map_err(|error| failed(file, error))?;
                builder.with_client_cert_verifier(clients)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(of_cert)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// For accepting clients: the settings as of now.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.get()
    }
}

impl Reload for ServerTls {
    fn what(&self) -> &'static str {
        "certificates for clients"
    }

    fn reload(&self) -> Result<bool, ReloadError> {
        let loaded = Self::read(&self.files)?;
        let make = |loaded: &Loaded| Self::make(&self.files, loaded);
        Ok(self.current.renew(loaded, &self.files.key, make)?)
    }
}

#[cfg(test)]
mod tests;
