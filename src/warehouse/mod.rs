//! The embedded warehouse's side of the pipe: one Python process owns the DuckDB file, runs dbt in
//! it and publishes Gold. No actors here.
//!
//! * [`python`]: the interpreter with the pinned packages.
//! * [`protocol`]: the lines that go through the pipe.
//! * [`process`]: the process itself.
//! * [`gold`]: the newest bars of what is published, for page and terminal.
//! * [`rounds`]: from the chains' new slots to a refined Gold, round by round.

pub mod gold;
pub mod process;
pub mod protocol;
pub mod python;
pub mod rounds;
