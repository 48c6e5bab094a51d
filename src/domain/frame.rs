//! Judges a frame of the feed: takes it apart into its elements and says what each of them is.
//!
//! One bad element goes to quarantine alone; its neighbours stay trades. A frame that cannot be
//! taken apart is one element that spans it. Decided, and tested below: a frame with bytes after its
//! end or a byte that is not UTF-8 is not JSON, and so are 128 brackets in a `type`; a key given twice
//! is a wrong shape; `data: []` is a frame without records; other known types (`news`, `pr`) were not
//! subscribed to and are a wrong shape; an error of the server is a record as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::identity::Micros;
use super::partition::symbol_partition;
use super::scan;
use super::schema;
use super::shard::Shard;
use super::trade::{Text, Trade, is_object, short};
use super::verdict::{Flags, Judged, RawFrame, Reason, Verdict};

/// No frame has more: an element's index must fit its identity.
const MAX_ELEMENTS: usize = u16::MAX as usize;

/// Bytes of an element as they mostly are: to make room for the right number of verdicts.
const TYPICAL_ELEMENT: usize = 48;

/// The symbols of one connection, and when each last traded. Silence of a symbol is another thing
/// than silence of the connection: it may be halted, or not carried by the feed at all.
#[derive(Debug)]
pub struct Watchlist {
    symbols: HashMap<String, Watched>,
    /// Of what has no symbol.
    partition: u16,
}

#[derive(Debug)]
struct Watched {
    last: AtomicI64,
    partition: u16,
}

impl Watchlist {
    /// Symbols that have not traded yet; their silence begins at `now`. All go to one partition.
    pub fn new<'a>(symbols: impl IntoIterator<Item = &'a String>, now: Micros) -> Watchlist {
        let watched = || Watched { last: AtomicI64::new(now), partition: 0 };
        Watchlist { symbols: symbols.into_iter().map(|symbol| (symbol.clone(), watched())).collect(), partition: 0 }
    }

    /// The symbols of `shard`. Their trades go to `partitions` partitions by symbol, and what has no symbol by shard.
    pub fn partitioned(shard: &Shard, partitions: u32, now: Micros) -> Watchlist {
        let partition = |key: &str| symbol_partition(key.as_bytes(), partitions) as u16;
        let mut list = Watchlist { partition: partition(&shard.name), ..Watchlist::new(shard.symbols.iter(), now) };
        list.symbols.iter_mut().for_each(|(symbol, watched)| watched.partition = partition(symbol));
        list
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Notes a trade; its partition, or `None` if nobody subscribed to the symbol.
    fn traded(&self, symbol: &str, at: Micros) -> Option<u16> {
        let watched = self.symbols.get(symbol)?;
        watched.last.store(at, Relaxed);
        Some(watched.partition)
    }

    /// The symbols that have been silent since before `then`, sorted.
    pub fn silent_since(&self, then: Micros) -> Vec<&str> {
        let silent = self.symbols.iter().filter(|(_, watched)| watched.last.load(Relaxed) < then);
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
        return refuse(frame, rules, Reason::Binary, "a binary message of a feed of text");
    }
    if frame.payload.len() > rules.max_frame_bytes {
        return refuse(
            frame,
            rules,
            Reason::Overlong,
            format!("{} bytes, at most {} are expected", frame.payload.len(), rules.max_frame_bytes),
        );
    }
    known_form(frame, previous, rules).unwrap_or_else(|| any_form(frame, previous, rules))
}

/// Judges a frame of trades in the form in which the feed writes: nearly all of them.
fn known_form(frame: &RawFrame, previous: Option<&Bytes>, rules: &Rules) -> Option<Judgement> {
    let repeat = repeats(frame, previous);
    let mut elements = Vec::with_capacity(frame.payload.len() / TYPICAL_ELEMENT);
    scan::elements(&frame.payload, |range, trade| {
        let (partition, verdict) = verdict(trade.symbol, trade.size, trade.time, frame.received_at, repeat, rules);
        elements.push(Judged { range: range.start as u32..range.end as u32, partition, verdict });
    })?;
    (elements.len() <= MAX_ELEMENTS).then_some(Judgement { kind: Kind::Trades, elements })
}

/// Judges a frame in any form.
fn any_form(frame: &RawFrame, previous: Option<&Bytes>, rules: &Rules) -> Judgement {
    let misshapen = |detail: String| {
        let detail = schema::fault_of_frame(&frame.payload).unwrap_or(detail);
        refuse(frame, rules, Reason::WrongShape, detail)
    };
    let parsed: Frame = match serde_json::from_slice(&frame.payload) {
        Ok(_) if !is_object(&frame.payload) => return misshapen("not an object".to_string()),
        Ok(parsed) => parsed,
        Err(error) if error.is_data() => return misshapen(error.to_string()),
        Err(error) => return refuse(frame, rules, Reason::NotJson, error),
    };
    let kind = parsed.kind.and_then(|kind| serde_json::from_str(kind.get()).ok()).map(|Text(kind)| kind);
    match (kind.as_deref(), parsed.data) {
        (Some("trade"), Some(data)) => trades(frame, data, previous, rules).unwrap_or_else(misshapen),
        (Some("ping"), None) => Judgement { kind: Kind::Ping, elements: Vec::new() },
        (Some("error"), _) => {
            let text = parsed.msg.map_or("without a message".into(), |msg| match serde_json::from_str(msg.get()) {
                Ok(Text(text)) => text.into_owned(),
                Err(_) => msg.get().to_string(),
            });
            Judgement { kind: Kind::Error(text.clone()), ..refuse(frame, rules, Reason::ServerError, text) }
        }
        (Some(kind), _) => misshapen(format!("`type` is `{}`, or `data` is out of place", short(kind))),
        (None, _) => misshapen("`type` is missing".to_string()),
    }
}

/// The judgement on a frame that cannot be taken apart: one element that spans it.
pub fn refuse(frame: &RawFrame, rules: &Rules, reason: Reason, detail: impl ToString) -> Judgement {
    let (range, partition) = (0..frame.payload.len() as u32, rules.watch.partition);
    let verdict = Verdict::Quarantined { reason, detail: detail.to_string() };
    Judgement { kind: Kind::Other, elements: vec![Judged { range, partition, verdict }] }
}

fn trades(frame: &RawFrame, data: &RawValue, previous: Option<&Bytes>, rules: &Rules) -> Result<Judgement, String> {
    let elements: Vec<&RawValue> = serde_json::from_str(data.get()).map_err(|_| "`data` is not a list".to_string())?;
    if elements.len() > MAX_ELEMENTS {
        return Err(format!("`data` has {} elements, at most {MAX_ELEMENTS} are expected", elements.len()));
    }
    let repeat = repeats(frame, previous);
    let begins = frame.payload.as_ptr() as usize;
    let judged = elements.into_iter().map(|element| {
        let text = element.get();
        let start = (text.as_ptr() as usize - begins) as u32;
        let (partition, verdict) = match Trade::parse_any(text.as_bytes()) {
            Ok(trade) => verdict(&trade.symbol, trade.size, trade.event_time, frame.received_at, repeat, rules),
            Err(no) => (rules.watch.partition, Verdict::Quarantined { reason: no.reason, detail: no.detail }),
        };
        Judged { range: start..start + text.len() as u32, partition, verdict }
    });
    Ok(Judgement { kind: Kind::Trades, elements: judged.collect() })
}

fn repeats(frame: &RawFrame, previous: Option<&Bytes>) -> Flags {
    if previous.is_some_and(|previous| *previous == frame.payload) { Flags::FRAME_REPEAT } else { Flags::default() }
}

/// What a trade is that could be read, and its partition.
fn verdict(symbol: &str, size: i64, event_time: i64, received_at: Micros, repeat: Flags, rules: &Rules) -> (u16, Verdict) {
    let Some(partition) = rules.watch.traded(symbol, received_at) else {
        let detail = format!("nobody subscribed to `{}`", short(symbol));
        return (rules.watch.partition, Verdict::Quarantined { reason: Reason::UnknownSymbol, detail });
    };
    let mut flags = repeat;
    let age = received_at.saturating_sub(event_time * 1000);
    if rules.max_age.is_some_and(|max| age > max) || rules.max_ahead.is_some_and(|max| -age > max) {
        flags = flags.with(Flags::TIME_SUSPECT);
    }
    if size == 0 {
        flags = flags.with(Flags::PRICE_UPDATE);
    }
    (partition, Verdict::Trade(flags))
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
        assert_eq!(
            reasons(&judgement),
            [None, Some(Reason::BadPrice), Some(Reason::WrongShape), Some(Reason::UnknownSymbol), None]
        );
        let texts: Vec<_> =
            judgement.elements.iter().map(|e| &frame.payload[e.range.start as usize..e.range.end as usize]).collect();
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
            (r#"{"type":"ping","data":[]}"#, Reason::WrongShape),
            (r#"["trade",[],null]"#, Reason::WrongShape),
            (r#"{"type":"trade","data":[NaN]}"#, Reason::NotJson),
            (r#"{"type":"trade","data":[]}}"#, Reason::NotJson),
        ] {
            assert_eq!(reasons(&judge(&raw(payload), None, &rules())), [Some(reason)], "{payload}");
        }
        let mut not_utf8 = of(&[TRADE]).payload.to_vec();
        not_utf8[12] = 0xff;
        assert_eq!(reasons(&judge(&raw(not_utf8), None, &rules())), [Some(Reason::NotJson)]);
        assert_eq!(judge(&raw(r#"{"type":"error","msg":{"a":1}}"#), None, &rules()).kind, Kind::Error(r#"{"a":1}"#.into()));
        assert_eq!(reasons(&judge(&raw(vec![b' '; 1001]), None, &rules())), [Some(Reason::Overlong)]);
        assert_eq!(reasons(&judge(&RawFrame { binary: true, ..raw("x") }, None, &rules())), [Some(Reason::Binary)]);
    }

    #[test]
    fn a_refusal_is_explained_by_the_schema() {
        for (payload, words) in [
            ("[]", "[] is not of type \"object\""),
            (r#"{"type":"trade"}"#, "\"data\" is a required property"),
            (r#"{"type":"trade","data":7}"#, "data: 7 is not of type \"array\""),
            (r#"{"type":"news","data":[]}"#, "type: \"news\" is not one of \"trade\", \"ping\" or \"error\""),
            (r#"{"type":"ping","type":"ping"}"#, "duplicate field `type`"),
        ] {
            match &judge(&raw(payload), None, &rules()).elements[0].verdict {
                Verdict::Quarantined { detail, .. } => assert!(detail.contains(words), "{payload}: {detail}"),
                Verdict::Trade(_) => panic!("{payload}"),
            }
        }
    }

    #[test]
    fn nested_junk_and_very_many_elements_are_survived() {
        let deep = format!(r#"{{"x":{}1{},"type":"trade","data":[{TRADE}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
        let rules = Rules { max_frame_bytes: 1 << 20, ..rules() };
        assert_eq!(reasons(&judge(&raw(deep), None, &rules)), [None], "an unknown member is not looked into");
        let deep = of(&[&"[".repeat(10_000)]);
        assert_eq!(reasons(&judge(&deep, None, &rules)), [Some(Reason::NotJson)]);
        for (count, refused) in [(MAX_ELEMENTS, false), (MAX_ELEMENTS + 1, true)] {
            let many = of(&vec!["7"; count]);
            assert_eq!(judge(&many, None, &rules).elements.len() == 1, refused);
        }
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

        #[test]
        fn the_known_form_is_judged_as_any_form_is(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), size in 0u8..3, space in " {0,2}", kind_first in any::<bool>()) {
            let element = TRADE.replace("\"v\":5", &format!("\"v\":{space}{size}")).replace("SPY", "MSFT");
            let data = format!("\"data\":[{element},{space}{TRADE}]");
            let (first, second) = if kind_first { ("\"type\":\"trade\"", &*data) } else { (&*data, "\"type\":\"trade\"") };
            let mut payload = format!("{{{first},{second}{space}}}{space}").into_bytes();
            for (at, byte) in edits {
                let at = at.index(payload.len());
                payload[at] = byte;
            }
            let frame = raw(payload);
            if let Some(judgement) = known_form(&frame, None, &rules()) {
                prop_assert_eq!(judgement, any_form(&frame, None, &rules()));
            }
        }
    }
}
