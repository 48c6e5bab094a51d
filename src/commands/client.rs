//! Asks a server on this machine: one GET, its answer as JSON.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Secret;

/// A server of our own on this machine answers sooner.
const WITHIN: Duration = Duration::from_secs(5);

/// The answer to `GET path`. One that is no success is an error, with what the server says.
pub async fn get(server: SocketAddr, path: &str, token: Option<&Secret>) -> Result<serde_json::Value> {
    timeout(WITHIN, ask(server, path, token)).await.with_context(|| format!("{server} does not answer within {WITHIN:?}"))?
}

async fn ask(server: SocketAddr, path: &str, token: Option<&Secret>) -> Result<serde_json::Value> {
    let mut stream = TcpStream::connect(server).await.with_context(|| format!("nobody listens on {server}"))?;
    let authorization = token.map_or(String::new(), |token| format!("Authorization: Bearer {}\r\n", token.reveal()));
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let Some(at) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        bail!("{server} does not speak HTTP");
    };
    let head = String::from_utf8_lossy(&answer[..at]);
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    let body = serde_json::from_slice::<serde_json::Value>(&answer[at + 4..]);
    match (status, body) {
        ("200", Ok(body)) => Ok(body),
        ("200", Err(_)) => bail!("what listens on {server} is no tickmint: {path} is not answered with JSON"),
        (status, Ok(body)) if body["error"].is_string() => {
            bail!("{server} answered {status}: {}", body["error"].as_str().unwrap_or_default())
        }
        (status, _) => bail!("what listens on {server} is no tickmint: {path} is answered with {status}"),
    }
}
