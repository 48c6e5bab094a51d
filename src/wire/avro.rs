//! Values in Avro of our own schemas, by hand: the hot path.
//!
//! The order of the fields is that of schemas/*.avsc. Reading takes out what Bronze needs and passes over the
//! rest; lengths are checked, the rest is believed. Property tests hold both ways to `apache-avro`.

use std::ops::Range;

use bytes::{Buf, Bytes};
use uuid::fmt::Hyphenated;

use super::WireError;
use super::json;
use crate::domain::entry::{Control, Payload};
use crate::domain::identity::{Delivery, Micros};
use crate::domain::stream::Stream;
use crate::domain::trade::Trade;
use crate::domain::verdict::{Flags, Reason};

/// An id as text.
pub(super) type Session = [u8; Hyphenated::LENGTH];

/// Who a record is: what each of the schemas begins with.
pub(super) struct Identity<'a> {
    /// The delivery's session as text: it seldom changes.
    pub(super) session: &'a Session,
    pub(super) delivery: Delivery,
    pub(super) seq: u64,
    pub(super) received_at: Micros,
}

/// Appends a trade; `trade` is what `raw` says.
pub(super) fn write_trade(out: &mut Vec<u8>, who: &Identity<'_>, trade: &Trade<'_>, flags: Flags, raw: &[u8]) {
    identity(out, who);
    bytes(out, b"finnhub");
    bytes(out, trade.symbol.as_bytes());
    decimal(out, trade.price);
    decimal(out, trade.size);
    long(out, trade.event_time);
    optional(out, trade.conditions.as_deref(), |out, text| bytes(out, text.as_bytes()));
    out.extend([Flags::TIME_SUSPECT, Flags::PRICE_UPDATE, Flags::FRAME_REPEAT].map(|flag| u8::from(flags.has(flag))));
    bytes(out, raw);
}

/// Appends a gap or a session's end.
pub(super) fn write_gap(out: &mut Vec<u8>, who: &Identity<'_>, control: &Control) {
    identity(out, who);
    let text = |out: &mut Vec<u8>, text: &str| bytes(out, text.as_bytes());
    match control {
        Control::Gap(gap) => {
            text(out, "gap");
            text(out, &gap.shard);
            optional(out, Some(gap.symbols.join(",")), |out, symbols| text(out, &symbols));
            optional(out, Some(gap.previous_session), |out, session| text(out, &session.to_string()));
            text(out, &gap.reason);
            optional(out, gap.last_received_at, long);
            optional(out, gap.first_received_at, long);
            optional(out, Some(gap.last_frame.into()), long);
            [None; 4].into_iter().for_each(|none| optional(out, none, long));
        }
        Control::SessionEnd(end) => {
            text(out, "session_end");
            text(out, &end.shard);
            [None; 2].into_iter().for_each(|none| optional(out, none, text));
            text(out, &end.reason);
            optional(out, end.last_received_at, long);
            [None; 2].into_iter().for_each(|none| optional(out, none, long));
            optional(out, Some(end.frames.into()), long);
            for stream in [Stream::Trades, Stream::Quarantine, Stream::Gaps] {
                optional(out, Some(end.records[stream.index()] as i64), long);
            }
        }
    }
    bytes(out, &json::of_control(control));
}

/// Appends what is no trade.
pub(super) fn write_quarantined(out: &mut Vec<u8>, who: &Identity<'_>, reason: Reason, detail: &str, raw: &[u8]) {
    identity(out, who);
    bytes(out, reason.name().as_bytes());
    bytes(out, detail.as_bytes());
    bytes(out, raw);
}

/// What a value of a stream holds for Bronze; it keeps the value's bytes. The flags stand in the header.
pub(super) fn read(stream: Stream, mut value: Bytes, flags: Flags) -> Result<Payload, WireError> {
    let malformed = WireError::value;
    let mut fields = Fields { value: &value, at: 0 };
    fields.pass_identity().map_err(malformed)?;
    let mut words = None;
    let raw = match stream {
        Stream::Trades => fields.raw_of_trade(),
        Stream::Gaps => fields.raw_of_gap(),
        Stream::Quarantine => {
            let mut field = || fields.bytes().and_then(|range| text(&value[range]));
            words = Some((field().map_err(malformed)?, field().map_err(malformed)?));
            fields.bytes()
        }
    };
    let raw = raw.map_err(malformed)?;
    if raw.end != value.len() {
        return Err(malformed("bytes behind its last field"));
    }
    match words {
        Some((reason, detail)) => quarantined(reason, detail.to_string(), value.slice(raw)),
        None if stream == Stream::Gaps => json::control(&value[raw]).map(|control| Payload::Control(Box::new(control))),
        None => {
            value.advance(raw.start); // Not `slice`, which would allocate a count of who shares it.
            Ok(Payload::Trade { raw: value, flags })
        }
    }
}

/// What is no trade, with the name of its reason.
pub(super) fn quarantined(reason: &str, detail: String, raw: Bytes) -> Result<Payload, WireError> {
    let known = Reason::ALL.into_iter().find(|known| known.name() == reason);
    let reason = known.ok_or_else(|| WireError::Newer { what: "reason", found: format!("`{reason}`") })?;
    Ok(Payload::Quarantined { raw, reason, detail })
}

fn identity(out: &mut Vec<u8>, who: &Identity<'_>) {
    bytes(out, who.session);
    long(out, who.delivery.frame.into());
    long(out, who.delivery.index.into());
    long(out, who.seq as i64);
    long(out, who.received_at);
}

/// A number in zigzag and groups of seven bits, lowest first. `int` is the same.
fn long(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Units as the shortest big-endian two's complement that holds them.
fn decimal(out: &mut Vec<u8>, units: i64) {
    let sign = if units < 0 { !units } else { units };
    let needless = sign.leading_zeros().saturating_sub(1) as usize / 8;
    bytes(out, &units.to_be_bytes()[needless.min(7)..]);
}

/// A union of null and something.
fn optional<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(if value.is_some() { 2 } else { 0 });
    if let Some(value) = value {
        write(out, value);
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| "a string that is not UTF-8")
}

/// What is wrong with a value. Smaller than a [`WireError`], which is the caller's to make.
type Fault = &'static str;

/// A value, and how far it has been read.
struct Fields<'a> {
    value: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn pass_identity(&mut self) -> Result<(), Fault> {
        self.bytes()?; // session
        (0..4).try_for_each(|_| self.pass_long()) // frame, idx, seq, received_at
    }

    /// Passes over all between the identity and `raw`.
    fn raw_of_trade(&mut self) -> Result<Range<usize>, Fault> {
        (0..4).try_for_each(|_| self.bytes().map(drop))?; // source, symbol, price, size
        self.pass_long()?; // event_time
        self.optional(|fields| fields.bytes().map(drop))?; // conditions
        (0..3).try_for_each(|_| self.boolean())?; // the flags
        let raw = self.bytes()?;
        text(&self.value[raw.clone()])?;
        Ok(raw)
    }

    /// Passes over all between the identity and `raw`.
    fn raw_of_gap(&mut self) -> Result<Range<usize>, Fault> {
        (0..2).try_for_each(|_| self.bytes().map(drop))?; // kind, shard
        (0..2).try_for_each(|_| self.optional(|fields| fields.bytes().map(drop)))?; // symbols, previous_session
        self.bytes()?; // reason
        (0..7).try_for_each(|_| self.optional(Fields::pass_long))?; // two times, five counts
        self.bytes()
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.value.get(self.at).ok_or(CUT)?;
        self.at += 1;
        Ok(byte)
    }

    fn boolean(&mut self) -> Result<(), Fault> {
        if self.byte()? > 1 { Err("a boolean that is neither") } else { Ok(()) }
    }

    /// A union with null.
    fn optional(&mut self, pass: impl FnOnce(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        match self.long()? {
            0 => Ok(()),
            1 => pass(self),
            _ => Err("a union that has no such branch"),
        }
    }

    /// Goes behind a number: its last byte is the first one without the highest bit. Eight bytes at once, where
    /// there are so many: the two times alone have fourteen.
    fn pass_long(&mut self) -> Result<(), Fault> {
        let ends = self.value[self.at..].first_chunk().map_or(0, |bytes| !u64::from_le_bytes(*bytes) & 0x8080_8080_8080_8080);
        if ends == 0 {
            return self.long().map(drop);
        }
        self.at += ends.trailing_zeros() as usize / 8 + 1;
        Ok(())
    }

    fn long(&mut self) -> Result<i64, Fault> {
        let mut number = 0;
        for group in 0..10 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * group);
            if byte < 0x80 && (group < 9 || byte < 2) {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number of more than 64 bits")
    }

    /// Where the bytes of a `bytes` or a `string` stand.
    fn bytes(&mut self) -> Result<Range<usize>, Fault> {
        let length = usize::try_from(self.long()?).map_err(|_| "a negative length")?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.value.len()).ok_or(CUT)?;
        Ok(std::mem::replace(&mut self.at, end)..end)
    }
}

const CUT: Fault = "cut short";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_as_the_specification_has_them() {
        for (number, expected) in
            [(0, &[0][..]), (-1, &[1]), (1, &[2]), (-64, &[0x7f]), (64, &[0x80, 1]), (8193, &[0x82, 0x80, 1])]
        {
            let mut out = Vec::new();
            long(&mut out, number);
            assert_eq!(out, expected, "{number}");
        }
    }

    #[test]
    fn decimals_are_as_short_as_can_be() {
        for (units, expected) in
            [(0, &[0][..]), (127, &[0x7f]), (128, &[0, 0x80]), (-1, &[0xff]), (-128, &[0x80]), (-129, &[0xff, 0x7f])]
        {
            let mut out = Vec::new();
            decimal(&mut out, units);
            assert_eq!(out[1..], *expected, "{units}");
        }
        let mut out = Vec::new();
        decimal(&mut out, i64::MIN);
        assert_eq!(out[1..], i64::MIN.to_be_bytes());
    }

    proptest! {
        #[test]
        fn a_number_reads_back(number: i64, small in -300i64..300) {
            for number in [number, small, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                long(&mut out, number);
                let mut fields = Fields { value: &out, at: 0 };
                prop_assert_eq!(fields.long(), Ok(number));
                prop_assert_eq!(fields.at, out.len());
                let length = out.len();
                for behind in [0, 20] {
                    out.resize(length + behind, 0xff);
                    let mut fields = Fields { value: &out, at: 0 };
                    prop_assert_eq!(fields.pass_long(), Ok(()));
                    prop_assert_eq!(fields.at, length);
                }
            }
        }

        #[test]
        fn a_decimal_reads_back(units: i64, small in -70_000i64..70_000) {
            for units in [units, small] {
                let mut out = Vec::new();
                decimal(&mut out, units);
                let sign = if units < 0 { 0xff } else { 0 };
                let value = out[1..].iter().fold(i64::from_be_bytes([sign; 8]), |value, byte| value << 8 | i64::from(*byte));
                prop_assert_eq!(value, units);
            }
        }
    }

    #[test]
    fn what_is_too_long_or_cut_short_is_refused() {
        let of = |value: &[u8]| Fields { value, at: 0 }.bytes().unwrap_err();
        assert!(of(&[]).contains("cut short"));
        assert!(of(&[0x80; 20]).contains("more than 64 bits"));
        assert!(of(&[1]).contains("a negative length"));
        assert!(of(&[4, b'a']).contains("cut short"));
        let longest = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0];
        assert!(of(&longest).contains("cut short"));
    }
}
