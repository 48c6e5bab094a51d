//! What a daemon under test tells a file outside of its own folder (`TICKMINT_WITNESS`, see `faults.rs`): each answer that
//! the feed was given and each fsync that returned. The machine's page cache survives a kill -9, so the kill alone shows
//! nothing: a power failure cuts the files back to the one, and the other is asked for in the end.

use std::collections::BTreeMap;
use std::path::Path;

use tickmint::audit::found::Found;
use tickmint::domain::identity::SessionId;
use tickmint::spool::segment;

/// What a witness was told.
#[derive(Default)]
pub(crate) struct Witness {
    /// Of each session the last frame that was acknowledged.
    pub(crate) acknowledged: BTreeMap<SessionId, u32>,
    /// Of each segment, by `log/number`, how much an fsync has reached.
    synced: BTreeMap<String, u64>,
}

impl Witness {
    /// Adds what is in the file.
    pub(crate) fn read(mut self, path: &Path) -> Witness {
        for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
            let words: Vec<_> = line.split(' ').collect();
            match words[..] {
                ["acknowledged", session, frame] => {
                    let last = self.acknowledged.entry(session.parse().unwrap()).or_default();
                    *last = (*last).max(frame.parse().unwrap());
                }
                ["synced", segment, length] => drop(self.synced.insert(segment.to_string(), length.parse().unwrap())),
                _ => panic!("the witness says `{line}`"),
            }
        }
        self
    }

    /// Cuts every segment of a spool back to what was fsynced; the number of bytes that are gone.
    pub(crate) fn cut_power(&self, spool: &Path) -> u64 {
        let mut gone = 0;
        for log in std::fs::read_dir(spool).unwrap() {
            let dir = log.unwrap().path();
            for number in dir.is_dir().then(|| segment::numbers(&dir).unwrap()).into_iter().flatten() {
                let path = segment::path(&dir, number);
                let synced = self.synced.get(&format!("{}/{number}", dir.file_name().unwrap().to_str().unwrap())).copied();
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                let (length, keep) = (file.metadata().unwrap().len(), synced.unwrap_or(0));
                gone += length.saturating_sub(keep);
                file.set_len(length.min(keep)).unwrap();
            }
        }
        gone
    }

    /// The sessions that were promised more frames than are there of them, by their end or by what is archived or waits.
    pub(crate) fn broken_promises(&self, found: &Found) -> Vec<String> {
        let broken = self.acknowledged.iter().filter_map(|(session, promised)| {
            let kept = found.sessions.get(session).and_then(|count| count.told().max(count.last())).unwrap_or(0);
            (kept < *promised).then(|| format!("{session}: {promised} frames were acknowledged, {kept} are there"))
        });
        broken.collect()
    }
}
