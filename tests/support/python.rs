//! The Python environments that tests need: the daemon's own, and one that has pytest besides.

#![allow(unreachable_pub, reason = "for the other tests, and for nobody else")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tickmint::warehouse::python::find_or_make;

use super::servers::{Skip, is_required, or_skip};

/// Threads of one process would build in one folder.
static BUILDING: Mutex<()> = Mutex::new(());

/// A command for the interpreter with the packages of `folder`/requirements.txt, at the root of the
/// project. Where they cannot be had, the test is skipped; with `TICKMINT_REQUIRE_PARTS=1` it fails.
pub fn python(folder: &str) -> Result<Command, Skip> {
    let python = find(folder).map_err(|reason| {
        assert!(!is_required(), "{reason}");
        Skip(reason)
    })?;
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(env!("CARGO_MANIFEST_DIR"));
    Ok(command)
}

/// Runs a file of tests with pytest. What it skips is skipped here.
pub fn pytest(mut python: Command, file: &str) {
    let output = python.args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--durations=5", file]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    for line in said.lines().filter(|line| line.starts_with("SKIPPED")) {
        or_skip::<()>(Err(Skip(line.trim_start_matches("SKIPPED ").to_string())));
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" passed") || said.contains(" skipped"), "no test was found: {said}");
}

fn find(folder: &str) -> Result<PathBuf, String> {
    let _alone = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let found = tickmint::commands::block_on(find_or_make(&folder, |_| {}));
    found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
