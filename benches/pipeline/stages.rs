//! Each stage alone, on one thread.

use std::time::Duration;

use tickmint::bronze::encode::Encoder;
use tickmint::bronze::poison::Poison;
use tickmint::domain::entry::Record;
use tickmint::domain::frame::{Rules, Watchlist, judge};
use tickmint::domain::identity::{LogId, SessionId};
use tickmint::domain::shard::Shard;
use tickmint::domain::stream::Stream;
use tickmint::domain::verdict::{JudgedFrame, RawFrame};
use tickmint::messages::feed::{Append, OpenSession};
use tickmint::spool::commit::{Request, Room, commit};
use tickmint::spool::reader::{Chunk, LogReader};
use tickmint::spool::state::LogState;
use tickmint::spool::writer::LogWriter;

use super::tape::Tape;
use super::{cpu_of, row, wire};

/// As the feed session hands frames over.
const BATCH: usize = 2048;

/// As the archiver closes objects at top speed.
const OBJECT: usize = 100_000;
/// As it encodes them.
const PIECE: usize = 4096;

fn cpu<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || {
        // SAFETY: getrusage fills the struct that it is given.
        let mut usage = unsafe { std::mem::zeroed::<libc::rusage>() };
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
        cpu_of(&usage)
    };
    let before = now();
    let done = work();
    (done, now() - before)
}

pub(crate) fn measure(tape: &Tape) {
    println!("each stage alone, on one thread:");
    let (frames, parse) = cpu(|| judged(tape));
    row("parse and validate", tape.trades, parse);

    let dir = tempfile::tempdir().unwrap();
    let (log, spool) = cpu(|| spooled(dir.path(), frames));
    row("spool: stage, write, fsync", tape.trades, spool);

    let (records, read) = cpu(|| records(dir.path(), &log));
    assert_eq!(records.len() as u64, tape.trades);
    row("spool: read back", tape.trades, read);

    let (bytes, encoded) = cpu(|| {
        let poison = Poison::load(dir.path().join("notes.json"));
        let objects = records.chunks(OBJECT).map(|records| {
            let mut encoder = Encoder::new(Stream::Trades, 1);
            let attempt = poison.attempt(log.id(), 0, 1);
            records.chunks(PIECE).for_each(|piece| encoder.add(piece, &attempt));
            let encoded = encoder.finish();
            (encoded.raw.len(), encoded.typed.len())
        });
        objects.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    });
    row("encode: raw and typed", tape.trades, encoded);
    let each = |bytes: usize| bytes as f64 / tape.trades as f64;
    println!("  bytes a trade: raw {:.1}, typed {:.1}", each(bytes.0), each(bytes.1));
    let total = parse + spool + read + encoded;
    row("all of these", tape.trades, total);
    wire::measure(&records);
}

fn judged(tape: &Tape) -> Vec<JudgedFrame> {
    let watch = Watchlist::new(&tape.symbols, 0).into();
    let rules = Rules { watch, max_age: None, max_ahead: None, max_frame_bytes: 1 << 20 };
    let mut previous = None;
    let frames = tape.frames.iter().zip(1..).map(|(payload, number)| {
        let frame = RawFrame { number, received_at: i64::from(number), payload: payload.clone(), binary: false };
        let judgement = judge(&frame, previous.as_ref(), &rules);
        previous = Some(payload.clone());
        JudgedFrame { frame, elements: judgement.elements, traceparent: None }
    });
    frames.collect()
}

fn spooled(dir: &std::path::Path, mut frames: Vec<JudgedFrame>) -> LogWriter {
    let mut log = LogWriter::create(dir, LogId::generate(), LogState::default(), 64 << 20).unwrap();
    let (session, room) = (SessionId::generate(), Room { used: 0, max: u64::MAX, reserve: 0 });
    let shard = Shard { name: "shard-1".into(), symbols: Default::default() };
    let mut requests = vec![Request::Open(OpenSession { session, shard })];
    while !frames.is_empty() {
        let frames = frames.drain(..BATCH.min(frames.len())).collect();
        requests.push(Request::Append(Append { session, frames }));
        assert!(commit(&mut log, &requests, room, 0).iter().all(Result::is_ok));
        requests.clear();
    }
    log
}

fn records(dir: &std::path::Path, log: &LogWriter) -> Vec<Record> {
    let mut reader = LogReader::new(&dir.join(log.id().to_string()), Stream::Trades);
    let (mut from, mut all) = (0, Vec::new());
    loop {
        match reader.read(&log.view(), from).unwrap() {
            Chunk::End => return all,
            Chunk::Lost { to } => panic!("{from}..{to} is lost"),
            Chunk::Records { records, next } => {
                all.extend(records);
                from = next;
            }
        }
    }
}
