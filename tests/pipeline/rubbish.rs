//! Ten thousand mutated frames and more among the trades: a few bytes of a real one changed, put in, taken
//! out or cut off, and beside them binary, overlong and absurd ones, and some of symbols that nobody wants.
//! None kills the daemon; each bad record is in quarantine with a reason, and each trade that a mutated
//! frame still holds is a trade. What is what, the exchange has read for itself.

use std::collections::BTreeMap;

use serde_json::Value;

use super::count::assert_counted_alike;
use super::kills::{count, files_below};
use super::rig::{Rig, end};

/// What is thrown in, beside the real frames.
const FAULTS: &str = "mutated=1,malformed=0.3,binary=0.1,unknown=0.1,absurd=0.1,oversize=0.001:1100KiB,repeat=0.02,shuffle=0.05";

/// So many mutated frames, at least.
const MUTATED: u64 = 10_000;

/// Reasons that are met for certain. A bad time is met by malformed frames.
const REASONS: [&str; 8] =
    ["not_json", "binary", "overlong", "wrong_shape", "bad_price", "bad_size", "bad_time", "unknown_symbol"];

#[test]
fn rubbish_is_quarantined_and_the_trades_beside_it_are_not() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "12000", "--faults", FAULTS], &symbols, "");
    let mut daemon = rig.daemon();
    rig.wait_until("there is enough rubbish of each kind", |pipeline| {
        let reasons = pipeline["feed"]["quarantined"].as_object();
        reasons.is_some_and(|reasons| {
            let all: u64 = reasons.values().filter_map(Value::as_u64).sum();
            all > 2 * MUTATED && REASONS.iter().all(|reason| reasons.contains_key(*reason))
        })
    });
    let health = rig.get("/health").unwrap();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let restarted: Vec<_> = health["actors"].as_array().unwrap().iter().filter(|actor| actor["restarts"] != 0).collect();
    assert!(restarted.is_empty(), "rubbish killed somebody: {restarted:?}");
    // The audit holds every bad record of the ledger against quarantine, and every trade against Bronze.
    let (report, well) = rig.verify();
    let (reasons, last) = quarantine(&rig);
    let mutated = mutated(&rig, last);
    println!("{report} {reasons:?}, mutated by what they mean: {mutated:?}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated")), (0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"), "{report:#}");
    assert_eq!(count(&report, "quarantined"), reasons.values().sum::<u64>(), "{report:#}");
    assert!(REASONS.iter().all(|reason| reasons.contains_key(*reason)), "{reasons:?}");
    assert!(mutated.values().sum::<u64>() >= MUTATED, "{mutated:?}");
    for meaning in ["trades", "rubbish", "both"] {
        assert!(mutated[meaning] > 0, "{mutated:?}");
    }
    assert_counted_alike(rig.dir.path(), &report);
}

/// The reasons in Bronze, each record with one, and the last frame of a record.
fn quarantine(rig: &Rig) -> (BTreeMap<String, u64>, u64) {
    let (mut reasons, mut last) = (BTreeMap::new(), 0);
    for path in files_below(&rig.path("lake/bronze/raw/quarantine")) {
        let lines = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: Value = serde_json::from_slice(line).unwrap();
            let reason = record["reason"].as_str().filter(|reason| !reason.is_empty());
            *reasons.entry(reason.unwrap_or_else(|| panic!("no reason in {record}")).to_string()).or_default() += 1;
            last = last.max(record["frame"].as_u64().unwrap());
        }
    }
    (reasons, last)
}

/// The mutated frames of the ledger up to the last that came, by what is to be made of them. There was one
/// connection.
fn mutated(rig: &Rig, last: u64) -> BTreeMap<&'static str, u64> {
    let ledger = std::fs::read_to_string(rig.path("ledger")).unwrap();
    let mut found = BTreeMap::new();
    for line in ledger.lines().filter(|line| line.contains(r#""what":"mutated""#)) {
        let frame: Value = serde_json::from_str(line).unwrap();
        assert_eq!(frame["conn"], 1);
        if frame["n"].as_u64().unwrap() <= last {
            let meaning = match (frame["trades"].as_u64().unwrap(), frame["bad"].as_u64().unwrap()) {
                (0, 0) => "nothing",
                (0, _) => "rubbish",
                (_, 0) => "trades",
                _ => "both",
            };
            *found.entry(meaning).or_default() += 1;
        }
    }
    found
}
