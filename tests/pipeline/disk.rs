//! A disk that is full, for real: a small file system of its own under the spool or under Bronze. The
//! daemon says so, recovers alone when there is room again, and loses nothing.

use std::time::Duration;

use super::kills::count;
use super::rig::{Rig, end, pause};
use crate::support::disk::SmallDisk;
use crate::support::servers::or_skip;

/// A small disk there, where this machine can show one. No part of ours is missing if it cannot: that is a
/// skip even where parts are required.
fn disk_or_skip(rig: &mut Rig, folder: &str) -> Option<SmallDisk> {
    let disk = or_skip(SmallDisk::mount(&rig.path(folder), 24))?;
    rig.start_within(disk.within());
    Some(disk)
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
