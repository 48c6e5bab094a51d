//! Takes connections: tells WebSocket from plain HTTP, checks keys, refuses.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::prelude::*;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::connection::Connection;
use super::faults::Faults;
use super::feeder::now_us;
use super::hub::{Hub, Seat};
use super::ledger::{Ledger, LedgerFailed, Line};
use super::mischief::Mischief;
use super::{Key, Speed};

/// A client that has not said what it wants by then is left.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// No request has a longer head.
const MAX_HEAD: usize = 8192;

/// How long a newcomer waits for the other connection on its key to be gone. A client that closes and
/// comes again at once must not meet itself; real second connections were dropped within a second too.
const GRACE: Duration = Duration::from_millis(250);

/// What a client may write into the ledger by its `X-Request-Id`.
const MAX_REQUEST_ID: usize = 200;

/// What all connections are served with.
pub(super) struct Desk {
    pub(super) hub: Arc<Hub>,
    pub(super) ledger: Ledger,
    pub(super) keys: Vec<Key>,
    pub(super) speed: Speed,
    pub(super) faults: Faults,
    pub(super) seed: u64,
    pub(super) ping_every: Duration,
    /// For what is drawn by handshake and not by connection.
    pub(super) refusals: Mutex<StdRng>,
}

/// A client that was let in.
struct Guest {
    key: usize,
    request_id: Option<String>,
}

impl Desk {
    /// Serves one TCP connection to its end.
    pub(super) async fn serve(self: Arc<Desk>, mut stream: TcpStream) -> Result<(), LedgerFailed> {
        // Small frames are to be seen at once; without it they only come later.
        stream.set_nodelay(true).ok();
        let head = tokio::select! {
            head = timeout(HEAD_WITHIN, head(&stream)) => head,
            () = self.hub.stopped() => return Ok(()), // who says nothing must not hold up the end
        };
        let Ok(Some(head)) = head else { return Ok(()) };
        if !wants_upgrade(&head) {
            if let Err(error) = timeout(HEAD_WITHIN, self.answer(&mut stream, &head)).await.unwrap_or(Ok(())) {
                tracing::debug!(%error, "a request was not answered");
            }
            return Ok(());
        }
        let Some((guest, socket)) = self.shake_hands(stream).await else { return Ok(()) };
        let seat = self.seat(&guest).await;
        let key_hash = self.keys[guest.key].hash();
        let line =
            Line::Open { conn: seat.number, at_us: now_us(), key_hash: &key_hash, request_id: guest.request_id.as_deref() };
        self.ledger.note(line).await;
        let connection = Connection {
            hub: self.hub.clone(),
            ledger: self.ledger.clone(),
            mischief: Mischief::new(&self.faults, self.seed, seat.number),
            seat,
            market_goes_on: matches!(self.speed, Speed::Times(_)),
            ping_every: self.ping_every,
        };
        connection.serve(socket).await
    }

    async fn shake_hands(&self, stream: TcpStream) -> Option<(Guest, WebSocketStream<TcpStream>)> {
        let mut guest = None;
        #[expect(clippy::result_large_err, reason = "the WebSocket library wants it so")]
        let callback = |request: &Request, response: Response| match self.admit(request) {
            Ok(admitted) => {
                guest = Some(admitted);
                Ok(response)
            }
            Err(status) => {
                let mut refusal = ErrorResponse::new(Some(status.to_string()));
                *refusal.status_mut() = status;
                Err(refusal)
            }
        };
        match timeout(HEAD_WITHIN, accept_hdr_async(stream, callback)).await {
            Ok(Ok(socket)) => guest.map(|guest| (guest, socket)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "handshake refused");
                None
            }
            Err(_) => None,
        }
    }

    fn admit(&self, request: &Request) -> Result<Guest, StatusCode> {
        let probability = self.faults.probability("refuse");
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if probability > 0.0 && refusals.random_bool(probability) {
            return Err(StatusCode::from_u16(self.faults.refuse_status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE));
        }
        let query = request.uri().query().unwrap_or("");
        let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
        let key = token.and_then(|token| self.keys.iter().position(|key| key.is(token))).ok_or(StatusCode::UNAUTHORIZED)?;
        let request_id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Guest { key, request_id: request_id.map(|id| id.chars().take(MAX_REQUEST_ID).collect()) })
    }

    /// A seat; if somebody else holds the key and does not go, one that both will be thrown off.
    async fn seat(&self, guest: &Guest) -> Seat {
        let deadline = Instant::now() + GRACE;
        loop {
            match self.hub.join(guest.key, guest.request_id.as_deref()) {
                Ok(seat) => return seat,
                Err(occupant) if Instant::now() >= deadline => {
                    tracing::info!(occupant, "a second connection on a key: both are dropped");
                    return self.hub.collide(guest.key, guest.request_id.as_deref());
                }
                Err(_) => sleep(GRACE / 25).await,
            }
        }
    }

    /// Answers a plain request: `GET /status`.
    async fn answer(&self, stream: &mut TcpStream, head: &[u8]) -> std::io::Result<()> {
        stream.read_exact(&mut vec![0; head.len()]).await?; // it was only looked at
        let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let (status, body) = match line.strip_prefix(b"GET /status").and_then(<[u8]>::first) {
            Some(b' ' | b'?') => ("200 OK", serde_json::to_string(&self.hub.status())?),
            _ => ("404 Not Found", r#"{"error":"there is a WebSocket at /?token=KEY, and GET /status"}"#.to_owned()),
        };
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    }
}

/// The head of a request, which stays to be read.
async fn head(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_HEAD];
    loop {
        let length = stream.peek(&mut bytes).await.ok()?;
        let end = bytes[..length].windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            bytes.truncate(end + 4);
            return Some(bytes);
        }
        if length == 0 || length == MAX_HEAD {
            return None;
        }
        // What is there already is shown again at once: wait for the rest.
        sleep(Duration::from_millis(2)).await;
    }
}

fn wants_upgrade(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    text.lines().any(|line| line.strip_prefix("upgrade:").is_some_and(|value| value.trim() == "websocket"))
}
