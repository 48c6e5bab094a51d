//! From the text of a file to [`Settings`]. What is wrong in form is noted and left out, so that
//! one reading tells of everything: syntax, unknown options, wrong types.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::settings::Settings;

/// The lines of the options that the file has, by their path: `spool.dir`, `feed.keys[0].symbols`.
pub(super) type Lines = BTreeMap<String, usize>;

/// What could be read.
pub(super) struct Parsed {
    /// None where the text is not even TOML.
    pub(super) settings: Option<Settings>,
    pub(super) lines: Lines,
    pub(super) problems: Vec<Problem>,
}

/// Reads a file's text.
pub(super) fn parse(text: &str) -> Parsed {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { text, lines: Lines::new(), problems: Vec::new(), names: Vec::new() };
    if !errors.is_empty() {
        for error in errors {
            // Not the error's own text: it shows the line, in which a secret may stand.
            reader.problem(error.span(), format!("not TOML: {}", error.message()));
        }
        return Parsed { settings: None, lines: reader.lines, problems: reader.problems };
    }
    let known = known();
    names(&known, "", &mut reader.names);
    reader.walk(table.get_mut(), &known, "", "");
    let settings = Some(reader.read(table));
    Parsed { settings, lines: reader.lines, problems: reader.problems }
}

/// All options, in the shape of the file.
fn known() -> toml::Table {
    toml::Table::try_from(Settings::complete()).expect("settings can be written as TOML")
}

/// The paths of all options, without the numbers of `[[feed.keys]]`.
fn names(table: &toml::Table, path: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let name = join(path, key);
        match section_of(value) {
            // Any name will do there, such as this.
            Some(section) if section.is_empty() => out.push(join(&name, "*")),
            Some(section) => names(section, &name, out),
            None => out.push(name),
        }
    }
}

/// The options of a section, if it is one or a list of them.
fn section_of(known: &toml::Value) -> Option<&toml::Table> {
    match known {
        toml::Value::Table(section) => Some(section),
        toml::Value::Array(items) => items.first().and_then(toml::Value::as_table),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines,
    problems: Vec<Problem>,
    names: Vec<String>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    fn problem(&mut self, span: Option<Range<usize>>, text: String) {
        let line = span.map(|span| self.line(span.start));
        self.problems.push(Problem { line, text });
    }

    /// Notes the lines of all options, and takes out those that are unknown. `name` is the path
    /// without numbers.
    fn walk(&mut self, table: &mut DeTable<'_>, known: &toml::Table, path: &str, name: &str) {
        let mut refused = Vec::new();
        for (key, value) in table.iter_mut() {
            let (path, name) = (join(path, key.get_ref()), join(name, key.get_ref()));
            let wrong = match known.get(key.get_ref().as_ref()) {
                None => Some(self.unknown(key.get_ref(), known, &name, value.get_ref())),
                Some(expected) => {
                    self.lines.insert(path.clone(), self.line(key.span().start));
                    self.descend(expected, value.get_mut(), &path, &name)
                }
            };
            if let Some(text) = wrong {
                self.problem(Some(key.span()), text);
                refused.push(key.get_ref().to_string());
            }
        }
        for key in refused {
            table.remove(key.as_str());
        }
    }

    /// Walks into a section. Returns what is wrong if it is none and should be.
    fn descend(&mut self, expected: &toml::Value, value: &mut DeValue<'_>, path: &str, name: &str) -> Option<String> {
        let section = section_of(expected)?;
        match (expected.is_array(), value) {
            (false, DeValue::Table(table)) if section.is_empty() => self.note(table, path),
            (false, DeValue::Table(table)) => self.walk(table, section, path, name),
            (true, DeValue::Array(items)) => {
                for (n, item) in items.iter_mut().enumerate() {
                    if let DeValue::Table(table) = item.get_mut() {
                        self.walk(table, section, &format!("{path}[{n}]"), name);
                    }
                }
            }
            (true, _) => return Some(format!("`{name}` is a list of sections: write `[[{name}]]` above each")),
            (false, _) => return Some(format!("`{name}` is a section: write `[{name}]` above its options")),
        }
        None
    }

    /// Notes the lines of options whose names are not ours, however deep.
    fn note(&mut self, table: &DeTable<'_>, path: &str) {
        for (key, value) in table.iter() {
            let path = join(path, key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) => self.note(table, &path),
                _ => drop(self.lines.insert(path, self.line(key.span().start))),
            }
        }
    }

    /// Says what is unknown and what may have been meant; never its value.
    fn unknown(&self, key: &str, siblings: &toml::Table, name: &str, value: &DeValue<'_>) -> String {
        if siblings.contains_key(&format!("{key}_file")) {
            return format!(
                "`{name}` holds a secret, which does not belong in a config that is shown and versioned: \
                 write it to a file and name that as `{key}_file`, or name an environment variable as `{key}_env`"
            );
        }
        if matches!(value, DeValue::Table(_)) {
            let sections = self.names.iter().filter_map(|name| name.rsplit_once('.')).map(|(section, _)| section);
            let nearest = nearest(name, sections);
            return format!(
                "there is no section `{name}`{}",
                nearest.map_or_else(String::new, |it| format!(": did you mean `[{it}]`?"))
            );
        }
        // First among its siblings, then one of that name elsewhere, then any.
        let prefix = name.strip_suffix(key).unwrap_or_default();
        let sibling = nearest(key, siblings.keys().map(String::as_str)).map(|key| format!("{prefix}{key}"));
        let elsewhere = || self.names.iter().find(|known| known.rsplit('.').next() == Some(key)).cloned();
        let any = || nearest(name, self.names.iter().map(String::as_str)).map(String::from);
        match sibling.or_else(elsewhere).or_else(any) {
            Some(meant) => format!("there is no option `{name}`: did you mean `{meant}`?"),
            None => format!("there is no option `{name}`: config/example.toml shows all that there are"),
        }
    }

    /// Reads what is left. An option of a wrong type is noted, taken out, and the rest read again.
    fn read(&mut self, mut table: Spanned<DeTable<'_>>) -> Settings {
        loop {
            let error = match Settings::deserialize(toml::Deserializer::from(table.clone())) {
                Ok(settings) => return settings,
                Err(error) => error,
            };
            let culprit = error.span().and_then(|span| take_out(table.get_mut(), &span, ""));
            match culprit {
                Some((name, span)) => {
                    let expected = error.message().rsplit_once("expected ").map_or(error.message(), |(_, expected)| expected);
                    let value = self.text.get(span.clone()).unwrap_or_default().trim();
                    self.problem(Some(span), format!("`{name}` is `{value}`, must be {}", in_words(expected)));
                }
                None => {
                    self.problem(error.span(), error.message().into());
                    return Settings::default();
                }
            }
        }
    }
}

/// What serde expects, in TOML's words.
fn in_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list in square brackets",
        "a map" => "a section",
        "u16" | "u32" | "u64" | "usize" | "i32" => "a whole number without quotes",
        "f64" => "a number without quotes",
        "a boolean" => "true or false without quotes",
        "a string" => "a text in quotes",
        other => other,
    }
}

/// Takes out the option whose value contains `span`; returns its path and its own span.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>, name: &str) -> Option<(String, Range<usize>)> {
    let within = |own: &Range<usize>| own.start <= span.start && span.end <= own.end;
    let mut own = None;
    for (key, value) in table.iter_mut() {
        let (name, place) = (join(name, key.get_ref()), value.span());
        let deeper = match value.get_mut() {
            DeValue::Table(table) => take_out(table, span, &name),
            DeValue::Array(items) => items.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(table) => take_out(table, span, &name),
                _ => None,
            }),
            _ => None,
        };
        if deeper.is_some() {
            return deeper;
        }
        if within(&place) {
            own = Some((key.get_ref().to_string(), name, place));
        }
    }
    let (key, name, place) = own?;
    table.remove(key.as_str());
    Some((name, place))
}

/// The known name that is so similar that it may have been meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(name, known), known)).min()?;
    (near.0 <= 1 + name.len() / 4).then_some(near.1)
}

/// How many letters must be put in, taken out or changed to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let mut problems = parse(text).problems;
        problems.sort_by_key(|problem| problem.line);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let parsed = parse("");
        assert_eq!(parsed.settings, Some(Settings::default()));
        assert_eq!(parsed.problems, []);
    }

    #[test]
    fn options_know_their_lines() {
        let lines = parse("data_dir = \"d\"\n\n[spool]\ndir = \"s\"\n[[feed.keys]]\nsymbols = [\"A\"]\n").lines;
        assert_eq!(lines["data_dir"], 1);
        assert_eq!(lines["spool.dir"], 4);
        assert_eq!(lines["feed.keys[0].symbols"], 6);
    }

    #[test]
    fn all_that_is_unknown_is_told_at_once_with_what_was_meant() {
        let text = "data-dir = \"x\"\n[spool]\nmax_byte = \"1 GiB\"\ngold_dir = \"g\"\n[spol]\nx = 1\n[http]\nfrobnicate = 1\n\
                    [[feed.keys]]\nsymbol = [\"A\"]\n";
        assert_eq!(
            problems(text),
            [
                "line 1: there is no option `data-dir`: did you mean `data_dir`?",
                "line 3: there is no option `spool.max_byte`: did you mean `spool.max_bytes`?",
                "line 4: there is no option `spool.gold_dir`: did you mean `warehouse.gold_dir`?",
                "line 5: there is no section `spol`: did you mean `[spool]`?",
                "line 8: there is no option `http.frobnicate`: config/example.toml shows all that there are",
                "line 10: there is no option `feed.keys.symbol`: did you mean `feed.keys.symbols`?",
            ]
        );
    }

    #[test]
    fn wrong_types_are_all_told_and_the_rest_is_read() {
        let text =
            "[telemetry]\njson = \"yes\"\nlog = 7\nsample = 0.5\n[feed]\nwatchdog = 150\n[[feed.keys]]\nsymbols = [\"A\", 5]\n";
        assert_eq!(
            problems(text),
            [
                "line 2: `telemetry.json` is `\"yes\"`, must be true or false without quotes",
                "line 3: `telemetry.log` is `7`, must be a text in quotes",
                "line 8: `feed.keys.symbols` is `[\"A\", 5]`, must be a text in quotes",
            ]
        );
        let settings = parse(text).settings.unwrap();
        assert_eq!(settings.telemetry.sample, 0.5);
        assert_eq!(settings.feed.watchdog, "150".into(), "a number is read, so that its unit can be asked for");
    }

    #[test]
    fn sections_in_the_wrong_form_are_explained() {
        assert_eq!(problems("spool = 5"), ["line 1: `spool` is a section: write `[spool]` above its options"]);
        assert_eq!(
            problems("[feed.keys]\nkey_env = \"A\""),
            ["line 1: `feed.keys` is a list of sections: write `[[feed.keys]]` above each"]
        );
    }

    #[test]
    fn a_secret_in_the_file_is_refused_and_never_shown() {
        let text = "[http]\ntoken = \"hunter2\"\n[[feed.keys]]\nkey = \"hunter2\"\n[bronze.s3]\nsecret_key = \"hunter2\"\n";
        let problems = problems(text);
        assert_eq!(problems.len(), 3);
        for problem in &problems {
            assert!(problem.contains("holds a secret"), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        assert!(problems[1].contains("name that as `key_file`"), "{}", problems[1]);
    }

    #[test]
    fn a_syntax_error_gives_its_line_and_not_its_text() {
        let problems = problems("[http]\ntoken = \"hunter2\n");
        assert!(problems[0].starts_with("line 2: not TOML: "), "{problems:?}");
        assert!(!problems.concat().contains("hunter2"), "{problems:?}");
    }
}
