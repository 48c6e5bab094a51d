//! Real servers and the things that make them fail.

pub(crate) mod bucket;
pub mod disk;
pub(crate) mod http;
pub mod kafka;
mod process;
pub mod python;
pub mod registry;
pub mod s3_proxy;
pub mod servers;
pub mod toxiproxy;
pub(crate) mod witness;

/// How much of something a test is to do: what that variable says, or `default`.
pub(crate) fn amount(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Prints a line of what a test has counted, and adds it to the file that `TICKMINT_SUMMARY` names: also of a test that
/// succeeds it is to be seen.
pub(crate) fn summary(line: &str) {
    println!("{line}");
    if let Ok(path) = std::env::var("TICKMINT_SUMMARY") {
        let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
    }
}
