//! The numbers behind the page: the pipeline's stages and the newest bars.

use std::collections::BTreeMap;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Query};
use actix_web::{HttpResponse, get};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::State;
use super::guard::error;
use super::health::now_ms;
use crate::telemetry::pipeline::Pipeline;
use crate::warehouse::gold::{Bar, Bars};

/// Bars in one answer, unless asked for fewer or more.
const LIMIT: usize = 200;
/// Bars in one answer, at most.
const MAX_LIMIT: usize = 5_000;

const NOT_YET: &str = "nothing is published yet: the first bars come with the first run of the warehouse";

/// Gold as it is published.
#[derive(Serialize)]
struct GoldPicture {
    run: u64,
    watermark: serde_json::Value,
    published_ms: u64,
    /// Rows of the table of the bars.
    bars: u64,
    /// Rows by table.
    tables: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Picture {
    now_ms: u64,
    #[serde(flatten)]
    pipeline: Pipeline,
    gold: Option<GoldPicture>,
    /// Why there is no Gold.
    note: Option<String>,
}

#[get("/api/pipeline")]
pub(super) async fn pipeline(state: Data<State>) -> HttpResponse {
    let (gold, note) = match state.shown().map(|gold| gold.manifest()) {
        Err(why) => (None, Some(why.to_string())),
        Ok(Ok(None)) => (None, Some(NOT_YET.to_string())),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Ok(Ok(Some((manifest, published_ms)))) => {
            let picture = GoldPicture {
                run: manifest.run,
                bars: manifest.bars().map_or(0, |table| table.rows),
                tables: manifest.tables.iter().map(|(name, table)| (name.clone(), table.rows)).collect(),
                watermark: manifest.watermark,
                published_ms,
            };
            (Some(picture), None)
        }
    };
    HttpResponse::Ok().json(Picture { now_ms: now_ms(), pipeline: state.metrics.pipeline(), gold, note })
}

/// Which bars.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only of this symbol.
    symbol: Option<String>,
    /// At most so many in all.
    limit: Option<usize>,
    /// At most so many of each symbol.
    per_symbol: Option<usize>,
}

#[get("/api/bars")]
pub(super) async fn newest_bars(state: Data<State>, wanted: Query<Wanted>) -> HttpResponse {
    let nothing = |note: &str| HttpResponse::Ok().json(json!({ "run": null, "symbols": [], "bars": [], "note": note }));
    let gold = match state.shown() {
        Ok(gold) => gold.clone(),
        Err(why) => return nothing(why),
    };
    match gold.bars().await {
        Ok(Some(bars)) => HttpResponse::Ok().json(answer(&bars, &wanted)),
        Ok(None) => nothing(NOT_YET),
        Err(why) => {
            tracing::warn!(error = %why, "Gold cannot be read");
            error(StatusCode::SERVICE_UNAVAILABLE, &format!("Gold cannot be read: {why}"))
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    run: u64,
    watermark: &'a serde_json::Value,
    /// All that have bars.
    symbols: Vec<&'a str>,
    /// The newest first.
    bars: Vec<&'a Bar>,
    note: Option<&'static str>,
}

fn answer<'a>(read: &'a Bars, wanted: &Wanted) -> Answer<'a> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut bars = Vec::new();
    let (limit, each) = (wanted.limit.unwrap_or(LIMIT).min(MAX_LIMIT), wanted.per_symbol.unwrap_or(usize::MAX));
    for bar in &read.bars {
        let count = counts.entry(&bar.symbol).or_default();
        *count += 1;
        if bars.len() < limit && *count <= each && wanted.symbol.as_deref().is_none_or(|symbol| *symbol == *bar.symbol) {
            bars.push(bar);
        }
    }
    Answer {
        run: read.manifest.run,
        watermark: &read.manifest.watermark,
        symbols: counts.into_keys().collect(),
        bars,
        note: None,
    }
}
