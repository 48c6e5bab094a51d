//! A disk that is full, for real: a small file system of its own under the spool or under Bronze. The
//! daemon says so, recovers alone when there is room again, and loses nothing.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end, pause};
use crate::support::servers::{Skip, or_skip};

/// Mounts a file system in memory, tells of it, and stays until its input ends.
const MOUNT_AND_STAY: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat"#;

/// A file system in memory, mounted while this lives.
struct SmallDisk {
    /// Where the test finds it.
    dir: PathBuf,
    /// The process that keeps it, where only that and what is started by `nsenter` can see it.
    keeper: Option<Child>,
}

impl SmallDisk {
    /// For all to see where this user may do that; else in a world of its own, in which `rig` then runs.
    fn mount(rig: &mut Rig, folder: &str, megabytes: u32) -> Result<SmallDisk, Skip> {
        let (dir, size) = (rig.path(folder), format!("{megabytes}m"));
        std::fs::create_dir_all(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&dir).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Ok(SmallDisk { dir, keeper: None });
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT_AND_STAY, "sh", &size]).arg(&dir);
        let started = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut keeper = started.map_err(|error| Skip(format!("no disk can be mounted: unshare: {error}")))?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            let said = keeper.wait_with_output().unwrap().stderr;
            let (said, mounted) = (String::from_utf8_lossy(&said).into_owned(), mounted.map(|output| output.stderr));
            let first = mounted.map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said).into_owned());
            return Err(Skip(format!("no disk can be mounted: {}; nor in a namespace: {}", first.trim(), said.trim())));
        }
        let pid = keeper.id();
        let enter = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", &pid.to_string()];
        rig.start_within(enter.map(str::to_owned).to_vec());
        let dir = PathBuf::from(format!("/proc/{pid}/root{}", dir.display()));
        Ok(SmallDisk { dir, keeper: Some(keeper) })
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) -> PathBuf {
        let path = self.dir.join("filler");
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
        match &mut self.keeper {
            // Its end is that of its world, the disk included.
            Some(keeper) => drop(keeper.kill().and_then(|()| keeper.wait())),
            None => drop(Command::new("umount").arg("-l").arg(&self.dir).status()),
        }
    }
}

/// A small disk there, where this machine can show one. No part of ours is missing if it cannot: that is a
/// skip even where parts are required.
fn disk_or_skip(rig: &mut Rig, folder: &str) -> Option<SmallDisk> {
    or_skip(SmallDisk::mount(rig, folder, 24))
}

fn rig() -> Rig {
    let symbols = tickmint::exchange::simulated_symbols(20);
    Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, "")
}

/// Fills the disk under `folder`; waits for `alarm`, makes room, and waits until it is gone.
fn a_full_disk(folder: &str, alarm: &str) {
    let mut rig = rig();
    let Some(disk) = disk_or_skip(&mut rig, folder) else { return };
    let mut daemon = rig.daemon();
    let archived = |pipeline: &serde_json::Value| pipeline["bronze"]["trades"]["records"].as_u64();
    rig.wait_until("trades are archived", |pipeline| archived(pipeline) > Some(0));
    rig.wait_for_alarm(alarm, false);
    let filler = disk.fill();
    rig.wait_for_alarm(alarm, true);
    assert!(rig.get("/health").unwrap()["alarms"].to_string().contains("No space left"), "{}", rig.get("/health").unwrap());
    pause(Duration::from_secs(2));
    std::fs::remove_file(filler).unwrap();
    rig.wait_for_alarm(alarm, false);
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
    a_full_disk("spool", "spool/disk");
}

#[test]
fn a_start_on_a_full_disk_names_the_option_and_the_cure() {
    let mut rig = rig();
    let Some(disk) = disk_or_skip(&mut rig, "spool") else { return };
    let filler = disk.fill();
    let status = rig.daemon().wait();
    let log = rig.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("`spool.dir` is `") && log.contains("its disk is full, make room there"), "{log}");
    std::fs::remove_file(filler).unwrap();
    let mut daemon = rig.daemon();
    rig.wait_for_shards(1);
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    drop(rig);
    drop(disk);
}

#[test]
fn a_full_disk_under_bronze_is_said_waited_for_and_loses_nothing() {
    a_full_disk("lake", "bronze/trades");
}

#[test]
fn a_spool_at_its_limit_ends_the_session_with_a_gap_and_goes_on_when_there_is_room() {
    let mut rig = rig();
    let Some(disk) = disk_or_skip(&mut rig, "lake") else { return };
    rig.edit("segment_bytes = \"256 KiB\"", "segment_bytes = \"256 KiB\"\nmax_bytes = \"4 MiB\"\nreserve_bytes = \"1 MiB\"");
    let mut daemon = rig.daemon();
    let archived = |pipeline: &serde_json::Value| pipeline["bronze"]["trades"]["records"].as_u64();
    rig.wait_until("trades are archived", |pipeline| archived(pipeline) > Some(0));
    rig.wait_for_alarm("spool", false);
    let filler = disk.fill();
    rig.wait_for_alarm("spool", true);
    rig.wait_until("the spool is full", |pipeline| {
        pipeline["feed"]["gaps"]["spool_full"].as_u64() > Some(0) || { pipeline["feed"]["disconnects"].as_u64() > Some(0) }
    });
    std::fs::remove_file(filler).unwrap();
    rig.wait_until("the feed is up again", |pipeline| {
        let waits: u64 =
            pipeline["bronze"].as_object().unwrap().values().filter_map(|stream| stream["lag_records"].as_u64()).sum();
        pipeline["shards"][0]["connected"] == true && waits < 2000
    });
    rig.wait_for_alarm("spool", false);
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
