//! What a feed can do to a session: a rival with the same key, silence, refusals, errors, trades that
//! come late, symbols that do not trade. Each is told for what it is, and the ledger holds.

use futures_util::StreamExt;
use serde_json::Value;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::kills::{assert_gaps_between_sessions, count};
use super::rig::{Process, Rig, end};

/// A daemon with two keys, each for ten symbols.
fn rig(exchange: &[&str]) -> Rig {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let (some, others) = symbols.split_at(10);
    let exchange = [&["--simulate", "20", "--rate", "2000", "--ping-every", "100ms"], exchange].concat();
    Rig::with_shards(&exchange, &[some, others], "")
}

/// The end of each story: the ledger holds, and there is a gap wherever a session followed another.
/// Returns the report, and of each gap its shard and its reason.
fn nothing_is_lost(rig: &mut Rig, mut daemon: Process) -> (Value, Vec<(String, String)>) {
    assert_eq!(end(&mut daemon), Some(0), "{}", rig.log());
    rig.end_exchange();
    let (report, well) = rig.verify();
    println!("{report}");
    assert!(well, "{report:#}");
    assert_eq!((count(&report, "lost"), count(&report, "duplicated"), count(&report, "waiting")), (0, 0, 0));
    assert_eq!(count(&report, "sent"), count(&report, "durable") + count(&report, "not_received"));
    assert_gaps_between_sessions(rig);
    let gaps = rig.found().gaps.into_iter().filter(|gap| gap.first_received_at.is_some());
    (report, gaps.map(|gap| (gap.shard, gap.reason)).collect())
}

/// Connects as somebody does who has the key as well; what the exchange says to that.
fn rival(rig: &Rig, key: &str) -> Option<CloseFrame> {
    let visit = async {
        let (mut socket, _) = connect_async(format!("ws://{}/?token={key}", rig.address)).await.unwrap();
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(close))) => return close,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tickmint::commands::block_on(visit).unwrap()
}

#[test]
fn a_rival_with_the_same_key_costs_a_gap_each_time_and_no_other_key_anything() {
    let mut rig = rig(&[]);
    let daemon = rig.daemon();
    rig.wait_for_shards(2);
    let undisturbed = rig.note("shards/shard-1/session", "connection");
    for visit in 1..=3 {
        let close = rival(&rig, "key-2");
        assert_eq!(close.map(|close| close.code), Some(CloseCode::Policy), "the exchange lets two in");
        rig.wait_until("trades come again, behind a gap", |pipeline| {
            pipeline["feed"]["gaps"]["closed_by_server"].as_u64() >= Some(visit)
        });
    }
    assert_eq!(rig.note("shards/shard-1/session", "connection"), undisturbed, "the other key's session is another one");
    let (_, gaps) = nothing_is_lost(&mut rig, daemon);
    println!("{gaps:?}");
    assert!(gaps.len() >= 3, "{gaps:?}");
    assert!(gaps.iter().all(|(shard, reason)| shard == "shard-2" && reason == "closed_by_server"), "{gaps:?}");
    let ledger = std::fs::read_to_string(rig.path("ledger")).unwrap();
    assert!(ledger.matches("second connection on the key").count() >= 6, "each visit ends both connections");
}

#[test]
fn a_feed_that_stalls_refuses_errs_and_is_late_is_told_for_what_it_is() {
    let mut rig = rig(&["--faults", "stall=0.001:30s,refuse=0.6,error=0.002,late=0.02:3s"]);
    rig.edit("reconnect_min", "watchdog = \"1s\"\nreconnect_min");
    rig.edit("max_age = \"none\"", "max_age = \"1s\"");
    let daemon = rig.daemon();
    rig.wait_for_alarms("the feed's error is said", |alarms| alarms.contains("Internal server error"));
    rig.wait_until("all of it has come", |pipeline| {
        let feed = |kind: &str, name: &str| pipeline["feed"][kind][name].as_u64().unwrap_or(0);
        feed("gaps", "stalled") >= 3 && feed("quarantined", "server_error") > 0 && feed("flagged", "time_suspect") > 0
    });
    let refused = rig.log().matches("the server answered 503").count();
    let (report, gaps) = nothing_is_lost(&mut rig, daemon);
    let stalled = gaps.iter().filter(|(_, reason)| reason == "stalled").count();
    println!("{stalled} stalls, {refused} refused handshakes, {} in quarantine", count(&report, "quarantined"));
    assert!(stalled >= 3 && refused > 0 && count(&report, "quarantined") > 0, "{gaps:?}, {refused} refused: {report:#}");
}

#[test]
fn a_session_that_panics_costs_its_own_shard_a_gap_and_no_other() {
    let mut rig = rig(&[]);
    rig.set("TICKMINT_FAULTS", "actor:shards/shard-2/session=12*off->1*return(panic)");
    let daemon = rig.daemon();
    rig.wait_for_shards(2);
    let undisturbed = rig.note("shards/shard-1/session", "connection");
    rig.wait_until("trades come again, behind a gap", |pipeline| pipeline["feed"]["gaps"]["session_died"].as_u64() > Some(0));
    let actors = rig.actors();
    for (path, actor) in &actors {
        assert_eq!(actor["restarts"], u64::from(path == "shards/shard-2/session"), "{actor:#}");
    }
    assert_eq!(rig.note("shards/shard-1/session", "connection"), undisturbed, "the other shard's session is another one");
    let (_, gaps) = nothing_is_lost(&mut rig, daemon);
    assert_eq!(gaps, [("shard-2".to_string(), "session_died".to_string())]);
}

#[test]
fn symbols_that_do_not_trade_are_named_and_the_connection_stays() {
    let symbols = tickmint::exchange::simulated_symbols(20);
    let trading = [&symbols[..], &["HALTED".to_string()]].concat();
    let never = ["NOBODY", "NOTHING"].map(String::from);
    let exchange = ["--simulate", "20", "--rate", "2000", "--ping-every", "100ms"];
    let mut rig = Rig::with_shards(&exchange, &[&trading, &never], "");
    rig.edit("reconnect_min", "watchdog = \"8s\"\nstale_after = \"2s\"\nreconnect_min");
    let daemon = rig.daemon();
    let is_told = |rig: &Rig, shard: usize, symbols: &[&str]| {
        let silent = rig.note(&format!("shards/shard-{shard}/session"), "silent_symbols");
        let stale = format!("tickmint_feed_stale_symbols{{shard=\"shard-{shard}\"}} {}\n", symbols.len());
        silent.as_deref() == Some(&symbols.join(" ")) && rig.text("/metrics").is_some_and(|text| text.contains(&stale))
    };
    rig.wait_until("those are named that do not trade, and no other", |_| {
        is_told(&rig, 1, &["HALTED"]) && is_told(&rig, 2, &["NOBODY", "NOTHING"])
    });
    // For longer than the watchdog's patience there is nothing but pings.
    rig.wait_until("pings go on", |pipeline| pipeline["shards"][1]["frames"].as_u64() > Some(100));
    rig.wait_until("the connections stay", |pipeline| pipeline["feed"]["disconnects"] == 0);

    // Without a connection nothing trades, and that is what is told then.
    rig.end_exchange();
    let mut all: Vec<&str> = trading.iter().map(String::as_str).collect();
    all.sort_unstable();
    rig.wait_until("all are named", |pipeline| pipeline["shards"][0]["connected"] == false && is_told(&rig, 1, &all));
    let (report, gaps) = nothing_is_lost(&mut rig, daemon);
    assert_eq!(gaps, [], "{report:#}");
}
