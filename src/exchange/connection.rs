//! One client: what it says, what it is sent.
//!
//! Frames are taken from the queue in groups. A group gets its numbers, goes to the ledger, and only
//! when it is durable there to the socket. Nothing is sent that the ledger does not know.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

use super::feeder::now_us;
use super::hub::{Hub, Item, Kick, Seat, Subscribed};
use super::ledger::{Ledger, LedgerFailed, Line, base64};
use super::mischief::{Action, Body, Message, Mischief};

/// Frames that the ledger takes at once, at most.
const GROUP: usize = 512;

/// How long a closing client may take; then the socket is closed all the same.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How often a silent connection looks whether its client has gone.
const LOOK: Duration = Duration::from_millis(50);

/// The message that names no symbol, as Finnhub sends it.
const TOO_MANY: &str = r#"{"msg":"Subscribing to too many symbols","type":"error"}"#;

/// What a connection is made of besides its socket.
pub(super) struct Connection {
    pub(super) hub: Arc<Hub>,
    pub(super) ledger: Ledger,
    pub(super) seat: Seat,
    pub(super) mischief: Mischief,
    /// Whether the market goes on while this connection is silent.
    pub(super) market_goes_on: bool,
    pub(super) ping_every: Duration,
}

/// Why a connection is over.
#[derive(Clone, Debug)]
enum Over {
    ClientClosed,
    Lost(String),
    Kicked(Kick),
    Dropped { close_frame: bool },
    Ledger(LedgerFailed),
}

impl Over {
    fn reason(&self) -> Cow<'static, str> {
        match self {
            Over::ClientClosed => "the client closed".into(),
            Over::Lost(error) => format!("connection lost: {error}").into(),
            Over::Kicked(Kick::SecondConnection) => "second connection on the key".into(),
            Over::Kicked(Kick::TooSlow) => "the client is too slow: its queue is full".into(),
            Over::Kicked(Kick::Stopped) => "the exchange stops".into(),
            Over::Dropped { close_frame: true } => "fault: drop, with a close frame".into(),
            Over::Dropped { close_frame: false } => "fault: drop".into(),
            Over::Ledger(failed) => failed.to_string().into(),
        }
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    symbol: Option<Cow<'a, str>>,
}

struct Talk {
    connection: Connection,
    socket: WebSocketStream<TcpStream>,
    /// The number of the last message that the ledger knows, and of the last that the network took.
    n: u64,
    flushed: u64,
    /// The last message of trades.
    last_trades: Option<(u64, Message)>,
}

impl Connection {
    /// Serves until one side or the other ends it.
    pub(super) async fn serve(self, socket: WebSocketStream<TcpStream>) -> Result<(), LedgerFailed> {
        let mut talk = Talk { connection: self, socket, n: 0, flushed: 0, last_trades: None };
        let Err(over) = talk.go_on().await;
        let Talk { connection: Connection { hub, ledger, seat, .. }, socket, n, flushed, .. } = talk;
        let why = over.reason();
        tracing::debug!(conn = seat.number, n, %why, "connection over");
        ledger.note(Line::Close { conn: seat.number, n, flushed, at_us: now_us(), why: &why }).await;
        hub.leave(seat.number);
        close(socket, &over).await;
        match over {
            Over::Ledger(failed) => Err(failed),
            Over::ClientClosed | Over::Lost(_) | Over::Kicked(_) | Over::Dropped { .. } => Ok(()),
        }
    }
}

impl Talk {
    async fn go_on(&mut self) -> Result<Infallible, Over> {
        let every = self.connection.ping_every;
        let mut pings = interval_at(Instant::now() + every, every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut items = Vec::with_capacity(GROUP);
        let mut actions = Vec::with_capacity(GROUP);
        loop {
            tokio::select! {
                biased;
                Some(kick) = self.connection.seat.kicks.recv() => return Err(Over::Kicked(kick)),
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.hear(message).await?,
                    Some(Err(error)) => return Err(Over::Lost(error.to_string())),
                    None => return Err(Over::ClientClosed),
                },
                _ = pings.tick() => self.send(vec![Some(Message::ping())]).await?,
                1.. = self.connection.seat.queue.recv_many(&mut items, GROUP) => {
                    let mut ended = false;
                    for item in items.drain(..) {
                        match item {
                            Item::Frame(frame) => self.connection.mischief.frame(frame, &mut actions),
                            Item::End => {
                                self.connection.mischief.end(&mut actions);
                                ended = true;
                            }
                        }
                    }
                    self.act(&mut actions).await?;
                    if ended {
                        self.connection.hub.drained(self.connection.seat.number);
                    }
                }
            }
        }
    }

    /// Does what the client wants. There is no answer, unless it wants too much.
    async fn hear(&mut self, message: WsMessage) -> Result<(), Over> {
        let text = match message {
            WsMessage::Text(text) => text,
            WsMessage::Close(_) => return Err(Over::ClientClosed),
            // Pings are answered by the socket itself.
            WsMessage::Binary(_) | WsMessage::Ping(_) | WsMessage::Pong(_) | WsMessage::Frame(_) => return Ok(()),
        };
        let Connection { hub, ledger, seat, mischief, .. } = &mut self.connection;
        let conn = seat.number;
        let request = serde_json::from_str(&text).ok();
        let Some(Request { kind, symbol: Some(symbol) }) = request else {
            tracing::debug!(conn, "a message that means nothing here");
            return Ok(());
        };
        match &*kind {
            "subscribe" => match hub.subscribe(conn, &symbol) {
                Subscribed::New => {
                    mischief.subscribed(&symbol);
                    ledger.note(Line::Sub { conn, symbol: &symbol, at_us: now_us() }).await;
                }
                Subscribed::Already => {}
                Subscribed::TooMany => self.send(vec![Some(Message::bad("error", TOO_MANY))]).await?,
            },
            "unsubscribe" => {
                if hub.unsubscribe(conn, &symbol) {
                    ledger.note(Line::Unsub { conn, symbol: &symbol, at_us: now_us() }).await;
                }
            }
            // News and press releases need a plan that nobody has here; the others are nothing.
            _ => tracing::debug!(conn, %kind, "a message that means nothing here"),
        }
        Ok(())
    }

    async fn act(&mut self, actions: &mut Vec<Action>) -> Result<(), Over> {
        let mut messages = Vec::with_capacity(actions.len());
        for action in actions.drain(..) {
            match action {
                Action::Send(message) => messages.push(Some(message)),
                Action::Repeat => messages.push(None),
                Action::Stall(time) => {
                    self.send(std::mem::take(&mut messages)).await?;
                    self.stall(time).await?;
                }
                Action::Drop { close_frame } => {
                    self.send(messages).await?;
                    return Err(Over::Dropped { close_frame });
                }
            }
        }
        self.send(messages).await
    }

    /// Writes messages to the ledger and then to the socket; `None` is the last trades once more.
    async fn send(&mut self, messages: Vec<Option<Message>>) -> Result<(), Over> {
        if messages.is_empty() {
            return Ok(());
        }
        let Connection { ledger, seat, .. } = &mut self.connection;
        let (conn, kept, at_us) = (seat.number, ledger.is_kept(), now_us());
        let mut lines = Vec::with_capacity(if kept { messages.len() * 512 } else { 0 });
        let (mut n, mut trades) = (self.n, 0);
        let mut wire = Vec::with_capacity(messages.len());
        for message in messages {
            n += 1;
            let (repeat_of, message) = match (message, &self.last_trades) {
                (Some(message), _) => (None, message),
                (None, Some((of, message))) => (Some(*of), message.clone()),
                (None, None) => unreachable!("a frame is sent before its repeat"),
            };
            if kept {
                let (text, base64) = match &message.body {
                    Body::Text(text) => (repeat_of.is_none().then_some(text.as_str()), None),
                    Body::Binary(bytes) => (None, Some(base64(bytes))),
                };
                let Message { what, trades, bad, .. } = message;
                Line::Frame { conn, n, at_us, what, trades, bad, repeat_of, text, base64 }.write(&mut lines);
            }
            trades += message.trades;
            wire.push(match &message.body {
                Body::Text(text) => WsMessage::Text(text.clone()),
                Body::Binary(bytes) => WsMessage::Binary(bytes.clone()),
            });
            if message.what == "trade" && repeat_of.is_none() {
                self.last_trades = Some((n, message));
            }
        }
        ledger.commit(lines).await.map_err(Over::Ledger)?;
        self.n = n;
        seat.counts.frames.store(n, Relaxed);
        seat.counts.trades.fetch_add(trades as u64, Relaxed);
        let socket = &mut self.socket;
        let write = async {
            for message in wire {
                socket.feed(message).await?;
            }
            socket.flush().await
        };
        seat.counts.writing(true);
        tokio::select! {
            biased;
            written = write => written.map_err(|error: WsError| Over::Lost(error.to_string()))?,
            Some(kick) = seat.kicks.recv() => return Err(Over::Kicked(kick)),
        }
        seat.counts.writing(false);
        self.flushed = n;
        Ok(())
    }

    /// Neither reads nor writes. Where the market goes on, what it shows meanwhile is lost.
    async fn stall(&mut self, time: Duration) -> Result<(), Over> {
        let until = Instant::now() + time;
        let Connection { hub, seat, market_goes_on, .. } = &mut self.connection;
        tracing::debug!(conn = seat.number, ?time, "fault: stall");
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                Some(kick) = seat.kicks.recv() => return Err(Over::Kicked(kick)),
                () = sleep_until(until) => break,
                Some(item) = seat.queue.recv(), if *market_goes_on => ended |= matches!(item, Item::End),
                () = sleep(LOOK) => {
                    let ready = self.socket.get_ref().ready(Interest::READABLE).now_or_never();
                    if ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed())) {
                        return Err(Over::ClientClosed);
                    }
                }
            }
        }
        if ended {
            hub.drained(seat.number);
        }
        Ok(())
    }
}

/// Ends the socket so that what was sent before still arrives: a socket that is simply dropped with
/// something unread takes it along.
async fn close(mut socket: WebSocketStream<TcpStream>, over: &Over) {
    let frame = match over {
        Over::Dropped { close_frame: false } | Over::Lost(_) | Over::Kicked(Kick::TooSlow) | Over::Ledger(_) => None,
        Over::ClientClosed => Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }),
        Over::Kicked(Kick::SecondConnection) => Some(CloseFrame { code: CloseCode::Policy, reason: "".into() }),
        Over::Dropped { close_frame: true } | Over::Kicked(Kick::Stopped) => {
            Some(CloseFrame { code: CloseCode::Away, reason: "".into() })
        }
    };
    let goodbye = async {
        match frame {
            Some(frame) => {
                socket.close(Some(frame)).await.ok();
                while let Some(Ok(_)) = socket.next().await {}
            }
            None => {
                let stream = socket.get_mut();
                stream.shutdown().await.ok();
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
            }
        }
    };
    // Whoever does not say goodbye in time is left.
    timeout(CLOSE_WITHIN, goodbye).await.ok();
}
