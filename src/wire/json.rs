//! Values in JSON. Of a trade it is the server's text itself; so it needs no code.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::WireError;
use super::avro::quarantined;
use crate::domain::entry::{Control, Payload};
use crate::domain::stream::Stream;
use crate::domain::verdict::{Flags, Reason};

/// What is no trade. Unknown members are allowed, so that there may be more of them.
#[derive(Serialize)]
struct Written<'a> {
    reason: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

#[derive(Deserialize)]
struct Read {
    reason: String,
    detail: String,
    raw: Option<String>,
    raw_base64: Option<String>,
}

/// Appends a gap or a session's end.
pub(super) fn write_gap(out: &mut Vec<u8>, control: &Control) {
    out.extend_from_slice(&of_control(control));
}

/// Appends what is no trade.
pub(super) fn write_quarantined(out: &mut Vec<u8>, reason: Reason, detail: &str, raw: &[u8]) {
    let raw_base64 = std::str::from_utf8(raw).is_err().then(|| STANDARD.encode(raw));
    let written = Written { reason: reason.name(), detail, raw: std::str::from_utf8(raw).ok(), raw_base64 };
    serde_json::to_writer(out, &written).expect("it has only strings");
}

/// A record of the gaps as text.
pub(super) fn of_control(control: &Control) -> Vec<u8> {
    serde_json::to_vec(control).expect("a control record has only string keys")
}

/// Reads a record of the gaps.
pub(super) fn control(text: &[u8]) -> Result<Control, WireError> {
    #[derive(Deserialize)]
    struct Tag {
        kind: String,
    }
    serde_json::from_slice(text).map_err(|_| match serde_json::from_slice::<Tag>(text) {
        Ok(Tag { kind }) if !matches!(&*kind, "gap" | "session_end") => {
            WireError::Newer { what: "kind of gap", found: format!("`{kind}`") }
        }
        _ => WireError::value("neither a gap nor a session's end"),
    })
}

/// What a value of a stream holds; a trade shares its bytes. The flags stand in the header.
pub(super) fn read(stream: Stream, value: Bytes, flags: Flags) -> Result<Payload, WireError> {
    match stream {
        Stream::Trades => Ok(Payload::Trade { raw: value, flags }),
        Stream::Gaps => control(&value).map(|control| Payload::Control(Box::new(control))),
        Stream::Quarantine => {
            let read: Read =
                serde_json::from_slice(&value).map_err(|_| WireError::value("not as quarantine.schema.json has it"))?;
            let raw = match (read.raw, read.raw_base64) {
                (Some(text), None) => text.into(),
                (None, Some(coded)) => STANDARD.decode(coded).map_err(|_| WireError::value("`raw_base64` is not base64"))?.into(),
                (Some(_), Some(_)) | (None, None) => return Err(WireError::value("not one of `raw` and `raw_base64`")),
            };
            quarantined(&read.reason, read.detail, raw)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantine(text: &str) -> Result<Payload, WireError> {
        read(Stream::Quarantine, Bytes::copy_from_slice(text.as_bytes()), Flags::default())
    }

    #[test]
    fn the_raw_bytes_are_text_where_they_can_be() {
        for (raw, expected) in [
            (&b"{\"p\":-1}"[..], r#"{"reason":"bad_price","detail":"\"-1\"","raw":"{\"p\":-1}"}"#),
            (&[0xff, 0], r#"{"reason":"bad_price","detail":"\"-1\"","raw_base64":"/wA="}"#),
        ] {
            let mut out = Vec::new();
            write_quarantined(&mut out, Reason::BadPrice, "\"-1\"", raw);
            assert_eq!(String::from_utf8_lossy(&out), expected);
            let raw = Bytes::copy_from_slice(raw);
            assert_eq!(quarantine(expected), Ok(Payload::Quarantined { raw, reason: Reason::BadPrice, detail: "\"-1\"".into() }));
        }
    }

    #[test]
    fn what_is_malformed_or_newer_is_told() {
        for (text, why) in [
            ("", "not as quarantine.schema.json has it"),
            (r#"{"reason":"binary","raw":""}"#, "not as quarantine.schema.json has it"),
            (r#"{"reason":"binary","detail":""}"#, "not one of `raw` and `raw_base64`"),
            (r#"{"reason":"binary","detail":"","raw":"","raw_base64":""}"#, "not one of `raw` and `raw_base64`"),
            (r#"{"reason":"binary","detail":"","raw_base64":"?"}"#, "`raw_base64` is not base64"),
            (r#"{"reason":"too_late","detail":"","raw":""}"#, "reason `too_late` is unknown to this version"),
        ] {
            assert!(quarantine(text).unwrap_err().to_string().contains(why), "{text}");
        }
        assert!(quarantine(r#"{"new":[1],"reason":"binary","detail":"","raw":""}"#).is_ok());
        for (text, why) in [
            ("7", "neither a gap nor"),
            (r#"{"kind":"gap"}"#, "neither a gap nor"),
            (r#"{"kind":"halt","x":1}"#, "kind of gap `halt` is unknown to this version"),
        ] {
            assert!(control(text.as_bytes()).unwrap_err().to_string().contains(why), "{text}");
        }
    }
}
