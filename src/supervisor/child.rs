//! Runs one actor: catches its panics, keeps its address and its queue, obeys its supervisor.
//!
//! In: [`Command`]s. Out: a [`ChildExited`] for each incarnation that ended by itself.
//! The runner is a task on the actor's arbiter that polls the actor's context inside
//! `catch_unwind`. [`ContextFut::restart`] makes the *same* actor ready for its next incarnation: its
//! timers, streams and pending futures are dropped, its queue stays. That is done at once, so that
//! the sender of the message that was being handled sees `MailboxError::Closed` at once; the next
//! incarnation begins when the supervisor says so.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use actix::dev::ContextFut;
use actix::dev::channel::AddressReceiver;
use actix::fut::{self, LocalBoxActorFuture};
use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::exit::Exit;
use super::registry::{Member, Why};
use super::vitals::{State, Vitals};

/// How often an actor shows that its loop turns; oftener if it is given less than 2 s.
const BEAT: Duration = Duration::from_millis(500);

/// An actor that can be supervised.
///
/// `Supervised::restarting` must leave it as new; it is called when the actor has failed, `started`
/// again after the back-off. What may fail belongs into `started`: an actor that panics while it is
/// *built* cannot be restarted.
pub trait Child: Supervised + Actor<Context = Context<Self>> {
    /// Finishes what was accepted: flush, commit, close. Called once, when the queue is empty.
    fn drain(&mut self, _: &mut Context<Self>) -> LocalBoxActorFuture<Self, ()> {
        Box::pin(fut::ready(()))
    }
}

/// What a runner is told.
pub(super) enum Command {
    /// Begin anew after a while. Means nothing to an incarnation later than `of`.
    Restart { of: u32, after: Duration },
    /// Drain and end. The answer is what went wrong.
    Stop { within: Duration, done: oneshot::Sender<Option<Why>> },
}

/// An incarnation ended without having been told to.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ChildExited {
    pub(super) member: Arc<Member>,
    pub(super) incarnation: u32,
    pub(super) exit: Exit,
}

/// The order to end, and who waits for it.
struct Stop {
    within: Duration,
    done: oneshot::Sender<Option<Why>>,
    /// Whether there is a living incarnation that can drain.
    alive: bool,
}

/// What ended a stretch of running.
enum Turn {
    Exit(Exit),
    Told(Option<Command>),
}

/// The runner of one actor, before and while it runs.
pub(super) struct Runner {
    member: Arc<Member>,
    commands: mpsc::UnboundedReceiver<Command>,
    report: Box<dyn Fn(ChildExited) + Send>,
    /// Whether its end would be news to the supervisor.
    armed: bool,
}

impl Runner {
    pub(super) fn new(
        member: Arc<Member>,
        commands: mpsc::UnboundedReceiver<Command>,
        report: Box<dyn Fn(ChildExited) + Send>,
    ) -> Runner {
        Runner { member, commands, report, armed: true }
    }

    /// Runs the actor until it is told to stop.
    pub(super) async fn run<A: Child>(
        mut self,
        mailbox: AddressReceiver<A>,
        build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A,
    ) {
        let vitals = self.member.vitals.clone();
        let mut ctx = Context::with_receiver(mailbox);
        vitals.begins();
        let actor = match catch(|| build(&mut ctx, vitals.clone())) {
            Ok(actor) => actor,
            Err(panic) => {
                self.goes_down(Exit::Unbuilt { path: self.member.path().into(), panic });
                self.armed = false;
                return;
            }
        };
        let mut life = Life { fut: ctx.into_future(actor), vitals, beat: beat(&self.member), is_new: true };
        // Keeps the mailbox open when no one else has the address.
        let _address = life.fut.address();

        let stop = self.until_stopped(&mut life).await;
        self.armed = false;
        if let Some(Stop { within, done, alive }) = stop {
            let missed = if alive { life.drain(within).await } else { None };
            life.end();
            drop(self); // So that it has stopped when it says so.
            done.send(missed).ok();
        }
    }

    /// Lives through incarnations. `None` when nobody is left who could give an order.
    async fn until_stopped<A: Child>(&mut self, life: &mut Life<A>) -> Option<Stop> {
        loop {
            let mut order = match life.turn(&mut self.commands).await {
                Turn::Exit(exit) => {
                    life.renew();
                    self.goes_down(exit);
                    None
                }
                Turn::Told(Some(Command::Stop { within, done })) => return Some(Stop { within, done, alive: true }),
                Turn::Told(Some(restart)) => {
                    life.renew();
                    Some(restart)
                }
                Turn::Told(None) => return None,
            };
            // Down: nothing of the actor is polled, and its queue waits.
            loop {
                let command = match order.take() {
                    Some(command) => command,
                    None => life.next(&mut self.commands).await?,
                };
                let after = match command {
                    Command::Stop { within, done } => return Some(Stop { within, done, alive: false }),
                    Command::Restart { after, .. } => after,
                };
                tokio::select! {
                    biased;
                    command = life.next(&mut self.commands) => {
                        order = Some(command?);
                        continue;
                    }
                    () = sleep(after) => {}
                }
                life.vitals.begins();
                match life.make_new() {
                    Ok(()) => break,
                    Err(panic) => self.goes_down(Exit::Panicked(panic)),
                }
            }
        }
    }

    fn goes_down(&self, exit: Exit) {
        let vitals = &self.member.vitals;
        vitals.ends();
        vitals.record_failure(&exit);
        (self.report)(ChildExited { member: self.member.clone(), incarnation: vitals.incarnation(), exit });
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if self.armed {
            self.goes_down(Exit::Vanished { path: self.member.path().into() });
        }
        self.member.vitals.set_state(State::Stopped);
    }
}

/// The actor and what keeps watch over it.
struct Life<A: Child> {
    fut: ContextFut<A, Context<A>>,
    vitals: Arc<Vitals>,
    beat: Interval,
    /// Whether the actor is as new.
    is_new: bool,
}

impl<A: Child> Life<A> {
    /// Runs until the actor ends or the supervisor speaks.
    async fn turn(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Turn {
        let Life { fut, vitals, beat, is_new } = self;
        *is_new = false;
        let on_its_way = Rc::new(Cell::new(false));
        beat.reset_immediately();
        loop {
            tokio::select! {
                biased;
                command = next_command(commands, vitals) => return Turn::Told(command),
                _ = beat.tick() => {
                    vitals.thread_turns();
                    #[cfg(feature = "faults")]
                    super::misbehaviour::ask(fut.ctx(), vitals.path());
                    // Runs only when the actor's own loop turns: not while a `ctx.wait` hangs.
                    if !on_its_way.replace(true) {
                        let (vitals, on_its_way) = (vitals.clone(), on_its_way.clone());
                        fut.ctx().spawn(fut::ready(()).map(move |(), _, _| {
                            on_its_way.set(false);
                            vitals.turns();
                        }));
                    }
                }
                exit = poll_catching(fut, vitals) => return Turn::Exit(exit),
            }
        }
    }

    /// Waits for a command while the actor is down.
    async fn next(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Option<Command> {
        loop {
            tokio::select! {
                biased;
                command = next_command(commands, &self.vitals) => return command,
                _ = self.beat.tick() => self.vitals.thread_turns(),
            }
        }
    }

    /// Lets the actor work off its queue, drain and stop.
    async fn drain(&mut self, within: Duration) -> Option<Why> {
        let Life { fut, vitals, beat, .. } = self;
        vitals.set_state(State::Draining);
        fut.ctx().spawn(QueueEmpty.then(|(), actor: &mut A, ctx| actor.drain(ctx)).map(|(), _, ctx| ctx.stop()));
        let drained = async {
            loop {
                tokio::select! {
                    biased;
                    _ = beat.tick() => vitals.thread_turns(),
                    exit = poll_catching(fut, vitals) => return exit,
                }
            }
        };
        match timeout(within, drained).await {
            Ok(Exit::Stopped) => None,
            Ok(exit) => {
                vitals.record_failure(&exit);
                Some(Why::Failed(exit))
            }
            Err(_) => Some(Why::Late(within)),
        }
    }

    /// The incarnation is over. If the actor cannot be renewed now, that is tried again later.
    fn renew(&mut self) {
        self.vitals.ends();
        if let Err(panic) = self.make_new() {
            tracing::warn!(actor = self.vitals.path(), panic, "panicked while being renewed");
        }
    }

    fn make_new(&mut self) -> Result<(), String> {
        if !self.is_new {
            // `false` would mean that the mailbox is closed, but `run` holds an address.
            catch(|| self.fut.restart())?;
            self.is_new = true;
        }
        Ok(())
    }

    /// Drops the actor; a panic of its destructor must not keep anyone from hearing of its end.
    fn end(self) {
        let vitals = self.vitals.clone();
        if let Err(panic) = catch(|| drop(self)) {
            tracing::warn!(actor = vitals.path(), panic, "panicked while being dropped");
        }
    }
}

impl<A: Child> Drop for Life<A> {
    /// `stopping` and `stopped` belong to an end in order; actix would call them here too, or even
    /// `started` for an actor that is down.
    fn drop(&mut self) {
        self.fut.ctx().terminate();
    }
}

/// Ready when the actor has worked off its queue.
///
/// A future of the context is polled when the queue is empty *or* the last message of it made the
/// actor wait; what is behind that wait must not be lost.
struct QueueEmpty;

impl<A: Child> ActorFuture<A> for QueueEmpty {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut A, ctx: &mut Context<A>, _: &mut task::Context<'_>) -> Poll<()> {
        if ctx.waiting() { Poll::Pending } else { Poll::Ready(()) } // Polled again after that wait.
    }
}

/// The next command for this incarnation. A restart of an earlier one has been overtaken.
async fn next_command(commands: &mut mpsc::UnboundedReceiver<Command>, vitals: &Vitals) -> Option<Command> {
    loop {
        match commands.recv().await {
            Some(Command::Restart { of, .. }) if of < vitals.incarnation() => {}
            command => return command,
        }
    }
}

/// Polls the actor so that a panic ends this incarnation and not the task that owns the mailbox.
async fn poll_catching<A: Child>(fut: &mut ContextFut<A, Context<A>>, vitals: &Vitals) -> Exit {
    poll_fn(|cx| {
        vitals.poll_begins();
        let polled = catch(|| Pin::new(&mut *fut).poll(cx));
        vitals.poll_ends();
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(vitals.take_reason().unwrap_or(Exit::Stopped)),
            Err(panic) => {
                let fatal = vitals.take_reason().filter(Exit::is_final);
                Poll::Ready(fatal.unwrap_or(Exit::Panicked(panic)))
            }
        }
    })
    .await
}

fn beat(member: &Member) -> Interval {
    let mut beat = interval(BEAT.min(member.spec.stall_after / 4).max(Duration::from_millis(1)));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

/// What `f` shares may be half-changed after a panic. Actors share atomics, channels and constants
/// only, and `Supervised::restarting` renews the rest.
fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| text(&*panic))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_restart_that_was_overtaken_by_another_means_nothing() {
        let vitals = Vitals::unsupervised("a");
        let (sender, mut commands) = mpsc::unbounded_channel();
        vitals.begins();
        vitals.begins();
        for of in [1, 2] {
            assert!(sender.send(Command::Restart { of, after: Duration::ZERO }).is_ok());
        }
        let next = next_command(&mut commands, &vitals).await;
        assert!(matches!(next, Some(Command::Restart { of: 2, .. })));
    }
}
