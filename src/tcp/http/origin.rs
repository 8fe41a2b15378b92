//! Requests that a web page makes a browser send.
//!
//! Without tokens, whoever reaches the port may do everything, and the pages that the browser of
//! somebody on this machine shows can reach it. A page of another origin may send a `POST` although
//! it must not read the answer (CSRF); and a page whose name is made to mean this machine after it
//! was loaded (DNS rebinding) counts as of the same origin, and may read, too. A browser gives both
//! away: it says `Origin` with all that changes something, and `Host` is the name that it believes
//! to talk to. No program but a browser sends an `Origin`, and an attacker has a name of its own but
//! neither `localhost` nor an IP address.
//!
//! With tokens or client certificates nothing of this is needed: a page has no token, and a browser
//! that has a certificate asks before it uses it.

use std::net::{IpAddr, Ipv6Addr};

use hyper::HeaderMap;
use hyper::header::{HOST, HeaderValue, ORIGIN};

use super::error::{ApiError, Code};

/// Tells programs from web pages.
pub(super) struct Doorman {
    /// Names of this server besides `localhost`.
    hosts: Vec<String>,
}

impl Doorman {
    pub fn new(hosts: Vec<String>) -> Doorman {
        Doorman { hosts }
    }

    /// Refuses what a web page has sent.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if headers.contains_key(ORIGIN) {
            let message = "a web page sent this (it has an `Origin` header), and without tokens \
                           none may: use another client, or set up a token file";
            return Err(ApiError::new(Code::Forbidden, message).and_close());
        }
        // HTTP/1.0 knows none, and browsers do not speak it.
        let Some(host) = headers.get(HOST) else { return Ok(()) };
        if self.is_ours(host) {
            return Ok(());
        }
        let shown: String = String::from_utf8_lossy(host.as_bytes()).chars().take(80).collect();
        let message = format!(
            "`{shown}` is not known as a name of this server, and a web page could pretend that it \
             is: use an IP address or localhost, name it with --host-names, or set up a token file"
        );
        Err(ApiError::new(Code::Forbidden, message).and_close())
    }

    fn is_ours(&self, host: &HeaderValue) -> bool {
        let Ok(host) = host.to_str() else { return false };
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(ip, _)| ip.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.split_once(':').map_or(host, |(name, _port)| name);
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| name.eq_ignore_ascii_case(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_ours() {
        let doorman = Doorman::new(vec!["db-1.example".to_owned()]);
        for (host, ours) in [
            ("127.0.0.1:12380", true),
            ("192.0.2.7", true),
            ("[::1]:80", true),
            ("LocalHost:1", true),
            ("DB-1.example:12380", true),
            ("db-2.example", false),
            ("127.0.0.1.evil.example:80", false),
            ("localhost.evil.example", false),
            ("[evil]:80", false),
            ("", false),
        ] {
            assert_eq!(doorman.is_ours(&HeaderValue::from_static(host)), ours, "{host}");
        }
        assert!(!doorman.is_ours(&HeaderValue::from_bytes(b"\xff").unwrap()));
    }

    #[test]
    fn a_page_is_refused_and_a_program_is_not() {
        let doorman = Doorman::new(Vec::new());
        let mut headers = HeaderMap::new();
        assert_eq!(doorman.check(&headers), Ok(()), "HTTP/1.0");
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:12380"));
        assert_eq!(doorman.check(&headers), Ok(()));
        for origin in ["http://evil.example", "null", "http://127.0.0.1:12380"] {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(doorman.check(&headers).unwrap_err().code(), Code::Forbidden);
        }
        headers.remove(ORIGIN);
        headers.insert(HOST, HeaderValue::from_static("evil.example:12380"));
        let error = doorman.check(&headers).unwrap_err();
        assert!(error.message().contains("--host-names"), "{}", error.message());
    }
}
