//! The memory of all writers of a process together: `bronze.memory`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::domain::stream::STREAMS;

/// How much all writers of this process hold together; the one that holds most must flush first.
#[derive(Debug)]
pub struct Budget {
    cap: usize,
    used: [AtomicUsize; STREAMS],
}

impl Budget {
    /// A budget of `cap` bytes.
    pub fn new(cap: usize) -> Arc<Budget> {
        Arc::new(Budget { cap, used: Default::default() })
    }

    /// The writer of the stream at `index` holds so much.
    pub fn holds(&self, index: usize, bytes: usize) {
        self.used[index].store(bytes, Relaxed);
    }

    /// Whether they hold too much together, and that one the most.
    pub fn must_flush(&self, index: usize) -> bool {
        let used: Vec<usize> = self.used.iter().map(|used| used.load(Relaxed)).collect();
        used.iter().sum::<usize>() > self.cap && used.iter().max() == used.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_cap_who_holds_the_most_flushes_and_no_other() {
        let budget = Budget::new(10);
        budget.holds(0, 4);
        budget.holds(1, 6);
        assert!((0..STREAMS).all(|index| !budget.must_flush(index)), "the cap is not passed");
        budget.holds(1, 7);
        assert_eq!([0, 1, 2].map(|index| budget.must_flush(index)), [false, true, false]);
    }
}
