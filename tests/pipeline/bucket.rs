//! The warehouse over a bucket: Bronze in a real S3 server, read by DuckDB itself.

use super::gold::{compare, tape_of};
use super::kills::count;
use super::outages::bronze;
use super::rig::{Rig, end};
use crate::support::bucket::owner;
use crate::support::python::python;
use crate::support::servers::{Server, or_skip};

/// The exchange sends so many trades and no more.
const TRADES: u64 = 6000;

#[test]
fn gold_over_a_bucket_equals_the_candles_of_an_independent_script() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = or_skip(Server::start_minio(folder.path())) else { return };
    if or_skip(python("dbt")).is_none() {
        return;
    }
    tickmint::commands::block_on(owner(&server)).unwrap();
    let symbols = tickmint::exchange::simulated_symbols(20);
    let exchange = ["--simulate", "20", "--rate", "1500", "--trades", &TRADES.to_string()];
    let keys = bronze(folder.path(), server.endpoint());
    let mut rig = Rig::new(&exchange, &symbols, &keys);
    rig.with_warehouse();

    // The first life has its keys from a profile, as the SDK finds it; so has DuckDB.
    let key_files = &keys[keys.find("access_key_file").unwrap()..];
    rig.edit(key_files, "");
    let profile = format!("[tick]\naws_access_key_id = {}\naws_secret_access_key = {}\n", Server::ACCESS_KEY, Server::SECRET_KEY);
    std::fs::write(rig.path("profiles"), profile).unwrap();
    rig.set("AWS_SHARED_CREDENTIALS_FILE", rig.path("profiles").to_str().unwrap());
    rig.set("AWS_PROFILE", "tick");

    // The second life has them from its config, finds all in the bucket and goes on where the tables are.
    let mut daemon = rig.daemon();
    rig.wait_until("something is published", |pipeline| pipeline["gold"]["bars"].as_u64() > Some(0));
    rig.wait_until("all is archived", |pipeline| pipeline["bronze"]["trades"]["records"] == TRADES);
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    let without = std::fs::read_to_string(rig.path("tickmint.toml")).unwrap();
    std::fs::write(rig.path("tickmint.toml"), without.replace("[bronze.s3]\n", &format!("[bronze.s3]\n{key_files}"))).unwrap();
    rig.set("AWS_PROFILE", "nobody");
    let mut daemon = rig.daemon();
    rig.wait_until("it is up", |_| true);
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    assert!(!rig.log().contains(Server::SECRET_KEY), "a secret in the log");

    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!(count(&report, "silver"), count(&report, "archived"), "{report:#}");
    assert!(!rig.path("lake").exists(), "Bronze is in the bucket and nowhere else");

    let tape = rig.path("received.jsonl");
    assert!(tape_of(&rig.path("ledger"), &tape) > 100);
    let (said, equal) = compare(&rig.path("gold"), &tape, &[]);
    assert!(equal, "{said}");

    // The control: one trade of another size, and the same comparison must see it.
    let text = std::fs::read_to_string(&tape).unwrap();
    std::fs::write(&tape, text.replacen("\"v\":", "\"v\":1", 1)).unwrap();
    let (said, equal) = compare(&rig.path("gold"), &tape, &[]);
    assert!(!equal, "{said}");
}
