//! What was sent, on disk before it is sent: JSON lines, so that others can count what arrived.
//!
//! One thread writes for all connections. What waits while it syncs goes into the next write, so
//! that at full speed one fsync answers for hundreds of frames and at market speed for few.
//!
//! A line of a frame means that the frame was *about* to be sent. The `close` line says in `flushed`
//! how far the frames of its connection were handed to the network; without a `close` line (the
//! exchange was killed) this is unknown. A torn last line is cut off at the next start: what it
//! speaks of was not sent.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::ExchangeError;

/// What is written at once, at most: more waits for the next fsync.
const GROUP_BYTES: usize = 4 << 20;

/// Jobs that may wait. A connection has one at a time, so this is a bound on notes.
const QUEUE: usize = 256;

/// One line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// A handshake was accepted.
    Open { conn: u64, at_us: i64, key_hash: &'a str, request_id: Option<&'a str> },
    /// From here on the connection is sent trades of the symbol.
    Sub { conn: u64, symbol: &'a str, at_us: i64 },
    /// From here on it is not, but for frames that were queued before.
    Unsub { conn: u64, symbol: &'a str, at_us: i64 },
    /// A text or binary message.
    Frame {
        conn: u64,
        n: u64,
        at_us: i64,
        what: &'static str,
        trades: usize,
        /// Records that are to be refused; none in a frame of trades and in a ping.
        #[serde(skip_serializing_if = "Option::is_none")]
        bad: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        repeat_of: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    /// The connection is over; `n` is its last frame, `flushed` the last one that the network took.
    Close { conn: u64, n: u64, flushed: u64, at_us: i64, why: &'a str },
    /// The tape, or the simulation's `--trades`, is played out: so much was on it.
    End { frames: u64, trades: u64, at_us: i64 },
}

impl Line<'_> {
    /// Appends the line to `lines`.
    pub(super) fn write(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("numbers and strings always make JSON");
        lines.push(b'\n');
    }
}

/// The ledger's file could not be written; nothing may be sent any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the ledger {} cannot be written: {error}", path.display())]
pub(super) struct LedgerFailed {
    path: PathBuf,
    error: Arc<io::Error>,
}

type Done = oneshot::Sender<Result<(), LedgerFailed>>;

#[derive(Debug)]
struct Job {
    lines: Vec<u8>,
    done: Option<Done>,
}

/// The way to the ledger's thread; without a file, everything is durable at once.
#[derive(Clone)]
pub(super) struct Ledger(Option<mpsc::Sender<Job>>);

impl Ledger {
    /// Opens or creates the file. Also says how many connections it knows of already.
    pub(super) fn open(path: Option<&Path>) -> Result<(Ledger, u64), ExchangeError> {
        let Some(path) = path else { return Ok((Ledger(None), 0)) };
        let failed = |error| ExchangeError::Ledger(LedgerFailed { path: path.to_owned(), error: Arc::new(error) }.to_string());
        let (file, connections) = open(path).map_err(failed)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let path = path.to_owned();
        let thread = thread::Builder::new().name("ledger".into());
        thread
            .spawn({
                let path = path.clone();
                move || write_all(&path, file, queue)
            })
            .map_err(failed)?;
        Ok((Ledger(Some(jobs)), connections))
    }

    /// Whether there is a file at all.
    pub(super) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when the lines, and all given before, are on disk.
    pub(super) async fn commit(&self, lines: Vec<u8>) -> Result<(), LedgerFailed> {
        let Some(jobs) = &self.0 else { return Ok(()) };
        let (done, answer) = oneshot::channel();
        // The thread lives as long as there are senders, and answers every job.
        jobs.send(Job { lines, done: Some(done) }).await.expect("the ledger's thread outlives its senders");
        answer.await.expect("the ledger's thread answers every job")
    }

    /// Takes a line that nothing waits for: on disk with the next commit.
    pub(super) async fn note(&self, line: Line<'_>) {
        let Some(jobs) = &self.0 else { return };
        let mut lines = Vec::new();
        line.write(&mut lines);
        jobs.send(Job { lines, done: None }).await.expect("the ledger's thread outlives its senders");
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let (connections, whole) = read(&file)?;
    file.set_len(whole)?;
    file.sync_all()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok((file, connections))
}

/// The highest connection in the file, and where its last whole line ends.
fn read(file: &File) -> io::Result<(u64, u64)> {
    #[derive(Deserialize)]
    struct Opened {
        conn: u64,
    }
    let (mut connections, mut whole) = (0, 0);
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        whole += line.len() as u64;
        if line.starts_with(br#"{"kind":"open""#) {
            let opened: Opened = serde_json::from_slice(&line)?;
            connections = connections.max(opened.conn);
        }
        line.clear();
    }
    Ok((connections, whole))
}

fn write_all(path: &Path, mut file: File, mut queue: mpsc::Receiver<Job>) {
    let mut failed: Option<LedgerFailed> = None;
    let mut waiting: Vec<Done> = Vec::new();
    while let Some(Job { mut lines, done }) = queue.blocking_recv() {
        waiting.extend(done);
        while lines.len() < GROUP_BYTES
            && let Ok(job) = queue.try_recv()
        {
            lines.extend_from_slice(&job.lines);
            waiting.extend(job.done);
        }
        if failed.is_none() {
            let wanted = !waiting.is_empty();
            let written = file.write_all(&lines).and_then(|()| if wanted { file.sync_data() } else { Ok(()) });
            failed = written.err().map(|error| LedgerFailed { path: path.to_owned(), error: Arc::new(error) });
        }
        let answer = failed.clone().map_or(Ok(()), Err);
        for done in waiting.drain(..) {
            // A connection that is gone does not mind.
            done.send(answer.clone()).ok();
        }
    }
}

/// Standard base64, for messages that are no text.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, index| bits << 8 | u32::from(chunk.get(index).copied().unwrap_or(0)));
        for digit in 0..4 {
            let known = digit <= chunk.len();
            text.push(if known { DIGITS[(bits >> (18 - 6 * digit) & 63) as usize] as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        let known = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in known {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    fn open_line(conn: u64) -> Line<'static> {
        Line::Open { conn, at_us: 1, key_hash: "abc", request_id: None }
    }

    #[tokio::test]
    async fn a_committed_line_is_in_the_file_and_a_restart_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let (ledger, known) = Ledger::open(Some(&path)).unwrap();
        assert_eq!(known, 0);
        ledger.note(open_line(1)).await;
        ledger.note(open_line(2)).await;
        ledger.commit(b"{\"kind\":\"end\"}\n".to_vec()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(r#"{"kind":"open","conn":1,"at_us":1,"key_hash":"abc","request_id":null}"#));
        assert_eq!(text.lines().count(), 3);

        std::fs::write(&path, format!("{text}{{\"kind\":\"open\",\"conn\":9")).unwrap();
        let (ledger, known) = Ledger::open(Some(&path)).unwrap();
        assert_eq!(known, 2, "a torn line was never sent");
        ledger.commit(vec![]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "and is cut off");
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_an_answer() {
        let file = File::open("/dev/null").unwrap(); // not open for writing
        let (jobs, queue) = mpsc::channel(1);
        thread::spawn(move || write_all(Path::new("x.ledger"), file, queue));
        let ledger = Ledger(Some(jobs));
        for _ in 0..2 {
            let fault = ledger.commit(b"x\n".to_vec()).await.unwrap_err().to_string();
            assert!(fault.contains("x.ledger"), "{fault}");
        }
    }

    #[tokio::test]
    async fn without_a_file_everything_is_durable_at_once() {
        let (ledger, known) = Ledger::open(None).unwrap();
        assert_eq!((known, ledger.is_kept()), (0, false));
        ledger.note(open_line(1)).await;
        ledger.commit(b"x".to_vec()).await.unwrap();
    }
}
