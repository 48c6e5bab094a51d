//! Decides what a failure means for the children of one supervisor.
//!
//! In: [`ChildExited`] from its children, and a look at their vitals each `check_every`.
//! Out: an order to the child's runner, or its own end, which its parent treats as any failure.
//! After a restart of its own it begins anew with all its children: their counts are cleared.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::child::{Child, ChildExited, Command};
use super::exit::Exit;
use super::policy::{Policy, Restart, RestartWindow};
use super::registry::{Member, Registry};
use super::vitals::{State, Vitals, lock};

/// The children of one supervisor, shared with the handle that adds them: so a child is known
/// before its first line runs, and no exit comes from a stranger.
pub(super) type Children = Arc<Mutex<Vec<Slot>>>;

/// What a supervisor keeps of one child.
pub(super) struct Slot {
    member: Arc<Member>,
    window: RestartWindow,
    /// Restarts since it last was well for longer than the intensity's period.
    attempts: u32,
    /// The newest incarnation that was told to restart; its exit is old news.
    superseded: u32,
    /// The back-off it was then given, and when that is over.
    backoff: Duration,
    up_at: Instant,
}

/// What is to be done about an exit.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Restart(Duration),
    /// It has ended, and that is how it should be.
    Remove,
    /// The supervisor fails with it.
    Escalate(Exit),
}

impl Slot {
    pub(super) fn new(member: Arc<Member>) -> Slot {
        let (window, backoff, up_at) = (RestartWindow::default(), Duration::ZERO, Instant::now());
        Slot { member, window, attempts: 0, superseded: 0, backoff, up_at }
    }

    /// `spread` is uniform in `0..1`.
    fn answer(&mut self, exit: &Exit, policy: &Policy, now: Instant, spread: f64) -> Answer {
        let wanted = match self.member.spec.restart {
            Restart::Permanent => true,
            Restart::Transient => exit.is_failure(),
            Restart::Temporary => false,
        };
        if !wanted && !exit.concerns_the_process() {
            return Answer::Remove;
        }
        if exit.is_final() {
            return Answer::Escalate(exit.clone());
        }
        if !self.window.admit(now, policy.intensity) {
            return Answer::Escalate(Exit::CrashLoop {
                path: self.member.path().into(),
                restarts: policy.intensity.max_restarts,
                period: policy.intensity.period,
                last: Box::new(exit.clone()),
            });
        }
        if now.saturating_duration_since(self.up_at) > policy.intensity.period {
            self.attempts = 0;
        }
        let after = policy.backoff.delay(self.attempts, spread);
        self.attempts += 1;
        Answer::Restart(after)
    }

    fn restart(&mut self, of: u32, after: Duration) {
        self.superseded = of;
        self.backoff = after;
        self.up_at = Instant::now() + after;
        self.member.tell(Command::Restart { of, after });
    }

    /// What the vitals tell and the child itself cannot. `asleep` is how long the supervisor itself
    /// was not served: if the whole process stood still, the child's silence means nothing.
    fn diagnose(&self, asleep: Duration) -> Option<Exit> {
        let Member { vitals, spec, .. } = &*self.member;
        let overdue = |time: Duration| time.saturating_sub(asleep) >= spec.stall_after;
        let state = vitals.state();
        let thread_silence = vitals.thread_silence();
        if !matches!(state, State::Stopped | State::Blocked) && overdue(thread_silence) {
            return Some(Exit::Blocked { path: self.member.path().into(), time: thread_silence });
        }
        let told = self.superseded >= vitals.incarnation();
        let expected = if told { self.backoff } else { Duration::ZERO };
        match state {
            State::Starting | State::Running if !told && overdue(vitals.silence()) => Some(Exit::Stalled(vitals.silence())),
            State::Down if overdue(vitals.state_time().saturating_sub(expected)) => Some(Exit::Forgotten(vitals.state_time())),
            _ => None,
        }
    }
}

/// Watches over children that are added from outside.
pub(super) struct Supervisor {
    vitals: Arc<Vitals>,
    policy: Policy,
    children: Children,
    registry: Registry,
    last_check: Instant,
    has_failed: bool,
}

impl Supervisor {
    pub(super) fn new(vitals: Arc<Vitals>, policy: Policy, children: Children, registry: Registry) -> Supervisor {
        Supervisor { vitals, policy, children, registry, last_check: Instant::now(), has_failed: false }
    }

    fn on_exit(&mut self, member: &Arc<Member>, incarnation: u32, exit: &Exit, ctx: &mut Context<Self>) {
        let mut children = lock(&self.children);
        let Some(slot) = children.iter_mut().find(|slot| Arc::ptr_eq(&slot.member, member)) else { return };
        if member.is_stopping() && !exit.concerns_the_process() {
            return;
        }
        let path = member.path();
        match slot.answer(exit, &self.policy, Instant::now(), rand::random()) {
            Answer::Restart(after) => {
                warn!(actor = path, %exit, restarts = member.vitals.restarts(), ?after, "restarting");
                slot.restart(incarnation, after);
            }
            Answer::Remove => {
                if exit.is_failure() {
                    warn!(actor = path, %exit, "ended, and is not restarted");
                } else {
                    info!(actor = path, "ended");
                }
                let (registry, path) = (self.registry.clone(), path.to_string());
                actix_rt::spawn(async move { registry.stop(path).await });
            }
            Answer::Escalate(exit) => {
                error!(actor = path, %exit, "its supervisor gives up");
                self.vitals.fail_with(exit);
                ctx.stop();
            }
        }
    }

    fn begin_anew(&mut self) {
        for slot in lock(&self.children).iter_mut().filter(|slot| !slot.member.is_stopping()) {
            *slot = Slot::new(slot.member.clone());
            slot.restart(slot.member.vitals.incarnation(), Duration::ZERO);
        }
    }

    /// Not by `run_interval`, which makes up for missed rounds: after a standstill of the process
    /// the children must have time for a sign of life.
    fn check_later(&mut self, ctx: &mut Context<Self>) {
        ctx.run_later(self.policy.check_every, |supervisor, ctx| {
            supervisor.check(ctx);
            supervisor.check_later(ctx);
        });
    }

    fn check(&mut self, ctx: &mut Context<Self>) {
        let asleep = self.last_check.elapsed().saturating_sub(self.policy.check_every);
        self.last_check = Instant::now();
        let mut findings = Vec::new();
        {
            let mut children = lock(&self.children);
            children.retain(|slot| !(slot.member.is_stopping() && slot.member.vitals.state() == State::Stopped));
            for slot in children.iter() {
                if let Some(exit) = slot.diagnose(asleep) {
                    findings.push((slot.member.clone(), slot.member.vitals.incarnation(), exit));
                }
            }
        }
        // Of those on a blocked thread the one that blocks it is named.
        findings.sort_by_key(|(member, ..)| std::cmp::Reverse(member.vitals.poll_time()));
        for (member, incarnation, exit) in findings {
            member.vitals.record_failure(&exit);
            if matches!(exit, Exit::Blocked { .. }) {
                member.vitals.set_state(State::Blocked);
            }
            self.on_exit(&member, incarnation, &exit, ctx);
            if ctx.state() != ActorState::Running {
                return;
            }
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if self.has_failed {
            self.begin_anew();
        }
        self.last_check = Instant::now();
        self.check_later(ctx);
    }
}

impl Supervised for Supervisor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.has_failed = true;
    }
}

impl Child for Supervisor {}

impl Handler<ChildExited> for Supervisor {
    type Result = ();

    fn handle(&mut self, ChildExited { member, incarnation, exit }: ChildExited, ctx: &mut Context<Self>) {
        let superseded = |slot: &Slot| Arc::ptr_eq(&slot.member, &member) && incarnation <= slot.superseded;
        let is_old_news = lock(&self.children).iter().any(superseded);
        if !is_old_news || exit.is_final() {
            self.on_exit(&member, incarnation, &exit, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{ChildSpec, Intensity};
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn slot(spec: ChildSpec) -> Slot {
        Slot::new(Member::new("a".into(), spec).0)
    }

    #[tokio::test(start_paused = true)]
    async fn the_restart_type_decides_and_what_concerns_the_process_goes_up() {
        let now = Instant::now();
        let failed = Exit::Failed("no".into());
        let fatal = Exit::Fatal { path: "a".into(), reason: "no".into() };
        let vanished = Exit::Vanished { path: "a".into() };
        let answer = |spec, exit: &Exit| slot(spec).answer(exit, &Policy::default(), now, 1.0);
        let restart = Answer::Restart(Duration::from_millis(100));

        assert_eq!(answer(ChildSpec::permanent("a"), &Exit::Stopped), restart);
        assert_eq!(answer(ChildSpec::permanent("a"), &failed), restart);
        assert_eq!(answer(ChildSpec::transient("a"), &Exit::Stopped), Answer::Remove);
        assert_eq!(answer(ChildSpec::transient("a"), &failed), restart);
        assert_eq!(answer(ChildSpec::temporary("a"), &failed), Answer::Remove);
        assert_eq!(answer(ChildSpec::temporary("a"), &vanished), Answer::Remove);
        assert_eq!(answer(ChildSpec::permanent("a"), &vanished), Answer::Escalate(vanished.clone()));
        assert_eq!(answer(ChildSpec::temporary("a"), &fatal), Answer::Escalate(fatal.clone()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_was_forgotten_is_restarted() {
        let mut slot = slot(ChildSpec::permanent("a"));
        let vitals = slot.member.vitals.clone();
        vitals.begins();
        vitals.set_state(State::Down);
        tokio::time::advance(seconds(29)).await;
        vitals.thread_turns();
        assert_eq!(slot.diagnose(Duration::ZERO), None);
        tokio::time::advance(seconds(1)).await;
        assert_eq!(slot.diagnose(Duration::ZERO), Some(Exit::Forgotten(seconds(30))));

        slot.restart(1, seconds(40));
        assert_eq!(slot.diagnose(Duration::ZERO), None, "it is in back-off");
        tokio::time::advance(seconds(40)).await;
        vitals.thread_turns();
        assert_eq!(slot.diagnose(Duration::ZERO), Some(Exit::Forgotten(seconds(70))), "it did not obey");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hang_counts_once() {
        let mut slot = slot(ChildSpec::permanent("a"));
        slot.member.vitals.begins();
        tokio::time::advance(seconds(30)).await;
        slot.member.vitals.thread_turns();
        assert_eq!(slot.diagnose(Duration::ZERO), Some(Exit::Stalled(seconds(30))));
        slot.restart(1, Duration::ZERO);
        assert_eq!(slot.diagnose(Duration::ZERO), None, "it has not obeyed yet");
    }

    #[actix::test]
    async fn an_exit_that_was_overtaken_by_a_stop_is_nobodys_business() {
        let policy = Policy { intensity: Intensity { max_restarts: 0, period: seconds(1) }, ..Policy::default() };
        for (stopping, expected) in [(false, ActorState::Stopping), (true, ActorState::Running)] {
            let member = Member::new("a".into(), ChildSpec::permanent("a")).0;
            let children = Children::new(Mutex::new(vec![Slot::new(member.clone())]));
            let mut ctx = Context::new();
            let vitals = Vitals::unsupervised("root");
            let mut supervisor = Supervisor::new(vitals, policy, children, Registry::default());
            if stopping {
                member.begin_to_stop();
            }
            supervisor.on_exit(&member, 1, &Exit::Stopped, &mut ctx);
            assert_eq!(ctx.state(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_blames_no_child() {
        let slot = slot(ChildSpec::permanent("a"));
        slot.member.vitals.begins();
        slot.member.vitals.set_state(State::Running);
        tokio::time::advance(seconds(3600)).await;
        assert_eq!(slot.diagnose(seconds(3599)), None);
        assert!(matches!(slot.diagnose(Duration::ZERO), Some(Exit::Blocked { .. })));
        slot.member.vitals.thread_turns();
        assert_eq!(slot.diagnose(seconds(3599)), None);
        assert!(matches!(slot.diagnose(Duration::ZERO), Some(Exit::Stalled(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_starts_again_after_a_quiet_period() {
        let policy = Policy::default();
        let mut slot = slot(ChildSpec::permanent("a"));
        let mut fail = || {
            let Answer::Restart(after) = slot.answer(&Exit::Stopped, &policy, Instant::now(), 1.0) else {
                panic!("restarts are left")
            };
            slot.restart(1, after);
            after.as_millis()
        };
        assert_eq!([fail(), fail(), fail()], [100, 200, 400]);
        tokio::time::advance(seconds(30)).await;
        assert_eq!(fail(), 800, "it has been up for 29.6 s only");
        tokio::time::advance(seconds(31)).await;
        assert_eq!(fail(), 100);
    }
}
