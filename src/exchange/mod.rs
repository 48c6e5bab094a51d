//! A server that speaks Finnhub's WebSocket protocol, for the demo, the tests and the benchmarks.
//!
//! It plays a recorded tape or a simulated market to whoever subscribes, makes the faults that it is
//! told to, and writes a ledger of all that it sends before it sends it, so that others can count
//! what arrived. It shares no code with the daemon, which cannot tell it from Finnhub.
//!
//! ```text
//! tape | market --> feeder --> hub --(a queue each)--> connection: mischief --> ledger --> socket
//! ```
//!
//! * `tape`, `market`, `tickers`, `prints`: where frames come from; `frame`: their text.
//! * `feeder`: gives them out in time. `hub`: who is connected and wants what.
//! * `server`: handshakes, keys, `GET /status`. `connection`: one client.
//! * `faults`: what shall go wrong, as written; `mischief`: does it; `mutation`: frames with a few bytes
//!   changed, and what they still mean. `ledger`: what was sent.
//!
//! After a restart with the same ledger, connections are numbered on; the tape begins anew.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

mod connection;
mod faults;
mod feeder;
mod frame;
mod hub;
mod ledger;
mod market;
mod mischief;
mod mutation;
mod prints;
mod server;
mod tape;
#[cfg(test)]
mod tests;
mod tickers;

pub use faults::{FAULTS_HELP, Faults, FaultsError, duration};
pub use hub::{ConnectionStatus, Status};
pub use market::Simulation;
pub use tape::symbols_of_tape;
pub use tickers::simulated_symbols;

use feeder::Feeder;
use hub::Hub;
use ledger::{Ledger, LedgerFailed};
use server::Desk;
use tape::Tape;

/// How often the log says how far things are.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How long the connections may take to end when the exchange stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What an exchange is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What to play.
    pub source: Source,
    /// How fast.
    pub speed: Speed,
    /// Where to write down what is sent.
    pub ledger: Option<PathBuf>,
    /// What shall go wrong.
    pub faults: Faults,
    /// Of the simulation and of the faults.
    pub seed: u64,
    /// The keys that are let in, each for one connection.
    pub keys: Vec<Key>,
    /// Symbols that a connection may have: Finnhub took 51 and refused the 52nd.
    pub max_symbols: usize,
    /// How often a connection is sent a ping.
    pub ping_every: Duration,
    /// Playing begins when nobody has subscribed to anything more for this long.
    pub quiet: Duration,
}

impl Options {
    /// Plays `source` at market speed to the key `demo`, on a free port of this machine.
    pub fn new(source: Source) -> Options {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            source,
            speed: Speed::Times(1.0),
            ledger: None,
            faults: Faults::default(),
            seed: 1,
            keys: vec![Key::new("demo")],
            max_symbols: 51,
            ping_every: Duration::from_secs(60),
            quiet: Duration::from_millis(300),
        }
    }
}

/// What is played.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Recorded frames, one a line, plain or gzip.
    Tape {
        /// The file.
        path: PathBuf,
        /// Whether the trades' times are moved so that the first is now.
        retime: bool,
    },
    /// A market that is made up.
    Simulation(Simulation),
}

/// How fast the market goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As its trades' times say, so many times as fast. It waits for nobody.
    Times(f64),
    /// As fast as the slowest connection takes it. It waits while nobody is subscribed.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Speed, String> {
        let times = text.parse().ok().filter(|times| (1e-3..=1e6).contains(times)).map(Speed::Times);
        let speed = if text == "max" { Some(Speed::Max) } else { times };
        speed.ok_or_else(|| format!("the speed is `{text}`, must be a number from 0.001 to 1000000, or `max`"))
    }
}

/// A client's key. It is compared and hashed, never shown.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// The key with this text.
    pub fn new(text: impl Into<String>) -> Key {
        Key(text.into())
    }

    fn is(&self, text: &str) -> bool {
        self.0 == text
    }

    /// The first half of its SHA-256, hexadecimal: what the ledger shows instead.
    pub fn hash(&self) -> String {
        Sha256::digest(&self.0)[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<String> for Key {
    fn from(text: String) -> Key {
        Key(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// What an exchange has done, when it stops.
#[derive(Clone, Debug)]
pub struct Summary {
    /// As `GET /status` would have said last.
    pub status: Status,
}

/// Why an exchange cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
    /// The tape's file.
    #[error("the tape {} cannot be read: {error}", path.display())]
    Tape {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line of the tape is not a frame.
    #[error("line {line} of the tape {} is not a frame: {fault}", path.display())]
    Line {
        /// The tape's path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// The tape holds no trade.
    #[error(
        "the tape {} has no frame with a trade in it: a tape has the text of one frame a line, plain or gzip",
        path.display()
    )]
    Empty {
        /// The tape's path.
        path: PathBuf,
    },
    /// The ledger's file. What cannot be written down is not sent.
    #[error("{0}")]
    Ledger(String),
}

/// Runs an exchange until `shutdown` completes. See [`Exchange`] to know its address.
pub async fn serve(options: Options, shutdown: impl Future<Output = ()>) -> Result<Summary, ExchangeError> {
    Exchange::bind(options).await?.run(shutdown).await
}

/// An exchange that listens but does not answer yet.
pub struct Exchange {
    listener: TcpListener,
    address: SocketAddr,
    desk: Arc<Desk>,
    feeder: Feeder,
    source: feeder::Source,
}

impl Exchange {
    /// Opens tape and ledger, and listens.
    pub async fn bind(options: Options) -> Result<Exchange, ExchangeError> {
        let Options { listen, source, speed, ledger, faults, seed, keys, max_symbols, ping_every, quiet } = options;
        let source = match source {
            Source::Tape { path, retime } => {
                if Tape::open(&path)?.next()?.is_none() {
                    return Err(ExchangeError::Empty { path });
                }
                feeder::Source::Tape { tape: Box::new(Tape::open(&path)?), retime }
            }
            Source::Simulation(simulation) => feeder::Source::Simulation { simulation, seed },
        };
        let (ledger, connections) = Ledger::open(ledger.as_deref())?;
        let refused = |error| ExchangeError::Listen { address: listen, error };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let hub = Arc::new(Hub::new(speed == Speed::Max, max_symbols, connections));
        let feeder = Feeder { hub: hub.clone(), ledger: ledger.clone(), speed, quiet };
        let refusals = Mutex::new(StdRng::seed_from_u64(seed));
        let desk = Arc::new(Desk { hub, ledger, keys, speed, faults, seed, ping_every, refusals });
        Ok(Exchange { listener, address, desk, feeder, source })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes; then ends the connections and the ledger. The end of a tape
    /// is no reason to stop: connections stay open, with pings.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Summary, ExchangeError> {
        let Exchange { listener, desk, feeder, source, .. } = self;
        let mut connections = JoinSet::new();
        let mut playing = Some(Box::pin(feeder.play(source)));
        let mut reports = interval(REPORT_EVERY);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reports.reset();
        tokio::pin!(shutdown);
        let outcome = loop {
            tokio::select! {
                () = &mut shutdown => break Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(desk.clone().serve(stream))),
                    Err(error) => {
                        // Out of file handles, most likely: those that are open must close first.
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(served) = connections.join_next() => {
                    if let Err(error) = served_well(served) {
                        break Err(error);
                    }
                }
                played = async { playing.as_mut().expect("only polled while it plays").await }, if playing.is_some() => {
                    playing = None;
                    if let Err(error) = played {
                        break Err(error);
                    }
                }
                _ = reports.tick() => report(&desk.hub.status()),
            }
        };
        drop(playing);
        desk.hub.stop();
        let ended = timeout(STOP_WITHIN, async { while connections.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::warn!("not all connections ended in time");
        }
        outcome?;
        desk.ledger.commit(Vec::new()).await.map_err(|error| ExchangeError::Ledger(error.to_string()))?;
        Ok(Summary { status: desk.hub.status() })
    }
}

fn served_well(served: Result<Result<(), LedgerFailed>, JoinError>) -> Result<(), ExchangeError> {
    match served {
        Ok(served) => served.map_err(|failed| ExchangeError::Ledger(failed.to_string())),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Ok(()),
    }
}

fn report(status: &Status) {
    let Status { connections, subscriptions, frames_sent, trades_sent, finished, .. } = status;
    tracing::info!(connections, subscriptions, frames_sent, trades_sent, finished, "exchange");
}
