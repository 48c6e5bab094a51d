//! The schemas of the values, as they are registered. They are compiled in.
//!
//! Who changes an Avro schema raises its number in [`AVRO`] and puts the old text into [`OLDER`]: a
//! value that is not framed names its schema by that number alone, and must stay readable. A test
//! notices a schema that has changed under its number.

use super::Format;
use crate::domain::stream::{PerStream, Stream};

/// The numbers of the Avro schemas, from 1, in the order of [`Stream::ALL`].
pub(super) const AVRO: PerStream<u8> = [1, 1, 1];

/// The texts that went before, by stream and number.
pub(super) const OLDER: &[(Stream, u8, &str)] = &[];

/// The schema of a stream's values in a format.
pub fn schema(stream: Stream, format: Format) -> &'static str {
    match (stream, format) {
        (Stream::Trades, Format::Json) => include_str!("../../schemas/trade.schema.json"),
        (Stream::Trades, Format::Avro) => include_str!("../../schemas/trade.avsc"),
        (Stream::Gaps, Format::Json) => include_str!("../../schemas/gap.schema.json"),
        (Stream::Gaps, Format::Avro) => include_str!("../../schemas/gap.avsc"),
        (Stream::Quarantine, Format::Json) => include_str!("../../schemas/quarantine.schema.json"),
        (Stream::Quarantine, Format::Avro) => include_str!("../../schemas/quarantine.avsc"),
    }
}

/// The subject of a topic's values: the registry's usual rule, TopicNameStrategy.
pub fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(stream: Stream, format: Format) -> Value {
        serde_json::from_str(schema(stream, format)).unwrap()
    }

    #[test]
    fn an_avro_schema_that_changes_gets_another_number() {
        let layouts = Stream::ALL.map(|stream| {
            let form = apache_avro::Schema::parse_str(schema(stream, Format::Avro)).unwrap().canonical_form();
            (AVRO[stream.index()], crc32c::crc32c(form.as_bytes()))
        });
        assert_eq!(
            layouts,
            [(1, 2_145_249_091), (1, 483_133_322), (1, 2_019_731_221)],
            "raise the number in AVRO, and put the old text into OLDER"
        );
    }

    #[test]
    fn json_schemas_stay_open_to_members_of_any_type() {
        for stream in Stream::ALL {
            let schema = parsed(stream, Format::Json);
            assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#", "Apicurio cannot compare later drafts");
            let objects: Vec<&Value> = schema["oneOf"]
                .as_array()
                .filter(|_| stream == Stream::Gaps)
                .map_or(vec![&schema], |branches| branches.iter().collect());
            assert!(objects.iter().all(|object| object["additionalProperties"] == json!({})), "{schema}");
        }
    }

    #[test]
    fn the_value_of_a_trade_is_the_feeds_and_that_of_a_gap_is_the_archives() {
        let frame: Value = serde_json::from_str(include_str!("../../schemas/frame.schema.json")).unwrap();
        let trade = parsed(Stream::Trades, Format::Json);
        for part in ["required", "properties"] {
            assert_eq!(trade[part], frame["$defs"]["trade"][part]);
        }
        let control: Value = serde_json::from_str(include_str!("../../schemas/control.schema.json")).unwrap();
        let gap = parsed(Stream::Gaps, Format::Json);
        for branch in 0..2 {
            for part in ["title", "required", "properties"] {
                assert_eq!(gap["oneOf"][branch][part], control["oneOf"][branch][part]);
            }
        }
    }

    #[test]
    fn the_subject_is_the_topics() {
        assert_eq!(subject("tickmint.trades"), "tickmint.trades-value");
    }
}
