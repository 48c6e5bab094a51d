//! The audit behind `tickmint verify`: reads spool, chains, Bronze, Silver, Gold and the exchange's ledger from
//! outside, asks no daemon, and counts.
//!
//! * [`found`]: what was found.
//! * [`bronze`]: walks the chains and reads every raw object they name; [`spool`] adds what waits there.
//! * [`expired`]: what the bucket has deleted for its age, and what of a session may be among that.
//! * [`kafka`]: of each partition where it stands, and what it holds that is in no slot.
//! * [`ledger`]: what an exchange says it sent.
//! * [`report`]: holds the one against the other; [`outages`]: sessions against their ends and gaps.
//! * [`warehouse`]: Silver and Gold, against Bronze.

pub mod bronze;
pub mod expired;
pub mod found;
pub mod kafka;
pub mod ledger;
mod outages;
pub mod report;
mod spool;
pub mod warehouse;
