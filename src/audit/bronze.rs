//! What is archived, by the chains and the objects they name.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::found::{Covering, Found};
use crate::bronze::chain::{self, Chain, ChainError, Follower};
use crate::bronze::sealer::{COMPLETE, Complete};
use crate::domain::chain::{Body, Carry, ChainId, DataRange, ObjectRef, Position, Slot, Tail};
use crate::domain::identity::{Delivery, Micros, SessionId};
use crate::domain::object::hex;
use crate::domain::stream::Stream;
use crate::io::s3::retention::Retention;
use crate::io::store::{Store, StoreError};

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
    received_at: Micros,
    #[serde(default)]
    raw: String,
    /// In quarantine only, and there always.
    #[serde(default)]
    reason: String,
    /// Something else than Tickmint wrote it.
    #[serde(default)]
    foreign: Option<String>,
}

/// What an object that a slot names is found to be.
enum Object {
    Whole(bytes::Bytes),
    Expired,
    /// Missing or damaged, which is told.
    Bad,
}

/// Reads all chains of the store, and if it is given, the spool. Nothing in it expires.
pub async fn read(store: &Arc<dyn Store>, spool: Option<&Path>) -> Result<Found, AuditError> {
    read_all(store, spool.as_slice(), 1, Retention::default()).await
}

/// Reads all chains of the store, of which each stream has at least so many, and the spools of several daemons.
pub async fn read_all(
    store: &Arc<dyn Store>,
    spools: &[&Path],
    partitions: u32,
    retention: Retention,
) -> Result<Found, AuditError> {
    let mut found = Found { retention, ..Found::default() };
    let markers = markers(store).await?;
    for id in chain::all(store, ChainId::all(partitions)).await? {
        let stream = id.stream;
        // Listed before it is followed: a daemon may be running and add to it.
        let mut slots: BTreeSet<String> = store.list(&id.prefix()).await?.into_iter().collect();
        let mut follower = Follower::new(Chain::new(id, store.clone()), Position::default());
        let (mut tail, mut gaps) = (None, Vec::new());
        while let Some(slot) = follower.next().await? {
            slots.remove(&slot.position.key(id));
            found.slot(&slot, store).await?;
            tail = Some(slot.tail());
            gaps.extend(matches!(slot.body, Body::Gap { .. }).then_some(slot));
        }
        if let Some(Tail { carry, .. }) = &tail {
            gaps.iter().for_each(|gap| found.gap(gap, carry));
        }
        if let Some(Tail { carry, .. }) = tail.as_ref().filter(|_| stream == Stream::Gaps) {
            // Its end is still to come. Perhaps nothing else of it was ever archived.
            for session in carry.seen.0.keys() {
                found.sessions.entry(*session).or_default().is_open = !carry.ended.contains_key(session);
            }
        }
        found.tails.extend(tail.map(|tail| (id, tail)));
        let missing = follower.position().key(id);
        found.faults.extend(slots.iter().map(|key| {
            format!(
                "slot {key} cannot be reached: the slots before it do not abut, {missing} is not there; if it was deleted, put a \
                 copy of it back (an older version of the bucket's object, a backup)"
            )
        }));
    }
    found.hold_against(&markers);
    if let Some(reason) = found.retention.unknown().filter(|_| found.missing > 0) {
        let objects = found.missing;
        found.notes.push(format!(
            "{objects} objects are missing, and whether they have expired is not known, for the bucket's lifecycle rules cannot be \
             read: {reason}"
        ));
    }
    for dir in spools.iter().filter(|dir| dir.exists()) {
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
        if let Some(end) = slot.end() {
            let chain = ChainId { stream: slot.stream, partition: slot.partition }.to_string();
            let rows = slot.data().map_or(0, |data| data.rows);
            self.chains.entry(chain).or_default().push(Covering { generation: slot.position.generation, end, rows });
        }
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
            Body::Gap { .. } => self.slots[1] += 1,
            Body::End { .. } => self.slots[2] += 1,
        }
        Ok(())
    }

    /// A hole in the log, of a chain that now hands on this.
    fn gap(&mut self, slot: &Slot, carry: &Carry) {
        let Body::Gap { end, reason } = &slot.body else { return };
        let (start, chain) = (slot.position.start, ChainId { stream: slot.stream, partition: slot.partition });
        // What Kafka has lost the spool sends again; what is not there in the end is missed by its number.
        let is_lost = slot.incarnation.is_some_and(|log| slot.carry.lost.covers(log, start, *end));
        let is_filled = slot.incarnation.is_some_and(|log| carry.read.covers(log, start, *end));
        match is_filled {
            true => {
                self.notes.push(format!("{chain}: offsets {start} to {end} were archived later than their turn was: {reason}"))
            }
            false => {
                let tell = if is_lost { &mut self.faults } else { &mut self.notes };
                tell.push(format!("{chain}: offsets {start} to {end} were never archived: {reason}"));
            }
        }
    }

    async fn objects(&mut self, slot: &Slot, data: &DataRange, store: &Arc<dyn Store>) -> Result<(), AuditError> {
        let raw = self.object(&data.raw, slot.written_at, store).await?;
        let typed = self.object(&data.typed, slot.written_at, store).await?;
        let id = ChainId { stream: slot.stream, partition: slot.partition };
        let expired = [&raw, &typed].map(|object| matches!(object, Object::Expired));
        if expired.contains(&true) {
            self.expired.entry(id).or_default().add(data, expired);
        }
        let Object::Whole(raw) = raw else { return Ok(()) };
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
            if line.foreign.is_some() {
                self.foreign += 1;
                continue;
            }
            self.archived[slot.stream.index()] += 1;
            if slot.stream == Stream::Quarantine && line.reason.is_empty() {
                self.faults.push(format!("{} frame {} is in quarantine without a reason", line.session, line.frame));
            }
            let Line { session, frame, index, seq, received_at, .. } = line;
            if !self.record(id, Delivery { session, frame, index }, seq, received_at) {
                self.duplicated += 1;
                self.faults.push(format!("{session} frame {frame} index {index} is archived twice"));
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

    async fn object(&mut self, object: &ObjectRef, written_at: Micros, store: &Arc<dyn Store>) -> Result<Object, AuditError> {
        let Some(bytes) = store.get(&object.key).await? else {
            if self.retention.may_have_deleted(object, written_at) {
                return Ok(Object::Expired);
            }
            self.missing += 1;
            self.faults.push(format!("{} is named by a slot and is not there", object.key));
            return Ok(Object::Bad);
        };
        if hex(&Sha256::digest(&bytes)) != object.sha256 {
            self.faults.push(format!("{} does not have the content that its slot names", object.key));
            return Ok(Object::Bad);
        }
        Ok(Object::Whole(bytes))
    }
}
