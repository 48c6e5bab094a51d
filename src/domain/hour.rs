//! Archive hours: whole hours of UTC, which name the folders of Bronze.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::identity::Micros;

const HOUR_IN_MICROS: i64 = 3_600_000_000;

/// Hours since the Unix epoch. Written as `2026-11-23T20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hour(pub i64);

impl Hour {
    /// Whether it is to be told, after `told` was. A clock that goes back a little does not turn the hour; one that was far ahead
    /// and was put right does, else nothing would be told before it is there again.
    pub fn turns(self, told: Option<Hour>) -> bool {
        told.is_none_or(|told| self > told || self.0 + 1 < told.0)
    }

    /// The hour that contains this instant.
    pub fn of(at: Micros) -> Hour {
        Hour(at.div_euclid(HOUR_IN_MICROS))
    }

    /// Its first microsecond.
    pub fn begins(self) -> Micros {
        self.0 * HOUR_IN_MICROS
    }

    /// As a folder: `2026/11/23/20`.
    pub fn folder(self) -> String {
        self.civil().strftime("%Y/%m/%d/%H").to_string()
    }

    fn civil(self) -> DateTime {
        let instant = Timestamp::from_second(self.0 * 3600).unwrap_or(if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
        TimeZone::UTC.to_datetime(instant)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.civil().strftime("%Y-%m-%dT%H"))
    }
}

impl FromStr for Hour {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Hour, jiff::Error> {
        let civil = DateTime::strptime("%Y-%m-%dT%H:%M", format!("{text}:00"))?;
        Ok(Hour(civil.to_zoned(TimeZone::UTC)?.timestamp().as_second().div_euclid(3600)))
    }
}

impl Serialize for Hour {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hour {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hour, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_reads_back_from_its_text_and_names_its_folder() {
        let hour = Hour::of(1_795_464_000_000_000 + 59 * 60_000_000);
        assert_eq!(hour.to_string(), "2026-11-23T20");
        assert_eq!(hour.folder(), "2026/11/23/20");
        assert_eq!("2026-11-23T20".parse::<Hour>().unwrap(), hour);
        assert!("2026-11-23".parse::<Hour>().is_err());
    }

    #[test]
    fn hours_before_the_epoch_round_down() {
        assert_eq!(Hour::of(-1).to_string(), "1969-12-31T23");
    }
}
