//! Records to Kafka's messages and back, without Kafka.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use tickmint::domain::entry::{Content, Payload, Record};
use tickmint::domain::partition::symbol_partition;
use tickmint::domain::stream::{STREAMS, Stream};
use tickmint::domain::trade::symbol_of;
use tickmint::wire::decode::{Decoder, Incoming};
use tickmint::wire::encode::Encoder;
use tickmint::wire::{Format, SchemaId, schemas};

use super::stages::cpu;

/// The slow path is measured with so many.
const FEW: usize = 20_000;

/// A batch of a producer or a consumer.
const BATCH: usize = 2048;

pub(crate) fn measure(records: &[Record]) {
    println!("\na trade to a message and back:");
    let (_, partitioned) = cpu(|| {
        for record in records {
            if let Content::Data { payload: Payload::Trade { raw, .. }, .. } = &record.content {
                black_box(symbol_partition(symbol_of(raw).unwrap().as_bytes(), 12));
            }
        }
    });
    row("its symbol and partition", records.len(), partitioned, None);
    let id = SchemaId(1);
    for (name, format, ids) in [
        ("JSON", Format::Json, None),
        ("JSON, framed", Format::Json, Some([id; STREAMS])),
        ("Avro, framed", Format::Avro, Some([id; STREAMS])),
    ] {
        let decoder = Decoder::new(Stream::Trades);
        let run = there_and_back(Encoder::new(format, ids), &decoder, records, |_| {});
        row(&format!("{name}: encode"), records.len(), run.encoded, Some(run.bytes));
        row(&format!("{name}: decode"), records.len(), run.decoded, None);
    }
    let mut decoder = Decoder::new(Stream::Trades);
    decoder.learn(id, schemas::schema(Stream::Trades, Format::Avro)).unwrap();
    let few = &records[..FEW.min(records.len())];
    // The number of a schema that is not ours.
    let run = there_and_back(Encoder::new(Format::Avro, Some([id; STREAMS])), &decoder, few, |header| header[4] = 2);
    row("Avro of another schema: decode", few.len(), run.decoded, None);
}

struct Run {
    encoded: Duration,
    decoded: Duration,
    bytes: usize,
}

/// In batches, as they stand in a processor's cache.
fn there_and_back(mut encoder: Encoder, decoder: &Decoder, records: &[Record], change: impl Fn(&mut [u8])) -> Run {
    let mut run = Run { encoded: Duration::ZERO, decoded: Duration::ZERO, bytes: 0 };
    for batch in records.chunks(BATCH) {
        run.encoded += cpu(|| {
            for record in batch {
                black_box(encoder.encode(Stream::Trades, b"", record).unwrap());
            }
        })
        .1;
        let messages: Vec<_> = batch
            .iter()
            .map(|record| {
                let message = encoder.encode(Stream::Trades, b"", record).unwrap();
                let (mut header, value) = (message.header.to_vec(), Bytes::from(message.value.unwrap().to_vec()));
                run.bytes += header.len() + value.len();
                change(&mut header);
                (header, value)
            })
            .collect();
        run.decoded += cpu(|| {
            for (header, value) in messages {
                let message = Incoming { header: Some(&header), traceparent: None, value: Some(value) };
                black_box(decoder.decode(message).unwrap());
            }
        })
        .1;
    }
    run
}

fn row(name: &str, trades: usize, cpu: Duration, bytes: Option<usize>) {
    let bytes = bytes.map_or(String::new(), |bytes| format!(", {:.0} bytes", bytes as f64 / trades as f64));
    println!("  {name:<34} {:>8.0} ns a trade{bytes}", cpu.as_secs_f64() * 1e9 / trades as f64);
}
