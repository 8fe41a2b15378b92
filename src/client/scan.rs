//! Reading many keys, a page at a time.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::Method;

use super::transport::{Outgoing, percent_encoded};
use super::{Client, Error, freshness, model};
use crate::api::Consistency;
use crate::kv::{KeyValue, MAX_SCAN};

/// The keys with a prefix, in order. Fetches a page when the one before is used up.
#[must_use]
pub struct Scan {
    client: Client,
    prefix: Bytes,
    consistency: Consistency,
    page_size: u32,
    after: Option<Bytes>,
    page: VecDeque<KeyValue>,
    more: bool,
}

impl Scan {
    pub(super) fn new(client: Client, prefix: &[u8]) -> Scan {
        Scan {
            client,
            prefix: Bytes::copy_from_slice(prefix),
            consistency: Consistency::Linearizable,
            page_size: MAX_SCAN,
            after: None,
            page: VecDeque::new(),
            more: true,
        }
    }

    /// How fresh each page must be; linearizable unless set.
    pub fn consistency(mut self, consistency: Consistency) -> Scan {
        self.consistency = consistency;
        self
    }

    /// Starts after this key.
    pub fn after(mut self, key: impl AsRef<[u8]>) -> Scan {
        self.after = Some(Bytes::copy_from_slice(key.as_ref()));
        self
    }

    /// The most entries of a page, at most (and unless set) [`MAX_SCAN`]. A page also ends when
    /// it has grown too long.
    pub fn page_size(mut self, entries: u32) -> Scan {
        self.page_size = entries.clamp(1, MAX_SCAN);
        self
    }

    /// The next entry; `None` after the last.
    ///
    /// # Errors
    /// Never of the kind [`Unknown`](super::ErrorKind::Unknown). The scan stands where it stood:
    /// it may be asked again.
    pub async fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        if self.page.is_empty() {
            let page = self.next_page().await?;
            self.page.extend(page.unwrap_or_default());
        }
        Ok(self.page.pop_front())
    }

    /// The entries left of this page, or else the next page; `None` after the last. A page is of
    /// one moment.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        if !self.page.is_empty() {
            return Ok(Some(self.page.drain(..).collect()));
        }
        if !self.more {
            return Ok(None);
        }
        let (query, repeat) = freshness(self.consistency);
        let prefix = percent_encoded(&self.prefix);
        let mut path =
            format!("/v1/kv?prefix={prefix}&limit={}&consistency={query}", self.page_size);
        if let Some(after) = &self.after {
            path.push_str("&after=");
            path.push_str(&percent_encoded(after));
        }
        let outgoing = Outgoing::new(Method::GET, path);
        let (entries, more) = self.client.send(outgoing, repeat, model::page).await?;
        // A page without entries cannot be followed by another: where would that begin?
        self.more = more && !entries.is_empty();
        if let Some(last) = entries.last() {
            self.after = Some(last.key.clone());
        }
        Ok(if entries.is_empty() { None } else { Some(entries) })
    }
}
