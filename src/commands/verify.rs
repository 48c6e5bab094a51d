//! `tickmint verify`: proves from outside that nothing is lost and nothing doubled.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use super::FAILED;
use crate::audit;
use crate::audit::expired::Expired;
use crate::audit::kafka::Standing;
use crate::audit::report::Report;
use crate::clock;
use crate::config::{self, Config};
use crate::io::s3::retention::Retention;
use crate::io::store;
use crate::spool::logs::{NAME, is_in_use};
use crate::warehouse::python;

/// Arguments of `verify`.
#[derive(clap::Args)]
#[command(after_help = "\
Reads files and tables, with [kafka] also the topics (the brokers must answer), never the daemon, and
not while one runs that feeds or refines: then what is
on its way would look like a loss, and the warehouse's file is its own. Stop it first; it drains. Who
only archives may run: what it archives meanwhile is counted where it was before. Exits with 0 only if
nothing is lost, doubled or damaged.

lost and duplicated count records that were durable here, and with a ledger also all that an exchange
of ours sent and neither archive nor gap accounts for. A line with ! is something wrong, a line with -
something to know.

Objects that a slot names and that are not there have expired if a lifecycle rule of the bucket as it is
now deletes them at their age (docs/bucket.md); else they are missing, which is a fault.

Examples:
  tickmint verify
  tickmint verify --ledger exchange.ledger
  tickmint verify --config a.toml --spool /mnt/b/data/spool
  tickmint verify --config data/demo/tickmint.toml --ledger data/demo/exchange.ledger --json")]
pub struct Args {
    /// The config of the daemon
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// What an exchange of ours says that it sent
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// The spool's folder of another daemon that feeds the same cluster; may be given several times
    #[arg(long, value_name = "DIR")]
    spool: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Audits and prints.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load_to_verify(&args.config)?;
    if let Some(other) = args.spool.iter().find(|dir| !dir.join(NAME).is_file()) {
        bail!(
            "`--spool` is {}, which is no spool's folder (there is no file `{NAME}` in it): give `spool.dir` of that daemon, \
             `data_dir`/spool if its config does not say otherwise",
            other.display()
        );
    }
    for dir in std::iter::once(&config.spool.dir).chain(&args.spool) {
        if is_in_use(dir)? {
            bail!(
                "a daemon runs on `spool.dir` {}: what is on its way there would look like a loss; stop it first (it drains), then verify",
                dir.display()
            );
        }
    }
    let report = super::block_on(verify(&config, args.ledger.as_deref(), &args.spool))??;
    super::print(&if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report) })?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Audits everything that the config names.
pub async fn verify(config: &Config, ledger: Option<&std::path::Path>, further: &[PathBuf]) -> Result<Report> {
    let store = store::open(&config.bronze.store)?;
    let retention = Retention::read(&config.bronze.store, clock::now()).await?;
    let ledger = ledger.map(audit::ledger::read).transpose()?;
    let partitions = config.kafka.as_ref().map_or(1, |kafka| kafka.partitions);
    let spools: Vec<_> = std::iter::once(config.spool.dir.as_path()).chain(further.iter().map(|dir| dir.as_path())).collect();
    let mut found = audit::bronze::read_all(&store, &spools, partitions, retention).await?;
    if let Some(kafka) = &config.kafka {
        found.cluster(kafka).await.context("the cluster cannot be audited")?;
    }
    let mut report = audit::report::report(&found, ledger.as_ref());
    if let Some(warehouse) = &config.warehouse {
        if !warehouse.database.exists() {
            report.note_without_warehouse(&found, &warehouse.database);
            return Ok(report);
        }
        let python = match &warehouse.python {
            Some(python) => python.clone(),
            None => python::find_or_make(&warehouse.project_dir, |_| {}).await?,
        };
        let count = audit::warehouse::read(&python, warehouse).await.context("Silver and Gold cannot be audited")?;
        report.hold_against_warehouse(&found, &count);
    }
    Ok(report)
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let count = |n: Option<u64>| n.map_or("-".to_string(), |n| n.to_string());
    let mut text = String::new();
    for (name, value, meaning) in [
        ("sent", count(report.sent), "trades, by the exchange's ledger"),
        ("not received", count(report.not_received), "of these, and covered by a gap or a session's end"),
        ("durable", report.durable.to_string(), "trades in Bronze or in the spool"),
        ("archived", report.archived.to_string(), "trades in Bronze"),
        ("waiting", report.waiting.to_string(), "trades that only the spool has"),
        ("silver", count(report.silver), "trades in Silver, rejected ones included"),
        ("gold", count(report.gold), "one-minute bars in Gold as published"),
        ("quarantined", report.quarantined.to_string(), "records that are no trades"),
        ("gaps", report.gaps.to_string(), "outages of the feed"),
        ("lost", report.lost.to_string(), "records"),
        ("duplicated", report.duplicated.to_string(), "records"),
        ("faults", report.faults.to_string(), "objects, slots, logs, ends or gaps that are damaged, missing or out of reach"),
    ] {
        text.push_str(&format!("{name:>13}  {value:>12}  {meaning}\n"));
    }
    for (stream, Expired { raw, typed, until }) in &report.expired {
        let until = until.map(|hour| hour.to_string()).unwrap_or_default();
        text.push_str(&format!("  {stream} up to hour {until} have expired: {raw} records in raw, {typed} in typed\n"));
    }
    if !report.cut_off.is_empty() {
        let (records, sessions) = (report.cut_off.values().sum::<u64>(), report.cut_off.len());
        text.push_str(&format!(
            "  {sessions} sessions have no end and no spool here knows them, and {records} of the lost are theirs: a disk was lost, or the \
             spool of a daemon is to be given with --spool\n"
        ));
    }
    if report.sent.is_none() && report.durable + report.quarantined + report.gaps == 0 && report.expired.is_empty() {
        text.push_str("  there is nothing yet: neither the spool nor Bronze holds a record\n");
    }
    if !report.partitions.is_empty() {
        text.push_str(&format!("\n{:<14} {:>24} {:>24} {:>12}\n", "partition", "Kafka holds", "archived up to", "unarchived"));
    }
    for Standing { chain, start, end, generation, next, is_read, unarchived, .. } in &report.partitions {
        let archived = if *is_read { format!("g{generation} {next}") } else { format!("another log (g{generation})") };
        text.push_str(&format!("{chain:<14} {:>24} {archived:>24} {unarchived:>12}\n", format!("{start}..{end}")));
    }
    for finding in &report.findings {
        text.push_str(&format!("  ! {finding}\n"));
    }
    for note in &report.notes {
        text.push_str(&format!("  - {note}\n"));
    }
    text
}
