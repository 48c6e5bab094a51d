//! What a topic must be like, and what is said of one that is otherwise. Pure.
//!
//! What would lose or hold up records is refused: the daemon does not start on it, and every mismatch is told
//! at once. What is only unwise, or stronger than asked for, is a note. `min.insync.replicas` below
//! `kafka.min_insync` is refused, even though the spool would send again what a cluster loses: an operator who
//! wants that writes the lower number into the config.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::config::KafkaConfig;

/// Clocks may differ by so much, and a record that was made here may seem to come from the future.
const AHEAD: Duration = Duration::from_secs(300);

/// Something about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub topic: String,
    /// As Kafka calls it.
    pub setting: &'static str,
    /// What it is.
    pub found: String,
    /// What it must or should be.
    pub wanted: String,
    /// Why, and how it is changed.
    pub cure: String,
    /// Whether it must be changed before anything is sent.
    pub is_refused: bool,
}

impl Finding {
    /// All but the topic's name.
    pub fn text(&self) -> String {
        let Finding { setting, found, wanted, cure, is_refused, .. } = self;
        let verb = if *is_refused { "must" } else { "should" };
        format!("`{setting}` is `{found}`, {verb} be {wanted}: {cure}")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic `{}`: {}", self.topic, self.text())
    }
}

/// What was found of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) partitions: u32,
    /// Of the partition that has the fewest.
    pub(super) replicas: u16,
    /// As the brokers tell them, those that it has by default among them.
    pub(super) settings: BTreeMap<String, String>,
}

/// The settings with which a topic is created; others are the cluster's.
pub(super) fn settings(config: &KafkaConfig) -> Vec<(&'static str, String)> {
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", config.retention.as_millis().to_string()),
        ("min.insync.replicas", config.min_insync.to_string()),
        ("max.message.bytes", config.max_record_bytes.to_string()),
        ("message.timestamp.type", "CreateTime".into()),
    ]
}

/// All that is to be said of a topic, in the order of [`Rules`]' calls.
pub(super) fn decide(topic: &str, found: &Found, config: &KafkaConfig) -> Vec<Finding> {
    let mut rules = Rules { topic, settings: &found.settings, findings: Vec::new() };
    let retention = config.retention.as_millis() as i64;

    if found.partitions < config.partitions {
        let cure = format!(
            "run `kafka-topics.sh --alter --topic {topic} --partitions {}`, or write `kafka.partitions = {}`",
            config.partitions, found.partitions
        );
        rules.refuse("partitions", &found.partitions.to_string(), format!("at least {}", config.partitions), cure);
    } else if found.partitions > config.partitions {
        let cure = format!(
            "all of them are archived and refined; so that this daemon sends to all, too, write `kafka.partitions = {}`",
            found.partitions
        );
        rules.note("partitions", &found.partitions.to_string(), format!("{}", config.partitions), cure);
    }
    if found.replicas < config.replication_factor {
        let cure = format!(
            "give it more copies with `kafka-reassign-partitions.sh`, or write `kafka.replication_factor = {}`, if as many \
             records may be lost as that",
            found.replicas
        );
        rules.refuse("replication factor", &found.replicas.to_string(), format!("at least {}", config.replication_factor), cure);
    }

    rules.must_be("cleanup.policy", "delete", "compaction drops records that have the same key");
    rules.must_be("message.timestamp.type", "CreateTime", "retention counts from when the daemon sends a record");
    let insync = i64::from(config.min_insync);
    rules.at_least(
        "min.insync.replicas",
        insync,
        "else a record counts as written that few brokers have",
        Some("kafka.min_insync"),
    );
    rules.at_least("retention.ms", retention, "records would be gone before `kafka.retention`", Some("kafka.retention"));
    rules.at_least(
        "max.message.bytes",
        config.max_record_bytes as i64,
        "a longer record would stop its partition for ever",
        Some("feed.max_frame_bytes"),
    );
    // Its name before Kafka 3.6.
    for setting in ["message.timestamp.before.max.ms", "message.timestamp.difference.max.ms"] {
        if found.settings.contains_key(setting) {
            rules.at_least(
                setting,
                retention,
                "records are stamped when they are sent, and what a broker gets later than that would be refused",
                None,
            );
        }
    }
    let setting = "message.timestamp.after.max.ms";
    if found.settings.contains_key(setting) {
        rules.at_least(setting, AHEAD.as_millis() as i64, "clocks differ, and records would be refused", None);
    }

    let least = rules.number("min.insync.replicas");
    if found.replicas > 1 && least.is_some_and(|least| least >= i64::from(found.replicas)) {
        let cure = rules.alter("min.insync.replicas", &(found.replicas - 1).to_string());
        let why = format!("one broker that is down stops everything; {cure}");
        rules.note(
            "min.insync.replicas",
            &least.unwrap_or_default().to_string(),
            format!("below its {} copies", found.replicas),
            why,
        );
    }
    if found.replicas >= 3 && least == Some(1) && insync == 1 {
        let cure = "a record counts as written when one broker has it; if that is lost, the spool sends it again; write \
                    `kafka.min_insync = 2`";
        rules.note("min.insync.replicas", "1", "2".into(), cure.into());
    }
    if let Some(bytes) = rules.number("retention.bytes").filter(|bytes| *bytes >= 0) {
        let why = format!("records may be gone before `kafka.retention`; {}", rules.alter("retention.bytes", "-1"));
        rules.note("retention.bytes", &bytes.to_string(), "-1".into(), why);
    }
    if found.settings.get("unclean.leader.election.enable").is_some_and(|value| value == "true") {
        let alter = rules.alter("unclean.leader.election.enable", "false");
        let why = format!("a broker that has missed records may lead; the spool then sends them again; {alter}");
        rules.note("unclean.leader.election.enable", "true", "false".into(), why);
    }
    rules.findings
}

/// Findings for people, one a line if there are several.
pub(super) fn list(findings: &[Finding]) -> String {
    match findings {
        [finding] => finding.to_string(),
        findings => findings.iter().fold(format!("{} settings of topics must be changed:", findings.len()), |text, finding| {
            format!("{text}\n  {finding}")
        }),
    }
}

struct Rules<'a> {
    topic: &'a str,
    settings: &'a BTreeMap<String, String>,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    fn refuse(&mut self, setting: &'static str, found: &str, wanted: String, cure: String) {
        let (topic, found) = (self.topic.to_string(), found.to_string());
        self.findings.push(Finding { topic, setting, found, wanted, cure, is_refused: true });
    }

    fn note(&mut self, setting: &'static str, found: &str, wanted: String, cure: String) {
        let (topic, found) = (self.topic.to_string(), found.to_string());
        self.findings.push(Finding { topic, setting, found, wanted, cure, is_refused: false });
    }

    fn must_be(&mut self, setting: &'static str, wanted: &str, why: &str) {
        let found = self.settings.get(setting).map_or("(not told)", String::as_str);
        if found != wanted {
            let cure = format!("{why}; {}", self.alter(setting, wanted));
            self.refuse(setting, found, format!("`{wanted}`"), cure);
        }
    }

    /// -1 is without an end. `option` may be lowered instead.
    fn at_least(&mut self, setting: &'static str, wanted: i64, why: &str, option: Option<&str>) {
        let number = self.number(setting);
        if number.is_none_or(|found| (0..wanted).contains(&found)) {
            let found = self.settings.get(setting).map_or("(not told)", String::as_str);
            let or = option.map_or_else(String::new, |option| format!(", or lower `{option}`"));
            let cure = format!("{why}; {}{or}", self.alter(setting, &wanted.to_string()));
            self.refuse(setting, found, format!("at least {wanted}"), cure);
        }
    }

    /// Of a setting that is told.
    fn number(&self, setting: &str) -> Option<i64> {
        self.settings.get(setting)?.parse().ok()
    }

    fn alter(&self, setting: &str, value: &str) -> String {
        format!("run `kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {setting}={value}`", self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::config;
    use super::*;

    /// As Kafka 4.3 tells of a topic that was created with our settings.
    fn found(changes: &[(&str, &str)]) -> Found {
        let defaults = [
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
            ("retention.bytes", "-1"),
            ("unclean.leader.election.enable", "false"),
        ];
        let ours = settings(&config(&["k:1"]));
        let mut settings: BTreeMap<String, String> = ours.into_iter().map(|(name, value)| (name.into(), value)).collect();
        settings.extend(defaults.iter().chain(changes).map(|(name, value)| (name.to_string(), value.to_string())));
        settings.retain(|_, value| value != "absent");
        Found { partitions: 12, replicas: 3, settings }
    }

    fn told(found: &Found) -> Vec<String> {
        decide("t", found, &config(&["k:1"])).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_topic_with_our_settings_is_all_right() {
        assert_eq!(told(&found(&[])), [""; 0]);
        assert_eq!(told(&found(&[("retention.ms", "-1"), ("max.message.bytes", "99999999")])), [""; 0]);
    }

    #[test]
    fn what_would_lose_or_hold_up_records_is_refused_with_found_wanted_and_cure() {
        let alter = "run `kafka-configs.sh --alter --entity-type topics --entity-name t --add-config";
        for (setting, value, told_of_it) in [
            (
                "cleanup.policy",
                "compact",
                format!(
                    "topic `t`: `cleanup.policy` is `compact`, must be `delete`: compaction drops records that have the same key; {alter} cleanup.policy=delete`"
                ),
            ),
            ("cleanup.policy", "compact,delete", "topic `t`: `cleanup.policy` is `compact,delete`, must be `delete`".into()),
            ("cleanup.policy", "absent", "topic `t`: `cleanup.policy` is `(not told)`, must be `delete`".into()),
            (
                "message.timestamp.type",
                "LogAppendTime",
                "topic `t`: `message.timestamp.type` is `LogAppendTime`, must be `CreateTime`".into(),
            ),
            (
                "min.insync.replicas",
                "1",
                format!(
                    "topic `t`: `min.insync.replicas` is `1`, must be at least 2: else a record counts as written that few brokers have; {alter} min.insync.replicas=2`, or lower `kafka.min_insync`"
                ),
            ),
            (
                "retention.ms",
                "3600000",
                format!(
                    "topic `t`: `retention.ms` is `3600000`, must be at least 604800000: records would be gone before `kafka.retention`; {alter} retention.ms=604800000`, or lower `kafka.retention`"
                ),
            ),
            (
                "max.message.bytes",
                "1048588",
                format!(
                    "topic `t`: `max.message.bytes` is `1048588`, must be at least 13107200: a longer record would stop its partition for ever; {alter} max.message.bytes=13107200`, or lower `feed.max_frame_bytes`"
                ),
            ),
            (
                "message.timestamp.before.max.ms",
                "60000",
                "topic `t`: `message.timestamp.before.max.ms` is `60000`, must be at least 604800000".into(),
            ),
            (
                "message.timestamp.difference.max.ms",
                "60000",
                "topic `t`: `message.timestamp.difference.max.ms` is `60000`, must be at least".into(),
            ),
            (
                "message.timestamp.after.max.ms",
                "1000",
                "topic `t`: `message.timestamp.after.max.ms` is `1000`, must be at least 300000".into(),
            ),
        ] {
            let findings = decide("t", &found(&[(setting, value)]), &config(&["k:1"]));
            assert_eq!(findings.len(), 1, "{findings:#?}");
            assert!(
                findings[0].is_refused && findings[0].to_string().starts_with(&told_of_it),
                "{}\nis not\n{told_of_it}",
                findings[0]
            );
        }
    }

    #[test]
    fn fewer_partitions_and_copies_are_refused_and_more_are_not() {
        let fewer =
            decide("t", &Found { partitions: 6, replicas: 1, ..found(&[("min.insync.replicas", "2")]) }, &config(&["k:1"]));
        let told: Vec<_> = fewer.iter().map(|finding| (finding.setting, finding.is_refused)).collect();
        assert_eq!(told, [("partitions", true), ("replication factor", true)]);
        assert!(
            fewer[0].to_string().contains("`kafka-topics.sh --alter --topic t --partitions 12`, or write `kafka.partitions = 6`")
        );
        let more = decide("t", &Found { partitions: 24, replicas: 5, ..found(&[]) }, &config(&["k:1"]));
        assert_eq!(more.iter().map(|finding| (finding.setting, finding.is_refused)).collect::<Vec<_>>(), [("partitions", false)]);
    }

    #[test]
    fn what_is_unwise_is_noted() {
        for (setting, value) in
            [("min.insync.replicas", "3"), ("retention.bytes", "1000"), ("unclean.leader.election.enable", "true")]
        {
            let findings = decide("t", &found(&[(setting, value)]), &config(&["k:1"]));
            let told: Vec<_> = findings.iter().map(|finding| (finding.setting, finding.is_refused)).collect();
            assert_eq!(told, [(setting, false)]);
        }
        let lax = KafkaConfig { min_insync: 1, ..config(&["k:1"]) };
        let findings = decide("t", &found(&[("min.insync.replicas", "1")]), &lax);
        assert_eq!(
            findings.iter().map(|finding| (finding.setting, finding.is_refused)).collect::<Vec<_>>(),
            [("min.insync.replicas", false)]
        );
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let found = found(&[("cleanup.policy", "compact"), ("retention.ms", "1"), ("max.message.bytes", "1")]);
        let text = list(&decide("t", &found, &config(&["k:1"])));
        assert!(text.starts_with("3 settings of topics must be changed:\n  topic `t`: `cleanup.policy`"), "{text}");
        assert_eq!(text.lines().count(), 4);
    }
}
