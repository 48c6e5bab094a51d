//! A cluster under a seed: machines with a spool and a forwarder each, a Kafka that loses and forgets, two writers for each
//! partition that know nothing of each other, a sweeper, a store with faults; now and then a machine that was cloned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tickmint::audit::{self, report::Report};
use tickmint::bronze::archiver::{Archiver, Limits, Parts, Step};
use tickmint::bronze::budget::Budget;
use tickmint::bronze::chain::Chain;
use tickmint::bronze::poison::Poison;
use tickmint::bronze::sealer::Sealer;
use tickmint::domain::archived::{Archived, Chains};
use tickmint::domain::chain::ChainId;
use tickmint::domain::entry::Record;
use tickmint::domain::hour::Hour;
use tickmint::domain::identity::LogId;
use tickmint::domain::stream::Stream;
use tickmint::faults::{Flaw, flawed};
use tickmint::forward::engine::{self, Engine, Hints, Sender};
use tickmint::io::memory::MemoryStore;
use tickmint::io::store::Store;
use tickmint::spool::commit::Request;
use tickmint::spool::deletion::Deletion;
use tickmint::spool::logs;
use tickmint::spool::reader::LogView;
use tickmint::spool::segment::{self, DrainedBy, LogKind};

use super::super::world::{self, FIRST_HOUR, Life, SweeperTask, Task, WriterTask, copy_logs, die_early, nudge, weather};
use super::log::{MemorySender, MemorySource, Topics};

const PARTITIONS: u32 = 2;
const KIND: LogKind = LogKind { drained_by: DrainedBy::Kafka, partitions: PARTITIONS };
/// Of each chain, writers that know nothing of each other.
const RIVALS: usize = 2;
/// Nothing takes so many rounds to come to rest.
const PATIENCE: u32 = 300;

/// A process that feeds: its spool, and what forwards it.
struct Machine {
    spool: PathBuf,
    shard: &'static str,
    life: Life,
    engine: Engine,
    sender: MemorySender,
    /// What it has heard of the chains.
    archived: Chains,
}

pub(super) struct World {
    random: StdRng,
    dir: tempfile::TempDir,
    store: Arc<dyn Store>,
    memory: MemoryStore,
    topics: Topics,
    /// Incarnations that some may still take for the newest.
    old: BTreeMap<Stream, LogId>,
    machines: Vec<Machine>,
    writers: Vec<Option<WriterTask>>,
    sweeper: Option<SweeperTask>,
    /// Of producers that have died, still on its way.
    late: Vec<(ChainId, Record)>,
    hour: i64,
    sent: u64,
}

fn chains() -> Vec<ChainId> {
    ChainId::all(PARTITIONS).collect()
}

impl World {
    /// Lives through the world of a seed; what is wrong at its end, and the audit's counts.
    pub(super) async fn run(seed: u64) -> (Vec<String>, Report) {
        let mut random = StdRng::seed_from_u64(seed);
        let dir = super::super::folder();
        let memory = if flawed(Flaw::CheckThenAct) { MemoryStore::check_then_act() } else { MemoryStore::new() };
        let topics = Topics::new(PARTITIONS);
        let machines = ["a", "b"]
            .map(|name| Machine::begin(&dir.path().join(name), name, FIRST_HOUR, &topics, random.random(), Hints::default()));
        let mut world = World {
            random,
            store: Arc::new(memory.clone()),
            memory,
            topics,
            old: BTreeMap::new(),
            machines: machines.into(),
            writers: (0..chains().len() * RIVALS).map(|_| None).collect(),
            sweeper: None,
            late: Vec::new(),
            hour: FIRST_HOUR,
            sent: 0,
            dir,
        };
        for _ in 0..160 {
            world.act().await;
        }
        world.finish().await
    }

    async fn act(&mut self) {
        let machine = self.random.random_range(0..self.machines.len());
        match self.random.random_range(0..100) {
            0..20 => self.append(machine),
            20..23 => self.turn_the_hour(),
            23..45 => self.machines[machine].forward(self.random.random_range(1..10)),
            45..76 => {
                let writer = self.random.random_range(0..self.writers.len());
                let flush = self.random.random_bool(0.5);
                for _ in 0..self.random.random_range(1..6) {
                    self.nudge_writer(writer, flush).await;
                }
            }
            76..79 => {
                let writer = self.random.random_range(0..self.writers.len());
                self.writers[writer] = None;
            }
            79..81 => self.die(machine),
            81..85 => self.nudge_sweeper().await,
            85 => self.sweeper = None,
            86..89 => self.hear(machine).await,
            89..91 => self.machines[machine].delete_covered(),
            91..93 => self.machines[machine].ask_for_ends(&self.topics),
            93 => {
                let (chain, count) = (self.any_chain(), self.random.random_range(1..8));
                self.topics.expire(chain, count);
            }
            94 => {
                let (chain, count) = (self.any_chain(), self.random.random_range(1..6));
                self.topics.truncate(chain, count);
            }
            95 if self.random.random_bool(0.4) => self.recreate(),
            96 => self.late_arrives(),
            97 if self.machines.len() < 3 => self.clone_machine(machine),
            _ => weather(&self.memory, &mut self.random),
        }
    }

    fn any_chain(&mut self) -> ChainId {
        chains()[self.random.random_range(0..chains().len())]
    }

    fn append(&mut self, machine: usize) {
        let at = self.hour - i64::from(self.random.random_bool(0.15));
        let life = &mut self.machines[machine].life;
        let (append, trades) = world::frames(life, at, PARTITIONS, &mut self.random);
        self.sent += trades;
        life.commit(Request::Append(append.clone()));
        if self.random.random_bool(0.2) {
            life.commit(Request::Append(append)); // the answer was lost
        }
    }

    fn turn_the_hour(&mut self) {
        self.hour += 1;
        self.machines.iter_mut().for_each(|machine| machine.life.commit(Request::Tick(Hour(self.hour))));
    }

    /// A process dies and begins again. What its producer had under way may still arrive.
    fn die(&mut self, machine: usize) {
        let Machine { spool, shard, engine, .. } = &self.machines[machine];
        // As it is noted once a second: the last, an older one that is as good as none, or none.
        let hints = if self.random.random() { engine.hints() } else { Hints::default() };
        let next = Machine::begin(spool, shard, self.hour, &self.topics, self.random.random(), hints);
        let dead = std::mem::replace(&mut self.machines[machine], next);
        self.late.extend(dead.sender.left_behind());
    }

    /// Somebody starts a daemon on a copy of a machine's spool; in half of the worlds its disk damages it, before or after that.
    fn clone_machine(&mut self, machine: usize) {
        let there = self.dir.path().join("copy");
        if self.random.random_bool(0.3) {
            die_early(&self.machines[machine].spool, true); // both go on from there
        }
        copy_logs(&self.machines[machine].spool, &there);
        let copied = logs::find(&there).unwrap().dead;
        let (early, late) = (self.random.random_bool(0.25), self.random.random_bool(0.25));
        if early {
            damage(&there, &copied, &mut self.random);
        }
        let shard = self.machines[machine].shard;
        self.machines.push(Machine::begin(&there, shard, self.hour, &self.topics, self.random.random(), Hints::default()));
        if late {
            damage(&there, &copied, &mut self.random);
        }
    }

    fn recreate(&mut self) {
        let stream = Stream::ALL[self.random.random_range(0..Stream::ALL.len())];
        self.old.insert(stream, self.topics.incarnation(stream));
        self.topics.recreate(stream);
    }

    fn late_arrives(&mut self) {
        for (chain, record) in std::mem::take(&mut self.late) {
            self.topics.append(chain, record);
        }
    }

    /// A machine hears how far some chains are, if the store lets it.
    async fn hear(&mut self, machine: usize) {
        for chain in chains() {
            if self.random.random_bool(0.7)
                && let Ok(tail) = Chain::new(chain, self.store.clone()).tail().await
            {
                self.machines[machine].hears(chain, Archived::at(tail));
            }
        }
    }

    fn archiver(&mut self, chain: ChainId, rival: usize) -> Archiver {
        let stale = self.old.get(&chain.stream).copied().filter(|_| self.random.random_bool(0.2));
        Archiver::new(Parts {
            chain: Chain::new(chain, self.store.clone()),
            store: self.store.clone(),
            source: Box::new(MemorySource::new(&self.topics, chain, self.random.random(), stale)),
            limits: Limits { flush_bytes: 2000, flush_after: Duration::from_secs(3600), zstd_level: 1 },
            budget: Budget::new(1 << 20),
            poison: Poison::load(self.dir.path().join(format!("poison-{}-{}-{rival}", chain.stream, chain.partition))),
            traces: tickmint::telemetry::Traces::default(),
        })
    }

    async fn nudge_writer(&mut self, writer: usize, flush: bool) {
        let (chain, rival) = (chains()[writer / RIVALS], writer % RIVALS);
        let task = match self.writers[writer].take() {
            Some(task) => task,
            None => Task::Between(self.archiver(chain, rival)),
        };
        let times = self.random.random_range(1..12);
        let (task, done) = nudge(task, times, world::step(flush)).await;
        self.writers[writer] = Some(task);
        if done.is_some_and(|done| done.is_err_and(|error| !error.is_retryable())) {
            self.writers[writer] = None;
        }
    }

    async fn nudge_sweeper(&mut self) {
        let task = self.sweeper.take().unwrap_or_else(|| Task::Between(Sealer::new(self.store.clone(), chains())));
        let (times, now) = (self.random.random_range(1..60), Hour(self.hour).begins());
        self.sweeper = Some(nudge(task, times, world::round(now)).await.0);
    }

    /// The weather clears up, what is under way arrives, all machines begin a last life, and everything comes to rest.
    async fn finish(mut self) -> (Vec<String>, Report) {
        self.memory.heal();
        self.memory.deliver();
        self.late_arrives();
        self.old.clear();
        self.writers.iter_mut().for_each(|writer| *writer = None);
        // A process that dies looks at everything again. One that lives on must know by itself what it has forgotten.
        let live_on = self.random.random();
        for machine in 0..self.machines.len() {
            self.machines[machine].life.end_session();
            if live_on {
                self.machines[machine].sender.calm_down();
            } else {
                self.die(machine);
                self.machines[machine].sender = MemorySender::new(&self.topics, 0, true);
            }
        }
        self.late_arrives();
        self.turn_the_hour();
        let (mut findings, mut report) = (Vec::new(), Report::default());
        let mut archivers: Vec<_> = chains().into_iter().map(|chain| self.archiver(chain, 0)).collect();
        let mut rounds = 0;
        loop {
            let uncovered: Vec<_> = self.machines.iter().flat_map(Machine::uncovered).collect();
            if uncovered.is_empty() {
                break;
            }
            rounds += 1;
            if rounds > PATIENCE {
                findings.push(format!("it never comes to rest: something is never archived: {uncovered:?}"));
                break;
            }
            for machine in &mut self.machines {
                machine.forward(50);
                machine.ask_for_ends(&self.topics);
            }
            for archiver in &mut archivers {
                if !settle(archiver).await {
                    findings.push("a chain is never archived to its end".to_string());
                }
            }
            for machine in 0..self.machines.len() {
                for chain in chains() {
                    match Chain::new(chain, self.store.clone()).tail().await {
                        Ok(tail) => self.machines[machine].hears(chain, Archived::at(tail)),
                        Err(error) => findings.push(format!("{chain}: {error}")),
                    }
                }
            }
            if !findings.is_empty() {
                break;
            }
        }
        if let Err(error) = Sealer::new(self.store.clone(), chains()).round(Hour(self.hour).begins()).await {
            findings.push(format!("hours cannot be sealed: {error}"));
        }
        for machine in &mut self.machines {
            machine.delete_covered();
            if findings.is_empty() && !machine.life.logs.dead().is_empty() {
                findings.push("a spool is never empty".to_string());
            }
        }
        let spools: Vec<&Path> = self.machines.iter().map(|machine| machine.spool.as_path()).collect();
        match audit::bronze::read_all(&self.store, &spools, PARTITIONS, Default::default()).await {
            Err(error) => findings.push(format!("the audit fails: {error}")),
            Ok(found) => {
                report = audit::report::report(&found, None);
                findings.extend(report.findings.clone());
                if !report.is_clean() || report.archived != self.sent || report.waiting != 0 {
                    findings.push(format!("sent {}: {report:?}", self.sent));
                    for (session, count) in &found.sessions {
                        let (frames, gaps) = (count.frames.keys().collect::<Vec<_>>(), &count.gaps);
                        findings.push(format!("{session} {:?}: frames {frames:?}, {gaps:?}, {:?}", count.shard, count.end));
                    }
                }
            }
        }
        (findings, report)
    }
}

impl Machine {
    fn begin(spool: &Path, shard: &'static str, hour: i64, topics: &Topics, seed: u64, hints: Hints) -> Machine {
        std::fs::create_dir_all(spool).unwrap();
        let life = Life::begin(spool, hour, KIND, shard);
        let engine = Engine::new(life.logs.clone(), hints);
        let sender = MemorySender::new(topics, seed, false);
        Machine { spool: spool.to_path_buf(), shard, life, engine, sender, archived: Chains::default() }
    }

    /// Does so many steps of forwarding.
    fn forward(&mut self, steps: u32) {
        for _ in 0..steps {
            let done = self.engine.step(&mut self.sender).unwrap();
            let answers = self.sender.answers().unwrap();
            self.engine.answers(answers);
            if done == engine::Step::Idle {
                break;
            }
        }
    }

    fn hears(&mut self, chain: ChainId, archived: Archived) {
        self.engine.archived(chain, archived.clone());
        self.archived.learn(chain, archived);
    }

    fn ask_for_ends(&mut self, topics: &Topics) {
        let round = self.engine.begin_round();
        for chain in chains() {
            self.engine.log_is(chain, topics.incarnation(chain.stream), topics.end(chain), round);
        }
    }

    /// As the spool does.
    fn delete_covered(&mut self) {
        let mut deletion = Deletion::new(self.life.logs.clone(), KIND.drained_by);
        deletion.delete_dead(&self.archived).unwrap();
        if let Some(last) = deletion.last_done(&self.archived).0 {
            self.life.log.delete_to(last).unwrap();
        }
        self.life.durable.send_replace(self.life.log.view());
    }

    /// What its spool holds and the chains do not have.
    fn uncovered(&self) -> Vec<String> {
        let mut deletion = Deletion::new(self.life.logs.clone(), KIND.drained_by);
        let views = self.life.logs.dead().into_values().chain([self.life.log.view()]);
        let segments: Vec<_> = views.flat_map(|view| view.segments().cloned().collect::<Vec<_>>()).collect();
        let mut uncovered = Vec::new();
        for segment in segments {
            if deletion.may_go(&segment, &self.archived).unwrap() {
                continue;
            }
            for (chain, base) in segment.base.iter().filter(|(chain, base)| **base < segment.end[*chain]) {
                let archived = self.archived.get(chain).cloned().unwrap_or_default();
                let missing = archived.read.missing(segment.log, *base, segment.end[chain] - 1);
                if !missing.is_empty() {
                    let lost = archived.lost.0.get(&segment.log);
                    uncovered.push(format!(
                        "{chain} {missing:?} of {:?} {}, lost {lost:?}",
                        self.spool.file_name(),
                        segment.number
                    ));
                }
            }
        }
        uncovered
    }
}

/// Damages a byte of some segments.
fn damage(spool: &Path, logs: &BTreeMap<LogId, LogView>, random: &mut StdRng) {
    for segment in logs.values().flat_map(|view| view.segments()) {
        if random.random_bool(0.3) && segment.body_at < segment.len {
            let path = segment::path(&spool.join(segment.log.to_string()), segment.number);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[random.random_range(segment.body_at..segment.len) as usize] ^= 0x40;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

/// Archives all that the log has; whether that came to an end.
async fn settle(archiver: &mut Archiver) -> bool {
    let mut flush = false;
    for _ in 0..3000 {
        match archiver.step(flush).await {
            Ok(Step::Idle { due: None }) if flush => return true,
            Ok(Step::Idle { .. }) => flush = true,
            Ok(Step::Progress | Step::Decided(_)) => {}
            Err(_) => return false,
        }
    }
    false
}
