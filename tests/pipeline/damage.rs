//! The disk damages what was durable, before it is archived: it is lost, and no more than that, and
//! everybody says so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tickmint::domain::entry::counts_of;
use tickmint::domain::stream::Stream;
use tickmint::spool::mark::is_mark;
use tickmint::spool::segment::{self, ENTRY_HEADER};

use super::count::independent_count;
use super::kills::count;
use super::rig::{Rig, end, pause};

/// What a segment begins with has so many bytes; all behind it is framed.
const MAGIC: usize = 8;

/// The only segment of the only log.
fn only_segment(rig: &Rig) -> PathBuf {
    let logs = std::fs::read_dir(rig.path("spool")).unwrap().map(|log| log.unwrap().path());
    let [log] = logs.filter(|path| path.is_dir()).collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(segment::numbers(&log).unwrap(), [0]);
    segment::path(&log, 0)
}

/// Flips a bit of the first frame behind the middle; returns how many trades then cannot be read: those of
/// that frame, and all behind it up to the next mark.
fn damage(path: &Path) -> u64 {
    let mut bytes = std::fs::read(path).unwrap();
    let (mut at, mut damaged, mut unreadable) = (MAGIC, None, 0);
    loop {
        let (_, body) = segment::next_frame(&bytes[at..]).expect("a mark stands behind the damage");
        // The first one is the header, which has no counts.
        if at > MAGIC && is_mark(body) && damaged.is_some() {
            break;
        }
        let trades = if at > MAGIC { counts_of(body).unwrap()[Stream::Trades.index()] } else { 0 };
        if at > bytes.len() / 2 && trades > 0 {
            damaged.get_or_insert(at + ENTRY_HEADER + body.len() / 2);
        }
        unreadable += if damaged.is_some() { u64::from(trades) } else { 0 };
        at += ENTRY_HEADER + body.len();
    }
    bytes[damaged.unwrap()] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
    unreadable
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

    let unreadable = damage(&only_segment(&rig));

    rig.edit("flush_after = \"60s\"", "flush_after = \"150ms\"");
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(3000));
    pause(Duration::from_millis(300));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let (report, well) = rig.verify();
    println!("{unreadable} trades cannot be read: {report}");
    let lost = count(&report, "lost");
    assert!(!well && lost > 0, "the damage went without a name: {report:#}");
    assert_eq!(lost, unreadable, "a byte costs what is left of its group, and not all behind it: {report:#}");
    assert_eq!((count(&report, "duplicated"), count(&report, "waiting")), (0, 0), "{report:#}");
    assert_eq!(count(&report, "sent"), count(&report, "archived") + count(&report, "not_received") + lost, "{report:#}");
    let Some((counted, well)) = independent_count(rig.dir.path()) else { return };
    assert!(!well && counted["lost"] == report["lost"], "{counted:#} is not {report:#}");
}
