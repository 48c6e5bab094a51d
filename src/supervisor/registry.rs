//! Every actor of the process, in start order: the source of `/health` and of an ordered shutdown.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::supervisor::child::Command;
use crate::supervisor::vitals::Vitals;

/// How long a stopped child may take beyond its own limit to say so.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Clone)]
struct Entry {
    path: String,
    vitals: Arc<Vitals>,
    commands: mpsc::UnboundedSender<Command>,
    shutdown: Duration,
}

#[derive(Clone)]
pub struct Registry {
    pub(crate) epoch: Instant,
    entries: Arc<RwLock<Vec<Entry>>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry { epoch: Instant::now(), entries: Arc::default() }
    }
}

impl Registry {
    pub(crate) fn add(
        &self,
        path: String,
        vitals: Arc<Vitals>,
        commands: mpsc::UnboundedSender<Command>,
        shutdown: Duration,
    ) {
        self.entries.write().unwrap().push(Entry { path, vitals, commands, shutdown });
    }

    pub fn snapshot(&self) -> Vec<(String, Arc<Vitals>)> {
        self.entries.read().unwrap().iter().map(|e| (e.path.clone(), e.vitals.clone())).collect()
    }

    /// Drains and stops every actor, the last started first. Works while supervisors are down.
    ///
    /// Returns the paths of the actors that did not answer: their threads are blocked.
    pub async fn shutdown(&self) -> Vec<String> {
        let mut silent = Vec::new();
        let entries = self.entries.read().unwrap().clone();
        for Entry { path, commands, shutdown, .. } in entries.into_iter().rev() {
            let (done, stopped) = oneshot::channel();
            let told = commands.send(Command::Stop { within: shutdown, done }).is_ok();
            if told && timeout(shutdown + GRACE, stopped).await.is_err() {
                silent.push(path);
            }
        }
        silent
    }
}
