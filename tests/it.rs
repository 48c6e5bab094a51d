//! The one integration-test binary: links once, runs everything that needs more than one module.

#![allow(clippy::unwrap_used, clippy::let_underscore_must_use, reason = "what fails here fails a test")]
#![allow(clippy::disallowed_methods, reason = "no actor shares the thread of a test")]
#![allow(clippy::print_stdout, reason = "shown with a test that fails")]

#[path = "cluster/mod.rs"]
mod cluster;
#[path = "model/mod.rs"]
mod model;
#[path = "pipeline/mod.rs"]
mod pipeline;
#[path = "races/mod.rs"]
mod races;
#[path = "snowflake/mod.rs"]
mod snowflake;
#[path = "stores/mod.rs"]
mod stores;
#[path = "support/mod.rs"]
mod support;
#[path = "surface/mod.rs"]
mod surface;
#[path = "warehouse/mod.rs"]
mod warehouse;
