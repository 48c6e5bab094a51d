//! Names of Bronze objects. A data object is named by its own content, so writing it again is
//! harmless and no two differ under one name.

use sha2::{Digest, Sha256};

use super::chain::{ChainId, ObjectRef, Position};
use super::hour::Hour;

/// The two forms in which records are archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The server's text with its identity, one JSON line a record, zstd.
    Raw,
    /// Typed columns, Parquet: a pure function of raw.
    Typed,
}

impl Form {
    fn folder(self) -> &'static str {
        match self {
            Form::Raw => "raw",
            Form::Typed => "typed",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Form::Raw => "jsonl.zst",
            Form::Typed => "parquet",
        }
    }
}

/// The folder of an hour's objects, with the slash at the end.
pub fn hour_prefix(form: Form, chain: ChainId, hour: Hour) -> String {
    format!("bronze/{}/{}/{}/", form.folder(), chain.stream, hour.folder())
}

/// Names an object by its content.
pub fn name(form: Form, chain: ChainId, hour: Hour, at: Position, end: u64, content: &[u8]) -> ObjectRef {
    let sha256 = hex(&Sha256::digest(content));
    let key = format!(
        "{}p{}-g{}-{}-{}-{}.{}",
        hour_prefix(form, chain, hour),
        chain.partition,
        at.generation,
        at.start,
        end,
        &sha256[..8],
        form.suffix()
    );
    ObjectRef { key, bytes: content.len() as u64, sha256 }
}

/// Which partition and position an object's key tells of: what a sweeper must know of an orphan.
pub fn parse_name(key: &str) -> Option<(u32, Position)> {
    let name = key.rsplit('/').next()?;
    let mut parts = name.split('-');
    let partition = parts.next()?.strip_prefix('p')?.parse().ok()?;
    let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
    let start = parts.next()?.parse().ok()?;
    Some((partition, Position { generation, start }))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::super::stream::Stream;
    use super::*;

    #[test]
    fn an_object_is_named_by_its_hour_its_range_and_its_content() {
        let chain = ChainId { stream: Stream::Trades, partition: 2 };
        let at = Position { generation: 3, start: 100 };
        let object = name(Form::Raw, chain, "2026-11-23T20".parse().unwrap(), at, 199, b"abc");
        assert_eq!(object.key, "bronze/raw/trades/2026/11/23/20/p2-g3-100-199-ba7816bf.jsonl.zst");
        assert_eq!(object.bytes, 3);
        assert_eq!(parse_name(&object.key), Some((2, at)));
        assert_eq!(parse_name("bronze/raw/trades/2026/11/23/20/notes.txt"), None);
    }
}
