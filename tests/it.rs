//! The one integration-test binary: links once, runs everything that needs more than one module.

#[path = "model/mod.rs"]
mod model;
#[path = "pipeline/mod.rs"]
mod pipeline;
#[path = "stores/mod.rs"]
mod stores;
#[path = "support/mod.rs"]
mod support;
