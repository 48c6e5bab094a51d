//! kill -9 at random moments while a tape plays: a real day from its opening where there is one, else a
//! made market. The number of kills: `TICKMINT_KILLS`, 25 if not set.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::audit::found::Found;
use tickmint::domain::identity::SessionId;

use super::count::{assert_counted_alike, independent_count};
use super::gold::tape_path;
use super::rig::{Rig, end, pause, verify};
use crate::support::amount;

/// 9:30 in New York on the day of the tape. Before that hardly anybody trades.
const OPENING: i64 = 1_381_152_600_000;

pub(super) fn count(report: &serde_json::Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let kills = amount("TICKMINT_KILLS", 25);
    let seed = 20_261_123;
    let mut random = StdRng::seed_from_u64(seed);
    let mut rig = market(kills);
    let mut connected: usize = 0;
    for life in 0..kills {
        let mut daemon = rig.daemon();
        // Every other life is killed wherever it is, which may be its start; the others receive something.
        if life % 2 == 0 {
            rig.wait_for_shards(2);
            connected += 1;
        }
        pause(Duration::from_millis(random.random_range(30..900)));
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
    }
    let mut last = rig.daemon();
    rig.wait_for_shards(2);
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    let code = end(&mut last);
    rig.end_exchange();
    assert_eq!(code, Some(0), "{}", rig.log());

    let (report, well) = rig.verify();
    println!("seed {seed}, {kills} kills, {connected} of them of lives that had received trades: {report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert_eq!(count(&report, "archived"), count(&report, "durable"));
    assert!(count(&report, "archived") > 1000, "the kills hit nothing: {report:#}");
    for (shard, received) in assert_gaps_between_sessions(&rig) {
        assert!(received > connected, "{shard}: {received} sessions received something, of {connected} lives and the last one");
    }
    assert!(count(&report, "gaps") as usize >= 2 * connected, "{connected} lives of two shards were killed: {report:#}");
    assert_counted_alike(rig.dir.path(), &report);
    controls(&rig);
}

/// A daemon with two keys, and what it is killed under.
fn market(kills: u64) -> Rig {
    let tape = tape_path("us-equity-20131007.jsonl.gz");
    if !tape.exists() {
        let symbols = tickmint::exchange::simulated_symbols(20);
        let (some, others) = symbols.split_at(10);
        return Rig::with_shards(&["--simulate", "20", "--rate", "3000"], &[some, others], "");
    }
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("day.jsonl");
    from_the_opening(&tape, &cut);
    // Six and a half hours, which must outlast all lives.
    let speed = (2500 / kills.max(1)).clamp(20, 60).to_string();
    let [some, others] = [["SPY", "AIG"], ["BAC", "IBM"]].map(|symbols| symbols.map(String::from));
    let exchange = ["--tape", cut.to_str().unwrap(), "--retime", "--speed", &speed];
    // The exchange has opened its tape by then, and reads on though the name is gone.
    Rig::with_shards(&exchange, &[&some, &others], "")
}

fn from_the_opening(tape: &Path, to: &Path) {
    let lines = BufReader::new(GzDecoder::new(std::fs::File::open(tape).unwrap())).lines().map(Result::unwrap);
    let is_before = |line: &String| {
        let frame: serde_json::Value = serde_json::from_str(line).unwrap();
        frame["data"][0]["t"].as_i64() < Some(OPENING)
    };
    let day: Vec<String> = lines.skip_while(is_before).map(|line| line + "\n").collect();
    std::fs::write(to, day.concat()).unwrap();
}

/// Of each shard the sessions that received something, in their order.
fn received(found: &Found) -> BTreeMap<String, Vec<SessionId>> {
    let mut shards = BTreeMap::<String, Vec<SessionId>>::new();
    for (session, count) in &found.sessions {
        let end = count.end.as_ref().unwrap_or_else(|| panic!("nobody tells of the end of {session}"));
        if end.frames > 0 {
            shards.entry(end.shard.clone()).or_default().push(*session);
        }
    }
    shards
}

/// Sessions that are not followed by one gap, though another of their shard received something later.
fn without_gap(found: &Found) -> Vec<SessionId> {
    let gaps_after = |session: &SessionId| {
        let closed = found.gaps.iter().filter(|gap| gap.first_received_at.is_some());
        closed.filter(|gap| gap.previous_session == *session).count()
    };
    let followed = received(found).into_values().flat_map(|mut sessions| {
        sessions.pop();
        sessions
    });
    followed.filter(|session| gaps_after(session) != 1).collect()
}

/// A gap is written with the first frame behind it. So each session that received something is told of
/// by one gap, but the last such session of its shard. Returns of each shard how many received something.
pub(super) fn assert_gaps_between_sessions(rig: &Rig) -> BTreeMap<String, usize> {
    let mut found = rig.found();
    assert_eq!(without_gap(&found), [], "{:#?}", found.gaps);
    let shards = received(&found).into_iter().map(|(shard, sessions)| (shard, sessions.len())).collect();
    // The control: a gap that is not told.
    let later: Vec<SessionId> =
        received(&found).into_values().flat_map(|sessions| sessions[..sessions.len() - 1].to_vec()).collect();
    found.gaps.retain(|gap| later.first() != Some(&gap.previous_session));
    assert_eq!(without_gap(&found), later.first().copied().into_iter().collect::<Vec<_>>(), "a gap that is missing is not seen");
    shards
}

/// Before anybody comes after it, a dead daemon's spool says how far its session got: what is behind that is not
/// lost. A spool that is gone says nothing, and what was in it is.
#[test]
fn a_death_is_no_loss_yet_and_a_spool_that_is_gone_is_one() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let (report, well) = rig.verify();
    assert!(well && report["notes"].to_string().contains("has not ended"), "{report:#}");
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"), "{report:#}");

    let (spool, away) = (rig.path("spool"), rig.path("away"));
    std::fs::rename(&spool, &away).unwrap();
    let (report, well) = rig.verify();
    assert!(!well && report["findings"].to_string().contains("has no end"), "a spool that is gone was not seen: {report:#}");
    std::fs::rename(&away, &spool).unwrap();
    assert!(rig.verify().1, "it was put back");

    // Daemons go on with empty spools, one after one that died, and one after one that ended well. They cannot
    // know that there were others before them.
    for (away, missing) in [("away", "has no end"), ("away-too", "is told by no gap from its beginning on")] {
        std::fs::rename(&spool, rig.path(away)).unwrap();
        let mut daemon = rig.daemon();
        rig.wait_until("trades are durable", |pipeline| pipeline["spool"]["records"]["trades"].as_u64() > Some(1000));
        assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
        let (report, well) = rig.verify();
        println!("with an empty spool: {report}");
        assert!(!well && report["findings"].to_string().contains(missing), "{report:#}");
    }
    rig.end_exchange();
    let Some((counted, well)) = independent_count(rig.dir.path()) else { return };
    let findings = counted["findings"].to_string();
    assert!(!well && findings.contains("0 ends") && findings.contains("0 gaps"), "{counted:#}");
}

/// The same audit must see what it is for: an object that is gone, and one that was changed.
pub(super) fn controls(rig: &Rig) {
    let objects = files_below(&rig.path("lake/bronze/raw/trades"));
    let object = &objects[objects.len() / 2];
    let content = std::fs::read(object).unwrap();

    std::fs::remove_file(object).unwrap();
    let (report, well) = verify(rig.dir.path());
    assert!(!well && count(&report, "lost") > 0, "a missing object was not seen: {report:#}");

    let other = std::fs::read(objects.iter().find(|other| *other != object).unwrap()).unwrap();
    std::fs::write(object, other).unwrap();
    let (report, well) = verify(rig.dir.path());
    assert!(!well && count(&report, "lost") > 0, "a changed object was not seen: {report:#}");

    std::fs::write(object, content).unwrap();
    assert!(verify(rig.dir.path()).1, "it was put back");
}

pub(super) fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
