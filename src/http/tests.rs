use std::time::Duration;

use actix::prelude::*;
use actix_web::body::to_bytes;
use actix_web::http::{Method, StatusCode, header};
use actix_web::test::{TestRequest, call_service, init_service};
use serde_json::Value;

use super::*;
use crate::config::HttpConfig;
use crate::supervisor::{Child, ChildSpec, Policy, Root};
use crate::warehouse::gold::tests::{MINUTE, publish, write_bars};

struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

fn state(gold: Option<&std::path::Path>) -> State {
    State::of(Arc::new(Metrics::new()), Registry::default(), gold.map(Into::into), None)
}

async fn ask(state: &State, request: TestRequest) -> Answer {
    let app = init_service(server::app(state.clone())).await;
    let response = call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body()).await.ok().unwrap();
    Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get(state: &State, path: &str) -> Answer {
    ask(state, TestRequest::get().uri(path)).await
}

#[actix::test]
async fn the_page_comes_with_a_policy_that_allows_nothing_else() {
    let page = get(&state(None), "/").await;
    assert_eq!((page.status, page.header(header::CONTENT_TYPE)), (StatusCode::OK, "text/html; charset=utf-8"));
    assert!(page.header(header::CONTENT_SECURITY_POLICY).starts_with("default-src 'none'"));
    assert_eq!(page.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert!(page.text.starts_with("<!doctype html>"));
}

#[actix::test]
async fn who_does_not_serve_shows_neither_page_nor_gold_and_says_who_does() {
    let gold = tempfile::tempdir().unwrap();
    publish(gold.path(), 7, &[]);
    let state = State { serves: false, ..state(Some(gold.path())) };
    let page = get(&state, "/").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert!(page.json()["error"].as_str().unwrap().contains("`roles` does not have `serve`"));
    let bars = get(&state, "/api/bars").await.json();
    assert!(bars["run"].is_null() && bars["note"].as_str().unwrap().contains("`serve`"), "{bars}");
    let pipeline = get(&state, "/api/pipeline").await.json();
    assert!(pipeline["gold"].is_null() && pipeline["note"].as_str().unwrap().contains("`serve`"), "{pipeline}");
    assert_eq!(get(&state, "/health").await.json()["warehouse"]["gold"]["run"], 7, "who refines is watched all the same");
}

#[actix::test]
async fn what_is_not_there_or_not_allowed_is_said_in_json() {
    let state = state(None);
    let absent = get(&state, "/nowhere").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert!(absent.json()["error"].as_str().unwrap().contains("there is no `/nowhere`"));
    for (method, path) in [(Method::POST, "/health"), (Method::DELETE, "/nowhere"), (Method::HEAD, "/")] {
        let refused = ask(&state, TestRequest::default().method(method).uri(path)).await;
        assert_eq!((refused.status, refused.header(header::ALLOW)), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
        assert_eq!(refused.json()["error"], "only GET is answered");
    }
    let bad = get(&state, "/api/bars?limit=many").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert!(bad.json()["error"].as_str().unwrap().contains("known are `symbol`"));
    assert_eq!(get(&state, "/api/bars?symbols=A").await.status, StatusCode::BAD_REQUEST);
}

#[actix::test]
async fn with_a_token_only_livez_goes_without() {
    let state = State::of(Arc::new(Metrics::new()), Registry::default(), None, Some(Secret::new("s3cret")));
    assert_eq!(get(&state, "/livez").await.status, StatusCode::OK);
    for path in ["/", "/readyz", "/health", "/metrics", "/api/pipeline", "/api/bars", "/nowhere"] {
        let refused = get(&state, path).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(refused.header(header::WWW_AUTHENTICATE).starts_with("Basic "));
        let asked = TestRequest::get().uri(path).insert_header((header::AUTHORIZATION, "Bearer s3cret"));
        assert_ne!(ask(&state, asked).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[actix::test]
async fn on_the_loopback_a_name_of_somewhere_else_is_refused() {
    let local = State { local: Some("127.0.0.1".parse().unwrap()), ..state(None) };
    let by = |host: &'static str, path| TestRequest::get().uri(path).insert_header((header::HOST, host));
    for path in ["/", "/livez", "/health", "/api/bars", "/nowhere"] {
        let refused = ask(&local, by("evil.example:8080", path)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        let why = refused.json()["error"].as_str().unwrap().to_string();
        assert!(why.contains("`evil.example:8080`") && why.contains("`http.token_file`"), "{why}");
        assert_ne!(ask(&local, by("localhost:8080", path)).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(ask(&state(None), by("tickmint.example", "/health")).await.status, StatusCode::OK, "elsewhere a token guards");
}

/// An actor that never gets through its start.
struct Stuck;

impl Actor for Stuck {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.wait(actix::fut::wrap_future(std::future::pending::<()>()));
    }
}

impl Supervised for Stuck {}
impl Child for Stuck {}

/// Asks until the answer is as wanted; the test hangs if it never is.
async fn until(state: &State, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    loop {
        let answer = get(state, path).await;
        if wanted(&answer) {
            return answer;
        }
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn an_actor_that_does_not_run_makes_the_daemon_unready_and_is_named() {
    let root = Root::start(Policy::default());
    let state = State::of(Arc::new(Metrics::new()), root.registry.clone(), None, None);
    let ready = until(&state, "/readyz", |answer| answer.status == StatusCode::OK).await;
    assert_eq!(ready.json()["status"], "ok");
    drop(root.top.spawn(ChildSpec::permanent("spool"), &Arbiter::current(), |_, _| Stuck).unwrap());
    let unready = get(&state, "/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unready.json()["complaints"][0]["path"], "spool");
    assert_eq!(get(&state, "/livez").await.status, StatusCode::OK, "it is worth keeping");
    let health = get(&state, "/health").await;
    assert_eq!((health.status, &health.json()["status"]), (StatusCode::OK, &"starting".into()));
    assert_eq!(health.json()["actors"][1]["path"], "spool");
    assert_eq!(health.json()["actors"][1]["state"], "starting");
    assert!(get(&state, "/metrics").await.text.contains("tickmint_actor_state{actor=\"spool\",state=\"starting\"} 1"));
}

#[actix::test]
async fn an_alarm_degrades_the_health_and_says_since_when_and_why() {
    let state = state(None);
    let before = get(&state, "/health").await.json();
    assert_eq!((&before["status"], &before["since_ms"]), (&"ok".into(), &before["started_ms"]));
    state.metrics.archive_failed("bronze/trades", &"put x: no route");
    let health = get(&state, "/health").await.json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["alarms"][0]["name"], "bronze/trades");
    assert_eq!(health["alarms"][0]["why"], "put x: no route");
    assert!(health["alarms"][0]["since_ms"].as_u64() <= health["now_ms"].as_u64());
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
}

#[actix::test]
async fn the_health_tells_the_version_that_readers_see_and_why_there_is_no_newer_one() {
    assert!(get(&state(None), "/health").await.json()["warehouse"].is_null(), "another daemon refines");
    let dir = tempfile::tempdir().unwrap();
    let state = state(Some(dir.path()));
    let nothing = serde_json::json!({ "gold": null, "failing": null });
    assert_eq!(get(&state, "/health").await.json()["warehouse"], nothing);
    let manifest = r#"{"run": 7, "published_at": "2026-11-23T15:00:00+00:00", "tables": {}}"#;
    std::fs::write(dir.path().join("manifest.json"), manifest).unwrap();
    state.metrics.refine_failed("test", &"unique: 1 result", None);
    state.metrics.refine_failed("test", &"unique: 2 results", None);
    let health = get(&state, "/health").await.json();
    assert_eq!(health["warehouse"]["gold"], serde_json::json!({ "run": 7, "published_at": "2026-11-23T15:00:00Z" }));
    let failing = &health["warehouse"]["failing"];
    assert_eq!(
        (&failing["phase"], &failing["error"], &failing["rounds"]),
        (&"test".into(), &"unique: 2 results".into(), &2.into())
    );
    assert!(failing["since"].as_str().unwrap().ends_with('Z'), "{failing}");
    assert_eq!((&health["status"], &health["alarms"][0]["name"]), (&"degraded".into(), &"warehouse".into()));
    state.metrics.refined(8, 1.0, Default::default(), None);
    let health = get(&state, "/health").await.json();
    assert_eq!((&health["status"], &health["warehouse"]["failing"]), (&"ok".into(), &Value::Null));
}

#[actix::test]
async fn metrics_are_openmetrics() {
    let metrics = get(&state(None), "/metrics").await;
    assert_eq!(metrics.header(header::CONTENT_TYPE), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(metrics.text.ends_with("# EOF\n"));
}

#[actix::test]
async fn the_pipeline_shows_its_stages_and_what_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let state = state(Some(dir.path()));
    let shard = state.metrics.shard("shard-1");
    state.metrics.connected(&shard);
    shard.received(9, 900, MINUTE);
    state.metrics.appended(Duration::from_millis(1), [8, 0, 1]);
    let early = get(&state, "/api/pipeline").await.json();
    assert_eq!((&early["feed"]["frames"], &early["spool"]["records"]["trades"]), (&9.into(), &8.into()));
    assert!(early["gold"].is_null() && early["note"].as_str().unwrap().starts_with("nothing is published yet"));
    publish(dir.path(), 4, &[]);
    let later = get(&state, "/api/pipeline").await.json();
    assert_eq!((&later["gold"]["run"], &later["gold"]["bars"]), (&4.into(), &7.into()));
    assert_eq!(later["gold"]["watermark"], "2026-11-23T15:00:00Z");
    assert!(later["gold"]["published_ms"].as_u64().unwrap() > 1_700_000_000_000);
}

#[actix::test]
async fn bars_come_newest_first_by_symbol_and_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let state = state(Some(dir.path()));
    let none = get(&state, "/api/bars").await.json();
    assert_eq!(none["bars"], serde_json::json!([]));
    assert!(none["note"].as_str().unwrap().starts_with("nothing is published yet"));

    write_bars(&dir.path().join("a.parquet"), &["AAPL", "BINANCE:BTCUSDT"], 0..10, 6);
    publish(dir.path(), 1, &["a.parquet"]);
    let all = get(&state, "/api/bars").await.json();
    assert_eq!(all["bars"].as_array().unwrap().len(), 20);
    assert_eq!(all["symbols"], serde_json::json!(["AAPL", "BINANCE:BTCUSDT"]));
    let newest = &all["bars"][0];
    assert_eq!((&newest["symbol"], &newest["open"], &newest["trades"]), (&"AAPL".into(), &"100.09".into(), &42.into()));
    assert_eq!(newest["bucket_start_ms"], MINUTE / 1000 + 9 * 60_000);
    let one = get(&state, "/api/bars?symbol=BINANCE:BTCUSDT&limit=3").await.json();
    let symbols: Vec<_> = one["bars"].as_array().unwrap().iter().map(|bar| bar["symbol"].as_str().unwrap()).collect();
    assert_eq!(symbols, ["BINANCE:BTCUSDT"; 3]);
    let latest = get(&state, "/api/bars?per_symbol=1").await.json();
    assert_eq!(latest["bars"].as_array().unwrap().len(), 2);

    std::fs::write(dir.path().join("manifest.json"), "{}").unwrap();
    let broken = get(&state, "/api/bars").await;
    assert_eq!(broken.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(broken.json()["error"].as_str().unwrap().contains("manifest.json"));
}

#[actix::test]
async fn a_port_in_use_is_told_with_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let error = server::bind(&HttpConfig { listen, token: None }).unwrap_err().to_string();
    assert!(error.starts_with(&format!("`http.listen` is `{listen}`, where another program listens already")), "{error}");
    let listen = "203.0.113.7:80".parse().unwrap();
    let error = server::bind(&HttpConfig { listen, token: None }).unwrap_err().to_string();
    assert!(error.contains("use an address of this machine"), "{error}");
}

/// One request over a real socket.
async fn fetch(address: std::net::SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[actix::test]
async fn it_serves_on_a_real_port_and_stops() {
    let config = HttpConfig { listen: "127.0.0.1:0".parse().unwrap(), token: None };
    let server = server::start(&config, state(None)).unwrap();
    let address = server.address;
    assert!(fetch(address).await.starts_with("HTTP/1.1 200 OK"));
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[actix::test]
async fn as_an_actor_it_keeps_its_port_over_a_restart_and_drains() {
    let config = HttpConfig { listen: "127.0.0.1:0".parse().unwrap(), token: None };
    let listener = server::bind(&config).unwrap();
    let address = listener.local_addr().unwrap();
    let root = Root::start(Policy::default());
    let state = State::of(Arc::new(Metrics::new()), root.registry.clone(), None, None);
    let at = state.clone();
    let web = move |_: &mut Context<Web>, vitals| Web::new(vitals, listener, at);
    let web = root.top.spawn(ChildSpec::permanent("http"), &Arbiter::current(), web).unwrap();
    assert!(fetch(address).await.starts_with("HTTP/1.1 200 OK"));
    assert!(web.send(web::Crash).await.is_err());
    until(&state, "/health", |answer| answer.json()["actors"][1]["restarts"] == 1).await;
    until(&state, "/readyz", |answer| answer.status == StatusCode::OK).await;
    assert!(fetch(address).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(root.shutdown().await, []);
}
