//! What the outcome of a campaign is held against beside `verify`, which believes what the daemons say of their own ends:
//!
//! - what they acknowledged, by a witness outside of their folders;
//! - how old what they say they never received may be: not older than what made them deaf;
//! - what the lost disks held, record by record;
//! - the text and the columns of every trade, by an audit that shares nothing with ours.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use tickmint::audit::bronze;
use tickmint::audit::found::Found;
use tickmint::commands::block_on;
use tickmint::config::Config;
use tickmint::domain::entry::Content;
use tickmint::domain::identity::{Micros, SessionId};
use tickmint::domain::intervals::Intervals;
use tickmint::domain::stream::Stream;
use tickmint::io::s3::retention::Retention;
use tickmint::io::store::{self, Store};
use tickmint::spool::contents::{self, Item};
use tickmint::spool::logs;

use super::faults::{Campaign, LostDisk, Stall};
use super::rig::{A, B, Cluster, PARTITIONS};
use crate::support::python::python;
use crate::support::servers::or_skip;
use crate::support::witness::Witness;

/// What was received so long ago has been forwarded, whatever the campaign did to the brokers meanwhile.
const UNFORWARDED: Micros = 120_000_000;

/// What came so long before the end of a session is durable, if nothing held the daemon up: two busy cores may.
const DURABLE: Micros = 10_000_000;

/// More frames than these, a few seconds of them, do not come before the first answer.
const UNTOLD: u32 = 1000;

/// See the module.
#[derive(Default)]
pub(super) struct Outcome {
    /// Trades that the lost disks have, and nobody else.
    pub(super) on_lost_disks: u64,
    /// Slots of all chains: data, gap, end.
    pub(super) slots: [u64; 3],
    /// Trades that were sent to a session behind all that was durable of it; of these, those that were still on their way.
    pub(super) unreceived: [u64; 2],
    /// How long before the end of its session the first of them was sent, less what held the daemon up: at most so long.
    pub(super) oldest: Micros,
    /// What the other audit has counted.
    pub(super) content: Value,
    /// What must not be.
    pub(super) wrong: Vec<String>,
}

impl Outcome {
    /// Of a campaign that has come to its end.
    pub(super) fn of(campaign: &Campaign, symbols: &[String]) -> Outcome {
        let cluster = &campaign.cluster;
        let store = store::open(&Config::load_without_keys(&cluster.config(A)).unwrap().bronze.store).unwrap();
        let spools: Vec<_> = cluster.names().iter().map(|name| cluster.path(&format!("{name}/spool"))).collect();
        let spools: Vec<_> = spools.iter().map(PathBuf::as_path).collect();
        let mut found = block_on(bronze::read_all(&store, &spools, PARTITIONS, Retention::default())).unwrap().unwrap();
        let mut outcome = Outcome { slots: found.slots, ..Outcome::default() };
        campaign.disks_lost.iter().for_each(|lost| outcome.lost_disk(lost, &mut found));
        outcome.promises(cluster, &found);
        outcome.excuses(&cluster.path("ledger"), symbols, &campaign.stalls, &kept(&found));
        outcome.content(cluster, &store);
        outcome
    }

    /// What only this disk has; of its sessions it knows how far they got.
    fn lost_disk(&mut self, lost: &LostDisk, found: &mut Found) {
        let Some(held) = lost.spool.exists().then(|| logs::find(&lost.spool).unwrap()) else { return };
        let (mut old, mut damaged) = (0, 0);
        for (id, view) in &held.dead {
            let told = contents::read(lost.spool.join(id.to_string()), *id, view, |item| {
                let Item::Record(chain, record) = item else {
                    damaged += 1;
                    return;
                };
                let Content::Data { delivery, seq, .. } = record.content else { return };
                let seqs = found.sessions.get(&delivery.session).and_then(|count| count.seqs.get(&chain));
                if seqs.is_none_or(|seqs| !seqs.contains(seq)) {
                    self.on_lost_disks += u64::from(chain.stream == Stream::Trades);
                    old += u32::from(record.received_at < lost.at - UNFORWARDED);
                }
            });
            told.unwrap();
        }
        for (session, state) in &held.last.sessions {
            let count = found.sessions.entry(*session).or_default();
            count.living = count.living.max(Some(state.frames));
        }
        if old + damaged > 0 {
            let spool = lost.spool.display();
            self.wrong
                .push(format!("{spool}: {old} records had been there for minutes and are nowhere else, {damaged} are damaged"));
        }
    }

    /// What was acknowledged is there, and no session has more than its end tells of.
    fn promises(&mut self, cluster: &Cluster, found: &Found) {
        let told = cluster.names().iter().fold(Witness::default(), |told, name| told.read(&cluster.witness(name)));
        self.wrong.extend(told.broken_promises(found).into_iter().take(5));
        for (session, count) in &found.sessions {
            let (last, end) = (count.last(), count.end.as_ref().map(|end| end.frames));
            // The first ones may have been answered for when the daemon died, and not yet told of.
            if last > Some(UNTOLD) && !told.acknowledged.contains_key(session) {
                self.wrong.push(format!("session {session}: frame {last:?} is archived, and none was acknowledged"));
            }
            if end.is_some() && last > end {
                self.wrong.push(format!("session {session} ended with frame {end:?}, and {last:?} is archived"));
            }
        }
    }

    /// What was sent and is nowhere was sent at the very end of its session: what is older was durable by then, if nothing kept
    /// the daemon from reading.
    fn excuses(&mut self, ledger: &Path, symbols: &[String], stalls: &[Stall], kept: &BTreeMap<SessionId, u32>) {
        let connections = connections(ledger, kept);
        let key_of = |symbol: &str| {
            let mut first = connections.iter().filter(|(_, connection)| connection.symbols.iter().any(|of| of == symbol));
            first.next().map(|(_, connection)| connection.key.clone())
        };
        let daemons = [(key_of(&symbols[0]), A), (key_of(&symbols[symbols.len() / 2]), B)];
        for (number, connection) in &connections {
            if connection.session.is_none() {
                self.wrong.push(format!("connection {number} has no session"));
            }
            let daemon = daemons.iter().find(|(key, _)| key.as_deref() == Some(&connection.key)).map(|(_, name)| *name);
            self.unreceived[0] += connection.unreceived;
            self.unreceived[1] += connection.on_their_way;
            let Some((from, to)) = connection.oldest.zip(connection.closed) else { continue };
            let mut deaf = Intervals::default();
            for stall in stalls.iter().filter(|stall| Some(&*stall.daemon) == daemon) {
                let (first, last) = (stall.from.max(from), stall.to.map_or(to, |until| until.min(to)));
                if first < last {
                    deaf.insert_all(first as u64, last as u64);
                }
            }
            let deaf = deaf.len() as Micros;
            let before = to - from - deaf;
            self.oldest = self.oldest.max(before);
            if before > DURABLE {
                let (sent, deaf) = ((to - from) / 1000, deaf / 1000);
                self.wrong.push(format!(
                    "connection {number} of {daemon:?}: {} trades are nowhere, of which the first was sent {sent} ms before the end; the \
                     daemon was held up for {deaf} ms of them",
                    connection.unreceived
                ));
            }
        }
    }

    /// Every line and every row against what went over the wire.
    fn content(&mut self, cluster: &Cluster, store: &Arc<dyn Store>) {
        let Some(mut command) = or_skip(python("dbt")) else { return };
        let lake = cluster.path("copy-of-the-lake");
        block_on(download(store, &lake)).unwrap().unwrap();
        let output = command.arg("tests/oracle/content.py").arg(cluster.path("ledger")).arg(&lake).output().unwrap();
        let said = serde_json::from_slice(&output.stdout);
        self.content = said.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        if !output.status.success() {
            self.wrong.push(format!("the other audit says {}", self.content));
        }
    }
}

/// Of each session, up to which frame something durable tells of it.
fn kept(found: &Found) -> BTreeMap<SessionId, u32> {
    let mut kept = BTreeMap::<_, u32>::new();
    let of_sessions = found.sessions.iter().filter_map(|(session, count)| Some((*session, count.told().max(count.last())?)));
    let of_gaps = found.gaps.iter().map(|gap| (gap.previous_session, gap.last_frame));
    for (session, frame) in of_sessions.chain(of_gaps) {
        let most = kept.entry(session).or_default();
        *most = (*most).max(frame);
    }
    kept
}

/// A connection, as the ledger has it.
#[derive(Default)]
struct Connection {
    session: Option<SessionId>,
    key: String,
    symbols: Vec<String>,
    /// When the exchange found it over.
    closed: Option<Micros>,
    /// By frame, how many trades were sent behind all that is kept.
    behind: Vec<(u32, u64)>,
    /// The sum of these; and of those that the network had not taken.
    unreceived: u64,
    on_their_way: u64,
    /// When the first of them was sent.
    oldest: Option<Micros>,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line {
    Open {
        conn: u64,
        key_hash: String,
        request_id: Option<String>,
    },
    Sub {
        conn: u64,
        symbol: String,
    },
    Frame {
        conn: u64,
        n: u32,
        at_us: Micros,
        trades: u64,
    },
    Close {
        conn: u64,
        flushed: u32,
        at_us: Micros,
    },
    #[serde(other)]
    Other,
}

fn connections(ledger: &Path, kept: &BTreeMap<SessionId, u32>) -> BTreeMap<u64, Connection> {
    let mut connections = BTreeMap::<u64, Connection>::new();
    for line in std::io::BufReader::new(std::fs::File::open(ledger).unwrap()).lines() {
        match serde_json::from_str(&line.unwrap()).unwrap() {
            Line::Open { conn, key_hash, request_id } => {
                let of = connections.entry(conn).or_default();
                (of.key, of.session) = (key_hash, request_id.and_then(|id| id.parse().ok()));
            }
            Line::Sub { conn, symbol } => connections.entry(conn).or_default().symbols.push(symbol),
            Line::Frame { conn, n, at_us, trades } => {
                let of = connections.entry(conn).or_default();
                let kept = of.session.and_then(|session| kept.get(&session)).copied().unwrap_or(0);
                if n > kept && trades > 0 {
                    of.oldest.get_or_insert(at_us);
                    of.unreceived += trades;
                    of.behind.push((n, trades));
                }
            }
            Line::Close { conn, flushed, at_us } => {
                let of = connections.entry(conn).or_default();
                of.closed = Some(at_us);
                of.on_their_way = of.behind.drain(..).filter(|(n, _)| *n > flushed).map(|(_, trades)| trades).sum();
            }
            Line::Other => {}
        }
    }
    connections
}

/// A copy of the lake in a folder.
async fn download(store: &Arc<dyn Store>, lake: &Path) -> std::io::Result<()> {
    for prefix in ["_commit/", "bronze/"] {
        for key in store.list(prefix).await.map_err(std::io::Error::other)? {
            let bytes = store.get(&key).await.map_err(std::io::Error::other)?.unwrap_or_else(|| panic!("{key} is gone"));
            let path = lake.join(key);
            std::fs::create_dir_all(path.parent().unwrap())?;
            std::fs::write(path, bytes)?;
        }
    }
    Ok(())
}
