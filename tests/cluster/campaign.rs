//! Two daemons on real brokers, a real registry and a real bucket, and whatever can happen to any of them: see `faults.rs`. In
//! the end the audit against the exchange's ledger, and one line that says what was done and what came of it.
//!
//! `TICKMINT_CHAOS_SECONDS` sets how long, `TICKMINT_CHAOS_RATE` the trades a second, `TICKMINT_SEED` the seed;
//! `TICKMINT_CHAOS_ONLY=kill,topic` leaves all other kinds of faults out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tickmint::bronze::chain::{Chain, Follower};
use tickmint::config::Config;
use tickmint::domain::chain::{Body, ChainId, Position};
use tickmint::domain::identity::Micros;
use tickmint::domain::stream::Stream;
use tickmint::io::store;

use super::faults::{Campaign, Kind};
use super::rig::{A, Cluster, PARTITIONS, Servers};
use crate::pipeline::rig::pause;
use crate::support::amount;
use crate::support::kafka::Options;
use crate::support::servers::or_skip;

/// Simulated trades carry times of up to so much later than they are sent.
const AHEAD: Micros = 500_000;

/// What was received so long ago has been forwarded, whatever the campaign did to the brokers meanwhile.
const UNFORWARDED: Micros = 120_000_000;

#[test]
fn whatever_dies_in_the_cluster_nothing_is_lost_and_nothing_doubled() {
    let (seconds, seed) = (amount("TICKMINT_CHAOS_SECONDS", 600), amount("TICKMINT_SEED", 1));
    let rate = amount("TICKMINT_CHAOS_RATE", 2000);
    let symbols = tickmint::exchange::simulated_symbols(20);
    let (seed_text, rate_text) = (seed.to_string(), rate.to_string());
    let exchange = ["--simulate", "20", "--rate", &rate_text, "--seed", &seed_text];
    let kafka = Options { nodes: 3, ..Options::default() };
    let servers = Servers { kafka, has_registry: true, ..Servers::default() };
    let Some(cluster) = or_skip(Cluster::start(servers, &exchange, &symbols)) else { return };
    let only = std::env::var("TICKMINT_CHAOS_ONLY").unwrap_or_default();
    let mut campaign = Campaign::begin(cluster, seed, &only);
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        pause(campaign.breath());
        campaign.attend(false);
        campaign.strike();
    }
    campaign.settle();

    let (mut report, is_well) = campaign.cluster.verify();
    let mut sessions = |of: &str| -> BTreeMap<String, u64> { serde_json::from_value(report[of].take()).unwrap_or_default() };
    let (cut_off, incomplete) = (sessions("cut_off"), sessions("incomplete"));
    let count = |name: &str| report[name].as_u64().unwrap();
    // What a lost disk held and had not forwarded is named, and no more than that is missing. A session may have an end all the
    // same: its successor's words go to another partition, which may have taken them first.
    let ledger = campaign.cluster.path("ledger");
    let on_lost_disks = on_lost_disks(&sessions_of(&ledger, &symbols[symbols.len() / 2]), &campaign.disks_lost);
    let with_disks: u64 = incomplete.iter().filter(|(session, _)| on_lost_disks.contains(*session)).map(|(_, lost)| lost).sum();
    let recovery = recoveries(&campaign);
    let at = |share: usize, of: &dyn Fn(Kind) -> bool| {
        let all: Vec<_> = recovery.iter().filter(|(kind, _)| of(*kind)).map(|(_, time)| *time as f64 / 1e6).collect();
        all.get((all.len() * share / 100).min(all.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    for kind in campaign.done.keys() {
        let (half, all) = (at(50, &|of| of == *kind), at(100, &|of| of == *kind));
        println!("{:>12}: recovery p50 {half:5.1} s, max {all:5.1} s", format!("{kind:?}"));
    }
    // A fault of the client's: worth knowing of, and no loss.
    for name in campaign.cluster.names() {
        campaign.cluster.log(&name).lines().filter(|line| line.contains("brings nothing of")).for_each(|line| println!("{line}"));
    }
    let summary = format!(
        "chaos: seed {seed}, {seconds} s, {rate} trades/s, {} faults {:?}, daemons gave up {:?}, sent {}, archived {}, gaps {}, LOST {}, \
         DUPLICATED {}, with lost disks {with_disks} of {} sessions, recovery p50 {:.1} s p99 {:.1} s max {:.1} s",
        campaign.done.values().sum::<u32>(),
        campaign.done,
        campaign.gave_up,
        report["sent"],
        report["archived"],
        report["gaps"],
        count("lost") - with_disks,
        report["duplicated"],
        cut_off.len(),
        at(50, &|_| true),
        at(99, &|_| true),
        at(100, &|_| true),
    );
    crate::support::summary(&summary);
    let wrong: Vec<_> = [
        ("verify found something, and no disk was lost", !is_well && campaign.disks_lost.is_empty()),
        ("sessions are cut off that were on no lost disk", !cut_off.keys().all(|session| on_lost_disks.contains(session))),
        ("records are lost", count("lost") != with_disks),
        ("records are doubled", count("duplicated") > 0),
        ("records wait", count("waiting") > 0),
        ("there are more faults than lost disks explain", count("faults") > cut_off.len() as u64),
        ("next to nothing was archived", count("archived") <= 1000),
    ]
    .into_iter()
    .filter_map(|(what, is_so)| is_so.then_some(what))
    .collect();
    if !wrong.is_empty() {
        let reason = format!("chaos FAILED: {}; {}", wrong.join(", "), report["findings"]);
        crate::support::summary(&reason);
        panic!("{report:#}\n{cut_off:?}\n{}\n{reason}", campaign.cluster.logs());
    }
}

/// The sessions of the daemon whose key first asked for a symbol, and when each was opened; in order.
fn sessions_of(ledger: &Path, symbol: &str) -> Vec<(Micros, String)> {
    let (mut opened, mut key) = (BTreeMap::new(), None);
    for line in std::io::BufReader::new(std::fs::File::open(ledger).unwrap()).lines() {
        let line = line.unwrap();
        if line.starts_with(r#"{"kind":"open""#) {
            let open: Value = serde_json::from_str(&line).unwrap();
            opened.insert(open["conn"].as_u64(), open);
        } else if key.is_none() && line.starts_with(r#"{"kind":"sub""#) {
            let sub: Value = serde_json::from_str(&line).unwrap();
            key = (sub["symbol"] == symbol).then(|| opened[&sub["conn"].as_u64()]["key_hash"].clone());
        }
    }
    let of_it = opened.into_values().filter(|open| Some(&open["key_hash"]) == key.as_ref());
    let mut sessions: Vec<_> =
        of_it.filter_map(|open| Some((open["at_us"].as_i64()?, open["request_id"].as_str()?.to_string()))).collect();
    sessions.sort();
    sessions
}

/// Those of a daemon's sessions, each with when it was opened, of which a lost disk may have held something that nobody else had:
/// on that disk, and not over for longer than the brokers may have been away.
fn on_lost_disks(sessions: &[(Micros, String)], lost: &[Micros]) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    for (place, (opened, session)) in sessions.iter().enumerate() {
        let Some(lost) = lost.iter().find(|lost| *lost > opened) else { continue };
        let over = sessions.get(place + 1).map_or(Micros::MAX, |(opened, _)| *opened);
        if over > lost - UNFORWARDED {
            held.insert(session.clone());
        }
    }
    held
}

#[test]
fn a_lost_disk_explains_what_it_held_last_and_nothing_else() {
    let minute = 60_000_000;
    let sessions: Vec<_> = (0..10).map(|n| (n * minute, n.to_string())).collect();
    let held = |lost: &[Micros]| on_lost_disks(&sessions, lost).into_iter().collect::<String>();
    assert_eq!(held(&[]), "");
    assert_eq!(held(&[5 * minute + 1]), "345", "0 to 2 were over for two minutes, 6 was opened on the next disk");
    assert_eq!(held(&[5 * minute + 1, 6 * minute + 1]), "3456");
    assert_eq!(held(&[20 * minute]), "9");
}

/// For each fault, from the end of its cause until every partition had archived a trade that was made after it; in order. Those
/// at the end, after which no such trade came, are left out.
fn recoveries(campaign: &Campaign) -> Vec<(Kind, Micros)> {
    let config = Config::load_without_keys(&campaign.cluster.config(A)).unwrap();
    let store = store::open(&config.bronze.store).unwrap();
    let chains = (0..PARTITIONS).map(|partition| ChainId { stream: Stream::Trades, partition });
    let read = async |chain: ChainId| {
        let mut follower = Follower::new(Chain::new(chain, store.clone()), Position::default());
        let mut slots = Vec::new();
        while let Some(slot) = follower.next().await.unwrap() {
            if let Body::Data { data: Some(data), .. } = slot.body {
                slots.push((slot.written_at, data.max_time));
            }
        }
        slots
    };
    let slots: Vec<_> = chains.map(|chain| tickmint::commands::block_on(read(chain)).unwrap()).collect();
    let after = |over: Micros, slots: &Vec<(Micros, Micros)>| {
        slots
            .iter()
            .filter(|(written, newest)| *written >= over && *newest >= over + AHEAD)
            .map(|(written, _)| written - over)
            .min()
    };
    let recovery = |(kind, over): &(Kind, Micros)| {
        let of_all: Option<Vec<_>> = slots.iter().map(|slots| after(*over, slots)).collect();
        Some((*kind, of_all?.into_iter().max()?))
    };
    let mut all: Vec<_> = campaign.over.iter().filter_map(recovery).collect();
    all.sort_unstable_by_key(|(_, time)| *time);
    all
}
