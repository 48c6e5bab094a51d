//! Plants the tree: the root, supervisors below it, children below them.

use std::sync::Arc;

use actix::dev::channel::channel;
use actix::prelude::*;
use tokio::sync::watch;

use super::child::{Child, ChildExited, Runner};
use super::exit::Outcome;
use super::policy::{ChildSpec, Policy};
use super::registry::{Member, ROOT, Registry, SpawnError, Undrained};
use super::supervisor::{Children, Slot, Supervisor};
use super::vitals::{Vitals, lock};

/// Starts and stops the children of one supervisor. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct SupervisorRef {
    addr: Addr<Supervisor>,
    member: Arc<Member>,
    children: Children,
    registry: Registry,
    /// Where supervisors live, with nothing that could block them.
    home: ArbiterHandle,
}

impl SupervisorRef {
    /// Starts an actor on `arbiter`. Its address and its queue stay valid over restarts.
    ///
    /// `build` only puts the actor together; what can fail belongs into `started`.
    pub fn spawn<A: Child>(
        &self,
        spec: ChildSpec,
        arbiter: &ArbiterHandle,
        build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A + Send + 'static,
    ) -> Result<Addr<A>, SpawnError> {
        self.plant(spec, arbiter, build).map(|(addr, _)| addr)
    }

    /// Starts a supervisor below this one.
    pub fn supervisor(&self, spec: ChildSpec, policy: Policy) -> Result<SupervisorRef, SpawnError> {
        let (children, registry) = (Children::default(), self.registry.clone());
        let build = supervisor(policy, &children, &registry);
        let (addr, member) = self.plant(spec, &self.home, build)?;
        Ok(SupervisorRef { addr, member, children, registry, home: self.home.clone() })
    }

    /// Drains, stops and removes the child `id`, and what is below it in reverse of the start order.
    /// Afterwards the id is free. A child that is not there has been stopped already.
    ///
    /// Returns who did not drain. Goes on if the caller is dropped meanwhile; needs a runtime.
    pub async fn stop(&self, id: &str) -> Vec<Undrained> {
        self.registry.stop(self.path_of(id)).await
    }

    fn path_of(&self, id: &str) -> String {
        if self.member.path() == ROOT { id.into() } else { format!("{}/{id}", self.member.path()) }
    }

    fn plant<A: Child>(
        &self,
        spec: ChildSpec,
        arbiter: &ArbiterHandle,
        build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A + Send + 'static,
    ) -> Result<(Addr<A>, Arc<Member>), SpawnError> {
        let (member, commands) = Member::new(self.path_of(&spec.id), spec);
        self.registry.add(&member, Some(&self.member))?;
        lock(&self.children).push(Slot::new(member.clone()));
        let supervisor = self.addr.clone();
        #[expect(clippy::disallowed_methods, reason = "the child must not wait; a supervisor that is gone is past caring")]
        let report = Box::new(move |exited: ChildExited| supervisor.do_send(exited));
        let addr = launch(Runner::new(member.clone(), commands, report), member.spec.mailbox, arbiter, build);
        Ok((addr, member))
    }
}

/// The top of the tree. When it fails, the process should drain, exit, and be started anew.
pub struct Root {
    /// Starts what is directly below the root.
    pub top: SupervisorRef,
    /// All actors of the tree.
    pub registry: Registry,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Root {
    /// Starts the root supervisor on the system's arbiter. Must be called on one.
    pub fn start(policy: Policy) -> Root {
        let home = System::current().arbiter().clone();
        let (children, registry) = (Children::default(), Registry::default());
        let (member, commands) = Member::new(ROOT.into(), ChildSpec::permanent(ROOT));
        registry.add(&member, None).expect("the registry is new, so there is no other root");
        let (tell, outcome) = watch::channel(None);
        let report = Box::new(move |ChildExited { exit, .. }| {
            tell.send_replace(Some(Outcome::from(exit)));
        });
        let build = supervisor(policy, &children, &registry);
        let addr = launch(Runner::new(member.clone(), commands, report), member.spec.mailbox, &home, build);
        let top = SupervisorRef { addr, member, children, registry: registry.clone(), home };
        Root { top, registry, outcome }
    }

    /// Resolves when the tree gave up, and then each time it is asked. An ordered stop is no failure.
    pub async fn failed(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => std::future::pending().await, // Stopped in order.
        }
    }

    /// See [`Registry::shutdown`].
    pub async fn shutdown(&self) -> Vec<Undrained> {
        self.registry.shutdown().await
    }
}

fn supervisor(
    policy: Policy,
    children: &Children,
    registry: &Registry,
) -> impl FnOnce(&mut Context<Supervisor>, Arc<Vitals>) -> Supervisor + Send + use<> {
    let (children, registry) = (children.clone(), registry.clone());
    move |_, vitals| Supervisor::new(vitals, policy, children, registry)
}

/// Starts the runner on the arbiter. If that has ended, the runner's `Drop` reports it.
fn launch<A: Child>(
    runner: Runner,
    mailbox: usize,
    arbiter: &ArbiterHandle,
    build: impl FnOnce(&mut Context<A>, Arc<Vitals>) -> A + Send + 'static,
) -> Addr<A> {
    let (sender, receiver) = channel(mailbox);
    arbiter.spawn_fn(move || {
        actix_rt::spawn(runner.run(receiver, build));
    });
    Addr::new(sender)
}
