//! The memory of all writers of a process together: `bronze.memory`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::chain::ChainId;

/// How much all writers of this process hold together; the one that holds most must flush first.
#[derive(Debug)]
pub struct Budget {
    cap: usize,
    used: Mutex<BTreeMap<ChainId, usize>>,
    turns: Semaphore,
}

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Arc<Budget> {
        let turns = Semaphore::new(available_parallelism().map_or(1, Into::into));
        Arc::new(Budget { cap, used: Mutex::default(), turns })
    }

    /// Waits until it may encode. As many do at once as there are processors: more would be no faster, and hold more.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<ChainId, usize>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer of `chain` holds so much.
    pub fn holds(&self, chain: ChainId, bytes: usize) {
        self.used().insert(chain, bytes);
    }

    /// There is no writer of `chain` any more.
    pub fn left(&self, chain: ChainId) {
        self.used().remove(&chain);
    }

    /// Whether they hold so much that nobody should take more: those who must flush cannot, as it seems, for the store is away.
    pub fn is_overfull(&self) -> bool {
        self.used().values().sum::<usize>() > self.cap + self.cap / 2
    }

    /// Whether they hold too much together, and that one the most.
    pub fn must_flush(&self, chain: ChainId) -> bool {
        let used = self.used();
        used.values().sum::<usize>() > self.cap && used.values().max() == used.get(&chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stream::Stream;

    #[test]
    fn above_the_cap_who_holds_the_most_flushes_and_no_other() {
        let (budget, [one, two, three]) = (Budget::new(10), Stream::ALL.map(ChainId::from));
        budget.holds(one, 4);
        budget.holds(two, 6);
        assert!(![one, two, three].iter().any(|chain| budget.must_flush(*chain)), "the cap is not passed");
        budget.holds(two, 7);
        assert_eq!([one, two, three].map(|chain| budget.must_flush(chain)), [false, true, false]);
        assert!(!budget.is_overfull(), "it may flush yet");
        budget.holds(one, 9);
        assert!(budget.is_overfull(), "nobody flushes");
        budget.holds(one, 4);
        budget.left(two);
        budget.holds(three, 7);
        assert_eq!([one, three].map(|chain| budget.must_flush(chain)), [false, true], "who has gone is not waited for");
    }
}
