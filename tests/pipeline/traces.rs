//! Traces of a real daemon in a real Jaeger: one goes from a frame to the dbt run that took it in, also
//! over a kill -9; and a collector that is away costs nothing but the traces.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kills::count;
use super::rig::{Rig, end, fetch, pause};
use crate::support::servers::{Server, or_skip};

/// The daemon sends what it has every five seconds.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// A small market, and a daemon that sends traces of a share of its frames to `collector`.
fn rig(collector: &str, sample: f64) -> Rig {
    let symbols = tickmint::exchange::simulated_symbols(3);
    let more = format!("[telemetry]\njson = true\notlp_endpoint = {collector:?}\nsample = {sample:?}\n");
    Rig::new(&["--simulate", "3", "--rate", "40"], &symbols, &more)
}

/// Changes the daemon's config.
fn reconfigure(rig: &Rig, old: &str, new: &str) {
    let path = rig.path("tickmint.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    assert!(config.contains(old), "{config}");
    std::fs::write(path, config.replace(old, new)).unwrap();
}

/// A span as Jaeger has it; times in microseconds, rounded down.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: Option<String>,
    links: usize,
    begin: u64,
    end: u64,
    tags: BTreeMap<String, Value>,
    /// Which life of the daemon made it.
    life: String,
}

fn tags(tags: &Value) -> BTreeMap<String, Value> {
    let tags = tags.as_array().into_iter().flatten();
    tags.map(|tag| (tag["key"].as_str().unwrap().to_string(), tag["value"].clone())).collect()
}

/// The spans of each trace, by name. Where there are several of a name, the first is the one.
fn traces(jaeger: &Server) -> Vec<BTreeMap<String, Span>> {
    let address = jaeger.endpoint().trim_start_matches("http://");
    let answer = fetch(address, "/api/traces?service=tickmint&lookback=1h&limit=5000").unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    let traces = answer["data"].as_array().cloned().unwrap_or_default();
    traces.iter().map(spans).collect()
}

fn spans(trace: &Value) -> BTreeMap<String, Span> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let mut spans: Vec<(String, Span)> = Vec::new();
    for span in trace["spans"].as_array().unwrap() {
        let references = span["references"].as_array().cloned().unwrap_or_default();
        let (parents, links): (Vec<_>, Vec<_>) = references.iter().partition(|reference| reference["refType"] == "CHILD_OF");
        let process = &trace["processes"][span["processID"].as_str().unwrap()];
        let begin = span["startTime"].as_u64().unwrap();
        spans.push((
            text(&span["operationName"]),
            Span {
                trace: text(&span["traceID"]),
                id: text(&span["spanID"]),
                parent: parents.first().map(|parent| text(&parent["spanID"])),
                links: links.len(),
                begin,
                end: begin + span["duration"].as_u64().unwrap(),
                tags: tags(&span["tags"]),
                life: text(&tags(&process["tags"])["service.instance.id"]),
            },
        ));
    }
    spans.sort_by_key(|(_, span)| std::cmp::Reverse(span.begin));
    spans.into_iter().collect()
}

/// Waits for a trace that has spans of all these names.
fn trace_with(jaeger: &Server, names: &[&str]) -> BTreeMap<String, Span> {
    let until = Instant::now() + ARRIVES_WITHIN;
    loop {
        let traces = traces(jaeger);
        if let Some(trace) = traces.iter().find(|trace| names.iter().all(|name| trace.contains_key(*name))) {
            return trace.clone();
        }
        let found: Vec<Vec<_>> = traces.iter().filter(|trace| trace.len() > 2).map(|trace| trace.keys().collect()).collect();
        assert!(Instant::now() < until, "no trace with {names:?} among {} traces, {found:?}", traces.len());
        pause(Duration::from_millis(200));
    }
}

/// Jaeger rounds a beginning and a duration down, so an end may be shown early by both.
const ROUNDING: u64 = 2;

fn is_within(inner: &Span, outer: &Span) -> bool {
    inner.begin >= outer.begin && inner.end <= outer.end + ROUNDING
}

#[test]
fn one_trace_goes_from_a_frame_through_the_spool_and_bronze_to_dbt() {
    let folder = tempfile::tempdir().unwrap();
    let Some(jaeger) = or_skip(Server::start_jaeger(folder.path())) else { return };
    let rig = rig(jaeger.otlp_endpoint(), 1.0);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt");
    reconfigure(&rig, "enabled = false", &format!("every = \"1s\"\nproject_dir = {project:?}"));
    let mut daemon = rig.daemon();
    rig.wait_until("Gold is published", |pipeline| pipeline["silver"]["runs"].as_u64() > Some(1));
    let metrics = rig.text("/metrics").unwrap();
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());

    let names = ["frame", "spool append", "bronze object", "warehouse refine", "dbt build silver", "dbt build gold"];
    let trace = trace_with(&jaeger, &names);
    let [frame, append, object, refine, silver, gold] = names.map(|name| &trace[name]);
    assert_eq!(frame.parent, None);
    assert_eq!((append.parent.as_ref(), object.parent.as_ref()), (Some(&frame.id), Some(&frame.id)));
    assert_eq!(refine.parent.as_ref(), Some(&object.id));
    assert_eq!((silver.parent.as_ref(), gold.parent.as_ref()), (Some(&refine.id), Some(&refine.id)));
    assert!(is_within(append, frame), "a frame is durable when its append is: {trace:#?}");
    assert!(object.begin + ROUNDING >= append.end, "only what is durable is archived: {trace:#?}");
    assert!(refine.begin >= object.begin, "only what is archived is refined: {trace:#?}");
    assert!(is_within(silver, refine) && is_within(gold, refine) && gold.begin + ROUNDING >= silver.end, "{trace:#?}");
    assert!(object.tags["tickmint.records"].as_u64() > Some(0) && object.tags["tickmint.stream"] == "trades", "{trace:#?}");
    let many = traces(&jaeger);
    assert!(many.iter().flat_map(BTreeMap::values).any(|span| span.links > 0), "no batch has more than one frame");

    // The trace is found from the logs and from dbt's own artifacts as well.
    let lines: Vec<Value> = rig.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let published = lines.iter().filter(|line| line["message"] == "Gold is published");
    let logged: Vec<_> = published.filter_map(|line| line["span"]["trace_id"].as_str()).collect();
    assert!(logged.contains(&&*frame.trace), "{} is not in {logged:?}", frame.trace);
    let results = find(rig.dir.path(), "run_results.json").expect("dbt leaves its results");
    let results: Value = serde_json::from_slice(&std::fs::read(results).unwrap()).unwrap();
    let named = results["metadata"]["env"]["TRACEPARENT"].as_str().unwrap_or_else(|| panic!("{}", results["metadata"]));
    let runs = many.iter().filter_map(|trace| trace.get("warehouse refine"));
    assert!(runs.clone().any(|run| named.contains(&run.id)), "{named} is none of {:?}", runs.collect::<Vec<_>>());

    for (operation, outcome) in [("create", "ok"), ("put", "ok"), ("get", "ok")] {
        let series = format!("tickmint_store_request_seconds_count{{operation=\"{operation}\",outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        assert!(line.is_some_and(|count| count != "0"), "no {series} in\n{metrics}");
    }
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => find(&path, name),
        false => (path.file_name().unwrap() == name).then_some(path),
    })
}

#[test]
fn a_killed_daemon_s_successor_goes_on_with_the_traces_in_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let Some(jaeger) = or_skip(Server::start_jaeger(folder.path())) else { return };
    let mut rig = rig(jaeger.otlp_endpoint(), 1.0);
    reconfigure(&rig, "flush_after = \"150ms\"", "flush_after = \"1h\"");
    let mut first = rig.daemon();
    let durable = trace_with(&jaeger, &["frame", "spool append"]);
    assert!(!durable.contains_key("bronze object"), "{durable:#?}");
    first.0.kill().unwrap();
    first.0.wait().unwrap();

    // The log of the dead is archived at once, whatever `flush_after` is.
    let mut second = rig.daemon();
    rig.wait_until("what the dead left is archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(0));
    let over = "tickmint_gaps_total{reason=\"process_died\"} 1";
    let until = Instant::now() + ARRIVES_WITHIN;
    while !rig.text("/metrics").is_some_and(|metrics| metrics.contains(over)) {
        assert!(Instant::now() < until, "no {over} in\n{:?}", rig.text("/metrics"));
        pause(Duration::from_millis(50));
    }
    assert_eq!(end(&mut second), Some(0), "{}", rig.log());
    rig.end_exchange();

    let trace = trace_with(&jaeger, &["frame", "bronze object"]);
    let (frame, object) = (&trace["frame"], &trace["bronze object"]);
    assert_eq!(object.parent.as_ref(), Some(&frame.id));
    let joined = traces(&jaeger)
        .into_iter()
        .filter_map(|trace| Some((trace.get("frame")?.life.clone(), trace.get("bronze object")?.life.clone())));
    let joined: Vec<_> = joined.collect();
    assert!(joined.iter().any(|(frame, object)| frame != object), "no trace goes over the kill: {joined:?}");
    let (report, well) = rig.verify();
    assert!(well && count(&report, "archived") > 0, "{report:#}");
}

#[test]
fn where_nothing_is_sampled_nothing_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let Some(jaeger) = or_skip(Server::start_jaeger(folder.path())) else { return };
    let rig = rig(jaeger.otlp_endpoint(), 0.0);
    let mut daemon = rig.daemon();
    rig.wait_until("trades are archived", |pipeline| pipeline["bronze"]["trades"]["records"].as_u64() > Some(20));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    assert!(traces(&jaeger).is_empty(), "{:#?}", traces(&jaeger));
    assert!(!slots(&rig).contains("traceparent"), "a slot names a trace that nobody began");
}

/// All slots of the trades, one after another.
fn slots(rig: &Rig) -> String {
    let entries = std::fs::read_dir(rig.path("lake/_commit/trades/p0")).unwrap();
    let text = entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect::<String>();
    assert!(text.contains("\"kind\":\"data\""), "{text}");
    text
}

#[test]
fn a_collector_that_takes_and_never_answers_holds_up_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let hung = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap(); // it was asked
        (listener, connection)
    });
    let mut rig = rig(&endpoint, 1.0);
    let mut daemon = rig.daemon();
    let held = hung.join().unwrap();
    let archived = |pipeline: &Value| pipeline["bronze"]["trades"]["records"].as_u64();
    let before = archived(&rig.get("/api/pipeline").unwrap());
    rig.wait_until("archiving goes on", |pipeline| archived(pipeline) > before.map(|before| before + 100));
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    drop(held);
    rig.end_exchange();
    let (report, well) = rig.verify();
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert!(slots(&rig).contains("traceparent"), "nothing was traced");
}
