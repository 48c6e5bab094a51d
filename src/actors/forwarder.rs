//! Ships the spool to Kafka.
//!
//! In: how far the chains are. Out: records, until slots cover them. The work is done by a thread of its own, since it
//! waits on the disk and on the brokers. After a restart what was not acknowledged is sent again, as far as that was noted; the
//! chains know what comes twice.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use actix::fut::{LocalBoxActorFuture, wrap_future};
use actix::prelude::*;
use tokio::sync::oneshot;

use crate::kafka::cluster::{Cluster, ends};
use crate::kafka::forwarding::{self, MakeSender, State, Told};
use crate::kafka::quota::Quota;
use crate::messages::bronze::Covered;
use crate::spool::logs::Logs;
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Forwarded;

/// How often the brokers are asked where the logs end: what was acknowledged and is gone is found so.
const ENDS_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether the thread still tells how it goes, which it does each second.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// So many looks in a row without a word, and it is not waited for any more: it is in a call that does not return.
const SILENT_LOOKS: u32 = 6;

/// See the module.
pub struct Forwarder {
    parts: Parts,
    /// Looks since the thread said something.
    looks: Arc<AtomicU32>,
    /// Of the thread that runs.
    tell: Option<Sender<Told>>,
    ended: Option<oneshot::Receiver<()>>,
}

/// What a forwarder is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Counts and alarms.
    pub metrics: Arc<Metrics>,
    /// What is to be sent.
    pub logs: Logs,
    /// Where it notes what was acknowledged.
    pub notes: PathBuf,
    /// What is known of the topics.
    pub cluster: Cluster,
    /// Makes a producer.
    pub sender: MakeSender,
}

impl Forwarder {
    /// One that has sent nothing yet.
    pub fn new(parts: Parts) -> Forwarder {
        Forwarder { parts, looks: Arc::default(), tell: None, ended: None }
    }

    fn start_thread(&mut self, ctx: &mut Context<Self>) {
        let (tell, told) = channel();
        let (end, ended) = oneshot::channel();
        let (fail, failed) = oneshot::channel();
        self.looks = Arc::default(); // what a thread of before says means nothing
        let parts = forwarding::Parts {
            logs: self.parts.logs.clone(),
            notes: self.parts.notes.clone(),
            sender: self.parts.sender.clone(),
            told,
            tell: Box::new(tells(&self.parts, self.looks.clone())),
        };
        let run = move || {
            let run = std::panic::AssertUnwindSafe(|| forwarding::run(parts));
            if std::panic::catch_unwind(run).is_err() {
                fail.send("its thread has died").ok();
            }
            end.send(()).ok();
        };
        match std::thread::Builder::new().name("forwarder".into()).spawn(run) {
            Ok(_) => {
                ctx.spawn(wrap_future(tell_of_more(self.parts.logs.clone(), tell.clone())));
                (self.tell, self.ended) = (Some(tell), Some(ended));
            }
            Err(error) => {
                self.parts.vitals.fail(format!("no thread: {error}"));
                ctx.stop();
            }
        }
        ctx.spawn(wrap_future::<_, Self>(failed).map(|failed, forwarder, ctx| {
            if let Ok(why) = failed {
                forwarder.parts.vitals.fail(why);
                ctx.stop();
            }
        }));
    }

    /// Counts looks, and not the time: a process that stood still has a thread that did, too. One that is given up ends when its call
    /// returns, as nobody is there to tell it anything.
    fn look(&mut self, ctx: &mut Context<Self>) {
        if self.looks.fetch_add(1, Ordering::Relaxed) >= SILENT_LOOKS {
            let silence = LOOK_EVERY * SILENT_LOOKS;
            self.parts.vitals.fail(format!("its thread has said nothing for {} s: another one goes on", silence.as_secs()));
            ctx.stop();
        }
        // Not by `run_interval`, which makes up for missed rounds.
        ctx.run_later(LOOK_EVERY, Forwarder::look);
    }

    fn ask_for_ends(&mut self, ctx: &mut Context<Self>) {
        let Some(tell) = self.tell.clone() else { return };
        let cluster = self.parts.cluster.clone();
        let asked = async move {
            let (answer, round) = oneshot::channel();
            if tell.send(Told::Round(answer)).is_err() {
                return;
            }
            let Ok(round) = round.await else { return };
            drop(tell.send(Told::Ends(round, ends(&cluster).await)));
        };
        ctx.spawn(wrap_future::<_, Self>(asked).map(|(), _, ctx| {
            ctx.run_later(ENDS_EVERY, Forwarder::ask_for_ends);
        }));
    }
}

/// Wakes the thread whenever more of the log is durable.
async fn tell_of_more(logs: Logs, tell: Sender<Told>) {
    let mut durable = logs.watch();
    while durable.changed().await.is_ok() && tell.send(Told::More).is_ok() {}
}

/// Shows how it goes.
fn tells(parts: &Parts, looks: Arc<AtomicU32>) -> impl FnMut(State) + Send + use<> {
    let (vitals, metrics, mut before) = (parts.vitals.clone(), parts.metrics.clone(), 0);
    move |state: State| {
        looks.store(0, Ordering::Relaxed);
        let new = state.sent - before;
        before = state.sent;
        vitals.advance(new);
        vitals.gauge("acknowledged", state.acknowledged as f64);
        vitals.gauge("under_way", state.under_way as f64);
        match &state.trouble {
            Some(why) => {
                vitals.note("kafka", why.clone());
                metrics.alarms().raise("forwarder", format!("{why}; trades wait in the spool"));
            }
            None => {
                vitals.clear_note("kafka");
                metrics.alarms().clear("forwarder");
            }
        }
        if let Some(lost) = &state.lost {
            metrics.alarms().raise("spool/damaged", lost.clone());
        }
        Quota::Producer.show(state.held_up.as_ref(), &vitals, &metrics);
        let State { acknowledged, under_way, uncovered, .. } = state;
        metrics.forwarded(Forwarded { new, acknowledged, under_way, uncovered });
    }
}

impl Actor for Forwarder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_thread(ctx);
        ctx.run_later(ENDS_EVERY, Forwarder::ask_for_ends);
        ctx.run_later(LOOK_EVERY, Forwarder::look);
    }
}

impl Supervised for Forwarder {
    /// The thread ends when nobody is there to tell it anything.
    fn restarting(&mut self, _: &mut Self::Context) {
        (self.tell, self.ended) = (None, None);
    }
}

impl Child for Forwarder {
    /// Sends what the spool holds, and waits for the answers; meanwhile it hears of the chains and of the topics' ends as before. What
    /// the deadline cuts off the next life sends.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        let (tell, ended) = (self.tell.clone(), self.ended.take());
        let drain = async move {
            let (Some(tell), Some(ended)) = (tell, ended) else { return };
            if tell.send(Told::Drain).is_ok() {
                drop(ended.await);
            }
        };
        Box::pin(wrap_future(drain))
    }
}

impl Handler<Covered> for Forwarder {
    type Result = ();

    fn handle(&mut self, covered: Covered, _: &mut Self::Context) {
        if let Some(tell) = &self.tell {
            drop(tell.send(Told::Archived(covered.chain, covered.archived))); // a thread that has died is begun anew, with none of it
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;

    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::domain::identity::LogId;
    use crate::kafka::cluster::Known;
    use crate::spool::reader::LogView;

    #[actix::test]
    async fn a_thread_that_says_nothing_any_more_is_left_to_itself_and_another_one_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let logs = Logs::new(temp.path().into(), BTreeMap::new(), LogId::generate(), watch::channel(LogView::default()).1);
        let ((begins, mut begun), (_never, hangs)) = (mpsc::unbounded_channel(), channel::<()>());
        let hangs = Mutex::new(hangs);
        let sender: MakeSender = Arc::new(move || {
            begins.send(()).expect("the test goes on");
            hangs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
            Err("the test is over".into())
        });
        let parts = Parts {
            vitals: Vitals::unsupervised("forwarder"),
            metrics: Arc::new(Metrics::new()),
            notes: temp.path().join("notes"),
            cluster: Cluster::new(watch::channel(Known::default()).1),
            logs,
            sender,
        };
        #[expect(clippy::disallowed_methods, reason = "it needs nothing more than to be restarted, and does not panic")]
        let forwarder = actix::Supervisor::start(|_| Forwarder::new(parts));
        begun.recv().await.unwrap();
        tokio::time::pause();
        let until = Instant::now() + Duration::from_secs(60);
        while begun.try_recv().is_err() {
            assert!(Instant::now() < until, "there is no other");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        drop(forwarder);
    }
}
