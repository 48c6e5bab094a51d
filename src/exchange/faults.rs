//! What shall go wrong, as written on the command line: `drop=0.001,stall=0.0005:5s,refuse=0.1:401`.
//!
//! A kind is a row of [`KINDS`]: its name, what it takes behind the probability, what it does.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What may stand behind a probability, with the value if nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Duration(Duration),
    Status(u16),
    Bytes(u64),
}

const KINDS: [(&str, Takes); 13] = [
    ("drop", Takes::Nothing),
    ("stall", Takes::Duration(Duration::from_secs(5))),
    ("repeat", Takes::Nothing),
    ("late", Takes::Duration(Duration::from_secs(60))),
    ("shuffle", Takes::Nothing),
    ("malformed", Takes::Nothing),
    ("mutated", Takes::Nothing),
    ("binary", Takes::Nothing),
    ("unknown", Takes::Nothing),
    ("absurd", Takes::Nothing),
    ("oversize", Takes::Bytes(1536 << 10)),
    ("error", Takes::Nothing),
    ("refuse", Takes::Status(503)),
];

/// What each kind does: for `--help`.
pub const FAULTS_HELP: &str = "\
Faults (--faults NAME=PROBABILITY[:VALUE],...): each is drawn for every frame of every connection,
by --seed and the connection's number. Extra frames come beside the real one and, but for
mutated ones, hold no valid trade.
  drop=P             cut the connection (half of the time with a close frame) instead of sending
  stall=P[:TIME]     the socket stays open and silent, no pings, no pongs (5s); at market speed what
                     comes meanwhile is lost, at max the tape waits
  repeat=P           send the frame twice, byte for byte
  late=P[:TIME]      hold the frame back for up to TIME of the market's clock (60s)
  shuffle=P          change the order of the trades in the frame, or of the frame and the next
  malformed=P        an extra frame that is broken: cut off, wrong types, huge numbers, nested
  mutated=P          an extra copy of the frame with a few bytes changed, put in, taken out or cut off; the
                     ledger says how many trades it still holds
  binary=P           an extra binary message that is not UTF-8
  unknown=P          an extra frame of an unknown type or with a symbol that nobody asked for
  absurd=P           an extra frame whose one trade has an impossible price or size
  oversize=P[:SIZE]  an extra frame of SIZE bytes (1536KiB)
  error=P            an extra error message
  refuse=P[:STATUS]  refuse the handshake (503); drawn for each handshake";

/// How often each kind of fault is to happen, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    probabilities: [f64; KINDS.len()],
    values: [Takes; KINDS.len()],
}

impl Default for Faults {
    /// None at all.
    fn default() -> Faults {
        Faults { probabilities: [0.0; KINDS.len()], values: KINDS.map(|(_, takes)| takes) }
    }
}

/// A part of a specification that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{part}`: {fault}")]
pub struct FaultsError {
    part: String,
    fault: String,
}

impl Faults {
    /// How often `name`, which must be in the table.
    pub(super) fn probability(&self, name: &str) -> f64 {
        self.probabilities[index(name).expect("names in the code are in the table")]
    }

    /// Whether nothing at all goes wrong.
    pub(super) fn are_none(&self) -> bool {
        self.probabilities.iter().all(|&probability| probability == 0.0)
    }

    pub(super) fn stall_time(&self) -> Duration {
        self.time("stall")
    }

    pub(super) fn late_time(&self) -> Duration {
        self.time("late")
    }

    pub(super) fn oversize_bytes(&self) -> usize {
        match self.value("oversize") {
            Takes::Bytes(bytes) => bytes as usize,
            other => unreachable!("oversize takes bytes, not {other:?}"),
        }
    }

    pub(super) fn refuse_status(&self) -> u16 {
        match self.value("refuse") {
            Takes::Status(status) => status,
            other => unreachable!("refuse takes a status, not {other:?}"),
        }
    }

    fn time(&self, name: &str) -> Duration {
        match self.value(name) {
            Takes::Duration(time) => time,
            other => unreachable!("{name} takes a duration, not {other:?}"),
        }
    }

    fn value(&self, name: &str) -> Takes {
        self.values[index(name).expect("names in the code are in the table")]
    }
}

fn index(name: &str) -> Option<usize> {
    KINDS.iter().position(|(known, _)| *known == name)
}

impl FromStr for Faults {
    type Err = FaultsError;

    fn from_str(spec: &str) -> Result<Faults, FaultsError> {
        let mut faults = Faults::default();
        let mut given = [false; KINDS.len()];
        for part in spec.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = |fault: String| FaultsError { part: part.to_owned(), fault };
            let (name, rest) = part.split_once('=').unwrap_or((part, ""));
            let names = || KINDS.map(|(name, _)| name).join(", ");
            let index = index(name).ok_or_else(|| wrong(format!("unknown fault `{name}`; there are {}", names())))?;
            let (probability, value) = match rest.split_once(':') {
                Some((probability, value)) => (probability, Some(value)),
                None => (rest, None),
            };
            let parsed = probability.parse().ok().filter(|probability| (0.0..=1.0).contains(probability));
            faults.probabilities[index] = parsed
                .ok_or_else(|| wrong(format!("the probability is `{probability}`, must be from 0 to 1, as in `{name}=0.01`")))?;
            if let Some(value) = value {
                faults.values[index] =
                    KINDS[index].1.parse(value).map_err(|wanted| wrong(format!("the value is `{value}`, {wanted}")))?;
            }
            if std::mem::replace(&mut given[index], true) {
                return Err(wrong(format!("`{name}` is given twice")));
            }
        }
        Ok(faults)
    }
}

impl Takes {
    /// Reads a value of this kind, or says what is wanted.
    fn parse(self, value: &str) -> Result<Takes, &'static str> {
        match self {
            Takes::Nothing => Err("but this fault takes none"),
            Takes::Duration(_) => duration(value).map(Takes::Duration).ok_or("must be a duration such as 500ms, 5s, 10m or 1h"),
            Takes::Status(_) => value
                .parse()
                .ok()
                .filter(|status| (400..=599).contains(status))
                .map(Takes::Status)
                .ok_or("must be an HTTP status from 400 to 599, such as 401, 429 or 503"),
            Takes::Bytes(_) => with_unit(value, &[("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)])
                .filter(|bytes| (1..=64 << 20).contains(bytes))
                .map(Takes::Bytes)
                .ok_or("must be a size up to 64MiB, such as 1536KiB or 2MiB"),
        }
    }
}

/// Reads `500ms`, `5s`, `10m`, `1h`.
pub fn duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    with_unit(text, &units).map(Duration::from_millis)
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, factor) = units.iter().find(|(unit, _)| *unit == &text[digits.len()..])?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_none() {
            return f.write_str("none");
        }
        let given = KINDS.iter().zip(self.probabilities).zip(self.values).filter(|((_, probability), _)| *probability > 0.0);
        for (place, (((name, _), probability), value)) in given.enumerate() {
            write!(f, "{}{name}={probability}", if place == 0 { "" } else { "," })?;
            match value {
                Takes::Nothing => {}
                Takes::Duration(time) => write!(f, ":{}ms", time.as_millis())?,
                Takes::Status(status) => write!(f, ":{status}")?,
                Takes::Bytes(bytes) => write!(f, ":{bytes}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_says_what_and_how_often() {
        let faults: Faults = "drop=0.001, stall=0.0005:500ms,late=0.02:10m,refuse=1:429,oversize=1:2MiB,".parse().unwrap();
        assert_eq!(faults.probability("drop"), 0.001);
        assert_eq!(faults.probability("repeat"), 0.0);
        assert_eq!(faults.stall_time(), Duration::from_millis(500));
        assert_eq!(faults.late_time(), Duration::from_secs(600));
        assert_eq!((faults.refuse_status(), faults.oversize_bytes()), (429, 2 << 20));
        assert_eq!(faults.to_string().parse(), Ok(faults));
        assert!("".parse::<Faults>().unwrap().are_none());
    }

    #[test]
    fn an_error_names_the_part_the_value_and_what_would_do() {
        let fault = |spec: &str| spec.parse::<Faults>().unwrap_err().to_string();
        let unknown = fault("drop=0.1,stal=0.1");
        assert!(unknown.starts_with("`stal=0.1`: unknown fault `stal`; there are drop, stall, repeat"), "{unknown}");
        assert!(fault("drop=2").contains("the probability is `2`, must be from 0 to 1"));
        assert!(fault("drop").contains("the probability is ``"));
        assert!(fault("drop=NaN").contains("from 0 to 1"));
        assert!(fault("stall=0.1:5").contains("the value is `5`, must be a duration such as 500ms"));
        assert!(fault("refuse=0.1:200").contains("the value is `200`, must be an HTTP status"));
        assert!(fault("drop=0.1:5s").contains("takes none"));
        assert!(fault("drop=0.1,drop=0.2").contains("twice"));
    }

    #[test]
    fn every_kind_is_in_the_help() {
        for (name, _) in KINDS {
            assert!(FAULTS_HELP.contains(&format!("\n  {name}=P")), "{name}");
        }
    }
}
