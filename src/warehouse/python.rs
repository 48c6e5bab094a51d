//! The Python that has dbt: made once from the hash-pinned requirements, in the user's cache, and
//! found again by the hash of that file.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::domain::object::hex;

/// The oldest and the newest minor version of Python 3 that the pinned packages are made for.
const MINOR: std::ops::RangeInclusive<u32> = 11..=12;

/// Why there is no Python to run dbt with.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// None of the names that were tried is a usable Python.
    #[error(
        "no usable Python found ({tried}): the warehouse needs Python 3.11 or 3.12 with the venv module \
         (Debian: apt-get install python3 python3-venv); or set `warehouse.python` to one that has the packages of {requirements}"
    )]
    Missing {
        /// What was tried, and what it said.
        tried: String,
        /// The file of pinned packages.
        requirements: String,
    },
    /// The project's folder has no requirements.
    #[error("`warehouse.project_dir` is `{0}`, which holds no requirements.txt: set it to the dbt folder of the source tree")]
    NoProject(String),
    /// The packages could not be installed.
    #[error("the Python packages of {requirements} could not be installed into {venv}: {reason}")]
    Install {
        /// The file of pinned packages.
        requirements: String,
        /// Where to.
        venv: String,
        /// The end of what pip said.
        reason: String,
    },
    /// There is one, and it cannot run dbt.
    #[error(
        "`{python}` cannot run dbt ({reason}): install the packages of {requirements} there, \
         or remove `warehouse.python`, and one that has them is made"
    )]
    Unusable {
        /// Which Python.
        python: String,
        /// What it said.
        reason: String,
        /// The file of pinned packages.
        requirements: String,
    },
    /// A service without a home.
    #[error(
        "neither `XDG_CACHE_HOME` nor `HOME` says where a Python environment may be kept: set one of them, or `warehouse.python` \
         to a Python that has the packages"
    )]
    NoCache,
    /// A folder or a process.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// The interpreter for the dbt project in `project_dir`; made now if it is not there yet, which
/// takes about half a minute and is told through `progress`.
pub async fn find_or_make(project_dir: &Path, progress: impl Fn(&str)) -> Result<PathBuf, PythonError> {
    let requirements = project_dir.join("requirements.txt");
    let text = std::fs::read(&requirements).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => PythonError::NoProject(project_dir.display().to_string()),
        _ => PythonError::Io(requirements.display().to_string(), error),
    })?;
    let hash = &hex(&Sha256::digest(&text))[..12];
    let venv = cache_dir()?.join(format!("python-{hash}"));
    let python = venv.join("bin/python");
    if venv.join("complete").exists() {
        return Ok(python);
    }
    let base = base_python(&requirements).await?;
    progress("installing dbt and DuckDB into a Python environment of our own (once)");
    let io = |what: &Path| {
        let what = what.display().to_string();
        move |error| PythonError::Io(what, error)
    };
    std::fs::create_dir_all(cache_dir()?).map_err(io(&cache_dir()?))?;
    // Two that start at once: each builds its own, and the first to rename wins.
    let building = cache_dir()?.join(format!("python-building-{hash}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&building));
    run(Command::new(&base).args(["-m", "venv"]).arg(&building), &requirements, &building).await?;
    let mut pip = Command::new(building.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--require-hashes", "-r"]);
    run(pip.arg(&requirements), &requirements, &building).await?;
    std::fs::write(building.join("complete"), b"").map_err(io(&building))?;
    if std::fs::rename(&building, &venv).is_err() {
        drop(std::fs::remove_dir_all(&building));
    }
    if venv.join("complete").exists() {
        return Ok(python);
    }
    let reason = "another installation stands half made there: remove it".to_string();
    Err(PythonError::Install { requirements: requirements.display().to_string(), venv: venv.display().to_string(), reason })
}

/// The versions of what the refiner needs, as this Python has them.
pub async fn packages(python: &Path, project_dir: &Path) -> Result<String, PythonError> {
    let unusable = |reason: String| PythonError::Unusable {
        python: python.display().to_string(),
        reason,
        requirements: project_dir.join("requirements.txt").display().to_string(),
    };
    let script = "import duckdb, sys; from importlib.metadata import version; \
                  print(f'Python {sys.version.split()[0]}, dbt ' + version('dbt-core'), 'and DuckDB', duckdb.__version__)";
    let mut command = Command::new(python);
    let output = command.args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.map_err(|error| unusable(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_string());
    }
    Err(unusable(last_line(&output.stderr)))
}

/// `$XDG_CACHE_HOME/tickmint`, `~/.cache/tickmint`. What lies there is run, so it is never looked for in a folder that
/// others may write, such as `/tmp`.
fn cache_dir() -> Result<PathBuf, PythonError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    base.map(|base| base.join("tickmint")).ok_or(PythonError::NoCache)
}

async fn base_python(requirements: &Path) -> Result<PathBuf, PythonError> {
    let mut tried = Vec::new();
    for name in ["python3", "python3.11", "python3.12"] {
        let probe = "import sys, venv, ensurepip; print(sys.version_info[1])";
        match Command::new(name).args(["-c", probe]).stdin(Stdio::null()).output().await {
            Ok(output) if output.status.success() => {
                let minor = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().unwrap_or(0);
                if MINOR.contains(&minor) {
                    return Ok(name.into());
                }
                tried.push(format!("{name} is 3.{minor}"));
            }
            Ok(output) => tried.push(format!("{name}: {}", last_line(&output.stderr))),
            Err(error) => tried.push(format!("{name}: {error}")),
        }
    }
    Err(PythonError::Missing { tried: tried.join("; "), requirements: requirements.display().to_string() })
}

async fn run(command: &mut Command, requirements: &Path, venv: &Path) -> Result<(), PythonError> {
    let failed = |reason| PythonError::Install {
        requirements: requirements.display().to_string(),
        venv: venv.display().to_string(),
        reason,
    };
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(last_line(&output.stderr))) }
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_string()
}
