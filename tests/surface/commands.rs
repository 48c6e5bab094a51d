//! `check`, `status`, `verify`, `chain show`, `--help`, `--version`: on what is there and what is not.

use std::net::TcpListener;

use tickmint::domain::chain::{ChainId, Slot};

use super::desk::{Desk, SECRET, get, project};

const COMMANDS: [&str; 7] = ["demo", "run", "exchange", "check", "status", "verify", "chain show"];

#[test]
fn help_teaches_by_examples_and_the_exit_codes_are_in_it() {
    let desk = Desk::new();
    desk.run("--version").says(0, &[&format!("tickmint {}", env!("CARGO_PKG_VERSION"))]);
    let help = desk.run("--help");
    help.says(0, &["Exit codes:", "  2 ", "  69 ", "  70 ", "  75 ", "  78 "]);
    for command in COMMANDS {
        assert!(help.out.contains(command.split(' ').next().unwrap()), "{command}");
        desk.run(&format!("{command} --help")).says(0, &["Example", &format!("tickmint {command}")]);
        desk.run(&format!("{command} --frobnicate")).says(2, &["unexpected argument '--frobnicate'", "Usage: tickmint"]);
    }
    desk.run("").says(2, &["Usage: tickmint <COMMAND>"]);
    desk.run("chain").says(2, &["Usage: tickmint chain"]);
    desk.run("veryfy --config").says(2, &["unrecognized subcommand 'veryfy'", "'verify'"]);
    desk.run("run --help").says(0, &["--config <FILE>", "[default: tickmint.toml]"]);
    desk.run("chain show --config --stream quotes").says(2, &["'quotes' for '--stream", "trades, gaps, quarantine"]);
}

#[test]
fn check_of_what_is_well_says_what_it_found() {
    let desk = Desk::new();
    let ran = desk.run("check --config");
    ran.says(0, &["ok    config tickmint.toml: 1 connection to ws://127.0.0.1:1", "ok    `data_dir`", "ok    `spool.dir`"]);
    ran.says(0, &["ok    `http.listen`", "is free", "ok    `bronze.store`", "creates are atomic", "rounds", "writers at once"]);
    assert!(!ran.out.contains("FAIL"), "{}", ran.out);
}

#[test]
fn check_says_which_dbt_it_found() {
    let desk = Desk::new();
    desk.config(&[("warehouse", &format!("project_dir = {:?}", project()))]);
    desk.run("check --config").says(0, &["ok    `warehouse`", "has Python 3.1", "dbt 1.", "DuckDB 1."]);
}

#[test]
fn check_tells_of_everything_that_is_broken_at_once() {
    let desk = Desk::new();
    let file = desk.write("file", "");
    let _taken = TcpListener::bind(desk.listen).unwrap();
    desk.config(&[
        ("spool", &format!("dir = {:?}", file.join("x"))),
        ("bronze", &format!("store = {file:?}")),
        ("warehouse", "project_dir = \"/nowhere\""),
    ]);
    let ran = desk.run("check --config");
    ran.says(1, &["FAIL  `spool.dir`", "FAIL  `http.listen`", "FAIL  `bronze.store`", "FAIL  `warehouse`", "ok    `data_dir`"]);
}

#[test]
fn status_says_why_there_is_none() {
    let desk = Desk::new();
    let listen = desk.listen.to_string();
    desk.run("status --config")
        .says(1, &["no daemon with `http.listen`", &listen, "nobody listens", "tickmint run --config tickmint.toml"]);
    // Somebody else's web server.
    let other = TcpListener::bind(desk.listen).unwrap();
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = other.accept().unwrap();
        drop(stream.read(&mut [0; 1024]));
        stream.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n<html>").unwrap();
    });
    desk.run("status --config").says(1, &[&listen, "is no tickmint", "404"]);
    answers.join().unwrap();
}

#[test]
fn status_shows_the_tree_as_text_and_as_json_and_carries_the_token() {
    let desk = Desk::new();
    let token = desk.write("token", &format!("{SECRET}-token"));
    let http = format!("listen = \"{}\"\ntoken_file = {token:?}", desk.listen);
    let _exchange = desk.exchange(&format!("{SECRET}-key"), "", &[("http", &http)]);
    let mut daemon = desk.daemon();
    let bearer = format!("Authorization: Bearer {SECRET}-token\r\n");
    super::desk::wait("the feed is connected", || {
        get(desk.listen, "/api/pipeline", &bearer).unwrap().json()["shards"][0]["connected"] == true
    });
    let table = desk.run("status --config");
    table.says(0, &["status ok", "restarts", "shards/shard-1/session", "connection: session", "spool", "running"]);
    let json = desk.run("status --config --json");
    let health: serde_json::Value = serde_json::from_str(&json.says(0, &[]).out).unwrap();
    assert_eq!(health["status"], "ok");
    assert!(health["actors"].as_array().unwrap().len() > 8);
    // Without the token, or with another, it is told what to do.
    desk.write("token", &format!("{SECRET}-other"));
    desk.run("status --config").says(1, &["401", "the token is missing or wrong", "`http.token_file`"]);
    assert_eq!(get(desk.listen, "/livez", "").unwrap().status, 200);
    assert_eq!(get(desk.listen, "/metrics", "").unwrap().status, 401);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
}

#[test]
fn verify_and_chain_show_read_what_a_daemon_has_left() {
    let desk = Desk::new();
    desk.run("verify --config").says(0, &["there is nothing yet"]);
    desk.run("verify --config --ledger nowhere").says(1, &["the ledger nowhere cannot be read", "No such file"]);
    desk.run("verify --config --spool elsewhere").says(1, &["`--spool` is elsewhere", "no spool's folder", "give `spool.dir`"]);
    let mut exchange = desk.exchange(&format!("{SECRET}-key"), "--rate 500", &[]);
    let mut daemon = desk.daemon();
    let archived = |answer: &super::desk::Answer| answer.json()["bronze"]["trades"]["records"].as_u64() > Some(50);
    desk.until("trades are archived", "/api/pipeline", archived);
    desk.run("verify --config").says(1, &["a daemon runs on `spool.dir`", "stop it first"]);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    exchange.signal("TERM");
    assert_eq!(exchange.ends(), Some(0), "{}", exchange.log());
    let report = desk.run("verify --config --ledger ledger --json");
    let report: serde_json::Value = serde_json::from_str(&report.says(0, &[]).out).unwrap();
    assert_eq!((&report["lost"], &report["duplicated"], &report["waiting"]), (&0.into(), &0.into(), &0.into()));
    assert!(report["archived"].as_u64() > Some(50), "{report}");

    let shown = desk.run("chain show --config");
    shown.says(0, &["g0 ", "the next generation reads log", "g1 0-", "rows", "bronze/raw/trades/", "tail: generation 1"]);
    let first = desk.run("chain show --config --json");
    let slot: serde_json::Value = serde_json::from_str(first.says(0, &[]).out.lines().next().unwrap()).unwrap();
    assert!(slot.is_object());
    desk.run("chain show --config --partition 7").says(0, &["trades/7 has no slot in folder", "or there is no such partition"]);

    // The control: an object that goes missing is seen.
    let object = shown.out.split_whitespace().find(|word| word.starts_with("bronze/raw/trades/")).unwrap();
    std::fs::remove_file(desk.path("data/lake").join(object)).unwrap();
    desk.run("verify --config --ledger ledger").says(1, &["  ! "]);
    // And a hole in the chain is no tail.
    let slot: Slot = serde_json::from_str(first.out.lines().next().unwrap()).unwrap();
    let key = slot.position.key(ChainId { stream: slot.stream, partition: slot.partition });
    std::fs::remove_file(desk.path("data/lake").join(&key)).unwrap();
    let shown = desk.run("chain show --config");
    shown.says(1, &[&key, "is not there, and slots behind it are", "put a copy of it back"]);
    assert!(!shown.out.contains("tail:"), "{}", shown.out);
}

/// As under `| head`: who reads has enough before all is written.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let desk = Desk::new();
    let mut daemon = desk.daemon();
    desk.until("it is not well", "/health", |health| health.json()["status"] == "degraded");
    let unread = |line: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut process = desk.begin(desk.command(line).stdout(writer));
        (process.ends(), process.log())
    };
    for line in ["status --config", "status --config --json"] {
        assert_eq!(unread(line), (Some(1), String::new()), "{line}: as with a reader");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    for line in ["verify --config", "verify --config --json", "chain show --config", "chain show --config --json"] {
        assert_eq!(unread(line), (Some(0), String::new()), "{line}");
    }
}

/// The way of the README: a config beside the data, `data_dir` as the example has it.
#[test]
fn folders_that_are_relative_mean_the_same_to_the_daemon_its_refiner_and_verify() {
    let desk = Desk::new();
    let warehouse = format!("project_dir = {:?}\nevery = \"500ms\"", project());
    let sections = [("", "data_dir = \"data\""), ("warehouse", &*warehouse)];
    let mut exchange = desk.exchange(&format!("{SECRET}-key"), "--rate 300", &sections);
    let mut daemon = desk.daemon();
    desk.until("bars are shown", "/api/bars", |answer| answer.json()["bars"].as_array().is_some_and(|bars| !bars.is_empty()));
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    exchange.signal("TERM");
    exchange.ends();
    for made in ["data/lake/_commit", "data/gold/manifest.json", "data/warehouse.duckdb"] {
        assert!(desk.path(made).exists(), "{made} is not there");
    }
    let ran = desk.run("verify --config --ledger ledger --json");
    ran.says(0, &["\"lost\""]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(report["silver"].as_u64() > Some(0), "{report:#}");
}
