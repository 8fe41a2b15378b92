//! Where peers are, and whether they may be spoken to in the clear.
//!
//! A peer's URL is `http://host:port` for plain TCP or `https://host:port` for mutual TLS. What
//! travels between peers is all data, and who may connect may change all data; so plain TCP is for
//! one machine, unless a setting says otherwise by name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::api::MAX_ADDRESS;
use crate::types::NodeId;

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUrl {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Its name or IP address, without the brackets of an IPv6 address.
    pub host: String,
    /// Its port, never 0.
    pub port: u16,
}

impl PeerUrl {
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
        let address = self.host.parse::<IpAddr>();
        self.host == "localhost"
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }

    /// Checks that this URL of `member` fits how this node talks to its peers.
    ///
    /// # Errors
    /// Says what does not fit, and what to change.
    pub fn check(&self, member: NodeId, tls: bool, allow_plaintext: bool) -> Result<(), String> {
        let id = member.0;
        match (self.tls, tls) {
            (true, false) => Err(format!(
                "{self} of member {id} asks for TLS: give --peer-ca, --peer-cert and --peer-key"
            )),
            (false, true) => Err(format!(
                "{self} of member {id} is plaintext, but this member has peer certificates: all \
                 members use the same, so write https://"
            )),
            (false, false) if !self.is_loopback() && !allow_plaintext => Err(format!(
                "{self} of member {id} is on another machine, without TLS: use https:// and \
                 --peer-ca, --peer-cert, --peer-key, or --allow-plaintext if the network is trusted"
            )),
            _ => Ok(()),
        }
    }
}

impl FromStr for PeerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<PeerUrl, String> {
        let refuse = |why: &str| {
            Err(format!(
                "`{text}` is no peer URL ({why}): write http://HOST:PORT or https://HOST:PORT"
            ))
        };
        if text.len() > MAX_ADDRESS {
            return Err(format!("a peer URL of {} bytes: the limit is {MAX_ADDRESS}", text.len()));
        }
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return refuse("it has another scheme"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let Some((host, port)) = rest.rsplit_once(':') else { return refuse("it has no port") };
        let Some(port) = port.parse().ok().filter(|port| *port > 0) else {
            return refuse("its port is no number from 1 to 65535");
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let sound = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(letter),
        };
        if !sound {
            return refuse("its host is neither a name nor an address");
        }
        Ok(PeerUrl { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Whether bytes may travel to or from `address`: always under TLS; in the clear only within this
/// machine, or when `allowed` by a setting. The unspecified address stands for all of a machine's.
///
/// # Errors
/// Says what is refused and what to do.
pub fn check_plaintext(address: IpAddr, tls: bool, allowed: bool) -> Result<(), String> {
    if tls || allowed || address.to_canonical().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "{address} is not on this machine, and without TLS everybody on the way could read and \
         change all data: set up certificates, or allow plaintext explicitly"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back() {
        for text in ["http://127.0.0.1:12379", "https://node-1.example:1", "http://[::1]:65535"] {
            assert_eq!(text.parse::<PeerUrl>().unwrap().to_string(), text);
        }
        let url: PeerUrl = "https://[::1]:7/".parse().unwrap();
        assert_eq!(url, PeerUrl { tls: true, host: "::1".to_owned(), port: 7 });
    }

    #[test]
    fn what_is_no_peer_url_is_refused_with_the_reason() {
        for (text, why) in [
            ("ftp://a:1", "scheme"),
            ("http://a", "no port"),
            ("http://a:0", "port"),
            ("http://a:99999", "port"),
            ("http://:1", "host"),
            ("http://::1:1", "host"),
            ("http://[a]:1", "host"),
            ("http://a/b:1", "host"),
            ("http://user@a:1", "host"),
            ("http://a:1/path", "port"),
        ] {
            let error = text.parse::<PeerUrl>().unwrap_err();
            assert!(error.contains(why) && error.contains("HOST:PORT"), "{text}: {error}");
        }
        assert!("http://".to_owned().repeat(200).parse::<PeerUrl>().is_err());
    }

    #[test]
    fn a_url_must_fit_the_settings_of_the_node() {
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

    #[test]
    fn plaintext_stays_on_this_machine() {
        let check =
            |address: &str, tls, allowed| check_plaintext(address.parse().unwrap(), tls, allowed);
        for near in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(check(near, false, false), Ok(()));
        }
        for far in ["10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "192.0.2.1"] {
            let error = check(far, false, false).unwrap_err();
            assert!(error.contains(far) && error.contains("certificates"), "{error}");
            assert_eq!(check(far, true, false), Ok(()));
            assert_eq!(check(far, false, true), Ok(()));
        }
    }
}
