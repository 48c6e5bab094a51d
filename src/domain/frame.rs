//! Judges a frame of the feed: takes it apart into its elements and says what each of them is.
//!
//! One bad element goes to quarantine alone; its neighbours stay trades. A frame that cannot be
//! taken apart is one element that spans it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::identity::Micros;
use super::trade::Trade;
use super::verdict::{Flags, Judged, RawFrame, Reason, Verdict};

/// No frame has more: an element's index must fit its identity.
const MAX_ELEMENTS: usize = u16::MAX as usize;

/// The symbols of one connection, and when each last traded. Silence of a symbol is another thing
/// than silence of the connection: it may be halted, or not carried by the feed at all.
#[derive(Debug)]
pub struct Watchlist(HashMap<String, AtomicI64>);

impl Watchlist {
    /// Symbols that have not traded yet; their silence begins at `now`.
    pub fn new<'a>(symbols: impl IntoIterator<Item = &'a String>, now: Micros) -> Watchlist {
        Watchlist(symbols.into_iter().map(|symbol| (symbol.clone(), AtomicI64::new(now))).collect())
    }

    /// Notes a trade; `false` if nobody subscribed to the symbol.
    fn traded(&self, symbol: &str, at: Micros) -> bool {
        let last = self.0.get(symbol);
        if let Some(last) = last {
            last.store(at, Relaxed);
        }
        last.is_some()
    }

    /// The symbols that have been silent since before `then`, sorted.
    pub fn silent_since(&self, then: Micros) -> Vec<&str> {
        let silent = self.0.iter().filter(|(_, last)| last.load(Relaxed) < then);
        let mut symbols: Vec<_> = silent.map(|(symbol, _)| symbol.as_str()).collect();
        symbols.sort_unstable();
        symbols
    }
}

/// What counts as a trade on one connection.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The symbols subscribed to.
    pub watch: Arc<Watchlist>,
    /// An event time further before its receipt is suspect, microseconds.
    pub max_age: Option<Micros>,
    /// An event time further after its receipt is suspect, microseconds.
    pub max_ahead: Option<Micros>,
    /// Longer frames are quarantined, bytes.
    pub max_frame_bytes: usize,
}

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Trades, or something that claims to be.
    Trades,
    /// `{"type":"ping"}`: a sign of life, no record.
    Ping,
    /// The server reports an error; it is a record in quarantine as well.
    Error(String),
    /// Neither; it is in quarantine.
    Other,
}

/// The verdicts on a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What it is.
    pub kind: Kind,
    /// Its elements, in their order.
    pub elements: Vec<Judged>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

/// Judges `frame`; `previous` is the payload before it in its session.
pub fn judge(frame: &RawFrame, previous: Option<&Bytes>, rules: &Rules) -> Judgement {
    if frame.binary {
        return whole(frame, Reason::Binary, "a binary message of a feed of text");
    }
    if frame.payload.len() > rules.max_frame_bytes {
        return whole(frame, Reason::Overlong, format!("{} bytes, at most {} are expected", frame.payload.len(), rules.max_frame_bytes));
    }
    let parsed: Frame = match serde_json::from_slice(&frame.payload) {
        Ok(parsed) => parsed,
        Err(error) if error.is_data() => return whole(frame, Reason::WrongShape, error),
        Err(error) => return whole(frame, Reason::NotJson, error),
    };
    match (parsed.kind.map(RawValue::get), parsed.data) {
        (Some(r#""trade""#), Some(data)) => trades(frame, data, previous, rules),
        (Some(r#""ping""#), None) => Judgement { kind: Kind::Ping, elements: Vec::new() },
        (Some(r#""error""#), _) => {
            let text = parsed.msg.map_or("without a message", RawValue::get).trim_matches('"').to_string();
            Judgement { kind: Kind::Error(text.clone()), ..whole(frame, Reason::ServerError, text) }
        }
        (Some(r#""trade""#), None) => whole(frame, Reason::WrongShape, "`data` is missing"),
        (Some(kind), _) => whole(frame, Reason::WrongShape, format!("`type` is {}, which is not expected", &kind[..kind.floor_char_boundary(60)])),
        (None, _) => whole(frame, Reason::WrongShape, "`type` is missing"),
    }
}

fn whole(frame: &RawFrame, reason: Reason, detail: impl ToString) -> Judgement {
    let range = 0..frame.payload.len() as u32;
    let verdict = Verdict::Quarantined { reason, detail: detail.to_string() };
    Judgement { kind: Kind::Other, elements: vec![Judged { range, verdict }] }
}

fn trades(frame: &RawFrame, data: &RawValue, previous: Option<&Bytes>, rules: &Rules) -> Judgement {
    let elements: Vec<&RawValue> = match serde_json::from_str(data.get()) {
        Ok(elements) => elements,
        Err(_) => return whole(frame, Reason::WrongShape, "`data` is not a list"),
    };
    if elements.len() > MAX_ELEMENTS {
        return whole(frame, Reason::WrongShape, format!("`data` has {} elements, at most {MAX_ELEMENTS} are expected", elements.len()));
    }
    let repeat = if previous.is_some_and(|previous| *previous == frame.payload) { Flags::FRAME_REPEAT } else { Flags::default() };
    let begins = frame.payload.as_ptr() as usize;
    let judged = elements.into_iter().map(|element| {
        let text = element.get();
        let start = (text.as_ptr() as usize - begins) as u32;
        Judged { range: start..start + text.len() as u32, verdict: verdict(text, frame.received_at, repeat, rules) }
    });
    Judgement { kind: Kind::Trades, elements: judged.collect() }
}

fn verdict(text: &str, received_at: Micros, repeat: Flags, rules: &Rules) -> Verdict {
    let trade = match Trade::parse(text.as_bytes()) {
        Ok(trade) => trade,
        Err(no) => return Verdict::Quarantined { reason: no.reason, detail: no.detail },
    };
    if !rules.watch.traded(&trade.symbol, received_at) {
        let symbol = &trade.symbol[..trade.symbol.floor_char_boundary(60)];
        return Verdict::Quarantined { reason: Reason::UnknownSymbol, detail: format!("nobody subscribed to `{symbol}`") };
    }
    let mut flags = repeat;
    let age = received_at - trade.event_time * 1000;
    if rules.max_age.is_some_and(|max| age > max) || rules.max_ahead.is_some_and(|max| -age > max) {
        flags = flags.with(Flags::TIME_SUSPECT);
    }
    if trade.size == 0 {
        flags = flags.with(Flags::PRICE_UPDATE);
    }
    Verdict::Trade(flags)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Micros = 1_680_286_537_580_000;
    const TRADE: &str = r#"{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5}"#;

    fn rules() -> Rules {
        let watch = Arc::new(Watchlist::new(&["AAPL".to_string(), "SPY".to_string()], 0));
        Rules { watch, max_age: Some(86_400_000_000), max_ahead: Some(300_000_000), max_frame_bytes: 1000 }
    }

    fn raw(payload: impl Into<Bytes>) -> RawFrame {
        RawFrame { number: 1, received_at: NOW, payload: payload.into(), binary: false }
    }

    fn of(elements: &[&str]) -> RawFrame {
        raw(format!(r#"{{"data":[{}],"type":"trade"}}"#, elements.join(" , ")))
    }

    fn reasons(judgement: &Judgement) -> Vec<Option<Reason>> {
        let reason = |judged: &Judged| match judged.verdict {
            Verdict::Trade(_) => None,
            Verdict::Quarantined { reason, .. } => Some(reason),
        };
        judgement.elements.iter().map(reason).collect()
    }

    #[test]
    fn a_bad_element_goes_alone_and_every_range_is_the_elements_text() {
        let bad = TRADE.replace("164.0601", "-1");
        let unknown = TRADE.replace("AAPL", "MSFT");
        let frame = of(&[TRADE, &bad, "7", &unknown, TRADE]);
        let judgement = judge(&frame, None, &rules());
        assert_eq!(reasons(&judgement), [None, Some(Reason::BadPrice), Some(Reason::WrongShape), Some(Reason::UnknownSymbol), None]);
        let texts: Vec<_> = judgement.elements.iter().map(|e| &frame.payload[e.range.start as usize..e.range.end as usize]).collect();
        assert_eq!(texts, [TRADE.as_bytes(), bad.as_bytes(), b"7", unknown.as_bytes(), TRADE.as_bytes()]);
    }

    #[test]
    fn what_is_odd_is_flagged_and_kept() {
        let frame = of(&[&TRADE.replace("1680286537580", "1680000000000"), &TRADE.replace("\"v\":5", "\"v\":0")]);
        let flags = |judgement: Judgement| -> Vec<_> { judgement.elements.into_iter().map(|judged| judged.verdict).collect() };
        let expected = [Flags::TIME_SUSPECT, Flags::PRICE_UPDATE];
        assert_eq!(flags(judge(&frame, None, &rules())), expected.map(Verdict::Trade));
        let repeated = expected.map(|flags| Verdict::Trade(flags.with(Flags::FRAME_REPEAT)));
        assert_eq!(flags(judge(&frame, Some(&frame.payload), &rules())), repeated);
        let recorded = Rules { max_age: None, ..rules() };
        assert_eq!(flags(judge(&frame, None, &recorded))[0], Verdict::Trade(Flags::default()));
    }

    #[test]
    fn a_symbol_without_trades_is_silent() {
        let rules = rules();
        judge(&of(&[TRADE]), None, &rules);
        assert_eq!(rules.watch.silent_since(NOW), ["SPY"]);
        assert_eq!(rules.watch.silent_since(NOW + 1), ["AAPL", "SPY"]);
    }

    #[test]
    fn frames_that_are_no_trades() {
        assert_eq!(judge(&raw(r#"{"type":"ping"}"#), None, &rules()), Judgement { kind: Kind::Ping, elements: vec![] });
        let error = judge(&raw(r#"{"msg":"Subscribing to too many symbols","type":"error"}"#), None, &rules());
        assert_eq!(error.kind, Kind::Error("Subscribing to too many symbols".into()));
        assert_eq!(reasons(&error), [Some(Reason::ServerError)]);
        assert_eq!(judge(&of(&[]), None, &rules()).elements, []);
        for (payload, reason) in [
            ("", Reason::NotJson),
            ("{\"data\":[", Reason::NotJson),
            ("\u{1}", Reason::NotJson),
            ("{\"type\":\"ping\"} x", Reason::NotJson),
            ("[]", Reason::WrongShape),
            ("{}", Reason::WrongShape),
            (r#"{"type":"trade"}"#, Reason::WrongShape),
            (r#"{"type":"trade","data":7}"#, Reason::WrongShape),
            (r#"{"type":"trade","type":"trade","data":[]}"#, Reason::WrongShape),
            (r#"{"type":"news","data":[]}"#, Reason::WrongShape),
        ] {
            assert_eq!(reasons(&judge(&raw(payload), None, &rules())), [Some(reason)], "{payload}");
        }
        assert_eq!(reasons(&judge(&raw(vec![b' '; 1001]), None, &rules())), [Some(Reason::Overlong)]);
        assert_eq!(reasons(&judge(&RawFrame { binary: true, ..raw("x") }, None, &rules())), [Some(Reason::Binary)]);
    }

    proptest! {
        #[test]
        fn mangled_frames_never_panic_and_nothing_vanishes(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>()) {
            let mut payload = of(&[TRADE, TRADE]).payload.to_vec();
            for (at, byte) in edits {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            for payload in [payload[..cut.index(payload.len())].to_vec(), payload] {
                let frame = raw(payload);
                let judgement = judge(&frame, None, &rules());
                for judged in &judgement.elements {
                    prop_assert!(judged.range.end as usize <= frame.payload.len());
                }
                let empty = frame.payload.windows(2).any(|pair| pair == b"[]");
                prop_assert!(judgement.kind == Kind::Ping || empty || !judgement.elements.is_empty());
            }
        }
    }
}
