//! The protocol with a rule left out: see [`Flaw`]. Only tests have this; they show that the audit
//! notices each.

use std::path::Path;

use crate::domain::chain::{ChainId, Slot, Tail};
use crate::domain::identity::LogId;
use crate::faults::{Flaw, flawed};
use crate::io::store::{Store, StoreError};

/// [`Flaw::StoredOffset`]: remembers how far a writer means to get, before its slot stands.
pub(super) fn store_offset(notes: &Path, log: LogId, next: u64) {
    if flawed(Flaw::StoredOffset) {
        let text = serde_json::to_vec(&(log, next)).expect("a name and a number");
        std::fs::write(notes.with_extension("offset"), text).expect("a test's folder can be written");
    }
}

/// [`Flaw::StoredOffset`]: the tail, moved to what the writer before remembered.
pub(super) fn stored_offset(notes: &Path, mut tail: Tail) -> Tail {
    let stored = || serde_json::from_slice::<(LogId, u64)>(&std::fs::read(notes.with_extension("offset")).ok()?).ok();
    if flawed(Flaw::StoredOffset)
        && let Some((log, next)) = stored().filter(|(log, _)| tail.incarnation == Some(*log))
    {
        tracing::warn!(%log, next, "begins at a stored offset");
        tail.next.start = next;
    }
    tail
}

/// [`Flaw::HourInName`]: the key of a slot, with its hour in it.
pub(super) fn key(key: String, slot: &Slot) -> String {
    match slot.carry.archive_hour.filter(|_| flawed(Flaw::HourInName)) {
        Some(hour) => key.replace(".json", &format!("@{}.json", hour.0)),
        None => key,
    }
}

/// [`Flaw::HourInName`]: the key of the slot that stands there, whatever its hour.
pub(super) async fn find(store: &dyn Store, chain: ChainId, key: String) -> Result<String, StoreError> {
    if !flawed(Flaw::HourInName) {
        return Ok(key);
    }
    let name = key.trim_end_matches(".json").to_string();
    Ok(store.list(&chain.prefix()).await?.into_iter().find(|found| found.starts_with(&name)).unwrap_or(key))
}

/// [`Flaw::HourInName`]: a key without its hour.
pub(super) fn without_hour(key: String) -> String {
    match key.split_once('@') {
        Some((name, _)) => format!("{name}.json"),
        None => key,
    }
}
