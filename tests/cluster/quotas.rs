//! Brokers whose quotas are below what a daemon sends and reads.

use super::rig::{A, Cluster, Servers};
use crate::support::servers::or_skip;

#[test]
fn a_quota_is_an_alarm_with_its_cure_as_long_as_it_holds_up_a_client_and_loses_nothing() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "1000"];
    let started = Cluster::start(Servers::default(), &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    let daemon = cluster.daemon(A);
    cluster.wait_for("trades are forwarded", || cluster.metric(A, "tickmint_forwarded_records_total") > Some(1000.0));
    let throttled = |cluster: &Cluster, client: &str| {
        let series = format!("tickmint_kafka_throttled_seconds{{client=\"{client}\"}}");
        cluster.metric(A, &series).unwrap_or_default()
    };
    let alarms = |cluster: &Cluster| cluster.get(A, "/health").unwrap_or_default()["alarms"].to_string();
    assert_eq!([throttled(&cluster, "producer"), throttled(&cluster, "consumer")], [0.0; 2], "{}", cluster.logs());

    cluster.kafka.alter_quotas("tickmint", "--add-config", "producer_byte_rate=20000,consumer_byte_rate=15000");
    for (client, cure) in [("producer", "producer_byte_rate"), ("consumer", "consumer_byte_rate")] {
        cluster.wait_for("it is said who waits, and what to do", || {
            let alarms = alarms(&cluster);
            alarms.contains(&format!("kafka/{client}-quota")) && alarms.contains(&format!("--add-config {cure}="))
        });
        assert!(throttled(&cluster, client) > 0.0, "{}", cluster.logs());
    }
    cluster.kafka.alter_quotas("tickmint", "--delete-config", "producer_byte_rate,consumer_byte_rate");
    cluster.wait_for("there is no alarm any more", || alarms(&cluster) == "[]");
    assert_eq!([throttled(&cluster, "producer"), throttled(&cluster, "consumer")], [0.0; 2], "{}", cluster.logs());
    cluster.ends_well(daemon);
}
