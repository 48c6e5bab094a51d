//! Judges frames and has them made durable.
//!
//! In: frames of one shard, in order. Out: the same frames with their verdicts, to the spool; the
//! answer comes when they are on disk. It keeps only the last payload of the session, to flag
//! repeated frames: after a restart one repeat may go unflagged.

use std::collections::HashMap;
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use bytes::Bytes;

use crate::domain::frame::{Kind, Rules, judge};
use crate::domain::identity::SessionId;
use crate::domain::verdict::JudgedFrame;
use crate::messages::feed::{Append, AppendError, Judge};
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// See the module.
pub struct Validator {
    vitals: Arc<Vitals>,
    rules: Rules,
    metrics: Arc<Metrics>,
    spool: Recipient<Append>,
    /// The last session and its last payload.
    previous: HashMap<SessionId, Bytes>,
}

/// What a validator is made of.
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// What counts as a trade.
    pub rules: Rules,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where judged frames go.
    pub spool: Recipient<Append>,
}

impl Validator {
    /// A validator of one shard.
    pub fn new(parts: Parts) -> Validator {
        let Parts { vitals, rules, metrics, spool } = parts;
        Validator { vitals, rules, metrics, spool, previous: HashMap::new() }
    }

    fn judge_all(&mut self, judge_them: &Judge) -> Vec<JudgedFrame> {
        let mut previous = self.previous.remove(&judge_them.session);
        self.previous.clear(); // a shard has one session at a time
        let frames = judge_them.frames.iter().map(|frame| {
            let judgement = judge(frame, previous.as_ref(), &self.rules);
            previous = Some(frame.payload.clone());
            if let Kind::Error(message) = &judgement.kind {
                tracing::warn!(message, "the feed reports an error");
                self.vitals.note("feed_error", message.clone());
            }
            JudgedFrame { frame: frame.clone(), elements: judgement.elements, traceparent: None }
        });
        let judged: Vec<_> = frames.collect();
        self.previous.extend(previous.map(|payload| (judge_them.session, payload)));
        self.metrics.judged(&judged);
        judged
    }
}

impl Actor for Validator {
    type Context = Context<Self>;
}

impl Supervised for Validator {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.previous.clear();
    }
}

impl Child for Validator {}

impl Handler<Judge> for Validator {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, batch: Judge, _: &mut Self::Context) -> Self::Result {
        let frames = self.judge_all(&batch);
        let trades = frames.iter().map(|frame| frame.elements.len() as u64).sum();
        let answer = self.spool.send(Append { session: batch.session, frames });
        let answer = async { answer.await.unwrap_or(Err(AppendError::Down("spool"))) };
        Box::pin(wrap_future::<_, Self>(answer).map(move |answer, validator, _| {
            if answer.is_ok() {
                validator.vitals.advance(trades);
            }
            answer
        }))
    }
}
