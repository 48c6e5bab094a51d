//! The store in a bucket of S3, or of a server that speaks its protocol.
//!
//! `create` is a PUT with `If-None-Match: *`; that the server decides it atomically is checked by
//! [`probe`](super::probe). One PUT an object, never in parts, with the SHA-256 of the body, so what is
//! there is what was sent. Each request is tried once: the caller knows whether to try again, and how
//! long to wait. An answer may be lost after the server has acted, so a `create` that is done again may
//! find its own object; the chain's protocol does not mind.

use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, ProvideCredentials, Region};
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::store::{CHAINS, Created, S3Access, Store, StoreError, check_key, check_prefix};
use crate::config::S3Config;

pub mod lifecycle;
pub mod retention;

/// A server that has not taken the connection by then is not there.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A body has a second more for each so many bytes: an object must get through a slow line, else it would be
/// sent again for ever.
const BYTES_A_SECOND: u64 = 128 << 10;

/// What the servers that are not AWS take for granted.
const USUAL_REGION: &str = "us-east-1";

/// So long credentials are handed to others without a new look; theirs last an hour and are renewed
/// minutes before they expire.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The store in a bucket.
pub struct S3Store {
    config: S3Config,
    /// Made on first use: the SDK looks for region and credentials in many places.
    connection: OnceCell<Connection>,
    /// What was last found for others, and when.
    known: Mutex<Option<(Credentials, Instant)>>,
}

/// The client, and what it was made of.
struct Connection {
    client: Client,
    shared: SdkConfig,
}

/// Why a request had no answer that counts, with what the server said of it.
struct Failure {
    operation: &'static str,
    key: String,
    status: Option<u16>,
    code: String,
    /// The region that the bucket is in, by a server that redirects us there.
    region: Option<String>,
    was_deleted: bool,
    error: String,
}

impl S3Store {
    /// The store that the config names. Asks nothing of the server.
    pub fn new(config: S3Config) -> Result<S3Store, StoreError> {
        check_prefix("open", &config.prefix)?;
        Ok(S3Store { config, connection: OnceCell::new(), known: Mutex::default() })
    }

    async fn connection(&self) -> &Connection {
        self.connection.get_or_init(|| connect(&self.config)).await
    }

    async fn client(&self) -> &Client {
        &self.connection().await.client
    }

    /// The credentials that the client itself uses: from the config, else from where the SDK looks
    /// (environment, profile, role). Looked up again after [`KNOWN_FOR`], for files and roles change.
    async fn credentials(&self) -> Result<Credentials, StoreError> {
        let mut known = self.known.lock().await;
        if let Some((credentials, since)) = known.as_ref()
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(credentials.clone());
        }
        let none = |reason: String| StoreError::Retry {
            operation: "credentials",
            key: format!("s3://{}", self.config.bucket),
            reason: format!(
                "{reason}; set `bronze.s3.access_key_file` and `secret_key_file`, or AWS_PROFILE, or give this machine a role"
            ),
        };
        let provider = self.connection().await.shared.credentials_provider();
        let provider = provider.ok_or_else(|| none("there are no credentials".into()))?;
        let found = provider.provide_credentials().await;
        let credentials = found.map_err(|error| none(format!("{}", DisplayErrorContext(&error))))?;
        *known = Some((credentials.clone(), Instant::now()));
        Ok(credentials)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.config.prefix)
    }

    async fn put_request(&self, key: &str, body: Bytes) -> PutObjectFluentBuilder {
        self.client()
            .await
            .put_object()
            .bucket(&self.config.bucket)
            .key(self.full(key))
            // Of a body in memory it goes into a header that is signed. Trailers are not for every server.
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .body(ByteStream::from(body))
    }

    /// The time for an answer, with `bytes` on their way there or back.
    fn in_time<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        key: &'a str,
        bytes: u64,
        answer: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        let within = patience(self.config.attempt_timeout, bytes);
        let bounded = tokio::time::timeout(within, answer);
        let no_answer = move |_| StoreError::Retry {
            operation,
            key: key.to_owned(),
            reason: format!("no answer from {} within {within:?}", self.describe()),
        };
        bounded.map(move |outcome| outcome.map_err(no_answer).flatten()).boxed()
    }

    /// One page of keys, without the store's prefix, and how to ask for the next.
    async fn page(
        &self,
        operation: &'static str,
        prefix: &str,
        most: Option<i32>,
        next: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), StoreError> {
        let answer = async {
            let request = self.client().await.list_objects_v2().bucket(&self.config.bucket);
            let request = request.prefix(self.full(prefix)).set_max_keys(most).set_continuation_token(next);
            request.send().await.map_err(|error| self.failed(operation, prefix, error).into_error(&self.config))
        };
        let page = self.in_time(operation, prefix, 0, answer).await?;
        let next = page.next_continuation_token.filter(|_| page.is_truncated == Some(true));
        let keys = page.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let key = object.key?.strip_prefix(&self.config.prefix)?.to_owned();
            // Consoles make empty objects to stand for folders: `_commit/trades/`. They are none of ours.
            check_key(operation, &key).is_ok().then_some(key)
        });
        Ok((keys.collect(), next))
    }

    async fn find_first(&self, prefix: &str) -> Result<Option<String>, StoreError> {
        let mut next = None;
        loop {
            // The second for the case that the first stands for the folder.
            let (keys, more) = self.page("first", prefix, Some(2), next).await?;
            if let Some(first) = keys.into_iter().next() {
                return Ok(Some(first));
            }
            if more.is_none() {
                return Ok(None);
            }
            next = more;
        }
    }

    async fn find_all(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut all, mut next) = self.page("list", prefix, None, None).await?;
        while next.is_some() {
            let (keys, more) = self.page("list", prefix, None, next).await?;
            all.extend(keys);
            next = more;
        }
        all.sort_unstable();
        Ok(all)
    }

    async fn read(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let begin = async {
            let request = self.client().await.get_object().bucket(&self.config.bucket).key(self.full(key));
            match request.send().await {
                Ok(answer) => Ok(Some(answer)),
                Err(error) => match self.failed("get", key, error) {
                    failure if failure.is_absence() => Ok(None),
                    failure => Err(failure.into_error(&self.config)),
                },
            }
        };
        // The answer's head says how long its body is.
        let Some(answer) = self.in_time("get", key, 0, begin).await? else { return Ok(None) };
        let length = answer.content_length.unwrap_or_default().unsigned_abs();
        let body = answer.body.collect().map(|body| {
            body.map_err(|error| StoreError::Retry {
                operation: "get",
                key: key.to_owned(),
                reason: format!("the answer broke off: {}", with_causes(&error)),
            })
        });
        Ok(Some(self.in_time("get", key, length, body).await?.into_bytes()))
    }

    fn failed<E>(&self, operation: &'static str, key: &str, error: SdkError<E>) -> Failure
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let answer = error.raw_response();
        let header = |name| answer.and_then(|answer| answer.headers().get(name));
        Failure {
            operation,
            key: key.to_owned(),
            status: answer.map(|answer| answer.status().as_u16()),
            code: error.code().unwrap_or_default().to_owned(),
            region: header("x-amz-bucket-region").map(str::to_owned),
            was_deleted: header("x-amz-delete-marker") == Some("true"),
            error: match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                _ => with_causes(&error),
            },
        }
    }
}

impl Store for S3Store {
    fn create<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<Created, StoreError>> {
        let bytes = body.len() as u64;
        let answer = async move {
            check_key("create", key)?;
            let request = self.put_request(key, body).await.if_none_match("*");
            match request.send().await {
                Ok(answer) => acted("create", key, answer.e_tag.is_some()).map(|()| Created::New),
                Err(error) => match self.failed("create", key, error) {
                    failure if failure.is_precondition() => Ok(Created::AlreadyThere),
                    failure => Err(failure.into_error(&self.config)),
                },
            }
        };
        self.in_time("create", key, bytes, answer)
    }

    fn put<'a>(&'a self, key: &'a str, body: Bytes) -> BoxFuture<'a, Result<(), StoreError>> {
        let bytes = body.len() as u64;
        let answer = async move {
            check_key("put", key)?;
            match self.put_request(key, body).await.send().await {
                Ok(answer) => acted("put", key, answer.e_tag.is_some()),
                Err(error) => Err(self.failed("put", key, error).into_error(&self.config)),
            }
        };
        self.in_time("put", key, bytes, answer)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, StoreError>> {
        async move {
            check_key("get", key)?;
            self.read(key).await
        }
        .boxed()
    }

    fn first<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            check_prefix("first", prefix)?;
            self.find_first(prefix).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            check_prefix("list", prefix)?;
            self.find_all(prefix).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let answer = async move {
            check_key("delete", key)?;
            let request = self.client().await.delete_object().bucket(&self.config.bucket).key(self.full(key));
            match request.send().await {
                Ok(_) => Ok(()),
                Err(error) => match self.failed("delete", key, error) {
                    failure if failure.code == "NoSuchKey" => Ok(()),
                    failure => Err(failure.into_error(&self.config)),
                },
            }
        };
        self.in_time("delete", key, 0, answer)
    }

    fn describe(&self) -> String {
        let S3Config { bucket, prefix, endpoint, .. } = &self.config;
        match endpoint {
            Some(endpoint) => format!("s3://{bucket}/{prefix} at {endpoint}"),
            None => format!("s3://{bucket}/{prefix}"),
        }
    }

    fn address(&self, key: &str) -> String {
        format!("s3://{}/{}", self.config.bucket, self.full(key))
    }

    fn access(&self) -> BoxFuture<'_, Result<Option<S3Access>, StoreError>> {
        async move {
            let credentials = self.credentials().await?;
            let shared = &self.connection().await.shared;
            Ok(Some(S3Access {
                key_id: credentials.access_key_id().to_string(),
                secret: credentials.secret_access_key().to_string(),
                session_token: credentials.session_token().map(str::to_string),
                region: shared.region().map(|region| region.as_ref().to_string()),
                endpoint: shared.endpoint_url().map(str::to_string),
                path_style: self.config.path_style,
            }))
        }
        .boxed()
    }
}

async fn connect(config: &S3Config) -> Connection {
    // How long a request may take depends on its body, which the SDK's own limits do not know of.
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_WITHIN.min(config.attempt_timeout)).build();
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::disabled()).timeout_config(timeouts);
    if let Some((id, secret)) = &config.credentials {
        loader = loader.credentials_provider(Credentials::new(id, secret.reveal(), None, None, "tickmint's config"));
    }
    if let Some(endpoint) = &config.endpoint {
        // Not AWS, so the metadata service of its machines need not be asked.
        let region = RegionProviderChain::first_try(config.region.clone().map(Region::new))
            .or_else(EnvironmentVariableRegionProvider::new())
            .or_else(USUAL_REGION);
        loader = loader.endpoint_url(endpoint).region(region);
    } else if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let shared = loader.load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared).force_path_style(config.path_style).build();
    Connection { client: Client::from_conf(config), shared }
}

/// How long a request with so many bytes may take, given how long one without any may.
pub fn patience(attempt: Duration, bytes: u64) -> Duration {
    attempt + Duration::from_millis(bytes * 1000 / BYTES_A_SECOND)
}

/// The error and what caused it, in one line. Not the SDK's way, which shows all headers.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.split_whitespace().collect::<Vec<_>>().join(" ") // some are lists
}

/// A server that has stored an object names its ETag. A 200 without it is something else's.
fn acted(operation: &'static str, key: &str, has_etag: bool) -> Result<(), StoreError> {
    has_etag.then_some(()).ok_or_else(|| StoreError::Retry {
        operation,
        key: key.to_owned(),
        reason: "the answer names no ETag, so it is not known whether the object is there".into(),
    })
}

impl Failure {
    /// Somebody else's object is there, or our own. Some servers say so in the body of a 200.
    fn is_precondition(&self) -> bool {
        self.status == Some(412) || self.code == "PreconditionFailed"
    }

    /// There is no such object. Any other 404 (of a bucket, of a proxy on the way) says nothing about it.
    fn is_absence(&self) -> bool {
        // Of a slot it must never have been deleted: the chain would fork where it was.
        self.code == "NoSuchKey" && !(self.was_deleted && self.key.starts_with(CHAINS))
    }

    /// Words for the answer, by who must act.
    fn into_error(self, config: &S3Config) -> StoreError {
        let S3Config { bucket, endpoint, .. } = config;
        let server = endpoint.as_deref().unwrap_or("AWS");
        let advice = match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket") => Some(format!("there is no bucket `{bucket}` at {server}; create it, or correct `bucket`")),
            (_, "NoSuchKey") => Some(
                "this slot was deleted, and without it the chain would fork; remove the delete marker, and deny \
                 s3:DeleteObject below `_commit/`"
                    .into(),
            ),
            (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") | (Some(301), _) => {
                let region = self.region.as_deref().unwrap_or("another one than that configured");
                Some(format!("the bucket is in the region {region}; set `region` (and `endpoint`) to it"))
            }
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken") => {
                Some(format!("{server} does not know this access key or its secret differs; correct the credentials"))
            }
            (_, "RequestTimeTooSkewed") => Some("set this machine's clock".into()),
            // The SDK fetches new ones.
            (_, "ExpiredToken" | "ExpiredTokenException" | "RequestExpired") => None,
            // Broken on the way, or too slow.
            (_, "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" | "RequestTimeout") => None,
            (_, "ConditionalRequestConflict" | "OperationAborted" | "SlowDown") => None,
            (Some(403), _) => Some(format!(
                "no right to {} in bucket `{bucket}` at {server}; allow these credentials s3:GetObject, s3:PutObject \
                 and s3:DeleteObject on its objects and s3:ListBucket on the bucket",
                self.operation
            )),
            (Some(501), _) => Some(format!(
                "{server} does not know conditional writes (If-None-Match), without which two writers cannot be told apart"
            )),
            (Some(400 | 401 | 405 | 411 | 413 | 414 | 416), _) => Some(format!("{server} will not have the request")),
            // The SDK's error type cannot be asked. A machine's role may be out for a while: that is a retry.
            (None, _) if ["not enabled", "not properly"].iter().any(|text| self.error.contains(&format!("provider was {text}"))) => {
                Some("no credentials: set them in the config, in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role".into())
            }
            (None, _) if self.error.contains("region must be set") => {
                Some("no region: set `region` in the config or AWS_REGION".into())
            }
            // 404 of a proxy, 408, 409, 429, 5xx, an error in a 200; no answer at all.
            (Some(_) | None, _) => None,
        };
        let said = match self.status {
            Some(status) => format!("{status} {}", self.error),
            None if advice.is_some() => self.error,
            None if self.error.contains("loading credentials") => {
                format!(
                    "credentials could not be had, neither from `bronze.s3`, the environment and a profile nor from a role: {}",
                    self.error
                )
            }
            None => format!("{server} gave no answer: {}", self.error),
        };
        let (operation, key) = (self.operation, self.key);
        match advice {
            Some(advice) => StoreError::Refused { operation, key, reason: format!("{advice} ({said})") },
            None => StoreError::Retry { operation, key, reason: said },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            bucket: "lake".into(),
            prefix: "tickmint/".into(),
            endpoint: Some("http://127.0.0.1:9".into()),
            region: None,
            path_style: true,
            credentials: Some(("key".into(), crate::config::Secret::new("not to be seen"))),
            attempt_timeout: Duration::from_secs(10),
        }
    }

    fn failure(status: u16, code: &str) -> Failure {
        Failure {
            operation: "put",
            key: "_commit/trades/p0/1".into(),
            status: Some(status).filter(|&status| status != 0),
            code: code.into(),
            region: None,
            was_deleted: false,
            error: format!("{code}: the server's words"),
        }
    }

    #[test]
    fn an_answer_says_who_must_act() {
        for (status, code, retry, text) in [
            (0, "connection refused", true, "http://127.0.0.1:9 gave no answer"),
            (0, "an error occurred while loading credentials", true, "loading credentials"),
            (0, "the credential provider was not enabled", false, "AWS_ACCESS_KEY_ID"),
            (0, "A region must be set when sending requests to S3.", false, "set `region`"),
            (200, "InternalError", true, "200 InternalError"),
            (400, "RequestTimeout", true, "RequestTimeout"),
            (400, "BadDigest", true, "BadDigest"),
            (400, "ExpiredToken", true, "ExpiredToken"),
            (404, "", true, "404"),
            (409, "ConditionalRequestConflict", true, "409"),
            (429, "", true, "429"),
            (500, "InternalError", true, "500"),
            (503, "SlowDown", true, "503 SlowDown"),
            (507, "XMinioStorageFull", true, "507"),
            (301, "PermanentRedirect", false, "region"),
            (400, "AuthorizationHeaderMalformed", false, "region"),
            (400, "InvalidArgument", false, "will not have"),
            (403, "AccessDenied", false, "s3:PutObject"),
            (403, "InvalidAccessKeyId", false, "credentials"),
            (403, "SignatureDoesNotMatch", false, "credentials"),
            (403, "RequestTimeTooSkewed", false, "clock"),
            (404, "NoSuchBucket", false, "there is no bucket `lake` at http://127.0.0.1:9"),
            (501, "NotImplemented", false, "If-None-Match"),
        ] {
            let error = failure(status, code).into_error(&config());
            assert_eq!(error.is_retryable(), retry, "{error}");
            assert!(error.to_string().contains(text) && error.to_string().contains("the server's words"), "{error}");
        }
    }

    #[test]
    fn only_the_servers_own_word_says_that_an_object_is_not_there() {
        assert!(failure(404, "NoSuchKey").is_absence());
        assert!(!failure(404, "NoSuchBucket").is_absence());
        assert!(!failure(404, "").is_absence());
        assert!(!failure(403, "AccessDenied").is_absence());
        let deleted = |key: &str| Failure { was_deleted: true, key: key.into(), ..failure(404, "NoSuchKey") };
        assert!(deleted("bronze/raw/trades/2026/11/23/20/p0-g1-0-9-abcdef01.jsonl.zst").is_absence());
        assert!(!deleted("_commit/trades/p0/1").is_absence());
        assert!(!deleted("_commit/trades/p0/1").into_error(&config()).is_retryable());
    }

    #[test]
    fn a_precondition_may_have_failed_in_the_body_of_a_200() {
        assert!(failure(412, "PreconditionFailed").is_precondition());
        assert!(failure(412, "").is_precondition());
        assert!(failure(200, "PreconditionFailed").is_precondition());
        assert!(!failure(409, "ConditionalRequestConflict").is_precondition());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_asked_again_later() {
        let store = S3Store::new(config()).unwrap();
        let error = store.get("a").await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(!error.to_string().contains("not to be seen"), "{error}");
    }

    /// A server that takes a request's head at once and its body `after` that, answers, and says how often
    /// it was asked.
    async fn slow_server(after: Duration) -> (String, tokio::sync::watch::Receiver<u32>) {
        use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, seen) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let asked = asked.clone();
                tokio::spawn(async move {
                    let (reader, mut writer) = socket.split();
                    let (mut reader, mut line, mut length) = (BufReader::new(reader), String::new(), 0);
                    while reader.read_line(&mut line).await.unwrap() > 2 {
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        line.clear();
                    }
                    asked.send_modify(|asked| *asked += 1);
                    tokio::time::sleep(after).await;
                    if reader.read_exact(&mut vec![0; length]).await.is_ok() {
                        let answer = b"HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                        writer.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        (endpoint, seen)
    }

    #[tokio::test]
    async fn a_large_object_gets_through_a_slow_line_and_a_small_one_has_no_time_for_it() {
        let (endpoint, asked) = slow_server(Duration::from_millis(1500)).await;
        let config = S3Config { endpoint: Some(endpoint), attempt_timeout: Duration::from_secs(1), ..config() };
        let store = S3Store::new(config).unwrap();
        let body = |length| Bytes::from(vec![7; length]);
        // A minute for the body, so that a busy machine needs no more.
        store.put("bronze/large", body(60 * (128 << 10))).await.unwrap();
        assert_eq!(store.create("bronze/large", body(60 * (128 << 10))).await.unwrap(), Created::New);
        assert_eq!(*asked.borrow(), 2, "each was sent once");
        let error = store.put("bronze/small", body(10)).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("within 1s"), "{error}");
    }

    #[tokio::test]
    async fn no_key_leads_out_of_the_prefix() {
        let store = S3Store::new(config()).unwrap();
        assert!(!store.get("../a").await.unwrap_err().is_retryable());
        assert!(!store.list("a").await.unwrap_err().is_retryable());
        assert!(S3Store::new(S3Config { prefix: "tickmint".into(), ..config() }).is_err());
        assert_eq!(store.describe(), "s3://lake/tickmint/ at http://127.0.0.1:9");
        assert_eq!(store.address("a/b"), "s3://lake/tickmint/a/b");
    }
}
