//! Mutated frames: the bytes of a real one with a few edits, and what is still to be made of them.
//!
//! The reading is by the letter of the feed's schema and of DECIMAL(18,8), and is not the daemon's: two
//! readings of one text are what makes a test. Whoever reads differently is found by the audit, which
//! holds the ledger's numbers against the archive.

use std::collections::BTreeSet;
use std::fmt;

use rand::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Edits in a frame, at most: with many, nothing but rubbish comes out.
const EDITS: usize = 4;

/// What JSON is made of: an edit with one of these more often leaves something that can be read.
const ALPHABET: &[u8] = br#"{}[]",:\ 0123456789-+.eEtrunflasAB"#;

/// The last millisecond of the year 9999.
const LAST_TIME: i64 = 253_402_300_799_999;

/// What is to be made of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Elements that are trades.
    pub(super) trades: usize,
    /// Records that are none: elements, or the frame where it cannot be taken apart.
    pub(super) bad: usize,
}

/// Nothing can be taken out of it: it is one bad record.
const RUBBISH: Meaning = Meaning { trades: 0, bad: 1 };

/// A copy with one to four bytes or pieces changed, put in, taken out or cut off.
pub(super) fn mutated(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..=EDITS) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..20) {
            0..=4 => bytes[at] ^= 1 << rng.random_range(0..8),
            5..=9 => bytes[at] = byte(rng),
            10..=13 => bytes.insert(at, byte(rng)),
            14..=16 => drop(bytes.remove(at)),
            17 => drop(bytes.drain(at..(at + rng.random_range(1..40)).min(bytes.len()))),
            18 => {
                let piece = bytes[at..(at + rng.random_range(1..40)).min(bytes.len())].to_vec();
                let to = rng.random_range(0..=bytes.len());
                drop(bytes.splice(to..to, piece));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

fn byte(rng: &mut impl Rng) -> u8 {
    if rng.random_bool(0.8) { *ALPHABET.choose(rng).unwrap_or(&b' ') } else { rng.random() }
}

/// What is to be made of a text, where these symbols were asked for.
pub(super) fn meaning(text: &str, symbols: &BTreeSet<Box<str>>) -> Meaning {
    let Ok(frame) = serde_json::from_str::<Members>(text) else { return RUBBISH };
    if ["data", "type", "msg"].iter().any(|name| frame.has_twice(name)) {
        return RUBBISH;
    }
    match (frame.get("type").and_then(string).as_deref(), frame.get("data")) {
        (Some("ping"), None) => Meaning::default(),
        (Some("trade"), Some(data)) => match serde_json::from_str::<Vec<&RawValue>>(data) {
            Ok(elements) => {
                let trades = elements.iter().filter(|element| is_trade(element.get(), symbols)).count();
                Meaning { trades, bad: elements.len() - trades }
            }
            Err(_) => RUBBISH,
        },
        _ => RUBBISH,
    }
}

fn is_trade(element: &str, symbols: &BTreeSet<Box<str>>) -> bool {
    let Ok(trade) = serde_json::from_str::<Members>(element) else { return false };
    let codes = |codes: &str| serde_json::from_str::<Vec<String>>(codes).is_ok();
    !["c", "p", "s", "t", "v"].iter().any(|name| trade.has_twice(name))
        && trade.get("s").and_then(string).is_some_and(|symbol| symbols.contains(&*symbol))
        && trade.get("p").is_some_and(|number| digits(number).is_some_and(|(whole, behind)| whole <= 10 && behind <= 8))
        && trade.get("v").is_some_and(|number| digits(number).is_some_and(|(whole, behind)| whole <= 10 && behind <= 8))
        && trade.get("t").is_some_and(is_time)
        && trade.get("c").is_none_or(codes)
}

fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// How many digits a JSON number that is not negative has before its point and behind it, written without
/// an exponent and without what says nothing; none for what is no such number.
fn digits(number: &str) -> Option<(i64, i64)> {
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
    if !number.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let at = number.find(['e', 'E']).unwrap_or(number.len());
    let (mantissa, exponent) = (&number[..at], number[at..].get(1..).unwrap_or("0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some((0, 0));
    }
    // An exponent that fits no number makes one that fits no column.
    let exponent: i64 = exponent.parse().ok().filter(|exponent: &i64| exponent.abs() < 1_000_000)?;
    let point = whole.len() as i64 + exponent - (all.len() - significant.len()) as i64;
    let behind = significant.trim_end_matches('0').len() as i64 - point;
    (!negative).then_some((point.max(0), behind.max(0)))
}

fn is_time(number: &str) -> bool {
    let exact = digits(number).is_some_and(|(whole, behind)| whole <= 15 && behind == 0);
    // A double holds each integer of fifteen digits.
    exact && number.parse::<f64>().is_ok_and(|time| time <= LAST_TIME as f64)
}

/// The members of an object, in their order and unread; `null` is as if it were not there.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Members<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get()).filter(|value| *value != "null")
    }

    fn has_twice(&self, name: &str) -> bool {
        self.0.iter().filter(|(key, _)| key == name).count() > 1
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::rngs::StdRng;

    use super::*;
    use crate::domain::frame::{Rules, Watchlist, judge};
    use crate::domain::verdict::{RawFrame, Verdict};

    const FRAME: &str = r#"{"data":[{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5},{"c":null,"p":61836.0,"s":"BINANCE:BTCUSDT","t":1723161255617,"v":9e-05}],"type":"trade"}"#;

    fn symbols() -> BTreeSet<Box<str>> {
        ["AAPL", "BINANCE:BTCUSDT"].map(Box::from).into()
    }

    #[test]
    fn what_is_still_a_trade_is_told_from_what_is_none() {
        let of = |text: &str| meaning(text, &symbols());
        let changed = |from: &str, to: &str| {
            assert!(FRAME.contains(from), "{from}");
            of(&FRAME.replacen(from, to, 1))
        };
        let (both, one) = (Meaning { trades: 2, bad: 0 }, Meaning { trades: 1, bad: 1 });
        assert_eq!(of(FRAME), both);
        for (from, to) in [
            ("164.0601", "0"),
            ("164.0601", "9999999999.99999999"),
            ("164.0601", "-0.0"),
            ("164.0601", "0.1640601e3"),
            (":5}", ":50000e-9}"),
            ("1680286537580", "1.68028653758e12"),
            ("1680286537580", "253402300799999"),
            ("\"c\":null,", ""),
            ("\"c\":null", "\"x\":1,\"x\":2"),
            ("AAPL", "\\u0041APL"),
        ] {
            assert_eq!(changed(from, to), both, "{from} {to}");
        }
        for (from, to) in [
            ("164.0601", "-164.0601"),
            ("164.0601", "10000000000"),
            ("164.0601", "164.060100001"),
            (":5}", ":1e99999999999999999999}"),
            ("1680286537580", "1680286537580.5"),
            ("1680286537580", "253402300800000"),
            ("\"p\":61836.0", "\"p\":null"),
            ("\"p\":61836.0", "\"p\":\"61836.0\""),
            ("\"c\":null", "\"s\":\"AAPL\""),
            ("\"c\":null", "\"c\":[1]"),
            ("AAPL", "AAPM"),
            ("AAPL", "\\ud800"),
        ] {
            assert_eq!(changed(from, to), one, "{from} {to}");
        }
        for text in
            ["", "[]", "{}", r#"{"type":"trade"}"#, r#"{"data":{},"type":"trade"}"#, &FRAME[1..], &FRAME[..FRAME.len() - 1]]
        {
            assert_eq!(of(text), RUBBISH, "{text}");
        }
        assert_eq!(changed("\"type\":", "\"data\":[],\"type\":"), RUBBISH);
        assert_eq!(of(r#"{"type":"ping"}"#), Meaning::default());
        assert_eq!(of(r#"{"data":[],"type":"trade"}"#), Meaning::default());
    }

    /// Two readings that nobody made from one another: where they differ, one of them is wrong.
    #[test]
    fn the_daemon_makes_the_same_of_it() {
        let watch = Arc::new(Watchlist::new(&["AAPL".to_string(), "BINANCE:BTCUSDT".to_string()], 0));
        let rules = Rules { watch, max_age: None, max_ahead: None, max_frame_bytes: 1 << 20 };
        let (mut rng, mut seen) = (StdRng::seed_from_u64(20_261_126), [0_u32; 4]);
        for _ in 0..100_000 {
            let Ok(text) = String::from_utf8(mutated(FRAME.as_bytes(), &mut rng)) else {
                seen[3] += 1;
                continue;
            };
            let expected = meaning(&text, &symbols());
            let frame = RawFrame { number: 1, received_at: 1_800_000_000_000_000, payload: text.clone().into(), binary: false };
            let verdicts = judge(&frame, None, &rules).elements;
            let trades = verdicts.iter().filter(|judged| matches!(judged.verdict, Verdict::Trade(_))).count();
            assert_eq!(Meaning { trades, bad: verdicts.len() - trades }, expected, "{text}");
            seen[expected.trades.min(2)] += 1;
        }
        println!("rubbish, one trade, two trades, no text: {seen:?}");
        assert!(seen.iter().all(|&count| count > 1000), "{seen:?}");
    }
}
