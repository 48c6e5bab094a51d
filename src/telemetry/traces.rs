//! Spans from the frame to Gold, sent as OTLP over HTTP.
//!
//! A frame is sampled once, on its receipt; what is not sampled costs a random number. From then on
//! the W3C `traceparent` travels with it: in the spool's entry, in the slot. A stage that works on a
//! batch makes one span: a child of the first frame sampled in it, with links to the others. Spans are
//! OpenTelemetry's own and not those of `tracing`: see docs/adr/0005-spans-are-opentelemetrys.md.
//!
//! Export is by HTTP on a thread of its own (gRPC blocks actix's runtimes when it is flushed), and a
//! full queue drops spans: telemetry never holds up a trade. Where traces are off, nothing is made.

mod collector;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use self::collector::Collector;
use crate::config::TelemetryConfig;
use crate::domain::identity::SessionId;
use crate::domain::stream::Stream;
use crate::domain::verdict::RawFrame;

/// One request to the collector.
const EXPORT_WITHIN: Duration = Duration::from_secs(5);

/// The last flush. A collector that is away must not keep the process.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Links of one span: enough to see what a batch was made of.
pub const LINKS: usize = 64;

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to `telemetry.otlp_endpoint` `{endpoint}`: {reason}")]
pub struct TracesError {
    endpoint: String,
    reason: String,
}

/// Makes spans, or none where traces are off. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    tracer: SdkTracer,
    /// Of the frames, 0 to 1.
    share: f64,
}

/// Sends spans until it is dropped, and then what is left of them.
#[derive(Debug)]
pub struct Exporter(Option<SdkTracerProvider>);

/// Traces as configured. May be called anywhere; it talks to nobody yet.
pub fn start(config: &TelemetryConfig) -> Result<(Traces, Exporter), TracesError> {
    let Some(endpoint) = &config.otlp_endpoint else { return Ok((Traces::default(), Exporter(None))) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address(endpoint))
        .with_timeout(EXPORT_WITHIN)
        .build()
        .map_err(|error| TracesError { endpoint: endpoint.clone(), reason: error.to_string() })?;
    let resource = Resource::builder()
        .with_service_name("tickmint")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Collector::new(exporter, endpoint.clone()))
        .with_resource(resource.build())
        .with_sampler(Sampler::AlwaysOn) // What is not sampled never becomes a span.
        .build();
    let tracer = provider.tracer("tickmint");
    Ok((Traces(Some(Arc::new(Inner { tracer, share: config.sample }))), Exporter(Some(provider))))
}

/// The path that OTLP gives to traces, unless the endpoint names it.
fn address(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with("/v1/traces") { endpoint.into() } else { format!("{endpoint}/v1/traces") }
}

impl Drop for Exporter {
    /// Waits for the last spans to be sent, but not on a thread that runs actors.
    fn drop(&mut self) {
        let Some(provider) = self.0.take() else { return };
        let flush = std::thread::spawn(move || {
            if let Err(error) = provider.shutdown_with_timeout(FLUSH_WITHIN) {
                tracing::warn!(%error, "the last traces were not sent");
            }
        });
        if tokio::runtime::Handle::try_current().is_err() {
            drop(flush.join());
        }
    }
}

/// The spans that there are, in the order of the pipeline.
impl Traces {
    /// A frame, from its receipt until it is durable; `None` if it is not sampled.
    pub fn span_frame(&self, shard: &str, session: SessionId, frame: &RawFrame) -> Option<Span> {
        let inner = self.0.as_deref()?;
        if rand::random::<f64>() >= inner.share {
            return None;
        }
        let received = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(frame.received_at).unwrap_or_default());
        let builder = SpanBuilder::from_name("frame").with_kind(SpanKind::Consumer).with_start_time(received).with_attributes([
            KeyValue::new("tickmint.shard", shard.to_string()),
            KeyValue::new("tickmint.session", session.to_string()),
            KeyValue::new("tickmint.frame", i64::from(frame.number)),
            KeyValue::new("tickmint.frame.bytes", frame.payload.len() as i64),
        ]);
        Some(Span(inner.tracer.build_with_context(builder, &Context::new())))
    }

    /// The sampled ones of a batch of frames, with their numbers. Nothing is allocated where there are none.
    pub fn span_frames(&self, shard: &str, session: SessionId, frames: &[RawFrame]) -> Vec<(u32, Span)> {
        if self.0.is_none() {
            return Vec::new();
        }
        frames.iter().filter_map(|frame| Some((frame.number, self.span_frame(shard, session, frame)?))).collect()
    }

    /// Frames being written to the spool and fsynced.
    pub fn span_append<'a>(&self, frames: impl IntoIterator<Item = &'a str>) -> Option<Span> {
        self.batch("spool append", SpanKind::Internal, frames, [])
    }

    /// Records of a stream becoming an object and its slot. Its traceparent goes into the slot.
    pub fn span_object<'a>(&self, stream: Stream, frames: impl IntoIterator<Item = &'a str>) -> Option<Span> {
        self.batch("bronze object", SpanKind::Client, frames, [KeyValue::new("tickmint.stream", stream.name())])
    }

    /// Slots being made into Silver and Gold. Its traceparent goes to the refiner process.
    pub fn span_refine<'a>(&self, slots: impl IntoIterator<Item = &'a str>) -> Option<Run> {
        let span = self.batch("warehouse refine", SpanKind::Client, slots, [])?;
        Some(Run { tracer: self.0.as_deref()?.tracer.clone(), phase: None, span })
    }

    /// A child of the first, with links to the others; `None` where none of them is sampled.
    fn batch<'a, const N: usize>(
        &self,
        name: &'static str,
        kind: SpanKind,
        parents: impl IntoIterator<Item = &'a str>,
        attributes: [KeyValue; N],
    ) -> Option<Span> {
        let inner = self.0.as_deref()?;
        let mut parents = parents.into_iter().filter_map(parse_traceparent).filter(SpanContext::is_sampled);
        let first = parents.next()?;
        let links = parents.take(LINKS).map(Link::with_context).collect();
        let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes).with_links(links);
        let context = Context::new().with_remote_span_context(first);
        Some(Span(inner.tracer.build_with_context(builder, &context)))
    }
}

/// A piece of work that is being traced. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(opentelemetry_sdk::trace::Span);

impl Span {
    /// The context to hand on with what is being worked on.
    pub fn traceparent(&self) -> String {
        format_traceparent(self.0.span_context())
    }

    /// Notes a number: `span.count("tickmint.records", 17)`.
    pub fn count(&mut self, name: &'static str, number: u64) {
        self.0.set_attribute(KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)));
    }

    /// Notes a text: `span.note("tickmint.object", key)`.
    pub fn note(&mut self, name: &'static str, text: impl Into<String>) {
        self.0.set_attribute(KeyValue::new(name, text.into()));
    }

    /// The work has failed.
    pub fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.0.set_status(Status::error(error.to_string()));
    }

    /// Where log lines of this work belong: each that is written inside carries the trace's id.
    pub fn logs(&self) -> tracing::Span {
        // At the level of errors, so that no filter of the log takes the id away from a line that it lets pass.
        tracing::error_span!("traced", trace_id = %self.0.span_context().trace_id(), span_id = %self.0.span_context().span_id())
    }
}

/// Where log lines of work belong that may not be traced.
pub fn logs_of(span: Option<&Span>) -> tracing::Span {
    span.map_or_else(tracing::Span::none, Span::logs)
}

/// A run of the warehouse, as it goes from phase to phase. Both spans end when it is dropped.
#[derive(Debug)]
pub struct Run {
    tracer: SdkTracer,
    phase: Option<Span>, // above `span`, so that it ends first
    /// The whole of it.
    pub span: Span,
}

impl Run {
    /// The process begins a phase, and has ended the one before.
    pub fn enter(&mut self, phase: &str) {
        self.phase = None;
        let name = match phase {
            "silver" | "gold" | "test" => format!("dbt build {phase}"),
            _ => format!("warehouse {phase}"),
        };
        let context = Context::new().with_remote_span_context(self.span.0.span_context().clone());
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Internal);
        self.phase = Some(Span(self.tracer.build_with_context(builder, &context)));
    }

    /// The run has failed, in the phase that it is in.
    pub fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.phase.iter_mut().for_each(|phase| phase.fail(error));
        self.span.fail(error);
    }
}

/// A context as the W3C writes it.
fn format_traceparent(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

/// A context as the W3C writes it, of any version; `None` if it is not one.
fn parse_traceparent(text: &str) -> Option<SpanContext> {
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let well_formed = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !well_formed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8());
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn config(endpoint: Option<String>, sample: f64) -> TelemetryConfig {
        TelemetryConfig { log: "info".into(), json: false, otlp_endpoint: endpoint, sample }
    }

    fn frame() -> RawFrame {
        RawFrame { number: 7, received_at: 1_760_000_000_000_000, payload: "{}".into(), binary: false }
    }

    /// Takes one request, answers it, and returns its path and its body.
    fn collector() -> (String, std::thread::JoinHandle<(String, Vec<u8>)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let serve = std::thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let (mut request, mut length) = (String::new(), 0);
            stream.read_line(&mut request).unwrap();
            loop {
                let mut header = String::new();
                stream.read_line(&mut header).unwrap();
                match header.trim().split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            (request, body)
        });
        (endpoint, serve)
    }

    #[test]
    fn contexts_read_and_write_as_the_w3c_has_it() {
        assert_eq!(format_traceparent(&parse_traceparent(PARENT).unwrap()), PARENT);
        let later = parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more").unwrap();
        assert!(later.is_sampled());
        let wrong = [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ];
        for text in wrong {
            assert_eq!(parse_traceparent(text), None, "{text}");
        }
    }

    #[test]
    fn nothing_is_traced_where_traces_are_off_or_nothing_is_sampled() {
        let (off, _exporter) = start(&config(None, 1.0)).unwrap();
        assert!(off.span_frame("shard-1", SessionId::generate(), &frame()).is_none());
        assert!(off.span_append([PARENT]).is_none());
        assert!(off.span_frames("shard-1", SessionId::generate(), &[frame()]).is_empty());
        let (none, exporter) = start(&config(Some("http://127.0.0.1:9".into()), 0.0)).unwrap();
        assert!(none.span_frame("shard-1", SessionId::generate(), &frame()).is_none());
        assert!(none.span_refine([]).is_none());
        assert!(none.span_append(["nonsense", &PARENT.replace("-01", "-00")]).is_none());
        drop(exporter);
    }

    #[test]
    fn one_trace_goes_from_frame_to_gold_and_is_flushed_at_the_end() {
        let (endpoint, served) = collector();
        let (traces, exporter) = start(&config(Some(endpoint), 1.0)).unwrap();
        let frame = traces.span_frame("shard-1", SessionId::generate(), &frame()).unwrap();
        let append = traces.span_append([PARENT, frame.traceparent().as_str()]).unwrap();
        assert!(append.traceparent().contains("4bf92f3577b34da6a3ce929d0e0e4736"), "a child of the first");
        let mut object = traces.span_object(Stream::Trades, [frame.traceparent().as_str()]).unwrap();
        assert_eq!(object.traceparent()[3..35], frame.traceparent()[3..35], "one trace");
        object.count("tickmint.records", 17);
        object.fail(&"no route to the store");
        let mut run = traces.span_refine([object.traceparent().as_str()]).unwrap();
        ["load", "silver"].iter().for_each(|phase| run.enter(phase));
        drop((frame, append, object, run));
        drop(exporter);
        let (request, body) = served.join().unwrap();
        assert_eq!(request, "POST /v1/traces HTTP/1.1\r\n");
        let has = |text: &str| body.windows(text.len()).any(|window| window == text.as_bytes());
        for name in [
            "frame",
            "spool append",
            "bronze object",
            "warehouse refine",
            "warehouse load",
            "dbt build silver",
            "shard-1",
            "no route to the store",
        ] {
            assert!(has(name), "{name}");
        }
    }

    #[actix::test]
    async fn a_collector_that_is_away_holds_up_no_arbiter() {
        let (traces, exporter) = start(&config(Some("http://127.0.0.1:9/v1/traces".into()), 1.0)).unwrap();
        drop(traces.span_frame("shard-1", SessionId::generate(), &frame()));
        drop(exporter);
    }
}
