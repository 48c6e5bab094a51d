//! The logs of this machine: those of earlier lives, which are drained and then deleted, and the
//! living one.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::reader::LogView;
use super::state::LogState;
use super::writer::scan_log;
use crate::domain::identity::LogId;
use crate::faults::{Flaw, flawed};

/// The file of a spool's folder that a running daemon keeps locked.
const LOCK: &str = "LOCK";

/// The file of a folder that holds the name by which a cluster knows the daemon, or its spool.
pub const NAME: &str = "NAME";

/// How the folder of a log is named while it is being deleted.
const GONE: &str = ".gone";

/// All logs in a spool folder. Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct Logs {
    dir: PathBuf,
    live: LogId,
    /// What is durable of the living log. Only a hint that there is more: the truth is the file.
    durable: watch::Receiver<LogView>,
    dead: Arc<RwLock<BTreeMap<LogId, LogView>>>,
}

/// What was found in a spool folder at the start of the process.
pub struct Found {
    /// The dead logs, oldest first.
    pub dead: BTreeMap<LogId, LogView>,
    /// What the newest of them says at its end.
    pub last: LogState,
}

impl Found {
    /// A name for the log of a life that begins now.
    pub fn next(&self) -> LogId {
        let newest = self.dead.keys().next_back().copied();
        match newest.filter(|newest| flawed(Flaw::SameLogName) && *newest > LogId::generate()) {
            Some(newest) => LogId(uuid::Uuid::from_u128(newest.0.as_u128() + 1)),
            None => LogId::after(newest),
        }
    }
}

/// Keeps every other daemon out of a spool folder, for as long as it lives. The folder itself is locked, and a
/// file in it: who removes the file of a daemon that looks dead does not let in a second one beside it.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "a lock lives as long as its file is open")] [File; 2]);

impl FolderLock {
    /// Takes the folder, which must be there; `None` if a running daemon has it.
    pub fn take(dir: &Path) -> io::Result<Option<FolderLock>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK))?;
        let both = [File::open(dir)?, file];
        for one in &both {
            if !is_free(one.try_lock())? {
                return Ok(None);
            }
        }
        Ok(Some(FolderLock(both)))
    }
}

fn is_free(locked: Result<(), TryLockError>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether a running daemon has the folder.
pub fn is_in_use(dir: &Path) -> io::Result<bool> {
    for path in [dir.to_path_buf(), dir.join(LOCK)] {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => {
                if !is_free(opened?.try_lock_shared())? {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Reads all logs in `dir`. A folder in it that is not named by a log's id is left alone.
pub fn find(dir: &Path) -> io::Result<Found> {
    let mut found = Found { dead: BTreeMap::new(), last: LogState::default() };
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.parse::<LogId>().ok()));
    }
    ids.sort_unstable();
    for id in ids {
        let (closed, state) = scan_log(&dir.join(id.to_string()))?;
        if !closed.is_empty() {
            found.last = state;
        }
        found.dead.insert(id, LogView { closed: Arc::new(closed), current: None });
    }
    Ok(found)
}

/// Removes what a death left of logs that were being deleted.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(GONE)) {
            found(std::fs::remove_dir_all(path))?;
        }
    }
    Ok(())
}

/// What is not there need not be removed.
fn found(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl Logs {
    /// The logs in `dir`: `dead` ones and the living one, whose durable part `durable` tells.
    pub fn new(dir: PathBuf, dead: BTreeMap<LogId, LogView>, live: LogId, durable: watch::Receiver<LogView>) -> Logs {
        Logs { dir, live, durable, dead: Arc::new(RwLock::new(dead)) }
    }

    /// The living log.
    pub fn live(&self) -> LogId {
        self.live
    }

    /// The folder of a log.
    pub fn dir(&self, id: LogId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// What can be read of a log; `None` if it is not on this machine.
    pub fn view(&self, id: LogId) -> Option<LogView> {
        if id == self.live {
            return Some(self.durable.borrow().clone());
        }
        self.dead.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The log to drain after `id`: the next one of this machine, or the oldest if `id` is not here.
    pub fn after(&self, id: Option<LogId>) -> LogId {
        let dead = self.dead.read().unwrap_or_else(PoisonError::into_inner);
        let known = id.filter(|id| dead.contains_key(id));
        let next = match known {
            Some(id) => dead.range(id..).nth(1),
            None => dead.iter().next(),
        };
        next.map_or(self.live, |(id, _)| *id)
    }

    /// All logs that are there, oldest first, the living one last.
    pub fn ids(&self) -> Vec<LogId> {
        let dead = self.dead.read().unwrap_or_else(PoisonError::into_inner);
        dead.keys().copied().chain([self.live]).collect()
    }

    /// The dead logs that are still there, oldest first.
    pub fn dead(&self) -> BTreeMap<LogId, LogView> {
        self.dead.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Deletes a dead log. Blocks. After an error it may be tried again.
    pub fn delete(&self, id: LogId) -> io::Result<()> {
        // In one step for whoever comes after a death: half a log would look like a damaged one.
        let gone = self.dir.join(format!("{id}{GONE}"));
        found(std::fs::rename(self.dir(id), &gone))?;
        fail::fail_point!("spool.log-deleted");
        found(std::fs::remove_dir_all(gone))?;
        self.dead.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(())
    }

    /// Resolves when more of the living log is durable; at once if that has happened since `seen`
    /// was last marked. Never if the log's writer is gone.
    pub fn watch(&self) -> watch::Receiver<LogView> {
        self.durable.clone()
    }

    /// Bytes of all logs.
    pub fn bytes(&self) -> u64 {
        let dead = self.dead.read().unwrap_or_else(PoisonError::into_inner);
        dead.values().map(LogView::bytes).sum::<u64>() + self.durable.borrow().bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_daemon_also_when_its_lock_file_was_removed() {
        let temp = tempfile::tempdir().unwrap();
        assert!(!is_in_use(temp.path()).unwrap());
        let first = FolderLock::take(temp.path()).unwrap().unwrap();
        assert!(is_in_use(temp.path()).unwrap() && FolderLock::take(temp.path()).unwrap().is_none());
        std::fs::remove_file(temp.path().join(LOCK)).unwrap();
        assert!(is_in_use(temp.path()).unwrap() && FolderLock::take(temp.path()).unwrap().is_none());
        drop(first);
        assert!(!is_in_use(temp.path()).unwrap() && FolderLock::take(temp.path()).unwrap().is_some());
    }

    #[test]
    fn what_a_death_leaves_of_a_log_that_was_being_deleted_is_no_log_and_goes() {
        let (temp, id) = (tempfile::tempdir().unwrap(), LogId::generate());
        std::fs::create_dir(temp.path().join(format!("{id}{GONE}"))).unwrap();
        assert!(find(temp.path()).unwrap().dead.is_empty());
        sweep(temp.path()).unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn dead_logs_are_drained_in_the_order_of_their_lives_and_then_the_living_one() {
        let (a, b, live) = (LogId::generate(), LogId::generate(), LogId::generate());
        let (_sender, durable) = watch::channel(LogView::default());
        let dead = [(a, LogView::default()), (b, LogView::default())].into_iter().collect();
        let logs = Logs::new("/nowhere".into(), dead, live, durable);
        assert_eq!(logs.after(None), a);
        assert_eq!(logs.after(Some(LogId::generate())), a, "a log of another machine");
        assert_eq!(logs.after(Some(a)), b);
        assert_eq!(logs.after(Some(b)), live);
        logs.delete(a).unwrap();
        assert_eq!(logs.after(Some(a)), b);
        assert!(logs.view(a).is_none());
    }
}
