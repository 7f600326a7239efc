//! What a process takes: memory and processor time, as Linux tells it.

use anyhow::{Context as _, Result};

/// Resident memory of a process, in bytes: what it has now, and the most it has had.
pub(crate) fn memory(process: u32) -> Result<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        number.map(|number| number * 1024.0).with_context(|| format!("/proc has no {name}"))
    };
    Ok((kilobytes("VmRSS:")?, kilobytes("VmHWM:")?))
}

/// Seconds of processor time that a process has used, in steps of a hundredth.
pub(crate) fn processor(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("/proc has no stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = ticks(11).zip(ticks(12)).context("/proc/…/stat is too short")?;
    Ok((user + system) / 100.0)
}

/// Bytes of a folder's files on the disk, those in folders within included.
pub(crate) fn disk(folder: &std::path::Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
