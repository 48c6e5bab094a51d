//! Two daemons on real brokers and a real bucket: killed, stopped for a while, told to leave; brokers killed. In the end the
//! audit against the exchange's ledger, and one line that says what was done.
//!
//! `TICKMINT_CHAOS_SECONDS` sets how long (by default a short form), `TICKMINT_SEED` the seed.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rig::{Cluster, Daemon};
use crate::pipeline::rig::{Process, end, pause};
use crate::support::kafka::Options;
use crate::support::servers::or_skip;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn signal(process: &Process, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &process.0.id().to_string()]).status();
    assert!(sent.unwrap().success(), "{signal}");
}

/// What was done, by kind.
#[derive(Debug, Default)]
struct Faults {
    kills: u32,
    pauses: u32,
    leaves: u32,
    brokers: u32,
    brokers_by_two: u32,
}

impl Faults {
    fn total(&self) -> u32 {
        self.kills + self.pauses + self.leaves + self.brokers + self.brokers_by_two
    }
}

#[test]
fn whatever_dies_in_the_cluster_nothing_is_lost_and_nothing_doubled() {
    let (seconds, seed) = (number("TICKMINT_CHAOS_SECONDS", 60), number("TICKMINT_SEED", 1));
    let symbols = tickmint::exchange::simulated_symbols(20);
    let seed_text = seed.to_string();
    let exchange = ["--simulate", "20", "--rate", "2000", "--seed", &seed_text];
    let kafka = Options { nodes: 3, ..Options::default() };
    let started = Cluster::start(kafka, &exchange, &symbols, "");
    let Some(mut cluster) = or_skip(started) else { return };
    let mut random = StdRng::seed_from_u64(seed);
    let mut daemons = Daemon::ALL.map(|daemon| cluster.daemon(daemon));
    // Of each daemon until when it is stopped.
    let mut stopped: [Option<Instant>; 2] = [None, None];
    let mut faults = Faults::default();
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        pause(Duration::from_millis(random.random_range(500..4000)));
        for (daemon, stopped) in daemons.iter().zip(&mut stopped) {
            if stopped.is_some_and(|until| Instant::now() >= until) {
                signal(daemon, "-CONT");
                *stopped = None;
            }
        }
        let which = random.random_range(0..2);
        match random.random_range(0..10) {
            0..4 => {
                daemons[which] = cluster.daemon(Daemon::ALL[which]); // the one before is killed
                stopped[which] = None;
                faults.kills += 1;
            }
            4..6 if stopped[which].is_none() => {
                signal(&daemons[which], "-STOP");
                stopped[which] = Some(Instant::now() + Duration::from_secs(random.random_range(5..20)));
                faults.pauses += 1;
            }
            6 if stopped[which].is_none() => {
                end(&mut daemons[which]);
                daemons[which] = cluster.daemon(Daemon::ALL[which]);
                faults.leaves += 1;
            }
            7..9 => {
                let node = random.random_range(1..=3);
                cluster.kafka.kill(node);
                pause(Duration::from_millis(random.random_range(0..3000)));
                cluster.kafka.start_again(node);
                faults.brokers += 1;
            }
            9 => {
                let well = random.random_range(1..=3);
                let nodes = (1..=3).filter(|node| *node != well);
                nodes.clone().for_each(|node| cluster.kafka.kill(node));
                pause(Duration::from_millis(random.random_range(0..3000)));
                nodes.for_each(|node| cluster.kafka.start_again(node));
                faults.brokers_by_two += 1;
            }
            _ => {}
        }
    }
    for (daemon, _) in daemons.iter().zip(stopped).filter(|(_, stopped)| stopped.is_some()) {
        signal(daemon, "-CONT");
    }
    for (daemon, process) in Daemon::ALL.iter().zip(&mut daemons) {
        // One that gave up while all brokers were away begins again, as a service would be.
        if process.0.try_wait().unwrap().is_some() {
            *process = cluster.daemon(*daemon);
        }
    }
    cluster.end_exchange();
    cluster.wait_for("all that is in the spools is archived", || {
        Daemon::ALL.iter().all(|daemon| cluster.metric(*daemon, "tickmint_forward_uncovered") == Some(0.0))
    });
    for process in &mut daemons {
        assert_eq!(end(process), Some(0), "{}", cluster.logs());
    }
    let (report, is_well) = cluster.verify();
    println!(
        "chaos: seed {seed}, {seconds} s, {} faults {faults:?}, sent {}, archived {}, gaps {}, LOST {}, DUPLICATED {}",
        faults.total(),
        report["sent"],
        report["archived"],
        report["gaps"],
        report["lost"],
        report["duplicated"]
    );
    assert!(is_well, "{report:#}\n{}", cluster.logs());
    assert_eq!(report["waiting"], 0, "{report:#}");
    assert!(report["archived"].as_u64() > Some(1000), "{report:#}");
}
