//! The proxy in front of real servers, and the real client in front of the proxy.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;

use super::super::servers::{Server, or_skip};
use super::*;

const BUCKET: &str = "bronze";
const SLOT: &str = "_commit/trades/p0/999-999999.json";

/// A server, the proxy before it, a client of the proxy that does not try again, and one of the server
/// itself, which says what is really there.
struct Rig {
    proxy: S3Proxy,
    client: Client,
    direct: Client,
    server: Server,
    _folder: tempfile::TempDir,
}

async fn rig(start: fn(&std::path::Path) -> Result<Server, super::super::servers::Skip>) -> Option<Rig> {
    let folder = tempfile::tempdir().unwrap();
    let server = or_skip(start(folder.path()))?;
    let proxy = S3Proxy::start(server.endpoint()).unwrap();
    let client = client(&proxy.endpoint(), RetryConfig::disabled());
    let direct = self::client(server.endpoint(), RetryConfig::disabled());
    direct.create_bucket().bucket(BUCKET).send().await.unwrap();
    Some(Rig { proxy, client, direct, server, _folder: folder })
}

fn client(endpoint: &str, retries: RetryConfig) -> Client {
    let keys = Credentials::new(Server::ACCESS_KEY, Server::SECRET_KEY, None, None, "test");
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(Server::REGION))
        .credentials_provider(keys)
        .force_path_style(true)
        .retry_config(retries)
        .timeout_config(TimeoutConfig::builder().read_timeout(Duration::from_secs(5)).build());
    Client::from_conf(config.build())
}

/// `Err`: the status, or 0 where there was no answer.
async fn put_if_none(client: &Client, key: &str, body: &[u8]) -> Result<(), (u16, String)> {
    let put = client.put_object().bucket(BUCKET).key(key).if_none_match("*");
    match put.body(ByteStream::from(body.to_vec())).send().await {
        Ok(_) => Ok(()),
        Err(error) => Err((status(&error), error.code().unwrap_or_default().to_owned())),
    }
}

fn status<E>(error: &SdkError<E>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

async fn get(client: &Client, key: &str) -> Option<Vec<u8>> {
    let object = client.get_object().bucket(BUCKET).key(key).send().await.ok()?;
    Some(object.body.collect().await.ok()?.to_vec())
}

async fn everything_passes(rig: &Rig) {
    let client = &rig.client;
    for (key, size) in [("a", 0), ("b c/ü+%~", 10), ("big", 3_000_000)] {
        let body = vec![b'x'; size];
        assert_eq!(put_if_none(client, key, &body).await, Ok(()), "{key}");
        assert_eq!(put_if_none(client, key, b"other").await.unwrap_err().0, 412, "{key}");
        assert_eq!(get(client, key).await, Some(body), "{key}");
        assert_eq!(get(&rig.direct, key).await.map(|body| body.len()), Some(size), "{key}");
        let head = client.head_object().bucket(BUCKET).key(key).send().await.unwrap();
        assert_eq!(head.content_length(), Some(size as i64));
    }
    assert!(client.head_object().bucket(BUCKET).key("none").send().await.is_err());
    let list = client.list_objects_v2().bucket(BUCKET).prefix("b").max_keys(1).send().await.unwrap();
    assert_eq!(list.contents()[0].key(), Some("b c/ü+%~"));
    client.delete_object().bucket(BUCKET).key("a").send().await.unwrap();
    assert_eq!(get(client, "a").await, None);

    // A body whose length and checksum are known only at its end: `aws-chunked`, with a trailer.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("object");
    std::fs::write(&file, vec![b'y'; 300_000]).unwrap();
    let stream = ByteStream::from_path(&file).await.unwrap();
    client.put_object().bucket(BUCKET).key("streamed").body(stream).send().await.unwrap();
    assert_eq!(get(&rig.direct, "streamed").await, Some(vec![b'y'; 300_000]));

    let seen = rig.proxy.seen();
    assert!(seen.iter().all(|seen| seen.fault.is_none() && seen.answer.is_some()));
    assert!(seen.iter().any(|seen| seen.method == "PUT" && seen.target.starts_with("/bronze/b c/ü+%~")));
}

#[tokio::test]
async fn everything_passes_to_minio() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    everything_passes(&rig).await;
}

#[tokio::test]
async fn everything_passes_to_seaweedfs() {
    let Some(rig) = rig(Server::start_seaweedfs).await else {
        return;
    };
    everything_passes(&rig).await;
}

#[tokio::test]
async fn a_refused_request_never_reaches_the_server() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    rig.proxy.inject(Rule::once(Fault::Refuse(Reply::SLOW_DOWN)).method("PUT").path("_commit/"));
    rig.proxy.inject(Rule::once(Fault::Refuse(Reply::CONFLICT)).path("_commit/"));
    let refusals = [(503, "SlowDown"), (409, "ConditionalRequestConflict")];
    for (status, code) in refusals {
        let refused = put_if_none(&rig.client, SLOT, b"1").await;
        assert_eq!(refused, Err((status, code.to_owned())));
        assert_eq!(get(&rig.direct, SLOT).await, None);
        assert_eq!(put_if_none(&rig.client, &format!("data-{status}"), b"1").await, Ok(()));
    }
    assert_eq!(put_if_none(&rig.client, SLOT, b"1").await, Ok(()));
}

#[tokio::test]
async fn a_lost_answer_shows_as_412_when_the_client_asks_again() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let client = client(&rig.proxy.endpoint(), retries);
    let error = Fault::CarryOutThen(Reply::INTERNAL_ERROR);
    for (number, fault) in [error, Fault::Reset { carried_out: true }].into_iter().enumerate() {
        rig.proxy.inject(Rule::once(fault).method("PUT"));
        let key = format!("slot-{number}");
        assert_eq!(put_if_none(&client, &key, b"ours").await.unwrap_err().0, 412, "{fault:?}");
        assert_eq!(get(&rig.direct, &key).await, Some(b"ours".to_vec()));
    }
    let answers: Vec<_> = rig.proxy.seen().into_iter().map(|seen| seen.answer).collect();
    assert_eq!(answers, [Some(200), Some(412), Some(200), Some(412)]);
}

#[tokio::test]
async fn a_request_without_an_answer_was_carried_out_or_not() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    for carried_out in [true, false] {
        for fault in [Fault::NoAnswer { carried_out }, Fault::Reset { carried_out }] {
            rig.proxy.inject(Rule::once(fault));
            let key = format!("{fault:?}");
            let answer = tokio::time::timeout(Duration::from_secs(1), put_if_none(&rig.client, &key, b"1"));
            match (fault, answer.await) {
                (Fault::NoAnswer { .. }, Err(_)) => {}
                (Fault::Reset { .. }, Ok(Err((0, _)))) => {}
                (_, other) => panic!("{fault:?}: {other:?}"),
            }
            assert_eq!(get(&rig.direct, &key).await.is_some(), carried_out, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_cut_answer_is_noticed_and_a_slow_one_comes() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    assert_eq!(put_if_none(&rig.client, "k", &[b'x'; 100_000]).await, Ok(()));
    rig.proxy.inject(Rule::once(Fault::CutAnswer).method("GET").after(1));
    assert!(get(&rig.client, "k").await.is_some());
    assert_eq!(get(&rig.client, "k").await, None);
    rig.proxy.inject(Rule::always(Fault::Slow(Duration::from_millis(20))));
    assert!(get(&rig.client, "k").await.is_some());
    rig.proxy.clear();
    assert!(get(&rig.client, "k").await.is_some());
    let faults: Vec<_> = rig.proxy.seen().into_iter().map(|seen| seen.fault.is_some()).collect();
    assert_eq!(faults, [false, false, true, true, false]);
}

#[tokio::test]
async fn a_request_may_arrive_after_its_sender_is_gone() {
    let Some(rig) = rig(Server::start_minio).await else {
        return;
    };
    for (key, winner, answer) in [("first", "the dead", 200), ("second", "the living", 412)] {
        rig.proxy.inject(Rule::once(Fault::Hold).path(key));
        let put = put_if_none(&rig.client, key, b"the dead");
        let is_it = |seen: &Seen| seen.target.contains(key);
        let is_held = |seen: &[Seen]| seen.last().is_some_and(is_it);
        tokio::select! {
            done = put => panic!("{done:?}"),
            () = rig.proxy.wait_until(is_held) => {} // here the sender dies
        }
        assert_eq!(get(&rig.direct, key).await, None);
        if answer == 412 {
            assert_eq!(put_if_none(&rig.direct, key, b"the living").await, Ok(()));
        }
        rig.proxy.release();
        let has_arrived = |seen: &[Seen]| seen.iter().any(|seen| is_it(seen) && seen.answer == Some(answer));
        rig.proxy.wait_until(has_arrived).await;
        assert_eq!(get(&rig.direct, key).await, Some(winner.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn a_server_that_is_down_looks_like_a_broken_connection() {
    let Some(mut rig) = rig(Server::start_minio).await else {
        return;
    };
    assert_eq!(put_if_none(&rig.client, "before", b"1").await, Ok(()));
    rig.server.stop();
    assert_eq!(put_if_none(&rig.client, "while", b"1").await.unwrap_err().0, 0);
    rig.server.start_again();
    assert_eq!(put_if_none(&rig.client, "while", b"1").await, Ok(()));
    assert!(get(&rig.client, "before").await.is_some());
}
