//! What the tests do to a running program: named points to die at, actors that misbehave, rules of
//! the protocol left out, a clock that hurries. Without the feature `faults` nothing of it is there,
//! and every question is answered with a constant "no".
//!
//! | variable | what it holds |
//! |---|---|
//! | `TICKMINT_FAULTS` | `point=action`, several with `;`. The actions of the crate `fail`, and `abort@n`: die at the n-th pass. `actor:PATH=return(panic)`, `(hang)`, `(5000)`: at each beat of that actor it panics, hangs, blocks its thread for so many milliseconds |
//! | `TICKMINT_FLAW` | one of [`Flaw`]: a rule that this process does without |
//! | `TICKMINT_POISON` | a text: whoever encodes a raw line with it dies |
//! | `TICKMINT_WITNESS` | a file that is told of each answer to the feed and of each fsync |
//! | `TICKMINT_HURRY` | `begin:factor`: from that microsecond on the time of day runs so much faster |

/// A rule of the protocol that can be left out, to see that its loss is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The spool answers before its fsync.
    AckBeforeFsync,
    /// A writer begins at the offset that it stored, and not at the tail of the chain.
    StoredOffset,
    /// The name of a slot holds the archive hour: two writers may decide one place twice.
    HourInName,
    /// The store looks whether a name is taken, then writes it: `MemoryStore::check_then_act`.
    CheckThenAct,
    /// A slot is sent before its objects are answered for.
    SlotBeforeObjects,
    /// Who loses a slot goes on with what it remembers, and not with what the winner's slot says.
    LoserKeepsState,
    /// The spool deletes what lies below the tail, whichever log the tail is of.
    DeleteByTail,
    /// The sweeper takes names and tail from two readings of the chain.
    SweepApart,
    /// The archive hour is not handed on from slot to slot.
    HourNotHandedOn,
    /// Trades of equal value are one trade.
    DedupByValue,
    /// What was read of a log is forgotten when its generation is closed, though a copy of it may come.
    ForgetEarly,
    /// What one copy of a log has lost counts as read for the other copies, too.
    LostIsRead,
    /// A log that is begun by a clock that was set back is named by the one before it, and by nothing else.
    SameLogName,
    /// What was acknowledged and then passed by the chain is not sent again: only what lies in another incarnation, or
    /// behind the end of the log.
    NoResend,
    /// The forwarder gives each record a new origin whenever it sends it.
    NoOrigin,
    /// A chain keeps the greatest place of each log that it has read, and not which ones.
    GreatestOnly,
    /// What was read and is not archived, repeats and marks, gets no slot of its own.
    NoEmptySlots,
    /// Who finds another log than that of the open generation begins the next generation without an end of this one.
    NoEndSlot,
    /// The sweeper deletes objects at and above the tail, too, as long as no slot names them.
    SweepAboveTail,
    /// The sweeper compares offsets, and not generations.
    SweepAcrossGenerations,
    /// For the hour seal, a generation that is closed has passed the hour.
    ClosedHasPassed,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Flaw; 21] = [
        Flaw::AckBeforeFsync,
        Flaw::StoredOffset,
        Flaw::HourInName,
        Flaw::CheckThenAct,
        Flaw::SlotBeforeObjects,
        Flaw::LoserKeepsState,
        Flaw::DeleteByTail,
        Flaw::SweepApart,
        Flaw::HourNotHandedOn,
        Flaw::DedupByValue,
        Flaw::ForgetEarly,
        Flaw::LostIsRead,
        Flaw::SameLogName,
        Flaw::NoResend,
        Flaw::NoOrigin,
        Flaw::GreatestOnly,
        Flaw::NoEmptySlots,
        Flaw::NoEndSlot,
        Flaw::SweepAboveTail,
        Flaw::SweepAcrossGenerations,
        Flaw::ClosedHasPassed,
    ];
}

/// Whether this process, or this thread of a test, does without that rule.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn flawed(_: Flaw) -> bool {
    false
}

/// Whether the disk takes what the spool is about to do to it, on this thread of a test.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn may_write(_: &'static str) -> std::io::Result<()> {
    Ok(())
}

#[cfg(feature = "faults")]
pub use injected::{flawed, hurried, hurry, may_write, poison, start, with_disk, with_flaw, witness};

/// Every point at which the fault campaign kills the daemon, in the order of the pipeline.
pub const POINTS: [&str; 30] = [
    "start.log-created",
    "start.ends-staged",
    "session.connected",
    "session.opened",
    "session.batch",
    "session.acknowledged",
    "session.ending",
    "validator.judged",
    "spool.staged",
    "spool.before-write",
    "spool.before-fsync",
    "spool.after-fsync",
    "spool.answered",
    "spool.new-segment",
    "spool.rotated",
    "spool.log-deleted",
    "spool.segment-deleted",
    "archive.began",
    "archive.noted",
    "archive.encoded",
    "archive.before-objects",
    "archive.after-objects",
    "archive.decided",
    "slot.before-create",
    "slot.after-create",
    "folder.before-link",
    "folder.after-link",
    "seal.before-marker",
    "seal.after-marker",
    "sweep.orphan",
];

#[cfg(feature = "faults")]
mod injected {
    use std::cell::{Cell, RefCell};
    use std::io::Write;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::Flaw;
    use crate::domain::identity::Micros;

    /// Is asked before each thing that is done to a disk whether that is refused.
    type Disk = Box<dyn FnMut(&'static str) -> bool>;

    thread_local! {
        static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
        static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
    }

    /// Reads the variables. Call it once, before any actor runs.
    ///
    /// # Panics
    /// If a variable cannot be read: a test that does nothing would pass.
    pub fn start() {
        for fault in variable("TICKMINT_FAULTS").iter().flat_map(|all| all.split(';')) {
            let (point, action) = fault.split_once('=').unwrap_or_else(|| panic!("TICKMINT_FAULTS: `{fault}` has no `=`"));
            let set = match action.strip_prefix("abort@") {
                Some(pass) => die_at(point, pass.parse().expect("TICKMINT_FAULTS: abort@ takes a number")),
                None => fail::cfg(point, action),
            };
            set.unwrap_or_else(|error| panic!("TICKMINT_FAULTS: `{fault}`: {error}"));
        }
    }

    fn die_at(point: &str, pass: u64) -> Result<(), String> {
        let (passes, name) = (AtomicU64::new(0), point.to_string());
        fail::cfg_callback(point, move || {
            if passes.fetch_add(1, Relaxed) + 1 == pass {
                // Whoever waits for this death must not take another one for it.
                drop(std::io::stderr().write_all(format!("died at {name}, pass {pass}, as a test asked\n").as_bytes()));
                std::process::abort();
            }
        })
    }

    /// See [`super::Flaw`].
    pub fn flawed(flaw: Flaw) -> bool {
        static PROCESS: OnceLock<Option<Flaw>> = OnceLock::new();
        let of_process = PROCESS.get_or_init(|| {
            let name = variable("TICKMINT_FLAW")?;
            let known = Flaw::ALL.into_iter().find(|flaw| format!("{flaw:?}") == name);
            Some(known.unwrap_or_else(|| panic!("TICKMINT_FLAW: `{name}` is none of {:?}", Flaw::ALL)))
        });
        FLAW.get() == Some(flaw) || *of_process == Some(flaw)
    }

    /// Does without a rule on this thread, while `work` runs.
    pub fn with_flaw<T>(flaw: Option<Flaw>, work: impl FnOnce() -> T) -> T {
        FLAW.set(flaw);
        let done = work();
        FLAW.set(None);
        done
    }

    /// See [`super::may_write`].
    pub fn may_write(what: &'static str) -> std::io::Result<()> {
        let is_refused = DISK.with_borrow_mut(|disk| disk.as_mut().is_some_and(|is_refused| is_refused(what)));
        if is_refused { Err(std::io::Error::other(format!("{what}: refused, as a test asked"))) } else { Ok(()) }
    }

    /// Gives this thread a disk that refuses what `is_refused` says, while `work` runs.
    pub fn with_disk<T>(is_refused: impl FnMut(&'static str) -> bool + 'static, work: impl FnOnce() -> T) -> T {
        DISK.set(Some(Box::new(is_refused)));
        let done = work();
        DISK.set(None);
        done
    }

    /// Dies of a raw line that is poison.
    pub fn poison(line: &[u8]) {
        static POISON: OnceLock<Option<String>> = OnceLock::new();
        if let Some(poison) = POISON.get_or_init(|| variable("TICKMINT_POISON")) {
            assert!(!String::from_utf8_lossy(line).contains(poison), "as a test asked");
        }
    }

    /// Tells the witness. What it was told before a kill -9 is in its file.
    pub fn witness(line: std::fmt::Arguments<'_>) {
        static FILE: OnceLock<Option<std::fs::File>> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let path = variable("TICKMINT_WITNESS")?;
            Some(std::fs::File::options().create(true).append(true).open(path).expect("the witness' file can be written"))
        });
        if let Some(mut file) = file.as_ref() {
            file.write_all(format!("{line}\n").as_bytes()).expect("the witness' file can be written");
        }
    }

    /// How much faster the time of day runs.
    pub fn hurry() -> u32 {
        clock().1
    }

    /// The time of day that the hurried clock shows at `now`.
    pub fn hurried(now: Micros) -> Micros {
        let (begin, factor) = clock();
        begin + (now - begin) * Micros::from(factor)
    }

    fn clock() -> (Micros, u32) {
        static CLOCK: OnceLock<(Micros, u32)> = OnceLock::new();
        *CLOCK.get_or_init(|| match variable("TICKMINT_HURRY") {
            None => (0, 1),
            Some(text) => {
                let (begin, factor) = text.split_once(':').expect("TICKMINT_HURRY: begin:factor");
                (begin.parse().expect("TICKMINT_HURRY: begin"), factor.parse().expect("TICKMINT_HURRY: factor"))
            }
        })
    }

    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}
