//! What actors say to each other: batches, with typed answers that the sender awaits.
//!
//! | message | from | to | answer |
//! |---|---|---|---|
//! | [`feed::Judge`] | feed session | validator | durable, or why not |
//! | [`feed::OpenSession`] | feed session | spool | ready, or the spool is full |
//! | [`feed::EndSession`] | feed session | spool | durable |
//! | [`feed::Append`] | validator | spool | durable |
//! | [`bronze::Covered`] | partition writer | spool | - |

pub mod bronze;
pub mod feed;
