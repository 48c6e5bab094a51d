//! Another server of S3 than all other tests of a cluster have: what holds must not hang on the habits of one.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig::{A, Cluster, Servers};
use crate::pipeline::rig::pause;
use crate::support::servers::{Server, or_skip};

const KILLS: usize = 5;

#[test]
fn on_seaweedfs_kills_at_random_moments_lose_nothing_and_double_nothing() {
    let seed = 20_261_123;
    let mut random = StdRng::seed_from_u64(seed);
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "1000"];
    let started = Cluster::start(Servers { bucket: Server::start_seaweedfs, ..Servers::default() }, &exchange, &symbols);
    let Some(mut cluster) = or_skip(started) else { return };
    let archived = |cluster: &Cluster| cluster.metric(A, "tickmint_bronze_records_total{stream=\"trades\"}").unwrap_or_default();
    for life in 1..=KILLS {
        let mut daemon = cluster.daemon(A);
        cluster.wait_for("trades are archived", || archived(&cluster) > 0.0);
        // Objects and slots come once a second: some lives die between the two.
        pause(Duration::from_millis(random.random_range(0..2500)));
        println!("seed {seed}, life {life}: {} trades archived", archived(&cluster));
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
    }
    let daemon = cluster.daemon(A);
    cluster.wait_for("trades are archived again", || archived(&cluster) > 1000.0);
    cluster.ends_well(daemon);
}
