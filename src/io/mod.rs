//! The outside world: files, sockets, object stores, the schema registry. No actors here.

pub mod finnhub;
pub mod folder;
pub mod kafka;
pub mod measured;
#[cfg(any(test, feature = "faults"))]
pub mod memory;
pub mod probe;
pub mod probed;
pub mod registry;
pub mod s3;
pub mod store;

/// Has a thread of its own do what takes long. A panic of it is the caller's.
///
/// # Errors
/// The runtime ends, and it was not done.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => error,
    })
}
