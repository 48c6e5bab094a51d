//! Durations and sizes as people write them: `150s`, `1h 30m`, `64 MiB`.

use std::time::Duration;

const NANOS: &[(&str, u64)] = &[
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
    ("d", 86_400 * 1_000_000_000),
];

const BYTES: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A duration: one or more numbers, each with `ms`, `s`, `m`, `h` or `d`. The error says what a
/// duration looks like.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanos = sum(text, NANOS, |unit, name| unit == name);
    nanos.map(Duration::from_nanos).map_err(|why| match why {
        Malformed::NoUnit(number) => format!("lacks a unit: write `{number}s`, `{number}ms`, `{number}m` or `{number}h`"),
        Malformed::Other => "is not a duration: write such as `250ms`, `150s`, `5m`, `24h` or `1h 30m`".into(),
    })
}

/// A size: a number with `B`, `KiB`, `MiB`, `GiB`, `TiB`, or with `KB`... for powers of ten. The
/// error says what a size looks like.
pub(super) fn size(text: &str) -> Result<u64, String> {
    sum(text, BYTES, |unit, name| unit.eq_ignore_ascii_case(name)).map_err(|why| match why {
        Malformed::NoUnit(number) => {
            format!("lacks a unit: write `{number} B`, `{number} KiB`, `{number} MiB` or `{number} GiB`")
        }
        Malformed::Other => "is not a size: write such as `512 KiB`, `64 MiB` or `8 GiB`".into(),
    })
}

/// A duration as it may be written, in the greatest unit that gives a whole number.
pub(super) fn written(span: Duration) -> String {
    let (number, name) = in_greatest(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX), NANOS);
    format!("{number}{name}")
}

/// A size as it may be written, in the greatest unit with a power of two that gives a whole number.
pub(super) fn size_written(bytes: u64) -> String {
    let (number, name) = in_greatest(bytes, &BYTES[..5]);
    format!("{number} {name}")
}

/// The number in the greatest of these units, the smallest first, that divides it.
fn in_greatest(total: u64, units: &[(&'static str, u64)]) -> (u64, &'static str) {
    let divides = |factor: u64| total >= factor && total.is_multiple_of(factor);
    let (name, factor) = units.iter().rev().find(|(_, factor)| divides(*factor)).unwrap_or(&units[0]);
    (total / factor, name)
}

enum Malformed {
    NoUnit(String),
    Other,
}

fn sum(text: &str, units: &[(&str, u64)], same: impl Fn(&str, &str) -> bool) -> Result<u64, Malformed> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(Malformed::Other);
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.' || c == '_');
        let (unit, behind) = split(behind.trim_start(), |c| c.is_ascii_alphabetic());
        let number = number.replace('_', "");
        if unit.is_empty() && behind.is_empty() && number.parse::<f64>().is_ok() {
            return Err(Malformed::NoUnit(number));
        }
        let (_, factor) = units.iter().find(|(name, _)| same(unit, name)).ok_or(Malformed::Other)?;
        let part = multiply(&number, *factor).ok_or(Malformed::Other)?;
        total = total.checked_add(part).ok_or(Malformed::Other)?;
        rest = behind.trim_start();
    }
    Ok(total)
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Exact for whole numbers; a fraction such as `1.5` is rounded to the nearest.
fn multiply(number: &str, factor: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let product = number.parse::<f64>().ok()? * factor as f64;
    (product < u64::MAX as f64).then(|| product.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for (seconds, text) in [(0, "0ms"), (1, "1s"), (90, "90s"), (3600, "1h"), (366 * 86_400, "366d")] {
            let span = Duration::from_secs(seconds);
            assert_eq!((written(span).as_str(), duration(text)), (text, Ok(span)));
        }
        for (bytes, text) in [(0, "0 B"), (1000, "1000 B"), (1 << 20, "1 MiB"), (3 << 29, "1536 MiB"), (1 << 40, "1 TiB")] {
            assert_eq!((size_written(bytes).as_str(), size(text)), (text, Ok(bytes)));
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let millis = |text| duration(text).unwrap().as_millis();
        assert_eq!(millis("5ms"), 5);
        assert_eq!(millis("150s"), 150_000);
        assert_eq!(millis(" 1.5 s "), 1_500);
        assert_eq!(millis("1h 30m"), 5_400_000);
        assert_eq!(millis("1d"), 86_400_000);
        assert_eq!(duration("150").unwrap_err(), "lacks a unit: write `150s`, `150ms`, `150m` or `150h`");
        for wrong in ["", "s", "5 parsecs", "5s!", "-5s", "99999999999999d", "1.2.3s"] {
            assert!(duration(wrong).unwrap_err().starts_with("is not a duration"), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("64mib"), Ok(64 << 20));
        assert_eq!(size("8GiB"), Ok(8 << 30));
        assert_eq!(size("10_000 KB"), Ok(10_000_000));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert!(size("1024").unwrap_err().starts_with("lacks a unit: write `1024 B`"));
        for wrong in ["", "much", "5 M", "-1 B", "99999999 TiB"] {
            assert!(size(wrong).unwrap_err().starts_with("is not a size"), "{wrong}");
        }
    }
}
