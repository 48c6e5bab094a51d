//! What the tree promises, told by one scripted actor. The clock is paused unless a thread blocks.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use actix::fut::{self, LocalBoxActorFuture};
use actix::prelude::*;
use tokio::time::{Instant, sleep};

use super::registry::ROOT;
use super::*;

mod chaos;
mod escalation;
mod probes;
mod restart;
mod stopping;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Where a [`Worker`] may panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Started,
    Restarting,
    Stopping,
    Stopped,
    Drain,
    Drop,
}

/// What a [`Worker`] does besides its deeds, and what it leaves behind.
#[derive(Clone, Default)]
struct Script {
    panic_in: Option<Hook>,
    /// How often it still panics there.
    panics: Arc<AtomicUsize>,
    starts: Arc<AtomicUsize>,
    start_takes: Duration,
    drain_takes: Duration,
    log: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn panic_in(hook: Hook, times: usize) -> Script {
        Script { panic_in: Some(hook), panics: Arc::new(AtomicUsize::new(times)), ..Script::default() }
    }

    fn reach(&self, hook: Hook) {
        let is_left = |left: usize| left.checked_sub(1);
        if self.panic_in == Some(hook) && self.panics.fetch_update(SeqCst, SeqCst, is_left).is_ok() {
            panic!("in {hook:?}");
        }
    }

    fn log(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

struct Worker {
    vitals: Arc<Vitals>,
    script: Script,
    handled: usize,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.script.starts.fetch_add(1, SeqCst);
        self.script.reach(Hook::Started);
        ctx.wait(fut::wrap_future(sleep(self.script.start_takes)));
    }

    fn stopping(&mut self, _: &mut Context<Self>) -> Running {
        self.script.reach(Hook::Stopping);
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.script.reach(Hook::Stopped);
    }
}

impl Supervised for Worker {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.script.reach(Hook::Restarting);
        self.handled = 0;
    }
}

impl Child for Worker {
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        self.script.reach(Hook::Drain);
        let done = |(), worker: &mut Worker, _: &mut Context<Worker>| {
            worker.script.log(format!("{} drained after {}", worker.vitals.path(), worker.handled));
        };
        Box::pin(fut::wrap_future(sleep(self.script.drain_takes)).map(done))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.script.reach(Hook::Drop);
    }
}

/// What a [`Worker`] is asked to do; it answers how many it has done.
#[derive(Message)]
#[rtype(result = "usize")]
enum Deed {
    Count,
    Panic,
    /// Panics in a future that it waits for.
    PanicLater,
    /// Panics in a future beside its queue.
    PanicAside,
    /// Awaits what never comes.
    Hang,
    Wait(Duration),
    /// Waits for so many seconds and makes progress in each.
    Toil(u64),
    /// Blocks the thread until the sender is dropped.
    Block(mpsc::Receiver<()>),
    Fail,
    FailFatally,
    Stop,
}

impl Handler<Deed> for Worker {
    type Result = AtomicResponse<Self, usize>;

    fn handle(&mut self, deed: Deed, ctx: &mut Context<Self>) -> Self::Result {
        self.handled += 1;
        self.vitals.advance(1);
        let vitals = self.vitals.clone();
        let wait: LocalBoxActorFuture<Self, ()> = match deed {
            Deed::Count => Box::pin(fut::ready(())),
            Deed::Panic => panic!("boom"),
            Deed::PanicLater => Box::pin(fut::wrap_future(sleep(millis(1))).map(|(), _, _| panic!("later"))),
            Deed::PanicAside => {
                ctx.run_later(millis(1), |_, _| panic!("aside"));
                Box::pin(fut::ready(()))
            }
            Deed::Hang => Box::pin(fut::wrap_future(std::future::pending())),
            Deed::Wait(time) => Box::pin(fut::wrap_future(sleep(time))),
            Deed::Toil(times) => Box::pin(fut::wrap_future(async move {
                for _ in 0..times {
                    sleep(seconds(1)).await;
                    vitals.advance(1);
                }
            })),
            Deed::Block(until) => {
                until.recv().ok();
                Box::pin(fut::ready(()))
            }
            Deed::Fail => {
                vitals.fail("the store says no");
                ctx.stop();
                Box::pin(fut::ready(()))
            }
            Deed::FailFatally => {
                vitals.fail_fatally("the key is refused");
                ctx.stop();
                Box::pin(fut::ready(()))
            }
            Deed::Stop => {
                ctx.stop();
                Box::pin(fut::ready(()))
            }
        };
        AtomicResponse::new(Box::pin(wait.map(|(), worker: &mut Worker, _| worker.handled)))
    }
}

/// Three restarts in a minute; waits of 50 to 100 ms, 100 to 200 ms, 200 to 400 ms ...
fn policy() -> Policy {
    Policy {
        intensity: Intensity { max_restarts: 3, period: seconds(60) },
        backoff: Backoff { base: millis(100), max: seconds(10) },
        check_every: seconds(1),
    }
}

fn root() -> Root {
    tokio::time::pause();
    Root::start(policy())
}

impl SupervisorRef {
    fn worker(&self, id: &str) -> Addr<Worker> {
        self.scripted(ChildSpec::permanent(id), Script::default())
    }

    fn scripted(&self, spec: ChildSpec, script: Script) -> Addr<Worker> {
        self.scripted_on(System::current().arbiter(), spec, script)
    }

    fn scripted_on(&self, arbiter: &ArbiterHandle, spec: ChildSpec, script: Script) -> Addr<Worker> {
        self.spawn(spec, arbiter, |_, vitals| Worker { vitals, script, handled: 0 }).unwrap()
    }
}

impl Root {
    fn restarts(&self, path: &str) -> u32 {
        self.registry.vitals(path).unwrap().restarts()
    }

    fn last_failure(&self, path: &str) -> String {
        self.registry.vitals(path).unwrap().last_failure().unwrap().text
    }
}
