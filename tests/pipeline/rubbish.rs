//! Ten thousand frames of rubbish among the trades: mutated, binary, overlong, absurd, of symbols
//! that nobody wants. None kills the daemon; each is in quarantine with a reason.

use super::count::assert_counted_alike;
use super::kills::count;
use super::rig::{Rig, end};

/// What is thrown in, beside the real frames.
const FAULTS: &str = "malformed=0.9,binary=0.1,unknown=0.1,absurd=0.1,oversize=0.0005,repeat=0.02,shuffle=0.05";

/// So many pieces of rubbish, at least.
const RUBBISH: u64 = 10_000;

#[test]
fn rubbish_is_quarantined_and_the_trades_beside_it_are_not() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "12000", "--faults", FAULTS], &symbols, "");
    let mut daemon = rig.daemon();
    rig.wait_until("there is enough rubbish", |pipeline| {
        let reasons = pipeline["feed"]["quarantined"].as_object();
        reasons.is_some_and(|reasons| reasons.values().filter_map(serde_json::Value::as_u64).sum::<u64>() > RUBBISH)
    });
    let pipeline = rig.get("/api/pipeline").unwrap();
    let health = rig.get("/health").unwrap();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let restarted: Vec<_> = health["actors"].as_array().unwrap().iter().filter(|actor| actor["restarts"] != 0).collect();
    assert!(restarted.is_empty(), "rubbish killed somebody: {restarted:?}");
    let reasons = pipeline["feed"]["quarantined"].as_object().unwrap();
    for reason in ["not_json", "wrong_shape", "binary", "unknown_symbol"] {
        assert!(reasons.contains_key(reason), "{reason} was never met: {reasons:?}");
    }
    // The audit holds every bad frame of the ledger against quarantine, and every trade against Bronze.
    let (report, well) = rig.verify();
    println!("{report} {reasons:?}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated")), (0, 0));
    assert!(count(&report, "quarantined") > RUBBISH, "{report:#}");
    assert_counted_alike(rig.dir.path(), &report);
}
