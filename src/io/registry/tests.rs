//! The client against a server that answers as it is told, with what Apicurio has been seen to answer.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex as AsyncMutex;

use super::*;
use crate::domain::stream::Stream;
use crate::wire::schemas::{schema, subject};

const APICURIO: &str = "/apis/ccompat/v7";

/// A request as it came.
#[derive(Clone, Debug, Default)]
struct Request {
    line: String,
    headers: String,
    body: String,
}

/// Answers the requests in their order; what comes after the last answer hangs.
struct Server {
    address: String,
    requests: Arc<AsyncMutex<Vec<Request>>>,
}

impl Server {
    async fn start(answers: &[(u16, &str)]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers: Vec<_> = answers.iter().map(|(status, body)| (*status, body.to_string())).collect();
        let requests = Arc::new(AsyncMutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut held = Vec::new();
            let mut answers = answers.into_iter();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                seen.lock().await.push(read(&mut socket).await);
                match answers.next() {
                    // It hangs up without a word.
                    Some((0, _)) => {}
                    Some((status, body)) => {
                        let location = if status == 302 { "Location: https://elsewhere/\r\n" } else { "" };
                        let length = body.len();
                        let head =
                            format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{location}\r\n");
                        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                    }
                    None => held.push(socket),
                }
            }
        });
        Server { address, requests }
    }

    fn access(&self) -> Access {
        Access {
            url: format!("http://{}{APICURIO}", self.address),
            credentials: Some(("app".into(), Secret::new("s3cret"))),
            ca_file: None,
            attempt_timeout: Duration::from_secs(20),
            attempts: 3,
            backoff: Duration::from_millis(1),
        }
    }

    fn registry(&self) -> Registry {
        Registry::new(self.access()).unwrap()
    }

    async fn requests(&self) -> Vec<Request> {
        self.requests.lock().await.clone()
    }

    async fn lines(&self) -> Vec<String> {
        self.requests().await.into_iter().map(|request| request.line).collect()
    }
}

async fn read(socket: &mut tokio::net::TcpStream) -> Request {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_string));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                let (line, headers) = head.split_once("\r\n").unwrap();
                return Request { line: line.into(), headers: headers.into(), body: body.into() };
            }
        }
        if socket.read_buf(&mut bytes).await.unwrap() == 0 {
            return Request::default();
        }
    }
}

async fn ensure(server: &Server, policy: Policy) -> Result<SchemaId, RegistryError> {
    server.registry().ensure("t-value", Format::Avro, schema(Stream::Trades, Format::Avro), policy).await
}

const HELD: (u16, &str) = (200, r#"{"compatibility":"FULL_TRANSITIVE"}"#);

#[tokio::test]
async fn a_schema_is_registered_under_a_subject_that_is_held_to_full_transitive() {
    let server = Server::start(&[HELD, (200, r#"{"id":28}"#)]).await;
    assert_eq!(ensure(&server, Policy::Register).await, Ok(SchemaId(28)));
    let requests = server.requests().await;
    assert_eq!(requests[0].line, "PUT /apis/ccompat/v7/config/t-value HTTP/1.1");
    assert_eq!(requests[0].body, r#"{"compatibility":"FULL_TRANSITIVE"}"#);
    assert_eq!(requests[1].line, "POST /apis/ccompat/v7/subjects/t-value/versions?normalize=true HTTP/1.1");
    let body: Value = serde_json::from_str(&requests[1].body).unwrap();
    assert_eq!(body, json!({ "schema": schema(Stream::Trades, Format::Avro), "schemaType": "AVRO" }));
    for Request { headers, .. } in requests {
        assert!(headers.contains("authorization: Basic YXBwOnMzY3JldA=="), "{headers}");
        assert!(headers.contains("content-type: application/vnd.schemaregistry.v1+json"), "{headers}");
    }
}

/// Seen of Apicurio, with two daemons that began at the same time.
#[tokio::test]
async fn a_schema_that_somebody_else_was_quicker_with_is_found() {
    let body = r#"{"error_code":409,"message":"An artifact with ID 't-value' in group 'null' already exists."}"#;
    let server = Server::start(&[HELD, (409, body), (200, r#"{"subject":"t-value","id":7,"version":1,"schema":"{}"}"#)]).await;
    assert_eq!(ensure(&server, Policy::Register).await, Ok(SchemaId(7)));
}

/// Seen of Apicurio, too.
#[tokio::test]
async fn a_subject_that_somebody_else_holds_at_the_same_time_is_held() {
    let body = r#"{"error_code":409,"message":"A rule named 'COMPATIBILITY' already exists."}"#;
    let server = Server::start(&[(409, body), HELD, (200, r#"{"id":7}"#)]).await;
    assert_eq!(ensure(&server, Policy::Register).await, Ok(SchemaId(7)));
    let twice = Server::start(&[(409, body), (409, body)]).await;
    assert!(ensure(&twice, Policy::Register).await.is_err());
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_with_the_registrys_reason() {
    let body = concat!(
        r#"{"error_code":409,"message":"io.apicurio.registry.rules.RuleViolationException: Incompatible artifact: t-value [AVRO], "#,
        r#"num of incompatible diffs: {1}, list of diff types: [zz at /fields/0] Causes: zz at /fields/0"}"#,
    );
    let server = Server::start(&[HELD, (409, body), (404, r#"{"error_code":40403,"message":"no such schema"}"#)]).await;
    let error = ensure(&server, Policy::Register).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RegistryError::Incompatible { .. }) && !error.is_retryable(), "{error:?}");
    for part in [
        &format!("http://{}{APICURIO}", server.address),
        "avro schema of subject `t-value`",
        "zz at /fields/0",
        "write to a new topic",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(server.lines().await.len(), 3, "it is looked up once, and not tried again");
}

#[tokio::test]
async fn what_the_registry_cannot_read_is_told_in_its_words() {
    let body = r#"{"error_code":42201,"message":"Failed to discover artifact type from content."}"#;
    let server = Server::start(&[HELD, (422, body), (422, body)]).await;
    let error = ensure(&server, Policy::Register).await.unwrap_err();
    assert!(
        matches!(&error, RegistryError::NotTaken { reason, .. } if reason == "Failed to discover artifact type from content.")
    );
    assert!(matches!(ensure(&server, Policy::CheckOnly).await, Err(RegistryError::NotTaken { .. })));
}

#[tokio::test]
async fn who_only_checks_changes_nothing() {
    let found = r#"{"id":28,"subject":"t-value","version":1,"schema":"{}"}"#;
    for level in [
        (200, r#"{"compatibilityLevel":"FULL_TRANSITIVE"}"#),
        (200, r#"{"compatibilityLevel":"NONE"}"#),
        (404, r#"{"error_code":40401,"message":"x"}"#),
    ] {
        let server = Server::start(&[(200, found), level]).await;
        assert_eq!(ensure(&server, Policy::CheckOnly).await, Ok(SchemaId(28)));
        assert_eq!(
            server.lines().await,
            [
                "POST /apis/ccompat/v7/subjects/t-value?normalize=true HTTP/1.1",
                "GET /apis/ccompat/v7/config/t-value?defaultToGlobal=true HTTP/1.1"
            ]
        );
    }
    for body in [
        r#"{"error_code":40401,"message":"No artifact with ID 't-value' in group 'null' was found."}"#,
        r#"{"error_code":40403,"message":"The given schema does not match any schema under the subject t-value"}"#,
    ] {
        let server = Server::start(&[(404, body)]).await;
        let error = ensure(&server, Policy::CheckOnly).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RegistryError::NotRegistered { .. }) && !error.is_retryable(), "{error:?}");
        assert!(
            text.contains("subject `t-value`") && text.contains("t-value") && text.contains("let Tickmint register it"),
            "{text}"
        );
    }
}

async fn prospect(server: &Server, policy: Policy) -> Result<Prospect, RegistryError> {
    server.registry().prospect("t-value", Format::Avro, schema(Stream::Trades, Format::Avro), policy).await
}

#[tokio::test]
async fn what_would_become_of_a_schema_is_asked_and_nothing_is_changed() {
    let found = (200, r#"{"id":28,"subject":"t-value","version":1,"schema":"{}"}"#);
    let absent = (404, r#"{"error_code":40401,"message":"No artifact with ID 't-value' in group 'null' was found."}"#);
    let full = (200, r#"{"compatibilityLevel":"FULL_TRANSITIVE"}"#);
    let backward = (200, r#"{"compatibilityLevel":"BACKWARD"}"#);
    let good = (200, r#"{"is_compatible":true,"reason":null}"#);
    let lax = Some("BACKWARD".to_string());
    for (policy, answers, becomes) in [
        (Policy::Register, &[found][..], Prospect::There { id: SchemaId(28), lax: None }),
        (Policy::CheckOnly, &[found, full], Prospect::There { id: SchemaId(28), lax: None }),
        (Policy::CheckOnly, &[found, backward], Prospect::There { id: SchemaId(28), lax: lax.clone() }),
        (Policy::Register, &[absent, absent], Prospect::First),
        (Policy::Register, &[absent, good, full], Prospect::Beside { lax: None }),
        (Policy::Register, &[absent, good, backward], Prospect::Beside { lax }),
    ] {
        let server = Server::start(answers).await;
        assert_eq!(prospect(&server, policy).await, Ok(becomes));
        let allowed = [
            "POST /apis/ccompat/v7/subjects/t-value?normalize=true HTTP/1.1",
            "POST /apis/ccompat/v7/compatibility/subjects/t-value/versions?normalize=true&verbose=true HTTP/1.1",
            "GET /apis/ccompat/v7/config/t-value?defaultToGlobal=true HTTP/1.1",
        ];
        let lines = server.lines().await;
        assert!(lines.len() == answers.len() && lines.iter().all(|line| allowed.contains(&&**line)), "{lines:?}");
    }
    // Apicurio's answer, and Confluent's.
    for body in [
        r#"{"is_compatible":false,"reason":"zz at /fields/0"}"#,
        r#"{"is_compatible":false,"messages":["zz at /fields/0","oldSchema: {}"]}"#,
    ] {
        let server = Server::start(&[absent, (200, body)]).await;
        let error = prospect(&server, Policy::Register).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Incompatible { reason, .. } if reason.contains("zz at /fields/0")), "{error:?}");
    }
    let server = Server::start(&[absent]).await;
    assert!(matches!(prospect(&server, Policy::CheckOnly).await, Err(RegistryError::NotRegistered { .. })));
    let server = Server::start(&[(401, "")]).await;
    let text = prospect(&server, Policy::Register).await.unwrap_err().to_string();
    assert!(text.contains("refuses to look up a schema of subject `t-value` (401): check the user and the secret"), "{text}");
}

#[tokio::test]
async fn a_schema_is_asked_for_once() {
    let server = Server::start(&[(200, r#"{"schema":"{\"type\":\"string\"}","schemaType":"AVRO","references":[]}"#)]).await;
    let registry = server.registry();
    for _ in 0..3 {
        assert_eq!(&*registry.schema(SchemaId(7)).await.unwrap(), r#"{"type":"string"}"#);
    }
    assert_eq!(server.lines().await, ["GET /apis/ccompat/v7/schemas/ids/7 HTTP/1.1"]);
    let gone = r#"{"error_code":40403,"message":"No content with id/hash 'contentId-7' was found."}"#;
    let server = Server::start(&[(404, gone)]).await;
    let text = server.registry().schema(SchemaId(7)).await.unwrap_err().to_string();
    assert!(text.contains("has no schema 7 (No content with id/hash 'contentId-7' was found.)"), "{text}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_nothing_else() {
    let busy = (503, "<html>busy</html>");
    let server = Server::start(&[busy, HELD, (0, ""), (429, ""), (200, r#"{"id":5}"#)]).await;
    assert_eq!(ensure(&server, Policy::Register).await, Ok(SchemaId(5)));
    assert_eq!(server.lines().await.len(), 5);
    let server = Server::start(&[busy, busy, busy, HELD]).await;
    let error = ensure(&server, Policy::Register).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("answers 503: <html>busy</html>"), "{error}");
    assert_eq!(server.lines().await.len(), 3);
    // What Apicurio says where it cannot compare two drafts of JSON Schema.
    let odd = (500, r##"{"error_code":0,"message":"#: could not determine version"}"##);
    let server = Server::start(&[HELD, odd, odd, odd]).await;
    let text = ensure(&server, Policy::Register).await.unwrap_err().to_string();
    assert!(
        text.contains("was asked to register a schema for subject `t-value` and answers 500: #: could not determine version"),
        "{text}"
    );
    for (status, body, part) in [
        (401, "", "refuses to hold subject `t-value` to FULL_TRANSITIVE (401): check the user"),
        (403, "", "(403)"),
        (
            404,
            r#"{"error_code":404,"message":"RESTEASY003210: Could not find resource for full path"}"#,
            "add the path of the API",
        ),
        (404, "<html>not here</html>", "add the path of the API"),
        (302, "", "answers 302: it sends us to https://elsewhere/: give the address that it stands for"),
        (400, "Not able to deserialize data provided.", "answers 400: Not able to deserialize"),
        (200, "<html>hello</html>", "answers 200: <html>hello</html>"),
    ] {
        let server = Server::start(&[(status, body)]).await;
        let error = ensure(&server, Policy::Register).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(part) && !error.is_retryable(), "{text}");
        assert!(text.contains(&server.address) && !text.contains("s3cret"), "{text}");
        assert_eq!(server.lines().await.len(), 1, "{status} is not tried again");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_or_hangs_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let server = Server { address: address.to_string(), requests: Arc::default() };
    let error = ensure(&server, Policy::Register).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("refused"), "{error}");
    let server = Server::start(&[]).await;
    let impatient = Access { attempt_timeout: Duration::from_millis(50), attempts: 2, ..server.access() };
    let error = Registry::new(impatient).unwrap().schema(SchemaId(1)).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_retryable() && text.contains(&server.address) && text.contains("timed out"), "{text}");
    assert_eq!(server.lines().await.len(), 2);
}

#[tokio::test]
async fn a_subject_and_a_path_are_put_together_as_they_should() {
    for (path, subject_, line) in [
        ("", "a/b ?-value", "PUT /config/a%2Fb%20%3F-value HTTP/1.1"),
        ("/", "t-value", "PUT /config/t-value HTTP/1.1"),
        ("/x/y/", "t-value", "PUT /x/y/config/t-value HTTP/1.1"),
    ] {
        let server = Server::start(&[(401, "")]).await;
        let access = Access { url: format!("http://{}{path}", server.address), credentials: None, ..server.access() };
        let asked = Registry::new(access).unwrap().ensure(subject_, Format::Json, "{}", Policy::Register).await;
        assert!(matches!(asked, Err(RegistryError::Refused { .. })));
        let requests = server.requests().await;
        assert_eq!(requests[0].line, line);
        assert!(!requests[0].headers.contains("authorization"));
    }
    assert_eq!(subject("t"), "t-value");
}

#[test]
fn an_access_that_makes_no_sense_is_told_without_its_secrets() {
    let access = |url: &str, ca_file: Option<PathBuf>| Access {
        url: url.into(),
        credentials: Some(("app".into(), Secret::new("s3cret"))),
        ca_file,
        attempt_timeout: Duration::from_secs(1),
        attempts: 1,
        backoff: Duration::ZERO,
    };
    for (url, reason) in [
        ("registry:8081", "must begin with `https://`"),
        ("", "relative URL without a base"),
        ("ftp://x", "must begin with `https://`"),
        ("http://x/?a=1", "neither `?` nor `#`"),
        ("http://app:s3cret@x", "carries a user or a password"),
    ] {
        let error = Registry::new(access(url, None)).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(reason) && text.contains("write such as `https://registry:8081`") && !text.contains("s3cret"),
            "{text}"
        );
    }
    assert!(!format!("{:?}", Registry::new(access("http://x", None)).unwrap()).contains("s3cret"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let of = |file: &PathBuf| Registry::new(access("https://x", Some(file.clone()))).unwrap_err().to_string();
    assert!(of(&file).contains("ca.pem: No such file"), "{}", of(&file));
    std::fs::write(&file, "no certificate").unwrap();
    assert!(of(&file).contains("there is no certificate in it; give a PEM file"), "{}", of(&file));
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(of(&file).contains("the authorities to trust in "), "{}", of(&file));
}
