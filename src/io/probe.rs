//! Finds out whether a store can hold the commit chain.
//!
//! The chain is safe on one condition: of many that create the same object at once, one is told that it
//! did. Some servers look whether the object is there and then write it; on them two daemons would commit
//! different records to one slot, and one's would be lost. So before the first use several writers race
//! for fresh keys, round after round. That a store passes is noted in the store itself, under the name by
//! which it was reached: a copy of the data on another server is another store.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::store::{Created, Store, StoreError};
use crate::domain::object::hex;

/// Where probes leave their notes, and their keys while they run.
pub const FOLDER: &str = "_probe/";

/// Goes up when the probe looks for something new, so that each store is probed again.
const VERSION: u32 = 1;

/// A request that fails so often in a row is not going to succeed.
const ATTEMPTS: u32 = 8;
/// Doubles from here, without jitter: in this race a meeting is wanted.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How much of a race it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// So many create the same key at once.
    pub writers: usize,
    /// So many keys, one after another.
    pub rounds: usize,
}

impl Default for Size {
    /// A server that checks and then acts, but keeps a lock for a part of the way, was caught in 98 of
    /// 100 such rounds.
    fn default() -> Size {
        Size { writers: 8, rounds: 20 }
    }
}

/// A store that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The race that it passed.
    pub size: Size,
    /// Rounds in which an answer was lost, so that nobody knows who has won. They prove nothing.
    pub unclear: usize,
    /// How long it took; `None`: it has passed earlier, and the note of it was found.
    pub took: Option<Duration>,
}

/// A store that did not.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProbeError {
    /// It broke a promise. Nothing may be committed to it.
    #[error(
        "{store} is not safe to commit to: {finding}. Two daemons, or one that was restarted, could both \
         believe to have written the same slot, and trades would be lost or doubled. Use a store that creates \
         objects atomically: AWS S3, MinIO, SeaweedFS (4.48 was tested), or a folder on a local disk"
    )]
    Unsafe {
        /// Which store.
        store: String,
        /// What happened.
        finding: String,
    },
    /// Most rounds had no clear end, because answers were lost.
    #[error("{store} cannot be probed: in {unclear} of {rounds} rounds answers were lost; try again when it is reached reliably")]
    Unclear {
        /// Which store.
        store: String,
        /// Rounds without a clear end.
        unclear: usize,
        /// All rounds.
        rounds: usize,
    },
    /// It did not answer.
    #[error("the store cannot be probed: {0}")]
    Store(#[from] StoreError),
}

/// What a note says.
#[derive(Serialize, Deserialize)]
struct Note {
    store: String,
    version: u32,
    writers: usize,
    rounds: usize,
}

/// Probes the store unless there is a note that it has passed under this name.
pub async fn probe_once(store: &dyn Store, folder: &str, size: Size) -> Result<ProbeReport, ProbeError> {
    let key = note_key(store, folder);
    let note = patiently(|| store.get(&key)).await.0?;
    match note.and_then(|note| serde_json::from_slice::<Note>(&note).ok()) {
        Some(note) if note.store == store.describe() && note.version == VERSION => {
            let size = Size { writers: note.writers, rounds: note.rounds };
            Ok(ProbeReport { size, unclear: 0, took: None })
        }
        Some(_) | None => probe(store, folder, size).await,
    }
}

/// Probes the store in any case, and leaves a note if it passes. `folder` ends with a slash: [`FOLDER`].
pub async fn probe(store: &dyn Store, folder: &str, size: Size) -> Result<ProbeReport, ProbeError> {
    let begun = Instant::now();
    let race = Race { store, folder: format!("{folder}{}/", uuid::Uuid::now_v7()), size };
    let outcome = race.run().await;
    race.clean_up().await;
    let unclear = outcome?;
    let note = Note { store: store.describe(), version: VERSION, writers: size.writers, rounds: size.rounds };
    let (key, note) = (note_key(store, folder), serde_json::to_vec(&note).expect("a note is JSON"));
    patiently(|| store.put(&key, note.clone().into())).await.0?;
    Ok(ProbeReport { size, unclear, took: Some(begun.elapsed()) })
}

struct Race<'a> {
    store: &'a dyn Store,
    /// Nobody else's, ever.
    folder: String,
    size: Size,
}

impl Race<'_> {
    /// Runs all rounds. The number of those that were unclear.
    async fn run(&self) -> Result<usize, ProbeError> {
        let rounds = self.size.rounds;
        let mut unclear = 0;
        for round in 0..rounds {
            unclear += usize::from(!self.is_decided(round).await?);
        }
        if unclear * 2 > rounds {
            return Err(ProbeError::Unclear { store: self.store.describe(), unclear, rounds });
        }
        self.check_listing().await?;
        Ok(unclear)
    }

    fn key(&self, round: usize) -> String {
        // Downward, as the chain's, so that the last one created is the first one listed.
        format!("{}{:06}", self.folder, self.size.rounds - round)
    }

    /// One race. `false`: an answer was lost, and with it who has won.
    async fn is_decided(&self, round: usize) -> Result<bool, ProbeError> {
        let Size { writers, rounds } = self.size;
        let key = self.key(round);
        let body = |writer: usize| Bytes::from(format!("writer {writer} of round {round}"));
        let in_round = format!("in round {} of {rounds}", round + 1);

        let racing = (0..writers).map(|writer| {
            let key = &key;
            patiently(move || self.store.create(key, body(writer)))
        });
        let mut winners = Vec::new();
        let mut lost_answers = Vec::new();
        for (writer, (created, was_repeated)) in join_all(racing).await.into_iter().enumerate() {
            match created? {
                Created::New => winners.push(writer),
                // Perhaps by its own first attempt.
                Created::AlreadyThere if was_repeated => lost_answers.push(writer),
                Created::AlreadyThere => {}
            }
        }
        if winners.len() > 1 {
            return Err(self.unsafe_because(format!(
                "{in_round}, {} of {writers} writers that created the same key at once were told that they did",
                winners.len()
            )));
        }

        // Nobody may replace it, now or later.
        for attempt in 0..2 {
            let Some(stored) = patiently(|| self.store.get(&key)).await.0? else {
                return Err(self.unsafe_because(format!("{in_round}, an object was created and then not found")));
            };
            let may_have_won = if winners.is_empty() { &lost_answers } else { &winners };
            if !may_have_won.iter().any(|&writer| stored == body(writer)) {
                return Err(self.unsafe_because(match winners[..] {
                    [_] => format!("{in_round}, the object of the one writer that had created it was replaced by another's"),
                    _ => format!("{in_round}, every writer was told that the key was taken, and nobody had it before"),
                }));
            }
            if attempt == 0 && patiently(|| self.store.create(&key, body(writers))).await.0? == Created::New {
                return Err(self.unsafe_because(format!("{in_round}, a key was created that was there for long")));
            }
        }
        Ok(!winners.is_empty())
    }

    /// A start reads the newest slot off the listing.
    async fn check_listing(&self) -> Result<(), ProbeError> {
        let mut keys: Vec<String> = (0..self.size.rounds).map(|round| self.key(round)).collect();
        keys.sort_unstable();
        let listed = patiently(|| self.store.list(&self.folder)).await.0?;
        let first = patiently(|| self.store.first(&self.folder)).await.0?;
        if listed == keys && first.as_ref() == keys.first() {
            return Ok(());
        }
        Err(self.unsafe_because(format!(
            "of {} objects it lists {}, and as the first in order {} instead of {}",
            keys.len(),
            listed.len(),
            first.as_deref().unwrap_or("none"),
            keys.first().map_or("none", String::as_str)
        )))
    }

    fn unsafe_because(&self, finding: String) -> ProbeError {
        ProbeError::Unsafe { store: self.store.describe(), finding }
    }

    async fn clean_up(&self) {
        for round in 0..self.size.rounds {
            let key = self.key(round);
            if let Err(error) = patiently(|| self.store.delete(&key)).await.0 {
                warn!(folder = self.folder, %error, "the probe's keys stay behind; they do no harm");
                return; // the same would be said of each
            }
        }
    }
}

fn note_key(store: &dyn Store, folder: &str) -> String {
    let name = hex(&Sha256::digest(store.describe()));
    format!("{folder}passed-v{VERSION}-{}.json", &name[..8])
}

/// Asks until there is an answer, and tells whether it was more than once.
async fn patiently<'a, T>(request: impl Fn() -> BoxFuture<'a, Result<T, StoreError>>) -> (Result<T, StoreError>, bool) {
    let mut wait = FIRST_WAIT;
    for attempt in 1.. {
        match request().await {
            Err(error) if error.is_retryable() && attempt < ATTEMPTS => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            outcome => return (outcome, attempt > 1),
        }
    }
    unreachable!("the last attempt has an outcome")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::super::folder::FolderStore;
    use super::super::memory::{Fault, MemoryStore};
    use super::*;

    const SIZE: Size = Size { writers: 4, rounds: 5 };

    fn creates(store: &MemoryStore) -> usize {
        store.requests().iter().filter(|(operation, _)| *operation == "create").count()
    }

    #[tokio::test]
    async fn a_good_store_is_probed_once_and_only_a_note_stays() {
        let store = MemoryStore::new();
        let report = probe_once(&store, FOLDER, SIZE).await.unwrap();
        assert!(report.took.is_some());
        assert_eq!((report.size, report.unclear), (SIZE, 0));
        assert_eq!(creates(&store), SIZE.rounds * (SIZE.writers + 1));
        let left: Vec<String> = store.objects().into_keys().collect();
        assert_eq!(left, [note_key(&store, FOLDER)]);

        let report = probe_once(&store, FOLDER, Size::default()).await.unwrap();
        assert_eq!(report, ProbeReport { size: SIZE, unclear: 0, took: None });
        let before = creates(&store);
        probe(&store, FOLDER, SIZE).await.unwrap();
        assert!(creates(&store) > before, "`check` does not believe the note");
    }

    #[tokio::test]
    async fn a_folder_passes_by_threads() {
        let folder = tempfile::tempdir().unwrap();
        let store = FolderStore::open(folder.path()).unwrap();
        let report = probe(&store, FOLDER, Size::default()).await.unwrap();
        assert_eq!(report.unclear, 0);
        assert_eq!(store.list("").await.unwrap(), [note_key(&store, FOLDER)]);
    }

    #[tokio::test]
    async fn a_store_that_checks_and_then_acts_is_refused_and_nothing_stays() {
        let store = MemoryStore::check_then_act();
        let error = probe_once(&store, FOLDER, SIZE).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ProbeError::Unsafe { .. }), "{text}");
        assert!(text.starts_with("memory is not safe") && text.contains("4 of 4 writers"), "{text}");
        assert_eq!(store.objects().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_answers_make_a_round_unclear_and_too_many_the_probe() {
        // Each round's n-th answer; the first is the winner's.
        let losing = |nth: usize| {
            let store = MemoryStore::new();
            let mut counts = std::collections::HashMap::new();
            store.set_faults(move |operation, key| {
                let count = counts.entry((operation, key.to_owned())).or_insert(0);
                *count += 1;
                (operation == "create" && *count == nth).then_some(Fault::LoseAnswer)
            });
            store
        };
        let report = probe(&losing(2), FOLDER, SIZE).await.unwrap();
        assert_eq!(report.unclear, 0);
        let store = losing(1);
        let error = probe(&store, FOLDER, SIZE).await.unwrap_err();
        assert!(matches!(error, ProbeError::Unclear { unclear: 5, .. }), "{error}");
        assert_eq!(store.objects().len(), 0);

        store.set_faults(|operation, _| (operation == "create").then_some(Fault::LoseAnswer));
        let error = probe(&store, FOLDER, SIZE).await.unwrap_err();
        assert!(matches!(error, ProbeError::Store(StoreError::Retry { .. })), "{error}");
    }

    #[tokio::test]
    async fn a_store_that_refuses_is_not_called_unsafe() {
        let store = MemoryStore::new();
        store.set_faults(|_, _| Some(Fault::Refuse));
        let error = probe_once(&store, FOLDER, SIZE).await.unwrap_err();
        assert!(matches!(error, ProbeError::Store(StoreError::Refused { .. })), "{error}");
    }

    /// Breaks one promise of a good store.
    struct Broken {
        store: MemoryStore,
        /// Creates are plain writes.
        ignores_the_condition: bool,
        /// Lists what it had some time ago: nothing.
        lists_late: bool,
        /// Says that all is taken.
        is_full_of_ghosts: bool,
    }

    impl Store for Broken {
        fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
            async move {
                if self.is_full_of_ghosts {
                    self.store.put(key, Bytes::from_static(b"ghost")).await?;
                    return Ok(Created::AlreadyThere);
                }
                if !self.ignores_the_condition {
                    return self.store.create(key, body).await;
                }
                // The first that comes is the last that is told.
                let is_there = self.store.get(key).await?.is_some();
                self.store.put(key, body).await?;
                Ok(if is_there { Created::AlreadyThere } else { Created::New })
            }
            .boxed()
        }

        fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
            self.store.put(key, body)
        }

        fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
            self.store.get(key)
        }

        fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
            self.store.first(prefix)
        }

        fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
            if self.lists_late { async { Ok(Vec::new()) }.boxed() } else { self.store.list(prefix) }
        }

        fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
            self.store.delete(key)
        }

        fn describe(&self) -> String {
            "broken".into()
        }

        fn address(&self, key: &str) -> String {
            self.store.address(key)
        }
    }

    #[tokio::test]
    async fn each_broken_promise_is_found() {
        let good =
            || Broken { store: MemoryStore::new(), ignores_the_condition: false, lists_late: false, is_full_of_ghosts: false };
        probe(&good(), FOLDER, SIZE).await.unwrap();
        for (store, finding) in [
            (Broken { ignores_the_condition: true, ..good() }, "was replaced by another's"),
            (Broken { lists_late: true, ..good() }, "of 5 objects it lists 0"),
            (Broken { is_full_of_ghosts: true, ..good() }, "nobody had it before"),
        ] {
            let error = probe(&store, FOLDER, SIZE).await.unwrap_err();
            assert!(matches!(error, ProbeError::Unsafe { .. }) && error.to_string().contains(finding), "{error}");
        }
    }
}
