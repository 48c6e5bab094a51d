//! The part of `check` that asks the cluster and its registry. It makes and registers nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;

use super::Report;
use crate::config::{KafkaConfig, Mechanism, RegistryConfig, Roles};
use crate::domain::stream::Stream;
use crate::io::kafka::client::try_out;
use crate::io::kafka::error::user;
use crate::io::kafka::rights::{Right, Rights, producer_begins};
use crate::io::kafka::topics;
use crate::io::kafka::{KafkaError, Topics};
use crate::io::registry::{Prospect, RegistryError};
use crate::kafka::schemas::Schemas;

/// How long an answer of the cluster may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Whether the cluster answers, whether its user may do what these roles need, and whether its topics are there as they must be
/// or could be made.
pub(super) async fn check(kafka: &KafkaConfig, roles: Roles, report: &mut Report) {
    if let Err(error) = try_out(kafka, roles) {
        return report.say("`kafka`", Err(error.into()));
    }
    let opened = async {
        let topics = Topics::open_within(kafka, WITHIN).await?;
        let (id, brokers) = topics.cluster().await?;
        Ok::<_, KafkaError>((topics, format!("cluster {id}, brokers {}", brokers.join(", "))))
    };
    let topics = match opened.await {
        Ok((topics, text)) => {
            report.say("`kafka`", Ok(text));
            topics
        }
        Err(error) => return report.say("`kafka`", Err(error.into())),
    };
    if kafka.tls.is_none() && kafka.sasl.as_ref().is_some_and(|sasl| sasl.mechanism == Mechanism::Plain) {
        report.note("`kafka.sasl_mechanism` is `PLAIN` without TLS: whoever is between can read the password; write `sasl_ssl`, or take SCRAM");
    }
    let cluster = Cluster { kafka, roles, topics };
    if let Err(error) = cluster.check(report).await {
        report.say("`kafka`", Err(error.into())); // the rest would fail alike, and is not waited for
    }
}

struct Cluster<'a> {
    kafka: &'a KafkaConfig,
    roles: Roles,
    topics: Topics,
}

impl Cluster<'_> {
    /// An error is of the cluster as a whole.
    async fn check(&self, report: &mut Report) -> Result<(), KafkaError> {
        let mut may_write = true;
        for stream in Stream::ALL {
            let topic = format!("topic `{}`", self.kafka.topic(stream));
            let rights = self.topics.rights_on_topic(stream).await?;
            let lacking = self.rights(&topic, &Right::on_topics(self.roles), &rights, report);
            may_write &= !lacking.contains(&Right::Write);
            if !lacking.contains(&Right::Describe) && !lacking.contains(&Right::DescribeConfigs) {
                self.topic(stream, &topic, report).await?;
            }
        }
        if self.roles.feed && may_write {
            match producer_begins(self.kafka, WITHIN).await {
                Ok(()) => report.say("idempotent producer", Ok("may begin".into())),
                Err(error) => report.say("idempotent producer", Err(error.into())),
            }
        }
        if self.roles.archive {
            let rights = self.topics.rights_on_group().await?;
            self.rights(&format!("group `{}`", self.kafka.group), &[Right::Read], &rights, report);
        }
        Ok(())
    }

    /// Says which of the rights that are needed the user has on a thing. Those that he lacks.
    fn rights(&self, on: &str, needed: &[Right], rights: &Rights, report: &mut Report) -> Vec<Right> {
        let (lacking, listed) = (rights.lacking(needed), Right::list(needed));
        match rights {
            Rights::Untold(why) => {
                report.note(&format!("whether {} has {listed} on {on} is not known: {why}", user(self.kafka)));
            }
            Rights::Told(_) if lacking.is_empty() => report.say(&format!("rights on {on}"), Ok(listed)),
            Rights::Told(_) => {
                let cure = format!("grant {} on {on} to {}", Right::list(&lacking), user(self.kafka));
                report.say(&format!("rights on {on}"), Err(anyhow!(cure)));
            }
        }
        lacking
    }

    /// Whether a topic is there as it must be, or could be made.
    async fn topic(&self, stream: Stream, name: &str, report: &mut Report) -> Result<(), KafkaError> {
        match self.topics.prospect(stream).await {
            Ok(topics::Prospect::Created) => {
                let (partitions, copies) = (self.kafka.partitions, self.kafka.replication_factor);
                let text = format!("is not there, and will be created with {partitions} partitions in {copies} copies");
                report.say(name, Ok(text));
            }
            Ok(topics::Prospect::There { topic, findings }) => {
                let (refused, notes): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.is_refused);
                match topic.lacks(self.kafka.min_insync) {
                    _ if !refused.is_empty() => {}
                    Some(why) if topic.leaderless > 0 => report.say(name, Err(anyhow!("{why}: brokers are down"))),
                    lacks => {
                        report.say(name, Ok(format!("{} partitions, incarnation {}", topic.partitions, topic.incarnation)));
                        if let Some(why) = lacks {
                            report
                                .note(&format!("{name}: {why}: brokers are down, or have just come up, and nothing can be sent"));
                        }
                    }
                }
                for finding in refused {
                    report.say(name, Err(anyhow!(finding.text())));
                }
                for finding in notes {
                    report.note(&finding.to_string());
                }
            }
            Err(error) if error.is_retryable() => return Err(error),
            Err(error) => report.say(name, Err(error.into())),
        }
        Ok(())
    }
}

/// Whether the registry answers, and has the schemas of this version or would take them.
pub(super) async fn check_schemas(kafka: &KafkaConfig, registry: &RegistryConfig, data_dir: &Path, report: &mut Report) {
    let what = "`kafka.registry`";
    let schemas = match Schemas::new(kafka, registry, data_dir) {
        Ok(schemas) => schemas,
        Err(error) => return report.say(what, Err(error.into())),
    };
    for (at, stream) in Stream::ALL.into_iter().enumerate() {
        let prospect = schemas.prospect(stream).await;
        match &prospect {
            Ok(_) => {}
            Err(RegistryError::NotRegistered { .. } | RegistryError::Incompatible { .. } | RegistryError::NotTaken { .. }) => {}
            // Of all of them alike.
            Err(error) => return report.say(what, Err(error.clone().into())),
        }
        if at == 0 {
            report.say(what, Ok(format!("{} answers", registry.url)));
        }
        let subject = format!("schema of subject `{}`", schemas.subject(stream));
        match prospect {
            Ok(prospect) => {
                let (text, note) = told(&prospect);
                report.say(&subject, Ok(format!("{} {text}", kafka.format.name())));
                if let Some(note) = note {
                    report.note(&format!("{subject}: {note}"));
                }
            }
            Err(error) => report.say(&subject, Err(error.into())),
        }
    }
}

/// What becomes of a schema, in words, and what is unwise about it.
fn told(prospect: &Prospect) -> (String, Option<String>) {
    match prospect {
        Prospect::There { id, lax } => {
            let note = |level| {
                format!(
                    "it is held to {level}, so that the registry would take what readers of other versions break on; set FULL_TRANSITIVE"
                )
            };
            (format!("has id {id}"), lax.as_ref().map(note))
        }
        Prospect::First => ("is not there, and will be registered as the first".into(), None),
        Prospect::Beside { lax } => {
            let note = |level| {
                format!(
                    "it was compared by {level}, to which the subject is held; ours are held to FULL_TRANSITIVE, by which the registry \
                     may refuse it when it is registered"
                )
            };
            ("is not there, goes with what is, and will be registered".into(), lax.as_ref().map(note))
        }
    }
}
