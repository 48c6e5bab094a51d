//! `tickmint check` and `verify` read what a bucket deletes by itself, on real servers.

use std::process::Command;

use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    NoncurrentVersionExpiration,
};

use tickmint::domain::chain::Position;
use tickmint::domain::hour::Hour;
use tickmint::domain::identity::LogId;
use tickmint::domain::stream::Stream;

use super::*;
use crate::pipeline::rig::TICKMINT;
use crate::support::servers::free_ports;

/// As the file of rules is written for the owner's tools.
fn rules(text: &str) -> Vec<LifecycleRule> {
    let file: serde_json::Value = serde_json::from_str(text).unwrap();
    let rule = |rule: &serde_json::Value| {
        let days = |value: &serde_json::Value| Some(i32::try_from(value.as_i64()?).unwrap());
        let expiration = LifecycleExpiration::builder().set_days(days(&rule["Expiration"]["Days"])).build();
        let noncurrent = days(&rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
            .map(|days| NoncurrentVersionExpiration::builder().noncurrent_days(days).build());
        LifecycleRule::builder()
            .id(rule["ID"].as_str().unwrap())
            .status(ExpirationStatus::from(rule["Status"].as_str().unwrap()))
            .filter(LifecycleRuleFilter::builder().prefix(rule["Filter"]["Prefix"].as_str().unwrap()).build())
            .expiration(expiration)
            .set_noncurrent_version_expiration(noncurrent)
            .build()
            .unwrap()
    };
    file["Rules"].as_array().unwrap().iter().map(rule).collect()
}

/// Those of the manual.
fn example() -> Vec<LifecycleRule> {
    let manual = include_str!("../../docs/bucket.md");
    let (_, rest) = manual.split_once("## Lifecycle rules").unwrap();
    rules(rest.split("```json").nth(1).unwrap().split("```").next().unwrap())
}

fn deletes(id: &str, prefix: &str, days: u32) -> LifecycleRule {
    let rule = serde_json::json!({"ID": id, "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}});
    rules(&serde_json::json!({"Rules": [rule]}).to_string()).remove(0)
}

impl Rig {
    async fn set_rules(&self, rules: Vec<LifecycleRule>) {
        let rules = BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build().unwrap();
        let request = self.admin.put_bucket_lifecycle_configuration().bucket(BUCKET).lifecycle_configuration(rules);
        request.send().await.unwrap();
    }

    /// What `tickmint check` says of the rules, by this way to the server, and its exit code.
    fn check(&self, endpoint: &str) -> (Option<i32>, String) {
        let (code, said) = self.tickmint("check", endpoint);
        let of_the_rules: Vec<_> = said.lines().filter(|line| line.contains("lifecycle rules of the bucket")).collect();
        (code, of_the_rules.join("\n"))
    }

    /// What a command prints, by this way to the server, and its exit code.
    fn tickmint(&self, command: &str, endpoint: &str) -> (Option<i32>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let [port] = free_ports();
        let config = format!(
            "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[[feed.keys]]\nkey_file = {:?}\nsymbols = [\"A\"]\n\
             [bronze]\nstore = \"s3://{BUCKET}/tickmint\"\n\
             [bronze.s3]\nendpoint = {endpoint:?}\naccess_key_file = {:?}\nsecret_key_file = {:?}\n[warehouse]\nenabled = false\n",
            dir.path().join("data"),
            path("key", "key"),
            path("access", Server::ACCESS_KEY),
            path("secret", Server::SECRET_KEY),
        );
        let output = Command::new(TICKMINT).args([command, "--config"]).arg(path("tickmint.toml", &config)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

#[tokio::test]
async fn check_fails_on_rules_of_minio_that_delete_the_chain_or_bronze_too_early() {
    let Some(rig) = Rig::minio().await else { return };
    let endpoint = rig.server.endpoint();
    let none = "ok    lifecycle rules of the bucket `lake`: no rule deletes objects: they are kept for ever";
    assert_eq!(rig.check(endpoint), (Some(0), none.into()));

    rig.set_rules(example()).await;
    let (code, said) = rig.check(endpoint);
    assert!(code == Some(0) && said.starts_with("ok    ") && said.matches("is kept for 731 days by rule").count() == 2, "{said}");

    rig.set_rules(vec![deletes("tidy", "", 900), deletes("short", "tickmint/bronze/typed/", 30)]).await;
    let (code, said) = rig.check(endpoint);
    assert_eq!((code, said.matches("FAIL  ").count()), (Some(1), 2), "{said}");
    assert!(
        said.contains("rule `tidy` (prefix ``, after 900 days) deletes the commit chain below `tickmint/_commit/`"),
        "{said}"
    );
    assert!(said.contains("rule `short` (prefix `tickmint/bronze/typed/`, after 30 days) deletes Bronze"), "{said}");

    let proxy = S3Proxy::start(endpoint).unwrap();
    for (reply, words) in [
        (Reply::FORBIDDEN, "allow these credentials s3:GetLifecycleConfiguration"),
        (Reply { status: 501, code: "NotImplemented" }, "this server has none to be asked for"),
        (Reply::SLOW_DOWN, "503 SlowDown"),
    ] {
        proxy.inject(Rule::always(Fault::Refuse(reply)).path("?lifecycle"));
        let (code, said) = rig.check(&proxy.endpoint());
        assert!(code == Some(0) && said.starts_with("note  ") && said.contains("is not known"), "{said}");
        assert!(said.contains(words), "{said}");
        proxy.clear();
    }
}

#[tokio::test]
async fn the_rules_of_seaweedfs_are_read_too() {
    let Some(rig) = Rig::seaweedfs().await else { return };
    let store = S3Store::new(rig.config()).unwrap();
    assert!(store.lifecycle().await.unwrap().kept.contains("for ever"));
    rig.set_rules(example()).await;
    let judged = store.lifecycle().await.unwrap();
    assert_eq!((judged.faults.len(), judged.kept.matches("is kept for 731 days").count()), (0, 2), "{judged:?}");
    rig.set_rules(vec![deletes("short", "tickmint/bronze/", 30)]).await;
    let judged = store.lifecycle().await.unwrap();
    assert!(judged.faults.len() == 1 && judged.faults[0].contains("after 30 days"), "{judged:?}");
}

/// A chain with one slot of ten trades that was written so many days ago, and none of its objects.
async fn slot_without_objects(store: &dyn Store, days_ago: i64) {
    let (log, writer) = (LogId::generate(), LogId::generate());
    let written_at = tickmint::clock::now() - days_ago * 86_400_000_000;
    let hour = Hour::of(written_at);
    let slot = |position: Position, incarnation: Option<LogId>, body: serde_json::Value| {
        let mut slot = serde_json::json!({
            "version": 1, "stream": "trades", "partition": 0, "generation": position.generation, "start": position.start,
            "incarnation": incarnation, "carry": {"seen": {}, "archive_hour": null}, "writer": writer, "epoch": 0,
            "written_at": written_at,
        });
        slot.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        (position.key(Stream::Trades.into()), slot.to_string())
    };
    let object = |form: &str| serde_json::json!({"key": format!("bronze/{form}/trades/x"), "bytes": 1, "sha256": ""});
    let data = serde_json::json!({
        "rows": 10, "raw": object("raw"), "typed": object("typed"), "hour": hour, "min_time": written_at, "max_time": written_at,
        "event_hours": [hour],
    });
    for (key, text) in [
        slot(Position::default(), None, serde_json::json!({"kind": "end", "next": log})),
        slot(Position { generation: 1, start: 0 }, Some(log), serde_json::json!({"kind": "data", "end": 9, "data": data})),
    ] {
        assert_eq!(store.create(&key, body(&text)).await.unwrap(), Created::New);
    }
}

#[tokio::test]
async fn verify_tells_what_has_expired_by_a_rule_of_minio_from_what_is_missing() {
    let Some(rig) = Rig::minio().await else { return };
    let endpoint = rig.server.endpoint();
    slot_without_objects(&*rig.store(), 800).await;
    let missing = |(code, said): &(Option<i32>, String)| {
        assert_eq!((*code, said.matches("is named by a slot and is not there").count()), (Some(1), 2), "{said}");
        assert!(!said.contains("have expired:"), "{said}");
    };
    missing(&rig.tickmint("verify", endpoint));

    rig.set_rules(example()).await;
    let (code, said) = rig.tickmint("verify", endpoint);
    assert!(code == Some(0) && said.contains("have expired: 10 records in raw, 10 in typed"), "{said}");
    let proxy = S3Proxy::start(endpoint).unwrap();
    proxy.inject(Rule::always(Fault::Refuse(Reply::FORBIDDEN)).path("?lifecycle"));
    let unknown = rig.tickmint("verify", &proxy.endpoint());
    missing(&unknown);
    assert!(unknown.1.contains("2 objects are missing, and whether they have expired is not known"), "{}", unknown.1);
    assert!(unknown.1.contains("allow these credentials s3:GetLifecycleConfiguration"), "{}", unknown.1);

    rig.set_rules(vec![deletes("later", "tickmint/bronze/", 802)]).await;
    missing(&rig.tickmint("verify", endpoint));
}
