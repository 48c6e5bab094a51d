//! Two daemons on real brokers, a real registry and a real bucket, and whatever can happen to any of them: see `faults.rs`. In
//! the end the audit against the exchange's ledger, what `outcome.rs` holds against it besides, and one line that says what was done
//! and what came of it.
//!
//! `TICKMINT_CHAOS_SECONDS` sets how long, `TICKMINT_CHAOS_RATE` the trades a second, `TICKMINT_SEED` the seed;
//! `TICKMINT_CHAOS_ONLY=kill,topic` leaves all other kinds of faults out.

use std::time::{Duration, Instant};

use tickmint::bronze::chain::{Chain, Follower};
use tickmint::config::Config;
use tickmint::domain::chain::{Body, ChainId, Position};
use tickmint::domain::identity::Micros;
use tickmint::domain::stream::Stream;
use tickmint::io::store;

use super::faults::{Campaign, Kind};
use super::outcome::Outcome;
use super::rig::{A, Cluster, PARTITIONS, Servers};
use crate::pipeline::rig::pause;
use crate::support::amount;
use crate::support::kafka::Options;
use crate::support::servers::or_skip;

/// Simulated trades carry times of up to so much later than they are sent.
const AHEAD: Micros = 500_000;

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

    // A lost disk is given back for the audit: then nothing is missing, and what only it has is what was lost with it.
    let lost: Vec<_> = campaign.disks_lost.iter().map(|lost| lost.spool.clone()).filter(|spool| spool.exists()).collect();
    let (report, is_well) = campaign.cluster.verify_with(&lost);
    let count = |name: &str| report[name].as_u64().unwrap();
    let outcome = Outcome::of(&campaign, &symbols);
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
    let [data, gaps, ends] = outcome.slots;
    let [unreceived, on_their_way] = outcome.unreceived;
    let summary = format!(
        "chaos: seed {seed}, {seconds} s, {rate} trades/s, {} faults {:?}, daemons gave up {:?}, sent {}, archived {}, LOST {}, \
         DUPLICATED {}; never received {unreceived} in {} gaps, of them {on_their_way} still on their way, the oldest {} ms before its \
         end; on {} lost disks {}; {} bytes cut off by power failures; slots: {data} data, {gaps} gap, {ends} end; other audit {}; \
         recovery p50 {:.1} s p99 {:.1} s max {:.1} s",
        campaign.done.values().sum::<u32>(),
        campaign.done,
        campaign.gave_up,
        report["sent"],
        report["archived"],
        report["lost"],
        report["duplicated"],
        report["gaps"],
        outcome.oldest / 1000,
        campaign.disks_lost.len(),
        outcome.on_lost_disks,
        campaign.unsynced,
        outcome.content,
        at(50, &|_| true),
        at(99, &|_| true),
        at(100, &|_| true),
    );
    crate::support::summary(&summary);
    let (sent, archived) = (count("sent"), count("archived"));
    let was_done = |kind: Kind, times: u32| campaign.done.get(&kind) > Some(&times);
    let all: Vec<_> = [
        ("verify found something", !is_well),
        ("trades wait that are on no lost disk", count("waiting") != outcome.on_lost_disks),
        ("sent is not archived, lost with a disk, or never received", {
            sent != archived + outcome.on_lost_disks + count("not_received") || count("not_received") != unreceived
        }),
        ("the other audit has counted something else", {
            let counted = &outcome.content;
            !counted.is_null() && (counted["archived"] != report["archived"] || counted["sent"] != report["sent"])
        }),
        ("good trades were put into quarantine", count("quarantined") > 0),
        ("the exchange was not fast enough to say anything", sent < rate * seconds / 2),
        ("topics were made anew, and no chain has closed a log", was_done(Kind::Topic, 0) && ends == 0),
        ("retention passed the tail time and again, and no chain has a gap", was_done(Kind::Retention, 5) && gaps == 0),
        ("the power failed time and again, and nothing was cut off", was_done(Kind::Power, 20) && campaign.unsynced == 0),
    ]
    .into_iter()
    .filter(|(_, is_so)| *is_so)
    .map(|(what, _)| what.to_string())
    .chain(outcome.wrong)
    .collect();
    if !all.is_empty() {
        let reason = format!("chaos FAILED: {}; {}", all.join("; "), report["findings"]);
        crate::support::summary(&reason);
        panic!("{report:#}\n{}\n{reason}", campaign.cluster.logs());
    }
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
