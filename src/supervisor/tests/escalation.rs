//! What a failure does to the tree above it.

use super::*;

fn strict() -> Policy {
    Policy { intensity: Intensity { max_restarts: 1, period: seconds(600) }, ..policy() }
}

async fn crash(worker: &Addr<Worker>, times: usize) {
    for _ in 0..times {
        assert!(worker.send(Deed::Panic).await.is_err());
    }
}

#[actix::test]
async fn a_crash_loop_fails_its_supervisor_and_in_the_end_the_root() {
    tokio::time::pause();
    let root = Root::start(strict());
    let writers = root.top.supervisor(ChildSpec::permanent("writers"), policy()).unwrap();
    let (trades, gaps) = (writers.worker("trades"), writers.worker("gaps"));
    let spool = root.top.worker("spool");

    crash(&trades, 3).await;
    assert_eq!(trades.send(Deed::Count).await, Ok(1));
    assert_eq!((root.restarts("writers/trades"), root.restarts("writers")), (3, 0));
    assert_eq!((gaps.send(Deed::Count).await, spool.send(Deed::Count).await), (Ok(1), Ok(1)));

    crash(&trades, 1).await;
    assert_eq!(trades.send(Deed::Count).await, Ok(1), "restarted with its supervisor");
    assert_eq!((root.restarts("writers/trades"), root.restarts("writers")), (4, 1));
    assert_eq!(gaps.send(Deed::Count).await, Ok(1), "anew, as its supervisor is");
    assert_eq!(spool.send(Deed::Count).await, Ok(2), "none of its business");

    crash(&trades, 4).await;
    let outcome = root.failed().await;
    assert!(matches!(outcome, Outcome::GaveUp(_)));
    assert_eq!(
        outcome.to_string(),
        "gave up: writers restarted too often (1 in 600 s), last: \
         writers/trades restarted too often (3 in 60 s), last: panicked: boom"
    );
    assert_eq!(root.failed().await, outcome, "whoever asks later hears the same");
    assert_eq!((gaps.send(Deed::Count).await, spool.send(Deed::Count).await), (Ok(2), Ok(3)));
    assert_eq!(root.shutdown().await, []);
}

#[actix::test]
async fn siblings_that_fail_once_each_are_not_a_crash_loop() {
    let root = root();
    let workers: Vec<_> = (0..10).map(|n| root.top.worker(&format!("writer-{n}"))).collect();
    for worker in &workers {
        crash(worker, 2).await;
    }
    for worker in &workers {
        assert_eq!(worker.send(Deed::Count).await, Ok(1));
    }
}

#[actix::test]
async fn what_no_restart_can_cure_goes_straight_up() {
    let root = root();
    let shard = root.top.supervisor(ChildSpec::permanent("shard"), policy()).unwrap();
    let session = shard.scripted(ChildSpec::temporary("session"), Script::default());
    session.send(Deed::FailFatally).await.ok();
    let outcome = root.failed().await;
    assert!(matches!(outcome, Outcome::Fatal(_)));
    assert_eq!(outcome.to_string(), "cannot go on: shard/session: the key is refused");
    assert_eq!((root.restarts("shard/session"), root.restarts("shard")), (0, 0));
}

#[actix::test]
async fn what_is_fatal_stays_fatal_when_the_actor_panics_over_it() {
    let root = root();
    let session = root.top.scripted(ChildSpec::permanent("session"), Script::panic_in(Hook::Stopping, 1));
    session.send(Deed::FailFatally).await.ok();
    assert_eq!(root.failed().await.to_string(), "cannot go on: session: the key is refused");
}

#[actix::test]
async fn a_failure_from_before_its_supervisor_began_anew_does_not_count() {
    tokio::time::pause();
    let wait = Backoff { base: seconds(10), max: seconds(10) };
    let root = Root::start(Policy { backoff: wait, ..policy() });
    let twice = Policy { intensity: Intensity { max_restarts: 1, period: seconds(600) }, ..policy() };
    let group = root.top.supervisor(ChildSpec::permanent("group"), twice).unwrap();
    let (looping, sibling) = (group.worker("looping"), group.worker("sibling"));
    crash(&looping, 2).await;
    crash(&sibling, 1).await;
    assert_eq!(sibling.send(Deed::Count).await, Ok(1));
    assert_eq!(root.restarts("group"), 1);
    crash(&sibling, 1).await;
    sleep(seconds(20)).await;
    assert_eq!(root.restarts("group"), 1);
}

#[actix::test]
async fn a_hang_is_no_excuse_for_a_crash_loop() {
    let root = root();
    let spec = ChildSpec { stall_after: seconds(5), ..ChildSpec::permanent("worker") };
    let worker = root.top.scripted(spec, Script { start_takes: seconds(10), ..Script::default() });
    let text = root.failed().await.to_string();
    assert!(text.starts_with("gave up: worker restarted too often (3 in 60 s), last: hung for 5"), "{text}");
    drop(worker);
}

/// Looks often and waits little, for tests in which a real thread blocks for real time.
fn quick() -> (Policy, impl Fn(&str) -> ChildSpec) {
    let spec = |id: &str| ChildSpec { stall_after: seconds(1), drain_within: seconds(10), ..ChildSpec::permanent(id) };
    (Policy { check_every: millis(20), ..policy() }, spec)
}

#[actix::test]
async fn a_blocked_thread_ends_the_process_after_the_others_have_drained() {
    let (policy, spec) = quick();
    let root = Root::start(policy);
    let (sick_thread, sound_thread) = (Arbiter::new(), Arbiter::new());
    let group = root.top.supervisor(ChildSpec::permanent("group"), policy).unwrap();
    let script = Script::default();
    let innocent = group.scripted_on(&sick_thread.handle(), spec("innocent"), script.clone());
    let sick = group.scripted_on(&sick_thread.handle(), spec("sick"), script.clone());
    let sound = root.top.scripted_on(&sound_thread.handle(), spec("sound"), script.clone());
    assert_eq!((innocent.send(Deed::Count).await, sick.send(Deed::Count).await), (Ok(1), Ok(1)));

    let (unblock, until) = mpsc::channel();
    let begun = Instant::now();
    let blocked = sick.send(Deed::Block(until));
    let outcome = tokio::time::timeout(seconds(10), root.failed()).await.expect("the block is noticed");
    assert!(matches!(&outcome, Outcome::Blocked(Exit::Blocked { path, .. }) if path == "group/sick"), "{outcome}");
    assert!(begun.elapsed() >= millis(500));
    assert_eq!(sound.send(Deed::Count).await, Ok(1));

    let live = root.registry.live();
    let complaint = Complaint { path: "group/sick".into(), why: "its thread is blocked".into() };
    assert!(!live.ok && live.complaints.contains(&complaint), "{live:?}");
    let report = root.registry.snapshot().into_iter().find(|report| report.path == "group/sick").unwrap();
    assert!(report.state == State::Blocked && report.poll_ms >= 500, "{report:?}");

    let undrained = root.shutdown().await;
    let texts: Vec<_> = undrained.iter().map(ToString::to_string).collect();
    let (sick, innocent) = ("group/sick: its thread does not answer", "group/innocent: its thread does not answer");
    assert_eq!(texts, [sick, innocent]);
    assert_eq!(script.lines(), ["sound drained after 1"]);

    drop(unblock);
    assert_eq!(blocked.await, Ok(2), "a thread that does come back drains after all");
}

#[actix::test]
async fn a_child_that_never_starts_because_its_thread_is_blocked_is_noticed() {
    let (policy, spec) = quick();
    let root = Root::start(policy);
    let (arbiter, (unblock, until)) = (Arbiter::new(), mpsc::channel::<()>());
    arbiter.spawn_fn(move || {
        until.recv().ok();
    });
    let worker = root.top.scripted_on(&arbiter.handle(), spec("worker"), Script::default());
    let outcome = tokio::time::timeout(seconds(10), root.failed()).await.expect("the block is noticed");
    assert!(matches!(outcome, Outcome::Blocked(_)), "{outcome}");
    assert_eq!(root.shutdown().await.len(), 1);
    drop((unblock, worker));
}

#[actix::test]
async fn an_exit_on_another_thread_is_never_missed() {
    let arbiter = Arbiter::new();
    for _ in 0..200 {
        let root = Root::start(policy());
        let build = |_: &mut Context<Worker>, _| panic!("no store");
        let _worker: Addr<Worker> = root.top.spawn(ChildSpec::permanent("worker"), &arbiter.handle(), build).unwrap();
        let outcome = tokio::time::timeout(seconds(5), root.failed()).await.expect("the exit is heard of");
        assert!(matches!(outcome, Outcome::GaveUp(Exit::Unbuilt { .. })));
    }
}

#[actix::test]
async fn an_arbiter_that_ends_takes_its_actors_with_it_and_is_noticed() {
    for ended_before in [false, true] {
        let root = Root::start(policy());
        let mut arbiter = Arbiter::new();
        let handle = arbiter.handle();
        if ended_before {
            arbiter.stop();
            arbiter.join().unwrap();
            arbiter = Arbiter::new();
        }
        let worker = root.top.scripted_on(&handle, ChildSpec::permanent("worker"), Script::default());
        if !ended_before {
            worker.send(Deed::Count).await.unwrap();
            handle.stop();
        }
        let outcome = tokio::time::timeout(seconds(5), root.failed()).await.expect("the end is noticed");
        assert_eq!(outcome.to_string(), "gave up: worker vanished with its arbiter");
        assert_eq!(root.shutdown().await, []);
        drop(arbiter);
    }
}
