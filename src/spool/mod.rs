//! The spool: the one durable log of the machine, as files. No actors here.
//!
//! A log is a folder named by its [`LogId`](crate::domain::identity::LogId); a new one is made at
//! each start of the process, and those of earlier lives are only read. A log is a row of segment
//! files; a segment is a header and entries of `length, crc32c, bytes`.
//!
//! * [`commit`]: requests to the log, staged and made durable together.
//! * [`contents`]: all that can be read of a log, whoever drains it.
//! * [`deletion`]: what of a log may be deleted.
//! * [`logs`]: which logs this machine has.
//! * [`mark`]: what tells damage from a torn tail.
//! * [`pace`]: how often it is made durable.
//! * [`segment`]: the format, and what is valid in a file after a crash.
//! * [`state`]: what a log says about sessions, shards and offsets; rebuilt by reading it.
//! * [`writer`]: appends, makes durable, rolls back what the disk refused.
//! * [`reader`]: reads one stream's records, for the partition writer.
//! * [`replay`]: reads all records of a log, of every chain, in order: for the forwarder.

pub mod commit;
pub mod contents;
pub mod deletion;
pub mod logs;
pub mod mark;
pub mod pace;
pub mod reader;
pub mod replay;
pub mod segment;
pub mod state;
pub mod writer;
