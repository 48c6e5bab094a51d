//! The way to the collector: says once that it is away and once that it is back. The SDK would say so
//! twice every five seconds, as an error, for what costs nobody a trade.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Sends by `exporter`.
#[derive(Debug)]
pub(super) struct Collector<E> {
    exporter: E,
    endpoint: String,
    is_away: AtomicBool,
}

impl<E> Collector<E> {
    pub(super) fn new(exporter: E, endpoint: String) -> Collector<E> {
        Collector { exporter, endpoint, is_away: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Collector<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let was_away = self.is_away.swap(sent.is_err(), Relaxed);
        match &sent {
            Err(error) if !was_away => {
                tracing::warn!(endpoint = self.endpoint, %error, "the collector takes no traces; they are dropped until it does");
            }
            Ok(()) if was_away => tracing::info!(endpoint = self.endpoint, "the collector takes traces again"),
            Ok(()) | Err(_) => {}
        }
        Ok(()) // all is said
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::error::OTelSdkError;

    use super::*;
    use crate::telemetry::logs::tests::logged;

    /// Fails as long as it is told to.
    #[derive(Debug)]
    struct Fake(AtomicBool);

    impl SpanExporter for Fake {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            if self.0.load(Relaxed) { Err(OTelSdkError::InternalFailure("no route".into())) } else { Ok(()) }
        }
    }

    #[test]
    fn a_collector_that_is_away_is_said_once_and_so_is_its_return() {
        let collector = Collector::new(Fake(AtomicBool::new(false)), "http://c:4318".into());
        let text = logged("info", false, || {
            for fails in [false, true, true, true, false, false] {
                collector.exporter.0.store(fails, Relaxed);
                futures_util::FutureExt::now_or_never(collector.export(Vec::new())).unwrap().unwrap();
            }
        });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("WARN") && lines[0].contains("no route") && lines[1].contains("takes traces again"), "{text}");
    }
}
