//! As whom the embedded Postgres runs: it refuses to run as root.

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, User};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// A user other than ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

/// The user to run as; `None` when we are not root and Postgres can run as we do. A cluster that is
/// there already stays with the user that it belongs to.
pub(super) fn choose(cluster: &Path) -> anyhow::Result<Option<Account>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let owner = std::fs::metadata(cluster).map(|metadata| metadata.uid()).ok().filter(|uid| *uid != 0);
    let user = match owner {
        Some(uid) => User::from_uid(Uid::from_raw(uid))?
            .with_context(|| format!("{} belongs to user {uid}, who does not exist", cluster.display()))?,
        None => match User::from_name("postgres")? {
            Some(user) => user,
            None => match User::from_name("nobody")? {
                Some(user) => user,
                None => bail!(
                    "Postgres does not run as root, and there is neither a user postgres nor nobody: \
                     run fhir-tail as an ordinary user, or give it a --database-url"
                ),
            },
        },
    };
    Ok(Some(Account { name: user.name, uid: user.uid, gid: user.gid }))
}

/// A command that runs as that user, in a process group of its own (so that a Ctrl-C at our terminal
/// reaches us alone, and the order of the shutdown is ours), without what the environment says to libpq.
pub(super) fn command(program: &Path, account: Option<&Account>) -> Command {
    let mut command = Command::new(program);
    command.process_group(0).env("LC_ALL", "C");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(&name);
        }
    }
    if let Some(account) = account {
        // The standard library drops root's other groups with the user.
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw()).env_remove("HOME");
    }
    command
}
