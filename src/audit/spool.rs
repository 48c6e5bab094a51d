//! What waits in the spool, and what it knows of sessions that have not ended.

use std::path::Path;

use super::found::Found;
use crate::domain::chain::ChainId;
use crate::domain::entry::{Content, Control, Payload, Record};
use crate::spool::contents;
use crate::spool::logs;
use crate::spool::segment::DrainedBy;
use crate::spool::state::LogState;

impl Found {
    /// Adds what the logs in `dir` hold.
    pub(super) fn spool(&mut self, dir: &Path) -> std::io::Result<()> {
        let logs::Found { dead, last } = logs::find(dir)?;
        for (id, view) in dead {
            let is_forwarded = view.kind().is_some_and(|kind| kind.drained_by == DrainedBy::Kafka);
            contents::read(dir.join(id.to_string()), id, &view, |item| match item {
                contents::Item::Record(chain, record) => self.unsettled(chain, record),
                contents::Item::Lost(chain, from, to) => {
                    let of = if is_forwarded { chain.to_string() } else { chain.stream.to_string() };
                    self.faults.push(format!("spool log {id}: {of} {from} to {to} cannot be read"));
                }
            })?;
        }
        self.living(&last);
        Ok(())
    }

    /// What the newest log says of the sessions that it knows.
    fn living(&mut self, last: &LogState) {
        for (session, state) in &last.sessions {
            let count = self.sessions.entry(*session).or_default();
            count.shard = Some(state.shard.clone());
            // Of several copies of a spool one may be older, and another may have ended what lives in the first.
            count.living = count.living.max(state.ended.is_none().then_some(state.frames));
        }
    }

    /// Counts a record of a log. It may be in a slot, too, or in several logs.
    pub(super) fn unsettled(&mut self, chain: ChainId, record: Record) {
        if record.is_foreign() {
            self.foreign += 1;
            return;
        }
        let (delivery, seq, payload) = match record.content {
            Content::Data { delivery, seq, payload } => (delivery, seq, payload),
            Content::Opened(session) => {
                self.sessions.entry(session).or_default();
                return;
            }
            Content::Tick(_) | Content::Ended(_) | Content::Lost { .. } => return,
        };
        if !self.record(chain, delivery, seq, record.received_at) {
            return; // archived already
        }
        self.waiting[chain.stream.index()] += 1;
        let Payload::Control(control) = payload else { return };
        // What is told of a session's end behind the first one is a repeat (ADR 6).
        if matches!(*control, Control::Gap(_)) || self.sessions[&delivery.session].end.is_none() {
            self.control(delivery.session, Some(*control));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::report;
    use super::*;
    use crate::domain::identity::{Delivery, Origin, SessionId};
    use crate::domain::stream::Stream;

    /// Its number is its offset: what is not archived yet of a topic that others have written to for long has no holes before it.
    #[test]
    fn what_others_have_written_is_counted_apart_also_where_it_waits() {
        let delivery = Delivery { session: SessionId::generate(), frame: 15, index: 1 };
        let payload = Payload::Foreign { raw: bytes::Bytes::from_static(b"x"), why: "no header".into() };
        let content = Content::Data { delivery, seq: 1_000_000, payload };
        let record = Record { offset: 1_000_000, origin: Origin::default(), received_at: 0, traceparent: None, content };
        let mut found = Found::default();
        found.unsettled(Stream::Trades.into(), record);
        let report = report(&found, None);
        assert!(report.is_clean() && report.waiting == 0 && report.notes.len() == 1, "{report:?}");
    }
}
