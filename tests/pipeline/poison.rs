//! A record on which the writer itself dies: three deaths, then it is left out of the typed object,
//! named in its slot, told of by an alarm and put into Silver's quarantine, and nothing else suffers.

use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use tickmint::bronze::chain::{Chain, Follower};
use tickmint::domain::chain::{ChainId, DataRange, Position};
use tickmint::domain::stream::Stream;
use tickmint::io::folder::FolderStore;
use tickmint::io::store::Store;

use super::kills::count;
use super::rig::{Rig, end};
use crate::support::python::python;
use crate::support::servers::or_skip;

/// What the chain of trades commits.
async fn committed(store: &Arc<dyn Store>) -> Vec<DataRange> {
    let chain = Chain::new(ChainId { stream: Stream::Trades, partition: 0 }, store.clone());
    let (mut follower, mut all) = (Follower::new(chain, Position::default()), Vec::new());
    while let Some(slot) = follower.next().await.unwrap() {
        all.extend(slot.data().cloned());
    }
    all
}

#[test]
fn a_record_that_kills_its_writer_is_left_out_of_typed_and_nothing_else_is() {
    let Some(mut warehouse) = or_skip(python("dbt")) else { return };
    let symbols = tickmint::exchange::simulated_symbols(20);
    let mut rig = Rig::new(&["--simulate", "20", "--rate", "2000"], &symbols, "");
    rig.with_warehouse();
    rig.set("TICKMINT_POISON", r#""frame":30,"index":0,"#);
    let mut daemon = rig.daemon();
    rig.wait_until("the writer is past it", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(1000));
    let health = rig.get("/health").unwrap();
    let restarts = |path: &str| {
        let actors = health["actors"].as_array().unwrap();
        actors.iter().find(|actor| actor["path"] == path).unwrap()["restarts"].as_u64().unwrap()
    };
    assert_eq!((restarts("writers/trades"), restarts("writers/gaps"), restarts("spool")), (3, 0, 0), "{health:#}");
    let alarms = health["alarms"].to_string();
    assert!(alarms.contains("bronze/trades/poison") && alarms.contains("\"1 records are in raw"), "{health:#}");
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();

    let store: Arc<dyn Store> = Arc::new(FolderStore::open(rig.path("lake")).unwrap());
    let (mut left_out, mut typed) = (0, 0);
    for data in tickmint::commands::block_on(committed(&store)).unwrap() {
        left_out += data.poison.len() as u64;
        let file = std::fs::File::open(rig.path("lake").join(&data.typed.key)).unwrap();
        let rows = SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows() as u64;
        assert_eq!(rows + data.poison.len() as u64, data.rows, "{data:?}");
        typed += rows;
    }
    assert_eq!(left_out, 1, "one session, one such record");
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!(count(&report, "archived"), typed + 1, "raw has it");
    assert_eq!(count(&report, "silver"), typed, "and Silver's trades do not");

    // In quarantine it is, with the server's bytes. The control: verify misses a row that is not there.
    let database = rig.path("warehouse.duckdb");
    let look_and_delete = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); \
        print(c.execute(\"select frame, idx, detail, raw from silver.quarantine where reason = 'poison'\").fetchall()); \
        c.execute(\"delete from silver.quarantine where reason = 'poison'\")";
    let output = warehouse.args(["-c", look_and_delete]).arg(&database).output().unwrap();
    let rows = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        rows.starts_with("[(30, 0, 'the writer of trades died") && rows.contains("\"s\":") && !rows.contains("), ("),
        "{rows}"
    );
    let (report, well) = rig.verify();
    assert!(!well && report["lost"] == 1, "{report:#}");
    assert!(report["findings"].to_string().contains("Silver's quarantine"), "{report:#}");
}
