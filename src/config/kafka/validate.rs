//! From [`KafkaSettings`] to [`KafkaConfig`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Compression, KafkaConfig, KafkaSettings, Mechanism, RegistryConfig, RegistrySettings, SaslConfig, TlsConfig, TlsIdentity,
    longest_record,
};
use crate::config::check::{Check, LONG, MIB, Needs, SHORT};
use crate::config::settings::Settings;
use crate::config::{Roles, Secret, units};
use crate::domain::stream::Stream;
use crate::wire::Format;

const FORMATS: &[(&str, Format)] = &[("json", Format::Json), ("avro", Format::Avro)];
const COMPRESSIONS: &[(&str, Compression)] = &[
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
    ("snappy", Compression::Snappy),
    ("gzip", Compression::Gzip),
    ("none", Compression::None),
];
const MECHANISMS: &[(&str, Mechanism)] =
    &[("SCRAM-SHA-512", Mechanism::ScramSha512), ("SCRAM-SHA-256", Mechanism::ScramSha256), ("PLAIN", Mechanism::Plain)];
/// Whether there is TLS, and whether somebody logs in.
const SECURITIES: &[(&str, (bool, bool))] =
    &[("plaintext", (false, false)), ("ssl", (true, false)), ("sasl_plaintext", (false, true)), ("sasl_ssl", (true, true))];

/// Each partition is a chain of its own, with a writer and requests of its own.
const MOST_PARTITIONS: u32 = 1000;
/// What Kafka allows a topic's name.
const LONGEST_TOPIC: usize = 249;
/// A broker takes no request above 100 MiB (`socket.request.max.bytes`).
const LONGEST_RECORD: usize = 96 << 20;
/// The shortest retention that leaves time for an outage of Bronze to be noticed.
const SHORTEST_RETENTION: Duration = Duration::from_secs(3600);
/// A group waits up to 5 minutes for a member (`max.poll.interval.ms`) that gives partitions back.
const LONGEST_DRAIN: Duration = Duration::from_secs(120);

impl Check<'_> {
    /// The cluster, if there is one. `max_frame_bytes` may be wrong, which has been told then.
    pub(in crate::config) fn kafka(&mut self, settings: &Settings, roles: Roles, max_frame_bytes: usize) -> Option<KafkaConfig> {
        let kafka = settings.kafka.as_ref()?;
        // Who neither sends nor archives has no need of the cluster, nor perhaps its secrets.
        let connects = match self.needs {
            Needs::Nothing => false,
            Needs::Cluster => true,
            Needs::Roles => roles.use_kafka(),
        };
        let format = self.choice("kafka.format", &kafka.format, FORMATS);
        self.names(kafka);
        self.counts(kafka);
        let (tls, sasl) = self.security(kafka, connects);
        let config = KafkaConfig {
            brokers: self.brokers(&kafka.brokers),
            topic_prefix: kafka.topic_prefix.clone(),
            partitions: kafka.partitions,
            replication_factor: kafka.replication_factor,
            min_insync: kafka.min_insync,
            retention: self.duration("kafka.retention", &kafka.retention, SHORTEST_RETENTION..=*LONG.end()),
            create_topics: kafka.create_topics,
            format,
            compression: self.choice("kafka.compression", &kafka.compression, COMPRESSIONS),
            client_id: kafka.client_id.clone(),
            group: kafka.group.clone(),
            linger: self.duration("kafka.linger", &kafka.linger, Duration::ZERO..=Duration::from_secs(1)),
            buffer: self.bytes("kafka.buffer", &kafka.buffer, MIB..=1 << 40),
            drain_within: self.duration("kafka.drain_within", &kafka.drain_within, SHORT..=LONGEST_DRAIN),
            tls,
            sasl,
            properties: self.properties(kafka.properties.as_ref()),
            registry: kafka.registry.as_ref().map(|registry| self.registry(registry, connects)),
            max_record_bytes: longest_record(format, max_frame_bytes),
        };
        self.fits(settings, kafka, &config);
        Some(config)
    }

    /// What belongs together.
    fn fits(&mut self, settings: &Settings, kafka: &KafkaSettings, config: &KafkaConfig) {
        let most = config.max_record_bytes;
        if most > LONGEST_RECORD {
            let why = format!(
                "must be less with `[kafka]`: one record may then have {} MiB as `kafka.format` {}, and a broker takes no \
                 request of more than {} MiB: write such as `1 MiB`",
                most >> 20,
                kafka.format,
                LONGEST_RECORD >> 20
            );
            self.wrong("feed.max_frame_bytes", &settings.feed.max_frame_bytes.0, &why);
        } else if config.buffer > 0 && config.buffer < most {
            let why = format!(
                "must be at least {} KiB: so long a record may be by `feed.max_frame_bytes` ({}), as `kafka.format` {}",
                most.div_ceil(1 << 10),
                settings.feed.max_frame_bytes,
                kafka.format
            );
            self.wrong("kafka.buffer", &kafka.buffer.0, &why);
        }
        if units::duration(&settings.drain_within.0).is_ok_and(|limit| config.drain_within > limit) {
            self.compare("kafka.drain_within", &kafka.drain_within, "at most", "drain_within", &settings.drain_within);
        }
    }

    fn brokers(&mut self, brokers: &[String]) -> Vec<String> {
        const OPTION: &str = "kafka.brokers";
        if brokers.is_empty() {
            let text = format!("`{OPTION}` is empty: name some, such as `brokers = [\"kafka-1:9092\", \"kafka-2:9092\"]`");
            self.problem(OPTION, text);
        }
        let mut seen = BTreeSet::new();
        for broker in brokers {
            let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
            if broker.contains("://") || broker.contains(',') {
                self.problem(OPTION, format!("`{OPTION}` has `{broker}`: write each as host and port, without a protocol, such as `[\"kafka-1:9092\", \"kafka-2:9092\"]`"));
            } else if host.is_empty() || host.contains(char::is_whitespace) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
                self.problem(
                    OPTION,
                    format!("`{OPTION}` has `{broker}`, which is not a host and a port: write such as `kafka-1:9092`"),
                );
            } else if !seen.insert(broker) {
                self.problem(OPTION, format!("`{OPTION}` has `{broker}` twice: remove one"));
            }
        }
        brokers.to_vec()
    }

    fn names(&mut self, kafka: &KafkaSettings) {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let longest = Stream::ALL.iter().map(|stream| stream.name().len()).max().unwrap_or_default();
        let prefix = &kafka.topic_prefix;
        if !prefix.chars().all(legal) || prefix.len() + longest > LONGEST_TOPIC {
            let why = format!(
                "must be at most {} ASCII letters, digits, `.`, `_` and `-`: write such as `tickmint.`",
                LONGEST_TOPIC - longest
            );
            self.wrong("kafka.topic_prefix", prefix, &why);
        }
        for (option, name) in [("kafka.client_id", &kafka.client_id), ("kafka.group", &kafka.group)] {
            if name.is_empty() || name.len() > LONGEST_TOPIC || !name.chars().all(legal) {
                self.wrong(option, name, "must be ASCII letters, digits, `.`, `_` and `-`: write such as `tickmint`");
            }
        }
    }

    fn counts(&mut self, kafka: &KafkaSettings) {
        let KafkaSettings { partitions, replication_factor: copies, min_insync: least, .. } = *kafka;
        if !(1..=MOST_PARTITIONS).contains(&partitions) {
            let why = format!("must be from 1 to {MOST_PARTITIONS}: 12 is a good number, and can be raised later");
            self.wrong("kafka.partitions", &partitions.to_string(), &why);
        }
        if copies == 0 {
            self.wrong("kafka.replication_factor", "0", "must be at least 1: with 3 a broker may be lost");
        } else if !(1..=copies).contains(&least) {
            let why = format!("must be from 1 to `kafka.replication_factor` ({copies}): with 3 copies write `2`");
            self.wrong("kafka.min_insync", &least.to_string(), &why);
        }
    }

    /// How brokers are reached, and as whom.
    fn security(&mut self, kafka: &KafkaSettings, connects: bool) -> (Option<TlsConfig>, Option<SaslConfig>) {
        let (tls, sasl) = self.choice("kafka.security", &kafka.security, SECURITIES);
        let mechanism = self.choice("kafka.sasl_mechanism", &kafka.sasl_mechanism, MECHANISMS);
        let security = &kafka.security;
        // What does not go with a word that is wrong may go with the one that was meant.
        let is_known = SECURITIES.iter().any(|(name, _)| name.eq_ignore_ascii_case(security));
        let idle = |needed: &str| {
            format!("is set, but `kafka.security` is `{security}`: write `kafka.security = \"{needed}\"`, or remove it")
        };
        let for_sasl = [
            ("username", kafka.username.is_some()),
            ("password_file", kafka.password_file.is_some()),
            ("password_env", kafka.password_env.is_some()),
        ];
        for (name, _) in for_sasl.into_iter().filter(|(_, is_set)| *is_set && is_known && !sasl) {
            self.problem(&format!("kafka.{name}"), format!("`kafka.{name}` {}", idle("sasl_ssl")));
        }
        let for_tls = [
            ("ca_file", kafka.ca_file.is_some()),
            ("certificate_file", kafka.certificate_file.is_some()),
            ("key_file", kafka.key_file.is_some()),
        ];
        for (name, _) in for_tls.into_iter().filter(|(_, is_set)| *is_set && is_known && !tls) {
            let needed = if sasl { "sasl_ssl" } else { "ssl" };
            self.problem(&format!("kafka.{name}"), format!("`kafka.{name}` {}", idle(needed)));
        }
        let tls = tls.then(|| TlsConfig {
            ca_file: kafka.ca_file.as_ref().map(|file| self.pem("kafka.ca_file", file, "CERTIFICATE", connects).0),
            identity: self.identity(kafka, connects),
        });
        let sasl = sasl.then(|| SaslConfig { mechanism, ..self.login(kafka, connects) });
        (tls, sasl)
    }

    fn login(&mut self, kafka: &KafkaSettings, connects: bool) -> SaslConfig {
        let username = kafka.username.clone().unwrap_or_default();
        if username.is_empty() {
            let text = format!("`kafka.username` is not set, but `kafka.security` is `{}`: say who logs in", kafka.security);
            self.problem("kafka.username", text);
        }
        let given = kafka.password_file.is_some() || kafka.password_env.is_some();
        if !given {
            let text = format!(
                "`kafka.security` is `{}`, but there is no password: set `kafka.password_file` or `kafka.password_env`",
                kafka.security
            );
            self.problem("kafka.security", text);
        }
        let password =
            self.secret_if(connects, "kafka", "password", kafka.password_file.as_deref(), kafka.password_env.as_deref());
        SaslConfig { mechanism: Mechanism::Plain, username, password: password.unwrap_or_else(|| Secret::new("")) }
    }

    fn identity(&mut self, kafka: &KafkaSettings, connects: bool) -> Option<TlsIdentity> {
        let (has_password, place) = (kafka.key_password_file.is_some() || kafka.key_password_env.is_some(), "kafka.key_file");
        let (certificate, key) = match (&kafka.certificate_file, &kafka.key_file) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => {
                if has_password {
                    self.problem(
                        place,
                        "`kafka` has a key's password but no `kafka.key_file`: set it, and `kafka.certificate_file`".into(),
                    );
                }
                return None;
            }
            (there, _) => {
                let (there, absent) = match there {
                    Some(_) => ("certificate_file", "key_file"),
                    None => ("key_file", "certificate_file"),
                };
                let text = format!("`kafka.{there}` is set, but `kafka.{absent}` is not: a certificate and its key go together");
                self.problem(&format!("kafka.{there}"), text);
                return None;
            }
        };
        let (certificate_file, _) = self.pem("kafka.certificate_file", certificate, "CERTIFICATE", connects);
        let (key_file, text) = self.pem(place, key, "PRIVATE KEY", connects);
        if text.contains("ENCRYPTED") && !has_password {
            self.wrong(
                place,
                &key.display().to_string(),
                "is encrypted: set `kafka.key_password_file` or `kafka.key_password_env`",
            );
        }
        let (file, env) = (kafka.key_password_file.as_deref(), kafka.key_password_env.as_deref());
        let key_password = self.secret_if(connects, "kafka", "key_password", file, env);
        Some(TlsIdentity { certificate_file, key_file, key_password })
    }

    fn registry(&mut self, registry: &RegistrySettings, connects: bool) -> RegistryConfig {
        let (option, url) = ("kafka.registry.url", &registry.url);
        if url.contains('@') {
            // Not `wrong`, which would show it.
            let cure = "they belong into `kafka.registry.username` and `kafka.registry.password_file`";
            self.problem(option, format!("`{option}` carries a user or a password: {cure}"));
        } else if url.is_empty() {
            self.problem(
                option,
                format!("`{option}` is not set: write such as `http://127.0.0.1:8081`, or remove `[kafka.registry]`"),
            );
        } else {
            self.web_address(option, url, "http://127.0.0.1:8081");
        }
        let password = self.secret_if(
            connects,
            "kafka.registry",
            "password",
            registry.password_file.as_deref(),
            registry.password_env.as_deref(),
        );
        let given = registry.password_file.is_some() || registry.password_env.is_some();
        if registry.username.is_some() != given {
            let (there, absent) = if given { ("a password", "username") } else { ("a `username`", "password_file") };
            let text = format!("`kafka.registry` has {there}, but no `kafka.registry.{absent}`: set both, or neither");
            self.problem("kafka.registry", text);
        }
        let ca_file = registry.ca_file.as_ref().map(|file| self.pem("kafka.registry.ca_file", file, "CERTIFICATE", connects).0);
        RegistryConfig {
            url: url.trim_end_matches('/').into(),
            login: registry.username.clone().zip(password),
            ca_file,
            register: registry.register,
        }
    }

    /// A secret that may be left where it is if nobody is going to use it.
    fn secret_if(&mut self, needed: bool, section: &str, name: &str, file: Option<&Path>, env: Option<&str>) -> Option<Secret> {
        if needed { self.secret(section, name, file, env) } else { (file.is_some() || env.is_some()).then(|| Secret::new("")) }
    }

    /// The path of a file in PEM, and its text.
    fn pem(&mut self, option: &str, file: &Path, kind: &str, connects: bool) -> (PathBuf, String) {
        let path = self.absolute(option, file);
        if !connects {
            return (path, String::new());
        }
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                let why = format!("cannot be read ({error}): give the path of a file in PEM");
                self.wrong(option, &file.display().to_string(), &why);
                return (path, String::new());
            }
        };
        if !text.contains(&format!("{kind}-----")) {
            let why = format!(
                "holds no {} in PEM, which begins with `-----BEGIN`: convert it with `openssl`, or take another file",
                kind.to_lowercase()
            );
            self.wrong(option, &file.display().to_string(), &why);
        }
        (path, text)
    }
}
