//! The tools of validation: each notes what is wrong and goes on, so that everything is told at once.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Problem;
use super::file::Lines;
use super::settings::Quantity;
use super::{Secret, units};

/// Where secrets come from, besides files.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whose secrets must be there, besides the store's: the more a command does the more of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nobody's: it looks at the archive, or asks a daemon.
    Nothing,
    /// The cluster's, whatever the roles of the daemon.
    Cluster,
    /// The cluster's and the feed's, as far as the roles need them.
    Roles,
}

/// Checks everything.
pub(super) struct Check<'a> {
    /// Where the options stand in the file.
    pub(super) lines: &'a Lines,
    /// The environment.
    pub(super) env: Env<'a>,
    /// The secrets that must be there.
    pub(super) needs: Needs,
    /// What is wrong so far.
    pub(super) problems: Vec<Problem>,
    /// So many of them were found when the file was read.
    pub(super) of_reading: usize,
}

/// What stands for a value that is wrong. It never gets out: there is a problem beside it.
pub(super) const WRONG: u64 = 0;

pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// What a duration must at least be where zero means nothing sensible.
pub(super) const SHORT: Duration = Duration::from_millis(1);
/// Any duration that is not a slip of the pen.
pub(super) const LONG: RangeInclusive<Duration> = SHORT..=Duration::from_secs(366 * 86_400);

/// Whether it is about that option.
fn told(option: &str, problem: &Problem) -> bool {
    problem.text.starts_with(&format!("`{option}` "))
}

impl Check<'_> {
    /// Silent of an option whose type was wrong: there is no value to say more about.
    pub(super) fn problem(&mut self, path: &str, text: String) {
        if self.problems[..self.of_reading].iter().any(|problem| told(path, problem)) {
            return;
        }
        let line = self.lines.get(path).copied();
        self.problems.push(Problem { line, text });
    }

    /// `why` goes on after "which", or is what the option must be.
    pub(super) fn wrong(&mut self, option: &str, value: &str, why: &str) {
        let which = if why.starts_with("must") { "" } else { "which " };
        self.problem(option, format!("`{option}` is `{value}`, {which}{why}"));
    }

    /// One option does not go with another. Silent if one of them is wrong in itself.
    pub(super) fn compare(&mut self, option: &str, value: &Quantity, must_be: &str, other: &str, limit: &Quantity) {
        if !self.problems.iter().any(|problem| told(option, problem) || told(other, problem)) {
            self.wrong(option, &value.0, &format!("must be {must_be} `{other}` ({limit}): lower it or raise the other"));
        }
    }

    pub(super) fn duration(&mut self, option: &str, text: &Quantity, range: RangeInclusive<Duration>) -> Duration {
        match units::duration(&text.0) {
            Ok(span) if range.contains(&span) => return span,
            Ok(_) => {
                let (least, most) = (units::written(*range.start()), units::written(*range.end()));
                self.wrong(option, &text.0, &format!("must be from {least} to {most}"));
            }
            Err(why) => self.wrong(option, &text.0, &why),
        }
        Duration::from_nanos(WRONG)
    }

    pub(super) fn optional(&mut self, option: &str, text: &Quantity) -> Option<Duration> {
        if text.0 == "none" { None } else { Some(self.duration(option, text, LONG)) }
    }

    pub(super) fn size(&mut self, option: &str, text: &Quantity, range: RangeInclusive<u64>) -> u64 {
        match units::size(&text.0) {
            Ok(size) if range.contains(&size) => return size,
            Ok(size) if size < *range.start() => {
                self.wrong(option, &text.0, &format!("must be at least {}", units::size_written(*range.start())))
            }
            Ok(_) => self.wrong(option, &text.0, &format!("must be at most {}", units::size_written(*range.end()))),
            Err(why) => self.wrong(option, &text.0, &why),
        }
        WRONG
    }

    /// One of a few words, in capitals or not; the first stands for one that is wrong.
    pub(super) fn choice<T: Copy>(&mut self, option: &str, word: &str, choices: &[(&str, T)]) -> T {
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
            return *chosen;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.wrong(option, word, &format!("must be one of `{}`", names.join("`, `")));
        choices[0].1
    }

    pub(super) fn bytes(&mut self, option: &str, text: &Quantity, range: RangeInclusive<u64>) -> usize {
        usize::try_from(self.size(option, text, range)).unwrap_or(usize::MAX)
    }

    pub(super) fn web_address(&mut self, option: &str, address: &str, example: &str) {
        let host = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            self.wrong(option, address, &format!("must be a web address: write such as `{example}`"));
        }
    }

    /// A secret out of a file or the environment; `None` also where that failed.
    pub(super) fn secret(&mut self, section: &str, name: &str, file: Option<&Path>, env: Option<&str>) -> Option<Secret> {
        let shown = |kind: &str| match section.split_once('[') {
            Some((list, n)) => {
                let n: usize = n.trim_end_matches(']').parse().unwrap_or_default();
                format!("`{name}_{kind}` of `[[{list}]]` no. {}", n + 1)
            }
            None => format!("`{section}.{name}_{kind}`"),
        };
        let path = |kind: &str| format!("{section}.{name}_{kind}");
        match (file, env) {
            (None, None) => None,
            (Some(_), Some(_)) => {
                self.problem(&path("file"), format!("{} is set, and `{name}_env` too: remove one", shown("file")));
                None
            }
            (Some(file), None) => match std::fs::read_to_string(file) {
                Ok(text) => self.secret_text(&path("file"), &format!("{} is `{}`, which", shown("file"), file.display()), &text),
                Err(error) => {
                    let text = format!(
                        "{} is `{}`, which cannot be read ({error}): write the secret there, and nothing else",
                        shown("file"),
                        file.display()
                    );
                    self.problem(&path("file"), text);
                    None
                }
            },
            (None, Some(variable)) => {
                let named = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
                if variable.is_empty() || !variable.chars().all(named) {
                    let text = format!(
                        "{} must name an environment variable, in upper-case letters, digits and `_`; what stands there is not shown, as it may be the secret itself",
                        shown("env")
                    );
                    self.problem(&path("env"), text);
                    return None;
                }
                let Some(text) = (self.env)(variable) else {
                    let text = format!(
                        "{} is `{variable}`, which is not set: set it in the environment, or use `{name}_file`",
                        shown("env")
                    );
                    self.problem(&path("env"), text);
                    return None;
                };
                self.secret_text(&path("env"), &format!("{} is `{variable}`, which", shown("env")), &text)
            }
        }
    }

    pub(super) fn secret_text(&mut self, path: &str, whose: &str, text: &str) -> Option<Secret> {
        let text = text.trim();
        let wrong = if text.is_empty() {
            "is empty: put the secret there"
        } else if text.chars().any(|c| !c.is_ascii_graphic()) {
            "holds more than a secret: put one word of ASCII there"
        } else {
            return Some(Secret::new(text));
        };
        self.problem(path, format!("{whose} {wrong}"));
        None
    }

    /// A path that does not change its meaning with the working directory: the refiner process has another
    /// one than the daemon.
    pub(super) fn absolute(&mut self, option: &str, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() {
            return PathBuf::new(); // its user says that there is nothing
        }
        std::path::absolute(path).unwrap_or_else(|error| {
            let cure = format!("cannot be told from the working directory ({error}): write it absolute");
            self.wrong(option, &path.display().to_string(), &cure);
            PathBuf::new()
        })
    }
}
