//! What a person should look at: raised by who finds out, cleared by who finds it well again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

/// Something is wrong that no restart cures, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What is concerned: `feed/shard-1`, `bronze/trades`, `spool`, `warehouse`.
    pub name: String,
    /// Since when, in milliseconds of Unix time.
    pub since_ms: u64,
    /// Why, as of last time it was found wrong.
    pub why: String,
}

/// All that is wrong now. Cheap to clear what was never raised.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<String, Alarm>>);

impl Alarms {
    /// Something is wrong, or still is: then it keeps its beginning.
    pub fn raise(&self, name: &str, why: impl Into<String>) {
        self.raise_since(name, unix_ms(), why);
    }

    /// As [`Alarms::raise`], where it is known since when; an earlier beginning stays.
    pub fn raise_since(&self, name: &str, since_ms: u64, why: impl Into<String>) {
        let (mut alarms, why) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), why.into());
        match alarms.get_mut(name) {
            Some(alarm) => (alarm.since_ms, alarm.why) = (alarm.since_ms.min(since_ms), why),
            None => drop(alarms.insert(name.into(), Alarm { name: name.into(), since_ms, why })),
        }
    }

    /// It is well again.
    pub fn clear(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Alarm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Now, in milliseconds of Unix time.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_keeps_its_beginning_until_it_is_cleared() {
        let alarms = Alarms::default();
        alarms.clear("spool");
        alarms.raise("bronze/trades", "no route");
        let since = alarms.list()[0].since_ms;
        alarms.raise("bronze/trades", "still no route");
        alarms.raise("a", "x");
        let list = alarms.list();
        assert_eq!(list.iter().map(|alarm| alarm.name.as_str()).collect::<Vec<_>>(), ["a", "bronze/trades"]);
        assert_eq!((list[1].since_ms, list[1].why.as_str()), (since, "still no route"));
        alarms.clear("a");
        alarms.clear("bronze/trades");
        assert_eq!(alarms.list(), []);
    }
}
