//! The bucket's own rules of what it deletes, and whether Tickmint can live with them.
//!
//! Bronze is kept for two years and may then be deleted by the bucket ([`retention`](super::retention) tells that from a
//! loss). The commit chain is for ever: each slot hands on what the next one goes on from, and where one is missing the chain
//! would fork. Nothing here changes a rule.

use std::ops::Range;

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule, LifecycleRuleFilter};

use super::{Failure, S3Store};
use crate::io::store::{CHAINS, StoreError};

/// Two years: so long Bronze is promised to be there.
pub const KEEP_DAYS: u32 = 730;
/// Where the rules are explained, with an example.
const MANUAL: &str = "docs/bucket.md";
/// What may expire in the end, below the store's prefix.
const DATA: [&str; 2] = ["bronze/raw/", "bronze/typed/"];

/// A rule that deletes objects. (On a bucket with versions it puts a delete marker on them, which is the same to a reader.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name; a server may have given it.
    pub id: String,
    /// It concerns the objects whose keys begin so; empty: all of them.
    pub prefix: String,
    /// When.
    pub expires: Expires,
    /// It concerns objects of so many bytes.
    pub bytes: Range<u64>,
}

/// When a rule deletes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expires {
    /// So many days after it was written.
    After(u32),
    /// On that day, and from then on whatever is written.
    On(String),
}

/// What a bucket's rules do to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What must be changed, each with the rule and the cure.
    pub faults: Vec<String>,
    /// How long the data are kept.
    pub kept: String,
}

/// Judges the rules of a bucket for a store below `prefix`, which is empty or ends with a slash.
pub fn judge(rules: &[Rule], prefix: &str) -> Judgement {
    let mut faults = Vec::new();
    for rule in rules {
        let chains = format!("{prefix}{CHAINS}");
        if rule.concerns(&chains) {
            faults.push(format!(
                "{rule} deletes the commit chain below `{chains}`, which must be kept for ever: without its slots the archive is lost; \
                 limit the rule to `{prefix}{}` and one like it to `{prefix}{}` (see {MANUAL}), or remove it",
                DATA[0], DATA[1]
            ));
        }
        let data: Vec<_> = DATA.iter().map(|folder| format!("{prefix}{folder}")).filter(|folder| rule.concerns(folder)).collect();
        if !data.is_empty() && rule.days() < KEEP_DAYS {
            faults.push(format!(
                "{rule} deletes Bronze below `{}`, which must be kept for {KEEP_DAYS} days; raise its days to {KEEP_DAYS} or more, or \
                 remove it (see {MANUAL})",
                data.join("` and `")
            ));
        }
    }
    let kept = match DATA.map(|folder| (folder, first_to_delete(rules, &format!("{prefix}{folder}")))) {
        [(_, None), (_, None)] => "no rule deletes objects: they are kept for ever".to_string(),
        kept => {
            let text = kept.map(|(folder, rule)| match rule {
                Some(rule) => format!("`{folder}` is kept for {} days by {rule}", rule.days()),
                None => format!("`{folder}` is kept for ever"),
            });
            format!("{}; `{CHAINS}` is kept for ever", text.join(", "))
        }
    };
    Judgement { faults, kept }
}

/// The rule that deletes something of a folder first.
fn first_to_delete<'a>(rules: &'a [Rule], folder: &str) -> Option<&'a Rule> {
    rules.iter().filter(|rule| rule.concerns(folder)).min_by_key(|rule| rule.days())
}

impl Rule {
    /// What deletes objects that have no tags, as ours; of any size, as ours may have any. None of a rule that does not.
    fn of(rule: &LifecycleRule) -> Option<Rule> {
        if *rule.status() != ExpirationStatus::Enabled {
            return None;
        }
        let expiration = rule.expiration()?;
        let expires = match (expiration.days(), expiration.date()) {
            (Some(days), _) if days > 0 => Expires::After(days.unsigned_abs()),
            (_, Some(date)) => Expires::On(day(date)),
            // Old delete markers only; some servers tell of 0 days then.
            _ => return None,
        };
        let prefix = match rule.filter() {
            Some(filter) if has_tags(filter) => return None,
            Some(filter) => filter.prefix().or_else(|| filter.and()?.prefix()),
            None => None,
        };
        #[expect(deprecated, reason = "how rules were written until 2016, and some still are")]
        let prefix = prefix.or_else(|| rule.prefix()).unwrap_or_default();
        let bytes = rule.filter().map_or(0..u64::MAX, sizes);
        Some(Rule { id: rule.id().unwrap_or_default().to_string(), prefix: prefix.to_string(), expires, bytes })
    }

    /// Whether it deletes, in the end, an object of this key and size.
    pub(super) fn covers(&self, key: &str, bytes: u64) -> bool {
        key.starts_with(&self.prefix) && self.bytes.contains(&bytes)
    }

    /// Whether there may be objects in the folder that it deletes.
    pub(super) fn concerns(&self, folder: &str) -> bool {
        folder.starts_with(&self.prefix) || self.prefix.starts_with(folder)
    }

    /// How old an object gets at least. A day in the calendar comes for one that was written the day before.
    fn days(&self) -> u32 {
        match self.expires {
            Expires::After(days) => days,
            Expires::On(_) => 0,
        }
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let when = match &self.expires {
            Expires::After(days) => format!("after {days} days"),
            Expires::On(day) => format!("on {day}"),
        };
        write!(f, "rule `{}` (prefix `{}`, {when})", self.id, self.prefix)
    }
}

fn has_tags(filter: &LifecycleRuleFilter) -> bool {
    filter.tag().is_some() || filter.and().is_some_and(|and| !and.tags().is_empty())
}

/// Objects of these sizes a filter lets through; itself it counts neither bound.
fn sizes(filter: &LifecycleRuleFilter) -> Range<u64> {
    let and = filter.and();
    let above = filter.object_size_greater_than().or_else(|| and?.object_size_greater_than());
    let below = filter.object_size_less_than().or_else(|| and?.object_size_less_than());
    let bound = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    above.map_or(0, |bytes| bound(bytes).saturating_add(1))..below.map_or(u64::MAX, bound)
}

fn day(date: &DateTime) -> String {
    let text = date.fmt(DateTimeFormat::DateTime).unwrap_or_else(|_| date.to_string());
    text.split_once('T').map_or(text.clone(), |(day, _)| day.to_string())
}

impl S3Store {
    /// The bucket's rules, judged for this store.
    ///
    /// # Errors
    /// They are not known: the server has no such thing, does not let us see them, or does not answer.
    pub async fn lifecycle(&self) -> Result<Judgement, StoreError> {
        Ok(judge(&self.rules().await?, &self.config.prefix))
    }

    /// Those of the bucket's rules that delete objects like ours.
    ///
    /// # Errors
    /// See [`lifecycle`](S3Store::lifecycle).
    pub async fn rules(&self) -> Result<Vec<Rule>, StoreError> {
        let bucket = &self.config.bucket;
        let answer = async {
            match self.client().await.get_bucket_lifecycle_configuration().bucket(bucket).send().await {
                Ok(answer) => Ok(answer.rules().iter().filter_map(Rule::of).collect()),
                Err(error) => match self.failed("lifecycle", bucket, error) {
                    failure if failure.code == "NoSuchLifecycleConfiguration" => Ok(Vec::new()),
                    failure => Err(failure.into_unknown_rules()),
                },
            }
        };
        self.in_time("lifecycle", bucket, 0, answer).await
    }
}

impl Failure {
    /// Other rights are needed for this than for objects, and it is no fault not to have them.
    fn into_unknown_rules(self) -> StoreError {
        let Failure { operation, key, status, error, .. } = self;
        let said = status.map_or(error.clone(), |status| format!("{status} {error}"));
        let reason = match status {
            Some(403) => format!("no right to see them; allow these credentials s3:GetLifecycleConfiguration ({said})"),
            Some(405 | 501) => format!("this server has none to be asked for ({said})"),
            _ => return StoreError::Retry { operation, key, reason: said },
        };
        StoreError::Refused { operation, key, reason }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{LifecycleExpiration, LifecycleRuleAndOperator, NoncurrentVersionExpiration, Tag};
    use proptest::prelude::*;

    use super::*;

    fn rule(prefix: &str, days: u32) -> Rule {
        Rule { id: "r".into(), prefix: prefix.into(), expires: Expires::After(days), bytes: 0..u64::MAX }
    }

    #[test]
    fn what_deletes_the_chain_or_deletes_bronze_too_early_is_a_fault_with_its_rule_and_its_cure() {
        let chain = |fault: &str| fault.contains("commit chain");
        for (rules, faults) in [
            (vec![], vec![]),
            (vec![rule("lake/bronze/raw/", 731), rule("lake/bronze/typed/", 730)], vec![]),
            (vec![rule("lake/_complete/", 1), rule("lake/_probe/", 1), rule("other/", 1), rule("lake-2/", 1)], vec![]),
            (vec![rule("lake/bronze/raw/", 729)], vec![false]),
            (vec![rule("lake/bronze/raw/trades/2026/", 30)], vec![false]),
            (vec![rule("lake/bronze/", 90)], vec![false]),
            (vec![rule("lake/_commit/", 9999)], vec![true]),
            (vec![rule("lake/_c", 9999)], vec![true]),
            (vec![rule("lake/_commit/trades/p0/", 9999)], vec![true]),
            (vec![rule("lake/", 731)], vec![true]),
            (vec![rule("", 30), rule("lake/bronze/typed/", 7)], vec![true, false, false]),
            (vec![Rule { expires: Expires::On("2030-01-01".into()), ..rule("lake/bronze/", 0) }], vec![false]),
        ] {
            let judged = judge(&rules, "lake/");
            assert_eq!(judged.faults.iter().map(|fault| chain(fault)).collect::<Vec<_>>(), faults, "{rules:?}: {judged:#?}");
        }
        let told = judge(&[rule("lake/bronze/", 90)], "lake/").faults.concat();
        let parts =
            ["rule `r` (prefix `lake/bronze/`, after 90 days)", "`lake/bronze/raw/` and `lake/bronze/typed/`", "to 730 or"];
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        let told = judge(&[rule("", 9999)], "lake/").faults.concat();
        let parts = ["rule `r` (prefix ``, after 9999 days)", "`lake/_commit/`", "limit the rule to `lake/bronze/raw/`"];
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }

    #[test]
    fn it_is_said_how_long_what_is_kept() {
        assert_eq!(judge(&[rule("elsewhere/", 1)], "").kept, "no rule deletes objects: they are kept for ever");
        let rules = [rule("bronze/raw/", 900), Rule { id: "sooner".into(), ..rule("bronze/raw/", 731) }];
        assert_eq!(
            judge(&rules, "").kept,
            "`bronze/raw/` is kept for 731 days by rule `sooner` (prefix `bronze/raw/`, after 731 days), `bronze/typed/` is kept for \
             ever; `_commit/` is kept for ever"
        );
    }

    /// A rule of the SDK's, which begins as one that deletes everything after a day.
    fn asked(change: impl FnOnce(aws_sdk_s3::types::builders::LifecycleRuleBuilder) -> LifecycleRule) -> Option<Rule> {
        let expiration = LifecycleExpiration::builder().days(1).build();
        Rule::of(&change(LifecycleRule::builder().id("r").status(ExpirationStatus::Enabled).expiration(expiration)))
    }

    #[test]
    fn a_rule_is_read_in_each_of_the_ways_in_which_it_is_written() {
        let filter = |prefix: &str| LifecycleRuleFilter::builder().prefix(prefix).build();
        let and = |and| LifecycleRuleFilter::builder().and(and).build();
        let tag = Tag::builder().key("k").value("v").build().unwrap();
        assert_eq!(asked(|r| r.build().unwrap()), Some(rule("", 1)));
        assert_eq!(asked(|r| r.filter(filter("a/")).build().unwrap()), Some(rule("a/", 1)));
        #[expect(deprecated, reason = "it is tested")]
        let old = asked(|r| r.prefix("a/").build().unwrap());
        assert_eq!(old, Some(rule("a/", 1)));
        let large = LifecycleRuleAndOperator::builder().prefix("a/").object_size_greater_than(9);
        let only = |bytes| Some(Rule { bytes, ..rule("a/", 1) });
        assert_eq!(asked(|r| r.filter(and(large.clone().build())).build().unwrap()), only(10..u64::MAX));
        let between = large.clone().object_size_less_than(20);
        assert_eq!(asked(|r| r.filter(and(between.build())).build().unwrap()), only(10..20));
        let small = LifecycleRuleFilter::builder().prefix("a/").object_size_less_than(20).build();
        assert_eq!(asked(|r| r.filter(small).build().unwrap()), only(0..20));
        assert_eq!(asked(|r| r.filter(and(large.tags(tag.clone()).build())).build().unwrap()), None, "our objects have no tags");
        assert_eq!(asked(|r| r.filter(LifecycleRuleFilter::builder().tag(tag).build()).build().unwrap()), None);
        assert_eq!(asked(|r| r.status(ExpirationStatus::Disabled).build().unwrap()), None);
        let markers = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
        assert_eq!(asked(|r| r.expiration(markers).build().unwrap()), None);
        let noncurrent = NoncurrentVersionExpiration::builder().noncurrent_days(1).build();
        let noncurrent = LifecycleRule::builder().noncurrent_version_expiration(noncurrent);
        assert_eq!(Rule::of(&noncurrent.status(ExpirationStatus::Enabled).build().unwrap()), None);
        let date = LifecycleExpiration::builder().date(DateTime::from_secs(1_893_456_000)).build();
        let on = Expires::On("2030-01-01".into());
        assert_eq!(asked(|r| r.expiration(date).build().unwrap()), Some(Rule { expires: on, ..rule("", 1) }));
    }

    /// Keys as they are in a bucket with a store below `prefix`, and what may be deleted of them, by the words of the promise.
    fn keys(prefix: &str) -> Vec<(String, Option<u32>)> {
        let of = |key: &str, least| (format!("{prefix}{key}"), least);
        vec![
            of("_commit/trades/p0/999-998.json", None),
            of("_commit/gaps/p11/999-998.json", None),
            of("bronze/raw/trades/2026/11/23/20/p0-g1-0-9-abcdef01.jsonl.zst", Some(730)),
            of("bronze/typed/quarantine/2026/11/23/20/p0-g1-0-9-abcdef01.parquet", Some(730)),
        ]
    }

    proptest! {
        /// Whatever the rules are: if none is a fault, no key is deleted before its time; and each fault deletes some key.
        #[test]
        fn rules_without_a_fault_delete_nothing_before_its_time(
            prefix in prop::sample::select(vec!["", "lake/", "a/lake/"]),
            written in prop::collection::vec((0usize..5, 0usize..70, 0u32..1500), 0..4),
        ) {
            let keys = keys(prefix);
            let cut = |(key, length): (usize, usize)| {
                let key = keys.get(key).map_or("elsewhere/than/this", |(key, _)| key);
                key[..length.min(key.len())].to_string()
            };
            let rules: Vec<_> = written.iter().map(|(key, length, days)| rule(&cut((*key, *length)), *days)).collect();
            let breaks = |rule: &Rule| keys.iter().any(|(key, least)| {
                key.starts_with(&rule.prefix) && least.is_none_or(|least| rule.days() < least)
            });
            let judged = judge(&rules, prefix);
            prop_assert_eq!(judged.faults.is_empty(), !rules.iter().any(breaks), "{:?} {:?}", rules, judged);
            for rule in &rules {
                prop_assert_eq!(judge(std::slice::from_ref(rule), prefix).faults.is_empty(), !breaks(rule), "{:?}", rule);
            }
        }
    }
}
