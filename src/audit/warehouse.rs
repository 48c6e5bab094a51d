//! What the warehouse holds, asked of its own audit, which reads the DuckDB file and Gold as published,
//! held against Bronze.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tokio::process::Command;

use super::found::Found;
use super::report::Report;
use crate::config::WarehouseConfig;
use crate::domain::stream::Stream;
use crate::warehouse::process::variables;

/// Counts of one stream in Silver.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct StreamCount {
    /// Rows, rejected ones included.
    pub rows: u64,
    /// Distinct identities among them.
    pub distinct: u64,
    /// Rows that its loads say they brought, in the transactions that brought them.
    pub kept: u64,
}

/// The slots that the warehouse has of one chain.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ChainCount {
    /// The generation of the last one.
    pub generation: u64,
    /// The last offset that it covers.
    pub end: u64,
    /// How many there are.
    pub slots: u64,
    /// The records in them.
    pub rows: u64,
}

/// Gold as it is published.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GoldCount {
    /// Bars; none where nothing is published.
    pub bars: Option<u64>,
    /// What is wrong.
    pub faults: Vec<String>,
    /// What could not be held against Silver, and why.
    pub notes: Vec<String>,
}

/// What the warehouse holds.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WarehouseCount {
    /// Silver, by the stream's name.
    pub streams: BTreeMap<String, StreamCount>,
    /// By the stream's name, the records of the slots that all of its models say they have taken.
    pub taken: BTreeMap<String, u64>,
    /// The slots, by `stream/partition`.
    pub chains: BTreeMap<String, ChainCount>,
    /// Gold.
    pub gold: GoldCount,
}

/// Counts what the warehouse holds.
pub async fn read(python: &Path, config: &WarehouseConfig) -> Result<WarehouseCount> {
    let mut command = Command::new(python);
    command.args(["-m", "refiner.audit", "--db"]).arg(&config.database).arg("--gold").arg(&config.gold_dir);
    command.args(["--vars", &variables(config)]).current_dir(&config.project_dir);
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("{} cannot be started", python.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("its answer cannot be read")
}

impl Report {
    /// Adds what the warehouse holds. It may be behind Bronze, where runs have failed, never ahead of it, and
    /// up to where it is it has everything.
    pub fn hold_against_warehouse(&mut self, found: &Found, warehouse: &WarehouseCount) {
        for (stream, count) in &warehouse.streams {
            let StreamCount { rows, distinct, kept } = *count;
            if rows > distinct {
                self.duplicate(rows - distinct, || format!("Silver's {stream} are {rows} rows of {distinct} identities"));
            }
            let taken = warehouse.taken.get(stream).copied().unwrap_or(0);
            if rows < kept.max(taken) {
                self.lose(kept.max(taken) - rows, || {
                    format!("Silver's {stream} are {rows} rows, of {kept} that were loaded from slots with {taken}")
                });
            }
        }
        for (chain, count) in &warehouse.chains {
            self.hold_against_slots(found, chain, count);
        }
        let trades = warehouse.streams.get(Stream::Trades.name()).copied().unwrap_or_default();
        self.silver = Some(trades.rows);
        // What has expired in Bronze stays in Silver.
        let archived = self.archived + self.expired.get(&Stream::Trades).map_or(0, |expired| expired.raw);
        if trades.rows > archived {
            self.duplicate(trades.rows - archived, || "Silver has more trades than Bronze".to_string());
        }
        let GoldCount { bars, faults, notes } = &warehouse.gold;
        self.gold = *bars;
        faults.iter().for_each(|fault| self.fault(|| fault.clone()));
        notes.iter().for_each(|note| self.note(|| note.clone()));
    }

    /// Up to the last slot that the warehouse has of a chain, it has all of them.
    fn hold_against_slots(&mut self, found: &Found, chain: &str, count: &ChainCount) {
        let ChainCount { generation, end, slots, rows } = *count;
        let all = found.chains.get(chain).map(Vec::as_slice).unwrap_or_default();
        let upto = all.iter().take_while(|slot| (slot.generation, slot.end) <= (generation, end));
        let (there, records) = upto.fold((0, 0), |(slots, rows), slot| (slots + 1, rows + slot.rows));
        let what = || format!("of {chain} the warehouse has {slots} slots with {rows} records, Bronze {there} with {records}");
        if rows < records {
            self.lose(records - rows, what);
        } else if rows > records {
            self.duplicate(rows - records, what);
        } else if slots != there {
            self.fault(what);
        }
    }

    /// Says that there is no warehouse where there should be one.
    pub fn note_without_warehouse(&mut self, found: &Found, database: &Path) {
        let records: u64 = found.archived.iter().sum();
        if records > 0 {
            let database = database.display();
            self.note(|| format!("Silver was not audited: {database} is not there, though Bronze holds {records} records"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::found::Covering;
    use super::*;

    /// Bronze with three slots of ten trades, and a warehouse that has the first two of them.
    fn world() -> (Report, Found, WarehouseCount) {
        let slot = |generation, end| Covering { generation, end, rows: 10 };
        let chains = [("trades/0".to_string(), vec![slot(0, 9), slot(0, 30), slot(1, 9)])].into();
        let found = Found { chains, archived: [30, 0, 0], ..Found::default() };
        let streams = [("trades".to_string(), StreamCount { rows: 20, distinct: 20, kept: 20 })].into();
        let chains = [("trades/0".to_string(), ChainCount { generation: 0, end: 30, slots: 2, rows: 20 })].into();
        let gold = GoldCount { bars: Some(3), ..GoldCount::default() };
        let warehouse = WarehouseCount { streams, taken: [("trades".to_string(), 20)].into(), chains, gold };
        (Report { archived: 30, durable: 30, ..Report::default() }, found, warehouse)
    }

    fn held(change: impl FnOnce(&mut WarehouseCount)) -> Report {
        let (mut report, found, mut warehouse) = world();
        change(&mut warehouse);
        report.hold_against_warehouse(&found, &warehouse);
        report
    }

    #[test]
    fn a_warehouse_that_is_behind_is_well() {
        let report = held(|_| {});
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.silver, report.gold), (Some(20), Some(3)));
    }

    #[test]
    fn a_slot_that_is_missing_below_the_last_one_is_lost() {
        let of = |warehouse: &mut WarehouseCount, slots, rows| {
            let chain = warehouse.chains.get_mut("trades/0").unwrap();
            (chain.slots, chain.rows) = (slots, rows);
        };
        assert_eq!(held(|warehouse| of(warehouse, 1, 10)).lost, 10);
        assert_eq!(held(|warehouse| of(warehouse, 3, 30)).duplicated, 10);
        assert_eq!(held(|warehouse| of(warehouse, 1, 20)).faults, 1, "one with nothing in it");
    }

    #[test]
    fn what_a_slot_brought_and_is_not_in_silver_is_lost() {
        let rows = |warehouse: &mut WarehouseCount, rows, kept| {
            warehouse.streams.insert("trades".into(), StreamCount { rows, distinct: rows, kept });
        };
        assert_eq!(held(|warehouse| rows(warehouse, 18, 20)).lost, 2, "it was loaded and is gone");
        assert_eq!(held(|warehouse| rows(warehouse, 17, 17)).lost, 3, "the load has left it out");
        assert_eq!(held(|warehouse| rows(warehouse, 31, 20)).duplicated, 1);
    }

    #[test]
    fn that_there_is_no_warehouse_is_said_where_there_is_something_to_refine() {
        let (mut report, found, _) = world();
        report.note_without_warehouse(&found, Path::new("w.duckdb"));
        assert_eq!(report.notes, ["Silver was not audited: w.duckdb is not there, though Bronze holds 30 records"]);
        assert!(report.is_clean() && report.silver.is_none());
        let mut nothing = Report::default();
        nothing.note_without_warehouse(&Found::default(), Path::new("w.duckdb"));
        assert_eq!(nothing, Report::default());
    }

    #[test]
    fn what_is_wrong_with_gold_is_a_fault_and_what_could_not_be_seen_is_not() {
        assert_eq!(held(|warehouse| warehouse.gold.faults.push("a file is missing".into())).faults, 1);
        let report = held(|warehouse| warehouse.gold.notes.push("it is older than Silver".into()));
        assert!(report.is_clean() && report.notes.len() == 1, "{report:?}");
    }
}
