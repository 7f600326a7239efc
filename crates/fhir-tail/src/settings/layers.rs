//! Where a setting was written: flags first, then environment variables, then the file.
//!
//! A layer gives text; [`Layers::read`] turns it into a value and notes each problem with the place
//! where the user wrote it, so that all of them can be reported at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The environment variables, read once; a map, so that tests need not touch those of the process.
pub(crate) type Environment = BTreeMap<String, String>;

/// Every setting by its name: that of the flag, and of the key in the file. The environment variable is
/// `FHIR_TAIL_` and the name in capitals.
pub(super) const KEYS: [&str; 18] = [
    "database-url",
    "data-dir",
    "postgres-bin",
    "listen",
    "public-url",
    "fhir-base-url",
    "insecure-no-auth",
    "max-streams",
    "max-streams-per-address",
    "client-timeout",
    "on-bad-row",
    "slot",
    "publication",
    "max-wal-held",
    "retention-bytes",
    "retention-age",
    "log-format",
    "log-level",
];

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// `--name`.
    Flag(&'static str),
    /// A value that stands by itself on the command line.
    Argument(&'static str),
    /// An environment variable.
    Variable(String),
    /// A key of the file.
    File(PathBuf, String),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Argument(name) => f.write_str(name),
            Self::Variable(name) => f.write_str(name),
            Self::File(path, key) => write!(f, "{}: {key}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with the settings.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// Where it was written.
    pub(crate) origin: Origin,
    /// What is wrong and what to write instead.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// The three layers, and what was found in them so far.
pub(super) struct Layers<'a> {
    flags: BTreeMap<&'static str, Vec<String>>,
    environment: &'a Environment,
    file: BTreeMap<String, Vec<String>>,
    file_path: PathBuf,
    problems: Vec<Problem>,
    origins: BTreeMap<&'static str, Origin>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(flags: BTreeMap<&'static str, Vec<String>>, environment: &'a Environment) -> Self {
        Self {
            flags,
            environment,
            file: BTreeMap::new(),
            file_path: PathBuf::new(),
            problems: Vec::new(),
            origins: BTreeMap::new(),
        }
    }

    /// Takes the file's keys in.
    pub(super) fn set_file(&mut self, path: &Path, text: &str) {
        path.clone_into(&mut self.file_path);
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                // toml's Display quotes the line, and that line may hold a password.
                let line = error.span().map_or(1, |span| {
                    text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
                });
                let message = format!("line {line} is not TOML: {}", error.message());
                self.problems.push(Problem { origin: self.in_file("syntax"), message });
                return;
            }
        };
        for (key, value) in table {
            if !KEYS.contains(&key.as_str()) {
                let known = KEYS.join(", ");
                let message = format!("there is no such setting; there are {known}");
                self.problems.push(Problem { origin: self.in_file(&key), message });
                continue;
            }
            match texts(&value) {
                Some(values) => {
                    self.file.insert(key, values);
                }
                None => {
                    let message = "must be text, a number, true or false, or a list of texts".to_owned();
                    self.problems.push(Problem { origin: self.in_file(&key), message });
                }
            }
        }
    }

    fn in_file(&self, key: &str) -> Origin {
        Origin::File(self.file_path.clone(), key.to_owned())
    }

    pub(super) fn problem(&mut self, origin: Origin, message: impl Into<String>) {
        self.problems.push(Problem { origin, message: message.into() });
    }

    /// Where the value of a setting that was read came from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The texts written for a setting, by the first layer that has any.
    fn find(&self, key: &'static str, also: Option<&str>) -> Option<(Vec<String>, Origin)> {
        // An empty variable is how compose files and shells say "not set".
        let variable = |name: String| {
            let value = self.environment.get(&name).filter(|value| !value.is_empty())?;
            Some((vec![value.clone()], Origin::Variable(name)))
        };
        self.flags
            .get(key)
            .map(|values| (values.clone(), Origin::Flag(key)))
            .or_else(|| variable(format!("FHIR_TAIL_{}", key.to_uppercase().replace('-', "_"))))
            .or_else(|| also.and_then(|name| variable(name.to_owned())))
            .or_else(|| self.file.get(key).map(|values| (values.clone(), self.in_file(key))))
    }

    /// Reads a setting of one value.
    pub(super) fn read<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read_also(key, None, parse)
    }

    /// As [`read`](Self::read), with a text for when nothing was written; `None` means a problem.
    pub(super) fn read_or<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        default: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match self.read(key, &parse) {
            None if self.origin(key) == Origin::Default => {
                parse(default).map_err(|error| self.problem(Origin::Default, error.to_string())).ok()
            }
            read => read,
        }
    }

    /// As [`read`](Self::read); `also` names a variable that others set for the same thing.
    pub(super) fn read_also<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        also: Option<&str>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (values, origin) = self.find(key, also)?;
        self.origins.insert(key, origin.clone());
        let [value] = values.as_slice() else {
            self.problem(origin, "takes one value");
            return None;
        };
        parse(value).map_err(|error| self.problem(origin, error.to_string())).ok()
    }

    /// Reads a setting of several values; in an environment variable they are separated by commas.
    pub(super) fn read_list<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some((values, origin)) = self.find(key, None) else { return Vec::new() };
        self.origins.insert(key, origin.clone());
        let mut list = Vec::new();
        for value in values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|v| !v.is_empty())
        {
            match parse(value) {
                Ok(value) => list.push(value),
                Err(error) => self.problem(origin.clone(), error.to_string()),
            }
        }
        list
    }

    pub(super) fn finish(self) -> (Vec<Problem>, BTreeMap<&'static str, Origin>) {
        (self.problems, self.origins)
    }
}

/// A value of the file as the text that a flag would have had.
fn texts(value: &toml::Value) -> Option<Vec<String>> {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    match value {
        toml::Value::Array(values) => values.iter().map(text).collect(),
        _ => text(value).map(|text| vec![text]),
    }
}
