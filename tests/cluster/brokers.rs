//! What brokers that are away do to a daemon: nothing but to make its spool grow.

use std::time::Duration;

use tickmint::domain::stream::Stream;

use super::faults::recreate;
use super::rig::{A, Cluster, Servers};
use crate::pipeline::rig::pause;
use crate::support::kafka::Options;
use crate::support::servers::or_skip;

/// `acks=all` and `min.insync.replicas=2`, proved and not assumed.
#[test]
fn with_two_of_three_brokers_away_nothing_is_acknowledged_and_all_of_it_arrives_later_also_where_its_topic_is_created_anew() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "1000"];
    let kafka = Options { nodes: 3, ..Options::default() };
    let started = Cluster::start(Servers { kafka, ..Servers::default() }, &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    let daemon = cluster.daemon(A);
    let forwarded = |cluster: &Cluster| cluster.metric(A, "tickmint_forwarded_records_total").unwrap_or_default();
    let durable = |cluster: &Cluster| cluster.metric(A, "tickmint_spool_records_total{stream=\"trades\"}").unwrap_or_default();
    cluster.wait_for("trades are forwarded", || forwarded(&cluster) > 1000.0);

    cluster.kafka.kill(2);
    cluster.kafka.kill(3);
    pause(Duration::from_secs(4)); // answers that were on their way
    let (acknowledged, before) = (forwarded(&cluster), durable(&cluster));
    cluster.wait_for("the spool grows all the same", || durable(&cluster) > before + 3000.0);
    assert_eq!(forwarded(&cluster), acknowledged, "one replica is not enough\n{}", cluster.logs());
    cluster.wait_for("it is said", || {
        let health = cluster.get(A, "/health").unwrap_or_default();
        health["alarms"].to_string().contains("trades wait in the spool")
    });

    cluster.kafka.start_again(2);
    cluster.kafka.start_again(3);
    cluster.wait_for("it goes on", || forwarded(&cluster) > acknowledged + 3000.0);

    // Its leaders' epochs begin at 0 again, and those of before have risen: who holds them for stale reads nothing any more.
    tickmint::commands::block_on(recreate(&cluster.kafka_config(), Stream::Trades, Duration::ZERO)).unwrap();
    cluster.ends_well(daemon);
}

/// A clock that is more than an hour ahead: brokers take no record of it, by their default.
#[test]
fn a_clock_that_is_wrong_is_named_and_nothing_is_lost_when_it_is_right_again() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "500"];
    let started = Cluster::start(Servers::default(), &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    // As far ahead as this began ago, and in future twice as fast.
    let begun = tickmint::clock::now() - 2 * 3_600_000_000;
    let mut daemon = cluster.daemon_with(A, &[("TICKMINT_HURRY", format!("{begun}:2"))]);
    cluster.wait_for("it is said", || {
        let alarms = cluster.get(A, "/health").unwrap_or_default()["alarms"].to_string();
        alarms.contains("set the clocks of this machine and of the brokers") && alarms.contains("trades wait in the spool")
    });
    assert_eq!(cluster.metric(A, "tickmint_forwarded_records_total"), Some(0.0), "{}", cluster.logs());
    daemon.0.kill().unwrap();
    drop(daemon);

    let daemon = cluster.daemon(A);
    cluster.wait_for("it goes on", || cluster.metric(A, "tickmint_forwarded_records_total") > Some(1000.0));
    cluster.ends_well(daemon);
}
