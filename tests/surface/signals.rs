//! How the daemon ends: in order, at once, or out of time.

use std::net::{SocketAddr, TcpListener};

use super::desk::{Desk, Process, SECRET};

/// Takes connections and says nothing, until the test process ends.
fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

/// A daemon whose bucket never answers.
fn stuck(desk: &Desk, drain_within: &str) -> Process {
    let secret = desk.write("secret", SECRET);
    let s3 = format!(
        "endpoint = \"http://{}\"\nregion = \"us-east-1\"\naccess_key_file = {secret:?}\nsecret_key_file = {secret:?}",
        black_hole()
    );
    let base = format!("data_dir = {:?}\ndrain_within = \"{drain_within}\"", desk.path("data"));
    desk.config(&[("", &base), ("bronze", "store = \"s3://bucket\""), ("bronze.s3", &s3)]);
    desk.daemon()
}

#[test]
fn either_signal_drains_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let desk = Desk::new();
        let mut exchange = desk.exchange(&format!("{SECRET}-key"), "--rate 500", &[("bronze", "flush_after = \"1h\"")]);
        let mut daemon = desk.daemon();
        desk.until("trades are durable", "/api/pipeline", |answer| {
            answer.json()["spool"]["records"]["trades"].as_u64() > Some(50)
        });
        daemon.signal(signal);
        assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
        assert!(daemon.log().contains("stopping: draining"), "{}", daemon.log());
        exchange.signal("TERM");
        exchange.ends();
        // Nothing was to be flushed for an hour, and all of it is archived.
        let report: serde_json::Value =
            serde_json::from_str(&desk.run("verify --config --ledger ledger --json").says(0, &[]).out).unwrap();
        assert!(report["archived"].as_u64() > Some(50) && report["waiting"] == 0, "{report}");
    }
}

#[test]
fn while_it_drains_it_is_alive_and_not_ready_and_a_second_signal_ends_it_at_once() {
    let desk = Desk::new();
    let mut daemon = stuck(&desk, "10m");
    desk.until("all actors run", "/readyz", |ready| ready.status == 200);
    daemon.signal("TERM");
    let ready = desk.until("it is not ready", "/readyz", |ready| ready.status == 503);
    assert!(!ready.json()["complaints"].as_array().unwrap().is_empty(), "{}", ready.body);
    assert_eq!((desk.get("/livez").unwrap().status, desk.get("/health").unwrap().status), (200, 200));
    let health = desk.until("it says so", "/health", |health| health.json()["status"] == "draining");
    assert!(!health.body.contains(SECRET), "{}", health.body);
    desk.run("status --config").says(1, &["status draining", "writers/quarantine", "draining"]);
    daemon.signal("INT");
    assert_eq!(daemon.ends(), Some(75), "{}", daemon.log());
    assert!(daemon.log().contains("ended at once by a second signal (SIGINT)"), "{}", daemon.log());
}

#[test]
fn a_drain_that_takes_too_long_ends_with_75_and_what_is_left_is_archived_by_the_next_start() {
    let desk = Desk::new();
    let mut daemon = stuck(&desk, "1s");
    desk.until("all actors run", "/readyz", |ready| ready.status == 200);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(75), "{}", daemon.log());
    let log = daemon.log();
    assert!(
        log.contains("not everything stopped within 1s (`drain_within`)")
            && log.contains("what is durable is there for the next start"),
        "{log}"
    );
    assert!(!log.contains(SECRET), "{log}");
    // The control: with a store that answers, the same stop is in order.
    desk.config(&[]);
    let mut daemon = desk.daemon();
    desk.until("all actors run", "/readyz", |ready| ready.status == 200);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
}

#[test]
fn a_signal_during_the_start_ends_it() {
    let desk = Desk::new();
    let secret = desk.write("secret", SECRET);
    let hole = black_hole();
    let s3 = format!("endpoint = \"http://{hole}\"\nregion = \"x\"\naccess_key_file = {secret:?}\nsecret_key_file = {secret:?}");
    desk.config(&[("bronze", "store = \"s3://bucket\""), ("bronze.s3", &s3)]);
    let mut daemon = desk.begin(&mut desk.command("run --config"));
    // The port is taken before the store is asked, which takes seconds here.
    super::desk::wait("it has begun", || std::net::TcpStream::connect(desk.listen).is_ok());
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    assert!(daemon.log().contains("stopped before it ran"), "{}", daemon.log());
}
