//! Judges frames and has them made durable.
//!
//! In: frames of one shard, in order. Out: the same frames with their verdicts, to the spool; the
//! answer comes when they are on disk. It keeps only the last payloads of the session, to flag
//! repeated frames: after a restart one repeat may go unflagged, and a batch that was under way is
//! counted twice in the metrics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::fut::wrap_future;
use actix::prelude::*;
use bytes::Bytes;

use crate::domain::frame::{Judgement, Kind, Rules, judge, refuse};
use crate::domain::identity::SessionId;
use crate::domain::verdict::{JudgedFrame, RawFrame, Reason};
use crate::messages::feed::{Append, AppendError, Judge};
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// How the feed says that a key has too many symbols; it does not say which one it leaves out.
const TOO_MANY: &str = "too many symbols";

/// See the module.
pub struct Validator {
    parts: Parts,
    judge: JudgeFn,
    memory: Memory,
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

type JudgeFn = fn(&RawFrame, Option<&Bytes>, &Rules) -> Judgement;

/// What a validator knows of frames that it has judged.
#[derive(Default)]
struct Memory {
    session: Option<SessionId>,
    /// The last frame of the last batch, and the one before that batch, which may come again.
    last: [Option<(u32, Bytes)>; 2],
}

impl Memory {
    /// The payload before frame `number`, if that is known.
    fn before(&self, number: u32) -> Option<Bytes> {
        let before = self.last.iter().flatten().find(|(last, _)| last.checked_add(1) == Some(number));
        before.map(|(_, payload)| payload.clone())
    }

    /// Whether a batch that begins with frame `number` was judged before: it comes again because it
    /// did not become durable.
    fn knows(&self, number: u32) -> bool {
        self.last[0].as_ref().is_some_and(|(last, _)| *last >= number)
    }

    fn keep(&mut self, first: u32, last: &RawFrame) {
        let before = self.before(first).map(|payload| (first - 1, payload));
        self.last = [Some((last.number, last.payload.clone())), before];
    }
}

impl Validator {
    /// A validator of one shard.
    pub fn new(parts: Parts) -> Validator {
        Validator { parts, judge, memory: Memory::default() }
    }

    fn judge_all(&mut self, batch: &Judge) -> Vec<JudgedFrame> {
        if self.memory.session != Some(batch.session) {
            // A shard has one session at a time, and what the feed said of the last one is over.
            self.memory = Memory { session: Some(batch.session), ..Memory::default() };
            self.parts.vitals.clear_note("feed_error");
            self.parts.metrics.alarms().clear(&self.alarm());
        }
        let mut previous = batch.frames.first().and_then(|first| self.memory.before(first.number));
        let mut traced = batch.traced.iter().peekable();
        let frames = batch.frames.iter().map(|frame| {
            let judgement = self.judge_one(frame, previous.as_ref());
            previous = Some(frame.payload.clone());
            if let Kind::Error(message) = &judgement.kind {
                self.report(message);
            }
            let traceparent = traced.next_if(|(number, _)| *number == frame.number).map(|(_, context)| context.clone());
            JudgedFrame { frame: frame.clone(), elements: judgement.elements, traceparent }
        });
        let judged: Vec<_> = frames.collect();
        if let (Some(first), Some(last)) = (batch.frames.first(), batch.frames.last()) {
            if !self.memory.knows(first.number) {
                self.parts.metrics.judged(&judged);
            }
            self.memory.keep(first.number, last);
        }
        judged
    }

    /// One bad record is data, not an outage: a frame on which the judge itself dies would else die
    /// with its batch again and again.
    fn judge_one(&self, frame: &RawFrame, previous: Option<&Bytes>) -> Judgement {
        let judged = catch_unwind(AssertUnwindSafe(|| (self.judge)(frame, previous, &self.parts.rules)));
        judged.unwrap_or_else(|_| {
            tracing::error!(frame = frame.number, "validation died on a frame: this is a fault of tickmint");
            refuse(frame, &self.parts.rules, Reason::WrongShape, "validation died on it: please report this")
        })
    }

    /// The feed says that something is wrong. It is in quarantine as well.
    fn report(&self, message: &str) {
        let Parts { vitals, rules, metrics, .. } = &self.parts;
        let text = if message.contains(TOO_MANY) {
            format!(
                "{message}: of the {} symbols on this key some get no trades; move some to another of `feed.keys`",
                rules.watch.len()
            )
        } else {
            message.to_string()
        };
        tracing::warn!(actor = vitals.path(), message, "the feed reports an error");
        metrics.alarms().raise(&self.alarm(), &*text);
        vitals.note("feed_error", text);
    }

    fn alarm(&self) -> String {
        format!("feed/{}", self.parts.vitals.path())
    }
}

impl Actor for Validator {
    type Context = Context<Self>;
}

impl Supervised for Validator {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.memory = Memory::default();
    }
}

impl Child for Validator {}

impl Handler<Judge> for Validator {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, batch: Judge, _: &mut Self::Context) -> Self::Result {
        let frames = self.judge_all(&batch);
        fail::fail_point!("validator.judged");
        let records = frames.iter().map(|frame| frame.elements.len() as u64).sum();
        let answer = self.parts.spool.send(Append { session: batch.session, frames });
        let answer = async { answer.await.unwrap_or(Err(AppendError::Down("spool"))) };
        Box::pin(wrap_future::<_, Self>(answer).map(move |answer, validator, _| {
            if answer.is_ok() {
                validator.parts.vitals.advance(records);
            }
            answer
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::frame::Watchlist;
    use crate::domain::verdict::{Flags, Verdict};

    const TRADE: &str = r#"{"data":[{"c":null,"p":1.5,"s":"A","t":0,"v":2}],"type":"trade"}"#;

    /// Notes what it is sent, and answers as told; then that all is well.
    struct FakeSpool {
        appended: Arc<Mutex<Vec<Append>>>,
        answers: Vec<Result<(), AppendError>>,
    }

    impl Actor for FakeSpool {
        type Context = Context<Self>;
    }

    impl Handler<Append> for FakeSpool {
        type Result = Result<(), AppendError>;

        fn handle(&mut self, append: Append, _: &mut Self::Context) -> Self::Result {
            self.appended.lock().unwrap().push(append);
            if self.answers.is_empty() { Ok(()) } else { self.answers.remove(0) }
        }
    }

    struct Rig {
        validator: Addr<Validator>,
        appended: Arc<Mutex<Vec<Append>>>,
        metrics: Arc<Metrics>,
        vitals: Arc<Vitals>,
        traced: Arc<[(u32, Arc<str>)]>,
    }

    impl Rig {
        fn new(answers: Vec<Result<(), AppendError>>, judge: JudgeFn) -> Rig {
            let appended = Arc::new(Mutex::default());
            let spool = FakeSpool { appended: appended.clone(), answers }.start().recipient();
            let watch = Arc::new(Watchlist::new(&["A".to_string()], 0));
            let rules = Rules { watch, max_age: None, max_ahead: None, max_frame_bytes: 1000 };
            let (metrics, vitals) = (Arc::new(Metrics::new()), Vitals::unsupervised("validator"));
            let parts = Parts { vitals: vitals.clone(), rules, metrics: metrics.clone(), spool };
            let validator = Validator { judge, ..Validator::new(parts) }.start();
            Rig { validator, appended, metrics, vitals, traced: Arc::default() }
        }

        async fn judge(&self, session: SessionId, first: u32, payloads: &[&str]) -> Result<(), AppendError> {
            let frames = payloads.iter().zip(first..).map(|(payload, number)| RawFrame {
                number,
                received_at: 0,
                payload: payload.to_string().into(),
                binary: false,
            });
            self.validator.send(Judge { session, frames: frames.collect(), traced: self.traced.clone() }).await.unwrap()
        }

        /// The flags of the trades of all frames that were sent on, in order.
        fn flags(&self) -> Vec<Flags> {
            let appended = self.appended.lock().unwrap();
            let elements = appended.iter().flat_map(|append| &append.frames).flat_map(|frame| &frame.elements);
            let flags = elements.filter_map(|judged| match judged.verdict {
                Verdict::Trade(flags) => Some(flags),
                Verdict::Quarantined { .. } => None,
            });
            flags.collect()
        }
    }

    const REPEAT: Flags = Flags::FRAME_REPEAT;
    const PLAIN: Flags = Flags(0);

    #[actix::test]
    async fn a_frame_is_compared_with_the_one_before_it_also_in_the_batch_before() {
        let (rig, session) = (Rig::new(vec![], judge), SessionId::generate());
        rig.judge(session, 1, &[TRADE, TRADE]).await.unwrap();
        rig.judge(session, 3, &[TRADE, r#"{"type":"ping"}"#, TRADE]).await.unwrap();
        assert_eq!(rig.flags(), [PLAIN, REPEAT, REPEAT, PLAIN]);
        rig.judge(SessionId::generate(), 6, &[TRADE]).await.unwrap();
        assert_eq!(rig.flags()[4], PLAIN, "another session");
    }

    #[actix::test]
    async fn the_trace_of_a_frame_goes_on_with_it_and_with_no_other() {
        let mut rig = Rig::new(vec![], judge);
        rig.traced = Arc::new([(2, "a".into()), (4, "b".into())]);
        rig.judge(SessionId::generate(), 1, &[TRADE, TRADE, TRADE, TRADE]).await.unwrap();
        let appended = rig.appended.lock().unwrap();
        let traced: Vec<_> = appended[0].frames.iter().map(|frame| frame.traceparent.as_deref()).collect();
        assert_eq!(traced, [None, Some("a"), None, Some("b")]);
    }

    #[actix::test]
    async fn a_batch_that_comes_again_is_no_repeat_of_itself() {
        let disk = || Err(AppendError::Disk("no space".into()));
        let (rig, session) = (Rig::new(vec![disk(), Ok(()), disk()], judge), SessionId::generate());
        assert_eq!(rig.judge(session, 1, &[TRADE]).await, disk());
        rig.judge(session, 1, &[TRADE]).await.unwrap();
        assert_eq!(rig.judge(session, 2, &[TRADE, TRADE]).await, disk());
        rig.judge(session, 2, &[TRADE, TRADE]).await.unwrap();
        assert_eq!(rig.flags(), [PLAIN, PLAIN, REPEAT, REPEAT, REPEAT, REPEAT]);
        assert_eq!(rig.metrics.pipeline().feed.trades, 3, "each is counted once");
        assert_eq!(rig.vitals.progress(), 3, "only what is durable is progress");
    }

    #[actix::test]
    async fn an_error_of_the_feed_is_a_record_a_note_and_an_alarm_until_the_next_session() {
        let rig = Rig::new(vec![], judge);
        rig.judge(SessionId::generate(), 1, &[r#"{"msg":"Subscribing to too many symbols","type":"error"}"#]).await.unwrap();
        assert_eq!(rig.metrics.pipeline().feed.quarantined["server_error"], 1);
        assert!(rig.vitals.notes()["feed_error"].contains("of the 1 symbols on this key"), "{:?}", rig.vitals.notes());
        assert_eq!(rig.metrics.alarms().list()[0].name, "feed/validator");
        rig.judge(SessionId::generate(), 1, &[TRADE]).await.unwrap();
        assert_eq!((rig.vitals.notes().len(), rig.metrics.alarms().list().len()), (0, 0));
    }

    #[actix::test]
    async fn a_frame_that_kills_the_judge_is_quarantined_and_its_neighbours_are_not() {
        let rig = Rig::new(vec![], |frame, previous, rules| {
            assert!(frame.number != 2, "a fault of ours");
            judge(frame, previous, rules)
        });
        rig.judge(SessionId::generate(), 1, &[TRADE, "{}", TRADE]).await.unwrap();
        assert_eq!(rig.flags(), [PLAIN, PLAIN]);
        let appended = rig.appended.lock().unwrap();
        let judged = &appended[0].frames[1].elements[0];
        assert!(matches!(judged.verdict, Verdict::Quarantined { reason: Reason::WrongShape, .. }) && judged.range == (0..2));
    }
}
