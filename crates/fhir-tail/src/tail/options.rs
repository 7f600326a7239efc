//! The options of `fhir-tail tail`, as typed and as checked.

use crate::settings::{self, Age, ByteSize, InvalidSettings, Origin, Problem};
use client::{
    Credentials, Destination, HeaderName, HeaderValue, IN_FOLDER, LineFormat, Recording, Selection, Target,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What to follow, and where to write it. `Debug` is not derived: a URL or a header may hold a password.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Subscriber")]
pub(crate) struct TailOptions {
    /// The service, such as http://127.0.0.1:8080/fhir, or a whole $export URL, whose parameters are kept
    #[arg(value_name = "URL")]
    url: String,

    /// Resource types, separated by commas or repeated [default: all]
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,

    /// Only what belongs to the members of this Group, as they join and leave
    #[arg(long, value_name = "ID")]
    group: Option<String>,

    /// Only what belongs to these patients, separated by commas or repeated
    #[arg(long = "patient", value_name = "IDS", value_delimiter = ',')]
    patients: Vec<String>,

    /// Only what changed after this instant, deletions too; an instant in the future: only what commits from now on
    #[arg(long, value_name = "INSTANT")]
    since: Option<String>,

    /// Write files in this folder [default: standard output]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Write each line as {"seq", "op", "type", "id", "resource"}: to be merged into a table in the order of seq
    #[arg(long)]
    envelope: bool,

    /// End when the current state has been written. With --output this is a bulk download, a file per type; the same
    /// command again adds what has changed since
    #[arg(long)]
    until_live: bool,

    /// Keep the position in this file [default: state.json in the folder; for standard output none is kept]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Start the next file when one has this size [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    rotate_bytes: Option<ByteSize>,

    /// How often to make what was written durable; 0ms: after each write
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = interval)]
    sync_interval: Duration,

    /// Serve metrics for Prometheus at this address, or at this port of this machine
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,

    /// A header for each request, as 'Name: value'; may be repeated
    #[arg(long = "header", value_name = "HEADER")]
    headers: Vec<String>,

    /// A file with a token for 'Authorization: Bearer'; it is read again for each connection
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,
}

/// Help beyond the options.
pub(crate) const TAIL_HELP: &str = "\
What is written is NDJSON, in the order of the commits: resources, and for each deletion its Bundle with one \
DELETE entry; the same, tagged out-of-scope, for what no longer belongs to the Group or the patients. A notice reset-all is \
written too, with the notice live that ends it: what is not repeated between them is gone.

Every event is written once, even if the service, the network or this program fails at any moment: the \
position is saved once the files are on disk, and at the next start they are cut to what was saved with it. \
All files but the newest are complete and may be removed. On standard output (with --state) an event is written at \
least once: after kill -9 or a crash, the last lines are written again.

With --envelope each line is {\"seq\": 1, \"op\": \"upsert\", \"type\": \"Patient\", \"id\": \"p1\", \"resource\": {…}}. seq rises by one \
with each line, also over kill -9. op is upsert, delete, remove (it no longer belongs to what was asked for), or \
reset-all and live, which have no type and no id: what is not repeated between them is gone.

With --until-live and --output the folder holds Patient.ndjson, … and deleted.ndjson, as of Bulk Data: a line for \
each resource in its newest version, no resource in both; they appear when the download is complete. The same command again \
adds a folder 000002-<time> with what has changed since, and so on; one whose name ends with -all has everything.
The result of --until-live is complete as of the time in the notice live. If the service's own data is stale \
(its database is away, for instance), that is logged, and the exit code is 0: what is missing was stamped later.

It waits for a service that is away. It exits with 1 if it is refused, with 2 if the options cannot be used.

Examples:
  fhir-tail tail http://127.0.0.1:8080/fhir | jq -c '[.resourceType, .id]'
  fhir-tail tail http://127.0.0.1:8080/fhir --type Observation,Condition --output changes
  fhir-tail tail http://127.0.0.1:8080/fhir --output changes --envelope --metrics 9464
  fhir-tail tail http://127.0.0.1:8080/fhir --until-live --output export
  fhir-tail tail http://127.0.0.1:8080/fhir --group payer --type Patient,MeasureReport,DetectedIssue --output gaps
  fhir-tail tail 'https://fhir.example/fhir/$export?_type=Patient' --state position.json \\
      --bearer-token-file token >>patients.ndjson";

/// What was asked for.
pub(super) struct Subscription {
    pub(super) target: Target,
    pub(super) credentials: Credentials,
    pub(super) recording: Recording,
    /// Where metrics are shown, if they are.
    pub(super) metrics: Option<SocketAddr>,
}

const ROTATE_BYTES: ByteSize = ByteSize(1 << 30);

impl Subscription {
    /// Reads the options; otherwise all that is wrong with them.
    pub(super) fn of(options: TailOptions) -> Result<Self, InvalidSettings> {
        let mut problems = Vec::new();
        let mut wrong =
            |flag, message: String| problems.push(Problem { origin: Origin::Flag(flag), message });
        if let Some(since) = &options.since
            && let Err(error) = since.parse::<fhir::Instant>()
        {
            wrong("since", error.to_string());
        }
        let headers =
            options.headers.iter().filter_map(|text| header(text).map_err(|m| wrong("header", m)).ok());
        let headers = headers.collect();
        if let Some(rotate) = options.rotate_bytes {
            if options.output.is_none() || options.until_live {
                wrong(
                    "rotate-bytes",
                    "only what is followed into a folder is rotated: give --output, and no --until-live"
                        .to_owned(),
                );
            } else if rotate.0 == 0 {
                wrong("rotate-bytes", "a file size of 0 is not possible".to_owned());
            }
        }
        if options.envelope && options.until_live && options.output.is_some() {
            wrong(
                "envelope",
                "a download has each resource once and no order: omit --until-live or --output".to_owned(),
            );
        }
        let metrics = options
            .metrics
            .as_deref()
            .and_then(|text| metrics_address(text).map_err(|message| wrong("metrics", message)).ok());
        let selection = Selection {
            types: &options.types,
            since: options.since.as_deref(),
            group: options.group.as_deref(),
            patients: &options.patients,
        };
        let target = Target::new(&options.url, selection);
        let target = target.map_err(|error| {
            problems.push(Problem { origin: Origin::Argument("URL"), message: error.to_string() });
        });
        let rotate_bytes = options.rotate_bytes.unwrap_or(ROTATE_BYTES).0;
        let destination = match options.output {
            None => Destination::Stdout,
            Some(directory) if options.until_live => Destination::Download { directory },
            Some(directory) => Destination::Sequence { directory, rotate_bytes },
        };
        let state =
            options.state.or_else(|| destination.directory().map(|directory| directory.join(IN_FOLDER)));
        match target {
            Ok(target) if problems.is_empty() => Ok(Self {
                target,
                credentials: Credentials { headers, bearer_token_file: options.bearer_token_file },
                recording: Recording {
                    destination,
                    line_format: if options.envelope { LineFormat::Envelope } else { LineFormat::Plain },
                    until_live: options.until_live,
                    state,
                    sync_interval: options.sync_interval,
                },
                metrics,
            }),
            _ => Err(InvalidSettings(problems)),
        }
    }
}

/// `200ms`, or what is a time elsewhere.
fn interval(text: &str) -> Result<Duration, String> {
    match text.strip_suffix("ms") {
        Some(millis) => millis
            .trim()
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| format!("'{text}' is not a time: write 200ms or 1s")),
        None => text.parse::<Age>().map(Age::as_duration).map_err(|error| error.to_string()),
    }
}

/// An address, or a port of this machine.
fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    match text.trim().parse() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => settings::address(text),
    }
}

/// Its value is not repeated when something is wrong: it may be a secret.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value': there is no colon")?;
    let name: HeaderName =
        name.trim().parse().map_err(|_| format!("'{}' is not a header name", name.trim()))?;
    if ["last-event-id", "accept", "host"].contains(&name.as_str()) {
        return Err(format!("'{name}' is set by this program"));
    }
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| format!("the value of '{name}' is not valid in a header"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};

    fn subscription(arguments: &[&str]) -> Result<Subscription, InvalidSettings> {
        let command = TailOptions::augment_args(clap::Command::new("tail"));
        let matches = command.try_get_matches_from([&["tail", "http://h/fhir"], arguments].concat()).unwrap();
        Subscription::of(TailOptions::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn the_destination_follows_from_the_options() {
        let destination = |arguments: &[&str]| {
            let Recording { destination, state, .. } = subscription(arguments).ok().unwrap().recording;
            (destination, state)
        };
        assert_eq!(destination(&[]), (Destination::Stdout, None));
        assert_eq!(destination(&["--state", "p", "--until-live"]), (Destination::Stdout, Some("p".into())));
        assert_eq!(
            destination(&["--output", "d", "--rotate-bytes", "1MiB"]),
            (
                Destination::Sequence { directory: "d".into(), rotate_bytes: 1 << 20 },
                Some("d/state.json".into())
            )
        );
        assert_eq!(
            destination(&["--output", "d", "--until-live", "--state", "p"]),
            (Destination::Download { directory: "d".into() }, Some("p".into()))
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_no_secret() {
        let arguments = [
            "--since",
            "yesterday",
            "--header",
            "no-colon-secret",
            "--header",
            "X-Key: sec\u{1}ret",
            "--header",
            "Last-Event-ID: secret",
            "--rotate-bytes",
            "1MiB",
        ];
        let message = subscription(&arguments).err().unwrap().to_string();
        for part in ["--since", "there is no colon", "'x-key'", "'last-event-id' is set", "--rotate-bytes"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("secret") && !message.contains("sec\u{1}"), "{message}");
    }

    #[test]
    fn metrics_are_for_this_machine_unless_it_is_said() {
        for (text, expected) in [
            ("9464", "127.0.0.1:9464"),
            ("0", "127.0.0.1:0"),
            ("localhost:1", "127.0.0.1:1"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:9464", "[::1]:9464"),
        ] {
            let address = subscription(&["--metrics", text]).ok().unwrap().metrics;
            assert_eq!(address.unwrap().to_string(), expected);
        }
        for text in ["", "70000", "example.org:9464", "127.0.0.1"] {
            let message = subscription(&["--metrics", text]).err().unwrap().to_string();
            assert!(message.contains("--metrics"), "{text}: {message}");
        }
    }

    #[test]
    fn envelopes_have_an_order() {
        for other in [&["--output", "d"][..], &["--until-live"]] {
            let recording = subscription(&[&["--envelope"], other].concat()).ok().unwrap().recording;
            assert_eq!(recording.line_format, LineFormat::Envelope);
        }
        let refusal =
            subscription(&["--envelope", "--until-live", "--output", "d"]).err().unwrap().to_string();
        assert!(refusal.contains("--envelope") && refusal.contains("--until-live"), "{refusal}");
    }

    #[test]
    fn times_are_short_here() {
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("x ms").is_err() && interval("7").is_err());
    }
}
