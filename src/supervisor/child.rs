//! Runs one supervised actor on an arbiter.

use std::future::poll_fn;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::dev::channel::AddressReceiver;
use actix::dev::ContextFut;
use actix::fut::{wrap_future, LocalBoxActorFuture};
use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{interval, sleep, timeout, MissedTickBehavior};

use crate::supervisor::vitals::{State, Vitals};

/// How often an actor shows that its loop turns.
const BEAT: Duration = Duration::from_millis(500);

/// An actor that may be supervised. [`Supervised::restarting`] must leave it as new.
pub trait Child: Supervised + Actor<Context = Context<Self>> {
    /// Finishes what was accepted: flush, commit, close. Called once, after the queued messages.
    fn drain(&mut self, _ctx: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        wrap_future(async {}).boxed_local()
    }
}

/// Why an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Stopped,
    Failed(String),
    /// A failure that no restart cures.
    Fatal(String),
    Panicked(String),
    Stalled,
    /// Dropped together with its arbiter, or never built.
    Vanished,
}

impl Exit {
    pub fn is_failure(&self) -> bool {
        *self != Exit::Stopped
    }

    pub fn is_fatal(&self) -> bool {
        matches!(self, Exit::Fatal(_) | Exit::Vanished)
    }
}

pub(crate) enum Command {
    Restart { after: Duration },
    Stop { within: Duration, done: oneshot::Sender<()> },
}

#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ChildExited {
    pub slot: usize,
    pub generation: u32,
    pub exit: Exit,
}

/// Reports to the supervisor, also when the arbiter takes the whole task away.
pub(crate) struct Reporter {
    pub slot: usize,
    pub vitals: Arc<Vitals>,
    pub supervisor: Recipient<ChildExited>,
    pub armed: bool,
}

impl Reporter {
    fn report(&self, exit: Exit) {
        self.vitals.record_failure(&format!("{exit:?}"));
        self.supervisor.do_send(ChildExited { slot: self.slot, generation: self.vitals.generation(), exit });
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.vitals.set_state(State::Stopped);
        if self.armed {
            self.report(Exit::Vanished);
        }
    }
}

/// What ended a stretch of running.
enum Turn {
    Exit(Exit),
    Command(Option<Command>),
}

pub(crate) async fn run<A: Child>(
    mailbox: AddressReceiver<A>,
    build: impl FnOnce(&mut Context<A>) -> A,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut reporter: Reporter,
) {
    let mut ctx = Context::with_receiver(mailbox);
    let actor = build(&mut ctx);
    let mut fut = ctx.into_future(actor);
    let vitals = reporter.vitals.clone();

    loop {
        vitals.born();
        let mut command = match turn(&mut fut, &mut commands, &vitals).await {
            Turn::Command(command) => command,
            Turn::Exit(exit) => {
                vitals.set_state(State::Down);
                reporter.report(exit);
                // The mailbox stays open and nothing is polled until the supervisor decides.
                match commands.recv().await {
                    Some(Command::Stop { done, .. }) => {
                        reporter.armed = false;
                        drop(fut);
                        let _ = done.send(());
                        return;
                    }
                    command => command,
                }
            }
        };
        // Restart, possibly cut short by a stop during the back-off.
        if let Some(Command::Restart { after }) = command {
            vitals.set_state(State::Down);
            command = tokio::select! {
                _ = sleep(after) => None,
                command = commands.recv() => command,
            };
            if command.is_none() && catch_unwind(AssertUnwindSafe(|| fut.restart())).is_ok_and(|up| up) {
                continue;
            }
        }
        if let Some(Command::Stop { within, done }) = command {
            reporter.armed = false;
            vitals.set_state(State::Draining);
            let _ = timeout(within, drain(&mut fut, &vitals)).await;
            drop(fut);
            let _ = done.send(());
        }
        return; // With the reporter still armed unless told to stop.
    }
}

/// Runs until the actor ends or the supervisor speaks.
async fn turn<A: Child>(
    fut: &mut ContextFut<A, Context<A>>,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    vitals: &Arc<Vitals>,
) -> Turn {
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => return Turn::Command(command),
            _ = beat.tick() => {
                // Runs only when the actor's own loop turns: not while a `ctx.wait` hangs.
                let vitals = vitals.clone();
                fut.ctx().spawn(wrap_future(async {}).map(move |_, _, _| vitals.beat()));
            }
            exit = poll_catching(fut, vitals) => return Turn::Exit(exit),
        }
    }
}

/// Polls the actor so that a panic ends this incarnation and not the task that owns the mailbox.
async fn poll_catching<A: Child>(fut: &mut ContextFut<A, Context<A>>, vitals: &Vitals) -> Exit {
    poll_fn(|cx| {
        vitals.poll_begins();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *fut).poll(cx)));
        vitals.poll_ends();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(vitals.take_failure().unwrap_or(Exit::Stopped)),
            Err(panic) => Poll::Ready(Exit::Panicked(message(&*panic))),
        }
    })
    .await
}

/// Lets the actor work off its queue, drain and stop.
async fn drain<A: Child>(fut: &mut ContextFut<A, Context<A>>, vitals: &Vitals) {
    fut.ctx().spawn(wrap_future(async {}).then(|_, actor: &mut A, ctx| actor.drain(ctx)).map(|_, _, ctx| ctx.stop()));
    let _ = poll_catching(fut, vitals).map(drop).await;
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}
