//! A disk that is full, for real: a small file system of its own under the spool or under Bronze. The
//! daemon says so, recovers alone when there is room again, and loses nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end, pause};
use crate::support::servers::{Skip, or_skip};

/// A file system in memory, mounted while this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, megabytes: u32) -> Result<SmallDisk, Skip> {
        std::fs::create_dir_all(dir).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(dir);
        match command.output() {
            Ok(output) if output.status.success() => Ok(SmallDisk(dir.to_path_buf())),
            Ok(output) => Err(Skip(format!("no disk can be mounted: {}", String::from_utf8_lossy(&output.stderr).trim()))),
            Err(error) => Err(Skip(format!("no disk can be mounted: {error}"))),
        }
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let (mut size, mut file) = (1 << 20, std::fs::File::create(&path).unwrap());
        while size > 0 {
            if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A small disk there, where this machine can show one. No part of ours is missing if it cannot: that is a
/// skip even where parts are required.
fn disk_or_skip(rig: &Rig, folder: &str) -> Option<SmallDisk> {
    or_skip(SmallDisk::mount(&rig.path(folder), 24))
}

fn rig() -> Rig {
    let symbols = tickmint::exchange::simulated_symbols(20);
    Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, "")
}

/// Fills the disk under `folder`; waits for `alarm`, makes room, and waits until it is gone.
fn a_full_disk(folder: &str, alarm: &str) {
    let mut rig = rig();
    let Some(disk) = disk_or_skip(&rig, folder) else { return };
    let mut daemon = rig.daemon();
    let archived = |pipeline: &serde_json::Value| pipeline["bronze"]["trades"]["records"].as_u64();
    rig.wait_until("trades are archived", |pipeline| archived(pipeline) > Some(0));
    let filler = disk.fill();
    rig.wait_for_alarms("the full disk is said", |alarms| alarms.contains(alarm));
    assert!(rig.get("/health").unwrap()["alarms"].to_string().contains("No space left"), "{}", rig.get("/health").unwrap());
    pause(Duration::from_secs(2));
    std::fs::remove_file(filler).unwrap();
    rig.wait_for_alarms("and is over", |alarms| !alarms.contains(alarm));
    let before = archived(&rig.get("/api/pipeline").unwrap());
    rig.wait_until("archiving goes on", |pipeline| archived(pipeline) > before);
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{folder}: {report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    drop(rig);
    drop(disk);
}

#[test]
fn a_full_disk_under_the_spool_is_said_waited_for_and_loses_nothing() {
    a_full_disk("spool", "spool");
}

#[test]
fn a_full_disk_under_bronze_is_said_waited_for_and_loses_nothing() {
    a_full_disk("lake", "bronze/trades");
}

#[test]
fn a_spool_at_its_limit_ends_the_session_with_a_gap_and_goes_on_when_there_is_room() {
    let mut rig = rig();
    let Some(disk) = disk_or_skip(&rig, "lake") else { return };
    rig.edit("segment_bytes = \"256 KiB\"", "segment_bytes = \"256 KiB\"\nmax_bytes = \"4 MiB\"\nreserve_bytes = \"1 MiB\"");
    let mut daemon = rig.daemon();
    let archived = |pipeline: &serde_json::Value| pipeline["bronze"]["trades"]["records"].as_u64();
    rig.wait_until("trades are archived", |pipeline| archived(pipeline) > Some(0));
    let filler = disk.fill();
    rig.wait_until("the spool is full", |pipeline| {
        pipeline["feed"]["gaps"]["spool_full"].as_u64() > Some(0) || { pipeline["feed"]["disconnects"].as_u64() > Some(0) }
    });
    std::fs::remove_file(filler).unwrap();
    rig.wait_until("the feed is up again", |pipeline| {
        let waits: u64 =
            pipeline["bronze"].as_object().unwrap().values().filter_map(|stream| stream["lag_records"].as_u64()).sum();
        pipeline["shards"][0]["connected"] == true && waits < 2000
    });
    rig.wait_until("the gap has its own name", |pipeline| pipeline["feed"]["gaps"]["spool_full"].as_u64() > Some(0));
    pause(Duration::from_secs(2));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert!(count(&report, "not_received") > 0 && count(&report, "gaps") > 0, "{report:#}");
}
