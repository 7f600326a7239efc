//! The program of the tests: a list of cases, each run against each Postgres that is there, each in a folder of its
//! own, whose logs are shown when it fails.

use crate::postgres::create_owned;
use crate::{Postgres, SOON, until};
use anyhow::{Context as _, Result, bail};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One test.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// The test.
    pub run: fn(Context) -> Answer,
    /// Whether it runs against each version of Postgres, or against one only (the first).
    pub each_version: bool,
    /// Why it cannot run here, if it cannot.
    pub skip: fn() -> Option<String>,
}

/// Lists cases: `cases![each first_event, once head_sends_headers]` names async functions of the module which take a
/// [`Context`]; `each` runs against every Postgres.
#[macro_export]
macro_rules! cases {
    (@each each) => { true };
    (@each once) => { false };
    ($($versions:ident $function:ident),* $(,)?) => {
        vec![$($crate::Case {
            name: concat!(module_path!(), "::", stringify!($function)),
            run: |context| Box::pin($function(context)),
            each_version: $crate::cases!(@each $versions),
            skip: || None,
        }),*]
    };
}

/// The seed of the tests with random writers and readers: drawn, unless `FHIR_TAIL_TEST_SEED` says which.
pub fn seed() -> Result<u64> {
    match std::env::var("FHIR_TAIL_TEST_SEED") {
        Ok(seed) => seed.parse().context("FHIR_TAIL_TEST_SEED is not a number"),
        Err(_) => Ok(fastrand::u64(..)),
    }
}

/// What a test is given.
#[derive(Clone)]
pub struct Context {
    postgres: Postgres,
    directory: PathBuf,
    template: PathBuf,
}

impl Context {
    /// For a program that is no test: in a folder of its own, with a template that it has
    /// [initialised](Postgres::initialise).
    pub fn new(postgres: Postgres, directory: &Path, template: &Path) -> Self {
        Self { postgres, directory: directory.to_owned(), template: template.to_owned() }
    }

    /// The Postgres to run against.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The test's own folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cluster that others are copies of.
    pub fn template(&self) -> &Path {
        &self.template
    }

    /// The same for a part of the test, in a folder within.
    pub fn within(&self, name: &str) -> Result<Self> {
        let directory = self.directory.join(name);
        std::fs::create_dir(&directory)?;
        Ok(Self { directory, ..self.clone() })
    }
}

/// Small: each test copies one, and most write less than that.
pub(crate) const WAL_SEGMENT: u32 = 1;

/// No test takes longer than this, beyond what it was asked to.
const LIMIT: Duration = Duration::from_secs(300);

/// How long the tests with random writers and readers are to go on, if `FHIR_TAIL_TEST_SECONDS` says so.
pub fn seconds() -> Result<Option<u64>> {
    let given = std::env::var("FHIR_TAIL_TEST_SECONDS").ok();
    given.map(|seconds| seconds.parse().context("FHIR_TAIL_TEST_SECONDS is not a number")).transpose()
}

/// Runs the tests.
pub fn main(cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of a test is waiting, for processes and for clocks.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores.max(2) * 2);
    match run(&arguments, cases) {
        Ok(code) => code,
        Err(error) => {
            report(&format!("the tests cannot run: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, cases: Vec<Case>) -> Result<ExitCode> {
    crate::takers::raise_descriptors()?;
    let keep = std::env::var_os("FHIR_TAIL_TEST_KEEP").is_some();
    let home = tempfile::Builder::new().prefix("fhir-tail-test-").disable_cleanup(keep).tempdir()?;
    // Postgres runs as another user when we are root, and has to reach its folder in here.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o711))?;
    let mut trials = Vec::new();
    for (index, postgres) in Postgres::all()?.into_iter().enumerate() {
        let template = Arc::new(Template::new(home.path(), &postgres, index));
        for case in cases.iter().filter(|case| case.each_version || index == 0).copied() {
            let name = format!("{}::pg{}", case.name.trim_start_matches("main::"), postgres.major());
            // Short: the path of a Unix socket has room for 107 bytes.
            let directory = home.path().join(format!("{}-{:.32}", trials.len(), name.replace("::", "-")));
            let (postgres, template) = (postgres.clone(), Arc::clone(&template));
            trials.push(Trial::ignorable_test(name.clone(), move || {
                if let Some(reason) = (case.skip)() {
                    crate::skip(&format!("{name}: {reason}")).map_err(|error| format!("{error:#}"))?;
                    return Ok(Completion::ignored_with(reason));
                }
                one(case, postgres, &template, directory.clone(), keep)
                    .map_err(|error| Failed::from(format!("{}\n{}", explain(&error), logs(&directory))))?;
                Ok(Completion::Completed)
            }));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if keep {
        report(&format!("kept: {}", home.path().display()));
    }
    Ok(conclusion.exit_code())
}

fn one(case: Case, postgres: Postgres, template: &Template, directory: PathBuf, keep: bool) -> Result<()> {
    let name = directory.file_name().unwrap_or_default().display().to_string();
    std::fs::create_dir(&directory)?;
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o711))?;
    let context = Context { postgres, directory: directory.clone(), template: template.made()? };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let began = tokio::time::Instant::now();
    let limit = LIMIT + 2 * Duration::from_secs(seconds()?.unwrap_or(0));
    let result = runtime.block_on(async {
        // A task of its own, so that a panic in it is an error with logs like any other.
        let test = tokio::spawn((case.run)(context));
        match tokio::time::timeout(limit, test).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => bail!("{panic}"),
            Err(_) => bail!("the test took more than {limit:?}"),
        }
    });
    report(&format!("{name}: {:.1} s", began.elapsed().as_secs_f64()));
    result?;
    if keep {
        return Ok(());
    }
    // At once: what never was on the disk costs nothing. A process that was killed may be in the middle of its last write.
    runtime.block_on(until("the test's folder to be empty", SOON, || async {
        Ok(std::fs::remove_dir_all(&directory).is_ok().then_some(()))
    }))
}

/// A cluster that is made when the first test needs it.
struct Template {
    postgres: Postgres,
    directory: PathBuf,
    made: OnceLock<Result<PathBuf, String>>,
}

impl Template {
    fn new(home: &Path, postgres: &Postgres, index: usize) -> Self {
        let directory = home.join(format!("template-{index}"));
        Self { postgres: postgres.clone(), directory, made: OnceLock::new() }
    }

    fn made(&self) -> Result<PathBuf> {
        let make = || {
            let data = self.directory.join("data");
            create_owned(&self.directory)
                .and_then(|()| self.postgres.initialise(&data, WAL_SEGMENT))
                .map(|()| data)
        };
        match self.made.get_or_init(|| make().map_err(|error| format!("{error:#}"))) {
            Ok(data) => Ok(data.clone()),
            Err(error) => bail!("no template: {error}"),
        }
    }
}

/// The error with its causes, and of where it came from only the lines that are ours.
fn explain(error: &anyhow::Error) -> String {
    let from = error.backtrace().to_string();
    let ours: Vec<&str> =
        from.lines().map(str::trim).filter(|line| line.starts_with("at ./tests/")).collect();
    format!("{error:#}\n{}", ours.join("\n"))
}

/// The ends of the logs in a test's folder.
pub fn logs(directory: &Path) -> String {
    const LINES: usize = 60;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let mut out = String::new();
    for path in files {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        out += &format!("---- {} ({} lines)\n{end}\n", path.display(), lines.len());
    }
    out
}

#[allow(clippy::print_stderr, reason = "this is the program that the developer looks at")]
fn report(text: &str) {
    eprintln!("{text}");
}
