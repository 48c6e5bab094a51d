//! The newest bars, read from Gold as it is published: `manifest.json`, and the Parquet files that it
//! names. Read once a run, and only if somebody asks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::domain::identity::Micros;

/// Bars that are kept of one run, the newest ones: 100 symbols for more than three hours. The page
/// shows how it goes; who wants history reads the Parquet itself.
const KEEP: usize = 20_000;

/// A run that is replaced while it is being read is read anew, so often.
const ATTEMPTS: usize = 3;

/// The table of the bars, and its columns.
const TABLE: &str = "ohlc_1m";
const COLUMNS: [&str; 12] =
    ["symbol", "source", "session", "bucket_start", "open", "high", "low", "close", "volume", "notional", "trades", "vwap"];

/// What is published.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// The run that made it.
    pub run: u64,
    /// How far it goes, as dbt says it.
    #[serde(default)]
    pub watermark: serde_json::Value,
    /// When it was published.
    #[serde(default)]
    pub published_at: Option<jiff::Timestamp>,
    /// By name, with or without `gold.`.
    pub tables: BTreeMap<String, Table>,
}

/// A published table.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    /// Relative to the folder of Gold.
    files: Vec<PathBuf>,
    /// In all of them.
    pub rows: u64,
}

impl Manifest {
    /// The table of the bars.
    pub fn bars(&self) -> Option<&Table> {
        self.tables.get(TABLE).or_else(|| self.tables.get(&format!("gold.{TABLE}")))
    }
}

/// A minute of a symbol. Decimals are text, so that nobody rounds them on the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// As Finnhub writes it.
    pub symbol: Box<str>,
    /// The feed that it was made from.
    pub source: Box<str>,
    /// `pre`, `regular`, `post`, `closed` or `continuous`.
    pub session: Box<str>,
    /// Microseconds since 1970, UTC.
    #[serde(rename = "bucket_start_ms", serialize_with = "as_millis")]
    pub bucket_start: Micros,
    /// `None`, as the other prices, where no trade of the minute may move a price.
    pub open: Option<Box<str>>,
    /// The highest price.
    pub high: Option<Box<str>>,
    /// The lowest price.
    pub low: Option<Box<str>>,
    /// The last price.
    pub close: Option<Box<str>>,
    /// The sum of the sizes.
    pub volume: Option<Box<str>>,
    /// The sum of price x size.
    pub notional: Option<Box<str>>,
    /// How many trades.
    pub trades: u64,
    /// Notional over volume.
    pub vwap: Option<Box<str>>,
}

/// The newest bars of the Gold in `dir`, at most so many; none where nothing is published.
pub async fn newest_bars(dir: PathBuf, at_most: usize) -> Vec<Bar> {
    let bars = Arc::new(Gold::new(dir)).bars().await;
    bars.ok().flatten().map_or_else(Vec::new, |bars| bars.bars.iter().take(at_most).cloned().collect())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_millis<S: serde::Serializer>(micros: &Micros, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(micros / 1000)
}

/// The bars of one run.
#[derive(Debug)]
pub struct Bars {
    /// What they were read from.
    pub manifest: Manifest,
    /// The newest first; those of a minute by symbol.
    pub bars: Vec<Bar>,
}

/// Why Gold cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum GoldError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The manifest is no manifest.
    #[error("manifest.json: {0}")]
    Manifest(#[from] serde_json::Error),
    /// A Parquet file is none, or not of bars.
    #[error("{path}: {reason}")]
    Parquet {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
}

impl GoldError {
    fn is_gone(&self) -> bool {
        matches!(self, GoldError::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The folder of Gold, with the bars of the last run that was asked for.
pub struct Gold {
    dir: PathBuf,
    read: Mutex<Option<Arc<Bars>>>,
}

impl Gold {
    /// The folder that a refiner publishes into; nothing is read yet.
    pub fn new(dir: PathBuf) -> Gold {
        Gold { dir, read: Mutex::default() }
    }

    /// What is published now and when it was, in milliseconds of Unix time; `None` if nothing is yet.
    pub fn manifest(&self) -> Result<Option<(Manifest, u64)>, GoldError> {
        let path = self.dir.join("manifest.json");
        let failed = |source| GoldError::File { path: path.display().to_string(), source };
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let manifest: Manifest = serde_json::from_slice(&text)?;
        // Not when the file was written: it is rewritten to say that no newer version comes.
        if let Some(at) = manifest.published_at {
            return Ok(Some((manifest, u64::try_from(at.as_millisecond()).unwrap_or_default())));
        }
        let written = std::fs::metadata(&path).and_then(|meta| meta.modified()).map_err(failed)?;
        let since = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Some((manifest, u64::try_from(since.as_millis()).unwrap_or(u64::MAX))))
    }

    /// The newest bars of the run that is published now. One reading at a time: who asks meanwhile
    /// waits for it.
    pub async fn bars(self: Arc<Self>) -> Result<Option<Arc<Bars>>, GoldError> {
        let mut cache = self.read.lock().await;
        let (gold, have) = (self.clone(), cache.clone());
        let read = tokio::task::spawn_blocking(move || gold.read(have)).await;
        let read = read.map_err(|error| GoldError::Parquet { path: TABLE.into(), reason: error.to_string() })??;
        cache.clone_from(&read);
        Ok(read)
    }

    fn read(&self, have: Option<Arc<Bars>>) -> Result<Option<Arc<Bars>>, GoldError> {
        let mut attempt = 1;
        loop {
            let Some((manifest, _)) = self.manifest()? else { return Ok(None) };
            if let Some(have) = have.as_ref().filter(|have| have.manifest.run == manifest.run) {
                return Ok(Some(have.clone()));
            }
            let files = manifest.bars().map_or(&[][..], |table| &table.files);
            match newest(files.iter().map(|file| self.dir.join(file)), KEEP) {
                Ok(bars) => return Ok(Some(Arc::new(Bars { manifest, bars }))),
                Err(error) if error.is_gone() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A part of a file, and the newest bar that may be in it.
struct Group {
    file: usize,
    number: usize,
    newest: Micros,
}

/// The newest `keep` bars of these files. Reads the newest row groups first, and no more of them than
/// needed, so that years of history cost their footers only.
fn newest(files: impl Iterator<Item = PathBuf>, keep: usize) -> Result<Vec<Bar>, GoldError> {
    let (mut opened, mut groups) = (Vec::new(), Vec::new());
    for (n, path) in files.enumerate() {
        let (file, metadata) = open(&path)?;
        for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
            groups.push(Group { file: n, number, newest: newest_of(group) });
        }
        opened.push((path, file, metadata));
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.newest));
    let mut bars: Vec<Bar> = Vec::new();
    for group in groups {
        if bars.len() >= keep && group.newest < bars[keep - 1].bucket_start {
            break;
        }
        let (path, file, metadata) = &opened[group.file];
        read_group(path, file, metadata, group.number, &mut bars)?;
        bars.sort_by(|a, b| b.bucket_start.cmp(&a.bucket_start).then_with(|| key(a).cmp(&key(b))));
    }
    bars.truncate(keep);
    Ok(bars)
}

fn key(bar: &Bar) -> (&str, &str, &str) {
    (&bar.symbol, &bar.source, &bar.session)
}

fn open(path: &Path) -> Result<(File, ArrowReaderMetadata), GoldError> {
    let file = File::open(path).map_err(|source| GoldError::File { path: path.display().to_string(), source })?;
    // Without the types of who wrote it: so there are no dictionaries and no views to care for.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| broken(path, error))?;
    Ok((file, metadata))
}

fn broken(path: &Path, reason: impl std::fmt::Display) -> GoldError {
    GoldError::Parquet { path: path.display().to_string(), reason: reason.to_string() }
}

/// By the statistics; without them it may be the newest of all.
fn newest_of(group: &RowGroupMetaData) -> Micros {
    let column = group.columns().iter().find(|column| column.column_path().string() == "bucket_start");
    match column.and_then(|column| column.statistics()) {
        Some(Statistics::Int64(statistics)) => statistics.max_opt().copied().unwrap_or(i64::MAX),
        _ => i64::MAX,
    }
}

fn read_group(
    path: &Path,
    file: &File,
    metadata: &ArrowReaderMetadata,
    group: usize,
    bars: &mut Vec<Bar>,
) -> Result<(), GoldError> {
    let file = file.try_clone().map_err(|source| GoldError::File { path: path.display().to_string(), source })?;
    let columns = ProjectionMask::columns(metadata.parquet_schema(), COLUMNS);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
        .with_row_groups(vec![group])
        .with_projection(columns)
        .build()
        .map_err(|error| broken(path, error))?;
    for batch in reader {
        let batch = batch.map_err(|error| broken(path, error))?;
        for row in 0..batch.num_rows() {
            bars.push(bar(&batch, row).map_err(|column| broken(path, format!("no column `{column}` of a type that bars have")))?);
        }
    }
    Ok(())
}

/// A row; or the name of the column that is not there, or not as it should be.
fn bar(batch: &RecordBatch, row: usize) -> Result<Bar, &'static str> {
    let value = |name| batch.column_by_name(name).and_then(|column| text(column, row)).ok_or(name);
    let required = |name| value(name)?.ok_or(name);
    let bucket_start = batch.column_by_name("bucket_start").and_then(|column| micros(column, row)).ok_or("bucket_start")?;
    Ok(Bar {
        symbol: required("symbol")?,
        source: value("source")?.unwrap_or_default(),
        session: value("session")?.unwrap_or_default(),
        bucket_start,
        open: value("open")?,
        high: value("high")?,
        low: value("low")?,
        close: value("close")?,
        volume: value("volume")?,
        notional: value("notional")?,
        trades: required("trades")?.parse::<f64>().map_err(|_| "trades")? as u64,
        vwap: value("vwap")?,
    })
}

fn micros(column: &dyn Array, row: usize) -> Option<Micros> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) if column.is_valid(row) => {
            Some(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        _ => None,
    }
}

/// A value as text, `Some(None)` for null, `None` for a type that has no business in a bar.
#[expect(clippy::option_option, reason = "a null is a value")]
fn text(column: &dyn Array, row: usize) -> Option<Option<Box<str>>> {
    let is_null = column.is_null(row);
    let text = match column.data_type() {
        DataType::Null => return Some(None),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(_, scale) => decimal(column.as_primitive::<Decimal128Type>().value(row), *scale),
        _ => return None,
    };
    Some((!is_null).then(|| text.into()))
}

/// As people write it: `101.25`, not `101.25000000`.
fn decimal(value: i128, scale: i8) -> String {
    let scale = usize::try_from(scale).unwrap_or_default();
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let (sign, fraction) = (if value < 0 { "-" } else { "" }, fraction.trim_end_matches('0'));
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use arrow_array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// 2026-11-23 15:00 UTC.
    pub(crate) const MINUTE: Micros = 1_795_446_000_000_000;

    /// Bars of some symbols for so many minutes from [`MINUTE`] on, as dbt makes them; the first
    /// minute has no eligible price.
    pub(crate) fn write_bars(path: &Path, symbols: &[&str], minutes: std::ops::Range<i64>, rows_a_group: usize) {
        let rows: Vec<(i64, &str)> = minutes.flat_map(|minute| symbols.iter().map(move |symbol| (minute, *symbol))).collect();
        let decimals = |precision, scale, value: &dyn Fn(i64) -> Option<i128>| -> ArrayRef {
            let array: Decimal128Array = rows.iter().map(|(minute, _)| value(*minute)).collect();
            Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
        };
        let price = |cents: i64| move |minute: i64| (minute > 0).then(|| i128::from(10_000 + cents + minute) * 1_000_000);
        let texts = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows.len()])) };
        let symbols: StringArray = rows.iter().map(|(_, symbol)| Some(*symbol)).collect();
        let starts = rows.iter().map(|(minute, _)| MINUTE + minute * 60_000_000);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("symbol", Arc::new(symbols)),
            ("source", texts("finnhub")),
            ("session", texts("regular")),
            ("bucket_start", Arc::new(TimestampMicrosecondArray::from_iter_values(starts).with_timezone("UTC"))),
            ("open", decimals(18, 8, &price(0))),
            ("high", decimals(18, 8, &price(50))),
            ("low", decimals(18, 8, &price(-50))),
            ("close", decimals(18, 8, &price(25))),
            ("volume", decimals(38, 8, &|_| Some(1_500_000_000_000))),
            ("notional", decimals(38, 16, &|_| Some(5))),
            ("trades", Arc::new(Int64Array::from(vec![42; rows.len()]))),
            ("vwap", Arc::new(Float64Array::from(vec![100.125; rows.len()]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_a_group)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// Publishes a run as the refiner does.
    pub(crate) fn publish(dir: &Path, run: u64, files: &[&str]) {
        let table = serde_json::json!({ "files": files, "rows": 7 });
        let manifest = serde_json::json!({ "run": run, "watermark": "2026-11-23T15:00:00Z", "tables": { "ohlc_1m": table } });
        let mut file = File::create(dir.join("manifest.json")).unwrap();
        file.write_all(manifest.to_string().as_bytes()).unwrap();
    }

    #[test]
    fn decimals_are_exact_and_without_idle_zeros() {
        assert_eq!(decimal(10_125_000_000, 8), "101.25");
        assert_eq!(decimal(-5, 8), "-0.00000005");
        assert_eq!(decimal(700, 2), "7");
        assert_eq!(decimal(0, 8), "0");
        assert_eq!(decimal(42, 0), "42");
        assert_eq!(decimal(i128::MAX, 16), "17014118346046923173168.7303715884105727");
    }

    #[actix::test]
    async fn bars_are_read_as_they_were_written_the_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        write_bars(&dir.path().join("a.parquet"), &["AAPL", "MSFT"], 0..3, 100);
        publish(dir.path(), 1, &["a.parquet"]);
        let read = Arc::new(Gold::new(dir.path().into())).bars().await.unwrap().unwrap();
        assert_eq!(read.bars.len(), 6);
        let newest = Bar {
            symbol: "AAPL".into(),
            source: "finnhub".into(),
            session: "regular".into(),
            bucket_start: MINUTE + 120_000_000,
            open: Some("100.02".into()),
            high: Some("100.52".into()),
            low: Some("99.52".into()),
            close: Some("100.27".into()),
            volume: Some("15000".into()),
            notional: Some("0.0000000000000005".into()),
            trades: 42,
            vwap: Some("100.125".into()),
        };
        assert_eq!(read.bars[0], newest);
        assert_eq!(&*read.bars[1].symbol, "MSFT");
        assert_eq!(read.bars[5].open, None, "a minute with volume and no eligible price");
    }

    #[test]
    fn old_history_is_not_read_and_the_newest_bars_are_found_in_any_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write_bars(&path("new.parquet"), &["A"], 100..200, 10);
        write_bars(&path("old.parquet"), &["A"], 0..100, 10);
        // The first column of the last group of the old file: 4 bytes at the start of the file are spared.
        let mut torn = std::fs::read(path("old.parquet")).unwrap();
        torn[4..200].fill(0xff);
        std::fs::write(path("old.parquet"), torn).unwrap();
        let files = || ["old.parquet", "new.parquet"].map(path).into_iter();
        let bars = newest(files(), 25).unwrap();
        let minutes: Vec<_> = bars.iter().map(|bar| (bar.bucket_start - MINUTE) / 60_000_000).collect();
        assert_eq!(minutes, (175..200).rev().collect::<Vec<_>>());
        assert!(matches!(newest(files(), 200), Err(GoldError::Parquet { .. })), "now the torn part is needed");
    }

    #[actix::test]
    async fn a_run_is_read_once_and_the_next_one_anew() {
        let dir = tempfile::tempdir().unwrap();
        let gold = Arc::new(Gold::new(dir.path().into()));
        assert!(gold.clone().bars().await.unwrap().is_none(), "nothing is published yet");
        write_bars(&dir.path().join("1.parquet"), &["A"], 0..2, 100);
        publish(dir.path(), 1, &["1.parquet"]);
        let first = gold.clone().bars().await.unwrap().unwrap();
        std::fs::remove_file(dir.path().join("1.parquet")).unwrap();
        assert!(Arc::ptr_eq(&first, &gold.clone().bars().await.unwrap().unwrap()), "its file is not needed again");
        publish(dir.path(), 2, &["1.parquet"]);
        assert!(gold.clone().bars().await.unwrap_err().is_gone());
        write_bars(&dir.path().join("2.parquet"), &["A"], 0..5, 100);
        publish(dir.path(), 3, &["2.parquet"]);
        assert_eq!(gold.bars().await.unwrap().unwrap().bars.len(), 5);
    }

    #[test]
    fn a_manifest_says_when_it_was_published_whenever_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let failing = r#"{"since": "2026-11-23T16:00:00+00:00", "phase": "test", "error": "x"}"#;
        let text = format!(
            r#"{{"run": 7, "watermark": null, "published_at": "2026-11-23T15:00:00.5+00:00", "tables": {{}}, "failing": {failing}}}"#
        );
        std::fs::write(dir.path().join("manifest.json"), text).unwrap();
        let (manifest, published_ms) = Gold::new(dir.path().into()).manifest().unwrap().unwrap();
        assert_eq!((manifest.run, published_ms), (7, 1_795_446_000_500));
    }

    #[test]
    fn what_is_not_a_table_of_bars_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        std::fs::write(&path, "no parquet").unwrap();
        assert!(newest([path.clone()].into_iter(), 5).unwrap_err().to_string().contains("x.parquet"));
        let batch = RecordBatch::try_from_iter([("symbol", Arc::new(StringArray::from(vec!["A"])) as ArrayRef)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let error = newest([path].into_iter(), 5).unwrap_err().to_string();
        assert!(error.contains("no column `bucket_start`"), "{error}");
    }
}
