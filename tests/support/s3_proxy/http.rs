//! As much of HTTP/1.1 as a proxy needs that passes messages on byte by byte: where a message ends.
//!
//! A message is kept exactly as it came, chunk headers included, so that signatures of head and body (also
//! of `aws-chunked` ones) stay right.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// S3 itself takes 8 KiB of headers.
const LONGEST_HEAD: usize = 64 * 1024;

/// Start line and headers.
pub struct Head {
    bytes: Vec<u8>,
    text: String,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

/// A request or an answer, as it came.
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
    pub framing: Framing,
}

impl Head {
    fn new(bytes: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Self { bytes, text }
    }

    /// The n-th word of the start line.
    fn word(&self, n: usize) -> &str {
        self.text.split_whitespace().nth(n).unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.word(0)
    }

    /// Path and query, without percent encoding.
    pub fn target(&self) -> String {
        percent_decoded(self.word(1))
    }

    /// Of an answer.
    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|found| found.to_ascii_lowercase().contains(value))
    }

    fn request_framing(&self) -> Result<Framing> {
        Ok(self.stated_framing()?.unwrap_or(Framing::Length(0)))
    }

    /// The answer to HEAD, and some statuses, have no body, whatever the headers say.
    fn answer_framing(&self, method: &str) -> Result<Framing> {
        if method == "HEAD" || matches!(self.status(), 204 | 304) {
            return Ok(Framing::Length(0));
        }
        Ok(self.stated_framing()?.unwrap_or(Framing::UntilClosed))
    }

    fn stated_framing(&self) -> Result<Option<Framing>> {
        if self.says("transfer-encoding", "chunked") {
            return Ok(Some(Framing::Chunked));
        }
        let length = self.header("content-length").map(str::parse).transpose();
        Ok(length.map_err(|_| malformed("content-length"))?.map(Framing::Length))
    }
}

impl Message {
    /// After it the connection carries no other one.
    pub fn is_last(&self) -> bool {
        self.framing == Framing::UntilClosed || self.head.says("connection", "close")
    }

    /// The message as it came.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.bytes.as_slice(), &self.body].concat()
    }

    /// Head and half of the body.
    pub fn first_half(&self) -> Vec<u8> {
        [self.head.bytes.as_slice(), &self.body[..self.body.len() / 2]].concat()
    }
}

/// A connection, and what was read from it but belongs to the next message.
pub struct Connection<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Nothing has come that nobody asked for.
    pub fn is_clean(&self) -> bool {
        self.unread.is_empty()
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// A whole request; nothing when the client has closed the connection. A client that waits to be told
    /// to send its body is told so.
    pub async fn read_request(&mut self) -> Result<Option<Message>> {
        let Some(head) = self.read_head().await? else {
            return Ok(None);
        };
        let framing = head.request_framing()?;
        if head.says("expect", "100-continue") {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = self.read_body(framing).await?;
        Ok(Some(Message { head, body, framing }))
    }

    /// Sends a request and reads its answer. The server may answer before it has read all; then the rest
    /// is not sent, and the connection cannot be used again (`false`).
    pub async fn exchange(&mut self, method: &str, request: &[u8]) -> Result<(Message, bool)>
    where
        S: Send,
    {
        let (reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut answers = Connection { stream: tokio::io::join(reader, tokio::io::sink()), unread: Vec::new() };
        let mut is_sent = false;
        let answer = {
            let send = async {
                // A server that has said no already may have closed; its answer tells more than this error.
                is_sent = writer.write_all(request).await.is_ok() && writer.flush().await.is_ok();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = send => unreachable!("it never ends"),
                answer = answers.read_answer(method) => answer?,
            }
        };
        let is_reusable = is_sent && !answer.is_last() && answers.is_clean();
        Ok((answer, is_reusable))
    }

    async fn read_answer(&mut self, method: &str) -> Result<Message> {
        loop {
            let head = self.read_head().await?.ok_or(ErrorKind::UnexpectedEof)?;
            if !(100..200).contains(&head.status()) {
                let framing = head.answer_framing(method)?;
                let body = self.read_body(framing).await?;
                return Ok(Message { head, body, framing });
            }
        }
    }

    /// Reads on until the other side closes, and forgets what comes.
    pub async fn wait_until_closed(&mut self) {
        self.unread.clear();
        while self.fill().await.is_ok_and(|count| count > 0) {
            self.unread.clear();
        }
    }

    async fn read_head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.unread.split_off(at + 4);
                return Ok(Some(Head::new(std::mem::replace(&mut self.unread, rest))));
            }
            if self.unread.len() > LONGEST_HEAD {
                return Err(malformed("a head without an end"));
            }
            if self.fill().await? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    async fn read_body(&mut self, framing: Framing) -> Result<Vec<u8>> {
        match framing {
            Framing::Length(length) => self.read_exactly(length).await,
            Framing::Chunked => self.read_chunks().await,
            Framing::UntilClosed => {
                while self.fill().await? > 0 {}
                Ok(std::mem::take(&mut self.unread))
            }
        }
    }

    /// All chunks with their headers, and the trailers.
    async fn read_chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let text = String::from_utf8_lossy(&line);
            let size = text.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| malformed("a chunk's size"))?;
            body.extend(line);
            if size == 0 {
                break;
            }
            body.extend(self.read_exactly(size + 2).await?);
        }
        loop {
            let trailer = self.read_line().await?;
            let is_last = trailer == b"\r\n";
            body.extend(trailer);
            if is_last {
                return Ok(body);
            }
        }
    }

    async fn read_line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let rest = self.unread.split_off(at + 2);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            self.fill_or_fail().await?;
        }
    }

    async fn read_exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.unread.len() < length {
            self.fill_or_fail().await?;
        }
        let rest = self.unread.split_off(length);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    async fn fill_or_fail(&mut self) -> Result<()> {
        match self.fill().await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> Result<usize> {
        self.unread.reserve(16 * 1024);
        self.stream.read_buf(&mut self.unread).await
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not to be understood: {what}"))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            Some(_) | None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn requests_of(bytes: &[u8], piece: usize) -> Vec<Message> {
        let (mut client, server) = tokio::io::duplex(64);
        let bytes = bytes.to_vec();
        let sender = tokio::spawn(async move {
            for piece in bytes.chunks(piece) {
                client.write_all(piece).await.unwrap();
            }
            client.shutdown().await.unwrap();
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
        });
        let mut connection = Connection::new(server);
        let mut requests = Vec::new();
        while let Some(request) = connection.read_request().await.unwrap() {
            requests.push(request);
        }
        drop(connection);
        sender.await.unwrap();
        requests
    }

    #[tokio::test]
    async fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let put = "PUT /b/a%2Fb?x-id=PutObject HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
        let chunked = "PUT /b/k HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n\
                       5;chunk-signature=abc\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let get = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let all = [put, chunked, get];
        for piece in [1, 2, 3, 7, 64, 1000] {
            let requests = requests_of(all.concat().as_bytes(), piece).await;
            let bytes: Vec<_> = requests.iter().map(Message::bytes).collect();
            assert_eq!(bytes, all.map(|text| text.as_bytes().to_vec()));
            assert_eq!(requests[0].head.target(), "/b/a/b?x-id=PutObject");
            assert_eq!(requests.iter().map(Message::is_last).collect::<Vec<_>>(), [false, false, true]);
        }
    }

    #[tokio::test]
    async fn an_answer_to_head_has_no_body_and_interim_answers_are_passed_over() {
        let (near, mut far) = tokio::io::duplex(1024);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        let both = format!("HTTP/1.1 100 Continue\r\n\r\n{answer}");
        far.write_all(both.as_bytes()).await.unwrap();
        let (message, is_reusable) = Connection::new(near).exchange("HEAD", b"HEAD").await.unwrap();
        assert_eq!(message.bytes(), answer.as_bytes());
        assert!(is_reusable);
    }

    #[tokio::test]
    async fn a_server_may_answer_without_reading_all() {
        let (near, mut far) = tokio::io::duplex(16);
        let server = tokio::spawn(async move {
            far.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            far
        });
        let (message, is_reusable) = Connection::new(near).exchange("PUT", &[0; 1000]).await.unwrap();
        assert_eq!((message.head.status(), is_reusable), (403, false));
        server.await.unwrap();
    }

    #[test]
    fn what_is_not_percent_encoded_stays() {
        assert_eq!(percent_decoded("/b/%7Ea%2fb%zz%4"), "/b/~a/b%zz%4");
    }
}
