//! Two ends that disagree about TLS: found out, and said so that a person can mend it.
//!
//! Such a disagreement does not pass, so there is no point in trying again until the deadline.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::Uri;
use rustls::{AlertDescription, InvalidMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a port may take to show what it speaks.
const PROBE: Duration = Duration::from_millis(500);

/// The first byte of an alert of TLS (RFC 8446, 5.1).
const ALERT: u8 = 0x15;

/// The error of TLS that this one stems from, if any.
fn of_tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An `io::Error` is transparent: its source is that of what it wraps.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What to do about an error that trying again does not mend; `None` for all others.
pub(super) fn explain(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match of_tls(error)? {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some("this port does not speak TLS: write http:// instead of https://")
        }
        rustls::Error::InvalidCertificate(_) => Some(
            "the node's certificate is not accepted: give the CA that signed it (--ca-file), and \
             use a host name or address that the certificate names",
        ),
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => Some(
                "the node demands a certificate of its clients: give one, with its key \
                 (--cert-file, --key-file)",
            ),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied => Some(
                "the node does not accept our certificate: give one that its CA for clients has \
                 signed (--cert-file, --key-file)",
            ),
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity => {
                Some("the two ends have no version or cipher of TLS in common")
            }
            _ => None,
        },
        rustls::Error::PeerIncompatible(_) => {
            Some("the two ends have no version or cipher of TLS in common")
        }
        _ => None,
    }
}

/// Whether what came back was something else than HTTP.
pub(super) fn is_no_http(error: &(dyn Error + 'static)) -> bool {
    of_hyper(error).is_some_and(hyper::Error::is_parse)
}

/// Whether the connection ended before anything of the request was sent.
pub(super) fn is_canceled(error: &(dyn Error + 'static)) -> bool {
    of_hyper(error).is_some_and(hyper::Error::is_canceled)
}

/// The error of the HTTP connection that this one stems from, if any.
fn of_hyper<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e hyper::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<hyper::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether the port answers what is no TLS with an alert of TLS.
pub(super) async fn speaks_tls(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<Uri>() else { return false };
    let (Some(host), port) = (uri.host(), uri.port_u16().unwrap_or(80)) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let probe = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        stream.read_u8().await
    };
    matches!(timeout(PROBE, probe).await, Ok(Ok(ALERT)))
}
