//! A daemon whose name in the consumer group another one takes, since that runs on a copy of its data folder.

use std::time::Duration;

use super::rig::{A, Cluster, Servers};
use crate::pipeline::rig::pause;
use crate::support::s3_proxy::{Fault, Reply, Rule};
use crate::support::servers::or_skip;

const COPY: &str = "copy";

/// Its writers wait for a bucket that takes nothing, and so still drain when the group gives it back what it had.
#[test]
fn who_has_lost_its_name_works_on_when_its_writers_have_ended() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "500"];
    let started = Cluster::start(Servers::default(), &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    let daemon = cluster.daemon(A);
    let archived = |cluster: &Cluster| cluster.metric(A, "tickmint_bronze_records_total{stream=\"trades\"}").unwrap_or_default();
    cluster.wait_for("trades are archived", || archived(&cluster) > 1000.0);

    cluster.store.inject(Rule::always(Fault::Refuse(Reply::SLOW_DOWN)).method("PUT"));
    pause(Duration::from_secs(2)); // all writers have something to write
    cluster.configure(COPY, None);
    std::fs::create_dir(cluster.path(COPY)).unwrap();
    std::fs::copy(cluster.path(A).join("NAME"), cluster.path(COPY).join("NAME")).unwrap();
    let copy = cluster.daemon(COPY);
    cluster.wait_for("the name is taken", || cluster.log(A).contains("another daemon is in the group by the name"));
    drop(copy);
    pause(Duration::from_secs(20)); // after 10 the group misses it
    cluster.store.clear();

    let before = archived(&cluster);
    cluster.wait_for("it archives again", || archived(&cluster) > before + 500.0);
    cluster.ends_well(daemon);
}
