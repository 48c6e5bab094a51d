//! An object store as the commit chain needs it: create if absent, put, get, list.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::folder::FolderStore;
use super::s3::S3Store;
use crate::config::StoreConfig;

/// Where chains stand. A slot is a decision: it must outlive what was decided on its strength, and
/// nobody may delete it.
pub(crate) const CHAINS: &str = "_commit/";

/// The store that the config names. Nothing is asked of it yet, so a store that is down for now does
/// not keep anybody from starting.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match config {
        StoreConfig::Folder(root) => Arc::new(FolderStore::open(root)?),
        StoreConfig::S3(config) => Arc::new(S3Store::new(config.clone())?),
    })
}

/// What a store answers, or that it does not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The outcome is unknown or nothing happened: doing the same again is right.
    #[error("{operation} {key}: {reason}")]
    Retry {
        /// `put`, `get`...
        operation: &'static str,
        /// The object.
        key: String,
        /// What the store or the network said.
        reason: String,
    },
    /// Doing it again gives the same answer: credentials, bucket, rights.
    #[error("{operation} {key}: {reason}")]
    Refused {
        /// `put`, `get`...
        operation: &'static str,
        /// The object.
        key: String,
        /// What the store said, and what to do about it.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Retry { .. })
    }
}

/// How a bucket is read, secrets among it: for a pipe, never for a log.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
pub struct S3Access {
    /// The access key's id.
    pub key_id: String,
    /// The access key's secret.
    pub secret: String,
    /// Belongs to keys that expire.
    pub session_token: Option<String>,
    /// The region to sign for.
    pub region: Option<String>,
    /// A server other than AWS.
    pub endpoint: Option<String>,
    /// `endpoint/bucket/key` instead of `bucket.endpoint/key`.
    pub path_style: bool,
}

impl std::fmt::Debug for S3Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Access").field("endpoint", &self.endpoint).field("region", &self.region).finish_non_exhaustive()
    }
}

/// Answer of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is there now because of this request.
    New,
    /// One was there before; perhaps our own, from a request whose answer was lost.
    AlreadyThere,
}

/// A store of immutable objects. Keys are `/`-separated, relative, printable ASCII, and no segment begins
/// with a dot.
///
/// - `create` is atomic: of many at once, one gets [`Created::New`]. [`probe`](super::probe) checks that.
/// - What was answered survives a power failure, as far as the store's disks do: an object that was
///   created or put, one that was found to be there already, and a slot that was read.
/// - A request is tried once. Whoever drops its future does not undo it: it may still be done, late.
pub trait Store: Send + Sync + 'static {
    /// Creates the object if no other stands under its key.
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>>;

    /// Writes an object that is named by its content, so it does not matter if it is there already.
    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The object, or `None`.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>>;

    /// A key under `prefix` (which ends with a slash) to start reading a chain from: the smallest
    /// one, or, where that would mean a listing that grows with the years, one that was the
    /// smallest when it was last written. `None` only where there is none.
    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// All keys under `prefix` (which ends with a slash), sorted.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;

    /// Removes the object, if it is there.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Where it is, for people: `folder /data/bronze`, `s3://bucket/prefix`.
    fn describe(&self) -> String;

    /// Where others (DuckDB, a person) find the object: a path or an `s3://` address.
    fn address(&self, key: &str) -> String;

    /// What another process needs to read those addresses; `None` where it needs nothing. Good for some
    /// minutes, so it is asked for again before each use.
    fn access(&self) -> BoxFuture<'_, Result<Option<S3Access>, StoreError>> {
        async { Ok(None) }.boxed()
    }
}

/// Refuses a key that would lead out of the store, or that one of the stores could not hold.
pub(crate) fn check_key(operation: &'static str, key: &str) -> Result<(), StoreError> {
    let is_right = key.len() <= LONGEST_KEY && key.split('/').all(is_segment);
    is_right.then_some(()).ok_or_else(|| StoreError::Refused {
        operation,
        key: key.to_owned(),
        reason: format!(
            "not a key: up to {LONGEST_KEY} printable ASCII characters without blanks and backslashes, in \
             segments between slashes that are not empty and do not begin with a dot"
        ),
    })
}

/// Refuses a prefix that is neither empty nor a key and a slash.
pub(crate) fn check_prefix(operation: &'static str, prefix: &str) -> Result<(), StoreError> {
    match prefix.strip_suffix('/') {
        Some(key) => check_key(operation, key),
        None if prefix.is_empty() => Ok(()),
        None => Err(StoreError::Refused { operation, key: prefix.to_owned(), reason: "a prefix ends with a slash".into() }),
    }
}

/// A file name may have 255 bytes, a path 4096, a key in S3 1024.
const LONGEST_KEY: usize = 900;

fn is_segment(segment: &str) -> bool {
    let is_printable = segment.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    is_printable && !segment.is_empty() && !segment.starts_with('.') && segment.len() <= 255
}
