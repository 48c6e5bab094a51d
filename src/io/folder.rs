//! The store in a folder of this machine.
//!
//! An object is written to a temporary file, synced, and then linked to its name: `link(2)` fails if
//! the name is taken, so of many at once one wins, and no name ever shows half an object. The folder
//! is synced before the answer, by the loser too, so whatever was answered survives a power failure.
//! Any number of processes may share the folder; of a process that died, nothing but temporary files
//! stays, and the next one to write removes them.
//!
//! Beside the objects there are two folders that no key can name:
//!
//! - `.tmp/{process}/`: what is being written. Its owner holds a lock on it (`flock`), so others can
//!   tell that it is alive, even from another container where its number would mean nothing.
//! - `.hints/`: for each chain the smallest key, or one that was it not long ago. A chain's folder grows
//!   for years and must not be listed at each start; from an old key there are some slots to read, and
//!   where there is no hint there is one listing.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::{debug, warn};

use super::store::{CHAINS, Created, Store, StoreError, check_key, check_prefix};

const TEMPORARY: &str = ".tmp";
const HINTS: &str = ".hints";

/// A hint is this old at most, in slots of one process. It costs as much as half a slot (ext4, 2026-09),
/// because to rename a file over another makes the next sync write its content too.
const HINT_EVERY: u32 = 64;

/// So many folders are remembered as being durable: more than the hours of a month. Those above are
/// synced again, no more.
const REMEMBERED: usize = 1024;

/// The store in a folder. Cloning gives another handle to the same one.
#[derive(Clone)]
pub struct FolderStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Made when something is first written: who only reads leaves no trace.
    temporary: Mutex<Option<Arc<Temporary>>>,
    /// Folders that survive a power failure, as do all above them.
    durable: Mutex<HashSet<PathBuf>>,
    /// Slots created in each chain since this process began.
    created: Mutex<HashMap<String, u32>>,
    #[cfg(test)]
    listings: AtomicU64,
}

impl FolderStore {
    /// The store in this folder, which the first write makes if it is not there.
    pub fn open(root: impl Into<PathBuf>) -> Result<FolderStore, StoreError> {
        let root = root.into();
        let at = |error| failed("open", &root.display(), &root, error);
        let root = std::path::absolute(&root).map_err(at)?;
        match root.metadata() {
            Ok(found) if !found.is_dir() => return Err(at(ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(error)),
            Ok(_) | Err(_) => {}
        }
        let inner = Inner {
            root,
            temporary: Mutex::default(),
            durable: Mutex::default(),
            created: Mutex::default(),
            #[cfg(test)]
            listings: AtomicU64::default(),
        };
        Ok(FolderStore { inner: Arc::new(inner) })
    }

    /// Does the work where it may block.
    fn run<'a, T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &'a str,
        checked: Result<(), StoreError>,
        work: impl FnOnce(&Inner, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let inner = Arc::clone(&self.inner);
        async move {
            checked?;
            let owned = key.to_owned();
            let stopping = |_| StoreError::Retry { operation, key: key.to_owned(), reason: "this process is stopping".into() };
            super::blocking(move || work(&inner, &owned)).await.map_err(stopping)?
        }
        .boxed()
    }
}

impl Store for FolderStore {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        self.run("create", key, check_key("create", key), move |inner, key| {
            let created = inner.write("create", key, &body)?;
            if key.starts_with(CHAINS) && inner.is_hint_due(key) {
                inner.hint(key);
            }
            Ok(created)
        })
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        self.run("put", key, check_key("put", key), move |inner, key| {
            // Objects appear whole, so one of this name is this one.
            let path = inner.path(key);
            if path.is_file() {
                let synced = inner.make_folder_of(&path).and_then(|()| sync(parent(&path)));
                return synced.map_err(|error| failed("put", &key, &path, error));
            }
            inner.write("put", key, &body).map(|_| ())
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        self.run("get", key, check_key("get", key), Inner::read)
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        self.run("first", prefix, check_prefix("first", prefix), |inner, prefix| {
            if let Some(key) = inner.hinted(prefix) {
                return Ok(Some(key));
            }
            let first = inner.list("first", prefix)?.into_iter().next();
            if let Some(key) = first.as_deref().filter(|key| key.starts_with(CHAINS)) {
                inner.hint(key);
            }
            Ok(first)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        self.run("list", prefix, check_prefix("list", prefix), |inner, prefix| inner.list("list", prefix))
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.run("delete", key, check_key("delete", key), |inner, key| {
            let path = inner.path(key);
            match std::fs::remove_file(&path) {
                Err(error) if !is_absent(&error) => Err(failed("delete", &key, &path, error)),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    }

    fn describe(&self) -> String {
        format!("folder {}", self.inner.root.display())
    }

    fn address(&self, key: &str) -> String {
        self.inner.path(key).display().to_string()
    }
}

impl Inner {
    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    fn write(&self, operation: &'static str, key: &str, body: &[u8]) -> Result<Created, StoreError> {
        let path = self.path(key);
        let at = |error| failed(operation, &key, &path, error);
        let temporary = self.temporary().map_err(|error| failed(operation, &key, &self.root.join(TEMPORARY), error))?;
        let file = match temporary.write(body) {
            Ok(file) => file,
            Err(error) => {
                if is_absent(&error) {
                    *locked(&self.temporary) = None; // somebody cleaned up: make another
                }
                return Err(failed(operation, &key, &temporary.folder, error));
            }
        };
        self.make_folder_of(&path).map_err(at)?;
        fail::fail_point!("folder.before-link");
        let mut linked = std::fs::hard_link(&file.0, &path);
        if linked.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // Somebody removed the folder that we remember, or the temporary file.
            locked(&self.durable).clear();
            self.make_folder_of(&path).map_err(at)?;
            linked = std::fs::hard_link(&file.0, &path);
        }
        let created = match linked {
            Ok(()) => Created::New,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Created::AlreadyThere,
            Err(error) => return Err(not_linked(operation, key, &path, error)),
        };
        fail::fail_point!("folder.after-link");
        sync(parent(&path)).map_err(at)?;
        Ok(created)
    }

    fn read(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(key);
        let body = match std::fs::read(&path) {
            Ok(body) => body,
            Err(error) if is_absent(&error) || error.kind() == ErrorKind::IsADirectory => return Ok(None),
            Err(error) => return Err(failed("get", &key, &path, error)),
        };
        if key.starts_with(CHAINS) {
            // Its writer may have died between link and sync. What is decided on the strength of a
            // slot must not outlive it. 70 us where there is nothing to do (ext4, 2026-09).
            sync(parent(&path)).map_err(|error| failed("get", &key, &path, error))?;
        }
        Ok(Some(body.into()))
    }

    fn list(&self, operation: &'static str, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut open = vec![prefix.to_owned()];
        while let Some(folder) = open.pop() {
            let path = self.path(&folder);
            self.collect(&path, &folder, &mut keys, &mut open).map_err(|error| failed(operation, &prefix, &path, error))?;
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Adds what is in the folder; folders to `open`.
    fn collect(&self, path: &Path, folder: &str, keys: &mut Vec<String>, open: &mut Vec<String>) -> io::Result<()> {
        #[cfg(test)]
        self.listings.fetch_add(1, Ordering::Relaxed);
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // Ours, the editor's, NFS': a key has no such segment.
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            let is_folder = match entry.file_type()? {
                kind if kind.is_symlink() => path.join(name).is_dir(),
                kind => kind.is_dir(),
            };
            if is_folder {
                open.push(format!("{folder}{name}/"));
            } else {
                keys.push(format!("{folder}{name}"));
            }
        }
        Ok(())
    }

    // ---- durability ----------------------------------------------------------------------------

    /// Makes the folder that the object goes to. All folders from there to the root are synced once a
    /// process, also those that were there: their maker may have died before it did.
    fn make_folder_of(&self, path: &Path) -> io::Result<()> {
        let folder = parent(path);
        if locked(&self.durable).contains(folder) {
            return Ok(());
        }
        std::fs::create_dir_all(folder).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => ErrorKind::NotADirectory.into(), // so it says of a file
            _ => error,
        })?;
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)) {
            sync(above)?;
        }
        let mut durable = locked(&self.durable);
        if durable.len() >= REMEMBERED {
            durable.clear();
        }
        durable.insert(folder.to_owned());
        if durable.insert(self.root.clone()) {
            // Perhaps we made some of these too. Those that we may not read we did not make.
            for above in self.root.ancestors().skip(1) {
                if let Err(error) = sync(above) {
                    debug!(folder = %above.display(), %error, "folder above the store not synced");
                }
            }
        }
        Ok(())
    }

    fn temporary(&self) -> io::Result<Arc<Temporary>> {
        let mut temporary = locked(&self.temporary);
        if let Some(temporary) = &*temporary {
            return Ok(Arc::clone(temporary));
        }
        let made = Arc::new(Temporary::make(&self.root.join(TEMPORARY))?);
        *temporary = Some(Arc::clone(&made));
        Ok(made)
    }

    // ---- hints ---------------------------------------------------------------------------------

    fn hint_path(&self, folder: &str) -> PathBuf {
        self.root.join(HINTS).join(folder.replace('%', "%25").replace('/', "%2F"))
    }

    /// The smallest key of the folder as far as is known, if it is there.
    fn hinted(&self, prefix: &str) -> Option<String> {
        let hint = std::fs::read_to_string(self.hint_path(prefix)).ok()?;
        let is_right = hint.starts_with(prefix) && check_key("first", &hint).is_ok() && self.path(&hint).is_file();
        is_right.then_some(hint)
    }

    /// At the first slot that this process creates in a chain, and then now and again.
    fn is_hint_due(&self, key: &str) -> bool {
        let mut created = locked(&self.created);
        let count = created.entry(folder_of(key).to_owned()).or_default();
        let is_due = count.is_multiple_of(HINT_EVERY);
        *count = count.wrapping_add(1);
        is_due
    }

    /// Remembers the key if it is the smallest of its folder. Two at once may leave the greater one,
    /// and a power failure an older one or none: they cost time, nothing else.
    fn hint(&self, key: &str) {
        let folder = folder_of(key);
        if self.hinted(folder).is_some_and(|hint| hint.as_str() <= key) {
            return;
        }
        let written = self.temporary().and_then(|temporary| {
            let file = temporary.write_unsynced(key.as_bytes())?;
            std::fs::create_dir_all(self.root.join(HINTS))?;
            std::fs::rename(&file.0, self.hint_path(folder))
        });
        if let Err(error) = written {
            debug!(key, %error, "hint not written: the next start lists the chain");
        }
    }
}

/// This process' folder of temporary files. Removed with its last user.
struct Temporary {
    folder: PathBuf,
    next: AtomicU64,
    /// Held as long as this lives; the kernel frees it with the process.
    _lock: File,
}

impl Temporary {
    fn make(all: &Path) -> io::Result<Temporary> {
        std::fs::create_dir_all(all)?;
        // One at a time, so that nobody takes a folder that is not locked yet for one left behind.
        let door = File::open(all)?;
        if let Err(error) = door.lock() {
            warn!(folder = %all.display(), %error, "no locks here: what crashes leave in this folder stays");
        } else {
            remove_abandoned(all)?;
        }
        let folder = all.join(uuid::Uuid::now_v7().to_string());
        std::fs::create_dir(&folder)?;
        let lock = File::open(&folder)?;
        if let Err(error) = lock.try_lock() {
            debug!(folder = %folder.display(), %error, "not locked");
        }
        Ok(Temporary { folder, next: AtomicU64::default(), _lock: lock })
    }

    /// A file with that content that survives a power failure once a durable folder names it.
    fn write(&self, body: &[u8]) -> io::Result<TemporaryFile> {
        let (name, mut file) = self.new_file()?;
        file.write_all(body)?;
        file.sync_all()?;
        Ok(name)
    }

    fn write_unsynced(&self, body: &[u8]) -> io::Result<TemporaryFile> {
        let (name, mut file) = self.new_file()?;
        file.write_all(body)?;
        Ok(name)
    }

    fn new_file(&self) -> io::Result<(TemporaryFile, File)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = TemporaryFile(self.folder.join(number.to_string()));
        let file = File::create_new(&name.0)?;
        Ok((name, file))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            debug!(folder = %self.folder.display(), %error, "temporary folder not removed");
        }
    }
}

/// The name of a temporary file. Removed when dropped; the object that was linked to it stays.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                debug!(file = %self.0.display(), %error, "temporary file not removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Removes the folders of processes that are no more.
fn remove_abandoned(all: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(all)? {
        let path = entry?.path();
        let Ok(folder) = File::open(&path) else { continue };
        match folder.try_lock() {
            Ok(()) => {
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    warn!(folder = %path.display(), %error, "what a crash left cannot be removed");
                }
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
    Ok(())
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// With the slash at its end.
fn folder_of(key: &str) -> &str {
    key.rfind('/').map_or("", |slash| &key[..=slash])
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("an object lies in a folder")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nothing is there: no such file, or a file stands where a folder would be.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Words for the operating system's answer, by who must act.
fn failed(operation: &'static str, key: &dyn std::fmt::Display, path: &Path, error: io::Error) -> StoreError {
    let (at, key) = (path.display(), key.to_string());
    let (again, reason) = match error.kind() {
        ErrorKind::StorageFull => (true, format!("the disk that holds {at} is full ({error}); free some space on it")),
        ErrorKind::QuotaExceeded => (true, format!("the quota for {at} is used up ({error}); raise it or free some space")),
        ErrorKind::ReadOnlyFilesystem => (
            false,
            format!(
                "{at} is on a file system mounted read-only ({error}); mount it for writing, or look in the kernel's log for why it was remounted"
            ),
        ),
        ErrorKind::PermissionDenied => (
            false,
            format!(
                "no right to {at} ({error}); give it to the user that tickmint runs as (chown, chmod, or ReadWritePaths= of the service)"
            ),
        ),
        ErrorKind::NotADirectory => (false, format!("a file stands where {at} needs a folder; move it away")),
        ErrorKind::InvalidFilename => (false, format!("the file system takes no such name as {at} ({error})")),
        _ => (true, format!("{at}: {error}")),
    };
    if again { StoreError::Retry { operation, key, reason } } else { StoreError::Refused { operation, key, reason } }
}

/// Some file systems have no hard links; that is final.
fn not_linked(operation: &'static str, key: &str, path: &Path, error: io::Error) -> StoreError {
    let reason = match error.raw_os_error() {
        Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK) => format!(
            "the file system of {} has no hard links ({error}), and without them two writers cannot be told apart; \
             use a folder on a local file system such as ext4, xfs or apfs, or an S3 store",
            path.display()
        ),
        Some(libc::EXDEV) => format!(
            "{} is on another file system than the folder of the store ({error}); the store must be on one",
            path.display()
        ),
        _ => return failed(operation, &key, path, error),
    };
    StoreError::Refused { operation, key: key.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    struct Rig {
        store: FolderStore,
        folder: tempfile::TempDir,
    }

    impl Rig {
        fn new() -> Rig {
            let folder = tempfile::tempdir().unwrap();
            Rig { store: FolderStore::open(folder.path().join("store")).unwrap(), folder }
        }

        fn root(&self) -> PathBuf {
            self.folder.path().join("store")
        }

        /// Another process' view of the same folder.
        fn another(&self) -> FolderStore {
            FolderStore::open(self.root()).unwrap()
        }

        fn listings(&self) -> u64 {
            self.store.inner.listings.load(Ordering::Relaxed)
        }
    }

    fn body(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files_below(&path));
            } else {
                found.insert(path);
            }
        }
        found
    }

    #[tokio::test]
    async fn the_first_to_create_an_object_wins_and_its_body_stays() {
        let rig = Rig::new();
        let key = "_commit/trades/p0/9-9.json";
        assert_eq!(rig.store.get(key).await.unwrap(), None);
        assert_eq!(rig.store.create(key, body("one")).await.unwrap(), Created::New);
        assert_eq!(rig.another().create(key, body("two")).await.unwrap(), Created::AlreadyThere);
        assert_eq!(rig.store.get(key).await.unwrap(), Some(body("one")));
        assert_eq!(files_below(&rig.root().join(TEMPORARY)), BTreeSet::new());
    }

    #[test]
    fn of_sixteen_threads_in_four_stores_one_creates_each_object() {
        let rig = Rig::new();
        let stores = [rig.store.clone(), rig.another(), rig.another(), rig.another()];
        for round in 0..50 {
            let key = format!("_commit/trades/p0/{:09}.json", 50 - round);
            let barrier = std::sync::Barrier::new(16);
            let winners: Vec<usize> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..16)
                    .map(|me| {
                        let (barrier, key, inner) = (&barrier, &key, &stores[me % 4].inner);
                        scope.spawn(move || {
                            barrier.wait();
                            let created = inner.write("create", key, me.to_string().as_bytes()).unwrap();
                            inner.hint(key);
                            (created == Created::New).then_some(me)
                        })
                    })
                    .collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            let [winner] = winners[..] else { panic!("round {round}: {winners:?} have won") };
            assert_eq!(rig.store.inner.read(&key).unwrap(), Some(body(&winner.to_string())));
        }
        let all = rig.store.inner.list("list", "_commit/trades/p0/").unwrap();
        assert_eq!(all.len(), 50);
        assert_eq!(rig.store.inner.hinted("_commit/trades/p0/").as_ref(), all.first());
        assert_eq!(files_below(&rig.root().join(TEMPORARY)), BTreeSet::new());
    }

    #[tokio::test]
    async fn an_object_put_again_is_left_as_it_is() {
        let rig = Rig::new();
        let key = "bronze/raw/trades/2026/11/23/20/p0-g1-0-9-abcdef01.jsonl.zst";
        for store in [&rig.store, &rig.store, &rig.another()] {
            store.put(key, body("content")).await.unwrap();
        }
        assert_eq!(rig.store.get(key).await.unwrap(), Some(body("content")));
        assert_eq!(rig.store.address(key), rig.root().join(key).display().to_string());
        rig.store.delete(key).await.unwrap();
        rig.store.delete(key).await.unwrap();
        assert_eq!(rig.store.get(key).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_list_is_sorted_and_holds_only_what_lies_below_the_prefix() {
        let rig = Rig::new();
        for key in ["a/b/2", "a/b/1", "a/b-c/1", "a/bc", "a/0", "z", "_commit/trades/p0/1"] {
            rig.store.create(key, Bytes::new()).await.unwrap();
        }
        std::fs::write(rig.root().join("a/b/.nfs0001"), "not ours").unwrap();
        assert_eq!(rig.store.list("a/b/").await.unwrap(), ["a/b/1", "a/b/2"]);
        assert_eq!(rig.store.list("a/").await.unwrap(), ["a/0", "a/b-c/1", "a/b/1", "a/b/2", "a/bc"]);
        assert_eq!(rig.store.list("nothing/here/").await.unwrap(), Vec::<String>::new());
        assert_eq!(rig.store.list("").await.unwrap().len(), 7);
        assert_eq!(rig.store.get("a/b").await.unwrap(), None);
        assert_eq!(rig.store.get("a/0/below/a/file").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_chain_of_twenty_thousand_slots_is_not_listed_to_find_its_newest() {
        let rig = Rig::new();
        let slot = |n: u32| format!("_commit/trades/p0/{:010}.json", 99_999 - n);
        rig.store.create(&slot(0), body("0")).await.unwrap();
        for n in 1..20_000 {
            std::fs::write(rig.root().join(slot(n)), "").unwrap(); // unsynced: this is not about them
        }
        rig.another().create(&slot(20_000), body("20000")).await.unwrap();
        let before = rig.listings();
        assert_eq!(rig.store.first("_commit/trades/p0/").await.unwrap(), Some(slot(20_000)));
        assert_eq!(rig.listings(), before);

        // And one listing where the hint is gone, after which there is one again.
        std::fs::remove_dir_all(rig.root().join(HINTS)).unwrap();
        for _ in 0..3 {
            assert_eq!(rig.store.first("_commit/trades/p0/").await.unwrap(), Some(slot(20_000)));
        }
        assert_eq!(rig.listings(), before + 1);
    }

    #[tokio::test]
    async fn a_hint_lags_by_a_few_slots_and_no_more() {
        let rig = Rig::new();
        let prefix = "_commit/trades/p0/";
        let slot = |n: u32| format!("{prefix}{:010}.json", 99_999 - n);
        for n in 0..3 * HINT_EVERY {
            rig.store.create(&slot(n), Bytes::new()).await.unwrap();
            assert_eq!(rig.store.first(prefix).await.unwrap(), Some(slot(n - n % HINT_EVERY)));
        }
        assert_eq!(rig.listings(), 0);
        // The next process begins with a hint, so many short lives do not add up.
        rig.another().create(&slot(3 * HINT_EVERY), Bytes::new()).await.unwrap();
        rig.another().create(&slot(3 * HINT_EVERY + 1), Bytes::new()).await.unwrap();
        assert_eq!(rig.store.first(prefix).await.unwrap(), Some(slot(3 * HINT_EVERY + 1)));
    }

    #[tokio::test]
    async fn a_hint_that_is_broken_or_names_nothing_is_not_believed() {
        let rig = Rig::new();
        let prefix = "_commit/trades/p0/";
        assert_eq!(rig.store.first(prefix).await.unwrap(), None);
        for key in ["_commit/trades/p0/7", "_commit/trades/p0/5", "_commit/trades/p0/6", "_commit/gaps/p0/1"] {
            rig.another().create(key, Bytes::new()).await.unwrap();
        }
        let hint = rig.store.inner.hint_path(prefix);
        assert_eq!(std::fs::read_to_string(&hint).unwrap(), "_commit/trades/p0/5");
        for broken in ["", "_commit/tra", "_commit/trades/p0/4", "_commit/trades/p0/../../gaps/p0/1", "_commit/gaps/p0/1", "\0"] {
            std::fs::write(&hint, broken).unwrap();
            assert_eq!(rig.store.first(prefix).await.unwrap().as_deref(), Some("_commit/trades/p0/5"), "{broken:?}");
        }
        std::fs::write(&hint, "_commit/trades/p0/7").unwrap(); // old, but it was true: good enough
        assert_eq!(rig.store.first(prefix).await.unwrap().as_deref(), Some("_commit/trades/p0/7"));
        assert_eq!(rig.store.first("_commit/").await.unwrap().as_deref(), Some("_commit/gaps/p0/1"));
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not() {
        let rig = Rig::new();
        rig.store.put("a/1", body("1")).await.unwrap();
        let living = rig.store.inner.temporary().unwrap().write(b"in the middle of it").unwrap();
        let dead = rig.root().join(TEMPORARY).join(uuid::Uuid::now_v7().to_string());
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("0"), "half an obj").unwrap();

        let another = rig.another();
        assert_eq!(another.list("").await.unwrap(), ["a/1"]);
        assert!(dead.exists(), "who only reads changes nothing");
        another.put("a/2", body("2")).await.unwrap();
        assert!(!dead.exists());
        assert!(living.0.exists());

        let own = another.inner.temporary().unwrap().folder.clone();
        drop(another);
        assert!(!own.exists());
    }

    #[tokio::test]
    async fn folders_that_somebody_removes_are_made_again() {
        let rig = Rig::new();
        rig.store.put("a/b/1", body("1")).await.unwrap();
        std::fs::remove_dir_all(rig.root().join("a")).unwrap();
        rig.store.put("a/b/1", body("1")).await.unwrap();
        std::fs::remove_dir_all(rig.root()).unwrap();
        assert!(rig.store.put("a/b/1", body("1")).await.unwrap_err().is_retryable());
        rig.store.put("a/b/1", body("1")).await.unwrap();
        assert_eq!(rig.store.get("a/b/1").await.unwrap(), Some(body("1")));
    }

    #[tokio::test]
    async fn a_file_where_a_folder_belongs_is_refused_by_name() {
        let rig = Rig::new();
        rig.store.put("a", body("a file")).await.unwrap();
        let error = rig.store.put("a/1", body("1")).await.unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("a file stands where"), "{error}");
        let error = FolderStore::open(rig.root().join("a")).err().unwrap();
        assert!(!error.is_retryable() && error.to_string().contains("store/a"), "{error}");
    }

    #[test]
    fn an_error_says_who_must_act() {
        let say = |code| failed("put", &"k", Path::new("/data/k"), io::Error::from_raw_os_error(code));
        for (code, again, text) in [
            (libc::ENOSPC, true, "free some space"),
            (libc::EDQUOT, true, "quota"),
            (libc::EIO, true, "/data/k: Input/output error"),
            (libc::EMFILE, true, "Too many open files"),
            (libc::EROFS, false, "mounted read-only"),
            (libc::EACCES, false, "chown"),
            (libc::ENAMETOOLONG, false, "no such name"),
        ] {
            let error = say(code);
            assert_eq!(error.is_retryable(), again, "{error}");
            assert!(error.to_string().contains(text) && error.to_string().contains("/data/k"), "{error}");
        }
        let error = not_linked("put", "k", Path::new("/data/k"), io::Error::from_raw_os_error(libc::EPERM));
        assert!(!error.is_retryable() && error.to_string().contains("hard links"), "{error}");
    }

    #[tokio::test]
    async fn no_key_leads_out_of_the_folder_or_into_our_own() {
        let rig = Rig::new();
        for key in ["../a", "/a", "a//b", "a/../b", "a/./b", "a/", "", ".tmp/a", "a/.hints/b", "a\\b", "a b", "ä", "a\0"] {
            assert!(!rig.store.put(key, body("1")).await.unwrap_err().is_retryable(), "{key:?}");
            assert!(!rig.store.get(key).await.unwrap_err().is_retryable(), "{key:?}");
        }
        for prefix in ["a", "../", "/", "a//", ".tmp/"] {
            assert!(!rig.store.list(prefix).await.unwrap_err().is_retryable(), "{prefix:?}");
        }
        assert_eq!(files_below(rig.folder.path()), BTreeSet::new());
    }
}
