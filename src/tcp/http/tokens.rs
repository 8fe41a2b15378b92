//! Bearer tokens: who may do what.
//!
//! The file has one token a line, behind its role: `client`, `admin` or `metrics`. Empty lines and
//! lines that begin with `#` are skipped. Nobody but its owner may read the file. It is read again
//! when it changes; a file that has become unusable is reported and changes nothing.
//!
//! A token is compared with all tokens, each padded to the same length, so that the time it takes
//! tells nothing about any of them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::error::{ApiError, Code};
use super::routes::Access;

/// The longest token.
const MAX_TOKEN: usize = 128;

/// The most tokens in a file.
const MAX_TOKENS: usize = 256;

/// The largest file that is read.
const MAX_FILE: u64 = 64 << 10;

/// What the holder of a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Read and write keys, and look at the cluster.
    Client,
    /// Everything.
    Admin,
    /// Read the metrics.
    Metrics,
}

impl Role {
    fn named(name: &str) -> Option<Role> {
        match name {
            "client" => Some(Role::Client),
            "admin" => Some(Role::Admin),
            "metrics" => Some(Role::Metrics),
            _ => None,
        }
    }

    fn may(self, access: Access) -> bool {
        match access {
            Access::Open => true,
            Access::Client => matches!(self, Role::Client | Role::Admin),
            Access::Metrics => matches!(self, Role::Metrics | Role::Admin),
            Access::Admin => self == Role::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Client => "client",
            Role::Admin => "admin",
            Role::Metrics => "metrics",
        })
    }
}

/// Padded with zeros, which no token contains.
#[derive(Clone, PartialEq, Eq)]
struct Padded([u8; MAX_TOKEN]);

impl Padded {
    fn new(token: &[u8]) -> Option<Padded> {
        let mut padded = [0; MAX_TOKEN];
        padded.get_mut(..token.len())?.copy_from_slice(token);
        Some(Padded(padded))
    }
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

/// The tokens of a file.
pub struct Tokens {
    path: PathBuf,
    known: RwLock<Vec<(Padded, Role)>>,
    stamp: RwLock<Stamp>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the tokens.
        f.debug_struct("Tokens").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// Says which file, which line, what is wrong and what to do.
    pub fn load(path: &Path) -> Result<Tokens, String> {
        let (known, stamp) = read(path)?;
        let path = path.to_owned();
        Ok(Tokens { path, known: RwLock::new(known), stamp: RwLock::new(stamp) })
    }

    /// Reads the file again if it has changed. Says whether it has.
    ///
    /// # Errors
    /// What is wrong with the file; the tokens stay as they were. Each version of a file is
    /// complained about once.
    pub fn reload(&self) -> Result<bool, String> {
        let newest = std::fs::metadata(&self.path).map(|data| stamp(&data)).unwrap_or_default();
        {
            let mut stamp = self.stamp.write().unwrap_or_else(PoisonError::into_inner);
            if *stamp == newest {
                return Ok(false);
            }
            *stamp = newest;
        }
        let (known, _) = read(&self.path)?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(true)
    }

    /// Reads the file again, whether it has changed or not. Says whether the tokens are others now.
    ///
    /// # Errors
    /// What is wrong with the file; the tokens stay as they were.
    pub fn reload_now(&self) -> Result<bool, String> {
        let (new, stamp) = read(&self.path)?;
        *self.stamp.write().unwrap_or_else(PoisonError::into_inner) = stamp;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *known != new;
        *known = new;
        Ok(changed)
    }

    /// Lets a request pass, or says why not.
    pub(super) fn check(&self, headers: &HeaderMap, access: Access) -> Result<(), ApiError> {
        if access == Access::Open {
            return Ok(());
        }
        let unauthorized = |message| Err(ApiError::new(Code::Unauthorized, message));
        let Some(header) = headers.get(AUTHORIZATION) else {
            return unauthorized("a token is needed: send `Authorization: Bearer <token>`");
        };
        let Some(token) = bearer(header.as_bytes()) else {
            return unauthorized("the header is no token: send `Authorization: Bearer <token>`");
        };
        match self.role(token) {
            None => unauthorized("the token is unknown: ask for a valid one"),
            Some(role) if role.may(access) => Ok(()),
            Some(role) => {
                let needed = match access {
                    Access::Admin | Access::Open => Role::Admin,
                    Access::Client => Role::Client,
                    Access::Metrics => Role::Metrics,
                };
                let message =
                    format!("the token has the role {role}: this needs the role {needed}");
                Err(ApiError::new(Code::Forbidden, message))
            }
        }
    }

    fn role(&self, token: &[u8]) -> Option<Role> {
        let token = Padded::new(token).filter(|_| !token.is_empty() && !token.contains(&0))?;
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = 0_u32;
        for (at, (padded, _)) in (1..).zip(known.iter()) {
            let same: Choice = padded.0.ct_eq(&token.0);
            found.conditional_assign(&at, same);
        }
        known.get((found as usize).checked_sub(1)?).map(|(_, role)| *role)
    }
}

/// The token in the value of a header; the scheme's name is in any case (RFC 9110, 11.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn stamp(data: &std::fs::Metadata) -> Stamp {
    Stamp(data.ino(), data.len(), data.mtime(), data.mtime_nsec())
}

fn read(path: &Path) -> Result<(Vec<(Padded, Role)>, Stamp), String> {
    let shown = path.display();
    let fail = |error| format!("the token file {shown} cannot be read: {error}");
    let file = File::open(path).map_err(fail)?;
    let data = file.metadata().map_err(fail)?;
    let mode = data.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "the token file {shown} has mode {mode:04o}, so others may read it: chmod 600 {shown}"
        ));
    }
    if data.len() > MAX_FILE {
        return Err(format!(
            "the token file {shown} is larger than {MAX_FILE} bytes: is it the right one?"
        ));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(fail)?;
    let known = parse(&text).map_err(|error| format!("the token file {shown}, {error}"))?;
    Ok((known, stamp(&data)))
}

fn parse(text: &str) -> Result<Vec<(Padded, Role)>, String> {
    let mut known: Vec<(Padded, Role)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |what: &str| Err(format!("line {number}: {what}"));
        let mut words = line.split_ascii_whitespace();
        let (Some(role), Some(token), None) = (words.next(), words.next(), words.next()) else {
            return fail("a line is `<role> <token>`");
        };
        let Some(role) = Role::named(role) else {
            return fail("the role is unknown: it may be client, admin or metrics");
        };
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return fail("a token has visible ASCII characters only");
        }
        let Some(padded) = Padded::new(token.as_bytes()) else {
            return fail(&format!("a token has at most {MAX_TOKEN} characters"));
        };
        if known.iter().any(|(other, _)| *other == padded) {
            return fail("the token is there twice: give each role a token of its own");
        }
        if known.len() == MAX_TOKENS {
            return fail(&format!("there are more than {MAX_TOKENS} tokens: remove old ones"));
        }
        known.push((padded, role));
    }
    if known.is_empty() {
        return Err("it has no token: add a line `admin <token>`".to_owned());
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    /// A file that goes with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str, mode: u32) -> Scratch {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            let scratch = Scratch(path);
            scratch.write(text, mode);
            scratch
        }

        fn write(&self, text: &str, mode: u32) {
            let _ = std::fs::remove_file(&self.0);
            std::fs::write(&self.0, text).unwrap();
            std::fs::set_permissions(&self.0, PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn roles_have_what_they_need() {
        let text = "# who\n\nclient c-token\nadmin  a-token\n metrics m-token\n";
        let file = Scratch::new("stormkv-tokens-roles", text, 0o600);
        let tokens = Tokens::load(&file.0).unwrap();
        let allowed = |header, access| tokens.check(&headers(header), access).is_ok();
        for access in [Access::Open, Access::Client, Access::Metrics, Access::Admin] {
            assert!(allowed("Bearer a-token", access), "{access:?}");
            assert_eq!(
                allowed("bearer c-token", access),
                matches!(access, Access::Open | Access::Client)
            );
            assert_eq!(
                allowed("BEARER m-token", access),
                matches!(access, Access::Open | Access::Metrics)
            );
        }
        let code = |header, access| tokens.check(&headers(header), access).unwrap_err().code();
        assert_eq!(code("Bearer c-token", Access::Admin), Code::Forbidden);
        for wrong in ["Bearer c-toke", "Bearer c-tokenx", "Bearer ", "Basic c-token", "c-token"] {
            assert_eq!(code(wrong, Access::Client), Code::Unauthorized, "{wrong}");
        }
        let error = tokens.check(&HeaderMap::new(), Access::Client).unwrap_err();
        assert_eq!(error.code(), Code::Unauthorized);
        let error = tokens.check(&headers("Bearer m-token"), Access::Client).unwrap_err();
        assert!(error.message().contains("has the role metrics: this needs the role client"));
    }

    #[test]
    fn an_open_file_is_refused_with_the_remedy() {
        for mode in [0o644, 0o640, 0o602] {
            let file = Scratch::new("stormkv-tokens-open", "admin secret", mode);
            let error = Tokens::load(&file.0).unwrap_err();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
            assert!(error.contains("chmod 600"), "{error}");
        }
        assert!(Tokens::load(Path::new("/nonexistent")).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_never_shows_a_token() {
        let long = format!("admin {}", "s".repeat(129));
        for (text, part) in [
            ("\nroot secret", "line 2: the role is unknown"),
            ("admin", "line 1: a line is"),
            ("admin secret x", "line 1: a line is"),
            ("admin sécret", "line 1: a token has visible"),
            ("admin secret\nclient secret", "line 2: the token is there twice"),
            (&long, "line 1: a token has at most 128"),
            ("# nothing\n", "it has no token"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_unless_it_is_bad() {
        let file = Scratch::new("stormkv-tokens-reload", "admin old", 0o600);
        let tokens = Tokens::load(&file.0).unwrap();
        assert_eq!(tokens.reload(), Ok(false));
        file.write("admin brand-new", 0o600);
        assert_eq!(tokens.reload(), Ok(true));
        assert!(tokens.role(b"brand-new").is_some() && tokens.role(b"old").is_none());
        file.write("admin other-one-again", 0o644);
        assert!(tokens.reload().is_err());
        assert_eq!(tokens.reload(), Ok(false), "complained about once");
        assert!(tokens.role(b"brand-new").is_some());
        // Who asks by name is answered each time.
        assert!(tokens.reload_now().is_err() && tokens.reload_now().is_err());
        file.write("admin brand-new", 0o600);
        assert_eq!(tokens.reload_now(), Ok(false));
        file.write("admin newest", 0o600);
        assert_eq!(tokens.reload_now(), Ok(true));
        assert_eq!(tokens.reload(), Ok(false), "it has been read");
        assert!(tokens.role(b"newest").is_some() && tokens.role(b"brand-new").is_none());
    }
}
