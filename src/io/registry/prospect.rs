//! What would become of a schema, asked without changing anything.

use serde::Deserialize;

use super::{Ask, LEVEL, Policy, Registry, RegistryError, reason};
use crate::wire::{Format, SchemaId};

/// What [`Registry::ensure`] would find or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// The subject has it.
    There {
        /// Its id.
        id: SchemaId,
        /// What the subject is held to, where that is too little and we would leave it so.
        lax: Option<String>,
    },
    /// The subject has none, and would get this one.
    First,
    /// The subject has others, and would get this one beside them.
    Beside {
        /// What the subject is held to, where that is not what we would hold it to: then it may be refused all the same.
        lax: Option<String>,
    },
}

/// An answer about compatibility.
#[derive(Deserialize)]
struct Compatibility {
    is_compatible: bool,
    /// Confluent's reasons.
    #[serde(default)]
    messages: Vec<String>,
    /// Apicurio's.
    #[serde(default)]
    reason: Option<String>,
}

impl Registry {
    /// What [`Registry::ensure`] would find or do. Whether this user may register a schema is not found out by it.
    pub async fn prospect(&self, subject: &str, format: Format, schema: &str, policy: Policy) -> Result<Prospect, RegistryError> {
        match (self.look_up(subject, format, schema).await, policy) {
            (Ok(id), Policy::Register) => Ok(Prospect::There { id, lax: None }),
            (Ok(id), Policy::CheckOnly) => Ok(Prospect::There { id, lax: self.lax(subject).await? }),
            (Err(RegistryError::NotRegistered { .. }), Policy::Register) => self.compare(subject, format, schema).await,
            (Err(error), _) => Err(error),
        }
    }

    async fn lax(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        Ok(Some(self.level(subject).await?).filter(|level| level != LEVEL))
    }

    async fn compare(&self, subject: &str, format: Format, schema: &str) -> Result<Prospect, RegistryError> {
        let doing = format!("compare a schema with those of subject `{subject}`");
        let path = ["compatibility", "subjects", subject, "versions"];
        let ask = Ask { query: &[("normalize", "true"), ("verbose", "true")], ..self.with_schema(&path, format, schema, doing) };
        let answer = self.ask(&ask).await?;
        let (url, subject, format) = (self.url(), subject.to_string(), format.name());
        match answer.status.as_u16() {
            404 => Ok(Prospect::First),
            422 => Err(RegistryError::NotTaken { url, subject, format, reason: reason(&answer.text) }),
            _ => match self.read::<Compatibility>(&ask, &answer)? {
                Compatibility { is_compatible: true, .. } => Ok(Prospect::Beside { lax: self.lax(&subject).await? }),
                Compatibility { messages, reason: said, .. } => {
                    let reason = reason(&said.unwrap_or_else(|| messages.join("; ")));
                    Err(RegistryError::Incompatible { url, subject, format, reason })
                }
            },
        }
    }
}
