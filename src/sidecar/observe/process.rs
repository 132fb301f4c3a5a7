//! What the kernel says of a process: CPU, memory, descriptors, start; under Prometheus's own names for that.
//!
//! Not here: what the server says of itself (`server_stats`).

use super::exposition::{Exposition, MetricKind::Counter, MetricKind::Gauge};
use std::path::Path;

/// Ticks a second of the times in `/proc/<pid>/stat`: USER_HZ, which is 100 in the kernel's interface wherever this runs.
const TICKS: f64 = 100.0;

/// Adds what is known of a process, by its number or `self`; the names begin so. What cannot be read is left out.
pub(super) fn add(pid: &str, prefix: &str, text: &mut Exposition) {
    let folder = Path::new("/proc").join(pid);
    if let Some((cpu, started)) = times(&folder) {
        let name = format!("{prefix}_cpu_seconds_total");
        text.single(&name, Counter, "Seconds of CPU that the process has used, with the kernel's for it.", cpu);
        if let Some(boot) = boot_time() {
            let name = format!("{prefix}_start_time_seconds");
            text.single(&name, Gauge, "When the process was started, in Unix seconds.", boot + started);
        }
    }
    if let Some(bytes) = resident_bytes(&folder) {
        text.single(&format!("{prefix}_resident_memory_bytes"), Gauge, "Bytes of memory that the process has.", bytes);
    }
    // Only the process's own user may count them.
    if let Ok(open) = std::fs::read_dir(folder.join("fd")) {
        text.single(&format!("{prefix}_open_fds"), Gauge, "Descriptors that the process has open.", open.count());
    }
}

/// Seconds of CPU, and when it was started in seconds since boot.
fn times(folder: &Path) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
    // The name of the program stands in brackets, and may hold anything: the state follows it as field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    Some(((ticks(14)? + ticks(15)?) / TICKS, ticks(22)? / TICKS))
}

fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|text| text.parse().ok())
}

fn resident_bytes(folder: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let mut text = Exposition::default();
        add("self", "process", &mut text);
        let text = text.into_text();
        for name in ["cpu_seconds_total", "start_time_seconds", "resident_memory_bytes", "open_fds"] {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("process_{name} ")));
            assert!(line.is_some_and(|value| value.parse::<f64>().unwrap() >= 0.0), "{name}: {text}");
        }
        let mut nobody = Exposition::default();
        add("0", "x", &mut nobody);
        assert_eq!(nobody.into_text(), "");
    }
}
