//! The spool's folder and its logs, before any actor runs.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};
use fail::fail_point;
use tokio::sync::watch;

use crate::clock;
use crate::config::Config;
use crate::spool::logs::{self, FolderLock, Logs, NAME};
use crate::spool::reader::LogView;
use crate::spool::segment::{DrainedBy, LogKind};
use crate::spool::writer::{LogWriter, create_dir_durably};

/// The spool of this process.
pub(super) struct Spooling {
    /// All logs that are here.
    pub(super) logs: Logs,
    /// Of what kind the one of this life is.
    pub(super) kind: LogKind,
    /// The one of this life.
    pub(super) log: LogWriter,
    /// Where its writer tells what is durable.
    pub(super) durable: watch::Sender<LogView>,
    /// Partitions that some log has.
    pub(super) partitions: u32,
}

/// Makes the folder of `option` and keeps every other daemon out of it: two would have one name in the consumer group, and push
/// each other out.
pub(super) fn take(option: &str, dir: &Path) -> Result<FolderLock> {
    let unusable = |error| folder_failed(error, option, dir, "which cannot be made or written");
    create_dir_durably(dir).map_err(unusable)?;
    match FolderLock::take(dir).map_err(unusable)? {
        Some(lock) => Ok(lock),
        None => bail!("another tickmint uses `{option}` {}: stop it, or give this one a `data_dir` of its own", dir.display()),
    }
}

/// Reads the logs of earlier lives and begins one of its own, which first tells of the sessions that
/// died without a word.
pub(super) fn open(config: &Config, kind: LogKind) -> Result<Spooling> {
    let dir = &config.spool.dir;
    let failed = |what| move |error| spool_failed(error, dir, what);
    logs::sweep(dir).map_err(failed("which cannot be cleaned up"))?;
    let found = logs::find(dir).map_err(failed("which cannot be read"))?;
    let id = found.next();
    let kinds: Vec<_> = found.dead.values().filter_map(LogView::kind).collect();
    if kind.drained_by == DrainedBy::Bronze && kinds.iter().any(|kind| kind.drained_by == DrainedBy::Kafka) {
        bail!(
            "`spool.dir` {} is of a daemon of a cluster, and there is no `[kafka]` in the config: write that again, since from a cluster \
             no way leads back to one machine; a daemon without it needs a `data_dir` and a `bronze.store` of its own",
            dir.display()
        );
    }
    let partitions = kinds.iter().map(|kind| kind.partitions).chain([kind.partitions]).max().unwrap_or(1);
    let log = LogWriter::create_of(kind, dir, id, found.last, config.spool.segment_bytes);
    let mut log = log.map_err(failed("where no log can be begun"))?;
    fail_point!("start.log-created");
    let now = clock::now();
    for session in log.state().living() {
        if let Some(end) = log.state().end_of(session, 0, now, "process_died") {
            log.stage(&end);
        }
    }
    fail_point!("start.ends-staged");
    log.sync().map_err(failed("where the log cannot be written"))?;
    let (durable, view) = watch::channel(log.view());
    let logs = Logs::new(dir.clone(), found.dead, id, view);
    Ok(Spooling { logs, kind, log, durable, partitions })
}

/// Names the option, and what can be done.
fn spool_failed(error: std::io::Error, dir: &Path, what: &str) -> anyhow::Error {
    folder_failed(error, "spool.dir", dir, what)
}

fn folder_failed(error: std::io::Error, option: &str, dir: &Path, what: &str) -> anyhow::Error {
    let cure = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "its disk is full, make room there",
        _ => "choose a folder that this user may write",
    };
    anyhow::Error::from(error).context(format!("`{option}` is `{}`, {what}: {cure}", dir.display()))
}

/// The name of this folder among others of a cluster: made with it, and as old as it. A copy has the same.
pub(super) fn name(dir: &Path) -> Result<String> {
    let path = dir.join(NAME);
    let failed = |error: std::io::Error| {
        anyhow::Error::from(error).context(format!("the name of the folder, {}, cannot be read or written", path.display()))
    };
    match std::fs::read_to_string(&path) {
        Ok(name) if !name.trim().is_empty() => Ok(name.trim().to_string()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
        // An empty one is of a process that died while it wrote it.
        Ok(_) | Err(_) => {
            let name = format!("{:08x}", rand::random::<u32>());
            std::fs::write(&path, &name).map_err(failed)?;
            Ok(name)
        }
    }
}
