//! Decides what a failure means for the children of one supervisor.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use actix::dev::channel::channel;
use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::supervisor::child::{self, Child, ChildExited, Command, Exit, Reporter};
use crate::supervisor::policy::{ChildSpec, Flags, Restart, RestartWindow, Strategy};
use crate::supervisor::registry::Registry;
use crate::supervisor::vitals::{State, Vitals};

/// What a supervisor keeps of one child.
struct Slot {
    index: usize,
    spec: ChildSpec,
    vitals: Arc<Vitals>,
    commands: mpsc::UnboundedSender<Command>,
    /// Failures since it last ran longer than the intensity period.
    attempts: u32,
    last_restart: Instant,
    /// The newest generation that was told to restart; its exit is old news.
    superseded: u32,
    ended: bool,
    /// An address, so that the mailbox outlives every other sender.
    _mailbox: Box<dyn std::any::Any + Send>,
}

impl Slot {
    fn restart(&mut self, after: Duration) {
        self.last_restart = Instant::now();
        self.superseded = self.vitals.generation();
        let _ = self.commands.send(Command::Restart { after });
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Adopt(Slot);

pub struct Supervisor {
    flags: Flags,
    vitals: Arc<Vitals>,
    /// In start order.
    children: Vec<Slot>,
    window: RestartWindow,
    random: u64,
}

impl Supervisor {
    fn new(flags: Flags, vitals: Arc<Vitals>) -> Self {
        Supervisor { flags, vitals, children: Vec::new(), window: RestartWindow::default(), random: 42 }
    }

    fn on_exit(&mut self, at: usize, exit: &Exit, ctx: &mut Context<Self>) {
        let wanted = match self.children[at].spec.restart {
            Restart::Permanent => true,
            Restart::Transient => exit.is_failure(),
            Restart::Temporary => false,
        };
        if !wanted {
            let child = &mut self.children[at];
            child.ended = true;
            let _ = child.commands.send(Command::Stop { within: Duration::ZERO, done: oneshot::channel().0 });
            return;
        }
        if exit.is_fatal() {
            self.vitals.fail_fatally(format!("{}: {exit:?}", self.children[at].spec.id));
            return ctx.stop();
        }
        if !self.window.admit(Instant::now(), self.flags.intensity) {
            // Fails as a whole: the parent sees a failed child and applies its own policy.
            self.vitals.fail(format!("{} restarted too often: {exit:?}", self.children[at].spec.id));
            return ctx.stop();
        }
        let child = &mut self.children[at];
        if child.last_restart.elapsed() > self.flags.intensity.period {
            child.attempts = 0;
        }
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let delay = self.flags.backoff.delay(child.attempts, (self.random >> 40) as f64 / (1u64 << 24) as f64);
        child.attempts += 1;
        let affected = match self.flags.strategy {
            Strategy::OneForOne => at..at + 1,
            Strategy::RestForOne => at..self.children.len(),
            Strategy::OneForAll => 0..self.children.len(),
        };
        for sibling in &mut self.children[affected] {
            if !sibling.ended {
                sibling.restart(delay);
            }
        }
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        for at in 0..self.children.len() {
            let Slot { vitals, spec, ended, superseded, .. } = &self.children[at];
            let up = matches!(vitals.state(), State::Starting | State::Running);
            if *ended || !up || vitals.silence() < spec.stall_after {
                continue;
            }
            let told_to_restart = *superseded == vitals.generation();
            if vitals.poll_time() >= spec.stall_after || told_to_restart && vitals.silence() >= 2 * spec.stall_after {
                vitals.set_state(State::Blocked);
                self.on_exit(at, &Exit::Fatal("its thread is blocked".into()), ctx);
            } else if !told_to_restart {
                vitals.record_failure("Stalled");
                self.on_exit(at, &Exit::Stalled, ctx);
            }
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.flags.check_every, Self::check);
    }
}

impl Supervised for Supervisor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.window.clear();
        for child in self.children.iter_mut().filter(|child| !child.ended) {
            child.restart(Duration::ZERO);
        }
    }
}

impl Child for Supervisor {}

impl Handler<Adopt> for Supervisor {
    type Result = ();

    fn handle(&mut self, Adopt(slot): Adopt, _: &mut Self::Context) {
        self.children.push(slot);
    }
}

impl Handler<ChildExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildExited { slot, generation, exit }: ChildExited, ctx: &mut Self::Context) {
        let found = self.children.iter().position(|child| child.index == slot);
        if let Some(at) = found.filter(|at| exit.is_fatal() || generation > self.children[*at].superseded) {
            self.on_exit(at, &exit, ctx);
        }
    }
}

/// Starts children under one supervisor. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct SupervisorRef {
    addr: Addr<Supervisor>,
    path: String,
    registry: Registry,
    next: Arc<AtomicUsize>,
}

impl SupervisorRef {
    /// Starts an actor on `arbiter`; the address stays valid over restarts.
    pub fn spawn<A: Child>(
        &self,
        spec: ChildSpec,
        arbiter: &ArbiterHandle,
        build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A + Send + 'static,
    ) -> Addr<A> {
        let path = format!("{}/{}", self.path, spec.id);
        let index = self.next.fetch_add(1, Relaxed);
        let (addr, slot, launch) = prepare(path, spec, index, self.addr.clone().recipient(), &self.registry, build);
        // Adopted before it runs, so that no exit comes from an unknown child.
        self.addr.do_send(Adopt(slot));
        arbiter.spawn_fn(launch);
        addr
    }

    /// Starts a supervisor below this one.
    pub fn supervisor(&self, spec: ChildSpec, flags: Flags, arbiter: &ArbiterHandle) -> SupervisorRef {
        let path = format!("{}/{}", self.path, spec.id);
        let addr = self.spawn(spec, arbiter, move |_, vitals| Supervisor::new(flags, vitals));
        SupervisorRef { addr, path, registry: self.registry.clone(), next: Arc::default() }
    }
}

fn prepare<A: Child>(
    path: String,
    spec: ChildSpec,
    index: usize,
    supervisor: Recipient<ChildExited>,
    registry: &Registry,
    build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A + Send + 'static,
) -> (Addr<A>, Slot, impl FnOnce() + Send + 'static) {
    let (sender, receiver) = channel(spec.mailbox);
    let (commands, inbox) = mpsc::unbounded_channel();
    let addr = Addr::new(sender);
    let vitals = Vitals::new(registry.epoch);
    registry.add(path, vitals.clone(), commands.clone(), spec.shutdown);
    let reporter = Reporter { slot: index, vitals: vitals.clone(), supervisor, armed: true };
    let for_actor = vitals.clone();
    let launch = move || {
        actix_rt::spawn(child::run(receiver, move |ctx| build(ctx, for_actor), inbox, reporter));
    };
    let slot = Slot {
        index,
        spec,
        vitals,
        commands,
        attempts: 0,
        last_restart: Instant::now(),
        superseded: 0,
        ended: false,
        _mailbox: Box::new(addr.clone()),
    };
    (addr, slot, launch)
}

/// The top of the tree. When it fails, the process should drain, exit and be started anew.
pub struct Root {
    pub top: SupervisorRef,
    pub registry: Registry,
    failed: oneshot::Receiver<Exit>,
    _slot: Slot,
}

impl Root {
    pub fn start(flags: Flags) -> Root {
        let registry = Registry::default();
        let (tell, failed) = oneshot::channel();
        let spec = ChildSpec { restart: Restart::Temporary, ..ChildSpec::permanent("root") };
        let build = move |_: &mut Context<Supervisor>, vitals| Supervisor::new(flags, vitals);
        let roof = Roof(Some(tell)).start().recipient();
        let (addr, _slot, launch) = prepare("root".into(), spec, 0, roof, &registry, build);
        System::current().arbiter().spawn_fn(launch);
        let top = SupervisorRef { addr, path: "root".into(), registry: registry.clone(), next: Arc::default() };
        Root { top, registry, failed, _slot }
    }

    /// Resolves when the tree gave up.
    pub async fn failed(&mut self) -> Exit {
        (&mut self.failed).await.unwrap_or(Exit::Vanished)
    }
}

/// Turns the exit of the top supervisor into the result of [`Root::failed`].
struct Roof(Option<oneshot::Sender<Exit>>);

impl Actor for Roof {
    type Context = Context<Self>;
}

impl Handler<ChildExited> for Roof {
    type Result = ();

    fn handle(&mut self, exited: ChildExited, _: &mut Self::Context) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(exited.exit);
        }
    }
}
