//! The one integration-test binary: links once, runs everything that needs more than one module.

#[path = "model/mod.rs"]
mod model;
#[path = "support/mod.rs"]
mod support;
