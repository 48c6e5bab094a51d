//! What the pipeline costs and how long a frame waits: `just bench`, or `cargo bench`.
//!
//! CPU seconds are the thread's or the process' own, so other load on the machine changes little.
//! Waits are of the wall clock and stand beside the fsync of the same disk, measured in the same run.
//! The tape is `TICKMINT_BENCH_TAPE`, or the recorded day beside the project, or one that is made.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "no actor shares these threads")]

mod daemon;
mod latency;
mod stages;
mod tape;
mod wire;

use std::time::{Duration, Instant};

/// CPU time of a row of `getrusage`.
fn cpu_of(usage: &libc::rusage) -> Duration {
    let time = |at: libc::timeval| Duration::new(at.tv_sec as u64, at.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The `share` (0 to 1) of the sorted times.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Prints a row; the trades a CPU second.
fn row(name: &str, trades: u64, cpu: Duration) -> f64 {
    let rate = trades as f64 / cpu.as_secs_f64();
    println!("  {name:<34} {:>8.3} CPU s {:>12.0} trades a CPU second", cpu.as_secs_f64(), rate);
    rate
}

fn main() {
    let begun = Instant::now();
    let tape = tape::load();
    println!("{}: {} frames, {} trades, {} symbols\n", tape.path.display(), tape.frames.len(), tape.trades, tape.symbols.len());
    stages::measure(&tape);
    daemon::measure(&tape);
    latency::measure();
    println!("\n{:.0} s in all", begun.elapsed().as_secs_f64());
}
