//! What the kernel says of this process.

/// Memory, processor time and files, as far as they can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// User and system time.
    pub(super) cpu_seconds: f64,
    /// Open file descriptors.
    pub(super) open_files: u64,
}

/// Reads `/proc`; what is not there is 0.
pub(super) fn usage() -> Usage {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let (ticks, pages) = fields(&stat).unwrap_or_default();
    let open_files = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64);
    Usage {
        rss_bytes: pages * setting(libc::_SC_PAGESIZE),
        cpu_seconds: ticks as f64 / setting(libc::_SC_CLK_TCK).max(1) as f64,
        open_files,
    }
}

/// Ticks of processor time and resident pages. The program's name, the second field, may hold
/// anything, so the fields are counted from its closing bracket.
fn fields(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some((number(11)? + number(12)?, number(21)?))
}

fn setting(name: libc::c_int) -> u64 {
    // SAFETY: `sysconf` takes a number and returns one.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 4 0 9 1000 250 18446744073709551615";
        assert_eq!(fields(stat), Some((42, 250)));
        assert_eq!(fields(""), None);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage();
        assert!(usage.rss_bytes > 1 << 20 && usage.open_files > 2, "{usage:?}");
    }
}
