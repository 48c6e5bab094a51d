//! A client of a schema registry that speaks Confluent's API: Confluent's own, Apicurio, Karapace, Redpanda.
//!
//! What is asked: to hold a subject to FULL_TRANSITIVE, to register a schema or to look it up or to say what would
//! become of it, and to give the text of an id. So a reader of any version can read what any other wrote. All of it
//! may be asked twice; a request that has no answer is asked again.
//!
//! Only answers of Apicurio 2.6.13 and 3.3.3 have been seen: docs/adr/0011-wire-format.md.

mod prospect;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, Client, Method, StatusCode, Url, header, redirect};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Secret;
use crate::wire::{Format, SchemaId};

pub use prospect::Prospect;

/// What each subject is held to.
const LEVEL: &str = "FULL_TRANSITIVE";

/// The media type of the API.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// No answer of a registry is longer; what is, comes from something else.
const LONGEST_ANSWER: usize = 4 << 20;

/// So many bytes of the registry's own words are told.
const LONGEST_REASON: usize = 600;

/// A server that has not taken the connection by then is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How to reach a registry.
#[derive(Clone, Debug)]
pub struct Access {
    /// Its address with the path of the API: `https://registry:8081`, `http://apicurio:8080/apis/ccompat/v7`.
    pub url: String,
    /// For basic authentication: with Confluent Cloud an API key and its secret.
    pub credentials: Option<(String, Secret)>,
    /// A PEM file with the only authorities that are trusted; without one they are the system's.
    pub ca_file: Option<PathBuf>,
    /// One attempt of one request, with its answer.
    pub attempt_timeout: Duration,
    /// So often a request is tried in all; at least once.
    pub attempts: u32,
    /// The wait before the second attempt. It doubles, with jitter.
    pub backoff: Duration,
}

/// What to do with a schema that a subject does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Register it, and hold the subject to FULL_TRANSITIVE.
    Register,
    /// Change nothing: here somebody else registers schemas.
    CheckOnly,
}

/// Why there is no schema or no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The address makes no sense.
    #[error(
        "the schema registry's address {url}: {reason}; write such as `https://registry:8081` or `http://apicurio:8080/apis/ccompat/v7`"
    )]
    Address {
        /// As configured, in quotes; not shown where a password is in it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing that is encrypted can be trusted.
    #[error("the authorities to trust {path}: {reason}; give a PEM file of certificates")]
    Authorities {
        /// The file, or where else they come from.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, however often it was asked.
    #[error("the schema registry at {url} is not reached: {reason}; check that it runs, its address and its certificate")]
    Unreachable {
        /// The registry.
        url: String,
        /// What the network said last.
        reason: String,
    },
    /// 401 or 403.
    #[error(
        "the schema registry at {url} refuses to {doing} ({status}): check the user and the secret, and what that user may do"
    )]
    Refused {
        /// The registry.
        url: String,
        /// What was asked.
        doing: String,
        /// Its answer.
        status: u16,
    },
    /// A server that knows no such path.
    #[error(
        "no schema registry is at {url}, only a server that does not know its paths (404): add the path of the API, with Apicurio \
         `/apis/ccompat/v7`"
    )]
    NoRegistry {
        /// As configured.
        url: String,
    },
    /// 409.
    #[error(
        "the schema registry at {url} refuses the {format} schema of subject `{subject}` beside its versions: {reason}. Readers \
         would break: run the version of Tickmint that suits the topic, or write to a new topic"
    )]
    Incompatible {
        /// The registry.
        url: String,
        /// The subject.
        subject: String,
        /// `avro` or `json`.
        format: &'static str,
        /// In the registry's words.
        reason: String,
    },
    /// It was emptied, or an old copy was put back.
    #[error(
        "the schema registry has given the schemas other ids ({found}) than records are written with ({known}), by which readers of the \
         topics find them: put its old state back, or restart this daemon, which then writes the new ones"
    )]
    OtherIds {
        /// Those in use.
        known: String,
        /// Those of now.
        found: String,
    },
    /// 422.
    #[error(
        "the schema registry at {url} does not take the {format} schema of subject `{subject}`: {reason}. See whether it supports \
         such schemas and is writable"
    )]
    NotTaken {
        /// The registry.
        url: String,
        /// The subject.
        subject: String,
        /// `avro` or `json`.
        format: &'static str,
        /// In the registry's words.
        reason: String,
    },
    /// [`Policy::CheckOnly`], and it is not there.
    #[error(
        "subject `{subject}` of the schema registry at {url} does not have the {format} schema of this version ({reason}): register \
         it (`schemas/` of this version has the file), or let Tickmint register it (`kafka.registry.register`)"
    )]
    NotRegistered {
        /// The registry.
        url: String,
        /// The subject.
        subject: String,
        /// `avro` or `json`.
        format: &'static str,
        /// In the registry's words.
        reason: String,
    },
    /// It has no schema of that id.
    #[error(
        "the schema registry at {url} has no schema {id} ({reason}): give the one that was in use when the record was written, or \
         put the schema back under its id"
    )]
    UnknownId {
        /// The registry.
        url: String,
        /// What was asked for.
        id: SchemaId,
        /// In the registry's words.
        reason: String,
    },
    /// An answer that none should give.
    #[error("the schema registry at {url} was asked to {doing} and answers {status}: {reason}")]
    Answer {
        /// The registry.
        url: String,
        /// What was asked.
        doing: String,
        /// The status.
        status: u16,
        /// In its words.
        reason: String,
    },
}

impl RegistryError {
    /// Whether it may be better later, though nobody changes anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            RegistryError::Unreachable { .. } => true,
            RegistryError::Answer { status, .. } => is_passing(*status),
            RegistryError::Address { .. }
            | RegistryError::Authorities { .. }
            | RegistryError::Refused { .. }
            | RegistryError::NoRegistry { .. }
            | RegistryError::Incompatible { .. }
            | RegistryError::OtherIds { .. }
            | RegistryError::NotTaken { .. }
            | RegistryError::NotRegistered { .. }
            | RegistryError::UnknownId { .. } => false,
        }
    }
}

fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// A registry. Asks nothing until it is asked.
#[derive(Debug)]
pub struct Registry {
    access: Access,
    base: Url,
    client: Client,
    /// Ids are never given twice, so what was seen stays true.
    seen: Mutex<HashMap<SchemaId, Arc<str>>>,
}

/// A request.
struct Ask<'a> {
    method: Method,
    path: &'a [&'a str],
    query: &'a [(&'a str, &'a str)],
    body: Option<Value>,
    /// What it is for: `register ...`.
    doing: String,
}

/// An answer that means something: 200, 409, 422 or a 404 that a registry gives.
struct Answer {
    status: StatusCode,
    text: String,
}

/// The body of an answer that is no success.
#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    error_code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Id {
    id: u32,
}

#[derive(Deserialize)]
struct Text {
    schema: String,
}

#[derive(Deserialize)]
struct Level {
    #[serde(rename = "compatibilityLevel")]
    level: String,
}

impl Registry {
    /// The registry that `access` describes.
    pub fn new(mut access: Access) -> Result<Registry, RegistryError> {
        let base = base(&access.url)?;
        access.url = base.to_string();
        let mut builder = Client::builder()
            .user_agent(concat!("tickmint/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_WITHIN.min(access.attempt_timeout))
            .timeout(access.attempt_timeout)
            .redirect(redirect::Policy::none()); // It would turn a POST into a GET.
        let named = access.ca_file.as_ref().map_or("of the system".to_string(), |path| format!("in {}", path.display()));
        let unusable = |reason: String| RegistryError::Authorities { path: named.clone(), reason };
        if let Some(path) = &access.ca_file {
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
            if authorities.is_empty() {
                return Err(unusable("there is no certificate in it".to_string()));
            }
            builder = builder.tls_certs_only(authorities);
        } else if base.scheme() == "http" {
            builder = builder.tls_certs_only([]); // So that a machine without any needs none.
        }
        let client = builder.build().map_err(|error| unusable(reason_of(error)))?;
        Ok(Registry { access, base, client, seen: Mutex::default() })
    }

    /// The id of a schema under a subject, which is there afterwards; `policy` says whether it may be put there.
    ///
    /// Under [`Policy::CheckOnly`] nothing is changed, and a subject that is held to another level than
    /// FULL_TRANSITIVE is only warned of.
    pub async fn ensure(&self, subject: &str, format: Format, schema: &str, policy: Policy) -> Result<SchemaId, RegistryError> {
        match policy {
            Policy::Register => {
                self.hold(subject).await?;
                let registered = self.register(subject, format, schema).await;
                // Where two daemons begin at once, the slower one may be told that something is in its way: the same schema.
                let Err(RegistryError::Incompatible { .. }) = registered else { return registered };
                self.look_up(subject, format, schema).await.or(registered)
            }
            Policy::CheckOnly => {
                let id = self.look_up(subject, format, schema).await?;
                self.check_level(subject).await?;
                Ok(id)
            }
        }
    }

    /// The text of a schema; asked for once.
    pub async fn schema(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        if let Some(known) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(known));
        }
        let number = id.to_string();
        let doing = format!("give schema {id}");
        let ask = Ask { method: Method::GET, path: &["schemas", "ids", &number], query: &[], body: None, doing };
        let answer = self.ask(&ask).await?;
        let text: Arc<str> = match answer.status.as_u16() {
            404 => return Err(RegistryError::UnknownId { url: self.url(), id, reason: reason(&answer.text) }),
            _ => self.read::<Text>(&ask, &answer)?.schema.into(),
        };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&text));
        Ok(text)
    }

    /// Before the schema is registered, so that the first comparison is by this level. Where nobody has set one,
    /// Confluent's registry has BACKWARD and Apicurio NONE.
    async fn hold(&self, subject: &str) -> Result<(), RegistryError> {
        let body = Some(json!({ "compatibility": LEVEL }));
        let doing = format!("hold subject `{subject}` to {LEVEL}");
        let ask = Ask { method: Method::PUT, path: &["config", subject], query: &[], body, doing };
        let mut answer = self.ask(&ask).await?;
        if answer.status == StatusCode::CONFLICT {
            // Another daemon has begun to hold it to the same just now: seen of Apicurio. Now it is there to be changed.
            answer = self.ask(&ask).await?;
        }
        self.read::<Value>(&ask, &answer).map(drop)
    }

    async fn check_level(&self, subject: &str) -> Result<(), RegistryError> {
        let level = self.level(subject).await?;
        if level != LEVEL {
            tracing::warn!(
                subject, %level, wanted = LEVEL,
                "the schema registry would take a schema for this subject that readers or writers of other versions break on"
            );
        }
        Ok(())
    }

    /// What a subject is held to.
    async fn level(&self, subject: &str) -> Result<String, RegistryError> {
        let doing = format!("tell the compatibility of subject `{subject}`");
        let query = &[("defaultToGlobal", "true")];
        let ask = Ask { method: Method::GET, path: &["config", subject], query, body: None, doing };
        let answer = self.ask(&ask).await?;
        Ok(serde_json::from_str::<Level>(&answer.text).map_or("none of its own".to_string(), |level| level.level))
    }

    async fn register(&self, subject: &str, format: Format, schema: &str) -> Result<SchemaId, RegistryError> {
        let doing = format!("register a schema for subject `{subject}`");
        let path = ["subjects", subject, "versions"];
        let ask = self.with_schema(&path, format, schema, doing);
        let answer = self.ask(&ask).await?;
        let (url, subject, format, reason) = (self.url(), subject.to_string(), format.name(), reason(&answer.text));
        match answer.status.as_u16() {
            409 => Err(RegistryError::Incompatible { url, subject, format, reason }),
            422 => Err(RegistryError::NotTaken { url, subject, format, reason }),
            _ => self.read::<Id>(&ask, &answer).map(|id| SchemaId(id.id)),
        }
    }

    async fn look_up(&self, subject: &str, format: Format, schema: &str) -> Result<SchemaId, RegistryError> {
        let doing = format!("look up a schema of subject `{subject}`");
        let path = ["subjects", subject];
        let ask = self.with_schema(&path, format, schema, doing);
        let answer = self.ask(&ask).await?;
        let (url, subject, format, reason) = (self.url(), subject.to_string(), format.name(), reason(&answer.text));
        match answer.status.as_u16() {
            404 => Err(RegistryError::NotRegistered { url, subject, format, reason }),
            422 => Err(RegistryError::NotTaken { url, subject, format, reason }),
            _ => self.read::<Id>(&ask, &answer).map(|id| SchemaId(id.id)),
        }
    }

    /// A request about a schema. `normalize`: white space and the order of members make no other schema.
    fn with_schema<'a>(&self, path: &'a [&'a str], format: Format, schema: &str, doing: String) -> Ask<'a> {
        let kind = match format {
            Format::Json => "JSON",
            Format::Avro => "AVRO",
        };
        let body = Some(json!({ "schema": schema, "schemaType": kind }));
        Ask { method: Method::POST, path, query: &[("normalize", "true")], body, doing }
    }

    fn url(&self) -> String {
        self.access.url.clone()
    }

    /// What an answer says, which should be a success.
    fn read<T: serde::de::DeserializeOwned>(&self, ask: &Ask<'_>, answer: &Answer) -> Result<T, RegistryError> {
        let read = serde_json::from_str(&answer.text).ok().filter(|_| answer.status.is_success());
        read.ok_or_else(|| self.unexpected(ask, answer))
    }

    fn unexpected(&self, ask: &Ask<'_>, answer: &Answer) -> RegistryError {
        RegistryError::Answer {
            url: self.url(),
            doing: ask.doing.clone(),
            status: answer.status.as_u16(),
            reason: reason(&answer.text),
        }
    }

    /// Asks until there is an answer that counts.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let mut wait = self.access.backoff;
        for attempt in 1.. {
            let failure = match self.attempt(ask).await {
                Err(error) => RegistryError::Unreachable { url: self.url(), reason: reason_of(error) },
                Ok(answer) => match answer.status.as_u16() {
                    status @ (401 | 403) => {
                        return Err(RegistryError::Refused { url: self.url(), doing: ask.doing.clone(), status });
                    }
                    404 if !is_of_a_registry(&answer.text) => return Err(RegistryError::NoRegistry { url: self.url() }),
                    200..300 | 404 | 409 | 422 => return Ok(answer),
                    _ => self.unexpected(ask, &answer),
                },
            };
            if attempt >= self.access.attempts || !failure.is_retryable() {
                return Err(failure);
            }
            tracing::debug!(%failure, attempt, "the schema registry is asked again");
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = wait.saturating_mul(2);
        }
        unreachable!("the loop has no end")
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Result<Answer, reqwest::Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(ask.path);
        }
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(ask.query);
        }
        let mut request = self.client.request(ask.method.clone(), url).header(header::ACCEPT, MEDIA_TYPE);
        if let Some((user, secret)) = &self.access.credentials {
            request = request.basic_auth(user, Some(secret.reveal()));
        }
        if let Some(body) = &ask.body {
            request = request.header(header::CONTENT_TYPE, MEDIA_TYPE).body(body.to_string());
        }
        let mut response = request.send().await?;
        let (status, mut bytes) = (response.status(), Vec::new());
        if status.is_redirection() {
            let to = response.headers().get(header::LOCATION).map_or(&b"nowhere"[..], |to| to.as_bytes());
            let text = format!("it sends us to {}: give the address that it stands for", String::from_utf8_lossy(to));
            return Ok(Answer { status, text });
        }
        while bytes.len() < LONGEST_ANSWER
            && let Some(chunk) = response.chunk().await?
        {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Answer { status, text: String::from_utf8_lossy(&bytes).into_owned() })
    }
}

/// The address as it is used, without a password and what else it cannot have.
fn base(url: &str) -> Result<Url, RegistryError> {
    let shown = || format!("`{url}`");
    let base = Url::parse(url).map_err(|error| RegistryError::Address { url: shown(), reason: error.to_string() })?;
    if !base.username().is_empty() || base.password().is_some() {
        let reason = "it carries a user or a password, which belong beside it".to_string();
        return Err(RegistryError::Address { url: "(not shown)".into(), reason });
    }
    if !matches!(base.scheme(), "http" | "https") || base.query().is_some() || base.fragment().is_some() {
        let reason = "it must begin with `https://` or `http://` and have neither `?` nor `#`".to_string();
        return Err(RegistryError::Address { url: shown(), reason });
    }
    Ok(base)
}

/// Whether a 404 means that something in a registry is not there, and not that there is none.
fn is_of_a_registry(text: &str) -> bool {
    serde_json::from_str::<Fault>(text).is_ok_and(|fault| (40_400..40_500).contains(&fault.error_code))
}

/// What a server says of its answer.
fn reason(text: &str) -> String {
    let message = serde_json::from_str::<Fault>(text).map_or(text.to_string(), |fault| fault.message);
    let message = message.trim();
    match &message[..message.floor_char_boundary(LONGEST_REASON)] {
        "" => "without a word".to_string(),
        words => words.to_string(),
    }
}

/// What the network says, with all that lies beneath it, and without the address.
fn reason_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    let mut words: Vec<String> = Vec::new();
    while let Some(error) = cause {
        let text = error.to_string();
        if words.last() != Some(&text) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}

#[cfg(test)]
mod tests;
