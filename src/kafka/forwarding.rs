//! The thread that forwards: reads the spool, sends, takes the answers in. It is told of slots and of the topics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::quota::HeldUp;
use super::sender::KafkaSender;
use crate::domain::archived::Archived;
use crate::domain::chain::ChainId;
use crate::domain::identity::LogId;
use crate::domain::per_chain::PerChain;
use crate::forward::engine::{Engine, ForwardError, Outcome, SendError, Sender, Step};
use crate::spool::logs::Logs;

/// How soon answers are looked for while records are under way and there is nothing else to do.
const ANSWERS: Duration = Duration::from_millis(2);
/// How long it sleeps if nobody tells it anything while all is sent and answered for.
const REST: Duration = Duration::from_millis(500);
/// Without an acknowledgement for so long, somebody should know.
const SILENCE: Duration = Duration::from_secs(10);
/// Without one for so long, another producer may do better. A broker that is away is waited for by one as by the other.
const HOPELESS: Duration = Duration::from_secs(60);
/// After records were refused, or the spool's disk was.
const PAUSE: Duration = Duration::from_secs(1);

/// What the thread is told.
pub enum Told {
    /// A chain has got so far.
    Archived(ChainId, Archived),
    /// Somebody asks for the ends of the logs: answer with the number of the round.
    Round(tokio::sync::oneshot::Sender<u64>),
    /// The incarnation of each log and where it ended in that round.
    Ends(u64, PerChain<Option<(LogId, u64)>>),
    /// The spool holds more.
    More,
    /// Send all that is there, wait for the answers, and end.
    Drain,
}

/// How it goes, for whoever watches.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Records that were acknowledged.
    pub sent: u64,
    /// Acknowledged, and in no slot yet.
    pub acknowledged: u64,
    /// Under way.
    pub under_way: u64,
    /// In no slot, sent or not.
    pub uncovered: u64,
    /// What the spool has lost by damage, if anything.
    pub lost: Option<String>,
    /// Why nothing goes on, where that is so.
    pub trouble: Option<String>,
    /// Whether a quota makes us wait.
    pub held_up: Option<HeldUp>,
}

/// Makes a producer, or says why there can be none yet.
pub type MakeSender = Arc<dyn Fn() -> Result<KafkaSender, String> + Send + Sync>;

/// What the thread works with.
pub struct Parts {
    /// What is to be sent.
    pub logs: Logs,
    /// The file in which it notes for the next process what was acknowledged. Where it is lost or old, more is sent again.
    pub notes: PathBuf,
    /// Makes a producer, or says why there can be none yet.
    pub sender: MakeSender,
    /// What it is told. Its end is the end of the thread.
    pub told: Receiver<Told>,
    /// Is told how it goes, about once a second and when something changes.
    pub tell: Box<dyn FnMut(State) + Send>,
}

/// Forwards until it is told to drain, or nobody is there to tell it anything.
#[expect(clippy::disallowed_methods, reason = "it has a thread of its own")]
pub fn run(mut parts: Parts) {
    let hints = std::fs::read(&parts.notes).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut engine = Engine::new(parts.logs.clone(), hints.unwrap_or_default());
    let (mut state, mut heard) = (State::default(), Heard::default());
    while !heard.is_over {
        let why = match (parts.sender)() {
            Ok(mut sender) => match forward(&mut parts, &mut engine, &mut sender, &mut state, &mut heard) {
                Ok(()) => return,
                // A new producer sends again what has no answer; the chains know what comes twice.
                Err(error) => {
                    tracing::error!(%error, "a new producer is made");
                    error.to_string()
                }
            },
            Err(why) => why,
        };
        engine.new_sender();
        (state.trouble, state.held_up) = (Some(why), None);
        (parts.tell)(state.clone());
        std::thread::sleep(PAUSE);
        heard.listen(&parts.told, &mut engine);
    }
}

/// What it was told about its end.
#[derive(Debug, Default)]
struct Heard {
    /// Send all that is there, and end.
    is_draining: bool,
    /// There is nothing more to be done: nobody listens, or nothing can be sent any more.
    is_over: bool,
}

impl Heard {
    /// Takes in all that was told.
    fn listen(&mut self, told: &Receiver<Told>, engine: &mut Engine) {
        loop {
            match told.try_recv() {
                Ok(told) => self.hear(told, engine),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }

    /// Sleeps until it is told something, and no longer than that.
    fn wait(&mut self, told: &Receiver<Told>, engine: &mut Engine, wait: Duration) {
        match told.recv_timeout(wait) {
            Ok(told) => self.hear(told, engine),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.is_over = true,
        }
    }

    fn hear(&mut self, told: Told, engine: &mut Engine) {
        match told {
            Told::Archived(chain, archived) => engine.archived(chain, archived),
            Told::Round(answer) => drop(answer.send(engine.begin_round())),
            Told::Ends(round, ends) => {
                let known = ends.iter().filter_map(|(chain, end)| Some((chain, (*end)?)));
                known.for_each(|(chain, (incarnation, end))| engine.log_is(chain, incarnation, end, round));
            }
            Told::More => {}
            Told::Drain => self.is_draining = true,
        }
    }
}

fn forward(
    parts: &mut Parts,
    engine: &mut Engine,
    sender: &mut KafkaSender,
    state: &mut State,
    heard: &mut Heard,
) -> Result<(), SendError> {
    let (mut said, mut acknowledged) = (Instant::now(), Instant::now());
    let mut pause_until = None::<Instant>;
    // Why the spool cannot be read, until it can.
    let mut unreadable = None::<String>;
    loop {
        heard.listen(&parts.told, engine);
        if heard.is_over {
            return Ok(());
        }
        let step = match pause_until {
            Some(until) if Instant::now() < until => Step::Full,
            _ => match engine.step(sender) {
                Ok(step) => {
                    unreadable = None;
                    step
                }
                Err(ForwardError::Sender(error)) => return Err(error),
                Err(ForwardError::Spool(error)) => {
                    if unreadable.is_none() {
                        tracing::error!(%error, "the spool cannot be forwarded");
                    }
                    unreadable = Some(format!("the spool cannot be read: {error}"));
                    pause_until = Some(Instant::now() + PAUSE);
                    Step::Full
                }
            },
        };
        let answers = sender.answers()?;
        if step != Step::Progress && answers.is_empty() {
            let rests = step == Step::Idle && sender.under_way() == 0;
            heard.wait(&parts.told, engine, if rests { REST } else { ANSWERS });
        }
        let sent = answers.iter().filter(|(_, outcome)| *outcome != Outcome::Failed).count() as u64;
        state.sent += sent;
        if sent > 0 || sender.under_way() == 0 {
            acknowledged = Instant::now();
        }
        if is_hopeless(acknowledged.elapsed(), || sender.held_up().is_some()) {
            return Err(SendError(format!("Kafka has acknowledged nothing for {} s", HOPELESS.as_secs())));
        }
        if engine.answers(answers) {
            pause_until = Some(Instant::now() + PAUSE);
        }
        if said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            (state.under_way, state.acknowledged) = (sender.under_way() as u64, engine.acknowledged());
            state.uncovered = engine.uncovered();
            let lost = lost(engine);
            if let Some(lost) = lost.as_ref().filter(|_| lost != state.lost) {
                tracing::error!("the spool is damaged: {lost}");
            }
            state.lost = lost;
            // What is all sent and answered for has no trouble, whatever the connections had last.
            let rests = step == Step::Idle && state.under_way == 0;
            let silence = acknowledged.elapsed();
            state.held_up = sender.held_up();
            let trouble = unreadable
                .clone()
                .or_else(|| sender.trouble())
                .or_else(|| suspicion(silence, state.under_way, state.held_up.is_some()));
            state.trouble = trouble.filter(|_| !rests);
            (parts.tell)(state.clone());
            note(&parts.notes, engine);
        }
        if heard.is_draining && step == Step::Idle && sender.under_way() == 0 {
            note(&parts.notes, engine);
            return Ok(());
        }
    }
}

/// What the spool has lost by damage, in words.
fn lost(engine: &Engine) -> Option<String> {
    let lost = engine.lost().map(|(log, chain, records)| format!("{records} of {chain} in log {log}"));
    let lost: Vec<_> = lost.collect();
    (!lost.is_empty()).then(|| format!("records cannot be read any more, and are lost: {}", lost.join(", ")))
}

/// Whether another producer is to be tried. It would get no more from a quota, and send again what waits for its answer.
fn is_hopeless(silence: Duration, is_held_up: impl FnOnce() -> bool) -> bool {
    silence >= HOPELESS && !is_held_up()
}

/// What is wrong where no broker says so, and nothing is acknowledged. A quota has an alarm of its own.
fn suspicion(silence: Duration, under_way: u64, is_held_up: bool) -> Option<String> {
    (silence >= SILENCE && under_way > 0 && !is_held_up).then(|| {
        format!(
            "Kafka has acknowledged nothing for {} s, with {under_way} records under way: do enough replicas run \
             (`min.insync.replicas`)?",
            silence.as_secs()
        )
    })
}

/// Notes what was acknowledged. Not fsynced: it is a hint.
fn note(path: &Path, engine: &Engine) {
    let unmade = path.with_extension("new");
    let text = serde_json::to_vec(&engine.hints()).expect("its keys are strings");
    let noted = std::fs::write(&unmade, text).and_then(|()| std::fs::rename(&unmade, path));
    if let Err(error) = noted {
        tracing::debug!(%error, "what was forwarded is not noted: the next start sends more of it again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_quota_suspects_no_replicas_and_tries_no_other_producer() {
        let (short, silent, hopeless) = (SILENCE - Duration::from_secs(1), SILENCE, HOPELESS);
        assert!(suspicion(silent, 7, false).unwrap().contains("nothing for 10 s, with 7 records under way"));
        for (silence, under_way, is_held_up) in [(short, 7, false), (silent, 0, false), (silent, 7, true)] {
            assert_eq!(suspicion(silence, under_way, is_held_up), None);
        }
        assert!(is_hopeless(hopeless, || false));
        assert!(!is_hopeless(hopeless, || true) && !is_hopeless(silent, || false));
    }
}
