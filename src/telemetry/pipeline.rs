//! The way of a trade in numbers: one picture out of the metrics, as `/api/pipeline` shows it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::metrics::{LatestRun, Metrics};
use crate::domain::stream::Stream;

/// All stages but Gold, which is read where it is published. Counts are since the process began.
#[derive(Clone, Debug, Serialize)]
pub struct Pipeline {
    /// The connections.
    pub shards: Vec<ShardPicture>,
    /// What came and what validation made of it.
    pub feed: FeedPicture,
    /// The durable log.
    pub spool: SpoolPicture,
    /// The archive, by stream.
    pub bronze: BTreeMap<&'static str, BronzePicture>,
    /// The warehouse.
    pub silver: SilverPicture,
}

/// One connection.
#[derive(Clone, Debug, Serialize)]
pub struct ShardPicture {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub connected: bool,
    /// Messages received.
    pub frames: u64,
    /// How often it has ended.
    pub disconnects: u64,
    /// When the last message came, in milliseconds of Unix time; 0 if none has.
    pub last_frame_ms: i64,
    /// Symbols that have been silent for long.
    pub stale_symbols: i64,
}

/// What came.
#[derive(Clone, Debug, Serialize)]
pub struct FeedPicture {
    /// Messages received.
    pub frames: u64,
    /// Trades in them.
    pub trades: u64,
    /// Trades by what is odd about them.
    pub flagged: BTreeMap<String, u64>,
    /// What is no trade, by reason.
    pub quarantined: BTreeMap<String, u64>,
    /// Outages by reason.
    pub gaps: BTreeMap<String, u64>,
    /// Connections that have ended.
    pub disconnects: u64,
}

/// The durable log.
#[derive(Clone, Debug, Serialize)]
pub struct SpoolPicture {
    /// Records made durable, by stream.
    pub records: BTreeMap<&'static str, u64>,
    /// What it takes of the disk.
    pub used_bytes: i64,
    /// What it may take.
    pub limit_bytes: i64,
    /// From the receipt of a message until it was durable: the longest of the last batch.
    pub frame_to_durable_ms: f64,
}

/// The archive of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct BronzePicture {
    /// Records archived.
    pub records: u64,
    /// Objects written and committed.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Slots decided.
    pub slots: u64,
    /// Records that are durable and not archived.
    pub lag_records: i64,
    /// Age of the oldest of these.
    pub lag_seconds: f64,
}

/// The warehouse.
#[derive(Clone, Debug, Serialize)]
pub struct SilverPicture {
    /// Runs that were published.
    pub runs: u64,
    /// Runs that failed.
    pub failures: u64,
    /// The last one that was published.
    pub latest: LatestRun,
}

impl Metrics {
    /// All numbers of now.
    pub fn pipeline(&self) -> Pipeline {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = shards.iter().map(|(name, shard)| ShardPicture {
            name: name.clone(),
            connected: shard.numbers().connected.get() > 0,
            frames: shard.numbers().frames.get(),
            disconnects: shard.disconnected.load(Relaxed),
            last_frame_ms: shard.last_frame_at.load(Relaxed) / 1000,
            stale_symbols: shard.numbers().stale.get(),
        });
        let shards: Vec<ShardPicture> = shards.collect();
        let bronze = Stream::ALL.into_iter().zip(&self.bronze).map(|(stream, bronze)| {
            let picture = BronzePicture {
                records: bronze.records.get(),
                objects: bronze.objects.get(),
                bytes: bronze.bytes.get(),
                slots: bronze.slots.get(),
                lag_records: bronze.lag_records.get(),
                lag_seconds: bronze.lag_seconds.get(),
            };
            (stream.name(), picture)
        });
        Pipeline {
            feed: FeedPicture {
                frames: shards.iter().map(|shard| shard.frames).sum(),
                trades: self.feed.trades.get(),
                flagged: self.feed.flagged.values(),
                quarantined: self.feed.quarantined.values(),
                gaps: self.feed.gaps.values(),
                disconnects: shards.iter().map(|shard| shard.disconnects).sum(),
            },
            spool: SpoolPicture {
                records: Stream::ALL.iter().map(|stream| stream.name()).zip(self.spool.durable.iter().map(|n| n.get())).collect(),
                used_bytes: self.spool.bytes.get(),
                limit_bytes: self.spool.limit.get(),
                frame_to_durable_ms: self.spool.latest_micros.load(Relaxed) as f64 / 1e3,
            },
            bronze: bronze.collect(),
            silver: SilverPicture {
                runs: self.warehouse.runs.get(),
                failures: self.warehouse.failures.get(),
                latest: self.warehouse.latest.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            },
            shards,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_picture_shows_what_the_metrics_count() {
        let metrics = Metrics::new();
        for name in ["shard-1", "shard-2"] {
            let shard = metrics.shard(name);
            metrics.connected(&shard);
            shard.received(5, 100, 1_760_000_000_000_000);
        }
        metrics.disconnected(&metrics.shard("shard-2"), "stalled");
        metrics.gap("stalled");
        metrics.appended(Duration::from_millis(1), [9, 1, 2]);
        metrics.archive_lag(Stream::Trades.into(), 4, None);
        let picture = metrics.pipeline();
        assert_eq!((picture.feed.frames, picture.feed.disconnects, picture.feed.gaps["stalled"]), (10, 1, 1));
        assert_eq!(picture.shards.iter().map(|shard| shard.connected).collect::<Vec<_>>(), [true, false]);
        assert_eq!(picture.shards[0].last_frame_ms, 1_760_000_000_000);
        assert_eq!(picture.spool.records["quarantine"], 2);
        assert_eq!((picture.bronze["trades"].lag_records, picture.bronze["gaps"].lag_records), (4, 0));
    }
}
