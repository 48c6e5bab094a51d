//! The store of the archive, before anything is written to it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::config::{Config, StoreConfig};
use crate::io::measured::Measured;
use crate::io::probe::ProbeError;
use crate::io::probed::Probed;
use crate::io::store::{self, Store};
use crate::telemetry::Metrics;

/// Whoever does not answer by then is not waited for before the feed is read.
const STORE_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Opens the store, and looks whether it is safe.
pub(super) async fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<dyn Store>> {
    let store = store::open(&config.bronze.store).context("`bronze.store` cannot be used")?;
    if let StoreConfig::Folder(root) = &config.bronze.store {
        make_lake(root)?;
    }
    let store = Arc::new(Probed::new(Arc::new(Measured::new(store, metrics.clone()))));
    probe_first_use(config, &store).await?;
    Ok(store)
}

/// A disk that is full now is waited for, as it is later.
fn make_lake(root: &Path) -> Result<()> {
    match std::fs::create_dir_all(root) {
        Err(error) if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            let root = root.display();
            Err(error).with_context(|| {
                format!("`bronze.store` is `{root}`, which cannot be made: choose a folder that this user may write")
            })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Refuses a store whose creates are not atomic: two writers would both believe that they decided a
/// slot; and a folder that this user may not write. One that is away is not refused: [`Probed`] probes it
/// when it is there again, and until then trades wait in the spool.
async fn probe_first_use(config: &Config, store: &Probed) -> Result<()> {
    let asked = store.get("_probe/is-it-there");
    let outcome = match tokio::time::timeout(STORE_ANSWERS_WITHIN, asked).await {
        Err(_) => Err(format!("it does not answer within {STORE_ANSWERS_WITHIN:?}")),
        Ok(Err(error)) if error.is_retryable() => Err(error.to_string()),
        Ok(_) => match store.ensure().await {
            Ok(()) => Ok(()),
            Err(error @ ProbeError::Unsafe { .. }) => return Err(error.into()),
            Err(ProbeError::Store(error)) if !error.is_retryable() && matches!(config.bronze.store, StoreConfig::Folder(_)) => {
                return Err(anyhow::Error::from(error).context("`bronze.store` cannot be used"));
            }
            Err(error) => Err(error.to_string()),
        },
    };
    if let Err(error) = outcome {
        let store = store.describe();
        tracing::warn!(store, error, "`bronze.store` could not be probed: until it can be, {}", config.roles.meanwhile());
    }
    Ok(())
}
