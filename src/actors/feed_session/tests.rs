//! A session between a WebSocket server and a validator that the test plays itself. Real sockets on
//! the loopback, so real time; nothing here depends on how long something takes.

use std::collections::VecDeque;

use futures_util::StreamExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::reading::BATCH_FRAMES;
use super::*;
use crate::domain::verdict::RawFrame;
use crate::supervisor::{ChildSpec, Policy, Report, Root, State};

/// Nothing takes that long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("nothing happened")
}

/// What the session has told.
#[derive(Debug)]
enum Told {
    Open(SessionId),
    Batch(SessionId, Vec<(u32, String)>),
    End(EndSession),
}

/// How the validator answers a batch.
#[derive(Clone, Copy)]
enum Answer {
    Down,
    Disk,
    Full,
    Panic,
}

/// Validator and spool in one: tells the test all, answers as told, then that all is well; each
/// batch needs a permit of the gate.
struct Downstream {
    told: mpsc::UnboundedSender<Told>,
    answers: VecDeque<Answer>,
    opens: VecDeque<AppendError>,
    gate: Arc<Semaphore>,
}

impl Actor for Downstream {
    type Context = Context<Self>;
}

impl Supervised for Downstream {}

impl Child for Downstream {}

impl Handler<Judge> for Downstream {
    type Result = ResponseActFuture<Self, Result<(), AppendError>>;

    fn handle(&mut self, Judge { session, frames, .. }: Judge, _: &mut Self::Context) -> Self::Result {
        let text = |frame: &RawFrame| String::from_utf8(frame.payload.to_vec()).unwrap();
        let batch = frames.iter().map(|frame| (frame.number, text(frame))).collect();
        drop(self.told.send(Told::Batch(session, batch)));
        let answer = match self.answers.pop_front() {
            None => Ok(()),
            Some(Answer::Down) => Err(AppendError::Down("spool")),
            Some(Answer::Disk) => Err(AppendError::Disk("no space".into())),
            Some(Answer::Full) => Err(AppendError::Full { used: 9, max: 9 }),
            Some(Answer::Panic) => panic!("as the test wants it"),
        };
        let gate = self.gate.clone();
        Box::pin(wrap_future(async move {
            gate.acquire().await.unwrap().forget();
            answer
        }))
    }
}

impl Handler<OpenSession> for Downstream {
    type Result = Result<(), AppendError>;

    fn handle(&mut self, open: OpenSession, _: &mut Self::Context) -> Self::Result {
        assert_eq!(open.shard.name, "shard-1");
        if let Some(error) = self.opens.pop_front() {
            return Err(error);
        }
        drop(self.told.send(Told::Open(open.session)));
        Ok(())
    }
}

impl Handler<EndSession> for Downstream {
    type Result = Result<(), AppendError>;

    fn handle(&mut self, end: EndSession, _: &mut Self::Context) -> Self::Result {
        drop(self.told.send(Told::End(end)));
        Ok(())
    }
}

/// What a test asks of its world.
struct Wishes {
    answers: Vec<Answer>,
    opens: Vec<AppendError>,
    /// Batches that may pass before the test opens the gate.
    permits: usize,
    watchdog: Duration,
    reconnect: Duration,
}

impl Default for Wishes {
    fn default() -> Wishes {
        let reconnect = Duration::from_millis(1);
        Wishes { answers: vec![], opens: vec![], permits: Semaphore::MAX_PERMITS, watchdog: PATIENCE * 10, reconnect }
    }
}

struct Rig {
    listener: TcpListener,
    told: mpsc::UnboundedReceiver<Told>,
    gate: Arc<Semaphore>,
    root: Root,
    metrics: Arc<Metrics>,
}

/// A client's connection, as the server has it.
struct Guest {
    socket: WebSocketStream<TcpStream>,
    request: Request,
}

impl Rig {
    async fn new(wishes: Wishes) -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(wishes.permits));
        let root = Root::start(Policy::default());
        let here = actix::Arbiter::current();
        let (answers, opens, permits) = (wishes.answers.into(), wishes.opens.into(), gate.clone());
        let downstream = root.top.spawn(ChildSpec::permanent("downstream"), &here, move |_, _| Downstream {
            told: tell,
            answers,
            opens,
            gate: permits,
        });
        let downstream = downstream.unwrap();
        let shard = Shard { name: "shard-1".into(), symbols: ["AAPL", "SPY"].map(String::from).into() };
        let config = FeedConfig {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            shards: vec![],
            watchdog: wishes.watchdog,
            reconnect_min: wishes.reconnect,
            reconnect_max: wishes.reconnect,
            stale_after: PATIENCE,
            max_frame_bytes: 1000,
        };
        let metrics = Arc::new(Metrics::new());
        let (counted, watch) = (metrics.clone(), Arc::new(Watchlist::new(shard.symbols.iter(), 0)));
        let session = root.top.spawn(ChildSpec::permanent("session"), &here, move |_, vitals| {
            FeedSession::new(Parts {
                vitals,
                config,
                pace: Pace::new(Duration::ZERO),
                key: Secret::new("s3cret"),
                shard_metrics: counted.shard(&shard.name),
                metrics: counted,
                traces: Traces::default(),
                shard,
                watch,
                validator: downstream.clone().recipient(),
                open: downstream.clone().recipient(),
                end: downstream.recipient(),
            })
        });
        drop(session.unwrap());
        Rig { listener, told, gate, root, metrics }
    }

    /// Lets the next client in, and hears what it subscribes to.
    async fn guest(&mut self) -> (Guest, SessionId) {
        let mut request = None;
        #[expect(clippy::result_large_err, reason = "the WebSocket library wants it so")]
        let look = |asked: &Request, response: Response| {
            request = Some(asked.clone());
            Ok(response)
        };
        let (stream, _) = soon(self.listener.accept()).await.unwrap();
        let socket = soon(accept_hdr_async(stream, look)).await.unwrap();
        let mut guest = Guest { socket, request: request.unwrap() };
        let Told::Open(session) = self.told().await else { panic!("frames come before their session is open") };
        for symbol in ["AAPL", "SPY"] {
            let expected = format!(r#"{{"symbol":"{symbol}","type":"subscribe"}}"#);
            assert_eq!(guest.hears().await, Message::text(expected));
        }
        (guest, session)
    }

    async fn told(&mut self) -> Told {
        soon(self.told.recv()).await.unwrap()
    }

    async fn batch(&mut self, of: SessionId) -> Vec<(u32, String)> {
        match self.told().await {
            Told::Batch(session, batch) if session == of => batch,
            other => panic!("{other:?}"),
        }
    }

    /// Batches until there are so many frames.
    async fn frames(&mut self, of: SessionId, count: usize) -> Vec<(u32, String)> {
        let mut frames = Vec::new();
        while frames.len() < count {
            frames.extend(self.batch(of).await);
        }
        frames
    }

    async fn end(&mut self) -> (SessionId, u32, String) {
        match self.told().await {
            Told::End(end) => {
                assert_eq!(end.last_received_at.is_some(), end.frames > 0);
                (end.session, end.frames, end.reason)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn session_has_read(&self, frames: u64) {
        soon(async {
            while self.metrics.pipeline().feed.frames < frames {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    fn session(&self) -> Report {
        let actors = self.root.registry.snapshot();
        let session = actors.into_iter().find(|actor| actor.path == "session").unwrap();
        assert_eq!(session.restarts, 0, "{:?}", session.last_failure);
        session
    }

    fn note(&self, name: &str) -> Option<String> {
        self.session().notes.get(name).cloned()
    }

    async fn session_notes(&self, name: &str, text: &str) {
        soon(async {
            while !self.note(name).is_some_and(|note| note.contains(text)) {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

impl Guest {
    async fn say(&mut self, text: &str) {
        soon(self.socket.send(Message::text(text))).await.unwrap();
    }

    async fn hears(&mut self) -> Message {
        soon(self.socket.next()).await.unwrap().unwrap()
    }
}

fn numbered(frames: std::ops::RangeInclusive<u32>) -> Vec<(u32, String)> {
    frames.map(|number| (number, format!("frame {number}"))).collect()
}

#[actix::test]
async fn every_message_gets_its_number_and_the_session_ends_in_order() {
    let mut rig = Rig::new(Wishes::default()).await;
    let (mut guest, session) = rig.guest().await;
    assert_eq!(guest.request.uri().query(), Some("token=s3cret"));
    assert_eq!(guest.request.headers()["x-request-id"], session.to_string());
    assert!(guest.request.headers()["user-agent"].to_str().unwrap().starts_with("tickmint/"));

    guest.say("a trade").await;
    guest.say(r#"{"type":"ping"}"#).await;
    guest.socket.send(Message::Ping("are you there".into())).await.unwrap();
    guest.socket.send(Message::Binary("no text".into())).await.unwrap();
    assert_eq!(guest.hears().await, Message::Pong("are you there".into()));
    let expected = [(1, "a trade"), (2, r#"{"type":"ping"}"#), (3, "no text")];
    assert_eq!(rig.frames(session, 3).await, expected.map(|(number, text)| (number, text.to_string())));

    let stop = actix_rt::spawn({
        let top = rig.root.top.clone();
        async move { top.stop("session").await }
    });
    assert_eq!(rig.end().await, (session, 3, "shutdown".into()));
    assert!(matches!(guest.hears().await, Message::Close(_)));
    drop(guest);
    assert!(soon(stop).await.unwrap().is_empty(), "it has drained");
}

#[actix::test]
async fn a_closed_connection_is_opened_anew_as_another_session() {
    let mut rig = Rig::new(Wishes::default()).await;
    let (mut guest, first) = rig.guest().await;
    guest.say("frame 1").await;
    assert_eq!(rig.batch(first).await, numbered(1..=1));
    guest.socket.close(None).await.unwrap();
    assert_eq!(rig.end().await, (first, 1, "closed_by_server".into()));
    let (mut guest, second) = rig.guest().await;
    assert!(second > first);
    guest.say("frame 1").await;
    assert_eq!(rig.batch(second).await, numbered(1..=1));
    drop(guest);
    assert_eq!(rig.end().await, (second, 1, "disconnected".into()));
}

#[actix::test]
async fn a_silent_connection_is_left() {
    let mut rig = Rig::new(Wishes { watchdog: Duration::from_millis(50), ..Wishes::default() }).await;
    let (guest, session) = rig.guest().await;
    assert_eq!(rig.end().await, (session, 0, "stalled".into()));
    drop(guest);
    let (_guest, another) = rig.guest().await;
    assert_ne!(another, session);
}

#[actix::test]
async fn symbols_are_silent_whether_there_is_a_connection_or_not() {
    let mut rig = Rig::new(Wishes::default()).await;
    rig.session_notes("silent_symbols", "AAPL SPY").await; // nobody has let the session in yet
    assert_eq!(rig.metrics.pipeline().shards[0].stale_symbols, 2);
    let (_guest, _) = rig.guest().await;
    rig.session_notes("connection", "session").await;
    assert_eq!(rig.note("silent_symbols").as_deref(), Some("AAPL SPY"), "no connection makes a symbol trade");
}

#[actix::test]
async fn a_batch_comes_again_until_it_is_durable_and_nothing_overtakes_it() {
    let answers = vec![Answer::Down, Answer::Disk, Answer::Panic];
    let mut rig = Rig::new(Wishes { answers, ..Wishes::default() }).await;
    let (mut guest, session) = rig.guest().await;
    guest.say("frame 1").await;
    assert_eq!(rig.batch(session).await, numbered(1..=1));
    guest.say("frame 2").await;
    for _ in 0..3 {
        assert_eq!(rig.batch(session).await, numbered(1..=1));
    }
    assert_eq!(rig.batch(session).await, numbered(2..=2));
}

#[actix::test]
async fn a_refused_key_is_told_of_and_not_tried_again_at_once() {
    let rig = Rig::new(Wishes::default()).await;
    let (stream, _) = soon(rig.listener.accept()).await.unwrap();
    #[expect(clippy::result_large_err, reason = "the WebSocket library wants it so")]
    let refuse = |_: &Request, _: Response| {
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        Err(refusal)
    };
    assert!(soon(accept_hdr_async(stream, refuse)).await.is_err());
    rig.session_notes("feed", "the key of shard-1 was refused (401)").await;
    rig.session_notes("connection", "waiting 60.0 s").await;
    assert!(rig.metrics.alarms().list()[0].why.contains("feed.keys"), "a person must act");
    assert!(rig.root.top.stop("session").await.is_empty(), "and yet it stops at once");
}

#[actix::test]
async fn other_refusals_are_tried_again() {
    let mut rig = Rig::new(Wishes::default()).await;
    for _ in 0..3 {
        drop(soon(rig.listener.accept()).await.unwrap());
    }
    rig.guest().await;
    assert_eq!(rig.note("feed"), None);
}

#[actix::test]
async fn a_full_spool_ends_the_session_where_it_is_durable() {
    let mut rig = Rig::new(Wishes { answers: vec![Answer::Full], permits: 0, ..Wishes::default() }).await;
    let (mut guest, session) = rig.guest().await;
    guest.say("frame 1").await;
    assert_eq!(rig.batch(session).await, numbered(1..=1));
    guest.say("frame 2").await;
    rig.session_has_read(2).await;
    rig.gate.add_permits(1);
    assert_eq!(rig.end().await, (session, 0, SPOOL_FULL.into()), "the gap begins at the last durable frame");
    assert!(matches!(guest.hears().await, Message::Close(_)));
    drop(guest);
    rig.guest().await;
}

#[actix::test]
async fn nobody_subscribes_while_the_spool_takes_no_session() {
    let opens = vec![AppendError::Full { used: 9, max: 9 }, AppendError::Disk("no space".into()), AppendError::Down("spool")];
    let mut rig = Rig::new(Wishes { opens, ..Wishes::default() }).await;
    let (stream, _) = soon(rig.listener.accept()).await.unwrap();
    let mut socket = soon(tokio_tungstenite::accept_async(stream)).await.unwrap();
    assert!(!matches!(soon(socket.next()).await, Some(Ok(_))), "closed without a word");
    rig.guest().await; // Disk and Down are tried again on the same connection.
}

#[actix::test]
async fn a_drain_finishes_what_was_read() {
    let mut rig = Rig::new(Wishes { permits: 0, ..Wishes::default() }).await;
    let (mut guest, session) = rig.guest().await;
    guest.say("frame 1").await;
    assert_eq!(rig.batch(session).await, numbered(1..=1));
    for number in 2..=5 {
        guest.say(&format!("frame {number}")).await;
    }
    rig.session_has_read(5).await;
    let stop = actix_rt::spawn({
        let top = rig.root.top.clone();
        async move { top.stop("session").await }
    });
    soon(async {
        while rig.session().state != State::Draining {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    sleep(Duration::from_millis(20)).await; // It has heard of it by now, or the test proves less.
    rig.gate.add_permits(2);
    assert_eq!(rig.batch(session).await, numbered(2..=5));
    assert_eq!(rig.end().await, (session, 5, "shutdown".into()));
    drop(guest);
    assert!(soon(stop).await.unwrap().is_empty(), "it has drained");
}

#[actix::test]
async fn under_load_batches_are_bounded_and_the_order_is_exact() {
    let frames = 5 * BATCH_FRAMES as u32;
    let mut rig = Rig::new(Wishes { permits: 0, ..Wishes::default() }).await;
    let (guest, session) = rig.guest().await;
    let Guest { mut socket, .. } = guest;
    let sender = actix_rt::spawn(async move {
        for number in 1..=frames {
            socket.feed(Message::text(format!("frame {number}"))).await.unwrap();
        }
        socket.flush().await.unwrap();
        socket
    });
    let first = rig.batch(session).await;
    let read = first.len() + BATCH_FRAMES;
    rig.session_has_read(read as u64).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.metrics.pipeline().feed.frames, read as u64, "a full batch is not added to");
    rig.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    let mut all = first;
    while all.len() < frames as usize {
        let batch = rig.batch(session).await;
        assert!(batch.len() <= BATCH_FRAMES);
        all.extend(batch);
    }
    assert_eq!(all, numbered(1..=frames));
    drop(soon(sender).await.unwrap());
    assert_eq!(rig.end().await, (session, frames, "disconnected".into()));
}

#[test]
fn the_back_off_doubles_to_its_maximum_with_jitter() {
    let ms = Duration::from_millis;
    let config = FeedConfig {
        url: String::new(),
        shards: vec![],
        watchdog: ms(1),
        reconnect_min: ms(100),
        reconnect_max: ms(1000),
        stale_after: ms(1),
        max_frame_bytes: 1,
    };
    let mut attempt = 0;
    for full in [100, 200, 400, 800, 1000, 1000] {
        let wait = back_off(&config, &mut attempt);
        assert!(wait >= ms(full / 2) && wait <= ms(full), "{wait:?} of {full} ms");
    }
    attempt = u32::MAX;
    assert!(back_off(&config, &mut attempt) <= ms(1000));
}
