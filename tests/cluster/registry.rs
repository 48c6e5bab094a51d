//! The schema registry's client against a real registry, and over TLS.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use apache_avro::types::Value as Avro;
use apache_avro::{Schema, to_avro_datum};
use serde_json::{Value, json};
use tickmint::config::RegistrySettings;
use tickmint::domain::entry::{Content, Payload, Record};
use tickmint::domain::identity::{Delivery, LogId, Origin, SessionId};
use tickmint::domain::stream::{STREAMS, Stream};
use tickmint::domain::verdict::{Flags, Reason};
use tickmint::io::registry::{Access, Policy, Registry, RegistryError};
use tickmint::kafka::schemas::{Schemas, listed};
use tickmint::wire::decode::{Decoder, Incoming, Received};
use tickmint::wire::encode::Encoder;
use tickmint::wire::{Format, SchemaId, schemas};

use crate::support::registry::Registry as Server;
use crate::support::servers::{Skip, or_skip};

const ALL: [(Stream, Format); 2 * STREAMS] = [
    (Stream::Trades, Format::Json),
    (Stream::Trades, Format::Avro),
    (Stream::Gaps, Format::Json),
    (Stream::Gaps, Format::Avro),
    (Stream::Quarantine, Format::Json),
    (Stream::Quarantine, Format::Avro),
];

/// That of a registry which all tests of this module share. It ends with the process.
pub(super) fn url() -> Option<String> {
    static SHARED: OnceLock<Result<(Server, tempfile::TempDir), String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let folder = tempfile::tempdir().expect("the system's folder can be written");
        let server = Server::start(folder.path()).map_err(|Skip(reason)| reason)?;
        Ok((server, folder))
    });
    or_skip(shared.as_ref().map(|(server, _)| server.url()).map_err(|reason| Skip(reason.clone())))
}

pub(super) fn access(url: String) -> Access {
    Access {
        url,
        credentials: None,
        ca_file: None,
        attempt_timeout: Duration::from_secs(30),
        attempts: 3,
        backoff: Duration::from_millis(100),
    }
}

fn registry() -> Option<Registry> {
    Some(Registry::new(access(url()?)).unwrap())
}

/// A subject that no other test and no earlier run has.
fn fresh(name: &str) -> String {
    schemas::subject(&format!("{name}-{}", LogId::generate()))
}

/// A copy of a schema, changed.
fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut schema = serde_json::from_str(text).unwrap();
    change(&mut schema);
    schema.to_string()
}

/// With a field that may be absent, as a newer version would add it.
pub(super) fn with_a_field(stream: Stream, format: Format) -> String {
    changed(schemas::schema(stream, format), |schema| match (format, stream) {
        (Format::Avro, _) => {
            let field = json!({ "name": "venue", "type": ["null", "string"], "default": null });
            schema["fields"].as_array_mut().unwrap().push(field);
        }
        (Format::Json, Stream::Gaps) => schema["oneOf"][0]["properties"]["venue"] = json!({ "description": "A string." }),
        (Format::Json, Stream::Trades | Stream::Quarantine) => {
            schema["properties"]["venue"] = json!({ "description": "A string." });
        }
    })
}

/// Of another type in a field that all have.
pub(super) fn retyped(stream: Stream, format: Format) -> String {
    changed(schemas::schema(stream, format), |schema| match (format, stream) {
        (Format::Avro, _) => {
            let fields = schema["fields"].as_array_mut().unwrap();
            fields.iter_mut().filter(|field| field["name"] == "raw").for_each(|field| field["type"] = "double".into());
        }
        (Format::Json, Stream::Trades) => schema["properties"]["p"] = json!({ "type": "string" }),
        (Format::Json, Stream::Gaps) => schema["oneOf"][0]["properties"]["reason"] = json!({ "type": "integer" }),
        (Format::Json, Stream::Quarantine) => schema["properties"]["detail"] = json!({ "type": "integer" }),
    })
}

/// With a field that must be there.
fn with_a_duty(stream: Stream, format: Format) -> String {
    changed(schemas::schema(stream, format), |schema| match (format, stream) {
        (Format::Avro, _) => schema["fields"].as_array_mut().unwrap().push(json!({ "name": "venue", "type": "string" })),
        (Format::Json, Stream::Gaps) => schema["oneOf"][0]["required"].as_array_mut().unwrap().push("venue".into()),
        (Format::Json, Stream::Trades | Stream::Quarantine) => {
            schema["required"].as_array_mut().unwrap().push("venue".into());
        }
    })
}

/// Closed to what it does not name.
fn closed(stream: Stream, format: Format) -> Option<String> {
    (format == Format::Json).then(|| {
        changed(schemas::schema(stream, format), |schema| match stream {
            Stream::Gaps => schema["oneOf"][0]["additionalProperties"] = false.into(),
            Stream::Trades | Stream::Quarantine => schema["additionalProperties"] = false.into(),
        })
    })
}

#[tokio::test]
async fn a_schema_is_registered_once_and_found_by_those_who_only_check() {
    let Some(registry) = registry() else { return };
    for (stream, format) in ALL {
        let (subject, text) = (fresh(stream.name()), schemas::schema(stream, format));
        let absent = registry.ensure(&subject, format, text, Policy::CheckOnly).await.unwrap_err();
        assert!(matches!(absent, RegistryError::NotRegistered { .. }), "{absent:?}");
        let id = registry.ensure(&subject, format, text, Policy::Register).await.unwrap();
        for policy in [Policy::Register, Policy::CheckOnly] {
            assert_eq!(registry.ensure(&subject, format, text, policy).await, Ok(id));
            // Who has registered it with other white space has registered the same.
            assert_eq!(registry.ensure(&subject, format, &changed(text, |_| {}), policy).await, Ok(id), "{stream} {format:?}");
        }
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(parsed(&registry.schema(id).await.unwrap()), parsed(text));
    }
}

#[tokio::test]
async fn a_field_may_be_added_and_nothing_be_broken() {
    let Some(registry) = registry() else { return };
    for (stream, format) in ALL {
        let (subject, ours) = (fresh(stream.name()), schemas::schema(stream, format));
        let id = registry.ensure(&subject, format, ours, Policy::Register).await.unwrap();
        for breaking in
            [Some(retyped(stream, format)), Some(with_a_duty(stream, format)), closed(stream, format)].into_iter().flatten()
        {
            let error = registry.ensure(&subject, format, &breaking, Policy::Register).await.unwrap_err();
            assert!(matches!(&error, RegistryError::Incompatible { reason, .. } if reason.contains("ncompatible")), "{error:?}");
            let error = registry.ensure(&subject, format, &breaking, Policy::CheckOnly).await.unwrap_err();
            assert!(matches!(error, RegistryError::NotRegistered { .. }), "{error:?}");
        }
        let newer = registry.ensure(&subject, format, &with_a_field(stream, format), Policy::Register).await.unwrap();
        assert_ne!(newer, id);
        // Both versions go on writing.
        assert_eq!(registry.ensure(&subject, format, ours, Policy::Register).await, Ok(id));
    }
}

#[tokio::test]
async fn a_newer_value_is_read_by_the_schema_that_the_registry_gives() {
    let Some(registry) = registry() else { return };
    let (subject, newer) = (fresh("quarantine"), with_a_field(Stream::Quarantine, Format::Avro));
    let ours = schemas::schema(Stream::Quarantine, Format::Avro);
    registry.ensure(&subject, Format::Avro, ours, Policy::Register).await.unwrap();
    let id = registry.ensure(&subject, Format::Avro, &newer, Policy::Register).await.unwrap();

    let delivery = Delivery { session: SessionId::generate(), frame: 1, index: 0 };
    let payload = Payload::Quarantined { raw: "{".into(), reason: Reason::NotJson, detail: "cut".into() };
    let content = Content::Data { delivery, seq: 0, payload };
    let origin = Origin { log: LogId::generate(), place: 0 };
    let record = Record { offset: 0, origin, received_at: 5, traceparent: None, content: content.clone() };
    let mut encoder = Encoder::new(Format::Avro, Some([id; STREAMS]));
    let mut header = encoder.encode(Stream::Quarantine, b"k", &record).unwrap().header.to_vec();
    header[4] = 2; // The number of its schema.
    let fields = [
        ("session", Avro::Uuid(delivery.session.0)),
        ("frame", Avro::Long(1)),
        ("idx", Avro::Int(0)),
        ("seq", Avro::Long(0)),
        ("received_at", Avro::TimestampMicros(5)),
        ("reason", Avro::String("not_json".into())),
        ("detail", Avro::String("cut".into())),
        ("raw", Avro::Bytes(b"{".into())),
        ("venue", Avro::Union(1, Avro::String("X".into()).into())),
    ];
    let fields = Avro::Record(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect());
    let value = to_avro_datum(&Schema::parse_str(&newer).unwrap(), fields).unwrap();
    let value = [&[0], &id.0.to_be_bytes()[..], &value].concat();

    let mut decoder = Decoder::new(Stream::Quarantine);
    let message = Incoming { header: Some(&header), traceparent: None, value: Some(value.into()) };
    let wanted = decoder.decode(message.clone()).unwrap_err().wanted_schema().unwrap();
    decoder.learn(wanted, &registry.schema(wanted).await.unwrap()).unwrap();
    let read = decoder.decode(message).unwrap();
    assert_eq!(read, Received { origin, received_at: 5, traceparent: None, content });
    assert_eq!(Flags::default(), Flags(header[5]));
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let Some(url) = url() else { return };
    let registry = Registry::new(access(url.clone())).unwrap();
    let unknown = registry.schema(SchemaId(99_999_999)).await.unwrap_err();
    assert!(matches!(unknown, RegistryError::UnknownId { .. }), "{unknown:?}");
    let unread = registry.ensure(&fresh("x"), Format::Avro, "{", Policy::Register).await.unwrap_err();
    assert!(matches!(unread, RegistryError::NotTaken { .. }), "{unread:?}");
    let elsewhere = Registry::new(access(url.replace("/ccompat/", "/nowhere/"))).unwrap();
    let nothing = elsewhere.ensure("t-value", Format::Avro, "{}", Policy::Register).await.unwrap_err();
    assert!(matches!(nothing, RegistryError::NoRegistry { .. }), "{nothing:?}");
}

#[tokio::test]
async fn a_registry_that_was_emptied_has_other_ids_which_are_told_and_taken_by_the_next_life_only() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut server) = or_skip(Server::start(folder.path())) else { return };
    let registry = RegistrySettings { url: server.url(), ..RegistrySettings::default() };
    let config = super::config("127.0.0.1:1", |kafka| kafka.registry = Some(registry));
    let life = || Schemas::new(&config, config.registry.as_ref().unwrap(), folder.path()).unwrap();
    let running = life();
    let ids = running.ensure().await.unwrap();

    server.stop();
    server.forget();
    server.start_again();
    let other = Registry::new(access(server.url())).unwrap();
    other.ensure("of-somebody-else", Format::Avro, "\"string\"", Policy::Register).await.unwrap();
    let error = running.ensure().await.unwrap_err();
    assert!(matches!(error, RegistryError::OtherIds { .. }) && error.to_string().contains(&listed(ids)), "{error}");
    assert_eq!(running.ids(), Some(ids), "what was begun with them goes on with them");
    let found = life().ensure().await.unwrap();
    assert!(found != ids && error.to_string().contains(&listed(found)), "{error}");
}

/// `openssl s_server`, which answers a GET with the file of that name.
struct Tls {
    server: Child,
    url: String,
    ca: PathBuf,
    other_ca: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tls {
    fn start() -> Result<Tls, Skip> {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        for name in ["ca", "other"] {
            openssl(dir, &format!("{new} -subj /CN={name} -keyout {name}.key -out {name}.pem"))?;
        }
        let signed = "-CA ca.pem -CAkey ca.key -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        openssl(dir, &format!("{new} {signed} -subj /CN=registry -keyout server.key -out server.pem"))?;
        std::fs::create_dir_all(dir.join("schemas/ids")).unwrap();
        std::fs::write(dir.join("schemas/ids/7"), r#"{"schema":"\"string\"","schemaType":"AVRO"}"#).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // It ends by itself after so many connections, should the test be killed.
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-WWW", "-naccept", "40", "-cert", "server.pem", "-key", "server.key"]);
        command.arg("-accept").arg(format!("127.0.0.1:{port}")).current_dir(dir);
        let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let url = format!("https://127.0.0.1:{port}");
        Ok(Tls { server, url, ca: dir.join("ca.pem"), other_ca: dir.join("other.pem"), _folder: folder })
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}

fn openssl(dir: &Path, arguments: &str) -> Result<(), Skip> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Skip(format!("openssl makes no certificates: {}", String::from_utf8_lossy(&output.stderr)))),
        Err(error) => Err(Skip(format!("openssl: {error}"))),
    }
}

#[tokio::test]
async fn a_registry_with_a_certificate_is_trusted_by_its_own_authority_only() {
    let Some(tls) = or_skip(Tls::start()) else { return };
    let ask = async |ca_file: Option<&PathBuf>| {
        // Until it listens, too.
        let access = Access { ca_file: ca_file.cloned(), attempts: 6, ..access(tls.url.clone()) };
        Registry::new(access).unwrap().schema(SchemaId(7)).await
    };
    assert_eq!(&*ask(Some(&tls.ca)).await.unwrap(), "\"string\"");
    for ca_file in [Some(&tls.other_ca), None] {
        let error = ask(ca_file).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RegistryError::Unreachable { .. }) && text.contains("certificate: UnknownIssuer"), "{text}");
    }
}
