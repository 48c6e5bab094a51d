//! A real client over loopback: the protocol as Finnhub's users saw it, and the ledger.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::*;

/// An exchange in the background.
struct Rig {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<Summary, ExchangeError>>,
}

impl Rig {
    async fn start(options: Options) -> Rig {
        let exchange = Exchange::bind(Options { quiet: Duration::from_millis(100), ..options }).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let address = exchange.local_addr();
        let shutdown = async { stopped.await.unwrap_or(()) };
        Rig { address, stop, running: tokio::spawn(exchange.run(shutdown)) }
    }

    async fn connect(&self, key: &str) -> Client {
        self.try_connect(key, 1 << 20).await.unwrap()
    }

    async fn try_connect(&self, key: &str, receive_buffer: u32) -> Result<Client, Error> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(receive_buffer).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/?token={key}", self.address).into_client_request()?;
        request.headers_mut().insert("x-request-id", "session-1".parse().unwrap());
        Ok(Client(client_async(request, stream).await?.0))
    }

    async fn status(&self) -> Value {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    /// The status once everything is played.
    async fn finished(&self) -> Value {
        loop {
            let status = self.status().await;
            if status["finished"] == true {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> Summary {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap()
    }
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn subscribe(&mut self, symbols: &[&str]) {
        for symbol in symbols {
            self.0.send(Message::text(json!({"type": "subscribe", "symbol": symbol}).to_string())).await.unwrap();
        }
    }

    /// The next text; `None` at the end of the connection.
    async fn text(&mut self) -> Option<String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            texts.push(self.text().await.expect("more texts"));
        }
        texts
    }
}

const PING: &str = r#"{"type":"ping"}"#;

fn frame(symbols: &[&str], time: i64) -> String {
    let element = |symbol: &&str| format!(r#"{{"c":["1","12"],"p":164.0601,"s":"{symbol}","t":{time},"v":9e-05}}"#);
    format!(r#"{{"data":[{}],"type":"trade"}}"#, symbols.iter().map(element).collect::<Vec<_>>().join(","))
}

/// A tape and the options to play it at full speed.
fn tape(lines: &[String]) -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    lines.iter().for_each(|line| writeln!(file, "{line}").unwrap());
    let ledger = Some(folder.path().join("ledger.jsonl"));
    let options = Options::new(Source::Tape { path, retime: false });
    (folder, Options { speed: Speed::Max, ledger, ..options })
}

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|index| frame(&["AIG", "BAC"][..1 + index % 2], 1_000_000 + 10 * index as i64)).collect()
}

fn ledger(folder: &tempfile::TempDir) -> Vec<Value> {
    read_ledger(&folder.path().join("ledger.jsonl"))
}

fn read_ledger(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(ledger: &'a [Value], kind: &str) -> Vec<&'a Value> {
    ledger.iter().filter(|line| line["kind"] == kind).collect()
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_401() {
    let (_folder, options) = tape(&lines(1));
    let rig = Rig::start(options).await;
    for key in ["wrong", ""] {
        let Err(Error::Http(response)) = rig.try_connect(key, 4096).await else { panic!("let in") };
        assert_eq!(response.status(), 401);
    }
}

#[tokio::test]
async fn a_client_is_sent_the_trades_of_its_symbols_verbatim() {
    let tape_lines = [frame(&["AIG"], 1), frame(&["AIG", "BAC", "AIG"], 2), frame(&["BAC"], 3), frame(&["IBM", "AIG"], 4)];
    let (_folder, options) = tape(&tape_lines);
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG", "IBM"]).await;
    assert_eq!(client.texts(3).await, [frame(&["AIG"], 1), frame(&["AIG", "AIG"], 2), frame(&["IBM", "AIG"], 4)]);
}

#[tokio::test]
async fn after_the_tape_the_connection_stays_open_with_pings() {
    let (folder, options) = tape(&lines(10));
    let rig = Rig::start(Options { ping_every: Duration::from_millis(20), ..options }).await;
    let mut client = rig.connect("demo").await;
    assert_eq!(client.text().await.unwrap(), PING, "also before any subscription");
    client.subscribe(&["AIG", "BAC"]).await;
    let mut trades = 0;
    while trades < 10 {
        trades += usize::from(client.text().await.unwrap() != PING);
    }
    assert_eq!(client.texts(2).await, [PING, PING]);
    while of_kind(&ledger(&folder), "end").is_empty() {
        client.text().await.unwrap();
    }
    let ledger = ledger(&folder);
    assert_eq!((&of_kind(&ledger, "end")[0]["frames"], &of_kind(&ledger, "end")[0]["trades"]), (&json!(10), &json!(15)));
}

#[tokio::test]
async fn the_52nd_symbol_is_refused_without_its_name_and_unsubscribing_makes_room() {
    let (folder, options) = tape(&lines(1));
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    let symbols: Vec<String> = (0..52).map(|number| format!("S{number}")).collect();
    client.subscribe(&symbols.iter().map(String::as_str).collect::<Vec<_>>()).await;
    client.subscribe(&["S0"]).await; // is there already: no error
    assert_eq!(client.text().await.unwrap(), r#"{"msg":"Subscribing to too many symbols","type":"error"}"#);
    client.0.send(Message::text(r#"{"type":"unsubscribe","symbol":"S7"}"#)).await.unwrap();
    client.subscribe(&["AIG"]).await;
    assert_eq!(client.text().await.unwrap(), lines(1)[0], "no second error came before");
    let ledger = ledger(&folder);
    assert_eq!((of_kind(&ledger, "sub").len(), of_kind(&ledger, "unsub").len()), (52, 1));
    let frames = of_kind(&ledger, "frame");
    assert_eq!((&frames[0]["what"], &frames[0]["n"], &frames[1]["n"]), (&json!("error"), &json!(1), &json!(2)));
}

#[tokio::test]
async fn messages_that_mean_nothing_get_no_answer() {
    let (_folder, options) = tape(&lines(1));
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    for text in ["", "{", "[]", r#"{"type":"subscribe"}"#, r#"{"type":"subscribe-news","symbol":"AIG"}"#, r#"{"symbol":"AIG"}"#] {
        client.0.send(Message::text(text)).await.unwrap();
    }
    client.0.send(Message::binary(vec![1, 2])).await.unwrap();
    client.0.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(client.0.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
    client.subscribe(&["AIG"]).await;
    assert_eq!(client.text().await.unwrap(), lines(1)[0]);
}

#[tokio::test]
async fn a_second_connection_on_a_key_drops_both_and_other_keys_stay() {
    let (folder, options) = tape(&lines(3));
    let rig = Rig::start(Options { keys: vec![Key::new("one"), Key::new("two")], ..options }).await;
    let mut other = rig.connect("two").await;
    let (mut first, mut second) = (rig.connect("one").await, rig.connect("one").await);
    assert_eq!((first.text().await, second.text().await), (None, None));
    let mut third = rig.connect("one").await;
    third.subscribe(&["AIG"]).await;
    other.subscribe(&["BAC"]).await;
    assert_eq!((third.texts(3).await.len(), other.texts(1).await.len()), (3, 1));
    let ledger = ledger(&folder);
    let closed = of_kind(&ledger, "close");
    assert!(closed.iter().all(|line| line["why"] == "second connection on the key"), "{closed:?}");
    assert_eq!(closed.len(), 2);
    assert_eq!(of_kind(&ledger, "open").len(), 4);
}

#[tokio::test]
async fn a_client_that_comes_back_at_once_does_not_meet_itself() {
    let (_folder, options) = tape(&lines(1));
    let rig = Rig::start(options).await;
    for _ in 0..10 {
        let client = rig.connect("demo").await;
        drop(client);
    }
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG"]).await;
    assert!(client.text().await.is_some());
}

#[tokio::test]
async fn what_arrives_is_in_the_ledger_already() {
    let (folder, options) = tape(&lines(2000));
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG", "BAC"]).await;
    let mut received = Vec::new();
    while received.len() < 2000 {
        received.push(client.text().await.unwrap());
        if received.len() % 250 == 1 {
            let text = std::fs::read_to_string(folder.path().join("ledger.jsonl")).unwrap();
            assert!(text.contains(&format!(r#""n":{},"#, received.len())), "frame {} came before its line", received.len());
        }
    }
    rig.finished().await;
    let summary = rig.stop().await;
    assert_eq!((summary.status.frames_sent, summary.status.trades_sent, summary.status.finished), (2000, 3000, true));
    let ledger = ledger(&folder);
    let texts: Vec<_> = of_kind(&ledger, "frame").iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, received);
    let trades: u64 = of_kind(&ledger, "frame").iter().map(|line| line["trades"].as_u64().unwrap()).sum();
    assert_eq!(trades, 3000);
    let open = of_kind(&ledger, "open")[0];
    assert_eq!((&open["conn"], &open["request_id"]), (&json!(1), &json!("session-1")));
    assert_eq!(open["key_hash"], Key::new("demo").hash());
    let close = of_kind(&ledger, "close")[0];
    assert_eq!((&close["n"], &close["flushed"], &close["why"]), (&json!(2000), &json!(2000), &json!("the exchange stops")));
}

#[tokio::test]
async fn the_key_is_nowhere() {
    let (folder, options) = tape(&lines(1));
    let options = Options { keys: vec![Key::new("very-secret")], ..options };
    assert!(!format!("{options:?}").contains("very-secret"));
    let rig = Rig::start(options).await;
    let mut client = rig.connect("very-secret").await;
    client.subscribe(&["AIG"]).await;
    client.text().await.unwrap();
    let status = rig.status().await;
    rig.stop().await;
    let ledger = std::fs::read_to_string(folder.path().join("ledger.jsonl")).unwrap();
    assert!(!ledger.contains("very-secret") && !status.to_string().contains("very-secret"));
}

#[tokio::test]
async fn connections_are_numbered_on_after_a_restart() {
    let (folder, options) = tape(&lines(2));
    for life in 1..=2 {
        let rig = Rig::start(options.clone()).await;
        let mut client = rig.connect("demo").await;
        client.subscribe(&["AIG"]).await;
        client.texts(2).await;
        rig.stop().await;
        assert_eq!(of_kind(&ledger(&folder), "open").last().unwrap()["conn"], life);
    }
    assert_eq!(of_kind(&ledger(&folder), "frame").len(), 4);
}

#[tokio::test]
async fn a_retimed_tape_starts_now() {
    let (_folder, options) = tape(&lines(2));
    let Source::Tape { path, .. } = options.source.clone() else { panic!("a tape") };
    let rig = Rig::start(Options { source: Source::Tape { path, retime: true }, ..options }).await;
    let before = feeder::now_ms();
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG"]).await;
    let texts = client.texts(2).await;
    let time = |text: &str| serde_json::from_str::<Value>(text).unwrap()["data"][0]["t"].as_i64().unwrap();
    let first = time(&texts[0]);
    assert!((before..=feeder::now_ms()).contains(&first));
    assert_eq!(time(&texts[1]), first + 10);
    assert_eq!(texts[0], frame(&["AIG"], first));
}

#[tokio::test]
async fn a_paced_tape_and_a_simulated_market_arrive_whole() {
    let (_folder, options) = tape(&lines(200));
    let rig = Rig::start(Options { speed: Speed::Times(100.0), ..options }).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG", "BAC"]).await;
    assert_eq!(client.texts(200).await, lines(200));

    let simulation = Simulation { trades: Some(500), ..Simulation::of(8) };
    let rig = Rig::start(Options { speed: Speed::Max, ..Options::new(Source::Simulation(simulation)) }).await;
    let mut client = rig.connect("demo").await;
    let symbols = simulated_symbols(8);
    client.subscribe(&symbols.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut trades = 0;
    while trades < 500 {
        let frame: Value = serde_json::from_str(&client.text().await.unwrap()).unwrap();
        trades += frame["data"].as_array().unwrap().len();
    }
    assert_eq!(rig.stop().await.status.trades_sent, 500);
}

#[tokio::test]
async fn equal_seeds_make_equal_faults_on_the_wire() {
    let faults = "repeat=0.05,late=0.1:1s,shuffle=0.2,malformed=0.1,binary=0.05,unknown=0.05,absurd=0.05,error=0.02,stall=0.01:1ms,drop=0.002";
    let mut lives = Vec::new();
    for seed in [5, 5, 6] {
        let (folder, options) = tape(&lines(1500));
        let rig = Rig::start(Options { faults: faults.parse().unwrap(), seed, ..options }).await;
        let mut client = rig.connect("demo").await;
        client.subscribe(&["AIG", "BAC"]).await;
        let mut received = 0;
        while let Some(Ok(message)) = client.0.next().await {
            received += usize::from(message.is_text() || message.is_binary());
        }
        rig.stop().await;
        let ledger = ledger(&folder);
        let frames: Vec<Value> = of_kind(&ledger, "frame")
            .into_iter()
            .map(|line| json!([line["n"], line["what"], line["trades"], line["repeat_of"], line["text"], line["base64"]]))
            .collect();
        assert_eq!(frames.len(), received, "what was sent before the cut arrives");
        assert!(of_kind(&ledger, "close")[0]["why"].as_str().unwrap().starts_with("fault: drop"));
        lives.push(frames);
    }
    assert_eq!(lives[0], lives[1]);
    assert_ne!(lives[0], lives[2]);
}

#[tokio::test]
async fn a_repeat_is_the_same_bytes_and_the_ledger_names_the_first() {
    let (folder, options) = tape(&lines(3));
    let rig = Rig::start(Options { faults: "repeat=1".parse().unwrap(), ..options }).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG", "BAC"]).await;
    let texts = client.texts(6).await;
    assert!(texts.chunks(2).all(|pair| pair[0] == pair[1]));
    let ledger = ledger(&folder);
    let repeats: Vec<_> = of_kind(&ledger, "frame").iter().map(|line| line["repeat_of"].as_u64()).collect();
    assert_eq!(repeats, [None, Some(1), None, Some(3), None, Some(5)]);
}

#[tokio::test]
async fn a_stall_at_full_speed_loses_nothing_and_a_client_may_leave_in_it() {
    let (_folder, options) = tape(&lines(300));
    let rig = Rig::start(Options { faults: "stall=0.1:5ms".parse().unwrap(), ..options.clone() }).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG", "BAC"]).await;
    assert_eq!(client.texts(300).await, lines(300));

    let rig = Rig::start(Options { faults: "stall=1:1h".parse().unwrap(), ..options }).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG"]).await;
    while rig.status().await["subscriptions"] != 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(client);
    while rig.status().await["connections"] != 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_refused_handshake_has_its_status() {
    let (_folder, options) = tape(&lines(1));
    let rig = Rig::start(Options { faults: "refuse=1:429".parse().unwrap(), ..options }).await;
    let Err(Error::Http(response)) = rig.try_connect("demo", 4096).await else { panic!("let in") };
    assert_eq!(response.status(), 429);
}

#[tokio::test]
async fn a_slow_client_is_waited_for_at_full_speed_and_dropped_at_market_speed() {
    // More than the socket buffers and the queue hold.
    let long: Vec<String> = (0..40_000).map(|index| frame(&["AIG"; 10], index)).collect();
    let (folder, options) = tape(&long);
    let rig = Rig::start(options.clone()).await;
    let mut client = rig.try_connect("demo", 4096).await.unwrap();
    client.subscribe(&["AIG"]).await;
    while rig.status().await["frames_sent"] == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(client.texts(long.len()).await.len(), long.len());
    assert_eq!(rig.finished().await["frames_sent"], long.len());
    rig.stop().await;

    let rig = Rig::start(Options { speed: Speed::Times(1e6), ..options }).await;
    let mut client = rig.try_connect("demo", 4096).await.unwrap();
    client.subscribe(&["AIG"]).await;
    assert_eq!(rig.finished().await["connections"], 0);
    let ledger = ledger(&folder);
    let close = of_kind(&ledger, "close").pop().unwrap();
    assert_eq!(close["why"], "the client is too slow: its queue is full");
    assert!(close["flushed"].as_u64() < close["n"].as_u64());
}

#[tokio::test]
async fn status_counts_what_was_sent() {
    let (_folder, options) = tape(&lines(4));
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    let before = rig.status().await;
    assert_eq!((&before["connections"], &before["finished"]), (&json!(1), &json!(false)));
    client.subscribe(&["AIG", "BAC"]).await;
    client.texts(4).await;
    let status = rig.finished().await;
    let expected = json!({"conn": 1, "request_id": "session-1", "open": true, "subscriptions": 2, "sent": 4, "trades": 6});
    assert_eq!(status["per_connection"], json!([expected]));
    assert_eq!((&status["frames_sent"], &status["trades_sent"]), (&json!(4), &json!(6)));

    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 404 "), "{text}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let (folder, options) = tape(&lines(1));
    let rig = Rig::start(options).await;
    let _mute = TcpStream::connect(rig.address).await.unwrap();
    let mut client = rig.connect("demo").await;
    let goodbye = tokio::spawn(async move { client.text().await });
    rig.stop().await;
    assert_eq!(goodbye.await.unwrap(), None);
    assert_eq!(of_kind(&ledger(&folder), "close")[0]["why"], "the exchange stops");
}

#[tokio::test]
async fn a_torn_tape_stops_the_exchange_with_its_line() {
    let mut torn = lines(3);
    torn.push(r#"{"data":[{"s""#.to_owned());
    let (_folder, options) = tape(&torn);
    let rig = Rig::start(options).await;
    let mut client = rig.connect("demo").await;
    client.subscribe(&["AIG"]).await;
    let error = rig.running.await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("line 4 of the tape "), "{error}");
}
