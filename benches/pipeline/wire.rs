//! Records to Kafka's messages and back, without Kafka.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tickmint::domain::entry::{Content, Payload, Record};
use tickmint::domain::partition::symbol_partition;
use tickmint::domain::stream::{STREAMS, Stream};
use tickmint::domain::trade::symbol_of;
use tickmint::wire::decode::{Decoder, Incoming};
use tickmint::wire::encode::Encoder;
use tickmint::wire::envelope::LENGTH;
use tickmint::wire::{Format, SchemaId, schemas};

use super::quantile;

/// The slow path is measured with so many.
const FEW: usize = 20 * BATCH;

/// Below a time slice even so, which the clock of the thread's processor time is too coarse for.
const BATCH: usize = 2048;

pub(crate) fn measure(records: &[Record]) {
    println!("\na trade to a message and back, the median of batches of {BATCH}:");
    let partitioned = each_batch(records, |batch| {
        let work = || {
            for record in batch {
                if let Content::Data { payload: Payload::Trade { raw, .. }, .. } = &record.content {
                    black_box(symbol_partition(symbol_of(raw).unwrap().as_bytes(), 12));
                }
            }
        };
        time(work)
    });
    row("its symbol and partition", partitioned, None);
    let id = SchemaId(1);
    for (name, format, ids) in [
        ("JSON", Format::Json, None),
        ("JSON, framed", Format::Json, Some([id; STREAMS])),
        ("Avro, framed", Format::Avro, Some([id; STREAMS])),
    ] {
        let (mut encoder, mut bytes) = (Encoder::new(format, ids), 0);
        let encoded = each_batch(records, |batch| time(|| encode(&mut encoder, batch, |h, v| bytes += h.len() + v.len())));
        row(&format!("{name}: encode"), encoded, Some(bytes / records.len()));
        let decoder = Decoder::new(Stream::Trades);
        let decoded = each_batch(records, |batch| decode(&decoder, messages(&mut encoder, batch)));
        row(&format!("{name}: decode"), decoded, None);
    }
    let (mut encoder, mut decoder) = (Encoder::new(Format::Avro, Some([id; STREAMS])), Decoder::new(Stream::Trades));
    decoder.learn(id, schemas::schema(Stream::Trades, Format::Avro)).unwrap();
    let decoded = each_batch(&records[..FEW.min(records.len())], |batch| {
        let mut messages = messages(&mut encoder, batch);
        messages.iter_mut().for_each(|(header, _)| header[4] = 2); // The number of a schema that is not ours.
        decode(&decoder, messages)
    });
    row("Avro of another schema: decode", decoded, None);
}

/// What a record takes in the median of the batches: those in which something else ran do not move that.
fn each_batch(records: &[Record], mut run: impl FnMut(&[Record]) -> Duration) -> f64 {
    let mut times: Vec<_> = records.chunks_exact(BATCH).map(&mut run).collect();
    times.sort_unstable();
    quantile(&times, 0.5).as_secs_f64() / BATCH as f64
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn encode(encoder: &mut Encoder, batch: &[Record], mut made: impl FnMut(&[u8], &[u8])) {
    for record in batch {
        let message = encoder.encode(Stream::Trades, b"", record).unwrap();
        made(black_box(message.header), black_box(message.value).unwrap());
    }
}

/// As a consumer has them: the value copied out of its client's buffer.
fn messages(encoder: &mut Encoder, batch: &[Record]) -> Vec<([u8; LENGTH], Bytes)> {
    let mut all = Vec::with_capacity(batch.len());
    encode(encoder, batch, |header, value| all.push((header.try_into().unwrap(), Bytes::copy_from_slice(value))));
    all
}

fn decode(decoder: &Decoder, messages: Vec<([u8; LENGTH], Bytes)>) -> Duration {
    let work = || {
        for (header, value) in messages {
            let message = Incoming { header: Some(&header), traceparent: None, value: Some(value) };
            black_box(decoder.decode(message).unwrap());
        }
    };
    time(work)
}

fn row(name: &str, seconds: f64, bytes: Option<usize>) {
    let bytes = bytes.map_or(String::new(), |bytes| format!(", {bytes} bytes"));
    println!("  {name:<34} {:>8.0} ns a trade{bytes}", seconds * 1e9);
}
