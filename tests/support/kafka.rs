//! A real Kafka for tests: one broker, or three, as children of the test, on the loopback.
//!
//! ```text
//! let folder = tempfile::tempdir()?;
//! let Some(mut kafka) = or_skip(Kafka::start(folder.path(), Options { nodes: 3, ..Options::default() })) else { return };
//! let producer = ... kafka.bootstrap() ...;
//! kafka.kill(2);
//! kafka.start_again(2);
//! ```
//!
//! The brokers are those of `scripts/cluster`: same part, same configuration (`scripts/jvm/broker.properties`). Each
//! is a controller too. A start takes a broker 1.5 s of processor time and 170 MiB (200 MiB with TLS). See
//! [`servers`](super::servers) for what happens where Kafka cannot be had, and how everything ends.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine;
use uuid::Uuid;

use super::process::{Process, STARTS};
use super::servers::{Skip, free_ports, is_required, local, part};
use super::toxiproxy::Toxiproxy;

/// Enough for tests' load; with 64 MiB it does not start.
const HEAP: [&str; 2] = ["-Xms192m", "-Xmx192m"];

/// An orderly end takes half a second, of one of three some seconds.
const END_WITHIN: Duration = Duration::from_secs(60);

/// The user of [`Security::SaslSsl`], by SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN. `scripts/parts` makes him.
pub const USER: &str = "app";
/// His password.
pub const PASSWORD: &str = "app-secret";

/// What [`Kafka::secure_bootstrap`] asks of a client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Security {
    /// There is no such port.
    Plaintext,
    /// TLS, and [`USER`] with [`PASSWORD`].
    SaslSsl,
    /// TLS, and a certificate.
    MutualTls,
}

/// What Kafka is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers, 1 or 3. Of three, all have each record, and two must before it is acknowledged.
    pub nodes: usize,
    /// A port of each broker besides the plain one.
    pub security: Security,
    /// Whether each broker has a port too that it makes known as a proxy's: see [`Kafka::behind`].
    pub has_proxy: bool,
    /// Lines for the end of each broker's configuration, which override those before.
    pub properties: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 1, security: Security::Plaintext, has_proxy: false, properties: Vec::new() }
    }
}

/// Running brokers, numbered from 1.
pub struct Kafka {
    binary: PathBuf,
    dir: PathBuf,
    cluster: String,
    options: Options,
    nodes: Vec<Node>,
}

struct Node {
    number: usize,
    plain: u16,
    controller: u16,
    secure: u16,
    /// Where the broker takes connections of a proxy, and where it tells clients that the proxy is.
    proxied: [u16; 2],
    process: Option<Process>,
}

impl Kafka {
    /// Returns when all brokers are ready. Data, configuration and logs (`kafka-1.log`) lie in the folder.
    pub fn start(dir: &Path, options: Options) -> Result<Self, Skip> {
        assert!(matches!(options.nodes, 1 | 3), "one broker or three");
        let binary = part("kafka")?;
        std::fs::create_dir_all(dir).expect("the test's folder can be written");
        let dir = dir.canonicalize().expect("the test's folder is there");
        if options.security != Security::Plaintext {
            certificates(&dir.join("tls"))?;
        }
        // It names the log's incarnation, so no two may have the same.
        let cluster = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Uuid::now_v7());
        let mut kafka = Self { binary, dir, cluster, options, nodes: Vec::new() };
        let mut tries = 1;
        loop {
            kafka.nodes = (1..=kafka.options.nodes).map(Node::new).collect();
            for node in &kafka.nodes {
                kafka.make_data(node).expect("the test's folder can be written");
            }
            match kafka.launch(|_| true) {
                Ok(()) => return Ok(kafka),
                Err(_) if tries < STARTS => tries += 1,
                Err(failure) => panic!("kafka: {failure:#}"),
            }
        }
    }

    /// Host and port of each broker, without TLS.
    pub fn bootstrap(&self) -> String {
        self.addresses(|node| node.plain)
    }

    /// What [`Kafka::secure_bootstrap`] asks of a client.
    pub fn security(&self) -> Security {
        self.options.security
    }

    /// Host and port of each broker for what [`Options::security`] says.
    pub fn secure_bootstrap(&self) -> String {
        assert_ne!(self.options.security, Security::Plaintext, "there is no such port");
        self.addresses(|node| node.secure)
    }

    /// Who signed the brokers' certificate and the client's (PEM).
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("tls/ca.pem")
    }

    /// The client's certificate (PEM).
    pub fn client_certificate(&self) -> PathBuf {
        self.dir.join("tls/client.pem")
    }

    /// The client's key (PEM, without a password).
    pub fn client_key(&self) -> PathBuf {
        self.dir.join("tls/client.key")
    }

    /// Puts a proxy before each broker, `kafka-1` and so on; clients that begin here stay behind them, because
    /// the brokers make them known. They need [`Options::has_proxy`].
    pub fn behind(&self, toxiproxy: &Toxiproxy) -> String {
        assert!(self.options.has_proxy, "brokers know of no proxy");
        for node in &self.nodes {
            let [upstream, known] = node.proxied.map(local);
            toxiproxy.proxy_at(&format!("kafka-{}", node.number), &known, &upstream);
        }
        self.addresses(|node| node.proxied[1])
    }

    /// Kills a broker, as a crash of its machine would. Its data stay.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node - 1].process = None;
    }

    /// Stops a broker in good order: it hands its partitions over. The last of three cannot, alone it waits for
    /// ever: kill it.
    pub fn stop(&mut self, node: usize) {
        let process = self.nodes[node - 1].process.take().expect("the broker runs");
        process.signal(libc::SIGTERM);
        process.wait_for_the_end(END_WITHIN).unwrap_or_else(|failure| panic!("kafka: {failure:#}"));
    }

    /// Starts a broker that was killed or stopped: same ports, same data. Returns when it is ready, for which
    /// of three brokers another one must run.
    pub fn start_again(&mut self, node: usize) {
        self.launch(|number| number == node).unwrap_or_else(|failure| panic!("kafka: {failure:#}"));
    }

    /// Starts all brokers that do not run.
    pub fn start_all_again(&mut self) {
        self.launch(|_| true).unwrap_or_else(|failure| panic!("kafka: {failure:#}"));
    }

    /// Gives each partition back to the broker that it was first given to. Whether all could be.
    pub fn elect_preferred_leaders(&self) -> bool {
        let arguments = ["--election-type", "preferred", "--all-topic-partitions"];
        self.tool("org.apache.kafka.tools.LeaderElectionCommand", &arguments).status.success()
    }

    /// Sets quotas of the clients that have the id, or with `--delete-config` takes them away: `producer_byte_rate=20000`.
    pub fn alter_quotas(&self, client_id: &str, option: &str, quotas: &str) {
        let arguments = ["--alter", "--entity-type", "clients", "--entity-name", client_id, option, quotas];
        let output = self.tool("kafka.admin.ConfigCommand", &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// Lets the user do something, as `kafka-acls --add` is told of it: `["--operation", "Read", "--group", "g"]`. It needs an
    /// authorizer, among [`Options::properties`].
    pub fn grant(&self, user: &str, what: &[&str]) {
        let principal = format!("User:{user}");
        let arguments = [&["--add", "--allow-principal", &principal], what].concat();
        let output = self.tool("org.apache.kafka.tools.AclCommand", &arguments);
        assert!(output.status.success(), "{output:?}");
    }

    /// What the brokers say of the topics and of a group, for whoever looks for the reason of something.
    pub fn describe(&self, group: &str) -> String {
        let of_group = |more: &[&str]| {
            let arguments = [&["--describe", "--group", group], more].concat();
            self.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &arguments)
        };
        let topics = self.tool("org.apache.kafka.tools.TopicCommand", &["--describe"]);
        let said = [topics, of_group(&[]), of_group(&["--members", "--verbose"])];
        said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).concat()
    }

    /// Runs a tool of Kafka's on this cluster.
    fn tool(&self, class: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.binary);
        command.args(["-XX:TieredStopAtLevel=1", class, "--bootstrap-server"]).arg(self.bootstrap()).args(arguments);
        command.output().expect("the part can be run")
    }

    /// Holds a broker still: its connections stay open, and nobody answers.
    pub fn pause(&self, node: usize) {
        self.process(node).pause();
    }

    /// Lets a paused broker go on.
    pub fn resume(&self, node: usize) {
        self.process(node).signal(libc::SIGCONT);
    }

    fn process(&self, node: usize) -> &Process {
        self.nodes[node - 1].process.as_ref().expect("the broker runs")
    }

    fn addresses(&self, port: impl Fn(&Node) -> u16) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| local(port(node))).collect();
        addresses.join(",")
    }

    /// Returns when all that are meant are ready. They are started together: alone, none of three gets ready.
    fn launch(&mut self, is_meant: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        let mut new = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| is_meant(node.number)) {
            match &mut node.process {
                Some(process) => process.check()?, // one that has died by itself is no stopped one
                None => new.push(node.number),
            }
        }
        for number in &new {
            let properties = self.folder(*number).join("server.properties");
            std::fs::write(&properties, self.properties(*number))?;
            let mut command = Command::new(&self.binary);
            // C1 alone starts in 1.5 s of processor time, with the other compiler it takes 2.5 s.
            command.args(HEAP).args(["-XX:TieredStopAtLevel=1", "kafka.Kafka"]).arg(properties).current_dir(&self.dir);
            let process = Process::start(&command, &self.dir.join(format!("kafka-{number}.log")))?;
            self.nodes[number - 1].process = Some(process);
        }
        for number in &new {
            let process = self.nodes[number - 1].process.as_mut().expect("started above");
            process.wait_until(|printed| printed.contains("Kafka Server started"))?;
        }
        Ok(())
    }

    fn folder(&self, node: usize) -> PathBuf {
        self.dir.join(format!("kafka-{node}"))
    }

    /// What a new cluster begins with.
    fn make_data(&self, node: &Node) -> std::io::Result<()> {
        let data = self.folder(node.number).join("data");
        if data.exists() {
            std::fs::remove_dir_all(&data)?; // of a start that failed
        }
        std::fs::create_dir_all(&data)?;
        let part = self.binary.ancestors().nth(2).expect("PART/bin/kafka");
        std::fs::copy(part.join("bootstrap.checkpoint"), data.join("bootstrap.checkpoint"))?;
        let meta = format!("version=1\ncluster.id={}\nnode.id={}\n", self.cluster, node.number);
        std::fs::write(data.join("meta.properties"), meta)
    }

    fn properties(&self, number: usize) -> String {
        let node = &self.nodes[number - 1];
        let mut text = include_str!("../../scripts/jvm/broker.properties").to_owned();
        let protocol = match self.options.security {
            Security::Plaintext => "PLAINTEXT",
            Security::SaslSsl => {
                text += include_str!("../../scripts/jvm/sasl.properties");
                "SASL_SSL"
            }
            Security::MutualTls => {
                text += include_str!("../../scripts/jvm/mutual-tls.properties");
                "SSL"
            }
        };
        text += &self.options.properties.join("\n");
        // Where it listens, and what it makes known: not the controller.
        let mut ports = vec![("PLAINTEXT", node.plain, node.plain)];
        if self.options.security != Security::Plaintext {
            ports.push(("SECURE", node.secure, node.secure));
        }
        if self.options.has_proxy {
            ports.push(("PROXIED", node.proxied[0], node.proxied[1]));
        }
        let listeners = ports.iter().map(|(name, port, _)| format!("{name}://{}", local(*port)));
        let listeners: Vec<_> = listeners.chain([format!("CONTROLLER://{}", local(node.controller))]).collect();
        let advertised: Vec<_> = ports.iter().map(|(name, _, port)| format!("{name}://{}", local(*port))).collect();
        let voters: Vec<_> = self.nodes.iter().map(|node| format!("{}@{}", node.number, local(node.controller))).collect();
        let values = [
            ("node", node.number.to_string()),
            ("voters", voters.join(",")),
            ("listeners", listeners.join(",")),
            ("advertised", advertised.join(",")),
            ("secure", protocol.to_owned()),
            ("data", self.folder(number).join("data").display().to_string()),
            ("tls", self.dir.join("tls").display().to_string()),
            ("replicas", self.options.nodes.to_string()),
            ("in_sync", self.options.nodes.div_ceil(2).to_string()),
        ];
        values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value))
    }
}

impl Node {
    fn new(number: usize) -> Self {
        let [plain, controller, secure, behind, known] = free_ports();
        Self { number, plain, controller, secure, proxied: [behind, known], process: None }
    }
}

/// Makes an authority and its certificates in the folder, as `scripts/certificates` says.
pub fn certificates(folder: &Path) -> Result<(), Skip> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/certificates");
    let output = Command::new(script).arg(folder).output().expect("scripts/certificates can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(3) if !is_required() => Err(Skip(said.trim().to_owned())),
        _ => panic!("`scripts/certificates` failed, {}:\n{said}", output.status),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::sync::mpsc;
    use std::time::Instant;

    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    use rdkafka::message::DeliveryResult;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
    use rdkafka::{ClientConfig, ClientContext};

    use super::*;
    use crate::support::servers::or_skip;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Sends on what goes wrong.
    struct Errors(mpsc::Sender<RDKafkaErrorCode>);

    impl ClientContext for Errors {
        fn error(&self, error: KafkaError, _: &str) {
            self.0.send(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)).unwrap();
        }
    }

    impl ProducerContext for Errors {
        type DeliveryOpaque = ();
        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    type Client = (BaseProducer<Errors>, mpsc::Receiver<RDKafkaErrorCode>);

    fn client(bootstrap: &str, settings: &[(&str, &str)]) -> Client {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("acks", "all");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let (errors, told) = mpsc::channel();
        (config.create_with_context(Errors(errors)).unwrap(), told)
    }

    /// Sends a record to topic `t`, and returns how many are in it then.
    fn send((producer, _): &Client) -> i64 {
        producer.send(BaseRecord::<(), _>::to("t").payload("trade").partition(0)).unwrap();
        producer.flush(PATIENCE).unwrap();
        producer.client().fetch_watermarks("t", 0, PATIENCE).unwrap().1
    }

    fn is_answered((producer, _): &Client, within: Duration) -> bool {
        producer.client().fetch_metadata(None, within).is_ok()
    }

    /// Why the broker is not spoken with.
    fn refusal((producer, told): Client) -> RDKafkaErrorCode {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "nobody says why");
            assert!(producer.client().fetch_metadata(None, Duration::from_millis(100)).is_err(), "nobody refuses it");
            producer.poll(Duration::ZERO);
            if let Some(code) = told.try_iter().find(|code| *code != RDKafkaErrorCode::AllBrokersDown) {
                return code;
            }
        }
    }

    fn answers(addresses: &str) -> bool {
        addresses.split(',').all(|address| TcpStream::connect(address).is_ok())
    }

    #[test]
    fn one_broker_stops_starts_again_wants_a_certificate_and_stays_behind_its_proxy() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            security: Security::MutualTls,
            has_proxy: true,
            properties: vec!["auto.create.topics.enable=true".to_owned()],
            ..Options::default()
        };
        let Some(mut kafka) = or_skip(Kafka::start(folder.path(), options)) else {
            return;
        };
        assert!(answers(&kafka.bootstrap()));
        assert_eq!(send(&client(&kafka.bootstrap(), &[])), 1);
        kafka.stop(1);
        assert!(!answers(&kafka.bootstrap()));
        kafka.start_again(1);
        let plain = client(&kafka.bootstrap(), &[]);
        assert_eq!(send(&plain), 2);

        let files = [kafka.ca_file(), kafka.client_certificate(), kafka.client_key()].map(|file| file.display().to_string());
        let [ca, certificate, key] = files.each_ref().map(String::as_str);
        let tls = [
            ("security.protocol", "ssl"),
            ("ssl.ca.location", ca),
            ("ssl.certificate.location", certificate),
            ("ssl.key.location", key),
        ];
        let secure = |settings| client(&kafka.secure_bootstrap(), settings);
        assert_eq!(send(&secure(&tls)), 3);
        // By TLS 1.3 the broker looks for it after the client's handshake, and hangs up; why is not always heard.
        let refused = refusal(secure(&tls[..2]));
        assert!(matches!(refused, RDKafkaErrorCode::SSL | RDKafkaErrorCode::BrokerTransportFailure), "{refused:?}");
        assert_eq!(refusal(secure(&[tls[0], tls[2], tls[3]])), RDKafkaErrorCode::SSL, "nobody knows who signed the broker's");

        let Some(toxiproxy) = or_skip(Toxiproxy::start(folder.path())) else {
            return;
        };
        let proxied = client(&kafka.behind(&toxiproxy), &[]);
        assert_eq!(send(&proxied), 4);
        toxiproxy.set_enabled("kafka-1", false);
        assert!(!is_answered(&proxied, Duration::from_millis(300)) && is_answered(&plain, PATIENCE));
        toxiproxy.set_enabled("kafka-1", true);
        assert_eq!(send(&proxied), 5);

        kafka.pause(1);
        assert!(!is_answered(&plain, Duration::from_millis(300)));
        kafka.resume(1);
        assert_eq!(send(&plain), 6);
        let bootstrap = kafka.bootstrap();
        kafka.pause(1); // a paused one dies with the test, too
        drop(kafka);
        assert!(!answers(&bootstrap));
    }

    #[test]
    fn three_brokers_want_a_password_and_go_on_without_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let properties = ["auto.create.topics.enable=true", "broker.session.timeout.ms=2000", "broker.heartbeat.interval.ms=500"];
        let properties = properties.map(str::to_owned).to_vec();
        let options = Options { nodes: 3, security: Security::SaslSsl, properties, ..Options::default() };
        let Some(mut kafka) = or_skip(Kafka::start(folder.path(), options)) else {
            return;
        };
        let ca = kafka.ca_file().display().to_string();
        let with = |mechanism, password| {
            let tls = [("security.protocol", "sasl_ssl"), ("ssl.ca.location", ca.as_str())];
            let sasl = [("sasl.mechanism", mechanism), ("sasl.username", USER), ("sasl.password", password)];
            client(&kafka.secure_bootstrap(), &[&tls[..], &sasl].concat())
        };
        for (already, mechanism) in ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"].into_iter().enumerate() {
            assert_eq!(send(&with(mechanism, PASSWORD)), already as i64 + 1, "{mechanism}");
            assert_eq!(refusal(with(mechanism, "wrong")), RDKafkaErrorCode::Authentication, "{mechanism}");
        }

        let plain = client(&kafka.bootstrap(), &[]);
        kafka.kill(2);
        assert!(!answers(&kafka.bootstrap()));
        assert_eq!(send(&plain), 4);
        kafka.start_all_again();
        assert!(answers(&kafka.bootstrap()));
        assert_eq!(send(&plain), 5);
    }
}
