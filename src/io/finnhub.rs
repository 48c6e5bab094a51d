//! Finnhub's side of the socket: how to connect, what to say, what its answers mean.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::config::Secret;
use crate::domain::identity::SessionId;

/// A handshake has been seen to take over a minute; nobody waits that long here.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// The socket's read buffer: holds bursts of hundreds of frames.
const READ_BUFFER: usize = 128 << 10;

/// An open connection.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// 401: waiting does not help, but a key may be mended on the server's side.
    #[error("the key of {shard} was refused (401): check its file or variable in `feed.keys`")]
    KeyRefused {
        /// Whose key.
        shard: String,
    },
    /// The address makes no sense.
    #[error("`feed.url` is `{url}`: {reason}")]
    Address {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Anything that may be better soon.
    #[error("{0}")]
    Passing(String),
}

impl ConnectError {
    /// Whether trying again soon makes sense.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ConnectError::Passing(_))
    }
}

/// Opens a connection. The session's id goes along as `X-Request-Id`; the key is in the address and
/// in no error text.
pub async fn connect(url: &str, key: &Secret, session: SessionId, shard: &str, max_frame: usize) -> Result<Socket, ConnectError> {
    let address = |reason: String| ConnectError::Address { url: url.to_string(), reason };
    let mut request =
        with_token(url, key).into_client_request().map_err(|_| address("not an address as wss://ws.finnhub.io".to_string()))?;
    let agent = concat!("tickmint/", env!("CARGO_PKG_VERSION"));
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let id = HeaderValue::from_str(&session.to_string()).expect("a UUID is ASCII");
    request.headers_mut().insert("x-request-id", id);
    // Twice the limit: a frame that is somewhat too long is a quarantine record, not an outage.
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(max_frame.saturating_mul(2)))
        .max_frame_size(Some(max_frame.saturating_mul(2)));
    match timeout(CONNECT_WITHIN, connect_async_with_config(request, Some(config), true)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(meaning(&error, url, shard)),
        Err(_) => Err(not_reached(url, &format!("no answer within {CONNECT_WITHIN:?}"))),
    }
}

/// The address with the key. `wss://host?token=` is how Finnhub writes it; a path is added, since not
/// every server takes a request line without one.
fn with_token(url: &str, key: &Secret) -> String {
    let (base, query) = url.split_once('?').map_or((url, String::new()), |(base, query)| (base, format!("{query}&")));
    let host = base.split_once("://").map_or(base, |(_, rest)| rest);
    let slash = if host.contains('/') { "" } else { "/" };
    format!("{base}{slash}?{query}token={}", key.reveal())
}

fn meaning(error: &tungstenite::Error, url: &str, shard: &str) -> ConnectError {
    match error {
        tungstenite::Error::Http(response) if response.status() == StatusCode::UNAUTHORIZED => {
            ConnectError::KeyRefused { shard: shard.to_string() }
        }
        tungstenite::Error::Http(response) => not_reached(url, &format!("the server answered {}", response.status())),
        tungstenite::Error::Url(error) => ConnectError::Address { url: url.to_string(), reason: error.to_string() },
        other => not_reached(url, &other.to_string()),
    }
}

fn not_reached(url: &str, reason: &str) -> ConnectError {
    ConnectError::Passing(format!("`feed.url` is `{url}`, which is not reached ({reason})"))
}

/// Asks for a symbol's trades. There is no acknowledgement.
pub fn subscribe(symbol: &str) -> Message {
    Message::text(serde_json::json!({ "type": "subscribe", "symbol": symbol }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_has_a_path_and_the_key() {
        let key = Secret::new("k");
        assert_eq!(with_token("wss://ws.finnhub.io", &key), "wss://ws.finnhub.io/?token=k");
        assert_eq!(with_token("ws://127.0.0.1:9/feed?x=1", &key), "ws://127.0.0.1:9/feed?x=1&token=k");
    }

    #[test]
    fn what_the_server_answers_to_the_handshake_has_a_meaning() {
        let http = |status: u16| {
            let response = tungstenite::http::Response::builder().status(status).body(None).unwrap();
            meaning(&tungstenite::Error::Http(response.into()), "wss://x", "shard-1")
        };
        assert_eq!(http(401), ConnectError::KeyRefused { shard: "shard-1".into() });
        assert!(!http(401).is_retryable());
        for status in [200, 403, 429, 502, 524] {
            assert!(http(status).is_retryable(), "{status}");
            let text = http(status).to_string();
            assert!(text.contains("`feed.url` is `wss://x`") && text.contains(&status.to_string()), "{text}");
        }
    }

    #[tokio::test]
    async fn no_error_tells_the_key() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hang_up = async {
            loop {
                drop(listener.accept().await);
            }
        };
        let attempts = async {
            // A TLS client can be made here at all, and says what is wrong.
            for (url, retryable) in [
                (format!("wss://{address}"), true),
                (format!("ws://{address}"), true),
                ("ws://127.0.0.1:1".to_string(), true),
                (format!("http://{address}"), false),
                ("ws://".to_string(), false),
                ("nonsense".to_string(), false),
            ] {
                let error = connect(&url, &Secret::new("s3cret"), SessionId::generate(), "shard-1", 1000).await.unwrap_err();
                assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
                assert_eq!(error.is_retryable(), retryable, "{url}: {error}");
            }
        };
        tokio::select! {
            () = attempts => {}
            () = hang_up => {}
        }
    }

    #[test]
    fn a_subscription_is_as_finnhub_wants_it() {
        let text = subscribe("BINANCE:BTCUSDT").into_text().unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            serde_json::json!({"type": "subscribe", "symbol": "BINANCE:BTCUSDT"})
        );
    }
}
