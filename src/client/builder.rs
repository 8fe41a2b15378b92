//! The settings of a client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;

use super::engine::Engine;
use super::error::Error;
use super::transport::Transport;
use super::{Client, endpoints::Endpoints, sessions::Sessions};
use crate::tcp::tls::client_config;

/// Builds a [`Client`]. Nothing is connected before the first request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    endpoints: Vec<String>,
    token: Option<String>,
    ca_file: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    deadline: Duration,
    attempt_timeout: Duration,
    connect_timeout: Duration,
    sessions: usize,
}

impl Builder {
    pub(super) fn new(endpoints: Vec<String>) -> Builder {
        Builder {
            endpoints,
            token: None,
            ca_file: None,
            identity: None,
            deadline: Duration::from_secs(15),
            // A node that has no leader says so after 5 s: that certain answer is worth waiting
            // for, because after an attempt that was cut short nothing is known.
            attempt_timeout: Duration::from_secs(6),
            connect_timeout: Duration::from_secs(1),
            sessions: 64,
        }
    }

    /// The bearer token that is sent with every request.
    pub fn token(mut self, token: impl Into<String>) -> Builder {
        self.token = Some(token.into());
        self
    }

    /// The certificates (PEM) of the authorities that sign the nodes' certificates. Needed for
    /// `https` endpoints; the system's authorities are not trusted.
    pub fn ca_file(mut self, file: impl AsRef<Path>) -> Builder {
        self.ca_file = Some(file.as_ref().to_owned());
        self
    }

    /// This client's own certificate chain and private key, both PEM.
    pub fn identity(mut self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Builder {
        self.identity = Some((chain.as_ref().to_owned(), key.as_ref().to_owned()));
        self
    }

    /// How long a request may take with all of its attempts; 15 s unless set.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// How long one attempt may take before another endpoint is tried; 6 s unless set. Only for
    /// requests that may be repeated; the others wait until the deadline.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Builder {
        self.attempt_timeout = timeout;
        self
    }

    /// How long making a connection may take, TLS included; 1 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Builder {
        self.connect_timeout = timeout;
        self
    }

    /// How many sessions are opened at most, each when it is first needed; 64 unless set. As many
    /// commands can be on their way at once, others wait.
    ///
    /// 0 sends commands without a session: cheaper for a client that lives for one command, but a
    /// command whose answer is lost is then given up as unknown at once, instead of being
    /// repeated.
    pub fn sessions(mut self, sessions: usize) -> Builder {
        self.sessions = sessions;
        self
    }

    /// The client.
    ///
    /// # Errors
    /// Of the kind [`Invalid`](super::ErrorKind::Invalid), if an endpoint is no address, a file
    /// cannot be read, or the settings do not fit together.
    pub fn build(self) -> Result<Client, Error> {
        let wrong = |message: String| Error::invalid("invalid_settings", message);
        let mut endpoints = Vec::new();
        for endpoint in &self.endpoints {
            endpoints.push(checked(endpoint).map_err(wrong)?);
        }
        if endpoints.is_empty() {
            return Err(wrong("there is no endpoint: name at least one, http://host:port".into()));
        }
        if self.ca_file.is_none() && endpoints.iter().any(|one| one.starts_with("https:")) {
            return Err(wrong("an https endpoint needs a CA file to check its certificate".into()));
        }
        let authorization = match &self.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                    .map_err(|_| wrong("the token holds characters that no header may".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let identity = self.identity.as_ref().map(|(chain, key)| (chain.as_path(), key.as_path()));
        let tls = client_config(self.ca_file.as_deref(), identity);
        let tls = Arc::new(tls.map_err(|error| wrong(error.to_string()))?);
        let transport = Transport::new(&tls, authorization, self.connect_timeout);
        Ok(Client::new(Engine {
            tls,
            transport: transport.clone(),
            endpoints: Endpoints::new(endpoints, transport),
            sessions: Sessions::new(self.sessions),
            deadline: self.deadline,
            attempt_timeout: self.attempt_timeout,
        }))
    }
}

/// An endpoint without a trailing `/`, which may be followed by a path.
fn checked(endpoint: &str) -> Result<String, String> {
    let wrong = || format!("`{endpoint}` is no endpoint: write http://host:port or https://…");
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let host = uri.host().unwrap_or_default();
    if !matches!(scheme, "http" | "https") || host.is_empty() || !is_bare {
        return Err(wrong());
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}
