//! The power fails: of the spool only that is left which an fsync had reached. What was acknowledged
//! to the feed must be among it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kills::count;
use super::rig::{Rig, end, pause};
use crate::support::witness::Witness;

fn witness(rig: &Rig) -> Witness {
    Witness::default().read(&rig.path("witness"))
}

fn broken_promises(rig: &Rig) -> Vec<String> {
    witness(rig).broken_promises(&rig.found())
}

/// Lives that end by a power failure at a bad moment, then one that ends in good order.
fn outages(lives: u32, flaw: &str) -> (Rig, u64) {
    let mut random = StdRng::seed_from_u64(20_261_125);
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "3000"], &symbols, "");
    let told = rig.path("witness");
    rig.set("TICKMINT_WITNESS", told.to_str().unwrap());
    rig.set("TICKMINT_FLAW", flaw);
    let mut gone = 0;
    for life in 0..lives {
        let points = ["spool.before-write", "spool.before-fsync", "spool.after-fsync", "session.acknowledged"];
        let point = points[life as usize % points.len()];
        rig.set("TICKMINT_FAULTS", &format!("{point}=abort@{}", random.random_range(5..40)));
        let mut daemon = rig.daemon();
        daemon.wait();
        gone += witness(&rig).cut_power(&rig.path("spool"));
    }
    rig.set("TICKMINT_FAULTS", "");
    rig.set("TICKMINT_FLAW", "");
    let mut last = rig.daemon();
    rig.wait_until("trades are archived again", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(100));
    pause(Duration::from_millis(100));
    assert_eq!(end(&mut last), Some(0), "{}", rig.log());
    rig.end_exchange();
    (rig, gone)
}

#[test]
fn what_was_acknowledged_survives_a_power_failure() {
    let (rig, gone) = outages(12, "");
    assert!(gone > 0, "the power failures hit nothing");
    assert_eq!(broken_promises(&rig), Vec::<String>::new());
    let (report, well) = rig.verify();
    println!("{gone} bytes were not fsynced and are gone: {report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
}

#[test]
fn an_answer_before_the_fsync_is_noticed() {
    let (rig, _) = outages(8, "AckBeforeFsync");
    let broken = broken_promises(&rig);
    println!("{broken:#?}");
    assert!(!broken.is_empty(), "trades were acknowledged and lost, and nobody noticed");
}
