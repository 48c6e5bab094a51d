//! What `/health`, `/livez` and `/readyz` say.

use super::*;

fn complaint(path: &str, why: &str) -> Complaint {
    Complaint { path: path.into(), why: why.into() }
}

#[actix::test]
async fn the_snapshot_shows_each_actor_in_start_order() {
    let root = root();
    let writers = root.top.supervisor(ChildSpec::permanent("writers"), policy()).unwrap();
    let worker = writers.scripted(ChildSpec::transient("trades"), Script::default());
    worker.send(Deed::Panic).await.unwrap_err();
    worker.send(Deed::Count).await.unwrap();
    sleep(seconds(10)).await;
    let vitals = root.registry.vitals("writers/trades").unwrap();
    vitals.note("lag", "12 s");
    vitals.gauge("lag_records", 7.5);

    let json = serde_json::to_value(root.registry.snapshot()).unwrap();
    let paths: Vec<_> = json.as_array().unwrap().iter().map(|report| report["path"].clone()).collect();
    assert_eq!(paths, ["root", "writers", "writers/trades"]);
    let trades = &json[2];
    assert_eq!((&trades["state"], &trades["restart"]), (&"running".into(), &"transient".into()));
    assert_eq!((&trades["restarts"], &trades["progress"]), (&1.into(), &2.into()));
    assert_eq!((&trades["notes"]["lag"], &trades["gauges"]["lag_records"]), (&"12 s".into(), &7.5.into()));
    assert_eq!(trades["last_failure"]["text"], "panicked: boom");
    assert!(trades["silence_ms"].as_u64() <= Some(500) && trades["poll_ms"] == 0);
    assert!(trades["state_ms"].as_u64() >= Some(9000));
    assert!(json[1]["last_failure"].is_null());
}

#[actix::test]
async fn a_process_is_ready_when_its_permanent_children_run() {
    let root = root();
    let spec = ChildSpec { drain_within: seconds(60), ..ChildSpec::permanent("worker") };
    let script = Script { start_takes: seconds(20), drain_takes: seconds(20), ..Script::default() };
    let worker = root.top.scripted(spec, script);
    let helper = root.top.scripted(ChildSpec::transient("helper"), Script { start_takes: seconds(29), ..Script::default() });
    sleep(seconds(10)).await;
    assert_eq!(root.registry.ready().complaints, [complaint("worker", "starting")]);
    sleep(seconds(11)).await;
    assert!(root.registry.ready().ok, "`started` and its waits are over, and nobody depends on the helper");

    worker.send(Deed::Panic).await.unwrap_err();
    assert_eq!(root.registry.ready().complaints, [complaint("worker", "down: panicked: boom")]);
    sleep(seconds(21)).await;
    assert!(root.registry.ready().ok);

    let registry = root.registry.clone();
    let shutdown = actix_rt::spawn(async move { registry.shutdown().await });
    sleep(seconds(10)).await;
    assert_eq!(root.registry.ready().complaints, [complaint("worker", "draining")]);
    assert!(root.registry.live().ok);
    shutdown.await.unwrap();
    sleep(seconds(60)).await;
    assert!(root.registry.live().ok, "whoever stops in order is not to be killed");
    drop(helper);
}

#[actix::test]
async fn a_child_that_is_stopped_on_purpose_is_not_missed() {
    let root = root();
    let _worker = root.top.scripted(ChildSpec::permanent("worker"), Script { drain_takes: seconds(4), ..Script::default() });
    sleep(seconds(1)).await;
    let (_, ready) = tokio::join!(root.top.stop("worker"), async {
        sleep(seconds(2)).await;
        root.registry.ready()
    });
    assert!(ready.ok, "{ready:?}");
}

#[actix::test]
async fn a_process_whose_root_gave_up_is_not_live_for_long() {
    let root = root();
    let worker = root.top.worker("worker");
    worker.send(Deed::FailFatally).await.ok();
    root.failed().await;
    assert!(root.registry.live().ok);
    sleep(seconds(10)).await;
    let live = root.registry.live();
    assert!(!live.ok && live.complaints[0].path == ROOT, "{live:?}");
}

#[test]
fn the_vitals_of_an_actor_can_be_read_from_any_thread_while_it_is_blocked() {
    let (tell, told) = mpsc::channel();
    let (unblock, until) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let registry: Registry = told.recv().unwrap();
        loop {
            let reports = registry.snapshot();
            if reports.iter().any(|report| report.path == "worker" && report.poll_ms >= 50) {
                drop(unblock);
                return;
            }
            std::thread::yield_now();
        }
    });
    System::new().block_on(async move {
        let root = Root::start(policy());
        let worker = root.top.worker("worker");
        tell.send(root.registry.clone()).unwrap();
        assert_eq!(worker.send(Deed::Block(until)).await, Ok(1));
    });
    reader.join().unwrap();
}
