//! Symbols that do not trade. That is another thing than a connection that is silent or gone, so it is
//! looked for apart from any: while there is no connection the silence of the symbols goes on.

use tokio::time::{Duration, sleep};

use super::Parts;
use crate::clock;
use crate::domain::identity::Micros;

/// How often symbols are looked at, at least: a reader of the page waits no longer.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Names the silent symbols again and again, as long as it is polled.
pub(super) async fn watch(parts: &Parts) {
    let every = LOOK_EVERY.min(parts.config.stale_after / 2);
    loop {
        note(parts);
        sleep(every).await;
    }
}

fn note(parts: &Parts) {
    let then = clock::now() - parts.config.stale_after.as_micros() as Micros;
    let silent = parts.watch.silent_since(then);
    parts.shard_metrics.stale(silent.len());
    match silent.len() {
        0 => parts.vitals.clear_note("silent_symbols"),
        _ => parts.vitals.note("silent_symbols", silent.join(" ")),
    }
}
