//! The disk damages what was durable, before it is archived: it is lost, and no more than that, and
//! everybody says so.

use std::path::PathBuf;
use std::time::Duration;

use tickmint::spool::segment;

use super::count::independent_count;
use super::kills::count;
use super::rig::{Rig, end, pause};

/// The only segment of the only log.
fn only_segment(rig: &Rig) -> PathBuf {
    let logs = std::fs::read_dir(rig.path("spool")).unwrap().map(|log| log.unwrap().path());
    let [log] = logs.filter(|path| path.is_dir()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(segment::numbers(&log).unwrap(), [0]);
    segment::path(&log, 0)
}

/// Without marks behind it, a damaged entry of a dead log's last segment looks as if the process had
/// died while it wrote that entry, and all behind it would go without a word.
#[test]
fn a_flipped_byte_in_a_dead_logs_last_segment_is_a_loss_with_a_name() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    rig.edit("segment_bytes = \"256 KiB\"", "segment_bytes = \"16 MiB\"");
    rig.edit("flush_after = \"150ms\"", "flush_after = \"60s\"");
    let mut daemon = rig.daemon();
    rig.wait_until("trades are durable", |pipeline| pipeline["spool"]["used_bytes"].as_u64() > Some(300_000));
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();

    let path = only_segment(&rig);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();

    rig.edit("flush_after = \"60s\"", "flush_after = \"150ms\"");
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(3000));
    pause(Duration::from_millis(300));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let (report, well) = rig.verify();
    println!("{report}");
    let lost = count(&report, "lost");
    assert!(!well && lost > 0, "the damage went without a name: {report:#}");
    assert!(lost < 1000, "a byte costs its group and not all behind it: {report:#}");
    assert_eq!((count(&report, "duplicated"), count(&report, "waiting")), (0, 0), "{report:#}");
    assert_eq!(count(&report, "sent"), count(&report, "archived") + count(&report, "not_received") + lost, "{report:#}");
    let Some((counted, well)) = independent_count(rig.dir.path()) else { return };
    assert!(!well && counted["lost"] == report["lost"], "{counted:#} is not {report:#}");
}
