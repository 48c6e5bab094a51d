//! The least HTTP that tests need to speak with a server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// One request on a connection of its own, by HTTP/1.0, whose answers come whole and in one piece. The
/// answer's status and body.
pub(crate) fn request(method: &str, url: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let (host, path) = url.strip_prefix("http://").context("http only")?.split_once('/').context("a path")?;
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&host.parse::<SocketAddr>()?, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{method} /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
    let status = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
    Ok((status, body.to_owned()))
}
