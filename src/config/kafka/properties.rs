//! `[kafka.properties]`: what else librdkafka can be told, and what it must not be told.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use toml::{Table, Value};

use crate::config::check::Check;

/// Why a property is refused.
#[derive(Clone, Copy)]
enum Why {
    /// It has an option of its own.
    Option(&'static str),
    /// It would break what must hold.
    Never(&'static str),
    /// It is a secret, which does not belong in a config.
    Secret(&'static str),
}
use Why::{Never, Option as Is, Secret};

const ACKS: Why = Never("must stay `all`: what only one broker has is lost with it");
const ENDLESS: Why = Never("must have no end: a record that is given up on comes too late to be in order");
const RESET: Why =
    Never("must stay `error`: the chain in Bronze says where to go on, and a reset would pass over records unseen");
const COMMITS: Why = Never("is not needed: only what is in Bronze is committed, by the one who has seen it there");
const ORDER: Why = Never("must stay: records of a partition keep their order only so");
const ASSIGNED: Why = Never("must stay `cooperative-sticky`: a writer that keeps its partition goes on undisturbed");
const INTERNAL: Why = Never("is how this program talks to librdkafka");
const SIZES: Why =
    Never("follows from `feed.max_frame_bytes`: a record that is too long for it would stop its partition for ever");

/// What is refused, by name or, with a star, by its beginning. The first that fits counts.
const REFUSED: &[(&str, Why)] = &[
    ("bootstrap.servers", Is("kafka.brokers")),
    ("metadata.broker.list", Is("kafka.brokers")),
    ("client.id", Is("kafka.client_id")),
    ("group.id", Is("kafka.group")),
    ("group.instance.id", Never("is kept in `data_dir`: two daemons with one id would shut each other out for ever")),
    ("linger.ms", Is("kafka.linger")),
    ("queue.buffering.max.ms", Is("kafka.linger")),
    ("queue.buffering.max.kbytes", Is("kafka.buffer")),
    ("queue.buffering.max.messages", Is("kafka.buffer")),
    ("compression.codec", Is("kafka.compression")),
    ("compression.type", Is("kafka.compression")),
    ("security.protocol", Is("kafka.security")),
    ("sasl.mechanism", Is("kafka.sasl_mechanism")),
    ("sasl.mechanisms", Is("kafka.sasl_mechanism")),
    ("sasl.username", Is("kafka.username")),
    ("sasl.password", Secret("kafka.password_file")),
    ("sasl.*", Never("belongs to a way of logging in that this build does not have: it has SCRAM and PLAIN")),
    ("ssl.ca.location", Is("kafka.ca_file")),
    ("ssl.certificate.location", Is("kafka.certificate_file")),
    ("ssl.key.location", Is("kafka.key_file")),
    ("ssl.key.password", Secret("kafka.key_password_file")),
    ("ssl.key.pem", Secret("kafka.key_file")),
    ("ssl_key", Secret("kafka.key_file")),
    ("ssl.keystore.*", Secret("kafka.key_file")),
    (
        "enable.ssl.certificate.verification",
        Never("must stay true: else anybody can pose as a broker. Name who signs their certificates as `kafka.ca_file`"),
    ),
    (
        "ssl.endpoint.identification.algorithm",
        Never(
            "must stay `https`: else whoever has a certificate for any name can pose as a broker. Name brokers as their certificates do",
        ),
    ),
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", Never("must stay true: else a lost answer doubles records and changes their order")),
    ("max.in.flight", ORDER),
    ("max.in.flight.requests.per.connection", ORDER),
    ("queuing.strategy", ORDER),
    ("msg_order_cmp", ORDER),
    ("retries", ENDLESS),
    ("message.send.max.retries", ENDLESS),
    ("message.timeout.ms", ENDLESS),
    ("delivery.timeout.ms", ENDLESS),
    ("delivery.report.only.error", Never("must stay false: the spool waits for what was acknowledged")),
    ("message.max.bytes", SIZES),
    ("receive.message.max.bytes", SIZES),
    ("fetch.max.bytes", SIZES),
    (
        "transactional.id",
        Never("is not used: the chain in Bronze makes records count once, and one daemon would shut out the others"),
    ),
    ("transaction.timeout.ms", Never("is not used: there are no transactions")),
    ("partitioner", Never("is not used: the partition of a record is chosen before, by its symbol")),
    ("partitioner_cb", INTERNAL),
    ("allow.auto.create.topics", Never("must stay false: a topic that comes about by accident has the wrong settings")),
    ("topic.blacklist", Never("would hide topics")),
    ("auto.offset.reset", RESET),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("isolation.level", Never("must stay `read_committed`: what was aborted is no record")),
    ("check.crcs", Never("must stay true: a record that the way has damaged must not be archived")),
    ("enable.partition.eof", INTERNAL),
    ("partition.assignment.strategy", ASSIGNED),
    ("group.protocol", ASSIGNED),
    ("group.remote.assignor", ASSIGNED),
    ("api.version.request", Never("must stay true: without it there are no topic ids and no headers")),
    ("statistics.interval.ms", Never("is set: alarms about quotas are read off the statistics")),
    ("test.*", Never("puts a broker in memory in the place of the cluster, and everything would be lost")),
    ("plugin.library.paths", Never("would load foreign code")),
    ("log.queue", INTERNAL),
    ("log_level", Is("telemetry.log")),
    ("enabled_events", INTERNAL),
    ("opaque", INTERNAL),
];

impl Check<'_> {
    /// The further properties, as text.
    pub(super) fn properties(&mut self, given: Option<&Table>) -> BTreeMap<String, String> {
        let mut values = Vec::new();
        flatten(given.unwrap_or(&Table::new()), "", &mut values);
        let mut properties = BTreeMap::new();
        for (name, value) in values {
            let option = format!("kafka.properties.{name}");
            let Some(value) = text_of(&value) else {
                self.problem(
                    &option,
                    format!("`{option}` must be a text, a number, true or false: write such as `{name} = \"1\"`"),
                );
                continue;
            };
            match refusal(&name) {
                Some(Is(other)) => self.problem(&option, format!("`{option}` is set by `{other}`: write it there")),
                Some(Never(why)) => self.problem(&option, format!("`{option}` {why}; remove it")),
                Some(Secret(other)) => self.problem(
                    &option,
                    format!("`{option}` holds a secret, which does not belong in a config: write it to a file and name that as `{other}`"),
                ),
                None => match ClientConfig::new().set(&*name, &*value).create_native_config() {
                    Ok(_) => drop(properties.insert(name, value)),
                    Err(KafkaError::ClientConfig(_, why, _, _)) => {
                        self.problem(&option, format!("`{option}` is refused by librdkafka: {}; https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md names all that there are", why.trim()));
                    }
                    Err(error) => self.problem(&option, format!("`{option}` is refused: {error}")),
                },
            }
        }
        properties
    }
}

fn refusal(name: &str) -> Option<Why> {
    let fits = |pattern: &str| pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start));
    REFUSED.iter().find(|(pattern, _)| fits(pattern)).map(|(_, why)| *why)
}

/// `socket.timeout.ms = 1` is three tables in TOML, `"socket.timeout.ms" = 1` is none; both are meant alike.
fn flatten(table: &Table, path: &str, out: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) => flatten(table, &path, out),
            value => out.push((path, value.clone())),
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_refused_by_name_is_a_property_of_librdkafka() {
        let unknown = |name: &&str| {
            let set = ClientConfig::new().set(*name, "x").create_native_config();
            matches!(set, Err(KafkaError::ClientConfig(_, why, _, _)) if why.starts_with("No such configuration property"))
        };
        let names = REFUSED.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('*'));
        // One that is not is a slip of the pen here, or has gone with another version.
        assert_eq!(names.filter(unknown).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn stars_stand_for_all_that_begins_so() {
        assert!(matches!(refusal("test.mock.num.brokers"), Some(Never(_))));
        assert!(matches!(refusal("sasl.oauthbearer.client.secret"), Some(Never(_))));
        assert!(matches!(refusal("sasl.password"), Some(Secret(_))));
        assert!(refusal("socket.keepalive.enable").is_none());
    }
}
