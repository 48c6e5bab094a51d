//! The feed's side of the tree: the spool, and one supervisor a shard.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Arbiter};
use anyhow::Result;

use super::spooling::Spooling;
use super::{DRAIN_WITHIN, Plant, child, policy};
use crate::actors::{feed_session, spool, validator};
use crate::clock;
use crate::domain::frame::{Rules, Watchlist};
use crate::domain::shard::Shard;
use crate::spool::pace::Pace;

/// Starts the spool.
pub(super) fn start_spool(plant: &Plant<'_>, spooling: Spooling) -> Result<Addr<spool::Spool>> {
    let (config, metrics, traces) = (plant.config.spool.clone(), plant.metrics.clone(), plant.traces.clone());
    let Spooling { logs, kind, log, durable, .. } = spooling;
    let spool = plant.root.top.spawn(child("spool", DRAIN_WITHIN), &Arbiter::new().handle(), move |_, vitals| {
        spool::Spool::new(spool::SpoolParts { config, vitals, logs, kind, log, durable, metrics, traces })
    })?;
    Ok(spool)
}

/// One supervisor a shard: its validator, then its session. Trades go to `partitions` partitions; `name` tells the shards
/// of several daemons apart.
pub(super) fn start_shards(plant: &Plant<'_>, spool: &Addr<spool::Spool>, partitions: u32, name: Option<&str>) -> Result<()> {
    let Plant { config, root, metrics, traces, .. } = plant;
    let arbiter = Arbiter::new();
    let shards = root.top.supervisor(child("shards", DRAIN_WITHIN), policy(3, 180))?;
    for (shard, key) in &config.feed.shards {
        let shard = &Shard { name: name.map_or(shard.name.clone(), |name| format!("{name}.{}", shard.name)), ..shard.clone() };
        let supervisor = shards.supervisor(child(&shard.name, DRAIN_WITHIN), policy(5, 30))?;
        let now = clock::now();
        let watch = Arc::new(Watchlist::partitioned(shard, partitions, now));
        let micros = |span: Option<Duration>| span.map(|span| span.as_micros() as i64);
        let rules = Rules {
            watch: watch.clone(),
            max_age: micros(config.validation.max_age),
            max_ahead: micros(config.validation.max_ahead),
            max_frame_bytes: config.feed.max_frame_bytes,
        };
        let (counted, append) = (metrics.clone(), spool.clone().recipient());
        let validator = supervisor.spawn(child("validator", DRAIN_WITHIN), &arbiter.handle(), move |_, vitals| {
            validator::Validator::new(validator::Parts { vitals, rules, metrics: counted, spool: append })
        })?;
        let (shard, key, feed, spool) = (shard.clone(), key.clone(), config.feed.clone(), spool.clone());
        let (metrics, shard_metrics, traces) = (metrics.clone(), metrics.shard(&shard.name), traces.clone());
        let pace = Pace::new(config.spool.group);
        supervisor.spawn(child("session", DRAIN_WITHIN), &arbiter.handle(), move |_, vitals| {
            feed_session::FeedSession::new(feed_session::Parts {
                vitals,
                config: feed,
                pace: pace.clone(),
                shard,
                key,
                metrics,
                shard_metrics,
                traces,
                watch,
                validator: validator.recipient(),
                open: spool.clone().recipient(),
                end: spool.recipient(),
            })
        })?;
    }
    Ok(())
}
