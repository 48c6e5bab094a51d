//! `scripts/cluster-demo`, as a user runs it, in a short form.

use std::path::Path;
use std::process::Command;

use crate::pipeline::rig::TICKMINT;
use crate::support::servers::{free_port_before, or_skip, part};
use crate::support::summary;

/// As many ports behind its base takes `scripts/cluster`.
const PORTS: u16 = 13;

#[test]
fn two_daemons_on_a_cluster_of_this_machine_lose_and_double_nothing() {
    for name in ["kafka", "registry", "minio", "toxiproxy"] {
        if or_skip(part(name)).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster-demo");
    let mut command = Command::new(demo);
    let port = free_port_before(PORTS).to_string();
    command.args(["--for", "10", "--rate", "1000", "--tickmint", TICKMINT, "--base-port", &port, "--dir"]);
    let output = command.arg(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        summary(&format!("cluster-demo FAILED: {:?}", errors.lines().rev().take(8).collect::<Vec<_>>()));
        panic!("{errors}\n{said}");
    }
    let lines = |words: &str| said.lines().filter(|line| line.contains(words)).map(str::trim).collect::<Vec<_>>().join("; ");
    let count = |name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.trim_start().strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {said}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(count("sent") > 1000 && count("archived") > 1000, "{said}");
    assert_eq!([count("lost"), count("duplicated"), count("faults"), count("waiting")], [0; 4], "{said}");
    let counts = ["sent", "archived", "lost", "duplicated"].map(|name| format!("{name} {}", count(name))).join(", ");
    summary(&format!("cluster-demo: {counts}; {}; {}; {}", lines("up after"), lines("two daemons"), lines("all of it took")));
}
