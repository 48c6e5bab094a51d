//! What the bucket's rules may have deleted by now: whether an object that is not there has expired, or is lost.
//!
//! In: the rules as they are today, and how old what is missing is. Nobody can ask the bucket what it has deleted, so a rule that
//! was removed since explains nothing, and one that explains an object may not be what has deleted it.

use super::S3Store;
use super::lifecycle::{Expires, Rule};
use crate::config::StoreConfig;
use crate::domain::chain::ObjectRef;
use crate::domain::hour::Hour;
use crate::domain::identity::Micros;
use crate::domain::stream::{PerStream, Stream};
use crate::io::store::StoreError;

const DAY: Micros = 86_400_000_000;

/// The rules of a store's bucket, at one moment. By default there are none, and nothing expires.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    rules: Vec<Rule>,
    prefix: String,
    now: Micros,
    horizons: PerStream<Option<Micros>>,
    unknown: Option<String>,
}

impl Retention {
    /// Asks the store for its rules. Those that cannot be read explain nothing.
    ///
    /// # Errors
    /// The config makes no store.
    pub async fn read(config: &StoreConfig, now: Micros) -> Result<Retention, StoreError> {
        let StoreConfig::S3(config) = config else { return Ok(Retention::default()) };
        Ok(match S3Store::new(config.clone())?.rules().await {
            Ok(rules) => Retention::new(rules, &config.prefix, now),
            Err(error) => Retention { unknown: Some(error.to_string()), ..Retention::default() },
        })
    }

    /// These rules, for a store below `prefix`, which is empty or ends with a slash.
    pub fn new(rules: Vec<Rule>, prefix: &str, now: Micros) -> Retention {
        let horizon = |stream: Stream| {
            let folder = format!("{prefix}bronze/raw/{stream}/");
            rules.iter().filter(|rule| rule.concerns(&folder)).filter_map(|rule| reach(rule, now)).max()
        };
        Retention { horizons: Stream::ALL.map(horizon), rules, prefix: prefix.to_string(), now, unknown: None }
    }

    /// Why the rules are not known, if they are not.
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    /// Whether a rule may have deleted an object of a slot that was written then.
    pub fn may_have_deleted(&self, object: &ObjectRef, written_at: Micros) -> bool {
        let key = format!("{}{}", self.prefix, object.key);
        let mut rules = self.rules.iter().filter(|rule| rule.covers(&key, object.bytes));
        rules.any(|rule| reach(rule, self.now).is_some_and(|until| written_at <= until))
    }

    /// Behind this moment nothing of the stream's raw objects may have been deleted, so no record that was received later; none
    /// where no rule deletes any.
    pub fn horizon(&self, stream: Stream) -> Option<Micros> {
        self.horizons[stream.index()]
    }
}

/// What was written up to then the rule may have deleted.
///
/// A day more than it says, for what makes an object seem older to the bucket than its slot is to us: its date is that of
/// the object, which is put before the slot, by hours where the store was away; clocks differ; and a server may round
/// down to midnight UTC where S3 rounds up. But half its time at most, else a rule of one day would explain what was lost
/// a minute ago.
fn reach(rule: &Rule, now: Micros) -> Option<Micros> {
    match &rule.expires {
        Expires::After(days) => {
            let age = DAY.saturating_mul(i64::from(*days));
            Some(now.saturating_sub(age).saturating_add(DAY.min(age / 2)))
        }
        // An hour's text begins with its day, so on that day it is already the greater one.
        Expires::On(day) => (Hour::of(now).to_string() > *day).then_some(now),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Micros = 1_795_464_000_000_000; // 2026-11-23T20

    fn rule(prefix: &str, expires: Expires) -> Rule {
        Rule { id: "r".into(), prefix: prefix.into(), expires, bytes: 0..u64::MAX }
    }

    fn after(prefix: &str, days: u32) -> Rule {
        rule(prefix, Expires::After(days))
    }

    fn object(key: &str) -> ObjectRef {
        ObjectRef { key: key.into(), bytes: 1000, sha256: String::new() }
    }

    const RAW: &str = "bronze/raw/trades/2024/11/20/09/p0-g1-0-9-abcdef01.jsonl.zst";
    const TYPED: &str = "bronze/typed/trades/2024/11/20/09/p0-g1-0-9-abcdef01.parquet";

    /// Whether of an object that was written so many days ago these rules explain that it is gone.
    fn is_explained(rules: Vec<Rule>, key: &str, days_ago: i64) -> bool {
        Retention::new(rules, "lake/", NOW).may_have_deleted(&object(key), NOW - days_ago * DAY)
    }

    #[test]
    fn only_a_rule_that_covers_the_key_and_whose_days_have_passed_explains_that_an_object_is_gone() {
        for (rules, key, days_ago, is) in [
            (vec![], RAW, 9999, false),
            (vec![after("lake/bronze/raw/", 731)], RAW, 732, true),
            (vec![after("lake/bronze/raw/", 731)], RAW, 729, false),
            (vec![after("lake/bronze/raw/", 731)], TYPED, 9999, false),
            (vec![after("bronze/raw/", 731)], RAW, 9999, false),
            (vec![after("", 731)], TYPED, 732, true),
            (vec![after("lake/bronze/raw/trades/2024/11/", 731)], RAW, 732, true),
            (vec![after("lake/bronze/raw/trades/2024/12/", 731)], RAW, 732, false),
            (vec![after("lake/", 900), after("lake/bronze/", 100)], RAW, 200, true),
            (vec![Rule { bytes: 0..1000, ..after("lake/", 100) }], RAW, 200, false),
            (vec![Rule { bytes: 1000..1001, ..after("lake/", 100) }], RAW, 200, true),
            (vec![rule("lake/", Expires::On("2026-11-23".into()))], RAW, 0, true),
            (vec![rule("lake/", Expires::On("2026-11-24".into()))], RAW, 9999, false),
            (vec![after("", u32::MAX)], RAW, 9999, false),
        ] {
            assert_eq!(is_explained(rules.clone(), key, days_ago), is, "{rules:?} {key} {days_ago}");
        }
        let hours_ago =
            |hours| Retention::new(vec![after("", 1)], "", NOW).may_have_deleted(&object(RAW), NOW - hours * DAY / 24);
        assert_eq!([11, 12].map(hours_ago), [false, true], "a rule of a day does not explain what was lost in an hour");
    }

    /// S3's own words: so many days after the object's date, rounded up to the next midnight UTC.
    fn deleted_at(days: u32, put_at: Micros) -> Micros {
        ((put_at + i64::from(days) * DAY) / DAY + 1) * DAY
    }

    proptest! {
        #[test]
        fn what_s3_has_deleted_is_explained_and_what_is_far_too_young_is_not(
            days in 1u32..1500,
            early in 0..DAY / 2,
            written_at in NOW - 1000 * DAY..NOW,
            late in 0..3 * DAY,
        ) {
            // Put before the slot was written, by less than half a day.
            let now = deleted_at(days, written_at - early) + late;
            let says = |now| Retention::new(vec![after("", days)], "", now).may_have_deleted(&object(RAW), written_at);
            prop_assert!(says(now));
            prop_assert!(!says(written_at + i64::from(days) * DAY - DAY.min(i64::from(days) * DAY / 2) - 1));
        }

        /// So a record that was received behind its stream's horizon is in no object that has expired.
        #[test]
        fn what_is_explained_lies_before_the_horizon(
            rules in prop::collection::vec((0usize..70, 1u32..1500, any::<bool>()), 0..4),
            written_at in NOW - 2000 * DAY..NOW,
        ) {
            let key = format!("lake/{RAW}");
            let rule = |(length, days, on): &(usize, u32, bool)| {
                let expires = if *on { Expires::On(format!("{}-01-01", 2025 + days % 4)) } else { Expires::After(*days) };
                rule(&key[..(*length).min(key.len())], expires)
            };
            let retention = Retention::new(rules.iter().map(rule).collect(), "lake/", NOW);
            let is_explained = retention.may_have_deleted(&object(RAW), written_at);
            prop_assert!(!is_explained || retention.horizon(Stream::Trades) >= Some(written_at));
            prop_assert!(retention.horizon(Stream::Trades).is_some() || !is_explained);
        }
    }
}
