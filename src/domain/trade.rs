//! A trade, read from the text that the server sent. Money is decimal: the digits are taken over
//! as they stand, never through a binary float (design, invariant 6).
//!
//! It is read twice: by validation, and by the partition writer for the typed columns. `scan` reads
//! the form in which the feed writes; what that does not know, the JSON parser reads here, and what
//! is refused here, the schema explains ([`super::schema`]). Decided, and tested below: a key given
//! twice refuses the element (whoever reads it later might see the other value); unknown keys are
//! allowed, so that the feed may grow; a price of 0 is for Silver to reject; `1e2`, `1.0` and
//! `1700000000000.0` are the numbers that they are; a number is never rounded.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::scan::{self, Codes};
use super::schema;
use super::verdict::Reason;

/// Digits behind the point of prices and sizes: DECIMAL(18,8).
pub const SCALE: u32 = 8;

/// The first number that has too many digits for DECIMAL(18,8), in units of 10^-8.
const LIMIT: u128 = 10u128.pow(18);

/// The last millisecond of the year 9999, the end of what every warehouse can hold.
pub(super) const LAST_TIME: i64 = 253_402_300_799_999;

/// A trade as one element of a frame says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trade<'a> {
    /// As subscribed: `AAPL`, `BINANCE:BTCUSDT`.
    pub symbol: Cow<'a, str>,
    /// In units of 10^-8.
    pub price: i64,
    /// In units of 10^-8; 0 is a price update and no trade.
    pub size: i64,
    /// Milliseconds since the Unix epoch.
    pub event_time: i64,
    /// Sale conditions in the order sent, joined by commas; empty for `[]`, none for null and absent.
    pub conditions: Option<Cow<'a, str>>,
}

/// Why an element is no trade.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct NoTrade {
    /// The kind of fault.
    pub reason: Reason,
    /// What exactly.
    pub detail: String,
}

impl<'a> Trade<'a> {
    /// Reads an element's text.
    pub fn parse(raw: &'a [u8]) -> Result<Trade<'a>, NoTrade> {
        match scan::element(raw) {
            Some(scan::Element { symbol, price, size, time, codes }) => {
                let conditions = joined(codes);
                Ok(Trade { symbol: symbol.into(), price, size, event_time: time, conditions })
            }
            None => Trade::parse_any(raw),
        }
    }

    /// Reads it in any form that JSON allows.
    pub(super) fn parse_any(raw: &'a [u8]) -> Result<Trade<'a>, NoTrade> {
        parse_json(raw).map_err(|no| NoTrade { detail: schema::fault_of_trade(raw, no.reason).unwrap_or(no.detail), ..no })
    }
}

/// The symbol of an element that is a trade, without reading the rest where it is in the form that the feed
/// writes. Of an element that is none, it may be an error or anything.
pub fn symbol_of(raw: &[u8]) -> Result<Cow<'_, str>, NoTrade> {
    match scan::symbol(raw) {
        Some(symbol) => Ok(symbol.into()),
        None => Trade::parse_any(raw).map(|trade| trade.symbol),
    }
}

/// The codes without their quotes.
fn joined(codes: Codes<'_>) -> Option<Cow<'_, str>> {
    let Codes::List(list) = codes else { return None };
    let list = list.trim_ascii();
    Some(match list.strip_prefix('"').and_then(|list| list.strip_suffix('"')) {
        None => Cow::Borrowed(""),
        Some(one) if !one.contains('"') => Cow::Borrowed(one),
        Some(_) => {
            let (mut joined, mut codes) = (String::with_capacity(list.len()), list.split('"').skip(1).step_by(2));
            joined.push_str(codes.next().unwrap_or_default());
            codes.for_each(|code| joined.extend([",", code]));
            joined.into()
        }
    })
}

/// An element with its fields unread. Unknown fields are allowed; a field given twice is not.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    s: Option<&'a RawValue>,
    #[serde(borrow)]
    p: Option<&'a RawValue>,
    #[serde(borrow)]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    t: Option<&'a RawValue>,
    #[serde(borrow)]
    c: Option<&'a RawValue>,
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Whether a JSON text is an object. A derived `Deserialize` would take a list for one.
pub(super) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

fn parse_json(raw: &[u8]) -> Result<Trade<'_>, NoTrade> {
    if !is_object(raw) {
        return Err(no(Reason::WrongShape, "not an object"));
    }
    let element: Element = serde_json::from_slice(raw).map_err(|error| no(Reason::WrongShape, error))?;
    let symbol = element.s.ok_or_else(|| no(Reason::WrongShape, "`s` is missing"))?;
    let symbol: Text = serde_json::from_str(symbol.get())
        .map_err(|_| no(Reason::WrongShape, format!("`s` is {}, not a string", short(symbol.get()))))?;
    if symbol.0.is_empty() {
        return Err(no(Reason::WrongShape, "`s` is empty"));
    }
    Ok(Trade {
        symbol: symbol.0,
        price: number(element.p, "p", Reason::BadPrice)?,
        size: number(element.v, "v", Reason::BadSize)?,
        event_time: time(element.t)?,
        conditions: element.c.map(conditions).transpose()?.flatten(),
    })
}

fn no(reason: Reason, detail: impl ToString) -> NoTrade {
    NoTrade { reason, detail: detail.to_string() }
}

/// The beginning of a text that may be long.
pub(super) fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(60)]
}

fn number(value: Option<&RawValue>, name: &str, reason: Reason) -> Result<i64, NoTrade> {
    let text = value.map_or("missing", RawValue::get);
    decimal(text).map_err(|fault| no(reason, format!("`{name}` is {}: {fault}", short(text))))
}

fn time(value: Option<&RawValue>) -> Result<i64, NoTrade> {
    let text = value.map_or("missing", RawValue::get);
    let time = scaled(text, 0, LAST_TIME as u128 + 1);
    time.map_err(|_| no(Reason::BadTime, format!("`t` is {}, not milliseconds from 1970 to 9999", short(text))))
}

fn conditions(value: &RawValue) -> Result<Option<Cow<'_, str>>, NoTrade> {
    let codes: Option<Vec<Text>> = serde_json::from_str(value.get())
        .map_err(|_| no(Reason::WrongShape, format!("`c` is {}, not a list of strings or null", short(value.get()))))?;
    Ok(codes.map(|codes| codes.iter().map(|code| &*code.0).collect::<Vec<_>>().join(",").into()))
}

/// Why a text is no price and no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNumber {
    /// `null`, a string, nothing at all.
    #[error("not a number")]
    NotANumber,
    /// Below zero.
    #[error("negative")]
    Negative,
    /// It would have to be rounded or cut.
    #[error("does not fit DECIMAL(18,8)")]
    DoesNotFit,
}

/// Reads a JSON number (`164.0601`, `9e-05`) exactly, in units of 10^-8.
pub fn decimal(text: &str) -> Result<i64, BadNumber> {
    scaled(text, SCALE, LIMIT)
}

/// Reads a JSON number exactly in units of 10^-`scale`, if there are fewer than `limit`.
fn scaled(text: &str, scale: u32, limit: u128) -> Result<i64, BadNumber> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    if ![whole, fraction].into_iter().chain(exponent.map(unsigned)).all(is_digits) {
        return Err(BadNumber::NotANumber);
    }
    // Zeros at either end are worth nothing, however many there are.
    let fraction = fraction.trim_end_matches('0');
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0');
    let trailing = if fraction.is_empty() { whole.len() - whole.trim_end_matches('0').len() } else { 0 };
    let significant = digits().count().saturating_sub(trailing);
    if significant == 0 {
        return Ok(0);
    }
    if negative {
        return Err(BadNumber::Negative);
    }
    let exponent: i64 = exponent.map_or(Ok(0), str::parse).map_err(|_| BadNumber::DoesNotFit)?;
    let shift = exponent.saturating_add(i64::from(scale)).saturating_add(trailing as i64).saturating_sub(fraction.len() as i64);
    let shift = u32::try_from(shift).map_err(|_| BadNumber::DoesNotFit)?;
    let append = |units: u128, digit: u8| units.checked_mul(10)?.checked_add(u128::from(digit - b'0'));
    let units = digits().take(significant).try_fold(0, append);
    let units = units.zip(10u128.checked_pow(shift)).and_then(|(units, power)| units.checked_mul(power));
    units.filter(|units| *units < limit).map(|units| units as i64).ok_or(BadNumber::DoesNotFit)
}

fn unsigned(exponent: &str) -> &str {
    exponent.strip_prefix(['+', '-']).unwrap_or(exponent)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_shapes_that_finnhub_sends() {
        let parse = |text: &'static str| Trade::parse(text.as_bytes()).unwrap();
        let trade = parse(r#"{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5}"#);
        assert_eq!((&*trade.symbol, trade.price, trade.size), ("AAPL", 16_406_010_000, 500_000_000));
        assert_eq!((trade.event_time, trade.conditions.as_deref()), (1_680_286_537_580, Some("1,12")));
        assert_eq!(parse(r#"{"c":[],"p":1,"s":"A","t":0,"v":0}"#).conditions.as_deref(), Some(""));
        assert_eq!(parse(r#"{"c":null,"p":1,"s":"A","t":0,"v":9e-05}"#).size, 9_000);
        assert_eq!(parse(r#"{"v":1.0,"t":0,"s":"A\u0042","p":1E2,"x":{"y":[]}}"#).symbol, "AB");
        assert_eq!(parse(r#" {"v":1,"t":1.7e3,"s":"é","p":1,"\u0063":[ "1" , "\u0032"]} "#).conditions.as_deref(), Some("1,2"));
    }

    #[test]
    fn a_symbol_is_read_alone_in_any_form_of_a_trade() {
        for text in [
            r#"{"c":["1","12"],"p":164.0601,"s":"AAPL","t":1680286537580,"v":5}"#,
            r#"{"v":1.0,"t":0,"s":"A\u0042","p":1E2,"x":{"s":"no"}}"#,
            r#"{"x":"\"s\":\"no\"","s":"é","p":1,"t":0,"v":1}"#,
            r#" { "t" : 1 , "v":1 , "p":9e-05, "c" : [ ] , "\u0073" : "BINANCE:BTCUSDT" } "#,
        ] {
            assert_eq!(symbol_of(text.as_bytes()).unwrap(), Trade::parse(text.as_bytes()).unwrap().symbol, "{text}");
        }
        assert_eq!(symbol_of(br#"{"p":1,"t":0,"v":1}"#).unwrap_err().reason, Reason::WrongShape);
    }

    #[test]
    fn each_fault_has_its_reason_and_its_explanation() {
        for (text, reason, detail) in [
            ("7", Reason::WrongShape, "7 is not of type \"object\""),
            (r#"["A",1,1,0,null]"#, Reason::WrongShape, "is not of type \"object\""),
            (r#"{"p":1,"t":0,"v":1}"#, Reason::WrongShape, "\"s\" is a required property"),
            (r#"{"s":"","p":1,"t":0,"v":1}"#, Reason::WrongShape, "s: \"\" is shorter than 1 character"),
            (r#"{"s":7,"p":1,"t":0,"v":1}"#, Reason::WrongShape, "s: 7 is not of type \"string\""),
            (r#"{"s":"A","p":1,"p":2,"t":0,"v":1}"#, Reason::WrongShape, "duplicate field `p`"),
            (r#"{"s":"A","p":1,"t":0,"v":1,"c":"1"}"#, Reason::WrongShape, "c: \"1\" is not of types \"null\", \"array\""),
            (r#"{"s":"A","p":1,"t":0,"v":1,"c":[1]}"#, Reason::WrongShape, "c/0: 1 is not of type \"string\""),
            (r#"{"s":"A","p":"1","t":0,"v":1}"#, Reason::BadPrice, "p: \"1\" is not of type \"number\""),
            (r#"{"s":"A","t":0,"v":1}"#, Reason::BadPrice, "\"p\" is a required property"),
            (r#"{"s":"A","p":null,"t":0,"v":1}"#, Reason::BadPrice, "p: null is not of type \"number\""),
            (r#"{"s":"A","p":-1,"t":0,"v":1}"#, Reason::BadPrice, "p: -1 is less than the minimum of 0"),
            (r#"{"s":"A","p":1,"t":0,"v":1e11}"#, Reason::BadSize, "v: 100000000000.0 is greater than or equal to"),
            (r#"{"s":"A","p":1,"t":0,"v":1e999}"#, Reason::BadSize, "`v` is 1e999: does not fit DECIMAL(18,8)"),
            (r#"{"s":"A","p":1,"t":0,"v":0.000000001}"#, Reason::BadSize, "`v` is 0.000000001: does not fit DECIMAL(18,8)"),
            (r#"{"s":"A","p":1,"t":1.5,"v":1}"#, Reason::BadTime, "t: 1.5 is not of type \"integer\""),
            (r#"{"s":"A","p":1,"t":-1,"v":1}"#, Reason::BadTime, "t: -1 is less than the minimum of 0"),
            (r#"{"s":"A","p":1,"t":99999999999999999999,"v":1}"#, Reason::BadTime, "t: 1e+20 is greater than the maximum"),
        ] {
            let no = Trade::parse(text.as_bytes()).expect_err(text);
            assert_eq!(no.reason, reason, "{text}: {no}");
            assert!(no.detail.contains(detail), "{text}: {no}");
        }
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        let zeros = "0".repeat(60);
        for (text, units) in [
            ("0", 0),
            ("-0.0", 0),
            ("0e99999999999999999999", 0),
            ("1e-8", 1),
            ("9999999999.99999999", 999_999_999_999_999_999),
            ("1.50000000000", 150_000_000),
            ("100e-10", 1),
            (&format!("1.{zeros}"), 100_000_000),
            (&format!("1{zeros}e-60"), 100_000_000),
            (&format!("0.{zeros}1e61"), 100_000_000),
        ] {
            assert_eq!(decimal(text), Ok(units), "{text}");
        }
        for text in ["10000000000", "1e10", "1e-9", "1e999999999999", "1e-999999999999999999999", "0.123456789"] {
            assert_eq!(decimal(text), Err(BadNumber::DoesNotFit), "{text}");
        }
        for text in ["", "-", "null", "1.", ".5", "1e", "1e+", "1e--2", "NaN", "0x1", "1_0", "missing"] {
            assert_eq!(decimal(text), Err(BadNumber::NotANumber), "{text}");
        }
        assert_eq!(decimal("-1e-99"), Err(BadNumber::Negative));
    }

    fn nearly_a_trade() -> impl Strategy<Value = String> {
        let key = "[cpstvx]|\\\\u0070";
        let value = prop_oneof![
            3 => "-?[0-9]{1,12}(\\.[0-9]{1,9})?([eE][-+]?[0-9]{1,3})?",
            2 => "\"[A-Z:.\\\\é]{0,4}\"",
            1 => "\\[( ?\"[0-9]{1,2}\" ?,?){0,3}\\]",
            1 => "null|true|NaN|\\{\\}",
        ];
        let good = "\\{\"c\":(null|\\[(\"[0-9]{1,2}\"(,\"[0-9]{1,2}\"){0,3})?\\]),\"p\":-?[0-9]{1,11}(\\.[0-9]{0,9})?,\"s\":\"[A-Z:]{1,9}\",\"t\":[0-9]{1,16},\"v\":[0-9]{1,3}(\\.[0-9]{1,3})?\\}";
        let odd = prop::collection::vec((key, value, "( ?: ?)?"), 0..6).prop_map(|members| {
            let members = members
                .iter()
                .map(|(key, value, colon)| format!("\"{key}\"{}{value}", if colon.is_empty() { ":" } else { colon }));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        });
        prop_oneof![good, odd]
    }

    proptest! {
        #[test]
        fn a_decimal_reads_back(units in 0i64..1_000_000_000_000_000_000) {
            let text = format!("{}.{:08}", units / 100_000_000, units % 100_000_000);
            prop_assert_eq!(decimal(&text), Ok(units));
            prop_assert_eq!(decimal(&format!("{units}e-8")), Ok(units));
            let element = format!(r#"{{"s":"A","p":{text},"v":{text},"t":1}}"#);
            let trade = scan::element(element.as_bytes()).unwrap();
            prop_assert_eq!((trade.price, trade.size), (units, units));
        }

        #[test]
        fn what_the_fast_way_reads_the_parser_reads_the_same(text in nearly_a_trade(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
            let mut text = text.into_bytes();
            for (at, byte) in edits {
                let at = at.index(text.len());
                text[at] = byte;
            }
            if scan::element(&text).is_some() {
                prop_assert_eq!(Trade::parse(&text), parse_json(&text), "{}", String::from_utf8_lossy(&text));
            }
            if let Ok(trade) = parse_json(&text) {
                prop_assert_eq!(symbol_of(&text), Ok(trade.symbol), "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[-+0-9.eE]{0,40}") {
            drop(Trade::parse(&bytes));
            drop(symbol_of(&bytes));
            drop(decimal(&text).map_err(|fault| fault.to_string()));
        }
    }
}
