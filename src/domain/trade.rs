//! A trade, read from the text that the server sent. Money is decimal: the digits are taken over
//! as they stand, never through a binary float (design, invariant 6).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::verdict::Reason;

/// Digits behind the point of prices and sizes: DECIMAL(18,8).
pub const SCALE: u32 = 8;

/// The first number that has too many digits for DECIMAL(18,8), in units of 10^-8.
const LIMIT: u128 = 10u128.pow(18);

/// The last millisecond of the year 9999, the end of what every warehouse can hold.
const LAST_TIME: i64 = 253_402_300_799_999;

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
    pub conditions: Option<String>,
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

impl<'a> Trade<'a> {
    /// Reads an element's text.
    pub fn parse(raw: &'a [u8]) -> Result<Trade<'a>, NoTrade> {
        let element: Element<'a> = serde_json::from_slice(raw).map_err(|error| no(Reason::WrongShape, error))?;
        let missing = |name: &str| no(Reason::WrongShape, format!("`{name}` is missing"));
        let symbol: &RawValue = element.s.ok_or_else(|| missing("s"))?;
        let symbol: Text<'a> = serde_json::from_str(symbol.get())
            .map_err(|_| no(Reason::WrongShape, format!("`s` is {}, not a string", short(symbol.get()))))?;
        if symbol.0.is_empty() {
            return Err(no(Reason::WrongShape, "`s` is empty"));
        }
        let number = |value: Option<&'a RawValue>, name: &str, reason| {
            let text = value.map_or("missing", RawValue::get);
            decimal(text).map_err(|fault| no(reason, format!("`{name}` is {}: {fault}", short(text))))
        };
        Ok(Trade {
            symbol: symbol.0,
            price: number(element.p, "p", Reason::BadPrice)?,
            size: number(element.v, "v", Reason::BadSize)?,
            event_time: time(element.t)?,
            conditions: element.c.map(conditions).transpose()?.flatten(),
        })
    }
}

/// A string that is borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn no(reason: Reason, detail: impl ToString) -> NoTrade {
    NoTrade { reason, detail: detail.to_string() }
}

/// The beginning of a text that may be long.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(60)]
}

fn time(value: Option<&RawValue>) -> Result<i64, NoTrade> {
    let text = value.map_or("missing", RawValue::get);
    let time = text.parse().ok().filter(|time| (0..=LAST_TIME).contains(time));
    time.ok_or_else(|| no(Reason::BadTime, format!("`t` is {}, not milliseconds from 1970 to 9999", short(text))))
}

fn conditions(value: &RawValue) -> Result<Option<String>, NoTrade> {
    let codes: Option<Vec<Text>> = serde_json::from_str(value.get())
        .map_err(|_| no(Reason::WrongShape, format!("`c` is {}, not a list of strings or null", short(value.get()))))?;
    Ok(codes.map(|codes| codes.iter().map(|code| &*code.0).collect::<Vec<_>>().join(",")))
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
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().map_err(|_| exponent_fault(exponent))?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || mantissa.ends_with('.') || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(BadNumber::NotANumber);
    }
    let mut units: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        units = units.checked_mul(10).and_then(|n| n.checked_add(u128::from(digit - b'0'))).ok_or(BadNumber::DoesNotFit)?;
    }
    if units == 0 {
        return Ok(0);
    }
    if negative {
        return Err(BadNumber::Negative);
    }
    let shift = exponent.saturating_add(i64::from(SCALE)).saturating_sub(fraction.len() as i64);
    let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|shift| 10u128.checked_pow(shift)).ok_or(BadNumber::DoesNotFit)?;
    let units = if shift >= 0 {
        units.checked_mul(power).ok_or(BadNumber::DoesNotFit)?
    } else if units.is_multiple_of(power) {
        units / power
    } else {
        return Err(BadNumber::DoesNotFit);
    };
    if units < LIMIT { Ok(units as i64) } else { Err(BadNumber::DoesNotFit) }
}

fn exponent_fault(exponent: &str) -> BadNumber {
    let digits = exponent.trim_start_matches(['+', '-']);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) { BadNumber::DoesNotFit } else { BadNumber::NotANumber }
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
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (text, reason) in [
            ("[]", Reason::WrongShape),
            (r#"{"p":1,"t":0,"v":1}"#, Reason::WrongShape),
            (r#"{"s":"","p":1,"t":0,"v":1}"#, Reason::WrongShape),
            (r#"{"s":7,"p":1,"t":0,"v":1}"#, Reason::WrongShape),
            (r#"{"s":"A","p":1,"p":2,"t":0,"v":1}"#, Reason::WrongShape),
            (r#"{"s":"A","p":1,"t":0,"v":1,"c":"1"}"#, Reason::WrongShape),
            (r#"{"s":"A","p":1,"t":0,"v":1,"c":[1]}"#, Reason::WrongShape),
            (r#"{"s":"A","p":"1","t":0,"v":1}"#, Reason::BadPrice),
            (r#"{"s":"A","t":0,"v":1}"#, Reason::BadPrice),
            (r#"{"s":"A","p":-1,"t":0,"v":1}"#, Reason::BadPrice),
            (r#"{"s":"A","p":1,"t":0,"v":1e99}"#, Reason::BadSize),
            (r#"{"s":"A","p":1,"t":0,"v":0.000000001}"#, Reason::BadSize),
            (r#"{"s":"A","p":1,"t":1.5,"v":1}"#, Reason::BadTime),
            (r#"{"s":"A","p":1,"t":-1,"v":1}"#, Reason::BadTime),
            (r#"{"s":"A","p":1,"t":99999999999999999999,"v":1}"#, Reason::BadTime),
        ] {
            assert_eq!(Trade::parse(text.as_bytes()).map_err(|no| no.reason), Err(reason), "{text}");
        }
    }

    #[test]
    fn numbers_are_exact_or_refused() {
        for (text, units) in [("0", 0), ("-0.0", 0), ("0e9", 0), ("1e-8", 1), ("9999999999.99999999", 999_999_999_999_999_999), ("1.50000000000", 150_000_000)] {
            assert_eq!(decimal(text), Ok(units), "{text}");
        }
        for text in ["10000000000", "1e10", "1e-9", "1e999999999999", "1e-999999999999999999999", "0.123456789"] {
            assert_eq!(decimal(text), Err(BadNumber::DoesNotFit), "{text}");
        }
        for text in ["", "null", "1.", ".5", "1e", "NaN", "0x1", "1_0"] {
            assert_eq!(decimal(text), Err(BadNumber::NotANumber), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_reads_back(units in 0i64..1_000_000_000_000_000_000) {
            let text = format!("{}.{:08}", units / 100_000_000, units % 100_000_000);
            prop_assert_eq!(decimal(&text), Ok(units));
            prop_assert_eq!(decimal(&format!("{units}e-8")), Ok(units));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[-+0-9.eE]{0,40}") {
            let _ = Trade::parse(&bytes);
            let _ = decimal(&text);
        }
    }
}
