//! An object store as the commit chain needs it: create if absent, put, get, list.

use bytes::Bytes;
use futures_util::future::BoxFuture;

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

/// Answer of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object is there now because of this request.
    New,
    /// One was there before; perhaps our own, from a request whose answer was lost.
    AlreadyThere,
}

/// A store of immutable objects. Keys are `/`-separated, relative, ASCII.
///
/// `create` must be atomic: of many at once, one gets [`Created::New`]. [`probe`] checks that.
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

    /// What a process that reads those addresses needs in its environment; secrets among it.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}
