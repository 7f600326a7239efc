//! File descriptors: each connection of a client takes one. When none are left, neither the database nor the journal can be
//! reached. So the limit is raised as far as it goes, and clients get what the service does not need itself.

use crate::settings::{InvalidSettings, Settings};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// What is kept for the service itself: the journal's files (64 stay open, and some are opened to be written or merged),
/// connections to the database, standard streams, and what the runtime has open.
const OWN: usize = 192;
/// Connections that are no streams: at least so many are kept for probes, scrapes, the page, and requests that are on their way.
const MIN_SPARE: usize = 128;
/// And at most so many, if there are as many descriptors: clients that come back all at once.
const MAX_SPARE: usize = 1_024;
/// Fewer streams than this are a surprise.
const FEW: usize = 1_000;
/// What macOS allows at most, whose hard limit says that there is none.
const WITHOUT_HARD_LIMIT: rlim_t = 10_240;

/// Raises the soft limit of open files to the hard one, and gives what it is now. Shells and systemd give 1,024, for programs that
/// cannot have more.
pub(crate) fn raise() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return usize::MAX };
    let raised = [hard, WITHOUT_HARD_LIMIT]
        .into_iter()
        .find(|limit| *limit >= soft && setrlimit(Resource::RLIMIT_NOFILE, *limit, hard).is_ok());
    usize::try_from(raised.unwrap_or(soft)).unwrap_or(usize::MAX)
}

/// Divides so many descriptors between the service and its clients. Streams that were asked for have to fit; the default number of
/// them is lowered to what fits.
pub(crate) fn share(descriptors: usize, settings: &mut Settings) -> Result<(), InvalidSettings> {
    let room = descriptors.saturating_sub(OWN + MIN_SPARE);
    let remedy =
        "raise the limit: LimitNOFILE= in systemd, --ulimit nofile= in Docker, ulimit -Hn in a shell";
    if settings.max_streams > room {
        let kept = format!("{OWN} for database and journal, and {MIN_SPARE} for probes and other requests");
        if room == 0 {
            return Err(settings.refused(
                "max-streams",
                format!("the limit of open files is {descriptors}, and {kept} are needed; {remedy}"),
            ));
        }
        if settings.is_given("max-streams") {
            return Err(settings.refused(
                "max-streams",
                format!(
                    "{} streams do not fit into the limit of {descriptors} open files: {kept} are kept, which \
                     leaves {room}; {remedy}, or ask for at most {room} streams",
                    settings.max_streams
                ),
            ));
        }
        settings.max_streams = room;
    }
    settings.spare_connections = (descriptors - OWN - settings.max_streams).min(MAX_SPARE);
    Ok(())
}

/// Says that fewer streams may be open than usual; a warning, if they are few.
pub(crate) fn tell(usual: usize, max_streams: usize) {
    const TOLD: &str = "the limit of open files is low: fewer streams than usual may be open; raise it (LimitNOFILE= in systemd)";
    if max_streams < usual.min(FEW) {
        tracing::warn!(max_streams, usual, "{TOLD}");
    } else if max_streams < usual {
        tracing::info!(max_streams, usual, "{TOLD}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{CommonOptions, Environment, ServeOptions};

    fn shared(descriptors: usize, max_streams: Option<&str>) -> Result<(usize, usize), String> {
        let environment = Environment::from([("HOME".to_owned(), "/nonexistent".to_owned())]);
        let serve = ServeOptions { max_streams: max_streams.map(str::to_owned), ..ServeOptions::default() };
        let mut settings = Settings::read(CommonOptions::default(), serve, &environment, false).unwrap();
        share(descriptors, &mut settings).map_err(|invalid| invalid.to_string())?;
        Ok((settings.max_streams, settings.spare_connections))
    }

    #[test]
    fn the_default_is_lowered_to_what_fits() {
        assert_eq!(shared(524_288, None), Ok((20_000, 1_024)));
        assert_eq!(shared(20_000 + OWN + 500, None), Ok((20_000, 500)));
        assert_eq!(shared(1_024, None), Ok((704, 128)));
        assert_eq!(shared(OWN + MIN_SPARE + 1, None), Ok((1, MIN_SPARE)));
        assert_eq!(shared(usize::MAX, None), Ok((20_000, 1_024)));
    }

    #[test]
    fn streams_that_were_asked_for_fit_or_are_refused() {
        assert_eq!(shared(1_024, Some("704")), Ok((704, 128)));
        assert_eq!(shared(1_024, Some("500")), Ok((500, 332)));
        let refused = shared(1_024, Some("705")).unwrap_err();
        for part in ["--max-streams: 705 ", "1024 open files", "at most 704", "LimitNOFILE"] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
    }

    #[test]
    fn too_few_for_anything_are_refused() {
        for descriptors in [0, 64, OWN + MIN_SPARE] {
            let refused = shared(descriptors, None).unwrap_err();
            assert!(refused.contains(&format!("open files is {descriptors}, ")), "{refused}");
        }
    }
}
