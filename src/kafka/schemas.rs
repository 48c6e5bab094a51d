//! The ids of our schemas in the registry: asked for at the start, and known from then on.
//!
//! Ids that were got once are kept in a file, since a registry never changes them: so a start while it is away goes on with
//! them. A schema that is another now, or another registry, has none there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{KafkaConfig, RegistryConfig};
use crate::domain::object::hex;
use crate::domain::stream::{PerStream, Stream};
use crate::io::registry::{Access, Policy, Prospect, Registry, RegistryError};
use crate::wire::schemas::{schema, subject};
use crate::wire::{Format, SchemaId};

/// Ids that were got once.
const NOTES: &str = "schema-ids.json";
/// One attempt of a request. Whoever asks for the ids asks again anyway, so there are few.
const ATTEMPT: Duration = Duration::from_secs(5);
/// See [`ATTEMPT`].
const ATTEMPTS: u32 = 2;
/// Between the two.
const BACKOFF: Duration = Duration::from_millis(300);

/// A registry, and what is known of our schemas there. A clone knows the same.
#[derive(Clone)]
pub struct Schemas {
    registry: Arc<Registry>,
    policy: Policy,
    url: String,
    format: Format,
    subjects: PerStream<String>,
    notes: PathBuf,
    ids: Arc<OnceLock<PerStream<SchemaId>>>,
}

/// The file of known ids: by URL and subject, and the text that the id is of.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Known(BTreeMap<String, (String, u32)>);

impl Schemas {
    /// Asks nothing yet. Ids are kept in a file in `data_dir`.
    pub fn new(kafka: &KafkaConfig, config: &RegistryConfig, data_dir: &Path) -> Result<Schemas, RegistryError> {
        let registry = Registry::new(access(config))?;
        let policy = if config.register { Policy::Register } else { Policy::CheckOnly };
        let subjects = Stream::ALL.map(|stream| subject(&kafka.topic(stream)));
        let (url, format, notes) = (config.url.clone(), kafka.format, data_dir.join(NOTES));
        Ok(Schemas { registry: Arc::new(registry), policy, url, format, subjects, notes, ids: Arc::default() })
    }

    /// The registry itself, for schemas of others.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// The ids, once they are known.
    pub fn ids(&self) -> Option<PerStream<SchemaId>> {
        self.ids.get().copied()
    }

    /// Asks the registry for the ids, and registers what is missing if that is allowed. Where it does not answer, ids that were
    /// got before count as known; the error is told all the same.
    pub async fn ensure(&self) -> Result<PerStream<SchemaId>, RegistryError> {
        let asked = futures_util::future::try_join_all(
            Stream::ALL
                .map(|stream| self.registry.ensure(self.subject(stream), self.format, schema(stream, self.format), self.policy)),
        );
        match asked.await {
            Ok(found) => {
                let ids = Stream::ALL.map(|stream| found[stream.index()]);
                self.note(ids);
                let known = *self.ids.get_or_init(|| ids);
                // The producer goes on with those that it began with.
                if known == ids { Ok(ids) } else { Err(RegistryError::OtherIds { known: listed(known), found: listed(ids) }) }
            }
            Err(error) => {
                if let (true, Some(ids)) = (error.is_retryable(), self.noted()) {
                    self.ids.get_or_init(|| ids);
                }
                Err(error)
            }
        }
    }

    /// What [`Schemas::ensure`] would find or do for one stream. Nothing is registered, and nothing kept.
    pub async fn prospect(&self, stream: Stream) -> Result<Prospect, RegistryError> {
        self.registry.prospect(self.subject(stream), self.format, schema(stream, self.format), self.policy).await
    }

    /// Under which the schema of a stream is registered.
    pub fn subject(&self, stream: Stream) -> &str {
        &self.subjects[stream.index()]
    }

    fn key(&self, stream: Stream) -> String {
        format!("{} {}", self.url, self.subject(stream))
    }

    fn text(&self, stream: Stream) -> String {
        hex(&Sha256::digest(schema(stream, self.format).as_bytes()))
    }

    fn read(&self) -> Known {
        std::fs::read(&self.notes).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn noted(&self) -> Option<PerStream<SchemaId>> {
        let known = self.read();
        let ids = Stream::ALL.map(|stream| {
            let (text, id) = known.0.get(&self.key(stream))?;
            (*text == self.text(stream)).then_some(SchemaId(*id))
        });
        let [Some(trades), Some(gaps), Some(quarantine)] = ids else { return None };
        Some([trades, gaps, quarantine])
    }

    fn note(&self, ids: PerStream<SchemaId>) {
        let mut known = self.read();
        for stream in Stream::ALL {
            known.0.insert(self.key(stream), (self.text(stream), ids[stream.index()].0));
        }
        let text = serde_json::to_vec_pretty(&known).expect("its keys are strings");
        let unmade = self.notes.with_extension("new");
        if let Err(error) = std::fs::write(&unmade, text).and_then(|()| std::fs::rename(&unmade, &self.notes)) {
            let path = self.notes.display();
            tracing::warn!(%path, %error, "the ids of schemas are not kept: a start while the registry is away would wait for it");
        }
    }
}

/// The ids in words.
pub fn listed(ids: PerStream<SchemaId>) -> String {
    ids.map(|id| id.to_string()).join(", ")
}

fn access(config: &RegistryConfig) -> Access {
    let RegistryConfig { url, login, ca_file, .. } = config.clone();
    Access { url, credentials: login, ca_file, attempt_timeout: ATTEMPT, attempts: ATTEMPTS, backoff: BACKOFF }
}
