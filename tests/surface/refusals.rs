//! What the world around a good config can be missing: a port, a folder, Python, a store, the feed.

use std::net::TcpListener;
use std::os::unix::fs::symlink;

use super::desk::{Desk, project};

#[test]
fn a_port_in_use_is_told_with_another() {
    let desk = Desk::new();
    let _taken = TcpListener::bind(desk.listen).unwrap();
    let parts = ["`http.listen` is", &desk.listen.to_string(), "another program listens already", "choose another port"];
    desk.run("run --config").says(1, &parts);
    desk.run("check --config").says(1, &[&parts[..], &["FAIL  `http.listen`"]].concat());
    desk.config(&[("http", "listen = \"203.0.113.7:80\"")]);
    // A bind that nobody can reach still needs the token first.
    desk.run("run --config").says(78, &["`203.0.113.7:80`", "http.token_file"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let desk = Desk::new();
    let file = desk.write("file", "");
    // Below a file, and in a file system that takes none: both hold for root too.
    for dir in [file.join("x").display().to_string(), "/proc/tickmint".to_string()] {
        desk.config(&[("spool", &format!("dir = {dir:?}"))]);
        desk.run("run --config").says(1, &["`spool.dir` is", &dir, "choose a folder that this user may write"]);
        desk.run("check --config").says(1, &["FAIL  `spool.dir`", &dir, "choose a folder that this user may write"]);
        desk.config(&[("", &format!("data_dir = {dir:?}"))]);
        desk.run("check --config").says(1, &["FAIL  `data_dir`", &dir, "choose a folder that this user may write"]);
    }
}

#[test]
fn a_store_that_is_a_file_or_cannot_be_written_is_told() {
    let desk = Desk::new();
    let file = desk.write("file", "");
    desk.config(&[("bronze", &format!("store = {file:?}"))]);
    let parts = ["`bronze.store`", "a file stands where", &file.display().to_string(), "move it away"];
    desk.run("run --config").says(1, &parts);
    desk.run("check --config").says(1, &parts);
    desk.config(&[("bronze", "store = \"/proc/lake\"")]);
    desk.run("run --config").says(1, &["`bronze.store` is `/proc/lake`", "choose a folder that this user may write"]);
    let ran = desk.run("check --config");
    ran.says(1, &["FAIL  `bronze.store`", "/proc/lake", "No such file or directory"]);
    assert_eq!(ran.out.matches("No such file or directory").count(), 1, "told once: {}", ran.out);
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let desk = Desk::new();
    let mut first = desk.daemon();
    desk.config(&[("http", "listen = \"127.0.0.1:0\"")]);
    let dir = desk.path("data/spool").display().to_string();
    desk.run("run --config").says(1, &["another tickmint uses `spool.dir`", &dir, "stop it, or give this one a `data_dir`"]);
    assert_eq!(desk.get("/livez").unwrap().status, 200);
    first.signal("TERM");
    assert_eq!(first.ends(), Some(0), "{}", first.log());
    // The control: the folder is free again.
    desk.config(&[]);
    let mut next = desk.daemon();
    next.signal("TERM");
    assert_eq!(next.ends(), Some(0), "{}", next.log());
}

#[test]
fn a_cluster_that_is_not_there_is_told_by_who_would_need_it() {
    let desk = Desk::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kafka = format!("brokers = [\"{nobody}\"]");
    desk.config(&[("kafka", &kafka)]);
    let parts =
        ["FAIL  `kafka`", "no broker of `kafka.brokers`", &nobody.to_string(), "Connection refused", "whether the cluster runs"];
    desk.run("check --config").says(1, &parts);
    // Properties that exclude each other need no cluster to be told.
    let absurd = format!("{kafka}\n[kafka.properties]\n\"max.poll.interval.ms\" = 1000");
    desk.config(&[("kafka", &absurd)]);
    for command in ["check --config", "run --config"] {
        desk.run(command).says(1, &["`session.timeout.ms`", "look at `kafka.properties.max.poll.interval.ms` (`1000`)"]);
    }
    let folder = format!("data_dir = {:?}\nroles = [\"refine\", \"serve\"]", desk.path("data"));
    desk.config(&[("", &folder), ("kafka", &kafka)]);
    let ran = desk.run("check --config");
    ran.says(0, &["roles refine, serve"]);
    assert!(!ran.out.contains("`kafka`"), "{}", ran.out);
    // Nor does it ask for the secrets of a cluster that it has nothing to do with, or log in to it without them.
    let login = format!("{kafka}\nsecurity = \"sasl_ssl\"\nusername = \"me\"\npassword_env = \"ABSENT\"");
    desk.config(&[("", &folder), ("kafka", &login)]);
    let mut daemon = desk.daemon();
    desk.until("all is well", "/health", |health| health.json()["status"] == "ok");
    desk.run("check --config").says(0, &["note  `http.listen`: a tickmint runs on"]);
    // A folder has one daemon, also if it keeps no spool there.
    desk.config(&[("", &folder), ("kafka", &login), ("http", "listen = \"127.0.0.1:0\"")]);
    desk.run("run --config").says(1, &["another tickmint uses `data_dir`", "stop it, or give this one a `data_dir` of its own"]);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("cluster"), "{}", daemon.log());
}

#[test]
fn a_python_that_is_missing_or_has_no_dbt_is_told_and_bronze_goes_on_without() {
    let desk = Desk::new();
    let project = project();
    let empty = desk.path("empty-cache");
    // Nothing on the PATH.
    desk.config(&[("warehouse", &format!("project_dir = {project:?}"))]);
    let mut check = desk.command("check --config");
    let ran = desk.finish(check.env("PATH", "/nowhere").env("XDG_CACHE_HOME", &empty));
    ran.says(1, &["FAIL  `warehouse`", "no usable Python found", "python3", "3.11 or 3.12", "apt-get install python3"]);

    // Configured, and not there, or without dbt (`env` is no Python at all).
    for (python, why) in [("/nowhere/python", "No such file"), ("/usr/bin/env", "")] {
        desk.config(&[("warehouse", &format!("project_dir = {project:?}\npython = {python:?}"))]);
        let parts =
            [python, "cannot run dbt", why, "install the packages of", "requirements.txt", "or remove `warehouse.python`"];
        desk.run("check --config").says(1, &[&["FAIL  `warehouse`"], &parts[..]].concat());
        let mut daemon = desk.daemon();
        desk.until("the alarm", "/health", |health| {
            health.json()["status"] == "degraded" && health.json()["alarms"].to_string().contains("cannot run dbt")
        });
        desk.run("status --config").says(1, &[&["! warehouse:"], &parts[..]].concat());
        assert_eq!(desk.get("/readyz").unwrap().status, 200, "Bronze needs no Python");
        daemon.signal("TERM");
        assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    }

    // No project.
    desk.config(&[("warehouse", "project_dir = \"/nowhere\"")]);
    desk.run("check --config").says(1, &["`warehouse.project_dir` is `/nowhere`", "holds no requirements.txt", "set it to"]);

    // A Python that is not of a version that dbt is made for.
    let bin = desk.path("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    std::fs::write(bin.join("python3"), "#!/bin/sh\necho 9\n").unwrap();
    std::process::Command::new("chmod").arg("+x").arg(bin.join("python3")).status().unwrap();
    desk.config(&[("warehouse", &format!("project_dir = {project:?}"))]);
    let mut check = desk.command("check --config");
    desk.finish(check.env("PATH", &bin).env("XDG_CACHE_HOME", &empty)).says(1, &["python3 is 3.9", "needs Python 3.11 or 3.12"]);
}

#[test]
fn a_closed_bucket_is_told_by_check_and_does_not_keep_the_daemon_from_the_feed() {
    let desk = Desk::new();
    for name in ["access", "secret"] {
        desk.write(name, &format!("{}-{name}", super::desk::SECRET));
    }
    let s3 = format!(
        "endpoint = \"http://127.0.0.1:1\"\nregion = \"us-east-1\"\nattempt_timeout = \"1s\"\n\
         access_key_file = {:?}\nsecret_key_file = {:?}",
        desk.path("access"),
        desk.path("secret")
    );
    let exchange = desk.exchange(
        &format!("{}-key", super::desk::SECRET),
        "",
        &[
            ("", &format!("data_dir = {:?}\ndrain_within = \"1s\"", desk.path("data"))),
            ("bronze", "store = \"s3://bucket/p\""),
            ("bronze.s3", &s3),
        ],
    );
    let mut daemon = desk.daemon();
    desk.until("trades are durable", "/api/pipeline", |answer| answer.json()["spool"]["records"]["trades"].as_u64() > Some(0));
    desk.until("the alarm", "/health", |health| {
        health.json()["status"] == "degraded" && health.json()["alarms"].to_string().contains("bronze/trades")
    });
    desk.run("status --config").says(1, &["! bronze/trades", "http://127.0.0.1:1", "Connection refused"]);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(75), "what is not in Bronze stays in the spool: {}", daemon.log());
    assert!(daemon.log().contains("what is durable is there for the next start"), "{}", daemon.log());
    drop(exchange);
    desk.run("check --config").says(1, &["FAIL  `bronze.store`", "http://127.0.0.1:1", "Connection refused"]);
}

#[test]
fn an_exchange_with_nothing_to_play_is_refused() {
    let desk = Desk::new();
    let blank = desk.write("blank.jsonl", "\n{\"type\":\"ping\"}\n");
    for tape in ["/dev/null", blank.to_str().unwrap()] {
        let line = format!("exchange --listen 127.0.0.1:0 --tape {tape}");
        desk.run(&line).says(1, &[&format!("the tape {tape} has no frame with a trade in it")]);
    }
    desk.run("exchange --listen 127.0.0.1:0 --trades 0").says(2, &["'--trades <N>': 0 is not in 1.."]);
}

#[test]
fn what_an_exchange_says_into_a_file_has_no_colours() {
    let desk = Desk::new();
    let mut exchange = desk.exchange("a-key", "", &[]);
    exchange.until_it_says("exchange opens");
    exchange.signal("TERM");
    assert_eq!(exchange.ends(), Some(0));
    assert!(!exchange.log().contains('\x1b'), "{:?}", exchange.log());
}
