//! Which packages a target can have, by their architecture.
//!
//! After rpm's `arch_compat` (`/usr/lib/rpm/rpmrc`, rpm 4.20), but in families and not in one direction
//! only: a target that is called `i386` makes packages for `i686`, and `armv7hl` some for `armv7hnl`. A
//! 64 bit target has no packages of its 32 bit brother: those come from a build for that one.

/// Architectures whose packages are made for one target.
const FAMILIES: &[&[&str]] = &[
    &["x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "amd64", "em64t", "ia32e"],
    &["i386", "i486", "i586", "i686", "pentium3", "pentium4", "athlon", "geode"],
    &["aarch64"],
    // With and without hardware floating point: they cannot be mixed.
    &["armv6hl", "armv7hl", "armv7hnl", "armv8hl"],
    &["armv3l", "armv4l", "armv4tl", "armv5tl", "armv5tel", "armv5tejl", "armv6l", "armv7l", "armv8l"],
    &["armv4b"],
    &["ppc64le"],
    &["ppc64", "ppc64p7", "ppc64pseries", "ppc64iseries"],
    &["ppc", "ppc8260", "ppc8560", "ppc32dy4", "ppciseries", "ppcpseries"],
    &["s390x"],
    &["s390"],
    &["riscv64"],
    &["riscv"],
    &["loongarch64"],
    &["mips64el"],
    &["mips64"],
    &["mipsel"],
    &["mips"],
    &["mips64r6el"],
    &["mips64r6"],
    &["mipsr6el"],
    &["mipsr6"],
    &["sparc64", "sparc64v", "sun4u"],
    &["sparc", "sparcv8", "sparcv9", "sparcv9v", "sun4c", "sun4d", "sun4m"],
    &["alpha", "alphaev5", "alphaev56", "alphapca56", "alphaev6", "alphaev67"],
    &["ia64"],
    &["hppa1.0", "hppa1.1", "hppa1.2", "hppa2.0", "parisc"],
    &["sh3"],
    &["sh4", "sh4a"],
    &["m68k"],
];

/// Families that a machine can run beside its own, by what `uname -m` says: the kernel's word is the
/// same for both byte orders of MIPS, and for both ways in which ARM passes floating point numbers.
const ALSO: &[(&str, &[&str])] = &[
    ("x86_64", &["i686"]),
    ("aarch64", &["armv7hl", "armv7l"]),
    ("armv8l", &["armv7hl"]),
    ("armv7l", &["armv7hl"]),
    ("armv6l", &["armv6hl"]),
    ("ppc64", &["ppc"]),
    ("s390x", &["s390"]),
    ("mips", &["mipsel", "mipsr6", "mipsr6el"]),
    ("mips64", &["mips64el", "mips", "mipsel", "mips64r6", "mips64r6el"]),
    ("sparc64", &["sparc"]),
];

/// Whether a target can have a package for `arch`. When the target's name does not end in an
/// architecture, what counts is what the builder's machine can run.
pub(super) fn fits(arch: &str, target: &str, machine: &str) -> bool {
    if arch == "noarch" {
        return true;
    }
    let last = target.rsplit('-').next().unwrap_or(target);
    match family(last) {
        Some(family) => family.contains(&arch),
        None => runs(machine, arch),
    }
}

fn family(arch: &str) -> Option<&'static [&'static str]> {
    FAMILIES.iter().find(|family| family.contains(&arch)).copied()
}

fn runs(machine: &str, arch: &str) -> bool {
    let also = ALSO.iter().find(|(of, _)| *of == machine).map_or(&[][..], |(_, also)| also);
    machine == arch
        || std::iter::once(&machine)
            .chain(also)
            .any(|runs| family(runs).is_some_and(|family| family.contains(&arch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_in_one_family() {
        let mut all: Vec<_> = FAMILIES.iter().flat_map(|family| family.iter()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for (machine, also) in ALSO {
            assert!(also.iter().chain([machine]).all(|arch| family(arch).is_some()), "{machine}");
        }
    }

    #[test]
    fn the_name_of_the_target_tells() {
        for (target, good, bad) in [
            ("fedora-43-x86_64", &["x86_64", "noarch"][..], &["i686", "aarch64", "src", ""][..]),
            ("fedora-18-armv7hl", &["armv7hl", "armv7hnl"], &["armv7l", "armv5tel", "aarch64"]),
            ("fedora-16-armv5tel", &["armv5tel"], &["armv7hl"]),
            ("fedora-27-i386", &["i386", "i686"], &["x86_64"]),
            ("epel-9-ppc64le", &["ppc64le"], &["ppc64", "ppc"]),
            ("epel-6-ppc64", &["ppc64", "ppc64p7"], &["ppc", "ppc64le"]),
            ("alma+epel-10-x86_64_v2", &["x86_64_v2"], &["i686"]),
            ("s390x", &["s390x"], &["s390"]),
        ] {
            // What the machine is does not matter then: builds may be emulated.
            assert!(good.iter().all(|arch| fits(arch, target, "vax")), "{target}");
            assert!(!bad.iter().any(|arch| fits(arch, target, "x86_64")), "{target}");
        }
    }

    #[test]
    fn else_the_machine_does() {
        for (machine, good, bad) in [
            ("x86_64", &["x86_64", "i686", "noarch"][..], &["aarch64"][..]),
            ("aarch64", &["aarch64", "armv7hl"], &["x86_64"]),
            ("armv7l", &["armv7hl", "armv5tel"], &["aarch64"]),
            ("vax", &["vax", "noarch"], &["x86_64", ""]),
            ("", &["noarch"], &["x86_64"]),
        ] {
            assert!(good.iter().all(|arch| fits(arch, "here", machine)), "{machine}");
            assert!(!bad.iter().any(|arch| fits(arch, "f43-arm", machine)), "{machine}");
        }
    }
}
