//! The whole daemon, from the socket to Bronze, as a process of its own; the exchange is not counted.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::tape::Tape;
use super::{cpu_of, row};

const TICKMINT: &str = env!("CARGO_BIN_EXE_tickmint");

/// Trades a CPU second that the design aims at.
const AIM: f64 = 400_000.0;

/// A process that does not outlive the bench.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn measure(tape: &Tape) {
    println!("\nthe whole daemon, tape at max speed, three lives:");
    let lives: Vec<_> = (0..3).map(|_| life(tape)).collect();
    for (cpu, _, took) in &lives {
        row(&format!("socket to Bronze ({:.1} s)", took.as_secs_f64()), tape.trades, *cpu);
    }
    let (best, rss, _) = lives.iter().min_by_key(|(cpu, ..)| *cpu).unwrap();
    let rate = tape.trades as f64 / best.as_secs_f64();
    println!("  best {rate:.0}, {:.2} of the aim of {AIM:.0}; peak RSS {} MiB", rate / AIM, rss / 1024);
}

/// One life; its CPU time, its peak RSS in KiB, and its time on the wall.
fn life(tape: &Tape) -> (Duration, i64, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let mut exchange = Command::new(TICKMINT);
    exchange.args(["exchange", "--listen", "127.0.0.1:0", "--speed", "max", "--tape"]).arg(&tape.path);
    exchange.args(["--max-symbols", "10000"]);
    let mut exchange = Process(exchange.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(exchange.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit("ws://").next().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = write_config(dir.path(), address, port, tape);
    let begun = Instant::now();
    let mut daemon = Process(Command::new(TICKMINT).args(["run", "--config"]).arg(config).stderr(Stdio::null()).spawn().unwrap());
    while received(port).is_none_or(|trades| trades < tape.trades) {
        assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon has ended");
        assert!(begun.elapsed() < Duration::from_secs(120), "the daemon is stuck at {:?} trades", received(port));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed::<libc::rusage>() });
    let pid = daemon.0.id() as libc::pid_t;
    // SAFETY: the child is ours and not waited for yet; wait4 fills what it is given.
    unsafe {
        assert_eq!(libc::kill(pid, libc::SIGTERM), 0);
        assert_eq!(libc::wait4(pid, &mut status, 0, &mut usage), pid);
    }
    // It has drained: all that it received is in Bronze, or the code is another.
    assert_eq!(status, 0, "the daemon's exit");
    let took = begun.elapsed();
    (cpu_of(&usage), usage.ru_maxrss, took)
}

fn write_config(dir: &Path, address: &str, port: u16, tape: &Tape) -> std::path::PathBuf {
    std::fs::write(dir.join("key"), "demo").unwrap();
    let config = format!(
        "data_dir = {dir:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[telemetry]\nlog = \"warn\"\n[feed]\nurl = \"ws://{address}\"\n\
         [[feed.keys]]\nkey_file = {key:?}\nsymbols = {symbols:?}\n[validation]\nmax_age = \"none\"\n[warehouse]\nenabled = false\n",
        key = dir.join("key"),
        symbols = tape.symbols,
    );
    let path = dir.join("tickmint.toml");
    std::fs::write(&path, config).unwrap();
    path
}

/// Trades that are durable, by the daemon's own count.
fn received(port: u16) -> Option<u64> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /api/pipeline HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let pipeline: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    pipeline["spool"]["records"]["trades"].as_u64()
}
