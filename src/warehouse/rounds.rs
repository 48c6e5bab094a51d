//! From the chains' new slots to a refined Gold, round by round.
//!
//! What the warehouse has is asked of the warehouse itself, never remembered: after a crash of
//! either side the next round goes on where the tables are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::process::{Hello, RefineError, Refinery, Work};
use super::protocol::{Done, SlotRow, TailRow};
use super::python::{self, PythonError};
use crate::bronze::chain::{self, Chain, ChainError, Follower};
use crate::config::WarehouseConfig;
use crate::domain::chain::{ChainId, Position};
use crate::io::store::{Store, StoreError};
use crate::telemetry::metrics::Failing;
use crate::telemetry::traces::{Traces, logs_of};

/// About so many slots in one round: a run after a long outage is cut into bearable pieces.
const SLOTS: usize = 400;

/// How often the end of each chain is held against what stands in the store, where nothing new comes.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// Why a round did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// There is no Python with dbt.
    #[error(transparent)]
    Python(#[from] PythonError),
    /// The process or the warehouse.
    #[error(transparent)]
    Refine(#[from] RefineError),
    /// The chains cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The warehouse cannot be let into the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RoundError {
    /// Whether the same will be refused again, until a person has done something.
    pub fn is_refusal(&self) -> bool {
        matches!(self, RoundError::Refine(RefineError::Failed { retryable: false, .. }))
    }

    /// Where it failed, if `last` is the last phase that was heard of.
    pub fn phase<'a>(&'a self, last: &'a str) -> &'a str {
        match self {
            RoundError::Python(_) => "python",
            RoundError::Chain(_) | RoundError::Store(_) => "bronze",
            RoundError::Refine(RefineError::Process(_)) => last,
            RoundError::Refine(RefineError::Failed { phase, .. }) => phase,
        }
    }
}

/// What a round did.
#[derive(Debug)]
pub enum Round {
    /// There was nothing new.
    Nothing,
    /// A run was published.
    Refined {
        /// Its outcome.
        done: Done,
        /// Whether there is more at once.
        more: bool,
    },
}

/// Refines what is new in the chains.
pub struct Rounds {
    config: WarehouseConfig,
    store: Arc<dyn Store>,
    partitions: u32,
    traces: Traces,
    logs: tracing::Span,
    python: Option<PathBuf>,
    open: Option<Open>,
}

struct Open {
    refinery: Refinery,
    /// What the warehouse has of each chain, by its name, from before this process.
    tails: BTreeMap<String, TailRow>,
    followers: Vec<Follower>,
    /// When it was looked for chains that have begun.
    sought: Option<Instant>,
    /// Sent, and not yet answered as done.
    slots: Vec<SlotRow>,
    /// The next round comes though there may be no slots: the first, as what a run before left unpublished
    /// is not known here, and one while the warehouse has slots that it could not read.
    comes: bool,
    /// The trace contexts of those that are sampled.
    traced: Vec<String>,
    /// When it was looked for holes in the chains, and what was found.
    looked: Option<Instant>,
    holes: Vec<ChainError>,
}

impl Rounds {
    /// Refines the chains of `store`: those of `partitions` partitions, and further ones when they have begun.
    pub fn new(config: WarehouseConfig, store: Arc<dyn Store>, partitions: u32, traces: Traces) -> Rounds {
        let python = config.python.clone();
        Rounds { config, store, partitions, traces, logs: tracing::Span::none(), python, open: None }
    }

    /// Has the process run. Returns what it said, if it was started for this. `progress` is told what it is at.
    pub async fn open(&mut self, progress: impl Fn(&str)) -> Result<Option<Hello>, RoundError> {
        self.logs = tracing::Span::none();
        if self.open.is_some() { Ok(None) } else { self.start(&progress).await.map(Some) }
    }

    /// Takes what is new, at most so many slots at once, and refines it, if the process runs. `failing` are the
    /// rounds before that failed. After an error, the same is tried again by the next round.
    pub async fn round(&mut self, failing: Option<&Failing>, progress: impl Fn(&str)) -> Result<Round, RoundError> {
        let Some(open) = &mut self.open else { return Ok(Round::Nothing) };
        open.look_for_chains(&self.store, self.partitions).await?;
        let ahead = chain::ahead(open.followers.iter(), SLOTS.saturating_sub(open.slots.len())).await?;
        for (at, slot) in ahead.slots {
            open.followers[at].pass(&slot);
            open.slots.extend(SlotRow::of(&slot, |key| self.store.address(key)));
            open.traced.extend(slot.traceparent);
        }
        let more = ahead.more;
        if !more {
            open.look_for_holes().await?;
        }
        if open.slots.is_empty() && !open.comes {
            return Ok(Round::Nothing);
        }
        let s3 = self.store.access().await?;
        let run = RefCell::new(self.traces.span_refine(open.traced.iter().map(String::as_str)));
        let traceparent = run.borrow().as_ref().map(|run| run.span.traceparent());
        self.logs = logs_of(run.borrow().as_ref().map(|run| &run.span));
        let enter = |phase: &str| {
            run.borrow_mut().iter_mut().for_each(|run| run.enter(phase));
            progress(phase);
        };
        let work = Work { slots: &open.slots, s3: s3.as_ref(), traceparent: traceparent.as_deref(), failing };
        match open.refinery.refine(work, self.config.run_timeout, enter).await {
            Ok(done) => {
                run.borrow_mut().iter_mut().for_each(|run| run.span.count("tickmint.run", done.run));
                open.slots.clear();
                open.traced.clear();
                open.comes = done.unread.is_some();
                Ok(Round::Refined { done, more })
            }
            Err(error) => {
                run.borrow_mut().iter_mut().for_each(|run| run.fail(&error));
                if matches!(error, RefineError::Process(_)) {
                    self.open = None; // kills it, if it still lives
                }
                Err(error.into())
            }
        }
    }

    /// Slots that were deleted before they were read. Silver stands still there, and goes on with the other chains.
    pub fn holes(&self) -> &[ChainError] {
        self.open.as_ref().map_or(&[], |open| &open.holes)
    }

    /// Where log lines of the last round belong.
    pub fn log_span(&self) -> tracing::Span {
        self.logs.clone()
    }

    /// Ends the process in good order.
    pub async fn stop(&mut self) {
        if let Some(open) = self.open.take() {
            open.refinery.stop().await;
        }
    }

    async fn start(&mut self, progress: &impl Fn(&str)) -> Result<Hello, RoundError> {
        let python = match &self.python {
            // One that was configured and cannot run dbt is an alarm that names it, no process that dies
            // again and again: that would take the daemon with it, and Bronze needs no Python.
            Some(python) => {
                python::packages(python, &self.config.project_dir).await?;
                python.clone()
            }
            None => python::find_or_make(&self.config.project_dir, progress).await?,
        };
        self.python = Some(python.clone());
        progress("starting dbt and DuckDB");
        let (refinery, hello) = Refinery::start(&python, &self.config).await?;
        self.open = Some(Open {
            refinery,
            tails: hello.tails.clone(),
            followers: Vec::new(),
            sought: None,
            slots: Vec::new(),
            comes: true,
            traced: Vec::new(),
            looked: None,
            holes: Vec::new(),
        });
        Ok(hello)
    }
}

impl Open {
    /// Begins with the chains that are new, each behind the last slot that the warehouse has. Looked for less often than rounds
    /// come: a topic is seldom given more partitions.
    async fn look_for_chains(&mut self, store: &Arc<dyn Store>, partitions: u32) -> Result<(), ChainError> {
        if self.sought.is_some_and(|sought| sought.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        for id in chain::all(store, ChainId::all(partitions)).await? {
            if self.followers.iter().all(|follower| follower.id() != id) {
                let tail = self.tails.get(&id.to_string());
                let next =
                    tail.map_or_else(Position::default, |tail| Position { generation: tail.generation, start: tail.end + 1 });
                self.followers.push(Follower::new(Chain::new(id, store.clone()), next));
            }
        }
        self.sought = Some(Instant::now());
        Ok(())
    }

    /// At the end of all chains: whether each is one. Looked at less often than rounds come, unless one is not.
    async fn look_for_holes(&mut self) -> Result<(), ChainError> {
        if self.holes.is_empty() && self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(());
        }
        let mut holes = Vec::new();
        let mut ends = stream::iter(&self.followers).map(Follower::end).buffered(chain::AT_ONCE);
        while let Some(end) = ends.next().await {
            match end {
                Err(hole @ ChainError::Missing { .. }) => holes.push(hole),
                other => other?,
            }
        }
        (self.looked, self.holes) = (Some(Instant::now()), holes);
        Ok(())
    }
}
