//! The ledger of an exchange: JSON lines of all that it sent, written before it was sent.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;

use crate::domain::identity::SessionId;

/// What one connection was sent.
#[derive(Debug, Default)]
pub struct Connection {
    /// The session that the client named; none if it was no daemon of ours.
    pub session: Option<SessionId>,
    /// All frames but pings, in the order of their numbers.
    pub frames: Vec<Sent>,
}

/// A frame as the exchange means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its number in the session.
    pub number: u32,
    /// The trades in it.
    pub trades: u32,
    /// Records that it makes and that are no trades: a frame that is rubbish as a whole is one.
    pub bad: u32,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Open {
        conn: u64,
        request_id: Option<String>,
    },
    Frame {
        conn: u64,
        n: u32,
        what: String,
        #[serde(default)]
        trades: u32,
        /// None in a frame of trades, and in one of a ledger of before there were mutated frames.
        bad: Option<u32>,
    },
    #[serde(other)]
    Other,
}

/// The ledger cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file.
    #[error("the ledger {path} cannot be read: {error}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line that is not the last one, which may be torn.
    #[error("line {line} of the ledger {path} cannot be read: {error}")]
    Line {
        /// Its path.
        path: String,
        /// Its number, from 1.
        line: usize,
        /// Why.
        error: serde_json::Error,
    },
}

/// Reads a ledger, by connection.
pub fn read(path: &Path) -> Result<BTreeMap<u64, Connection>, LedgerError> {
    let name = path.display().to_string();
    let file = |error| LedgerError::File { path: name.clone(), error };
    let mut reader = std::io::BufReader::new(std::fs::File::open(path).map_err(file)?);
    let mut connections: BTreeMap<u64, Connection> = BTreeMap::new();
    let (mut text, mut number) = (Vec::new(), 0);
    loop {
        text.clear();
        number += 1;
        if reader.read_until(b'\n', &mut text).map_err(file)? == 0 {
            return Ok(connections);
        }
        match serde_json::from_slice(&text) {
            Ok(Line::Open { conn, request_id }) => {
                let session = request_id.and_then(|id| id.parse().ok());
                connections.entry(conn).or_default().session = session;
            }
            Ok(Line::Frame { conn, n, what, trades, bad }) => {
                let bad = match what.as_str() {
                    "ping" => continue,
                    "trade" => 0,
                    _ => bad.unwrap_or(1),
                };
                connections.entry(conn).or_default().frames.push(Sent { number: n, trades, bad });
            }
            Ok(Line::Other) => {}
            // Killed while it wrote: what stands there was not sent.
            Err(_) if text.last() != Some(&b'\n') => return Ok(connections),
            Err(error) => return Err(LedgerError::Line { path: name, line: number, error }),
        }
    }
}
