//! Topics that are given more partitions while daemons run, as docs/cluster.md has it done.

use rdkafka::admin::{AdminOptions, NewPartitions};
use tickmint::audit::{self, found::Found};
use tickmint::bronze::chain;
use tickmint::commands::block_on;
use tickmint::config::{Config, KafkaConfig};
use tickmint::domain::chain::ChainId;
use tickmint::domain::stream::{STREAMS, Stream};
use tickmint::io::s3::retention::Retention;
use tickmint::io::store;

use super::faults::admin;
use super::rig::{A, Cluster, PARTITIONS, Servers};
use crate::pipeline::rig::{end, signal};
use crate::support::servers::or_skip;

/// Archives only, and runs on with its old config.
const C: &str = "c";
const MORE: u32 = PARTITIONS + 2;

#[test]
fn partitions_that_are_added_are_archived_by_who_ran_before_and_verify_counts_what_comes_meanwhile() {
    let symbols = tickmint::exchange::simulated_symbols(40);
    let started = Cluster::start(Servers::default(), &["--simulate", "40", "--rate", "500"], &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    cluster.configure(C, None);
    let (mut a, c, trades) = (cluster.daemon(A), cluster.daemon(C), "tickmint_bronze_records_total{stream=\"trades\"}");
    let archived = |cluster: &Cluster| [A, C].map(|name| cluster.metric(name, trades).unwrap_or_default()).iter().sum::<f64>();
    cluster.wait_for("both have a share", || [A, C].iter().all(|name| share(&cluster, name) > Some(0.0)));
    cluster.wait_for("trades are archived", || archived(&cluster) > 500.0);

    let kafka = Config::load_to_verify(&cluster.config(A)).unwrap().kafka.unwrap();
    block_on(add_partitions(&kafka)).unwrap();
    assert_eq!(end(&mut a), Some(0), "{}", cluster.logs());
    let text = std::fs::read_to_string(cluster.config(A)).unwrap();
    let text = text.replace(&format!("partitions = {PARTITIONS}"), &format!("partitions = {MORE}"));
    std::fs::write(cluster.config(A), text).unwrap();
    let (mut a, before) = (cluster.daemon(A), archived(&cluster));
    let config = Config::load_to_verify(&cluster.config(A)).unwrap();
    let store = store::open(&config.bronze.store).unwrap();
    let begun = || block_on(chain::all(&store, ChainId::all(PARTITIONS))).unwrap().unwrap().len();
    cluster.wait_for("the new partitions are archived", || begun() == STREAMS * MORE as usize);
    cluster.wait_for("trades are archived", || archived(&cluster) > before + 2000.0);

    // All of it is in the topics, and C, which is to archive the rest, stands still.
    signal("-STOP", c.0.id());
    cluster.end_exchange();
    assert_eq!(end(&mut a), Some(0), "{}", cluster.logs());
    // Without A's spool, which has all of it, too.
    let read = || async { audit::bronze::read_all(&store, &[], MORE, Retention::default()).await.unwrap() };
    let far = |found: &Found| found.tails.values().map(|tail| tail.next.start).sum::<u64>();
    let mut found = block_on(read()).unwrap();
    signal("-CONT", c.0.id());
    cluster.wait_for("C archives more", || far(&block_on(read()).unwrap()) > far(&found));
    block_on(found.cluster(config.kafka.as_ref().unwrap())).unwrap().unwrap();
    let report = audit::report::report(&found, Some(&audit::ledger::read(&cluster.path("ledger")).unwrap()));
    assert!(report.is_clean() && report.waiting > 0, "{report:#?}\n{}", cluster.logs());
    let new = report.partitions.iter().filter(|standing| standing.chain.starts_with("trades/") && standing.next > 0);
    assert!(new.count() > PARTITIONS as usize, "nothing was archived of the new partitions: {report:#?}");

    let (report, is_well) = cluster.verify();
    assert!(is_well, "while C runs: {report:#}\n{}", cluster.logs());
}

/// How many partitions a daemon has.
fn share(cluster: &Cluster, name: &str) -> Option<f64> {
    let health = cluster.get(name, "/health")?;
    let consumer = health["actors"].as_array()?.iter().find(|actor| actor["path"] == "consumer")?.clone();
    consumer["gauges"]["partitions"].as_f64()
}

async fn add_partitions(kafka: &KafkaConfig) {
    let admin = admin(kafka);
    for topic in Stream::ALL.map(|stream| kafka.topic(stream)) {
        let new = NewPartitions::new(&topic, MORE as usize);
        admin.create_partitions(&[new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }
}
