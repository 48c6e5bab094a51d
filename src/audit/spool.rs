//! What waits in the spool, and what it knows of sessions that have not ended.

use std::path::Path;

use super::bronze::Found;
use crate::domain::chain::ChainId;
use crate::domain::entry::{Content, Payload, Record};
use crate::domain::stream::Stream;
use crate::spool::logs;
use crate::spool::reader::{Chunk, LogReader, LogView};
use crate::spool::replay::{Piece, Replay};
use crate::spool::segment::DrainedBy;
use crate::spool::state::LogState;

impl Found {
    /// Adds what the logs in `dir` hold.
    pub(super) fn spool(&mut self, dir: &Path) -> std::io::Result<()> {
        let logs::Found { dead, last } = logs::find(dir)?;
        for (id, view) in dead {
            if view.kind().is_some_and(|kind| kind.drained_by == DrainedBy::Kafka) {
                self.forwarded(Replay::new(dir.join(id.to_string()), id), &view)?;
                continue;
            }
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
                            records.into_iter().for_each(|record| self.unsettled(stream.into(), record));
                            from = next;
                        }
                    }
                }
            }
        }
        self.living(&last);
        Ok(())
    }

    /// Adds what a log holds that is on its way to Kafka.
    fn forwarded(&mut self, mut replay: Replay, view: &LogView) -> std::io::Result<()> {
        loop {
            match replay.next(view)? {
                Piece::End => return Ok(()),
                Piece::Lost(lost) => {
                    for (chain, from, to) in lost {
                        self.faults.push(format!("spool log {}: {chain} {from} to {to} cannot be read", replay.log()));
                    }
                }
                Piece::Records(records) => records.into_iter().for_each(|out| self.unsettled(out.chain, out.record)),
            }
        }
    }

    /// What the newest log says of the sessions that it knows.
    fn living(&mut self, last: &LogState) {
        for (session, state) in &last.sessions {
            let count = self.sessions.entry(*session).or_default();
            count.shard = Some(state.shard.clone());
            count.living = state.ended.is_none().then_some(state.frames);
        }
    }

    /// Counts a record of a log. It may be in a slot, too, or in several logs.
    pub(super) fn unsettled(&mut self, chain: ChainId, record: Record) {
        let (delivery, seq, payload) = match record.content {
            Content::Data { delivery, seq, payload } => (delivery, seq, payload),
            Content::Opened(session) => {
                self.sessions.entry(session).or_default();
                return;
            }
            Content::Tick(_) | Content::Ended(_) | Content::Lost { .. } => return,
        };
        if !self.record(chain, delivery.session, (delivery.frame, record.received_at), seq) {
            return; // archived already
        }
        self.waiting[chain.stream.index()] += 1;
        if let Payload::Control(control) = payload {
            self.control(delivery.session, Some(*control));
        }
    }
}
