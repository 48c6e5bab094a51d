//! What the daemon says over HTTP in each of its states, and what `/metrics` is made of.

use std::collections::BTreeSet;

use super::desk::{Answer, Desk, SECRET};

fn statuses(desk: &Desk) -> [u16; 3] {
    ["/livez", "/readyz", "/health"].map(|path| desk.get(path).unwrap().status)
}

fn is_connected(answer: &Answer) -> bool {
    answer.json()["shards"][0]["connected"] == true
}

/// There is an alarm of the feed, and everything runs.
fn is_degraded(health: &Answer) -> bool {
    let health = health.json();
    health["status"] == "degraded" && health["alarms"][0]["name"] == "feed/shard-1"
}

#[test]
fn running_degraded_and_well_again() {
    let desk = Desk::new();
    let key = format!("{SECRET}-key");
    // The feed is away: an alarm that names it; ready all the same, since nothing here is broken.
    let mut daemon = desk.daemon();
    let health = desk.until("the alarm", "/health", is_degraded).json();
    let why = health["alarms"][0]["why"].as_str().unwrap();
    assert!(why.contains("no connection") && why.contains("ws://127.0.0.1:1") && why.contains("`feed.url`"), "{why}");
    desk.until("all actors run", "/readyz", |ready| ready.status == 200);
    assert_eq!(statuses(&desk), [200, 200, 200]);
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());

    // It is there.
    let mut exchange = desk.exchange(&key, "--rate 200", &[]);
    let mut daemon = desk.daemon();
    desk.until("the feed is connected", "/api/pipeline", is_connected);
    let health = desk.until("all is well", "/health", |health| health.json()["status"] == "ok").json();
    assert_eq!(health["alarms"], serde_json::json!([]));
    assert_eq!(statuses(&desk), [200, 200, 200]);
    let page = desk.get("/").unwrap();
    assert!(page.status == 200 && page.head.contains("text/html") && page.body.contains("<title>Tickmint"));
    assert_eq!(desk.get("/api/bars").unwrap().json()["bars"], serde_json::json!([]));
    assert_eq!(desk.get("/nowhere").unwrap().status, 404);
    let metrics = desk.get("/metrics").unwrap();
    assert!(metrics.head.contains("application/openmetrics-text"), "{}", metrics.head);
    let families = families(&metrics.body).unwrap();
    assert!(
        families.len() > 20 && families.iter().all(|name| name.starts_with("tickmint_") || name.starts_with("process_")),
        "{families:?}"
    );

    // It goes away, and is said to be.
    exchange.signal("TERM");
    assert_eq!(exchange.ends(), Some(0));
    desk.until("the alarm", "/health", is_degraded);
    assert_eq!(statuses(&desk), [200, 200, 200]);
    daemon.signal("INT");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
}

#[test]
fn a_refused_key_is_told_and_not_tried_again_and_again() {
    let desk = Desk::new();
    let _exchange = desk.exchange("another-key", "", &[]);
    let mut daemon = desk.daemon();
    let health = desk.until("the alarm", "/health", is_degraded).json();
    let parts = ["the key of shard-1 was refused (401)", "check its file or variable in `feed.keys`"];
    for part in parts {
        assert!(health["alarms"][0]["why"].as_str().unwrap().contains(part), "{health:#}");
    }
    // With the same back-off as for a server that is away (20 ms here) the next try would be over.
    desk.run("status --config").says(1, &[&parts[..], &["waiting 60.0 s before the next try"]].concat());
    assert_eq!(daemon.log().matches("no connection to the feed").count(), 1, "{}", daemon.log());
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains(SECRET), "{}", daemon.log());
}

/// Reads OpenMetrics text strictly; returns the names of the families.
fn families(text: &str) -> Result<BTreeSet<String>, String> {
    let Some(text) = text.strip_suffix("# EOF\n") else { return Err("no `# EOF` at the end".into()) };
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        if let Some(head) = line.strip_prefix("# ") {
            let mut words = head.splitn(3, ' ');
            let (word, name, rest) = (words.next().unwrap(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match word {
                "HELP" if rest.is_empty() => return wrong("no help"),
                "HELP" | "UNIT" => {}
                "TYPE" => kind = rest.to_string(),
                _ => return wrong("unknown comment"),
            }
            if name != family && !families.insert(name.to_string()) {
                return wrong("a family that comes twice");
            }
            family = name.to_string();
            continue;
        }
        let Some((name, value)) = line.rsplit_once(' ') else { return wrong("no value") };
        if value.parse::<f64>().is_err() {
            return wrong("not a number");
        }
        let bare = name.split('{').next().unwrap();
        let suffixes: &[&str] = match kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            "info" => &["_info"],
            _ => return wrong("unknown type"),
        };
        if !suffixes.iter().any(|suffix| *bare == format!("{family}{suffix}")) {
            return wrong("of no family");
        }
        if name.contains('{') && !(name.ends_with("\"}") && name.contains("=\"")) {
            return wrong("labels");
        }
        if !series.insert(name.to_string()) {
            return wrong("a series that comes twice");
        }
    }
    Ok(families)
}

#[test]
fn the_reader_of_metrics_refuses_what_is_none() {
    let good = "# HELP a_b Some.\n# TYPE a_b counter\na_b_total{x=\"1\"} 5\na_b_total{x=\"2\"} 5\n# EOF\n";
    assert_eq!(families(good).unwrap().into_iter().collect::<Vec<_>>(), ["a_b"]);
    for (from, to) in [
        ("# EOF\n", ""),
        ("_total{x=\"1\"}", "{x=\"1\"}"),
        ("x=\"2\"", "x=\"1\""),
        (" 5\na", " five\na"),
        ("counter", "thing"),
        ("{x=\"1\"}", "{x=1}"),
        ("Some.", ""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(families(&bad).is_err(), "{bad}");
    }
}
