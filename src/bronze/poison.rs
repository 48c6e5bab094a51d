//! Records that kill their writer. The count must survive the crash, so it lies in a file.
//!
//! Before a range is encoded, the file says so, and again when it is encoded. A writer that finds it encoding
//! died in there, and encodes that range *carefully*, until a slot stands that covers it: it notes each record
//! before it touches it. A record that its writer died of three times is poison: it stays in raw, is named in
//! its slot, and is left out of typed.
//!
//! The notes are written and not fsynced: a crash of the process does not lose them, and a power
//! cut only makes the counting begin again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::identity::LogId;

/// So many deaths of its writer make a record poison.
const DEATHS: u32 = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Notes {
    /// What is being encoded: a log and a range of its offsets.
    attempt: Option<(LogId, u64, u64)>,
    /// The record of it that is being encoded, where that is done carefully.
    #[serde(default)]
    touched: Option<u64>,
    /// The range that is encoded carefully, as its writer died in it.
    #[serde(default)]
    careful: Option<(LogId, u64, u64)>,
    /// Deaths by offset in the log of `careful`.
    #[serde(default)]
    deaths: BTreeMap<u64, u32>,
}

/// The count of one chain's crashes.
#[derive(Debug)]
pub struct Poison {
    path: PathBuf,
    /// What was left behind. Nothing is attempted in it.
    notes: Notes,
}

/// Leave to encode a range, record by record if need be.
pub struct Attempt {
    path: PathBuf,
    notes: Notes,
    is_careful: bool,
    poison: BTreeSet<u64>,
}

impl Poison {
    /// Reads what the writer before left behind. A file that cannot be read counts as none.
    pub fn load(path: PathBuf) -> Poison {
        let text = std::fs::read(&path).unwrap_or_default();
        let mut notes: Notes = serde_json::from_slice(&text).unwrap_or_default();
        if let Some((log, low, high)) = notes.attempt.take() {
            tracing::warn!(%log, low, high, touched = notes.touched, "the writer died while it encoded these records");
            match (notes.touched.take(), notes.careful) {
                // The range had killed once before.
                (Some(offset), _) => *notes.deaths.entry(offset).or_insert(1) += 1,
                (None, Some((of, first, last))) if of == log => notes.careful = Some((log, first.min(low), last.max(high))),
                (None, _) => notes = Notes { careful: Some((log, low, high)), ..Notes::default() },
            }
        }
        Poison { path, notes }
    }

    /// Where the count is kept.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Notes that the records from `low` to `high` will be encoded.
    pub fn attempt(&self, log: LogId, low: u64, high: u64) -> Attempt {
        let is_careful = self.notes.careful.is_some_and(|(of, first, last)| of == log && first <= high && low <= last);
        let deadly = self.notes.deaths.iter().filter(|(_, count)| is_careful && **count >= DEATHS);
        let poison = deadly.map(|(offset, _)| *offset).collect();
        let notes = Notes { attempt: Some((log, low, high)), ..self.notes.clone() };
        if !is_careful {
            write(&self.path, &notes);
        }
        Attempt { path: self.path.clone(), notes, is_careful, poison }
    }

    /// The records of `log` before `next` stand in slots: none of them kills.
    pub fn passed(&mut self, log: Option<LogId>, next: u64) {
        if self.notes.careful.is_some_and(|(of, _, last)| log != Some(of) || last < next) {
            self.notes = Notes::default();
            write(&self.path, &self.notes);
        }
    }
}

impl Attempt {
    /// Called before a record is touched: whether it is poison and must be left alone.
    pub fn is_poison(&self, offset: u64) -> bool {
        if self.poison.contains(&offset) {
            return true;
        }
        if self.is_careful {
            write(&self.path, &Notes { touched: Some(offset), ..self.notes.clone() });
        }
        false
    }

    /// Called when all is encoded: who dies while it waits for the store dies of no record.
    pub fn survived(&self) {
        write(&self.path, &Notes { attempt: None, ..self.notes.clone() });
    }
}

/// Writes over what is there, to its end, at once: were the file cut to nothing first, a file system would bring each note to
/// the disk (ext4's `auto_da_alloc`).
fn write(path: &PathBuf, notes: &Notes) {
    let mut text = serde_json::to_vec(notes).expect("the keys are numbers and names");
    let written = File::options().write(true).create(true).truncate(false).open(path).and_then(|mut file| {
        let before = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        text.resize(text.len().max(before), b' ');
        file.write_all(&text)
    });
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "crashes of the writer cannot be counted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that encodes these ranges, one a life and the last one as often as it takes, and dies at
    /// `deadly`; returns how often it died and what was left out at last.
    fn lives(path: PathBuf, log: LogId, ranges: &[(u64, u64)], deadly: u64) -> (u32, Vec<u64>) {
        for died in 0..10 {
            let (low, high) = ranges[(died as usize).min(ranges.len() - 1)];
            let mut poison = Poison::load(path.clone());
            let attempt = poison.attempt(log, low, high);
            let mut left_out = Vec::new();
            let survived = (low..=high).all(|offset| {
                if attempt.is_poison(offset) {
                    left_out.push(offset);
                    return true;
                }
                offset != deadly
            });
            if survived {
                attempt.survived();
                poison.passed(Some(log), u64::MAX);
                return (died, left_out);
            }
        }
        panic!("it never got past {deadly}");
    }

    #[test]
    fn a_record_that_kills_three_times_is_left_out_and_no_other() {
        let temp = tempfile::tempdir().unwrap();
        let (path, log, range) = (temp.path().join("notes.json"), LogId::generate(), &[(100, 199)]);
        assert_eq!(lives(path.clone(), log, range, 150), (3, vec![150]));
        assert_eq!(lives(path.clone(), log, range, 100), (3, vec![100]), "the count began anew");
        assert_eq!(lives(path, log, range, 0), (0, vec![]));
    }

    /// An object is encoded in pieces, and the deadly record is in the second of them: that the first is survived in each life
    /// does not make the count begin anew.
    #[test]
    fn a_record_in_a_later_piece_is_left_out_as_soon() {
        let temp = tempfile::tempdir().unwrap();
        let (path, log) = (temp.path().join("notes.json"), LogId::generate());
        for life in 0.. {
            let mut poison = Poison::load(path.clone());
            // Where pieces begin is another matter in each life.
            let bounds = [100, 140 + life, 180 - life, 200];
            let pieces = bounds.windows(2).map(|bounds| (bounds[0], bounds[1] - 1));
            let mut left_out = Vec::new();
            let survived = pieces.into_iter().all(|(low, high)| {
                let attempt = poison.attempt(log, low, high);
                let survived = (low..=high).all(|offset| {
                    if attempt.is_poison(offset) {
                        left_out.push(offset);
                        return true;
                    }
                    offset != 150
                });
                if survived {
                    attempt.survived();
                }
                survived
            });
            if survived {
                assert_eq!((life, left_out), (3, vec![150]));
                poison.passed(Some(log), 150);
                assert_ne!(poison.notes, Notes::default(), "what is not in a slot may be read again");
                poison.passed(Some(log), 200);
                assert_eq!(Poison::load(path).notes, Notes::default());
                return;
            }
        }
    }

    #[test]
    fn a_record_that_is_alone_in_its_range_is_left_out_as_soon() {
        let temp = tempfile::tempdir().unwrap();
        let (path, log) = (temp.path().join("notes.json"), LogId::generate());
        assert_eq!(lives(path.clone(), log, &[(150, 150)], 150), (3, vec![150]));
        assert_eq!(lives(path.clone(), log, &[(100, 199), (150, 150)], 150), (3, vec![150]), "it came to be alone");
        assert_eq!(lives(path.clone(), log, &[(150, 150), (150, 199)], 150), (3, vec![150]), "it was alone at first");
        assert_eq!(lives(path, log, &[(150, 150)], 0), (0, vec![]));
    }

    #[test]
    fn a_kill_from_outside_makes_no_record_poison() {
        let temp = tempfile::tempdir().unwrap();
        let (path, log) = (temp.path().join("notes.json"), LogId::generate());
        for _ in 0..5 {
            Poison::load(path.clone()).attempt(log, 0, 9);
        }
        assert_eq!(lives(path, log, &[(0, 9)], u64::MAX), (0, vec![]));
    }

    #[test]
    fn a_short_note_leaves_nothing_of_a_long_one_that_it_is_written_over() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notes.json");
        let deaths = BTreeMap::from([(150, 1), (1 << 40, 2)]);
        for notes in [Notes { deaths, careful: Some((LogId::generate(), 100, 199)), ..Notes::default() }, Notes::default()] {
            write(&path, &notes);
            assert_eq!(Poison::load(path.clone()).notes, notes);
        }
    }

    /// An outage of the store, in which the daemon is started again and again.
    #[test]
    fn a_kill_of_a_writer_that_waits_for_the_store_makes_no_record_poison() {
        let temp = tempfile::tempdir().unwrap();
        let (path, log) = (temp.path().join("notes.json"), LogId::generate());
        for (low, high) in [(7, 7), (0, 9)] {
            Poison::load(path.clone()).attempt(log, low, high); // killed in the midst, once
            for _ in 0..5 {
                let attempt = Poison::load(path.clone()).attempt(log, low, high);
                assert!((low..=high).all(|offset| !attempt.is_poison(offset)));
                attempt.survived();
            }
            assert_eq!(lives(path.clone(), log, &[(low, high)], u64::MAX), (0, vec![]));
        }
    }
}
