//! What Tickmint tells of itself: logs, traces and metrics. Every name of a metric or a span is here.
//!
//! * [`logs`]: tracing's events to standard error.
//! * [`traces`]: OpenTelemetry spans from frame to Gold, head-sampled.
//! * [`metrics`]: counters, gauges and histograms, handed to actors as one [`Metrics`].
//! * [`alarms`]: what a person should look at, since when and why.
//! * [`pipeline`]: the same numbers as one picture, for the page and `/api/pipeline`.

pub mod alarms;
pub mod logs;
pub mod metrics;
pub mod pipeline;
mod process;
pub mod traces;

use crate::config::TelemetryConfig;

pub use alarms::Alarm;
pub use metrics::Metrics;
pub use traces::{Span, Traces};

/// Logs and traces of this process. Traces are flushed when it is dropped, so drop it last, outside
/// of the actors' runtime.
#[derive(Debug)]
pub struct Telemetry {
    /// Makes spans; clones go to the actors.
    pub traces: Traces,
    _exporter: traces::Exporter,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// See [`logs::LogsError`].
    #[error(transparent)]
    Logs(#[from] logs::LogsError),
    /// See [`traces::TracesError`].
    #[error(transparent)]
    Traces(#[from] traces::TracesError),
}

/// Starts logs, then traces. Once in a process.
pub fn start(config: &TelemetryConfig) -> Result<Telemetry, TelemetryError> {
    logs::start(config)?;
    let (traces, exporter) = traces::start(config)?;
    Ok(Telemetry { traces, _exporter: exporter })
}
