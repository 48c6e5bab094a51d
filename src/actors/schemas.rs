//! Asks the schema registry for the ids of our schemas, until it has them.
//!
//! In: nothing. Out: ids, to whoever has the [`Schemas`](crate::kafka::schemas::Schemas). While the registry is away, ids
//! that were got before are used, and it is said. After a restart it asks again.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_future;
use actix::prelude::*;
use tokio::time::sleep;

use crate::kafka::schemas::{Schemas, listed};
use crate::supervisor::{Child, Vitals};
use crate::telemetry::Metrics;

/// Until it has answered once.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Afterwards: whether it is still there, and has the same.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct SchemaKeeper {
    parts: Parts,
}

/// What it is made of.
#[derive(Clone)]
pub struct Parts {
    /// What it shows to the outside.
    pub vitals: Arc<Vitals>,
    /// Alarms.
    pub metrics: Arc<Metrics>,
    /// The registry.
    pub schemas: Schemas,
}

impl SchemaKeeper {
    /// One that has not asked yet.
    pub fn new(parts: Parts) -> SchemaKeeper {
        SchemaKeeper { parts }
    }
}

impl Actor for SchemaKeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Parts { vitals, metrics, schemas } = self.parts.clone();
        let keep = async move {
            loop {
                let wait = match schemas.ensure().await {
                    Ok(ids) => {
                        vitals.note("ids", listed(ids));
                        vitals.clear_note("registry");
                        metrics.alarms().clear("registry");
                        LOOK_AGAIN
                    }
                    Err(error) => {
                        let meanwhile = match schemas.ids() {
                            Some(_) => "records are written with the ids that it gave before",
                            None => "its ids are not known yet: until then nothing goes from the spools to Kafka",
                        };
                        vitals.note("registry", error.to_string());
                        metrics.alarms().raise("registry", format!("{error}; {meanwhile}"));
                        ASK_AGAIN
                    }
                };
                sleep(wait).await;
            }
        };
        ctx.spawn(wrap_future(keep));
    }
}

impl Supervised for SchemaKeeper {
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Child for SchemaKeeper {}
