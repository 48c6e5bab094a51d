//! `tickmint check`: finds out before anything runs whether it can run.

mod cluster;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};

use super::{FAILED, client, words};
use crate::config::{self, Config, S3Config, StoreConfig, WarehouseConfig};
use crate::http;
use crate::http::server::HttpError;
use crate::io::s3::S3Store;
use crate::io::{probe, store};
use crate::warehouse::python;

/// Arguments of `check`.
#[derive(clap::Args)]
#[command(after_help = "\
Tells of everything at once: what is wrong in the config, and then whether the folders can be written,
the port is free, the store creates objects atomically (it writes to `_probe/`), no rule of the bucket
deletes what must be kept, the cluster lets us in, its user may do there what the roles need, its topics are
as they must be or may be created (none is), the schema registry has the schemas of this version or would take
them (it is given none), and Python has dbt. The clocks of brokers are not compared with ours, as Kafka does
not tell them. A daemon may run meanwhile.
Exits with 78 if the config is wrong, with 1 if something else is.

Example:
  tickmint check")]
pub struct Args {
    /// The config to check
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
}

/// Checks one thing after another; all are tried, and each that fails says what to do.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let mut report = Report { is_well: true };
    let feed = match (config.roles.feed, config.feed.shards.len()) {
        (false, _) => format!("roles {}", config.roles),
        (true, 1) => format!("1 connection to {}", config.feed.url),
        (true, n) => format!("{n} connections to {}", config.feed.url),
    };
    report.say(&format!("config {}", args.config.display()), Ok(feed));
    report.say("`data_dir`", writable(&config.data_dir));
    report.say("`spool.dir`", writable(&config.spool.dir));
    super::block_on(async {
        listens(&config, &mut report).await;
        report.say("`bronze.store`", store_is_safe(&config).await);
        if let StoreConfig::S3(bucket) = &config.bronze.store {
            lifecycle(bucket, &mut report).await;
        }
        if let Some(demand) = config.shared_folder() {
            report.note(&demand);
        }
        if let Some(kafka) = config.kafka.as_ref().filter(|_| config.roles.use_kafka()) {
            cluster::check(kafka, config.roles, &mut report).await;
            if let Some(registry) = &kafka.registry {
                cluster::check_schemas(kafka, registry, &config.data_dir, &mut report).await;
            }
        }
        if let Some(warehouse) = config.warehouse.as_ref().filter(|_| config.roles.refine) {
            report.say("`warehouse`", python_has_dbt(warehouse).await);
        }
    })?;
    Ok(if report.is_well { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What is said, a line each.
struct Report {
    is_well: bool,
}

#[expect(clippy::print_stdout, reason = "the findings are the output")]
impl Report {
    fn say(&mut self, what: &str, outcome: Result<String>) {
        match outcome {
            Ok(text) => println!("ok    {what}: {text}"),
            Err(error) => {
                self.is_well = false;
                println!("FAIL  {what}: {}", words(&error));
            }
        }
    }

    /// What works, and is unwise.
    fn note(&mut self, text: &str) {
        println!("note  {text}");
    }
}

/// Whether the bucket's own rules delete what must be kept. Not to know them is no fault.
async fn lifecycle(bucket: &S3Config, report: &mut Report) {
    let what = format!("lifecycle rules of the bucket `{}`", bucket.bucket);
    let judged = match S3Store::new(bucket.clone()) {
        Ok(store) => store.lifecycle().await,
        Err(_) => return, // it is told of above
    };
    match judged {
        Ok(judged) if judged.faults.is_empty() => report.say(&what, Ok(judged.kept)),
        Ok(judged) => judged.faults.into_iter().for_each(|fault| report.say(&what, Err(anyhow!(fault)))),
        Err(error) => report.note(&format!("whether {what} delete what must be kept is not known: {error}")),
    }
}

/// Whether the port is free, or a daemon that runs has it: what is asked of a running installation is the rest.
async fn listens(config: &Config, report: &mut Report) {
    let listen = config.http.listen;
    let bound = http::server::bind(&config.http);
    match bound {
        Err(HttpError::InUse(_))
            if client::get(listen, "/livez", None).await.is_ok_and(|answer| answer["complaints"].is_array()) =>
        {
            report.note(&format!("`http.listen`: a tickmint runs on {listen}; another one needs another port"));
        }
        _ => report.say("`http.listen`", bound.map(|_| format!("{listen} is free")).map_err(Into::into)),
    }
}

fn writable(dir: &Path) -> Result<String> {
    let failed = |what: &str| format!("`{}` {what}: choose a folder that this user may write", dir.display());
    std::fs::create_dir_all(dir).with_context(|| failed("cannot be made"))?;
    let file = dir.join(".check");
    std::fs::write(&file, b"x").and_then(|()| std::fs::remove_file(&file)).with_context(|| failed("cannot be written"))?;
    Ok(format!("{} can be written", dir.display()))
}

#[expect(clippy::print_stdout, reason = "an installation takes half a minute, which is told")]
async fn python_has_dbt(warehouse: &WarehouseConfig) -> Result<String> {
    let python = match &warehouse.python {
        Some(python) => python.clone(),
        None => python::find_or_make(&warehouse.project_dir, |step| println!("      {step}")).await?,
    };
    let versions = python::packages(&python, &warehouse.project_dir).await?;
    Ok(format!("{} has {versions}", python.display()))
}

async fn store_is_safe(config: &Config) -> Result<String> {
    let store = store::open(&config.bronze.store)?;
    let report = probe::probe(&*store, probe::FOLDER, probe::Size::default()).await?;
    Ok(format!(
        "{}: creates are atomic ({} rounds, {} writers at once)",
        store.describe(),
        report.size.rounds,
        report.size.writers
    ))
}
