//! How the subcommands reach a cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stormkv::client::{Builder, Client};

/// Where the cluster is, and who we are to it.
#[derive(clap::Args, Clone, Debug)]
pub struct Connect {
    /// Nodes to talk to, any of the cluster's; the leader is found among them.
    #[arg(
        long,
        value_name = "URL,URL,...",
        value_delimiter = ',',
        env = "STORMKV_ENDPOINTS",
        default_value = "http://127.0.0.1:12380,http://127.0.0.1:22380,http://127.0.0.1:32380",
        global = true
    )]
    pub endpoints: Vec<String>,
    /// The bearer token; better given by its variable or a file, as others can see arguments.
    #[arg(long, env = "STORMKV_TOKEN", hide_env_values = true, global = true)]
    pub token: Option<String>,
    /// A file whose first line is, or ends with, the bearer token.
    #[arg(long, value_name = "FILE", conflicts_with = "token", global = true)]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that sign the nodes' certificates; for https.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Our own certificate chain (PEM), if the nodes want one.
    #[arg(long, value_name = "FILE", requires = "key_file", global = true)]
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    #[arg(long, value_name = "FILE", requires = "cert_file", global = true)]
    pub key_file: Option<PathBuf>,
    /// How long a request may take with all of its attempts, in seconds: above 0, at most a day.
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds, global = true)]
    pub timeout: Duration,
}

/// A positive number of seconds.
///
/// # Errors
/// Says what may be written.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed
        .filter(|duration| *duration > Duration::ZERO && *duration <= Duration::from_secs(86_400))
        .ok_or_else(|| "write a number of seconds above 0, at most a day: 0.5, 10".to_owned())
}

impl Connect {
    /// The token that is to be sent, if any.
    ///
    /// # Errors
    /// If the file cannot be read or holds none.
    pub fn token(&self) -> Result<Option<String>, String> {
        match &self.token_file {
            Some(file) => read_token(file).map(Some),
            None => Ok(self.token.clone()),
        }
    }

    /// The settings of a client.
    ///
    /// # Errors
    /// Says which argument cannot be used.
    pub fn builder(&self) -> Result<Builder, String> {
        let mut builder =
            Client::builder(self.endpoints.iter().map(|one| one.trim())).deadline(self.timeout);
        if let Some(token) = self.token()? {
            builder = builder.token(token);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(chain), Some(key)) = (&self.cert_file, &self.key_file) {
            builder = builder.identity(chain, key);
        }
        Ok(builder)
    }
}

/// The last word of the first line that has any and is no comment: both a bare token and the
/// `role token` of a node's token file will do.
fn read_token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("the token file {} cannot be read: {error}", file.display()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let token = lines.find_map(|line| line.split_whitespace().last());
    token
        .map(ToOwned::to_owned)
        .ok_or_else(|| format!("the token file {} holds no token", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "inf", "NaN", "1e30", "x", ""] {
            assert!(seconds(text).unwrap_err().contains("seconds"), "{text}");
        }
    }

    #[test]
    fn a_token_file_may_name_a_role() {
        let file = std::env::temp_dir().join(format!("stormkv-token-{}", std::process::id()));
        for (text, token) in [("secret\n", "secret"), ("# mine\n\nadmin s3\nclient s4\n", "s3")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_token(&file).as_deref(), Ok(token));
        }
        std::fs::write(&file, "# none\n").unwrap();
        assert!(read_token(&file).unwrap_err().contains("holds no token"));
        std::fs::remove_file(&file).unwrap();
        assert!(read_token(&file).unwrap_err().contains("cannot be read"));
    }
}
