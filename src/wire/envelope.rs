//! The header `tickmint`: who a record is and where it stands in the spool, in 68 bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version of this layout |
//! | 1 | kind: 1 data, 2 tick, 3 opened, 4 ended, 5 lost |
//! | 2 | stream, by its index |
//! | 3 | form of the value: bit 0 Avro, else JSON; bit 1 in Confluent's framing |
//! | 4 | number of the Avro schema, from 1 ([`super::schemas`]); 0 for JSON |
//! | 5 | flags of a trade |
//! | 6..8 | index in the frame |
//! | 8..12 | frame |
//! | 12..20 | place in (log, stream, partition) |
//! | 20..28 | data: `seq`; tick: the hour; lost: the place behind |
//! | 28..36 | receipt, microseconds since the Unix epoch |
//! | 36..52 | log |
//! | 52..68 | session |
//!
//! Numbers are little-endian; what a kind does not have is 0. It stands in a header and not in the value,
//! since the value of a trade is the server's text and nothing else. One header and not ten, as each costs its
//! name in every record.

use bytes::{Buf, BufMut};
use uuid::Uuid;

use super::{Format, WireError};
use crate::domain::hour::Hour;
use crate::domain::identity::{Delivery, LogId, Micros, Origin, SessionId};
use crate::domain::stream::Stream;
use crate::domain::verdict::Flags;

/// The header's name.
pub const NAME: &str = "tickmint";

/// The name of the header with the W3C trace context of the record's frame.
pub const TRACEPARENT: &str = "traceparent";

/// Its length in bytes.
pub const LENGTH: usize = 68;

/// The version that is written, and the newest that is read.
const VERSION: u8 = 1;

const DATA: u8 = 1;
const TICK: u8 = 2;
const OPENED: u8 = 3;
const ENDED: u8 = 4;
const LOST: u8 = 5;

const AVRO: u8 = 1;
const FRAMED: u8 = 2;

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) format: Format,
    /// Confluent's framing goes before it.
    pub(super) framed: bool,
    /// The number of the Avro schema; 0 for JSON.
    pub(super) schema: u8,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub(super) stream: Stream,
    pub(super) origin: Origin,
    pub(super) received_at: Micros,
    pub(super) kind: Kind,
}

/// What the record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something with an identity and a value.
    Data { delivery: Delivery, seq: u64, flags: Flags, form: Form },
    /// The hour of the receipt has begun.
    Tick(Hour),
    /// A session may come.
    Opened(SessionId),
    /// A session is all there.
    Ended(SessionId),
    /// The spool's disk lost what stood from this place up to, not including, the one given here.
    Lost { to: u64 },
}

impl Envelope {
    pub(super) fn encode(&self) -> [u8; LENGTH] {
        let (mut form, mut schema, mut flags, mut index, mut frame, mut number) = (0, 0, 0, 0, 0, 0);
        let (kind, session) = match self.kind {
            Kind::Data { delivery, seq, flags: odd, form: value } => {
                form = if value.format == Format::Avro { AVRO } else { 0 } | if value.framed { FRAMED } else { 0 };
                (schema, flags, index, frame, number) = (value.schema, odd.0, delivery.index, delivery.frame, seq);
                (DATA, delivery.session.0)
            }
            Kind::Tick(hour) => {
                number = hour.0 as u64;
                (TICK, Uuid::nil())
            }
            Kind::Opened(session) => (OPENED, session.0),
            Kind::Ended(session) => (ENDED, session.0),
            Kind::Lost { to } => {
                number = to;
                (LOST, Uuid::nil())
            }
        };
        let mut bytes = [0; LENGTH];
        let mut out = &mut bytes[..];
        out.put_slice(&[VERSION, kind, self.stream.index() as u8, form, schema, flags]);
        out.put_u16_le(index);
        out.put_u32_le(frame);
        out.put_u64_le(self.origin.place);
        out.put_u64_le(number);
        out.put_i64_le(self.received_at);
        out.put_slice(self.origin.log.0.as_bytes());
        out.put_slice(session.as_bytes());
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Result<Envelope, WireError> {
        match bytes.first() {
            None | Some(0) => return Err(WireError::header("without a version")),
            Some(&version) if version > VERSION => {
                return Err(WireError::Newer { what: "version of the header `tickmint`", found: version.to_string() });
            }
            Some(_) if bytes.len() != LENGTH => return Err(WireError::header("not of its length")),
            Some(_) => {}
        }
        let [_, kind, stream, form, schema, flags] = std::array::from_fn(|_| bytes.get_u8());
        let (index, frame) = (bytes.get_u16_le(), bytes.get_u32_le());
        let (place, number, received_at) = (bytes.get_u64_le(), bytes.get_u64_le(), bytes.get_i64_le());
        let (log, session) = (Uuid::from_u128(bytes.get_u128()), SessionId(Uuid::from_u128(bytes.get_u128())));
        let kind = match kind {
            DATA => {
                let delivery = Delivery { session, frame, index };
                Kind::Data { delivery, seq: number, flags: Flags(flags), form: Form::from_bytes(form, schema)? }
            }
            // Before 1970 an hour could begin before the first microsecond that there is.
            TICK if received_at >= 0 && Hour::of(received_at) == Hour(number as i64) => Kind::Tick(Hour::of(received_at)),
            TICK => return Err(WireError::header("an hour that is not that of its time")),
            OPENED => Kind::Opened(session),
            ENDED => Kind::Ended(session),
            LOST if number > place => Kind::Lost { to: number },
            LOST => return Err(WireError::header("a loss of nothing")),
            0 => return Err(WireError::header("without a kind")),
            newer => return Err(WireError::Newer { what: "kind of record", found: newer.to_string() }),
        };
        let stream = *Stream::ALL
            .get(usize::from(stream))
            .ok_or_else(|| WireError::Newer { what: "stream", found: stream.to_string() })?;
        Ok(Envelope { stream, origin: Origin { log: LogId(log), place }, received_at, kind })
    }
}

impl Form {
    fn from_bytes(form: u8, schema: u8) -> Result<Form, WireError> {
        let format = match form {
            newer if newer > AVRO | FRAMED => {
                return Err(WireError::Newer { what: "form of value", found: newer.to_string() });
            }
            avro if avro & AVRO != 0 => Format::Avro,
            _ => Format::Json,
        };
        if format == Format::Avro && schema == 0 {
            return Err(WireError::header("Avro without the number of its schema"));
        }
        Ok(Form { format, framed: form & FRAMED != 0, schema })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form() -> impl Strategy<Value = Form> {
        (any::<bool>(), any::<bool>(), 1u8..).prop_map(|(avro, framed, schema)| match avro {
            true => Form { format: Format::Avro, framed, schema },
            false => Form { format: Format::Json, framed, schema: 0 },
        })
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let session = any::<u128>().prop_map(|id| SessionId(Uuid::from_u128(id)));
        let data =
            (session.clone(), any::<(u32, u16, u64, u8)>(), form()).prop_map(|(session, (frame, index, seq, flags), form)| {
                Kind::Data { delivery: Delivery { session, frame, index }, seq, flags: Flags(flags), form }
            });
        let kind = prop_oneof![
            3 => data,
            1 => Just(Kind::Tick(Hour(0))),
            1 => session.clone().prop_map(Kind::Opened),
            1 => session.prop_map(Kind::Ended),
            1 => (1u64..).prop_map(|to| Kind::Lost { to }),
        ];
        (0..3usize, any::<u128>(), any::<u64>(), any::<i64>(), kind).prop_map(|(stream, log, number, received_at, kind)| {
            let (number, received_at, kind) = match kind {
                Kind::Lost { to } => (number % to, received_at, kind),
                Kind::Tick(_) => (number, received_at & i64::MAX, Kind::Tick(Hour::of(received_at & i64::MAX))),
                Kind::Data { .. } | Kind::Opened(_) | Kind::Ended(_) => (number, received_at, kind),
            };
            let origin = Origin { log: LogId(Uuid::from_u128(log)), place: number };
            Envelope { stream: Stream::ALL[stream], origin, received_at, kind }
        })
    }

    proptest! {
        #[test]
        fn a_header_reads_back_from_its_bytes(envelope in envelope()) {
            prop_assert_eq!(Envelope::decode(&envelope.encode()), Ok(envelope));
        }

        #[test]
        fn no_bytes_make_it_panic(envelope in envelope(), at in 0..LENGTH, byte: u8, other in prop::collection::vec(any::<u8>(), 0..90)) {
            let mut bytes = envelope.encode();
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[..at], &other] {
                if let Ok(Envelope { kind: Kind::Tick(hour), .. }) = Envelope::decode(bytes) {
                    hour.begins(); // Nor what is done with it.
                }
            }
        }
    }

    fn sample() -> Envelope {
        let uuid = |text| Uuid::parse_str(text).unwrap();
        let session = SessionId(uuid("0190b5a0-7c00-7000-8000-00000000000b"));
        let form = Form { format: Format::Avro, framed: true, schema: 1 };
        let delivery = Delivery { session, frame: 0x0102_0304, index: 0x0506 };
        Envelope {
            stream: Stream::Quarantine,
            origin: Origin { log: LogId(uuid("0190b5a0-7c00-7000-8000-00000000000a")), place: 0x11 },
            received_at: -2,
            kind: Kind::Data { delivery, seq: 0x22, flags: Flags(4), form },
        }
    }

    /// Topics are kept for days: this layout can never change, only get a successor.
    #[test]
    fn the_layout_of_version_1_stands() {
        let expected = "010102030104060504030201\
                        11000000000000002200000000000000feffffffffffffff\
                        0190b5a07c007000800000000000000a0190b5a07c007000800000000000000b";
        let hex: String = sample().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn what_a_newer_version_wrote_is_told_from_rubbish() {
        let of = |at: usize, byte: u8| {
            let mut bytes = sample().encode();
            bytes[at] = byte;
            Envelope::decode(&bytes).unwrap_err().to_string()
        };
        for (at, byte, what) in [
            (0, 2, "version of the header `tickmint` 2"),
            (1, 6, "kind of record 6"),
            (2, 3, "stream 3"),
            (3, 4, "form of value 4"),
        ] {
            let text = of(at, byte);
            assert!(
                text.starts_with(what) && text.contains("a newer Tickmint wrote the record; run that version here"),
                "{text}"
            );
        }
        // A longer header of a newer version is not called malformed.
        assert!(matches!(Envelope::decode(&[2; 100]), Err(WireError::Newer { .. })));
        for (at, byte, why) in [
            (0, 0, "without a version"),
            (1, 0, "without a kind"),
            (4, 0, "without the number"),
            (1, LOST, "a loss of nothing"),
            (1, TICK, "an hour that is not"),
        ] {
            let mut envelope = sample();
            envelope.origin.place = u64::MAX;
            let mut bytes = envelope.encode();
            bytes[at] = byte;
            let text = Envelope::decode(&bytes).unwrap_err().to_string();
            assert!(text.starts_with("malformed header `tickmint`: ") && text.contains(why), "{text}");
        }
        assert_eq!(Envelope::decode(&sample().encode()[1..]), Err(WireError::header("not of its length")));
    }
}
