//! Bronze: from a log to immutable objects and the slots that commit them. No actors here.
//!
//! * [`chain`]: where a chain stands, and following it slot by slot.
//! * [`encode`], [`columns`]: records to a raw and a typed object.
//! * `open`: the object that a writer fills: what is new of a record, and when it is full.
//! * [`poison`]: counts the records that kill their writer.
//! * [`sealer`]: declares hours complete and sweeps orphans out of them.
//! * [`archiver`]: drains a log into a chain; what a partition writer does, step by step.
//! * [`source`]: where the records come from.
//! * [`budget`]: the memory of all writers together.

pub mod archiver;
pub mod budget;
pub mod chain;
pub mod columns;
pub mod encode;
#[cfg(feature = "faults")]
mod flawed;
mod open;
pub mod poison;
pub mod sealer;
pub mod source;
