//! Probes and the state of things, out of the registry and the alarms.

use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpResponse, get};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::State;
use crate::supervisor::{Complaint, Report, State as ActorState, Verdict};
use crate::telemetry::metrics::{CONTENT_TYPE, Failing};
use crate::warehouse::gold::Gold;

/// How things stand, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// Nothing is wrong.
    #[default]
    Ok,
    /// It works, and there is an alarm.
    Degraded,
    /// Not all actors have come up yet, and none has failed.
    Starting,
    /// It is being stopped, and works off what it has accepted.
    Draining,
    /// An actor that should run does not.
    Failing,
}

/// The status and since when it has been seen to be so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    status: Status,
    since_ms: Option<u64>,
}

impl Standing {
    /// Notes what the status is now; returns since when. The first one counts from the start.
    fn note(&mut self, status: Status, started_ms: u64, now_ms: u64) -> u64 {
        match self.since_ms {
            Some(since) if self.status == status => since,
            Some(_) => self.begin(status, now_ms),
            None => self.begin(status, if status == Status::Ok { started_ms } else { now_ms }),
        }
    }

    fn begin(&mut self, status: Status, since_ms: u64) -> u64 {
        *self = Standing { status, since_ms: Some(since_ms) };
        since_ms
    }
}

fn status(actors: &[Report], ready: &Verdict, live: &Verdict, alarms: usize) -> Status {
    let states: Vec<ActorState> = actors.iter().map(|actor| actor.state).filter(|state| *state != ActorState::Running).collect();
    let are_all = |wanted: &[ActorState]| !states.is_empty() && states.iter().all(|state| wanted.contains(state));
    match (live.ok, ready.ok) {
        (true, true) if alarms == 0 => Status::Ok,
        (true, true) => Status::Degraded,
        (true, false) if are_all(&[ActorState::Starting]) && actors.iter().all(|actor| actor.restarts == 0) => Status::Starting,
        (true, false) if are_all(&[ActorState::Draining, ActorState::Stopped]) => Status::Draining,
        _ => Status::Failing,
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[get("/livez")]
pub(super) async fn livez(state: Data<State>) -> HttpResponse {
    probe(&state.actors.live())
}

#[get("/readyz")]
pub(super) async fn readyz(state: Data<State>) -> HttpResponse {
    probe(&state.actors.ready())
}

fn probe(verdict: &Verdict) -> HttpResponse {
    let (code, status) = match verdict.ok {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "failing"),
    };
    HttpResponse::build(code).json(json!({ "status": status, "complaints": verdict.complaints }))
}

#[get("/health")]
pub(super) async fn health(state: Data<State>) -> HttpResponse {
    let (ready, live) = (state.actors.ready(), state.actors.live());
    let alarms = state.metrics.alarms().list();
    let (started_ms, now_ms) = (state.metrics.started_ms(), now_ms());
    let actors = state.actors.snapshot();
    let status = status(&actors, &ready, &live, alarms.len());
    let since_ms = state.standing.lock().unwrap_or_else(PoisonError::into_inner).note(status, started_ms, now_ms);
    let complaints: Vec<Complaint> = live.complaints.into_iter().chain(ready.complaints).collect();
    HttpResponse::Ok().json(json!({
        "status": status,
        "since_ms": since_ms,
        "now_ms": now_ms,
        "version": env!("CARGO_PKG_VERSION"),
        "started_ms": started_ms,
        "uptime_seconds": now_ms.saturating_sub(started_ms) / 1000,
        "complaints": complaints,
        "alarms": alarms,
        "warehouse": state.gold.as_deref().map(|gold| warehouse(gold, state.metrics.failing())),
        "actors": actors,
    }))
}

/// The version of Gold that readers see, and since when and why there is no newer one.
fn warehouse(gold: &Gold, failing: Option<Failing>) -> Value {
    let published = gold.manifest().ok().flatten().map(|(manifest, at_ms)| {
        let at = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
        json!({ "run": manifest.run, "published_at": manifest.published_at.or(at) })
    });
    json!({ "gold": published, "failing": failing })
}

#[get("/metrics")]
pub(super) async fn metrics(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().content_type(CONTENT_TYPE).body(state.metrics.encode(&state.actors.snapshot()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_beginning_until_it_changes() {
        let mut standing = Standing::default();
        assert_eq!(standing.note(Status::Ok, 5, 10), 5);
        assert_eq!(standing.note(Status::Ok, 5, 11), 5);
        assert_eq!(standing.note(Status::Degraded, 5, 12), 12);
        assert_eq!(standing.note(Status::Degraded, 5, 13), 12);
        assert_eq!(standing.note(Status::Ok, 5, 14), 14);
        assert_eq!(Standing::default().note(Status::Failing, 5, 10), 10);
    }
}
