//! Stand-in until the real one lands on branch `feed`.
use std::borrow::Cow;

/// A trade.
pub struct Trade<'a> {
    /// Symbol.
    pub symbol: Cow<'a, str>,
    /// 1e-8 units.
    pub price: i64,
    /// 1e-8 units.
    pub size: i64,
    /// Milliseconds.
    pub event_time: i64,
    /// Codes joined by commas.
    pub conditions: Option<Cow<'a, str>>,
}

impl Trade<'_> {
    /// Parses.
    pub fn parse(raw: &[u8]) -> Result<Trade<'_>, serde_json::Error> {
        let v: serde_json::Value = serde_json::from_slice(raw)?;
        let n = |k: &str| (v[k].as_f64().unwrap_or(0.0) * 1e8).round() as i64;
        Ok(Trade { symbol: Cow::Owned(v["s"].as_str().unwrap_or("").to_string()), price: n("p"), size: n("v"), event_time: v["t"].as_i64().unwrap_or(0), conditions: None })
    }
}
