//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `150s`, `5m`, `24h`, `5ms`, `2d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3600e3,
        "d" => 86_400e3,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number * millis / 1e3))
}

/// Reads `1000000`, `64 MiB`, `8 GiB`, `500 kB`: bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    Some((number * bytes as f64) as u64)
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_nothing_else() {
        assert_eq!(duration("150s"), Some(Duration::from_secs(150)));
        assert_eq!(duration("5 ms"), Some(Duration::from_millis(5)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(size("64 MiB"), Some(64 << 20));
        assert_eq!(size("1000"), Some(1000));
        for text in ["", "5", "s", "-5s", "5 parsecs", "1e3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
        for text in ["", "MiB", "5 mib", "-1"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
