//! What the campaign does to a running cluster, and takes back later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::Offset;
use tickmint::config::KafkaConfig;
use tickmint::domain::identity::Micros;
use tickmint::domain::stream::Stream;
use tickmint::io::kafka::topics::Topics;

use super::rig::{A, B, Cluster, PARTITIONS, PATIENCE};
use crate::pipeline::rig::{Process, end, pause, signal};
use crate::support::disk::SmallDisk;
use crate::support::s3_proxy::{Fault, Reply, Rule};
use crate::support::witness::Witness;

/// One that archives only, and comes and goes.
const HELPER: &str = "helper";
/// Each keeps a spool that is audited in the end.
const CLONES: u32 = 3;
/// The key of the first clone: two daemons with one key would turn each other away.
const FIRST_KEY_OF_CLONES: u32 = 3;

/// What can be done, and how often among others.
#[rustfmt::skip]
const KINDS: &[(Kind, u32)] = &[
    (Kind::Kill, 16), (Kind::Power, 8), (Kind::Stop, 10), (Kind::Leave, 4), (Kind::Join, 4), (Kind::Broker, 10), (Kind::TwoBrokers, 4),
    (Kind::Leaders, 3), (Kind::Store, 28), (Kind::Registry, 4), (Kind::DiskFull, 4), (Kind::Topic, 4), (Kind::Retention, 6),
    (Kind::Clone, 1), (Kind::DiskLost, 2),
];

/// See [`Campaign::strike`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Kill,
    Power,
    Stop,
    Leave,
    Join,
    Broker,
    TwoBrokers,
    Leaders,
    Store,
    Registry,
    DiskFull,
    Topic,
    Retention,
    Clone,
    DiskLost,
}

/// How a fault ends.
enum Undo {
    Continue(String),
    Part(String),
    StartBroker(usize),
    ClearStore,
    StartRegistry,
    MakeRoom(PathBuf),
}

/// While a daemon could not take what it was sent.
pub(super) struct Stall {
    pub(super) daemon: String,
    pub(super) from: Micros,
    /// None as long as it lasts.
    pub(super) to: Option<Micros>,
}

/// The disk of B as it was when it was lost.
pub(super) struct LostDisk {
    pub(super) at: Micros,
    pub(super) spool: PathBuf,
}

/// A daemon's process.
struct Life {
    process: Process,
    is_stopped: bool,
}

/// A cluster, and what was done to it.
pub(super) struct Campaign {
    lives: BTreeMap<String, Life>,
    /// Under the spool of A; none where this machine has none to show.
    disk: Option<SmallDisk>,
    pub(super) cluster: Cluster,
    random: StdRng,
    kinds: Vec<(Kind, u32)>,
    undo: Vec<(Instant, Kind, Undo)>,
    /// How often what was done.
    pub(super) done: BTreeMap<Kind, u32>,
    /// When the trouble of each fault was over: its cause, not its effects.
    pub(super) over: Vec<(Kind, Micros)>,
    /// Daemons that ended by themselves, and how: they begin again, as a service would.
    pub(super) gave_up: Vec<String>,
    pub(super) disks_lost: Vec<LostDisk>,
    pub(super) stalls: Vec<Stall>,
    /// Bytes that no fsync had reached when the power failed.
    pub(super) unsynced: u64,
    clones: u32,
}

impl Campaign {
    /// All daemons run. `only` leaves kinds out that it does not name; empty, none.
    pub(super) fn begin(cluster: Cluster, seed: u64, only: &str) -> Campaign {
        let is_meant =
            |kind: Kind| only.is_empty() || only.split(',').any(|name| name.eq_ignore_ascii_case(&format!("{kind:?}")));
        let disk = SmallDisk::mount(&cluster.path("a/spool"), 128).ok().filter(|disk| disk.within().is_empty());
        let mut campaign = Campaign {
            kinds: KINDS.iter().copied().filter(|(kind, _)| is_meant(*kind)).collect(),
            random: StdRng::seed_from_u64(seed),
            lives: BTreeMap::new(),
            disk,
            undo: Vec::new(),
            done: BTreeMap::new(),
            over: Vec::new(),
            gave_up: Vec::new(),
            disks_lost: Vec::new(),
            stalls: Vec::new(),
            unsynced: 0,
            clones: 0,
            cluster,
        };
        assert!(!campaign.kinds.is_empty(), "no fault is called `{only}`");
        campaign.live(A);
        campaign.live(B);
        campaign
    }

    /// A new life of a daemon; one that runs is killed before.
    fn live(&mut self, name: &str) {
        self.lives.remove(name);
        self.goes_on(name);
        println!("{} {name} begins", jiff::Timestamp::now());
        let witness = self.cluster.witness(name).to_str().unwrap().to_string();
        let process = self.cluster.daemon_with(name, &[("TICKMINT_WITNESS", witness)]);
        self.lives.insert(name.to_string(), Life { process, is_stopped: false });
    }

    /// How long nothing more is done.
    pub(super) fn breath(&mut self) -> Duration {
        Duration::from_millis(self.random.random_range(500..7500))
    }

    /// Ends what is due, and starts again who gave up.
    pub(super) fn attend(&mut self, is_all_due: bool) {
        let now = Instant::now();
        let (due, later): (Vec<_>, _) = self.undo.drain(..).partition(|(when, _, _)| is_all_due || *when <= now);
        self.undo = later;
        for (_, kind, undo) in due {
            self.take_back(undo);
            println!("{} {kind:?} is over", jiff::Timestamp::now());
            self.over.push((kind, tickmint::clock::now()));
        }
        self.start_again();
    }

    /// Starts those again who gave up, as a service would.
    fn start_again(&mut self) {
        let ended = |life: &mut Life| life.process.0.try_wait().unwrap();
        let gone: Vec<_> = self.lives.iter_mut().filter_map(|(name, life)| Some((name.clone(), ended(life)?))).collect();
        for (name, status) in gone {
            let log = self.cluster.log(&name);
            self.gave_up.push(format!("{name}: {status}: {}", log.lines().last().unwrap_or_default()));
            self.live(&name);
        }
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Continue(name) => {
                self.goes_on(&name);
                if let Some(life) = self.lives.get_mut(&name).filter(|life| life.is_stopped) {
                    signal("-CONT", life.process.0.id());
                    life.is_stopped = false;
                }
            }
            Undo::Part(name) => {
                if let Some(mut life) = self.lives.remove(&name) {
                    end(&mut life.process);
                }
            }
            Undo::StartBroker(node) => self.cluster.kafka.start_again(node),
            Undo::ClearStore => self.cluster.store.clear(),
            Undo::StartRegistry => self.cluster.registry.as_mut().unwrap().start_again(),
            Undo::MakeRoom(path) => {
                std::fs::remove_file(path).unwrap();
                self.goes_on(A);
            }
        }
    }

    /// Does one thing of all that can be done now.
    pub(super) fn strike(&mut self) {
        let kind = self.kinds.choose_weighted(&mut self.random, |(_, weight)| *weight).unwrap().0;
        if self.try_to(kind) {
            *self.done.entry(kind).or_default() += 1;
            println!("{} {kind:?}", jiff::Timestamp::now());
        }
    }

    /// Whether it could be done.
    fn try_to(&mut self, kind: Kind) -> bool {
        let name = [A, B].choose(&mut self.random).copied().unwrap();
        let is_stopped = self.lives[name].is_stopped;
        match kind {
            Kind::Kill => self.live(name),
            Kind::Power => {
                self.lives.remove(name);
                self.cut_power(name);
                self.live(name);
            }
            Kind::Stop => {
                if is_stopped {
                    return false;
                }
                signal("-STOP", self.lives[name].process.0.id());
                self.lives.get_mut(name).unwrap().is_stopped = true;
                let seconds = self.random.random_range(5..40);
                self.stalls(name);
                self.later(kind, seconds * 1000, Undo::Continue(name.into()));
                return true;
            }
            Kind::Leave => {
                // On a full disk a session's end waits for room, and so would this test.
                let is_full = self.undo.iter().any(|(_, _, undo)| matches!(undo, Undo::MakeRoom(_)));
                if is_stopped || name == A && is_full {
                    return false;
                }
                end(&mut self.lives.get_mut(name).unwrap().process);
                self.live(name);
            }
            Kind::Join => {
                if self.lives.contains_key(HELPER) {
                    return false;
                }
                self.cluster.configure(HELPER, None);
                self.live(HELPER);
                let millis = self.random.random_range(3000..15_000);
                self.later(kind, millis, Undo::Part(HELPER.into()));
                return true;
            }
            Kind::Broker => return self.kill_brokers(kind, 1),
            Kind::TwoBrokers => return self.kill_brokers(kind, 2),
            Kind::Leaders => {
                if self.has_dead_brokers() || !self.cluster.kafka.elect_preferred_leaders() {
                    return false;
                }
            }
            Kind::Store => {
                let (rule, millis) = store_fault(&mut self.random);
                self.cluster.store.inject(rule);
                self.later(kind, millis, Undo::ClearStore);
                return true;
            }
            Kind::Registry => {
                let is_down = self.undo.iter().any(|(_, _, undo)| matches!(undo, Undo::StartRegistry));
                let Some(registry) = self.cluster.registry.as_mut().filter(|_| !is_down) else { return false };
                registry.stop();
                let millis = self.random.random_range(500..6000);
                self.later(kind, millis, Undo::StartRegistry);
                return true;
            }
            Kind::DiskFull => {
                let is_full = self.undo.iter().any(|(_, _, undo)| matches!(undo, Undo::MakeRoom(_)));
                let Some(disk) = self.disk.as_ref().filter(|_| !is_full) else { return false };
                let filler = disk.fill();
                let millis = self.random.random_range(1000..5000);
                self.stalls(A);
                self.later(kind, millis, Undo::MakeRoom(filler));
                return true;
            }
            Kind::Topic | Kind::Retention if self.has_dead_brokers() => return false,
            Kind::Topic => {
                let stream = *Stream::ALL.choose(&mut self.random).unwrap();
                let pause = Duration::from_millis(self.random.random_range(0..3000));
                tickmint::commands::block_on(recreate(&self.cluster.kafka_config(), stream, pause)).unwrap();
            }
            Kind::Retention => {
                // In half of them nobody has what was acknowledged and is not archived: it must come from the spools again.
                let is_read = self.random.random_bool(0.5);
                let one = self.random.random_range(0..PARTITIONS);
                if !is_read {
                    self.lives.remove(A);
                    self.lives.remove(B);
                }
                let partitions = if is_read { one..one + 1 } else { 0..PARTITIONS };
                let is_done = tickmint::commands::block_on(expire(&self.cluster.kafka_config(), partitions)).unwrap().unwrap();
                if !is_read {
                    self.live(A);
                    self.live(B);
                }
                return is_done && self.is_over(kind);
            }
            Kind::Clone => return self.clone_disk(),
            Kind::DiskLost => {
                self.lives.remove(B);
                let lost = self.cluster.path(&format!("lost-{}", self.disks_lost.len()));
                std::fs::rename(self.cluster.path(B), &lost).unwrap();
                self.disks_lost.push(LostDisk { at: tickmint::clock::now(), spool: lost.join("spool") });
                self.live(B);
            }
        }
        self.is_over(kind)
    }

    /// Of the spool of a dead daemon that is left which an fsync had reached.
    fn cut_power(&mut self, name: &str) {
        let told = Witness::default().read(&self.cluster.witness(name));
        self.unsynced += told.cut_power(&self.cluster.path(&format!("{name}/spool")));
    }

    /// The trouble ends with what was done.
    fn is_over(&mut self, kind: Kind) -> bool {
        self.over.push((kind, tickmint::clock::now()));
        true
    }

    /// From now on it takes nothing.
    fn stalls(&mut self, name: &str) {
        self.stalls.push(Stall { daemon: name.to_string(), from: tickmint::clock::now(), to: None });
    }

    /// It takes again what it is sent, or is dead.
    fn goes_on(&mut self, name: &str) {
        let lasting = self.stalls.iter_mut().filter(|stall| stall.daemon == name && stall.to.is_none());
        lasting.for_each(|stall| stall.to = Some(tickmint::clock::now()));
    }

    fn later(&mut self, kind: Kind, millis: u64, undo: Undo) {
        self.undo.push((Instant::now() + Duration::from_millis(millis), kind, undo));
    }

    fn has_dead_brokers(&self) -> bool {
        self.undo.iter().any(|(_, _, undo)| matches!(undo, Undo::StartBroker(_)))
    }

    /// Kills so many, if none is down.
    fn kill_brokers(&mut self, kind: Kind, count: usize) -> bool {
        if self.has_dead_brokers() {
            return false;
        }
        let first = self.random.random_range(0..3);
        let pause = self.random.random_range(0..4000);
        for node in (0..count).map(|n| (first + n) % 3 + 1) {
            self.cluster.kafka.kill(node);
            self.later(kind, pause, Undo::StartBroker(node));
        }
        true
    }

    /// Of B, which dies for it: both begin at the same place, and stream the same symbols.
    fn clone_disk(&mut self) -> bool {
        if self.clones == CLONES || !self.cluster.has_spool(B) {
            return false;
        }
        let (name, key) = (format!("clone-{}", self.clones), FIRST_KEY_OF_CLONES + self.clones);
        self.clones += 1;
        self.lives.remove(B);
        self.cut_power(B); // else the copy may have what B loses
        copy(&self.cluster.path(B), &self.cluster.path(&name));
        self.cluster.configure(&name, Some((key, 10..20)));
        self.live(B);
        self.live(&name);
        let millis = self.random.random_range(4000..15_000);
        self.later(Kind::Clone, millis, Undo::Part(name));
        true
    }

    /// Ends all trouble, waits until all that is on any disk is archived, and ends all daemons.
    pub(super) fn settle(&mut self) {
        self.attend(true);
        self.cluster.end_exchange();
        for name in self.cluster.names() {
            if !self.lives.contains_key(&name) && self.cluster.has_spool(&name) {
                self.live(&name);
            }
        }
        let until = Instant::now() + PATIENCE;
        loop {
            self.start_again();
            let uncovered = |name: &String| self.cluster.metric(name, "tickmint_forward_uncovered");
            let waits: Vec<_> = self.lives.keys().map(|name| (name, uncovered(name))).filter(|of| of.1 != Some(0.0)).collect();
            if waits.is_empty() {
                break;
            }
            if Instant::now() > until {
                let reason = format!("chaos FAILED: not archived within {PATIENCE:?}: {waits:?}; gave up: {:?}", self.gave_up);
                crate::support::summary(&reason);
                let brokers = self.cluster.kafka.describe(&self.cluster.kafka_config().group);
                panic!("{}\n{brokers}\n{reason}", self.cluster.logs());
            }
            pause(Duration::from_millis(200));
        }
        for (name, mut life) in std::mem::take(&mut self.lives) {
            assert_eq!(end(&mut life.process), Some(0), "{name}\n{}", self.cluster.logs());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

/// What the bucket does for a while, by which requests, and for how many milliseconds at most.
fn store_fault(random: &mut StdRng) -> (Rule, u64) {
    let fault = [
        Fault::Refuse(Reply::SLOW_DOWN),
        Fault::CarryOutThen(Reply::INTERNAL_ERROR),
        Fault::CarryOutThen(Reply::SLOW_DOWN),
        Fault::Refuse(Reply::CONFLICT),
        Fault::CarryOutThen(Reply::CONFLICT),
        Fault::Reset { carried_out: false },
        Fault::Reset { carried_out: true },
        Fault::CutAnswer,
        Fault::Slow(Duration::from_secs(3)),
        Fault::NoAnswer { carried_out: true },
    ];
    let times = random.random_range(1..12);
    let rule = Rule::times(times, *fault.choose(random).unwrap());
    let path = *["", "", "_commit/", "raw/", "typed/"].choose(random).unwrap();
    let rule = if random.random_bool(0.6) { rule.method("PUT") } else { rule };
    (rule.path(path), random.random_range(1000..6000))
}

pub(super) fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    rdkafka::ClientConfig::new().set("bootstrap.servers", config.brokers.join(",")).create().unwrap()
}

/// Deletes a topic and makes it anew, as somebody does by mistake.
pub(super) async fn recreate(config: &KafkaConfig, stream: Stream, pause: Duration) {
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let ensure = async || Topics::open(config).await?.ensure(stream).await;
    let before = ensure().await.unwrap().topic.incarnation;
    for deleted in admin(config).delete_topics(&[&config.topic(stream)], &options).await.unwrap() {
        deleted.unwrap();
    }
    tokio::time::sleep(pause).await;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let made = ensure().await;
        if made.as_ref().is_ok_and(|made| made.topic.incarnation != before) {
            return;
        }
        assert!(Instant::now() < until, "{made:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Deletes all records that partitions of trades have, as retention would those that were not read in time.
async fn expire(config: &KafkaConfig, partitions: std::ops::Range<u32>) -> Result<bool, rdkafka::error::KafkaError> {
    let (topic, mut list) = (config.topic(Stream::Trades), TopicPartitionList::new());
    for partition in partitions {
        list.add_partition_offset(&topic, partition as i32, Offset::End)?;
    }
    let done = admin(config).delete_records(&list, &AdminOptions::new()).await;
    Ok(done.is_ok_and(|done| done.elements().iter().all(|partition| partition.error().is_ok())))
}
