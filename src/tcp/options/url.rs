//! Where a member can be reached by the others: `http://host:port`, or `https://` with TLS.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::api::MAX_ADDRESS;
use crate::types::NodeId;

/// The peer URL of a member. No path, no user: peers speak frames, not HTTP; the form is the one
/// that etcd and its raftexample use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerUrl {
    tls: bool,
    /// Without brackets, even if it is an IPv6 address.
    host: String,
    port: u16,
}

impl PeerUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// `host:port`, as name resolution wants it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether the host is this machine for sure.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Checks that the URL fits how this node talks to its peers.
    ///
    /// # Errors
    /// Says what does not fit, and what to change.
    pub fn check(&self, member: NodeId, tls: bool, allow_plaintext: bool) -> Result<(), String> {
        match (self.tls, tls) {
            (true, false) => Err(format!(
                "{self} of member {} asks for TLS: give --peer-ca, --peer-cert and --peer-key",
                member.0
            )),
            (false, true) => Err(format!(
                "{self} of member {} is plaintext, but this member has peer certificates: all \
                 members use the same, so write https://",
                member.0
            )),
            (false, false) if !self.is_loopback() && !allow_plaintext => Err(format!(
                "{self} of member {} is on another machine, without TLS: use https:// and \
                 --peer-ca, --peer-cert, --peer-key, or --allow-plaintext if the network is trusted",
                member.0
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl FromStr for PeerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerUrl, String> {
        let wrong =
            |what: &str| format!("`{text}` is no peer URL: {what}, as in http://10.0.0.1:2380");
        if text.len() > MAX_ADDRESS {
            return Err(format!("a peer URL of {} bytes is too long", text.len()));
        }
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(wrong("it begins with http:// or https://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) =
            rest.rsplit_once(':').ok_or_else(|| wrong("it ends with the port of the member"))?;
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| wrong("its port is a number from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(bare) if bare.parse::<std::net::Ipv6Addr>().is_ok() => bare,
            Some(_) => return Err(wrong("there is no IPv6 address in the brackets")),
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || (bare.is_none() && !host.chars().all(named)) {
            return Err(wrong("it names a host and a port and nothing else"));
        }
        Ok(PeerUrl { tls, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_survives_its_text() {
        for text in ["http://127.0.0.1:12379", "https://db-1.example.org:2380", "http://[::1]:1"] {
            let url: PeerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("http://a:1/".parse::<PeerUrl>().unwrap().to_string(), "http://a:1");
    }

    #[test]
    fn what_is_no_peer_url_is_refused_with_an_example() {
        for text in [
            "",
            "a:1",
            "ftp://a:1",
            "http://a",
            "http://a:0",
            "http://a:x",
            "http://:1",
            "http://u@a:1",
            "http://a/b:1",
            "http://[zz]:1",
            "http://a b:1",
            "http://::1:1",
        ] {
            let error = text.parse::<PeerUrl>().unwrap_err();
            assert!(error.contains("as in http://"), "{text}: {error}");
        }
        assert!(format!("http://{}:1", "a".repeat(2000)).parse::<PeerUrl>().is_err());
    }

    #[test]
    fn plaintext_beyond_this_machine_must_be_asked_for() {
        let check = |text: &str, tls, allow| {
            text.parse::<PeerUrl>().unwrap().check(NodeId(3), tls, allow).err().unwrap_or_default()
        };
        assert_eq!(check("http://127.0.0.1:1", false, false), "");
        assert_eq!(check("http://localhost:1", false, false), "");
        assert_eq!(check("https://db:1", true, false), "");
        assert_eq!(check("http://db:1", false, true), "");
        assert!(check("http://db:1", false, false).contains("--allow-plaintext"));
        assert!(check("http://127.0.0.1:1", true, false).contains("write https://"));
        assert!(check("https://db:1", false, true).contains("--peer-ca"));
    }
}
