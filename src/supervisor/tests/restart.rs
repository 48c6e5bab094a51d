//! What one failure does to one actor.

use super::*;

#[actix::test]
async fn a_panic_loses_the_message_and_nothing_else() {
    let root = root();
    let worker = root.top.worker("worker");
    let counts = [worker.send(Deed::Count), worker.send(Deed::Count)];
    let poison = worker.send(Deed::Panic);
    let behind = [worker.send(Deed::Count), worker.send(Deed::Count)];
    for (count, handled) in counts.into_iter().zip(1..) {
        assert_eq!(count.await, Ok(handled));
    }
    assert_eq!(poison.await, Err(MailboxError::Closed));
    for (count, handled) in behind.into_iter().zip(1..) {
        assert_eq!(count.await, Ok(handled), "the queue is kept, the state is new");
    }
    assert!(worker.connected());
    assert_eq!((root.restarts("worker"), root.last_failure("worker").as_str()), (1, "panicked: boom"));
}

#[actix::test]
async fn a_panic_in_a_future_of_the_actor_restarts_it() {
    let root = root();
    let worker = root.top.worker("worker");
    assert_eq!(worker.send(Deed::PanicLater).await, Err(MailboxError::Closed));
    assert_eq!(worker.send(Deed::PanicAside).await, Ok(1));
    sleep(millis(2)).await;
    assert_eq!(worker.send(Deed::Count).await, Ok(1));
    assert_eq!((root.restarts("worker"), root.last_failure("worker").as_str()), (2, "panicked: aside"));
}

#[actix::test]
async fn an_actor_that_gives_up_is_restarted_and_says_why() {
    let root = root();
    let worker = root.top.worker("worker");
    worker.send(Deed::Fail).await.ok();
    assert_eq!(worker.send(Deed::Count).await, Ok(1));
    assert_eq!((root.restarts("worker"), root.last_failure("worker").as_str()), (1, "the store says no"));
}

#[actix::test]
async fn a_hang_is_cured_and_the_queue_behind_it_served() {
    let root = root();
    let worker = root.top.worker("worker");
    let begun = Instant::now();
    let (hang, behind) = (worker.send(Deed::Hang), worker.send(Deed::Count));
    assert_eq!(hang.await, Err(MailboxError::Closed));
    assert_eq!(behind.await, Ok(1));
    let took = begun.elapsed();
    assert!(seconds(30) <= took && took < seconds(32), "of paused time: {took:?}");
    assert_eq!((root.restarts("worker"), root.last_failure("worker").as_str()), (1, "hung for 30 s"));
}

#[actix::test]
async fn a_hang_in_started_is_cured() {
    let root = root();
    let script = Script { start_takes: seconds(40), ..Script::default() };
    let _worker = root.top.scripted(ChildSpec::permanent("worker"), script);
    sleep(seconds(35)).await;
    assert_eq!((root.restarts("worker"), root.last_failure("worker").as_str()), (1, "hung for 30 s"));
}

#[actix::test]
async fn an_idle_hour_and_a_slow_upload_are_not_hangs() {
    let root = root();
    let worker = root.top.worker("worker");
    sleep(seconds(3600)).await;
    assert_eq!(worker.send(Deed::Wait(seconds(28))).await, Ok(1));
    assert_eq!(root.restarts("worker"), 0);
}

#[actix::test]
async fn a_long_recovery_that_makes_progress_is_not_a_hang() {
    let root = root();
    let worker = root.top.worker("worker");
    assert_eq!(worker.send(Deed::Toil(300)).await, Ok(1));
    assert_eq!(root.restarts("worker"), 0);
}

#[actix::test]
async fn a_frozen_process_is_not_a_hang() {
    let root = root();
    let worker = root.top.worker("worker");
    assert_eq!(worker.send(Deed::Count).await, Ok(1));
    tokio::time::advance(seconds(3600)).await;
    sleep(seconds(10)).await;
    assert_eq!(worker.send(Deed::Count).await, Ok(2));
    assert_eq!((root.restarts("worker"), root.registry.ready().ok), (0, true));
}

#[actix::test]
async fn a_panic_in_a_hook_is_a_failure_like_any_other() {
    tokio::time::pause();
    for hook in [Hook::Started, Hook::Stopping, Hook::Stopped] {
        let root = Root::start(policy());
        let worker = root.top.scripted(ChildSpec::permanent("worker"), Script::panic_in(hook, 1));
        if hook != Hook::Started {
            worker.send(Deed::Fail).await.ok();
        }
        assert_eq!(worker.send(Deed::Count).await, Ok(1), "{hook:?}");
        let text = format!("panicked: in {hook:?}");
        assert_eq!((root.restarts("worker"), root.last_failure("worker")), (1, text));
    }
}

#[actix::test]
async fn an_actor_that_can_not_be_renewed_at_once_gets_another_chance() {
    tokio::time::pause();
    for (panics, restarts) in [(1, 1), (2, 2)] {
        let root = Root::start(policy());
        let worker = root.top.scripted(ChildSpec::permanent("worker"), Script::panic_in(Hook::Restarting, panics));
        assert_eq!(worker.send(Deed::Panic).await, Err(MailboxError::Closed));
        assert_eq!(worker.send(Deed::Count).await, Ok(1));
        assert_eq!(root.restarts("worker"), restarts);
    }
}

#[actix::test]
async fn whoever_waits_for_an_answer_of_a_failed_actor_hears_of_it_at_once() {
    tokio::time::pause();
    let backoff = Backoff { base: seconds(600), max: seconds(600) };
    let root = Root::start(Policy { backoff, ..policy() });
    let (failing, hanging) = (root.top.worker("failing"), root.top.worker("hanging"));
    let begun = Instant::now();
    assert_eq!(failing.send(Deed::Fail).await, Err(MailboxError::Closed));
    assert!(begun.elapsed() < seconds(1));
    assert_eq!(hanging.send(Deed::Hang).await, Err(MailboxError::Closed));
    assert!(begun.elapsed() < seconds(32));
}

#[actix::test]
async fn an_actor_that_can_not_start_makes_the_root_give_up() {
    tokio::time::pause();
    for hook in [Hook::Started, Hook::Restarting] {
        let root = Root::start(policy());
        let worker = root.top.scripted(ChildSpec::permanent("worker"), Script::panic_in(hook, usize::MAX));
        let _behind = worker.send(Deed::Panic);
        let text = format!("gave up: worker restarted too often (3 in 60 s), last: panicked: in {hook:?}");
        assert_eq!(root.failed().await.to_string(), text);
        assert_eq!(root.shutdown().await, []);
        assert!(!worker.connected());
    }
}

#[actix::test]
async fn a_panic_while_being_dropped_stays_where_it_is() {
    let root = root();
    let worker = root.top.scripted(ChildSpec::permanent("worker"), Script::panic_in(Hook::Drop, 1));
    assert_eq!(root.top.stop("worker").await, []);
    assert!(!worker.connected());
    let slow = Script { drain_takes: seconds(60), ..Script::panic_in(Hook::Drop, 1) };
    let _slow = root.top.scripted(ChildSpec::permanent("worker"), slow);
    assert_eq!(root.top.stop("worker").await[0].why, Why::Late(seconds(5)), "and does not hide what went before");
}

#[actix::test]
async fn an_actor_that_was_never_built_can_not_be_restarted() {
    let root = root();
    let arbiter = System::current().arbiter().clone();
    let build = |_: &mut Context<Worker>, _| panic!("no store");
    let worker: Addr<Worker> = root.top.spawn(ChildSpec::permanent("worker"), &arbiter, build).unwrap();
    assert!(worker.send(Deed::Count).await.is_err());
    assert_eq!(root.failed().await.to_string(), "gave up: worker could not be built: no store");
}

#[actix::test]
async fn a_transient_child_may_finish_and_a_temporary_one_may_fail() {
    let root = root();
    let transient = root.top.scripted(ChildSpec::transient("transient"), Script::default());
    let temporary = root.top.scripted(ChildSpec::temporary("temporary"), Script::default());
    transient.send(Deed::Fail).await.ok();
    assert_eq!(transient.send(Deed::Count).await, Ok(1), "restarted after a failure");
    transient.send(Deed::Stop).await.ok();
    temporary.send(Deed::Panic).await.ok();
    sleep(seconds(1)).await;
    assert!(!transient.connected() && !temporary.connected());
    let paths: Vec<_> = root.registry.snapshot().into_iter().map(|report| report.path).collect();
    assert_eq!(paths, ["root"], "they are forgotten, and their ids are free");
}

#[actix::test]
async fn each_wait_is_longer_until_the_actor_was_well_for_a_while() {
    tokio::time::pause();
    let backoff = Backoff { base: seconds(1), max: seconds(60) };
    let root = Root::start(Policy { backoff, ..policy() });
    let worker = root.top.worker("worker");
    let fail = async || {
        let begun = Instant::now();
        worker.send(Deed::Panic).await.unwrap_err();
        worker.send(Deed::Count).await.unwrap();
        begun.elapsed()
    };
    for (shortest, longest) in [(500, 1000), (1000, 2000), (2000, 4000)] {
        let took = fail().await;
        assert!(millis(shortest) <= took && took <= millis(longest + 10), "{took:?}");
    }
    sleep(seconds(62)).await;
    let took = fail().await;
    assert!(took <= millis(1010), "{took:?}");
}
