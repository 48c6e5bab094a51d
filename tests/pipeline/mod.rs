//! The whole path with real processes: an exchange, a daemon that is killed, and the audit.
//!
//! The exchange's ledger says what was sent. What the daemon made durable must be in Bronze once;
//! what it did not must be covered by a gap or a session's end. Every check has a control that
//! breaks something and must be seen.

mod actors;
mod bucket;
mod campaign;
mod count;
mod damage;
mod disk;
mod failing;
mod feed;
mod gold;
mod kills;
mod outages;
mod poison;
mod power;
mod refiner;
pub(crate) mod rig;
mod rubbish;
mod traces;
