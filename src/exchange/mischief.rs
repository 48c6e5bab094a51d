//! Does the faults: turns the frames of one connection into what is really sent on it.
//!
//! Drawn from a generator of the connection's own, once a frame, so that equal seeds, connections
//! and frames give equal faults. What it holds back is lost if the connection ends before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::prelude::*;
use rand::rngs::StdRng;
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::faults::Faults;
use super::frame::Frame;
use super::mutation::{Meaning, meaning, mutated};

/// Frames held back at once, at most: more are sent in time.
const MAX_HELD: usize = 10_000;

/// What to do on the wire, in order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Send a message.
    Send(Message),
    /// Send the last message of trades again.
    Repeat,
    /// Fall silent for so long.
    Stall(Duration),
    /// Cut the connection.
    Drop {
        /// With a close frame, or just the end of the stream.
        close_frame: bool,
    },
}

/// A WebSocket message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    /// As the ledger names it.
    pub(super) what: &'static str,
    /// Trades that the server means by it.
    pub(super) trades: usize,
    /// Records that it makes and that are no trades; none where the server means no harm.
    pub(super) bad: Option<usize>,
    pub(super) body: Body,
}

/// Its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Message {
    pub(super) fn ping() -> Message {
        Message { what: "ping", trades: 0, bad: None, body: Body::Text(r#"{"type":"ping"}"#.into()) }
    }

    /// What is no trade and no ping: one bad record.
    pub(super) fn bad(what: &'static str, text: impl Into<Utf8Bytes>) -> Message {
        Message { what, trades: 0, bad: Some(1), body: Body::Text(text.into()) }
    }

    fn binary(what: &'static str, bytes: Vec<u8>) -> Message {
        Message { what, trades: 0, bad: Some(1), body: Body::Binary(bytes.into()) }
    }

    fn of(frame: &Frame) -> Message {
        Message { what: "trade", trades: frame.trades.len(), bad: None, body: Body::Text(frame.text.clone()) }
    }
}

/// The faults of one connection.
pub(super) struct Mischief {
    faults: Faults,
    rng: StdRng,
    /// Frames that come too late, with the market's time at which they come.
    held: Vec<(i64, Arc<Frame>)>,
    /// A frame that lets the next one pass.
    overtaken: Option<Arc<Frame>>,
    /// What the client has asked for.
    symbols: BTreeSet<Box<str>>,
}

impl Mischief {
    pub(super) fn new(faults: &Faults, seed: u64, connection: u64) -> Mischief {
        let rng = StdRng::seed_from_u64(seed ^ connection.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Mischief { faults: faults.clone(), rng, held: Vec::new(), overtaken: None, symbols: BTreeSet::new() }
    }

    /// The client has asked for a symbol.
    pub(super) fn subscribed(&mut self, symbol: &str) {
        self.symbols.insert(symbol.into());
    }

    /// What is sent for a frame of trades.
    pub(super) fn frame(&mut self, frame: Arc<Frame>, actions: &mut Vec<Action>) {
        if self.faults.are_none() {
            actions.push(Action::Send(Message::of(&frame)));
            return;
        }
        self.release(frame.at, actions);
        if self.happens("drop") {
            actions.push(Action::Drop { close_frame: self.rng.random() });
            return;
        }
        if self.happens("stall") {
            actions.push(Action::Stall(self.faults.stall_time()));
        }
        self.extras(&frame, actions);
        if self.happens("late") && self.held.len() < MAX_HELD {
            let longest = self.faults.late_time().as_millis().max(1) as i64;
            self.held.push((frame.at.saturating_add(self.rng.random_range(1..=longest)), frame));
            return;
        }
        let frame = if self.happens("shuffle") {
            if frame.trades.len() == 1 {
                if let Some(before) = self.overtaken.replace(frame) {
                    actions.push(Action::Send(Message::of(&before)));
                }
                return;
            }
            let mut order: Vec<_> = (0..frame.trades.len()).collect();
            order.shuffle(&mut self.rng);
            Arc::new(frame.pick(&order))
        } else {
            frame
        };
        actions.push(Action::Send(Message::of(&frame)));
        if self.happens("repeat") {
            actions.push(Action::Repeat);
        }
        if let Some(overtaken) = self.overtaken.take() {
            actions.push(Action::Send(Message::of(&overtaken)));
        }
    }

    /// Gives up all that is held back: the tape has ended.
    pub(super) fn end(&mut self, actions: &mut Vec<Action>) {
        actions.extend(self.overtaken.take().map(|frame| Action::Send(Message::of(&frame))));
        self.release(i64::MAX, actions);
    }

    fn happens(&mut self, name: &str) -> bool {
        let probability = self.faults.probability(name);
        probability > 0.0 && self.rng.random_bool(probability)
    }

    /// Sends what was held back until `now`, in the order in which it was held.
    fn release(&mut self, now: i64, actions: &mut Vec<Action>) {
        let due = self.held.extract_if(.., |(until, _)| *until <= now);
        actions.extend(due.map(|(_, frame)| Action::Send(Message::of(&frame))));
    }

    fn extras(&mut self, frame: &Frame, actions: &mut Vec<Action>) {
        let mut extra = |message| actions.push(Action::Send(message));
        if self.happens("malformed") {
            extra(Message::bad("malformed", malformed(frame, &mut self.rng)));
        }
        if self.happens("binary") {
            let mut bytes = frame.text.as_bytes().to_vec();
            let place = self.rng.random_range(0..bytes.len());
            bytes[place] = 0xff;
            extra(Message::binary("binary", bytes));
        }
        if self.happens("mutated") {
            extra(mutation(frame, &self.symbols, &mut self.rng));
        }
        if self.happens("unknown") {
            extra(Message::bad("unknown", unknown(frame, &mut self.rng)));
        }
        if self.happens("absurd") {
            extra(Message::bad("absurd", absurd(frame, &mut self.rng)));
        }
        if self.happens("oversize") {
            let (head, tail) = (r#"{"data":[{"c":["1"],"p":1,"s":""#, r#"","t":0,"v":100}],"type":"trade"}"#);
            let filling = self.faults.oversize_bytes().saturating_sub(head.len() + tail.len()).max(1);
            extra(Message::bad("oversize", format!("{head}{}{tail}", "X".repeat(filling))));
        }
        if self.happens("error") {
            extra(Message::bad("error", r#"{"msg":"Internal server error","type":"error"}"#));
        }
    }
}

/// A copy of a frame with a few bytes changed. What is no text any more can only be sent as a binary message.
fn mutation(frame: &Frame, symbols: &BTreeSet<Box<str>>, rng: &mut StdRng) -> Message {
    match String::from_utf8(mutated(frame.text.as_bytes(), rng)) {
        Ok(text) => {
            let Meaning { trades, bad } = meaning(&text, symbols);
            Message { what: "mutated", trades, bad: Some(bad), body: Body::Text(text.into()) }
        }
        Err(no_text) => Message::binary("mutated", no_text.into_bytes()),
    }
}

/// A frame of one element, which has these values for price, symbol, time and size.
fn of_one([p, s, t, v]: [&str; 4]) -> String {
    format!(r#"{{"data":[{{"c":["1"],"p":{p},"s":{s},"t":{t},"v":{v}}}],"type":"trade"}}"#)
}

/// A broken copy of a frame. No reading of it has a valid trade.
fn malformed(frame: &Frame, rng: &mut StdRng) -> String {
    let text: &str = &frame.text;
    let trade = &frame.trades[rng.random_range(0..frame.trades.len())];
    let symbol = serde_json::Value::from(&*trade.symbol).to_string();
    let time = trade.time.to_string();
    let one = |p, v| of_one([p, &symbol, &time, v]);
    match rng.random_range(0..16) {
        0..=2 => text[..text.floor_char_boundary(rng.random_range(0..text.len()))].to_owned(),
        3 => one(r#""12.5""#, "100"),
        4 => one("12.5", "true"),
        5 => one("null", "100"),
        6 => of_one(["12.5", "17", &time, "100"]),
        7 => of_one(["12.5", &symbol, r#""yesterday""#, "100"]),
        8 => one("1e400", "100"),
        9 => of_one(["12.5", &symbol, &"9".repeat(400), "100"]),
        10 => format!(r#"{{"data":[[{}]],"type":"trade"}}"#, frame.element(0)),
        11 => format!(r#"{{"data":{},"type":"trade"}}"#, "[".repeat(5000) + &"]".repeat(5000)),
        12 => format!(r#"{{"data":{},"type":"trade"}}"#, frame.element(0)),
        13 => format!(r#"{{"data":[{{"c":["1"],"p":12.5,"t":{time},"v":100}}],"type":"trade"}}"#),
        14 => format!(r#"{{"data":[{{"c":["1"],"p":NaN,"s":{symbol},"t":{time},"v":100}}],"type":"trade"}}"#),
        _ => ["null", "[]", "{}", "Bad Gateway", "{\"type\":7}"].choose(rng).copied().unwrap_or("").to_owned(),
    }
}

/// Well formed, but nothing that was asked for.
fn unknown(frame: &Frame, rng: &mut StdRng) -> String {
    let time = frame.trades[0].time.to_string();
    match rng.random_range(0..4) {
        0 => {
            format!(r#"{{"data":[{{"category":"company","datetime":{},"headline":"x","id":1}}],"type":"news"}}"#, frame.at / 1000)
        }
        1 => r#"{"type":"heartbeat"}"#.to_owned(),
        2 => of_one(["1.5", r#""ZZZZ.UNKNOWN""#, &time, "100"]),
        _ => of_one(["1.5", r#""NOWHERE:XYZ""#, &time, "100"]),
    }
}

/// One trade of the frame with numbers that no market has.
fn absurd(frame: &Frame, rng: &mut StdRng) -> String {
    let trade = &frame.trades[rng.random_range(0..frame.trades.len())];
    let symbol = serde_json::Value::from(&*trade.symbol).to_string();
    let time = trade.time.to_string();
    let (p, v) = match rng.random_range(0..6) {
        0 => ("-12.5", "100"),
        1 => ("12.5", "-100"),
        2 => ("1e15", "100"),
        3 => ("12.5", "9e18"),
        4 => ("12.345678901234567890123", "100"),
        _ => ("99999999999.5", "1e-12"),
    };
    of_one([p, &symbol, &time, v])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<Arc<Frame>> {
        let element = |index: usize| format!(r#"{{"c":["1"],"p":1{index},"s":"AIG","t":{},"v":100}}"#, 1000 * index + 7);
        let frame = |index: usize| {
            let elements: Vec<_> = (0..1 + index % 4).map(|place| element(index + place)).collect();
            let text = format!(r#"{{"data":[{}],"type":"trade"}}"#, elements.join(","));
            Arc::new(Frame::parse(text).unwrap().unwrap())
        };
        (0..count).map(frame).collect()
    }

    fn actions(spec: &str, seed: u64, frames: &[Arc<Frame>]) -> Vec<Action> {
        let mut mischief = Mischief::new(&spec.parse().unwrap(), seed, 1);
        let mut actions = Vec::new();
        frames.iter().for_each(|frame| mischief.frame(frame.clone(), &mut actions));
        mischief.end(&mut actions);
        actions
    }

    fn texts(actions: &[Action], what: &str) -> Vec<String> {
        let text = |action: &Action| match action {
            Action::Send(Message { what: is, body: Body::Text(text), .. }) if *is == what => Some(text.to_string()),
            _ => None,
        };
        actions.iter().filter_map(text).collect()
    }

    const ALL: &str = "drop=0.02,stall=0.02,repeat=0.05,late=0.1:5s,shuffle=0.1,malformed=0.1,binary=0.05,unknown=0.05,absurd=0.05,error=0.02,oversize=0.01:100";

    #[test]
    fn equal_seeds_give_equal_faults() {
        let frames = frames(500);
        assert_eq!(actions(ALL, 7, &frames), actions(ALL, 7, &frames));
        assert_ne!(actions(ALL, 7, &frames), actions(ALL, 8, &frames));
    }

    #[test]
    fn without_faults_the_frames_go_through() {
        let frames = frames(20);
        let expected: Vec<_> = frames.iter().map(|frame| frame.text.to_string()).collect();
        assert_eq!(texts(&actions("", 1, &frames), "trade"), expected);
    }

    #[test]
    fn late_and_shuffled_frames_lose_no_trade() {
        let frames = frames(1000);
        let actions =
            actions("late=0.2:9s,shuffle=0.4,stall=0.1,malformed=0.3,binary=0.1,unknown=0.1,absurd=0.1,error=0.1", 3, &frames);
        let elements = |texts: &[String]| {
            let mut elements = Vec::new();
            for text in texts {
                let frame = Frame::parse(text.as_str()).unwrap().unwrap();
                elements.extend((0..frame.trades.len()).map(|index| frame.element(index).to_owned()));
            }
            elements
        };
        let expected: Vec<_> = frames.iter().map(|frame| frame.text.to_string()).collect();
        let (mut sent, mut meant) = (elements(&texts(&actions, "trade")), elements(&expected));
        assert_ne!(sent, meant, "the order has changed");
        sent.sort();
        meant.sort();
        assert_eq!(sent, meant);
    }

    #[test]
    fn a_repeat_follows_its_frame_and_a_drop_sends_nothing() {
        let repeated = actions("repeat=1", 1, &frames(2));
        assert!(matches!(&repeated[..], [Action::Send(_), Action::Repeat, Action::Send(_), Action::Repeat]));
        assert!(matches!(&actions("drop=1", 1, &frames(1))[..], [Action::Drop { .. }]));
    }

    /// Whether `text` has an element that reads as a trade with plausible numbers.
    fn has_a_valid_trade(text: &str) -> bool {
        let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return false };
        let good = |n: &serde_json::Value| n.as_f64().is_some_and(|n| (0.0..1e10).contains(&n) && n.to_string().len() < 20);
        value["type"] == "trade"
            && value["data"].as_array().is_some_and(|data| {
                let valid = |e: &serde_json::Value| e["s"].is_string() && e["t"].is_u64() && good(&e["p"]) && good(&e["v"]);
                data.iter().any(valid)
            })
    }

    #[test]
    fn an_extra_frame_has_no_valid_trade_and_is_never_empty_data() {
        let actions = actions("malformed=1,absurd=0.5,unknown=0.2", 5, &frames(3000));
        let malformed = texts(&actions, "malformed");
        assert_eq!(malformed.len(), 3000);
        assert!(malformed.iter().all(|text| !has_a_valid_trade(text)));
        assert!(malformed.iter().any(|text| serde_json::from_str::<serde_json::Value>(text).is_ok()));
        assert!(malformed.iter().any(|text| serde_json::from_str::<serde_json::Value>(text).is_err()));
        assert!(texts(&actions, "unknown").iter().any(|text| text.contains("news")));
        for text in texts(&actions, "absurd") {
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_binary_message_is_not_text_and_an_oversize_one_has_its_size() {
        let actions = actions("binary=1,oversize=1:4096", 5, &frames(50));
        let binary: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Send(Message { body: Body::Binary(bytes), .. }) => Some(bytes),
                _ => None,
            })
            .collect();
        assert_eq!(binary.len(), 50);
        assert!(binary.iter().all(|bytes| std::str::from_utf8(bytes).is_err()));
        assert!(texts(&actions, "oversize").iter().all(|text| text.len() == 4096));
    }
}
