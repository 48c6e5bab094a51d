//! What can go wrong with a cluster, in words that name the option and the cure.

use rdkafka::error::{KafkaError as Native, RDKafkaErrorCode as Code};

use super::native::Refusal;
use super::rules::{Finding, list};
use super::watch::Trouble;
use crate::config::KafkaConfig;

/// A cluster that does not do what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// Nobody answers.
    #[error("no broker of `kafka.brokers` ({brokers}) answers: {reason}")]
    Unreachable {
        /// As configured.
        brokers: String,
        /// What happened, and what to look at.
        reason: String,
    },
    /// A broker's certificate, or ours, is not good.
    #[error("{broker} cannot be trusted: {reason}")]
    Certificate {
        /// Which.
        broker: String,
        /// What is wrong with it, and the cure.
        reason: String,
    },
    /// The port speaks another protocol.
    #[error("`kafka.security` is `{security}`, but {broker} {reason}")]
    Protocol {
        /// As configured.
        security: &'static str,
        /// Which.
        broker: String,
        /// What it does, and the cure.
        reason: String,
    },
    /// Name, password or the way of proving it are wrong.
    #[error("{broker} lets nobody in as `{username}`: {reason}")]
    Login {
        /// Which.
        broker: String,
        /// As configured.
        username: String,
        /// Its words, and the cure.
        reason: String,
    },
    /// The user may not do this.
    #[error("{what}: {who} may not do that ({reason}): {cure}")]
    NotAuthorised {
        /// What was tried.
        what: String,
        /// Who we are to the brokers.
        who: String,
        /// The broker's words.
        reason: String,
        /// What to grant.
        cure: String,
    },
    /// A record's time is not what the broker takes for possible.
    #[error(
        "{what}: the broker does not take the time of a record ({reason}): set the clocks of this machine and of the brokers, such as by NTP"
    )]
    Clock {
        /// What was tried.
        what: String,
        /// The broker's words.
        reason: String,
    },
    /// A topic is not there, and may not be created.
    #[error("topic `{topic}` is not there: {cure}")]
    Missing {
        /// Its name.
        topic: String,
        /// What to do.
        cure: String,
    },
    /// Topics are not as they must be: all that is wrong with them, never empty.
    #[error("{}", list(.0))]
    Topics(Vec<Finding>),
    /// librdkafka takes the config for wrong.
    #[error("the client cannot be made: {0}")]
    Client(String),
    /// It did not work this time.
    #[error("{what}: {reason}")]
    Retry {
        /// What was tried.
        what: String,
        /// Why it did not work.
        reason: String,
    },
    /// Doing it again gives the same answer.
    #[error("{what}: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// The broker's words, and the cure.
        reason: String,
    },
}

impl KafkaError {
    /// Whether the same may succeed later without anybody doing something about it.
    pub fn is_retryable(&self) -> bool {
        match self {
            // That it is the protocol is a guess: a broker that stops hangs up, too.
            KafkaError::Unreachable { .. } | KafkaError::Protocol { .. } | KafkaError::Retry { .. } => true,
            KafkaError::Certificate { .. }
            | KafkaError::Login { .. }
            | KafkaError::NotAuthorised { .. }
            | KafkaError::Clock { .. }
            | KafkaError::Missing { .. }
            | KafkaError::Topics(_)
            | KafkaError::Client(_)
            | KafkaError::Refused { .. } => false,
        }
    }

    /// Why no broker took a record of that topic.
    pub fn of_record(error: &Native, topic: &str, config: &KafkaConfig) -> KafkaError {
        let what = format!("write to topic `{topic}`");
        match error.rdkafka_error_code() {
            Some(code) => {
                let refusal = Refusal { code, text: String::new() };
                KafkaError::of_refusal(what, &refusal, None, config, &writes(&format!("topic `{topic}`")))
            }
            None => KafkaError::Retry { what, reason: error.to_string() },
        }
    }

    /// Why a producer is of no use any more, in librdkafka's words.
    pub fn of_producer(code: Code, text: String, config: &KafkaConfig) -> KafkaError {
        let what = format!("the producer cannot go on ({code})");
        let refusal = Refusal { code, text };
        let cure = writes(&format!("topics that begin with `{}`", config.topic_prefix));
        KafkaError::of_refusal(what, &refusal, None, config, &cure)
    }

    /// Why a partition of that topic cannot be read.
    pub fn of_reading(code: Code, partition: u32, topic: &str, trouble: Option<&Trouble>, config: &KafkaConfig) -> KafkaError {
        let (what, cure) = (format!("read partition {partition} of topic `{topic}`"), format!("grant Read on topic `{topic}`"));
        KafkaError::of_refusal(what, &Refusal { code, text: String::new() }, trouble, config, &cure)
    }

    /// Why the group does not let us take part.
    pub fn of_group(error: &Native, trouble: Option<&Trouble>, config: &KafkaConfig) -> KafkaError {
        let (group, prefix) = (&config.group, &config.topic_prefix);
        let what = format!("take part in group `{group}` (`kafka.group`)");
        let Some(code) = error.rdkafka_error_code() else { return KafkaError::Retry { what, reason: error.to_string() } };
        let cure = match code {
            Code::TopicAuthorizationFailed => format!("grant Read on topics that begin with `{prefix}`"),
            Code::InconsistentGroupProtocol => {
                return KafkaError::Retry {
                    what,
                    reason: "another program is in this group: choose another `kafka.group`".into(),
                };
            }
            _ => format!("grant Read on group `{group}`"),
        };
        KafkaError::of_refusal(what, &Refusal { code, text: String::new() }, trouble, config, &cure)
    }

    /// Why no client could be made.
    pub fn of_creation(error: &Native, config: &KafkaConfig) -> KafkaError {
        let text = match error {
            Native::ClientCreation(text) => text.clone(),
            Native::ClientConfig(_, text, _, _) => text.clone(),
            other => other.to_string(),
        };
        let tls = config.tls.as_ref();
        let identity = tls.and_then(|tls| tls.identity.as_ref());
        let cure = if text.contains("ssl.ca.location") {
            let file = tls.and_then(|tls| tls.ca_file.as_ref()).map_or_else(String::new, |file| format!(" ({})", file.display()));
            format!("look at `kafka.ca_file`{file}: it must hold certificates in PEM")
        } else if text.contains("ssl.key") || text.contains("Private key check") {
            let file = identity.map_or_else(String::new, |identity| format!(" ({})", identity.key_file.display()));
            format!(
                "look at `kafka.key_file`{file}: it must be the key of `kafka.certificate_file`, and `kafka.key_password_file` its password"
            )
        } else if text.contains("ssl.certificate") {
            let file = identity.map_or_else(String::new, |identity| format!(" ({})", identity.certificate_file.display()));
            format!(
                "look at `kafka.certificate_file`{file}: it must hold a certificate in PEM, and those between it and its authority"
            )
        } else {
            let named = config.properties.iter().filter(|(name, _)| text.contains(name.as_str()));
            let named: Vec<_> = named.map(|(name, value)| format!("`kafka.properties.{name}` (`{value}`)")).collect();
            let named = if named.is_empty() { "`[kafka]`".into() } else { named.join(", ") };
            format!("look at {named}")
        };
        KafkaError::Client(format!("{text}; {cure}"))
    }

    /// Why no answer has come, as far as the last trouble tells.
    pub fn of_trouble(trouble: Option<&Trouble>, config: &KafkaConfig) -> KafkaError {
        let brokers = config.brokers.join(", ");
        let Some(trouble) = trouble.filter(|trouble| trouble.code != Code::AllBrokersDown) else {
            let reason = "there was no answer in time: look whether the cluster runs and whether a firewall is between".into();
            return KafkaError::Unreachable { brokers, reason };
        };
        let (broker, text) = broker_and_text(&trouble.text);
        let text = text.to_string();
        match trouble.code {
            Code::SSL => of_certificate(broker, text, trouble.certificate, config),
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
                of_login(broker, text, config)
            }
            Code::Resolve => {
                let reason = format!("{text}: look at the name and at this machine's DNS");
                KafkaError::Unreachable { brokers, reason }
            }
            _ if says(&text, &["SSL alert", "SSL routines"]) => of_certificate(broker, text, None, config),
            _ if says(&text, &["SSL listener?", "PLAINTEXT broker listener?", "require SASL"]) => {
                of_protocol(broker, text, config)
            }
            _ => match hangs_up(&trouble.text) {
                Some(HangsUp::OnTheVersion) if config.tls.is_none() => of_protocol(broker, text, config),
                // Whom it has told its version it wants to know.
                Some(_) if config.sasl.is_none() => of_protocol(broker, format!("{text}: broker might require SASL"), config),
                Some(_) | None => {
                    let reason = format!(
                        "{text}: look at addresses and ports, whether the cluster runs, and whether a firewall is between"
                    );
                    KafkaError::Unreachable { brokers, reason }
                }
            },
        }
    }

    /// Why something was refused, or not answered. `cure` says what the user must be granted for it.
    pub(super) fn of_refusal(
        what: String,
        refusal: &Refusal,
        trouble: Option<&Trouble>,
        config: &KafkaConfig,
        cure: &str,
    ) -> KafkaError {
        let text = refusal.text.trim_end_matches('.');
        let reason = if text.is_empty() { refusal.code.to_string() } else { text.into() };
        match refusal.code {
            Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve => match trouble {
                Some(_) => KafkaError::of_trouble(trouble, config),
                None => KafkaError::Retry { what, reason: format!("no answer in time ({reason})") },
            },
            Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => KafkaError::of_trouble(trouble, config),
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::GroupAuthorizationFailed => {
                KafkaError::NotAuthorised { what, who: user(config), reason, cure: cure.into() }
            }
            Code::InvalidTimestamp => KafkaError::Clock { what, reason },
            Code::InvalidReplicationFactor
            | Code::InvalidPartitions
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::InvalidRequest
            | Code::InvalidArgument
            | Code::InvalidTopic
            | Code::UnsupportedVersion
            | Code::UnsupportedFeature => KafkaError::Refused { what, reason },
            _ => KafkaError::Retry { what, reason },
        }
    }
}

/// Who we are to the brokers.
pub fn user(config: &KafkaConfig) -> String {
    match (&config.sasl, &config.tls) {
        (Some(sasl), _) => format!("user `{}`", sasl.username),
        (None, Some(tls)) if tls.identity.is_some() => "the holder of `kafka.certificate_file`".into(),
        (None, _) => "user `ANONYMOUS` (nobody logs in)".into(),
    }
}

/// What a producer needs.
fn writes(on: &str) -> String {
    format!("grant Write on {on}, and IdempotentWrite on the cluster where that is not enough")
}

fn says(text: &str, any: &[&str]) -> bool {
    any.iter().any(|part| text.contains(part))
}

/// How a broker answers what it does not expect: it says nothing and ends the connection.
enum HangsUp {
    /// On the first request of all, which asks for its version.
    OnTheVersion,
    /// On the next.
    OnTheNext,
}

fn hangs_up(text: &str) -> Option<HangsUp> {
    let (_, state) = text.split_once(" (after ").filter(|_| text.contains("Disconnected"))?;
    let (millis, state) = state.split_once("ms in state ")?;
    let at_once = millis.parse::<u32>().is_ok_and(|millis| millis < 2000);
    match state {
        state if state.starts_with("APIVERSION_QUERY") => Some(HangsUp::OnTheVersion),
        state if state.starts_with("UP") && at_once => Some(HangsUp::OnTheNext),
        _ => None,
    }
}

/// `sasl_ssl://host:9092/bootstrap: text (after 1ms in state CONNECT)` to host and text.
fn broker_and_text(text: &str) -> (String, &str) {
    let text = text.rfind(" (after ").map_or(text, |end| &text[..end]).trim_end_matches('.');
    match text.split_once(": ") {
        Some((broker, rest)) => {
            let address = broker.rsplit_once("://").map_or(broker, |(_, address)| address);
            (address.split('/').next().unwrap_or(address).into(), rest)
        }
        None => ("a broker".into(), text),
    }
}

fn of_certificate(broker: String, text: String, verdict: Option<i32>, config: &KafkaConfig) -> KafkaError {
    if says(&text, &["wrong version number", "packet length too long", "record layer failure", "http request"]) {
        return of_protocol(broker, text, config);
    }
    let tls = config.tls.clone().unwrap_or_default();
    let trusted = match &tls.ca_file {
        Some(file) => format!("`kafka.ca_file` ({})", file.display()),
        None => "the authorities that this system trusts, as there is no `kafka.ca_file`".into(),
    };
    let signer = format!("{trusted}; write the certificate of who signs the brokers' to a file and name that as `kafka.ca_file`");
    let reason = match verdict {
        Some(NOT_YET_VALID) => format!(
            "its certificate is not valid yet; set the clock of this machine, which shows {}, or have another made",
            jiff::Timestamp::now().strftime("%F %T UTC")
        ),
        Some(EXPIRED) => format!(
            "its certificate has expired; have another made, or set the clock of this machine, which shows {}",
            jiff::Timestamp::now().strftime("%F %T UTC")
        ),
        Some(OTHER_HOST | OTHER_ADDRESS) => "its certificate is for another name; write the name that stands in it in \
             `kafka.brokers` (and in the brokers' `advertised.listeners`), or have one made for this name"
            .into(),
        Some(SELF_SIGNED) => format!("its certificate is signed by itself, and not in {signer}"),
        Some(SELF_SIGNED_IN_CHAIN | NO_ISSUER | NO_ISSUER_LOCALLY | NO_LEAF_SIGNATURE) => {
            format!("its certificate is signed by nobody in {signer}")
        }
        Some(other) => {
            format!("its certificate is not good (OpenSSL's code {other}, see X509_STORE_CTX_get_error): have another made")
        }
        None if says(&text, &["alert", "handshake failure", "unexpected message", "certificate required"]) => {
            let ours = match &tls.identity {
                Some(identity) => {
                    format!("does not take our certificate, `kafka.certificate_file` ({})", identity.certificate_file.display())
                }
                None => {
                    "wants to see a certificate: name one as `kafka.certificate_file`, and its key as `kafka.key_file`".into()
                }
            };
            format!("it {ours}, or has no protocol or cipher in common with us: {text}")
        }
        None => format!("{text}; it is expected to be signed by one of {trusted}"),
    };
    KafkaError::Certificate { broker, reason }
}

/// Of OpenSSL's `X509_V_ERR_...`.
const NO_ISSUER: i32 = 2;
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const SELF_SIGNED: i32 = 18;
const SELF_SIGNED_IN_CHAIN: i32 = 19;
const NO_ISSUER_LOCALLY: i32 = 20;
const NO_LEAF_SIGNATURE: i32 = 21;
const OTHER_HOST: i32 = 62;
const OTHER_ADDRESS: i32 = 64;

fn of_protocol(broker: String, text: String, config: &KafkaConfig) -> KafkaError {
    let (with_tls, with_login) = (config.tls.is_some(), config.sasl.is_some());
    let asks_for_login = text.contains("require SASL");
    let (what, other) = match (with_tls, with_login) {
        (_, false) if asks_for_login => ("seems to want a login", if with_tls { "sasl_ssl" } else { "sasl_plaintext" }),
        (false, false) => ("does not understand that; it may expect TLS", "ssl` or `sasl_ssl"),
        (false, true) => ("does not understand that; it may expect TLS", "sasl_ssl"),
        (true, false) => ("does not answer with TLS", "plaintext"),
        (true, true) => ("does not answer with TLS", "sasl_plaintext"),
    };
    let reason = format!("{what} ({text}); write `{other}`, or name another port in `kafka.brokers`");
    KafkaError::Protocol { security: config.security(), broker, reason }
}

fn of_login(broker: String, text: String, config: &KafkaConfig) -> KafkaError {
    let Some(sasl) = &config.sasl else { return of_protocol(broker, text, config) };
    let cure = if says(&text, &["supported mechanisms", "Unsupported SASL mechanism"]) {
        format!("`kafka.sasl_mechanism` is `{}`; write one that it supports", sasl.mechanism.name())
    } else {
        "look at `kafka.username` and at the password (`kafka.password_file` or `kafka.password_env`)".into()
    };
    KafkaError::Login { broker, username: sasl.username.clone(), reason: format!("{text}; {cure}") }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::client::tests::config;
    use super::*;
    use crate::config::{Mechanism, SaslConfig, Secret, TlsConfig};

    fn trouble(code: Code, text: &str, certificate: Option<i32>) -> Trouble {
        Trouble { code, text: text.into(), certificate, since: Instant::now() }
    }

    fn tls() -> KafkaConfig {
        KafkaConfig { tls: Some(TlsConfig { ca_file: Some("/ca.pem".into()), identity: None }), ..config(&["k:1"]) }
    }

    fn login() -> KafkaConfig {
        let sasl = SaslConfig { mechanism: Mechanism::Plain, username: "app".into(), password: Secret::new("c0ffee") };
        KafkaConfig { sasl: Some(sasl), ..tls() }
    }

    #[test]
    fn each_trouble_names_the_option_and_the_cure() {
        let handshake = "ssl://k:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed:";
        for (config, trouble, retry, parts) in [
            (config(&["k:1"]), None, true, &["`kafka.brokers` (k:1)", "no answer in time", "firewall"][..]),
            (
                config(&["k:1"]),
                Some(trouble(Code::BrokerTransportFailure, "k:1/bootstrap: Connect failed: Connection refused", None)),
                true,
                &["`kafka.brokers` (k:1)", "Connection refused", "ports"],
            ),
            (config(&["k:1"]), Some(trouble(Code::Resolve, "k:1/bootstrap: Name or service not known", None)), true, &["DNS"]),
            (
                tls(),
                Some(trouble(Code::SSL, handshake, Some(19))),
                false,
                &["k:1 cannot be trusted", "signed by nobody in `kafka.ca_file` (/ca.pem)"],
            ),
            (
                tls(),
                Some(trouble(Code::SSL, handshake, Some(10))),
                false,
                &["has expired", "clock of this machine, which shows 2"],
            ),
            (tls(), Some(trouble(Code::SSL, handshake, Some(9))), false, &["not valid yet", "clock"]),
            (tls(), Some(trouble(Code::SSL, handshake, Some(62))), false, &["for another name", "`advertised.listeners`"]),
            (
                tls(),
                Some(trouble(Code::SSL, "ssl://k:1/1: tlsv13 alert certificate required", None)),
                false,
                &["`kafka.certificate_file`", "`kafka.key_file`"],
            ),
            (
                tls(),
                Some(trouble(Code::SSL, "ssl://k:1/bootstrap: wrong version number", None)),
                true,
                &["`kafka.security` is `ssl`", "write `plaintext`"],
            ),
            (
                login(),
                Some(trouble(
                    Code::Authentication,
                    "sasl_ssl://k:1/bootstrap: SASL authentication error: invalid credentials",
                    None,
                )),
                false,
                &["k:1 lets nobody in as `app`", "invalid credentials", "`kafka.password_file`"],
            ),
            (
                login(),
                Some(trouble(
                    Code::Authentication,
                    "sasl_ssl://k:1/bootstrap: SASL PLAIN mechanism handshake failed: supported mechanisms: X",
                    None,
                )),
                false,
                &["`kafka.sasl_mechanism` is `PLAIN`", "mechanisms: X"],
            ),
            (
                config(&["k:1"]),
                Some(trouble(
                    Code::BrokerTransportFailure,
                    "k:1/bootstrap: Disconnected: connection closed by peer (after 1ms in state APIVERSION_QUERY)",
                    None,
                )),
                true,
                &["`kafka.security` is `plaintext`, but k:1", "may expect TLS", "write `ssl` or `sasl_ssl`"],
            ),
            (
                tls(),
                Some(trouble(Code::BrokerTransportFailure, "ssl://k:1/bootstrap: Disconnected (after 12ms in state UP)", None)),
                true,
                &["`kafka.security` is `ssl`, but k:1", "want a login", "write `sasl_ssl`"],
            ),
            (
                login(),
                Some(trouble(Code::BrokerTransportFailure, "ssl://k:1/1: Disconnected (after 600000ms in state UP)", None)),
                true,
                &["no broker", "Disconnected:"],
            ),
            (config(&["k:1"]), Some(trouble(Code::AllBrokersDown, "1/1 brokers are down", None)), true, &["no answer in time"]),
        ] {
            let error = KafkaError::of_trouble(trouble.as_ref(), &config);
            let text = error.to_string();
            assert_eq!(error.is_retryable(), retry, "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}\nlacks some of {parts:?}");
            assert!(!text.contains("c0ffee"), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_who_must_act() {
        let of = |code, text: &str| {
            let refusal = Refusal { code, text: text.into() };
            KafkaError::of_refusal("create topic `t`".into(), &refusal, None, &login(), "grant Create")
        };
        let text = of(Code::TopicAuthorizationFailed, "Authorization failed.").to_string();
        assert_eq!(text, "create topic `t`: user `app` may not do that (Authorization failed): grant Create");
        assert!(matches!(of(Code::PolicyViolation, "x"), KafkaError::Refused { .. }));
        assert!(matches!(of(Code::InvalidTimestamp, "x"), KafkaError::Clock { .. }));
        assert!(of(Code::NotController, "x").is_retryable());
        assert!(of(Code::OperationTimedOut, "").is_retryable());
    }

    #[test]
    fn what_is_missing_is_named_as_the_owner_of_the_cluster_grants_it() {
        let group = |code| KafkaError::of_group(&Native::MessageConsumption(code), None, &login()).to_string();
        assert!(group(Code::GroupAuthorizationFailed).ends_with("grant Read on group `tickmint`"));
        assert!(group(Code::TopicAuthorizationFailed).ends_with("grant Read on topics that begin with `tickmint.`"));
        let record = |code| KafkaError::of_record(&Native::MessageProduction(code), "tickmint.trades", &login()).to_string();
        assert!(record(Code::TopicAuthorizationFailed).contains("user `app` may not do that"));
        assert!(record(Code::TopicAuthorizationFailed).contains("grant Write on topic `tickmint.trades`"));
        let producer = |code| KafkaError::of_producer(code, "no".into(), &login()).to_string();
        assert!(producer(Code::ClusterAuthorizationFailed).contains("IdempotentWrite on the cluster"));
        assert!(!producer(Code::OutOfOrderSequenceNumber).contains("grant"));
    }
}
