//! The audit behind `tickmint verify`: reads spool, chains, Bronze and the exchange's ledger from
//! outside, asks no daemon, and counts.
//!
//! * [`bronze`]: walks the chains and reads every raw object they name.
//! * [`ledger`]: what an exchange says it sent.
//! * [`silver`]: what the warehouse holds.
//! * [`report`]: holds the one against the other.

pub mod bronze;
pub mod ledger;
pub mod report;
pub mod silver;
