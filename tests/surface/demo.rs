//! The demo as a person meets it: in a terminal, in a log, with mistakes, stopped once and twice.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use super::desk::{Desk, free_address, wait};
use crate::support::servers::{Skip, or_skip};

fn demo(port: u16, more: &str) -> String {
    format!("demo --data-dir d --port {port} {more}")
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let desk = Desk::new();
    let port = free_address().port();
    let frame = r#"{"type":"trade","data":[{"s":"A","p":1,"v":1,"t":1}]}"#;
    desk.write("empty", "");
    desk.write("pings", "{\"type\":\"ping\"}\n");
    desk.write("garbage", &format!("{frame}\nno frame\n"));
    std::fs::write(desk.path("broken.gz"), b"\x1f\x8b\x08\x00broken").unwrap();
    std::fs::write(desk.path("bytes"), b"\xff\xfe\xfd").unwrap();
    for (tape, why) in [
        ("nowhere.gz", "No such file"),
        (".", "Is a directory"),
        ("empty", "holds no trades"),
        ("pings", "holds no trades"),
        ("garbage", "line 2 of the tape garbage is not a frame"),
        ("broken.gz", "cannot be read: "),
        ("bytes", "not contain valid UTF-8"),
    ] {
        let parts = [&format!("`--tape` is `{tape}`"), why, "give a recording, the text of one frame of Finnhub a line"];
        desk.run(&demo(port, &format!("--tape {tape}"))).says(1, &parts);
    }
    desk.run("demo --tape garbage --speed quick").says(2, &["--speed", "the speed is `quick`", "or `max`"]);
    desk.run("demo --speed 5").says(2, &["--tape <FILE>"]);
    desk.run("demo --for never").says(2, &["'never' for '--for <TIME>'", "write it as 90s or 5m"]);
    desk.run("demo --for 0s").says(2, &["'0s' for '--for <TIME>'"]);
    desk.run("demo --port 0").says(2, &["'0' for '--port <PORT>'"]);
    desk.run("demo --sale-conditions mine").says(2, &["'mine'", "cts_utp, lean"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port_taken = taken.local_addr().unwrap().port();
    desk.run(&demo(port_taken, "")).says(1, &["`--port` is", &port_taken.to_string(), "stop what uses it, or choose another"]);
    for dir in ["empty/x", "empty", "/proc/x"] {
        desk.run(&format!("demo --data-dir {dir} --port {port}"))
            .says(1, &["`--data-dir` is", dir, "choose a folder that this user may write"]);
    }
    // The config of a real daemon is never overwritten.
    let before = std::fs::read(desk.path("tickmint.toml")).unwrap();
    desk.run(&format!("demo --data-dir . --port {port}"))
        .says(1, &["`--data-dir` is", "that no demo wrote", "choose another folder"]);
    assert_eq!(std::fs::read(desk.path("tickmint.toml")).unwrap(), before);
}

#[test]
fn in_a_log_it_is_lines_and_the_next_one_goes_on() {
    let desk = Desk::new();
    let port = free_address().port();
    let mut first = desk.begin(desk.command(&demo(port, "--for 6s")).stdout(Stdio::null()));
    first.until_it_says("the page is http://127.0.0.1:");
    // Meanwhile nobody else may have the folder.
    desk.run(&demo(free_address().port(), "")).says(1, &["`--data-dir` is", "another demo runs", "choose another folder"]);
    assert_eq!(first.ends(), Some(0), "{}", first.log());
    let log = first.log();
    for part in [" s  sent ", "| Bronze ", "the time is over", "auditing"] {
        assert!(log.contains(part), "`{part}` is not in {log}");
    }
    assert!(!log.contains('\x1b') && !log.contains('\r'), "no control characters: {log:?}");

    let again = desk.run(&demo(port, "--for 1s"));
    again.says(
        0,
        &[
            "going on with what an earlier demo left",
            "newest bars",
            "minute, UTC",
            "lost             0",
            "duplicated             0",
        ],
    );
    let config = desk.path("d/tickmint.toml").display().to_string();
    let count = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok())
    };
    // The other commands work on what it left.
    let report = desk.run(&format!("verify --config={config} --ledger d/exchange.ledger"));
    assert_eq!(count(&report.says(0, &[]).out, "sent"), count(&again.out, "sent"));
}

#[test]
fn sigterm_drains_and_audits_and_a_second_one_ends_it_at_once() {
    let desk = Desk::new();
    let port = free_address().port();
    // The writer of trades hangs from its first beat on: nothing is archived, and the drain waits for it for
    // half a minute, unless it is just being restarted, which comes after 20 s.
    let hung = "writers/trades";
    let mut command = desk.command(&demo(port, ""));
    let mut demo_runs = desk.begin(command.stdout(Stdio::null()).env("TICKMINT_FAULTS", format!("actor:{hung}=return(hang)")));
    demo_runs.until_it_says("the page is http://");
    wait("trades are durable, and their writer hangs for a while", || {
        let get = |path| super::desk::get(([127, 0, 0, 1], port).into(), path, "").map(|answer| answer.json());
        let (Some(pipeline), Some(health)) = (get("/api/pipeline"), get("/health")) else { return false };
        let writer = health["actors"].as_array().and_then(|actors| actors.iter().find(|actor| actor["path"] == hung));
        let silence = writer.and_then(|writer| writer["silence_ms"].as_u64()).unwrap_or(0);
        pipeline["spool"]["records"]["trades"].as_u64() > Some(0) && (1000..10_000).contains(&silence)
    });
    demo_runs.signal("TERM");
    demo_runs.until_it_says("stopping: the daemon drains");
    std::thread::sleep(std::time::Duration::from_millis(500)); // sent within 300 ms, it would be the same one
    demo_runs.signal("TERM");
    assert_eq!(demo_runs.ends(), Some(75), "{}", demo_runs.log());
    assert!(demo_runs.log().contains("ended at once by a second signal, and not audited"), "{}", demo_runs.log());
    // Its parts have ended too: the port is free, and the next one archives the rest.
    let verify = desk.run(&format!("verify --json --config={}", desk.path("d/tickmint.toml").display()));
    let report: serde_json::Value = serde_json::from_str(&verify.says(0, &[]).out).unwrap();
    assert!(report["waiting"].as_u64() > Some(0), "the drain was not cut off: {report:#}");
    let again = desk.run(&demo(port, "--for 1s"));
    again.says(0, &["lost             0", "waiting             0"]);
}

#[test]
fn in_a_terminal_a_line_moves_and_ctrl_c_drains() {
    let desk = Desk::new();
    // `exec`: a shell that stays between would end with 130 for the Ctrl-C that the demo takes.
    let line = format!("exec {} {}", super::desk::TICKMINT, demo(free_address().port(), ""));
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--flush", "--return", "--command", &line, "typescript"]).current_dir(desk.dir.path());
    let Ok(mut terminal) = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        or_skip::<()>(Err(Skip("there is no `script` (util-linux) to make a terminal".into())));
        return;
    };
    let typescript = || String::from_utf8_lossy(&std::fs::read(desk.path("typescript")).unwrap_or_default()).into_owned();
    wait("bars are counted in the moving line", || {
        let text = typescript();
        text.rsplit("bars ")
            .next()
            .is_some_and(|bars| text.contains("bars ") && bars.starts_with(|c: char| ('1'..='9').contains(&c)))
    });
    let keyboard = terminal.stdin.as_mut().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    keyboard.flush().unwrap();
    let mut status = None;
    wait("it ends", || {
        status = terminal.try_wait().unwrap();
        status.is_some()
    });
    let text = typescript();
    assert_eq!(status.unwrap().code(), Some(0), "{text}");
    assert!(text.contains('\x1b') && text.matches("| durable ").count() > 3, "a line that moves: {text:?}");
    for part in ["stopping: the daemon drains", "newest bars", "lost             0", "duplicated             0"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
}
