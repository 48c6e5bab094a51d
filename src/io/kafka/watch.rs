//! What librdkafka says of itself: log lines, errors, how long brokers make it wait.
//!
//! It tries again for ever and by itself, so an error is no answer to anybody; but when an answer does not
//! come, the last errors say why. A broker that is down is told of many times a second: a line that repeats
//! is logged once a minute, with how often it came meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::statistics::Statistics;

/// A line that is the same but for its numbers is logged once in so long.
const REPEAT: Duration = Duration::from_secs(60);
/// So many different lines are remembered; after that, all are new again.
const REMEMBERED: usize = 256;

/// So long after the last wait for a quota the next one is expected.
const THROTTLED: Duration = Duration::from_secs(60);

/// Something that went wrong on the way to a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What librdkafka calls it.
    pub code: Code,
    /// Its words, which begin with the broker's address.
    pub text: String,
    /// OpenSSL's verdict on the broker's certificate, if that was it.
    pub certificate: Option<i32>,
    /// When it was first so, since when it was last well.
    pub since: Instant,
}

/// The last statistics in which brokers made us wait, because we did more than our quota allows.
#[derive(Clone, Copy)]
struct Throttled {
    /// The longest wait among them.
    wait: Duration,
    heard: Instant,
}

/// Listens to one client. A clone listens to the same.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

struct Shared {
    /// Whose words these are, in log lines: `producer`, `reader`...
    client: &'static str,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// The newest of each kind, since when it was last well.
    troubles: Vec<Trouble>,
    /// OpenSSL's last verdict, by broker, until the error of that connection follows.
    verdicts: HashMap<String, i32>,
    throttled: Option<Throttled>,
    lines: HashMap<String, Line>,
}

struct Line {
    logged: Instant,
    unlogged: u64,
}

impl Watch {
    /// For the client of that name.
    pub fn new(client: &'static str) -> Watch {
        Watch(Arc::new(Shared { client, heard: Mutex::default() }))
    }

    /// Why nothing goes on, if it does not: the trouble that says the most since it was last well. There may be
    /// one while all goes on, as brokers close connections that are idle.
    pub fn trouble(&self) -> Option<Trouble> {
        self.heard().troubles.iter().max_by_key(|trouble| (weight(trouble.code), trouble.since)).cloned()
    }

    /// Since when some broker has been refusing us in a way that trying again does not change.
    pub fn hopeless_since(&self) -> Option<Instant> {
        let heard = self.heard();
        let hopeless = heard.troubles.iter().filter(|trouble| weight(trouble.code) >= HOPELESS);
        hopeless.map(|trouble| trouble.since).min()
    }

    /// An answer has come, or an acknowledgement, or a record: what was wrong before does not count any more. Who
    /// uses the client says so.
    pub fn forget_troubles(&self) {
        let mut heard = self.heard();
        heard.troubles.clear();
        heard.verdicts.clear();
    }

    /// How long brokers make us wait for an answer as we do more than a quota allows, if they do. One wait may take many
    /// times as long as it is between two statistics, and only the answer before it tells of it.
    pub fn throttled(&self) -> Option<Duration> {
        let Throttled { wait, heard } = self.heard().throttled?;
        (heard.elapsed() < THROTTLED.max(2 * wait)).then_some(wait)
    }

    /// A log line, by its syslog level.
    pub(super) fn hear_line(&self, level: i32, facility: &str, line: &str) {
        let (client, line) = (self.0.client, without_thread(line));
        // Of a broker that hangs up there is no error, even if that is how it answers another protocol.
        if facility == "FAIL" && level > 3 {
            self.hear_error(Code::BrokerTransportFailure, line);
        }
        let Some(repeats) = self.heard().is_due(facility, line, Instant::now()) else { return };
        match level_of(level, facility, line) {
            tracing::Level::ERROR => tracing::error!(client, facility, repeats, "librdkafka: {line}"),
            tracing::Level::WARN => tracing::warn!(client, facility, repeats, "librdkafka: {line}"),
            tracing::Level::INFO => tracing::info!(client, facility, repeats, "librdkafka: {line}"),
            _ => tracing::debug!(client, facility, repeats, "librdkafka: {line}"),
        }
    }

    /// An error that librdkafka goes on after.
    pub(super) fn hear_error(&self, code: Code, text: &str) {
        let mut heard = self.heard();
        let certificate = match code {
            Code::SSL => heard.verdicts.iter().find(|(broker, _)| text.contains(broker.as_str())).map(|(_, verdict)| *verdict),
            _ => None,
        };
        let known = heard.troubles.iter().position(|trouble| trouble.code == code).map(|at| heard.troubles.swap_remove(at));
        let since = known.map_or_else(Instant::now, |known| known.since);
        heard.troubles.push(Trouble { code, text: text.into(), certificate, since });
    }

    /// OpenSSL's verdict on a certificate of that broker; the error of the connection follows.
    pub(super) fn hear_certificate(&self, verdict: i32, broker: &str) {
        self.heard().verdicts.insert(broker.into(), verdict);
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.hear_line(level as i32, facility, line);
    }

    fn stats(&self, statistics: Statistics) {
        let waits = statistics.brokers.values().filter_map(|broker| broker.throttle.as_ref());
        let longest = waits.map(|wait| u64::try_from(wait.max).unwrap_or_default()).max().unwrap_or_default();
        if longest > 0 {
            self.heard().throttled = Some(Throttled { wait: Duration::from_millis(longest), heard: Instant::now() });
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // It is among the log lines, too.
        self.hear_error(error.rdkafka_error_code().unwrap_or(Code::Unknown), reason);
    }
}

/// Lets a context that does more than watch hand what librdkafka says to its field `watch`.
macro_rules! watched {
    ($context:ty) => {
        impl rdkafka::client::ClientContext for $context {
            fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
                self.watch.log(level, facility, line);
            }

            fn stats(&self, statistics: rdkafka::statistics::Statistics) {
                self.watch.stats(statistics);
            }

            fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
                self.watch.error(error, reason);
            }
        }
    };
}
pub(crate) use watched;

/// For a consumer that is told its partitions. One that joins the group needs a context of its own, which asks the
/// chain where each of them goes on: without that it would go on where the group has committed.
impl ConsumerContext for Watch {}

impl Heard {
    /// Whether a line is to be logged now, and how often it came since it last was.
    fn is_due(&mut self, facility: &str, line: &str, now: Instant) -> Option<u64> {
        // Its numbers are times, counts and ports of our own: they say nothing new, as little as how long it took.
        let says = line.rfind(" (after ").map_or(line, |end| &line[..end]);
        let key: String = facility.chars().chain(says.chars()).filter(|c| !c.is_ascii_digit()).collect();
        if let Some(line) = self.lines.get_mut(&key) {
            if now.duration_since(line.logged) < REPEAT {
                line.unlogged += 1;
                return None;
            }
            line.logged = now;
            return Some(std::mem::take(&mut line.unlogged));
        }
        if self.lines.len() >= REMEMBERED {
            self.lines.clear();
        }
        self.lines.insert(key, Line { logged: now, unlogged: 0 });
        Some(0)
    }
}

/// From here on, trying again does not help.
const HOPELESS: u8 = 3;

/// How much an error says.
fn weight(code: Code) -> u8 {
    match code {
        Code::SaslAuthenticationFailed | Code::Authentication | Code::UnsupportedSASLMechanism => 5,
        Code::SSL => 4,
        // Nothing can be sent any more by this client.
        Code::Fatal => HOPELESS,
        Code::BrokerTransportFailure | Code::Resolve => 2,
        // Says that of all of them the last attempt has failed, not how.
        Code::AllBrokersDown => 0,
        _ => 1,
    }
}

/// For people: an error of a connection is none of ours, since it is tried again; whether somebody must act is
/// told by the alarm on what does not go on.
fn level_of(level: i32, facility: &str, line: &str) -> tracing::Level {
    match level {
        // One config serves producers and consumers.
        _ if facility == "CONFWARN" && line.contains("will be ignored by this") => tracing::Level::DEBUG,
        ..=2 => tracing::Level::ERROR,
        3 | 4 => tracing::Level::WARN,
        5 | 6 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    }
}

/// `[thrd:127.0.0.1:9092/bootstrap]: text` to `text`, which names the broker once more.
fn without_thread(line: &str) -> &str {
    line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trouble_that_says_most_is_told_until_an_answer_comes() {
        let watch = Watch::new("test");
        assert_eq!((watch.trouble(), watch.hopeless_since()), (None, None));
        watch.hear_error(Code::BrokerTransportFailure, "a:1/bootstrap: Connection refused");
        assert_eq!(watch.hopeless_since(), None, "a broker may come back");
        watch.hear_error(Code::Authentication, "b:1/bootstrap: invalid credentials");
        watch.hear_error(Code::AllBrokersDown, "2/2 brokers are down");
        assert_eq!(watch.trouble().unwrap().text, "b:1/bootstrap: invalid credentials");
        let since = watch.hopeless_since().unwrap();
        watch.hear_error(Code::Authentication, "c:1/bootstrap: invalid credentials");
        assert_eq!(watch.hopeless_since(), Some(since), "the same once more is not new");
        watch.forget_troubles();
        assert_eq!((watch.trouble(), watch.hopeless_since()), (None, None));
    }

    #[test]
    fn a_verdict_goes_with_the_error_of_its_broker() {
        let watch = Watch::new("test");
        watch.hear_certificate(10, "a:1");
        watch.hear_error(Code::SSL, "ssl://b:1/bootstrap: SSL handshake failed");
        assert_eq!(watch.trouble().unwrap().certificate, None);
        watch.hear_error(Code::SSL, "ssl://a:1/bootstrap: SSL handshake failed");
        assert_eq!(watch.trouble().unwrap().certificate, Some(10));
    }

    #[test]
    fn a_line_that_repeats_is_logged_once_a_minute_with_how_often_it_came() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let mut is_due = |line: &str, after: u64| heard.is_due("FAIL", line, start + Duration::from_secs(after));
        assert_eq!(is_due("a: refused (after 1ms in state CONNECT)", 0), Some(0));
        assert_eq!(is_due("a: refused (after 2ms in state CONNECT, 1 identical error(s) suppressed)", 1), None);
        assert_eq!(is_due("a: refused (after 30ms in state CONNECT)", 59), None);
        assert_eq!(is_due("b: refused (after 1ms in state CONNECT)", 59), Some(0));
        assert_eq!(is_due("a: refused (after 4ms in state CONNECT)", 60), Some(2));
        assert_eq!(is_due("a: refused (after 4ms in state CONNECT)", 61), None);
        for n in 0..10_000 {
            let name: String = format!("{n}").chars().map(|digit| (digit as u8 + 60) as char).collect();
            is_due(&name, 62);
        }
        assert!(heard.lines.len() <= REMEMBERED, "a cluster of any size needs no more memory");
    }

    #[test]
    fn statistics_tell_of_quotas() {
        let watch = Watch::new("test");
        let stats = |wait: i64| {
            let window = serde_json::json!({
                "min": 0, "max": wait, "avg": 0, "sum": 0, "cnt": 1, "stddev": 0, "hdrsize": 0, "p50": 0, "p75": 0, "p90": 0,
                "p95": 0, "p99": 0, "p99_99": 0, "outofrange": 0
            });
            let broker = rdkafka::statistics::Broker { throttle: serde_json::from_value(window).unwrap(), ..Default::default() };
            Statistics { brokers: [("a".to_string(), broker)].into(), ..Default::default() }
        };
        watch.stats(stats(0));
        assert_eq!(watch.throttled(), None);
        for wait in [250, 0] {
            watch.stats(stats(wait));
            assert_eq!(watch.throttled(), Some(Duration::from_millis(250)));
        }
        let heard = |ago| Instant::now().checked_sub(Duration::from_secs(ago)).unwrap();
        let after = |wait, ago| {
            watch.heard().throttled = Some(Throttled { wait: Duration::from_secs(wait), heard: heard(ago) });
            watch.throttled().is_some()
        };
        assert!(!after(1, 61), "it has kept below its quota for a minute");
        assert!(after(40, 61) && !after(40, 81), "the answer that would tell of the next wait is waited for");
    }

    #[test]
    fn lines_keep_what_says_something() {
        assert_eq!(without_thread("[thrd:a:1/bootstrap]: a:1/bootstrap: refused"), "a:1/bootstrap: refused");
        assert_eq!(without_thread("refused"), "refused");
        let ignored = "Configuration property acks is a producer property and will be ignored by this consumer instance";
        assert_eq!(level_of(4, "CONFWARN", ignored), tracing::Level::DEBUG);
        assert_eq!(level_of(4, "CONFWARN", "something else"), tracing::Level::WARN);
        assert_eq!(level_of(3, "FAIL", "refused"), tracing::Level::WARN);
    }
}
