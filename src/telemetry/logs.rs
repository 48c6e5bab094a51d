//! Log lines to standard error: text for people, JSON for machines.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::TelemetryConfig;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter does not read; a config that was validated has none such.
    #[error("`telemetry.log`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody else has taken the process's logs.
    #[error("logs have been started already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends the events of this process to standard error.
pub fn start(config: &TelemetryConfig) -> Result<(), LogsError> {
    let subscriber = subscriber(config, io::stderr, io::stderr().is_terminal())?;
    Ok(tracing::subscriber::set_global_default(subscriber)?)
}

fn subscriber<W>(config: &TelemetryConfig, writer: W, colours: bool) -> Result<impl Subscriber + Send + Sync, LogsError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    let lines = if config.json { lines.json().flatten_event(true).with_span_list(false).boxed() } else { lines.boxed() };
    Ok(tracing_subscriber::registry().with(EnvFilter::builder().parse(&config.log)?).with(lines))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub(in crate::telemetry) fn logged(log: &str, json: bool, events: impl FnOnce()) -> String {
        let config = TelemetryConfig { log: log.into(), json, otlp_endpoint: None, sample: 0.0 };
        let lines = Lines::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(&config, move || writer.clone(), false).unwrap(), events);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_is_filtered_and_carries_its_fields() {
        let text = logged("info", false, || {
            tracing::warn!(shard = "shard-1", "feed gap");
            tracing::debug!("a timer");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("WARN") && text.contains("feed gap") && text.contains("shard=\"shard-1\""), "{text}");
    }

    #[test]
    fn lines_of_work_that_is_traced_carry_its_id_whatever_is_filtered() {
        let config =
            TelemetryConfig { log: String::new(), json: true, otlp_endpoint: Some("http://127.0.0.1:9".into()), sample: 1.0 };
        let (traces, exporter) = crate::telemetry::traces::start(&config).unwrap();
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let span = traces.span_append([parent]).unwrap();
        let text = logged("error", true, || span.logs().in_scope(|| tracing::error!("the disk refuses")));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["span"]["trace_id"], parent[3..35]);
        let text = logged("error", true, || crate::telemetry::traces::logs_of(None).in_scope(|| tracing::error!("untraced")));
        assert!(!text.contains("trace_id"), "{text}");
        drop((span, exporter));
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = logged("tickmint=debug", true, || tracing::debug!(records = 7, "a slot"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((&line["message"], &line["records"], &line["level"]), (&"a slot".into(), &7.into(), &"DEBUG".into()));
    }
}
