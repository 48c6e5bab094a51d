//! An S3 server whose network and front end fail on command: a proxy in front of a real one.
//!
//! ```text
//! let proxy = S3Proxy::start(minio.endpoint())?;              // the client is given proxy.endpoint()
//! proxy.inject(Rule::times(2, Fault::CarryOutThen(Reply::INTERNAL_ERROR)).method("PUT").path("_commit/"));
//! ```
//!
//! Every message goes through byte by byte, `Host` included: the client signs for the proxy's address, and
//! MinIO and SeaweedFS check the signature against the `Host` that they are shown. A request is read whole
//! before it is passed on, so it reaches the server whole or not at all, and also after its sender is gone.
//!
//! The proxy runs in a thread of its own, with its own clock: it also serves a test whose clock is paused.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

#[path = "s3_proxy/http.rs"]
mod http;
#[cfg(test)]
#[path = "s3_proxy/tests.rs"]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use http::Connection;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server never hears of it; the client gets this answer.
    Refuse(Reply),
    /// The server carries it out, and its answer is replaced by this one.
    CarryOutThen(Reply),
    /// The client waits for an answer until it gives up.
    NoAnswer { carried_out: bool },
    /// The client's connection is reset.
    Reset { carried_out: bool },
    /// The server carries it out; the connection closes in the middle of the answer's body.
    CutAnswer,
    /// The server carries it out; the answer comes so much later.
    Slow(Duration),
    /// Held back until [`S3Proxy::release`], then carried out, whether or not the client still waits: so a
    /// request arrives long after its sender has crashed.
    Hold,
}

/// An answer that S3 gives in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub code: &'static str,
}

impl Reply {
    pub const FORBIDDEN: Self = Self { status: 403, code: "AccessDenied" };
    pub const SLOW_DOWN: Self = Self { status: 503, code: "SlowDown" };
    pub const INTERNAL_ERROR: Self = Self { status: 500, code: "InternalError" };
    /// Another conditional request for this name is being carried out: to be sent again.
    pub const CONFLICT: Self = Self { status: 409, code: "ConditionalRequestConflict" };

    fn bytes(self, method: &str) -> Vec<u8> {
        let Self { status, code } = self;
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>injected by the test</Message><RequestId>0</RequestId></Error>"
        );
        let length = body.len();
        let head = format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\n\r\n");
        if method == "HEAD" { head.into_bytes() } else { (head + &body).into_bytes() }
    }
}

/// Which requests suffer the fault. Of several rules that match, the oldest is applied.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    method: Option<&'static str>,
    path: String,
    after: usize,
    times: usize,
}

impl Rule {
    /// The first request that matches.
    pub fn once(fault: Fault) -> Self {
        Self::times(1, fault)
    }

    /// The first so many that match.
    pub fn times(times: usize, fault: Fault) -> Self {
        Self { fault, method: None, path: String::new(), after: 0, times }
    }

    /// All that match, until [`S3Proxy::clear`].
    pub fn always(fault: Fault) -> Self {
        Self::times(usize::MAX, fault)
    }

    #[must_use]
    pub fn method(self, method: &'static str) -> Self {
        Self { method: Some(method), ..self }
    }

    /// Those with this text in path or query, which are compared without percent encoding
    /// (`/bucket/_commit/trades/p0/...`, `/bucket/?list-type=2&prefix=_commit/...`).
    #[must_use]
    pub fn path(self, part: &str) -> Self {
        Self { path: part.to_owned(), ..self }
    }

    /// Leaves out the first so many that match.
    #[must_use]
    pub fn after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    /// Counts the request if it matches, and says whether the fault is its.
    fn applies_to(&mut self, method: &str, target: &str) -> bool {
        let matches = self.method.is_none_or(|wanted| wanted == method) && target.contains(&self.path);
        if !matches || self.times == 0 {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

/// A request that the proxy has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Path and query, without percent encoding.
    pub target: String,
    pub fault: Option<Fault>,
    /// What the server answered; nothing yet, or it was never asked.
    pub answer: Option<u16>,
}

/// What the connections share with the test.
#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    /// In the order of arrival.
    seen: watch::Sender<Vec<Seen>>,
    /// How often the held requests were let go.
    releases: watch::Sender<u64>,
}

/// The running proxy. Ends with this value, and with it all its connections.
pub struct S3Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl S3Proxy {
    /// In front of `upstream`, which is an address like `http://127.0.0.1:9000`.
    pub fn start(upstream: &str) -> anyhow::Result<Self> {
        let upstream: SocketAddr = upstream
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .with_context(|| format!("`{upstream}` is not http://ADDRESS:PORT"))?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let accepts = {
            let shared = Arc::clone(&shared);
            async move {
                let listener = TcpListener::from_std(listener).expect("a listening socket");
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(client, upstream, Arc::clone(&shared)));
                }
            }
        };
        let thread = std::thread::Builder::new().name("s3-proxy".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accepts => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Where the client finds the S3 server.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on.
    pub fn inject(&self, rule: Rule) {
        self.shared.rules().push(rule);
    }

    /// Nothing goes wrong any more with requests that arrive from now on. What is held stays held.
    pub fn clear(&self) {
        self.shared.rules().clear();
    }

    /// Lets all requests go that are held now.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// All requests so far, in the order in which they arrived.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.borrow().clone()
    }

    /// Waits until the requests so far are such. Looks at each change.
    pub async fn wait_until(&self, are_such: impl Fn(&[Seen]) -> bool) {
        let mut seen = self.shared.seen.subscribe();
        seen.wait_for(|seen| are_such(seen)).await.expect("the proxy holds the other end");
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the S3 proxy panicked");
        }
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has arrived whole. Its number, and what shall go wrong.
    fn arrived(&self, method: &str, target: &str) -> (usize, Option<Fault>) {
        let fault = {
            let mut rules = self.rules();
            let mut rules = rules.iter_mut();
            rules.find_map(|rule| rule.applies_to(method, target).then_some(rule.fault))
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut number = 0;
        self.seen.send_modify(|seen| {
            number = seen.len();
            seen.push(Seen { method, target, fault, answer: None });
        });
        (number, fault)
    }

    fn answered(&self, number: usize, status: u16) {
        self.seen.send_modify(|seen| seen[number].answer = Some(status));
    }

    async fn released(&self) {
        let mut releases = self.releases.subscribe();
        let before = *releases.borrow();
        // It fails only with the proxy's end.
        drop(releases.wait_for(|now| *now > before).await);
    }
}

/// One client's connection. Where its end is not a regular one, the client sees a reset, as it would of a
/// server that has died.
async fn serve(client: TcpStream, upstream: SocketAddr, shared: Arc<Shared>) {
    let mut client = Connection::new(client);
    let mut server = Upstream { address: upstream, idle: None };
    if serve_requests(&mut client, &mut server, &shared).await.is_err() {
        reset(&client);
    }
}

async fn serve_requests(client: &mut Connection<TcpStream>, server: &mut Upstream, shared: &Shared) -> std::io::Result<()> {
    client.stream().set_nodelay(true)?;
    while let Some(request) = client.read_request().await? {
        let method = request.head.method();
        let (number, fault) = shared.arrived(method, &request.head.target());
        if fault == Some(Fault::Hold) {
            shared.released().await;
        }
        let is_carried_out = match fault {
            Some(Fault::Refuse(_)) => false,
            Some(Fault::NoAnswer { carried_out } | Fault::Reset { carried_out }) => carried_out,
            Some(Fault::CarryOutThen(_) | Fault::CutAnswer | Fault::Slow(_) | Fault::Hold) | None => true,
        };
        let mut answer = None;
        if is_carried_out {
            let from_server = server.carry_out(method, &request.bytes()).await?;
            shared.answered(number, from_server.head.status());
            answer = Some(from_server);
        }
        match (fault, &answer) {
            (Some(Fault::Refuse(reply) | Fault::CarryOutThen(reply)), _) => {
                client.write(&reply.bytes(method)).await?;
            }
            (Some(Fault::NoAnswer { .. }), _) => {
                client.wait_until_closed().await;
                return Ok(());
            }
            (Some(Fault::CutAnswer), Some(answer)) => {
                return client.write(&answer.first_half()).await;
            }
            (Some(Fault::Slow(delay)), Some(answer)) => {
                tokio::time::sleep(delay).await;
                client.write(&answer.bytes()).await?;
            }
            (Some(Fault::Hold) | None, Some(answer)) => client.write(&answer.bytes()).await?,
            (Some(Fault::Reset { .. }), _) | (_, None) => {
                reset(client);
                return Ok(());
            }
        }
        if request.is_last() || answer.is_some_and(|answer| answer.is_last()) {
            return Ok(());
        }
    }
    Ok(())
}

/// When the connection is dropped next, the client gets a reset instead of a regular end.
fn reset(client: &Connection<TcpStream>) {
    if let Err(error) = client.stream().set_zero_linger() {
        eprintln!("the S3 proxy cannot reset a connection: {error}");
    }
}

/// The real server, and the connection to it that the client's next request may use.
struct Upstream {
    address: SocketAddr,
    idle: Option<Connection<TcpStream>>,
}

impl Upstream {
    /// Nothing is sent twice: what the server may have got already is the client's to decide.
    async fn carry_out(&mut self, method: &str, request: &[u8]) -> std::io::Result<http::Message> {
        let mut connection = match self.idle.take().filter(is_open) {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                Connection::new(stream)
            }
        };
        let (answer, is_reusable) = connection.exchange(method, request).await?;
        self.idle = is_reusable.then_some(connection);
        Ok(answer)
    }
}

/// The server has neither closed it nor sent anything unasked.
fn is_open(connection: &Connection<TcpStream>) -> bool {
    let outcome = connection.stream().try_read(&mut [0]);
    outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
