//! Where trades come from: connections, and what validation made of their messages.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByLabel, Label};
use super::{Float, Metrics};
use crate::domain::identity::Micros;
use crate::domain::verdict::{Flags, JudgedFrame, Reason, Verdict};

#[derive(Debug, Default)]
pub(super) struct ShardFamilies {
    connected: Family<Label, Gauge>,
    frames: Family<Label, Counter>,
    bytes: Family<Label, Counter>,
    last_frame: Family<Label, Float>,
    stale: Family<Label, Gauge>,
    disconnects: Family<[(&'static str, String); 2], Counter>,
}

/// One connection's metrics: its session holds them.
#[derive(Debug)]
pub struct ShardMetrics {
    metrics: MetricsOfShard,
    disconnects: Family<[(&'static str, String); 2], Counter>,
    alarm: String,
    name: String,
    pub(in crate::telemetry) disconnected: AtomicU64,
    pub(in crate::telemetry) last_frame_at: AtomicI64,
}

#[derive(Debug)]
pub(in crate::telemetry) struct MetricsOfShard {
    pub(in crate::telemetry) connected: Gauge,
    pub(in crate::telemetry) frames: Counter,
    bytes: Counter,
    last_frame: Float,
    pub(in crate::telemetry) stale: Gauge,
}

#[derive(Debug)]
pub(in crate::telemetry) struct FeedCounters {
    pub(in crate::telemetry) judged: Counter,
    pub(in crate::telemetry) trades: Counter,
    pub(in crate::telemetry) flagged: ByLabel,
    pub(in crate::telemetry) quarantined: ByLabel,
    pub(in crate::telemetry) gaps: ByLabel,
}

impl ShardFamilies {
    pub(super) fn register(r: &mut Registry) -> ShardFamilies {
        let shards = ShardFamilies::default();
        r.register("feed_connected", "Whether the shard's connection is up", shards.connected.clone());
        r.register("feed_frames", "Messages received", shards.frames.clone());
        r.register("feed_bytes", "Bytes of messages received", shards.bytes.clone());
        let help = "When the last message came, in Unix time";
        r.register_with_unit("feed_last_frame_timestamp", help, Unit::Seconds, shards.last_frame.clone());
        r.register("feed_stale_symbols", "Symbols without a trade for `feed.stale_after`", shards.stale.clone());
        r.register("feed_disconnects", "Connections that have ended, by reason", shards.disconnects.clone());
        shards
    }
}

impl FeedCounters {
    pub(super) fn register(r: &mut Registry) -> FeedCounters {
        let feed = FeedCounters {
            judged: Counter::default(),
            trades: Counter::default(),
            flagged: ByLabel::new("flag", FLAGS.iter().flat_map(|flag| flag.names())),
            quarantined: ByLabel::new("reason", Reason::ALL.map(Reason::name)),
            gaps: ByLabel::new("reason", []),
        };
        r.register("frames", "Messages that have been validated", feed.judged.clone());
        r.register("trades", "Trades that have been validated", feed.trades.clone());
        r.register("trades_flagged", "Trades that are odd, by what is odd about them", feed.flagged.family.clone());
        r.register("quarantined", "What is no trade, by reason", feed.quarantined.family.clone());
        r.register("gaps", "Outages of the feed that were recorded from end to end, by reason", feed.gaps.family.clone());
        feed
    }
}

impl Metrics {
    /// The metrics of a shard; the same ones each time.
    pub fn shard(&self, name: &str) -> Arc<ShardMetrics> {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (label, families) = ([("shard", name.to_string())], &self.shard_families);
            Arc::new(ShardMetrics {
                metrics: MetricsOfShard {
                    connected: families.connected.get_or_create_owned(&label),
                    frames: families.frames.get_or_create_owned(&label),
                    bytes: families.bytes.get_or_create_owned(&label),
                    last_frame: families.last_frame.get_or_create_owned(&label),
                    stale: families.stale.get_or_create_owned(&label),
                },
                disconnects: families.disconnects.clone(),
                alarm: format!("feed/{name}"),
                name: name.into(),
                disconnected: AtomicU64::new(0),
                last_frame_at: AtomicI64::new(0),
            })
        };
        shards.entry(name.into()).or_insert_with(new).clone()
    }

    /// A shard's connection is up.
    pub fn connected(&self, shard: &ShardMetrics) {
        shard.metrics.connected.set(1);
        self.alarms.clear(&shard.alarm);
    }

    /// A shard's connection has ended: `stalled`, `closed_by_server`... Ends in good order raise no
    /// alarm.
    pub fn disconnected(&self, shard: &ShardMetrics, reason: &'static str) {
        shard.metrics.connected.set(0);
        shard.disconnected.fetch_add(1, Relaxed);
        let labels = [("shard", shard.name.clone()), ("reason", reason.to_string())];
        shard.disconnects.get_or_create(&labels).inc();
        if reason != "shutdown" {
            self.alarms.raise(&shard.alarm, format!("no connection: {reason}"));
        }
    }

    /// A shard cannot connect.
    pub fn unreachable(&self, shard: &ShardMetrics, error: &dyn std::fmt::Display) {
        self.alarms.raise(&shard.alarm, format!("no connection: {error}"));
    }

    /// What validation made of a batch.
    pub fn judged(&self, frames: &[JudgedFrame]) {
        let (mut trades, mut flagged, mut quarantined) = (0, [0; 3], [0; Reason::ALL.len()]);
        for element in frames.iter().flat_map(|judged| &judged.elements) {
            match &element.verdict {
                Verdict::Trade(flags) => {
                    trades += 1;
                    for (count, flag) in flagged.iter_mut().zip(FLAGS) {
                        *count += u64::from(flags.has(flag));
                    }
                }
                Verdict::Quarantined { reason, .. } => quarantined[*reason as usize] += 1,
            }
        }
        self.feed.judged.inc_by(frames.len() as u64);
        self.feed.trades.inc_by(trades);
        let named = FLAGS.iter().flat_map(|flag| flag.names()).zip(flagged);
        named.filter(|(_, n)| *n > 0).for_each(|(name, n)| self.feed.flagged.add(name, n));
        let named = Reason::ALL.iter().map(|reason| reason.name()).zip(quarantined);
        named.filter(|(_, n)| *n > 0).for_each(|(name, n)| self.feed.quarantined.add(name, n));
    }

    /// An outage of the feed is over, and its gap is durable.
    pub fn gap(&self, reason: &str) {
        self.feed.gaps.add(reason, 1);
    }
}

const FLAGS: [Flags; 3] = [Flags::TIME_SUSPECT, Flags::PRICE_UPDATE, Flags::FRAME_REPEAT];

impl ShardMetrics {
    /// Messages were read from the socket, the last of them at that time.
    pub fn received(&self, frames: u64, bytes: u64, at: Micros) {
        self.metrics.frames.inc_by(frames);
        self.metrics.bytes.inc_by(bytes);
        self.metrics.last_frame.set(at as f64 / 1e6);
        self.last_frame_at.store(at, Relaxed);
    }

    /// So many of its symbols have been silent for long.
    pub fn stale(&self, symbols: usize) {
        self.metrics.stale.set(symbols as i64);
    }

    pub(in crate::telemetry) fn numbers(&self) -> &MetricsOfShard {
        &self.metrics
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::value;
    use super::*;
    use crate::domain::verdict::{Judged, RawFrame};

    fn judged(verdicts: Vec<Verdict>) -> JudgedFrame {
        let frame = RawFrame { number: 1, received_at: 0, payload: "".into(), binary: false };
        let elements = verdicts.into_iter().map(|verdict| Judged { range: 0..0, partition: 0, verdict }).collect();
        JudgedFrame { frame, elements, traceparent: None }
    }

    #[test]
    fn verdicts_are_counted_by_what_they_are() {
        let metrics = Metrics::new();
        let odd = Verdict::Trade(Flags::TIME_SUSPECT.with(Flags::PRICE_UPDATE));
        let bad = Verdict::Quarantined { reason: Reason::BadPrice, detail: String::new() };
        metrics.judged(&[judged(vec![Verdict::Trade(Flags::default()), odd, bad.clone()]), judged(vec![bad])]);
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_frames_total"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_total"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"time_suspect\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"price_update\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_quarantined_total{reason=\"bad_price\"}"), 2.0);
        assert_eq!(value(&text, "tickmint_trades_flagged_total{flag=\"frame_repeat\"}"), 0.0);
    }

    #[test]
    fn a_shard_that_loses_its_connection_raises_an_alarm_until_it_has_one() {
        let metrics = Metrics::new();
        let shard = metrics.shard("shard-1");
        metrics.connected(&shard);
        shard.received(3, 99, 1_760_000_000_500_000);
        metrics.disconnected(&metrics.shard("shard-1"), "stalled");
        assert_eq!(metrics.alarms().list()[0].why, "no connection: stalled");
        metrics.unreachable(&shard, &"refused");
        let text = metrics.encode(&[]);
        assert_eq!(value(&text, "tickmint_feed_connected{shard=\"shard-1\"}"), 0.0);
        assert_eq!(value(&text, "tickmint_feed_frames_total{shard=\"shard-1\"}"), 3.0);
        assert_eq!(value(&text, "tickmint_feed_last_frame_timestamp_seconds{shard=\"shard-1\"}"), 1_760_000_000.5);
        assert_eq!(value(&text, "tickmint_feed_disconnects_total{shard=\"shard-1\",reason=\"stalled\"}"), 1.0);
        assert_eq!(value(&text, "tickmint_alarm{alarm=\"feed/shard-1\"}"), 1.0);
        metrics.connected(&shard);
        metrics.disconnected(&shard, "shutdown");
        assert_eq!(metrics.alarms().list(), []);
    }
}
