//! How actors are stopped: all of them, one of them, and while others fail.

use super::*;

fn slow_drain(drain_takes: Duration) -> Script {
    Script { drain_takes, ..Script::default() }
}

#[actix::test]
async fn the_last_started_is_stopped_first_and_each_works_off_its_queue() {
    let root = root();
    let script = slow_drain(millis(20));
    let mut queued = Vec::new();
    for id in ["sink", "middle", "source"] {
        let worker = root.top.scripted(ChildSpec { mailbox: 1000, ..ChildSpec::permanent(id) }, script.clone());
        queued.extend((0..1000).map(|_| worker.send(Deed::Count)));
    }
    assert_eq!(root.shutdown().await, []);
    let lines = ["source drained after 1000", "middle drained after 1000", "sink drained after 1000"];
    assert_eq!(script.lines(), lines);
    for count in queued {
        assert!(count.await.is_ok());
    }
    assert!(root.registry.snapshot().iter().all(|report| report.state == State::Stopped));
}

#[actix::test]
async fn a_wait_in_progress_is_finished_before_the_drain() {
    let root = root();
    let worker = root.top.worker("worker");
    let (upload, behind) = (worker.send(Deed::Wait(seconds(3))), worker.send(Deed::Count));
    assert_eq!(root.shutdown().await, []);
    assert_eq!((upload.await, behind.await), (Ok(1), Ok(2)));
}

#[actix::test]
async fn who_misses_the_deadline_is_named_and_the_others_are_not_kept_waiting() {
    let root = root();
    let script = Script::default();
    let sink = root.top.scripted(ChildSpec::permanent("sink"), script.clone());
    let slow = root.top.scripted(ChildSpec::permanent("slow"), slow_drain(seconds(3600)));
    let hanging = root.top.worker("hanging");
    let hang = hanging.send(Deed::Hang);
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let undrained: Vec<_> = root.shutdown().await.iter().map(ToString::to_string).collect();
    assert_eq!(undrained, ["hanging: not drained within 5 s", "slow: not drained within 5 s"]);
    assert!(begun.elapsed() < seconds(11));
    assert_eq!(script.lines(), ["sink drained after 0"]);
    assert!(hang.await.is_err() && !sink.connected() && !slow.connected());
}

#[actix::test]
async fn neighbours_that_may_drain_together_share_the_time() {
    let root = root();
    let script = slow_drain(seconds(4));
    let group = root.top.supervisor(ChildSpec::permanent("group"), policy()).unwrap();
    for id in ["a", "b", "c"] {
        group.scripted(ChildSpec { together: true, ..ChildSpec::permanent(id) }, script.clone());
    }
    root.top.scripted(ChildSpec { together: true, ..ChildSpec::permanent("source") }, script.clone());
    let begun = Instant::now();
    assert_eq!(root.shutdown().await, []);
    // Paused time: the source by itself, as it has another parent, then all of the group at once.
    assert_eq!(begun.elapsed().as_secs(), 8);
    let lines = script.lines();
    assert_eq!((lines.len(), lines[0].as_str()), (4, "source drained after 0"));
}

#[actix::test]
async fn a_panic_while_draining_is_named_and_not_restarted() {
    tokio::time::pause();
    for (hook, text) in [(Some(Hook::Drain), "in Drain"), (Some(Hook::Stopped), "in Stopped"), (None, "boom")] {
        let root = Root::start(policy());
        let script = hook.map_or_else(Script::default, |hook| Script::panic_in(hook, 1));
        let worker = root.top.scripted(ChildSpec::permanent("worker"), script);
        let _queued = hook.is_none().then(|| worker.send(Deed::Panic));
        let undrained: Vec<_> = root.shutdown().await.iter().map(ToString::to_string).collect();
        assert_eq!(undrained, [format!("worker: failed while draining: panicked: {text}")]);
        assert_eq!(root.restarts("worker"), 0);
    }
}

#[actix::test]
async fn a_child_in_backoff_is_stopped_at_once() {
    tokio::time::pause();
    let backoff = Backoff { base: seconds(600), max: seconds(600) };
    let root = Root::start(Policy { backoff, ..policy() });
    let script = Script::default();
    let worker = root.top.scripted(ChildSpec::permanent("worker"), script.clone());
    worker.send(Deed::Panic).await.unwrap_err();
    let behind = worker.send(Deed::Count);
    sleep(seconds(1)).await;
    let begun = Instant::now();
    assert_eq!(root.top.stop("worker").await, []);
    assert!(begun.elapsed() < seconds(1));
    assert_eq!(behind.await, Err(MailboxError::Closed), "its sender learns that nobody will answer");
    assert_eq!(script.starts.load(SeqCst), 1, "and it is not started only to be stopped");
}

#[actix::test]
async fn a_tree_that_gave_up_can_still_be_stopped_in_order() {
    let root = root();
    let group = root.top.supervisor(ChildSpec::permanent("group"), policy()).unwrap();
    let script = Script::default();
    let sink = group.scripted(ChildSpec::permanent("sink"), script.clone());
    let source = group.scripted(ChildSpec::permanent("source"), script.clone());
    let broken = root.top.worker("broken");
    broken.send(Deed::FailFatally).await.ok();
    sink.send(Deed::FailFatally).await.ok();
    root.failed().await;
    let begun = Instant::now();
    assert_eq!(root.shutdown().await, []);
    assert!(begun.elapsed() < seconds(1));
    assert_eq!(script.lines(), ["group/source drained after 0"], "the others were down");
    assert!(!sink.connected() && !source.connected() && !broken.connected());
}

#[actix::test]
async fn what_others_still_need_is_restarted_during_the_shutdown() {
    let root = root();
    let sink = root.top.worker("sink");
    let _source = root.top.scripted(ChildSpec::permanent("source"), slow_drain(seconds(3)));
    let registry = root.registry.clone();
    let shutdown = actix_rt::spawn(async move { registry.shutdown().await });
    sleep(seconds(1)).await;
    sink.send(Deed::Panic).await.unwrap_err();
    assert_eq!(sink.send(Deed::Count).await, Ok(1));
    assert_eq!(shutdown.await.unwrap(), []);
    assert_eq!(root.restarts("sink"), 1);
}

#[actix::test]
async fn what_is_being_stopped_is_not_restarted() {
    let root = root();
    let spec = ChildSpec { drain_within: seconds(600), ..ChildSpec::permanent("worker") };
    let worker = root.top.scripted(spec, slow_drain(seconds(300)));
    let stop = root.top.stop("worker").await;
    assert_eq!(stop, [], "a long drain is not a hang");
    assert!(!worker.connected());
    sleep(seconds(60)).await;
    assert_eq!(root.registry.snapshot().len(), 1);
}

#[actix::test]
async fn children_come_and_go() {
    let root = root();
    let writers = root.top.supervisor(ChildSpec::permanent("writers"), policy()).unwrap();
    let script = slow_drain(seconds(1));
    for round in 0..3 {
        let worker = writers.scripted(ChildSpec::permanent("trades-0"), script.clone());
        assert_eq!(worker.send(Deed::Count).await, Ok(1));
        let twice = writers.spawn(ChildSpec::permanent("trades-0"), System::current().arbiter(), |_, vitals| Worker {
            vitals,
            script: Script::default(),
            handled: 0,
        });
        assert_eq!(twice.err(), Some(SpawnError::Duplicate("writers/trades-0".into())));
        assert_eq!(writers.stop("trades-0").await, []);
        assert!(!worker.connected());
        assert_eq!(script.lines().len(), round + 1);
        assert!(root.registry.vitals("writers/trades-0").is_none());
    }
    assert_eq!(writers.stop("trades-0").await, [], "it has gone already");
    assert_eq!((root.restarts("writers"), root.registry.ready().ok), (0, true));
}

#[actix::test]
async fn a_stop_goes_on_when_nobody_waits_for_it() {
    let root = root();
    let script = slow_drain(seconds(2));
    let worker = root.top.scripted(ChildSpec::permanent("worker"), script.clone());
    tokio::time::timeout(seconds(1), root.top.stop("worker")).await.unwrap_err();
    assert!(root.registry.vitals("worker").is_some());
    sleep(seconds(2)).await;
    assert!(root.registry.vitals("worker").is_none() && !worker.connected());
    assert_eq!(script.lines(), ["worker drained after 0"]);
}

#[actix::test]
async fn to_stop_twice_is_to_wait_for_the_same_end() {
    let root = root();
    let _worker = root.top.scripted(ChildSpec::permanent("worker"), slow_drain(seconds(2)));
    let begun = Instant::now();
    let (first, second) = tokio::join!(root.top.stop("worker"), root.top.stop("worker"));
    assert_eq!((first, second), (vec![], vec![]));
    assert!(begun.elapsed() >= seconds(2));
    root.top.worker("worker");
}

#[actix::test]
async fn a_supervisor_is_stopped_with_all_that_is_below_it() {
    let root = root();
    let script = slow_drain(seconds(1));
    let shard = root.top.supervisor(ChildSpec::permanent("shard"), policy()).unwrap();
    let part = shard.supervisor(ChildSpec::permanent("part"), policy()).unwrap();
    let _validator = shard.scripted(ChildSpec::permanent("validator"), script.clone());
    let _session = part.scripted(ChildSpec::permanent("session"), script.clone());
    let other = root.top.scripted(ChildSpec::permanent("shard-2"), script.clone());

    let stop = root.top.stop("shard");
    let late = async {
        sleep(millis(500)).await;
        let build = |_: &mut Context<Worker>, vitals| Worker { vitals, script: Script::default(), handled: 0 };
        part.spawn(ChildSpec::permanent("late"), System::current().arbiter(), build).err()
    };
    let (undrained, refused) = tokio::join!(stop, late);
    assert_eq!(undrained, []);
    assert_eq!(refused, Some(SpawnError::Stopping("shard/part/late".into())));
    assert_eq!(script.lines(), ["shard/part/session drained after 0", "shard/validator drained after 0"]);
    assert_eq!(other.send(Deed::Count).await, Ok(1));
    let refused = shard.supervisor(ChildSpec::permanent("later"), policy()).err();
    assert_eq!(refused, Some(SpawnError::Stopping("shard/later".into())), "what was stopped stays so");
    let paths: Vec<_> = root.registry.snapshot().into_iter().map(|report| report.path).collect();
    assert_eq!(paths, ["root", "shard-2"]);
}

#[actix::test]
async fn no_child_is_started_when_all_are_being_stopped_or_under_a_bad_name() {
    let root = root();
    for id in ["", "a/b"] {
        let refused = root.top.supervisor(ChildSpec::permanent(id), policy()).err();
        assert_eq!(refused, Some(SpawnError::BadId(id.into())));
    }
    let _slow = root.top.scripted(ChildSpec::permanent("slow"), slow_drain(seconds(2)));
    let late = async {
        sleep(seconds(1)).await;
        root.top.supervisor(ChildSpec::permanent("late"), policy()).err()
    };
    let (undrained, refused) = tokio::join!(root.shutdown(), late);
    assert_eq!((undrained, refused), (vec![], Some(SpawnError::Stopping("late".into()))));
}

#[actix::test]
async fn an_ordered_stop_is_no_failure_and_may_be_asked_for_twice() {
    let root = root();
    let _worker = root.top.worker("worker");
    let (first, second) = tokio::join!(root.shutdown(), root.shutdown());
    assert_eq!((first, second), (vec![], vec![]));
    assert!(tokio::time::timeout(seconds(3600), root.failed()).await.is_err());
}
