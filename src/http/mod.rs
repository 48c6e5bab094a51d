//! The web surface: probes, metrics, the numbers of the pipeline, the newest bars, and a page.
//!
//! It reads what others show (metrics, the supervisor's registry, the published Gold) and never asks
//! an actor anything, so it answers truthfully while they hang. Only GET.
//!
//! | route | what | |
//! |---|---|---|
//! | `/livez` | whether the process is worth keeping | 200, 503; the only one without a token |
//! | `/readyz` | whether each permanent actor runs | 200, 503 |
//! | `/health` | status, alarms, all actors | always 200 |
//! | `/metrics` | OpenMetrics text | |
//! | `/api/pipeline` | counts and lags through the stages | |
//! | `/api/bars` | the newest bars of Gold: `?symbol=`, `limit=`, `per_symbol=` | |
//! | `/` | all of this for people | |

mod api;
mod base64;
mod guard;
mod health;
mod page;
pub mod server;
mod web;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::config::{Config, Secret};
use crate::supervisor::Registry;
use crate::telemetry::Metrics;
use crate::warehouse::gold::Gold;
use health::Standing;

pub use server::{HttpError, Server};
pub use web::Web;

/// What the routes read. Cheap to clone.
#[derive(Clone)]
pub struct State {
    metrics: Arc<Metrics>,
    actors: Registry,
    gold: Option<Arc<Gold>>,
    /// Whether it shows Gold and the page: the role `serve`.
    serves: bool,
    token: Option<Secret>,
    /// Where it listens, if that is the loopback and there is no token: then only for names of this machine.
    local: Option<IpAddr>,
    standing: Arc<Mutex<Standing>>,
}

impl State {
    /// The state of a daemon with this config.
    pub fn new(config: &Config, metrics: Arc<Metrics>, actors: Registry) -> State {
        let gold_dir = config.warehouse.as_ref().map(|warehouse| warehouse.gold_dir.clone());
        let state = State::of(metrics, actors, gold_dir, config.http.token.clone());
        let ip = config.http.listen.ip();
        State { serves: config.roles.serve, local: (config.http.token.is_none() && ip.is_loopback()).then_some(ip), ..state }
    }

    /// What is told of Gold: the files if they are shown here, else why they are not.
    fn shown(&self) -> Result<&Arc<Gold>, &'static str> {
        match &self.gold {
            _ if !self.serves => Err("this daemon does not show Gold, as `roles` does not have `serve`: ask one that has it"),
            None => Err("this daemon has no warehouse (`warehouse.enabled` is false): ask the one that refines"),
            Some(gold) => Ok(gold),
        }
    }

    fn of(metrics: Arc<Metrics>, actors: Registry, gold_dir: Option<PathBuf>, token: Option<Secret>) -> State {
        let gold = gold_dir.map(|dir| Arc::new(Gold::new(dir)));
        State { metrics, actors, gold, serves: true, token, local: None, standing: Arc::default() }
    }
}

#[cfg(test)]
mod tests;
