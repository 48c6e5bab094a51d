//! What is archived, by the chains and the objects they name, and what waits in the spool.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::bronze::chain::{Chain, ChainError, Follower};
use crate::bronze::sealer::{COMPLETE, Complete, HourCount};
use crate::domain::chain::{Body, ChainId, DataRange, ObjectRef, Position, Slot};
use crate::domain::entry::{Content, Control, Payload, Record};
use crate::domain::hour::Hour;
use crate::domain::identity::SessionId;
use crate::domain::intervals::Intervals;
use crate::domain::object::hex;
use crate::domain::stream::{PerStream, Stream};
use crate::io::store::{Store, StoreError};
use crate::spool::logs;
use crate::spool::reader::{Chunk, LogReader};

/// The audit cannot be made: not a finding, but a store or a disk that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A marker of a complete hour.
    #[error("the marker {key} cannot be read: {error}")]
    Marker {
        /// Its key.
        key: String,
        /// Why.
        error: serde_json::Error,
    },
    /// The spool.
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] std::io::Error),
}

/// A line of a raw object.
#[derive(Deserialize)]
struct Line {
    session: SessionId,
    frame: u32,
    index: u16,
    seq: u64,
    #[serde(default)]
    raw: String,
}

/// What is known of one session.
#[derive(Debug, Default)]
pub struct SessionCount {
    /// Sequence numbers, by stream.
    pub seqs: PerStream<Intervals>,
    /// Records of trades and quarantine, by frame.
    pub frames: BTreeMap<u32, u32>,
    /// Its end, if that is known.
    pub end: Option<crate::domain::entry::SessionEnd>,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Found {
    /// By session: archived or waiting in the spool.
    pub sessions: BTreeMap<SessionId, SessionCount>,
    /// Records in Bronze, by stream.
    pub archived: PerStream<u64>,
    /// Records that only the spool has, by stream.
    pub waiting: PerStream<u64>,
    /// Identities that stand in Bronze more than once.
    pub duplicated: u64,
    /// Gaps of the feed.
    pub gaps: Vec<crate::domain::entry::Gap>,
    /// Slots by kind: data, gap, end.
    pub slots: [u64; 3],
    /// What the slots name, by archive hour and `stream/partition`.
    pub hours: BTreeMap<Hour, BTreeMap<String, HourCount>>,
    /// What must not be: a missing object, a hash that differs, a slot that does not abut.
    pub faults: Vec<String>,
}

/// Reads all chains of the store, and if it is given, the spool.
pub async fn read(store: &Arc<dyn Store>, spool: Option<&Path>) -> Result<Found, AuditError> {
    let mut found = Found::default();
    let markers = markers(store).await?;
    for stream in Stream::ALL {
        let id = ChainId { stream, partition: 0 };
        // Listed before it is followed: a daemon may be running and add to it.
        let mut slots: BTreeSet<String> = store.list(&id.prefix()).await?.into_iter().collect();
        let mut follower = Follower::new(Chain::new(id, store.clone()), Position::default());
        while let Some(slot) = follower.next().await? {
            slots.remove(&slot.position.key(id));
            found.slot(&slot, store).await?;
        }
        found.faults.extend(slots.iter().map(|key| format!("slot {key} cannot be reached: the slots before it do not abut")));
    }
    found.hold_against(&markers);
    if let Some(dir) = spool.filter(|dir| dir.exists()) {
        found.spool(dir)?;
    }
    Ok(found)
}

/// What the sealer has declared complete, and that nothing may be added to.
async fn markers(store: &Arc<dyn Store>) -> Result<Vec<Complete>, AuditError> {
    let mut markers = Vec::new();
    for key in store.list(COMPLETE).await? {
        let Some(bytes) = store.get(&key).await? else { continue };
        markers.push(serde_json::from_slice(&bytes).map_err(|error| AuditError::Marker { key, error })?);
    }
    Ok(markers)
}

impl Found {
    /// An hour that was declared complete must hold what it held then.
    fn hold_against(&mut self, markers: &[Complete]) {
        for marker in markers {
            let now = self.hours.get(&marker.hour).cloned().unwrap_or_default();
            for (chain, then) in &marker.chains {
                let now = now.get(chain).copied().unwrap_or_default();
                if now != *then {
                    self.faults
                        .push(format!("hour {} of {chain} was declared complete with {then:?} and has {now:?}", marker.hour));
                }
            }
            for (chain, now) in now.iter().filter(|(chain, _)| !marker.chains.contains_key(*chain)) {
                self.faults.push(format!("hour {} was declared complete without {chain}, which has {now:?}", marker.hour));
            }
        }
    }

    async fn slot(&mut self, slot: &Slot, store: &Arc<dyn Store>) -> Result<(), AuditError> {
        match &slot.body {
            Body::Data { end, data } => {
                self.slots[0] += 1;
                if *end < slot.position.start {
                    self.faults.push(format!("slot {} {:?} ends before it begins", slot.stream, slot.position));
                }
                if let Some(data) = data {
                    let chain = ChainId { stream: slot.stream, partition: slot.partition }.to_string();
                    self.hours.entry(data.hour).or_default().entry(chain).or_default().add(data);
                    self.objects(slot, data, store).await?;
                }
            }
            Body::Gap { end, reason } => {
                self.slots[1] += 1;
                let start = slot.position.start;
                self.faults.push(format!("{}: offsets {start} to {end} were never archived: {reason}", slot.stream));
            }
            Body::End { .. } => self.slots[2] += 1,
        }
        Ok(())
    }

    async fn objects(&mut self, slot: &Slot, data: &DataRange, store: &Arc<dyn Store>) -> Result<(), AuditError> {
        let raw = self.object(&data.raw, store).await?;
        self.object(&data.typed, store).await?;
        let Some(raw) = raw else { return Ok(()) };
        let lines = match zstd::Decoder::new(&raw[..]) {
            Ok(decoder) => BufReader::new(decoder).lines(),
            Err(error) => {
                self.faults.push(format!("{}: {error}", data.raw.key));
                return Ok(());
            }
        };
        let mut rows = 0;
        for line in lines {
            let line = line.ok().and_then(|line| serde_json::from_str::<Line>(&line).ok());
            let Some(line) = line else {
                self.faults.push(format!("{}: line {} cannot be read", data.raw.key, rows + 1));
                break;
            };
            rows += 1;
            self.archived[slot.stream.index()] += 1;
            if !self.record(slot.stream, line.session, line.frame, line.seq) {
                self.duplicated += 1;
                self.faults.push(format!("{} frame {} index {} is archived twice", line.session, line.frame, line.index));
            }
            if slot.stream == Stream::Gaps {
                self.control(line.session, serde_json::from_str(&line.raw).ok());
            }
        }
        if rows != data.rows {
            self.faults.push(format!("{} has {rows} rows, its slot says {}", data.raw.key, data.rows));
        }
        Ok(())
    }

    async fn object(&mut self, object: &ObjectRef, store: &Arc<dyn Store>) -> Result<Option<bytes::Bytes>, AuditError> {
        let Some(bytes) = store.get(&object.key).await? else {
            self.faults.push(format!("{} is named by a slot and is not there", object.key));
            return Ok(None);
        };
        if hex(&Sha256::digest(&bytes)) != object.sha256 {
            self.faults.push(format!("{} does not have the content that its slot names", object.key));
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// Counts a record; `false` when it was counted before.
    fn record(&mut self, stream: Stream, session: SessionId, frame: u32, seq: u64) -> bool {
        let count = self.sessions.entry(session).or_default();
        let new = count.seqs[stream.index()].insert(seq);
        if new && stream != Stream::Gaps {
            *count.frames.entry(frame).or_default() += 1;
        }
        new
    }

    fn control(&mut self, session: SessionId, control: Option<Control>) {
        match control {
            Some(Control::Gap(gap)) => self.gaps.push(gap),
            Some(Control::SessionEnd(end)) => self.sessions.entry(session).or_default().end = Some(end),
            None => self.faults.push(format!("a control record of session {session} cannot be read")),
        }
    }

    fn spool(&mut self, dir: &Path) -> std::io::Result<()> {
        for (id, view) in logs::find(dir)?.dead {
            for stream in Stream::ALL {
                let (mut reader, mut from) = (LogReader::new(&dir.join(id.to_string()), stream), view.start(stream));
                loop {
                    match reader.read(&view, from)? {
                        Chunk::End => break,
                        Chunk::Lost { to } => {
                            self.faults.push(format!("spool log {id}: {stream} {from} to {} cannot be read", to - 1));
                            from = to;
                        }
                        Chunk::Records { records, next } => {
                            records.into_iter().for_each(|record| self.spooled(stream, record));
                            from = next;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn spooled(&mut self, stream: Stream, record: Record) {
        let Content::Data { delivery, seq, payload } = record.content else { return };
        if !self.record(stream, delivery.session, delivery.frame, seq) {
            return; // archived already
        }
        self.waiting[stream.index()] += 1;
        if let Payload::Control(control) = payload {
            self.control(delivery.session, Some(control));
        }
    }
}
