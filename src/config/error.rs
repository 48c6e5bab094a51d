//! What is wrong with a config: all of it at once, each with the option, the value and the cure.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line of the option in the file; none for one that is absent.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// The config cannot be used. Never shows a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, if it came from one.
    pub file: Option<PathBuf>,
    /// Never empty, in the order of the lines.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The file itself cannot be read.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> ConfigError {
        let text =
            format!("cannot be read ({error}): give the path of a config with `--config`, such as a copy of config/example.toml");
        ConfigError { file: Some(file.into()), problems: vec![Problem { line: None, text }] }
    }

    /// Problems in the order of the lines, what has no line at the end.
    pub(super) fn new(mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        ConfigError { file: None, problems }
    }

    /// The same, found in this file.
    pub(super) fn in_file(self, file: &Path) -> ConfigError {
        ConfigError { file: Some(file.into()), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "config {}", file.display())?,
            None => f.write_str("config")?,
        }
        match &self.problems[..] {
            [problem] => write!(f, ": {problem}"),
            problems => {
                write!(f, " has {} problems:", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
