//! How much memory this process may have.
//!
//! ```text
//!   /proc/meminfo                          MemTotal, MemAvailable
//!   /proc/self/cgroup   9:memory:/a/b  ──> /sys/fs/cgroup/memory{/a/b,/a,/}/memory.limit_in_bytes   version 1
//!                       0::/a/b        ──> /sys/fs/cgroup{/a/b,/a,/}/memory.max                     version 2
//! ```
//!
//! The least of all limits is in force. In a container the path may be that of the machine outside, which is not there:
//! the limits of the folders above it are those of the container.

use std::fs;
use std::path::Path;

/// What the system has for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// Bytes, if nobody else took any.
    pub total: u64,
    /// Bytes that could be had just now, at most.
    pub available: u64,
    /// A control group sets the limit, not the machine.
    pub is_limited: bool,
}

impl MachineMemory {
    /// As it is now; None where the system does not say.
    pub fn now() -> Option<MachineMemory> {
        MachineMemory::of(Path::new("/"))
    }

    fn of(root: &Path) -> Option<MachineMemory> {
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
        let bytes = |name| Some(kilobytes(&meminfo, name)? << 10);
        let (total, available) = (bytes("MemTotal:")?, bytes("MemAvailable:").or_else(|| bytes("MemFree:"))?);
        let limit = group_limit(root).filter(|&limit| limit < total);
        let most = limit.unwrap_or(total);
        Some(MachineMemory { total: most, available: available.min(most), is_limited: limit.is_some() })
    }
}

fn kilobytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The least limit of the process's control groups.
fn group_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().filter_map(|line| limit_of(root, line)).min()
}

/// The least limit along one line of /proc/self/cgroup. A limit that is no number is none.
fn limit_of(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (folder, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limits = groups.filter_map(|group| fs::read_to_string(root.join(folder).join(group).join(file)).ok());
    limits.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn with(name: &str, files: &[(&str, &str)]) -> Option<MachineMemory> {
        let root = std::env::temp_dir().join(format!("twincache-machine-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = MachineMemory::of(&root);
        fs::remove_dir_all(&root).unwrap();
        found
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree: 1 kB\nMemAvailable:  512 kB\n");

    #[test]
    fn the_least_limit_is_in_force() {
        let of = |total, available, is_limited| Some(MachineMemory { total, available, is_limited });
        let one = ("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n");
        let two = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(with("none", &[MEMINFO]), of(1 << 20, 1 << 19, false));
        let limits = [("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100000\n")];
        assert_eq!(with("one", &[MEMINFO, one, limits[0]]), of(100_000, 100_000, true));
        let limits = [("sys/fs/cgroup/a/b/memory.max", "max\n"), ("sys/fs/cgroup/memory.max", "600000\n")];
        assert_eq!(with("two", &[MEMINFO, two, limits[0], limits[1]]), of(600_000, 1 << 19, true));
        let limits = [("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(with("high", &[MEMINFO, one, limits[0]]), of(1 << 20, 1 << 19, false));
        assert_eq!(with("odd", &[("proc/meminfo", "MemTotal: x kB\n"), ("proc/self/cgroup", "::\n\n")]), None);
        let now = MachineMemory::now().expect("this system says it");
        assert!(now.available <= now.total && now.total > 64 << 20);
    }
}
