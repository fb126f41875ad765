//! What this machine has: cores, memory, room on its disks. Blocks.
//!
//! Knows nothing of builds; that slots share it, is said in [`Machine::per_build`] alone.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use moji_proto::Resources;

/// What a machine has for all builds together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: Option<u64>,
    /// Memory in bytes: the machine's, or what the control group may use when that is less.
    pub memory: Option<u64>,
    /// Bytes that are free for builds.
    pub disk: Option<u64>,
}

impl Machine {
    /// Looks. `system` is the folder with `proc` and `sys` in it: `/`, or what a test brings; `disk` is
    /// what was found elsewhere.
    pub fn look(system: &Path, disk: Option<u64>) -> Self {
        let read = |path: &str| fs::read_to_string(system.join(path)).unwrap_or_default();
        let group = group_limit(system, &read("proc/self/cgroup"));
        let memory = total(&read("proc/meminfo")).into_iter().chain(group).min();
        let cores = available_parallelism().ok().and_then(|cores| cores.get().try_into().ok());
        Self { cores, memory, disk }
    }

    /// What one of `slots` builds may use when all slots build. The disk they share: nobody knows which of
    /// them will fill it.
    pub fn per_build(self, slots: u16) -> Resources {
        let slots = u64::from(slots.max(1));
        let cores = self.cores.map_or(0, |cores| (cores / slots).max(1));
        Resources {
            cores: cores.try_into().unwrap_or(u16::MAX),
            memory: self.memory.map_or(0, |memory| memory / slots),
            disk: self.disk.unwrap_or(0),
        }
    }
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The least `memory.max` of a process's control group and of those around it (cgroup v2); none without any.
fn group_limit(system: &Path, groups: &str) -> Option<u64> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let top = system.join("sys/fs/cgroup");
    let limit = |folder: &Path| fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok();
    // In a container the path may be one of the host's: then only the top is there.
    top.join(path).ancestors().take_while(|folder| folder.starts_with(&top)).filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let at = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = at.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        at
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree:   1000 kB\n");

    #[test]
    fn memory_is_bounded_by_the_control_groups() {
        let group = ("proc/self/cgroup", "1:name=systemd:/x\n0::/system.slice/moji.service\n");
        let service = "sys/fs/cgroup/system.slice/moji.service/memory.max";
        let slice = "sys/fs/cgroup/system.slice/memory.max";
        let top = "sys/fs/cgroup/memory.max";
        for (files, wanted) in [
            (&[][..], None),
            (&[MEMINFO], Some(8_192_000_000)),
            (&[MEMINFO, group], Some(8_192_000_000)),
            (&[MEMINFO, group, (service, "max\n")], Some(8_192_000_000)),
            (&[MEMINFO, group, (service, "4096\n"), (slice, "8192\n")], Some(4096)),
            (&[MEMINFO, group, (service, "max\n"), (slice, "8192\n")], Some(8192)),
            (&[MEMINFO, group, (service, "8192\n"), (slice, "4096\n")], Some(4096)),
            // A container's own group is the top one for it.
            (&[MEMINFO, group, (top, "12345\n")], Some(12_345)),
            (&[MEMINFO, group, (service, "9000000000000\n")], Some(8_192_000_000)),
            (&[("proc/meminfo", "MemTotal: lots"), group, (service, "77")], Some(77)),
            // Version 1 is not looked at.
            (&[MEMINFO, ("proc/self/cgroup", "4:memory:/x\n"), (top, "1")], Some(8_192_000_000)),
        ] {
            let at = system(files);
            assert_eq!(Machine::look(at.path(), None).memory, wanted, "{files:?}");
        }
    }

    #[test]
    fn slots_share_cores_and_memory() {
        let machine = Machine { cores: Some(6), memory: Some(1001), disk: Some(70) };
        for (slots, cores, memory) in [(1, 6, 1001), (2, 3, 500), (4, 1, 250), (7, 1, 143), (0, 6, 1001)] {
            assert_eq!(machine.per_build(slots), Resources { cores, memory, disk: 70 }, "{slots}");
        }
        let unknown = Machine { cores: None, memory: None, disk: None };
        assert_eq!(unknown.per_build(3), Resources::default());
        let huge = Machine { cores: Some(u64::MAX), ..machine };
        assert_eq!(huge.per_build(1).cores, u16::MAX);
    }

    #[test]
    fn this_machine_has_something() {
        let here = Machine::look(Path::new("/"), Some(5));
        assert!(here.cores > Some(0) && here.memory > Some(1 << 20) && here.disk == Some(5), "{here:?}");
    }
}
