//! One example of every message, and what serde knows of the messages' names. Shared by the tests
//! of the bytes and of their description. Every number and name differs, so that fields that were
//! swapped show.
#![allow(dead_code, reason = "each test binary uses its own part")]

use moji_proto::operator::{Act, Done, FromOperator, Operate, Place, Role, ToOperator};
use moji_proto::{
    ArtifactName, Assignment, AttemptId, BuilderName, CredentialName, FailureKind, HeldAttempt, LogFile,
    ManifestEntry, Outcome, Phase, Registration, RepositoryUrl, Resources, Sha256, SrpmName, StreamMessage,
    Tag, TargetName, ToBuilder, ToServer,
};
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, VariantAccess, Visitor};

fn attempt(serial: u64) -> AttemptId {
    AttemptId { boot: 0x0123_4567_89ab_cdef, serial }
}

fn digest(first: u8) -> Sha256 {
    Sha256(std::array::from_fn(|i| first.wrapping_add(i as u8)))
}

fn failed(kind: FailureKind, exit_code: Option<i32>) -> Outcome {
    Outcome::failed(kind, "no ‘zlib’", exit_code, vec!["pkgconfig(zlib) >= 1.2".into(), "cmake".into()])
}

pub(crate) fn to_server() -> Vec<(&'static str, ToServer)> {
    let entry = |name, size, first| ManifestEntry {
        name: ArtifactName::new(name).unwrap(),
        size,
        sha256: digest(first),
    };
    let deliver = |serial, outcome| ToServer::Deliver {
        attempt: attempt(serial),
        outcome,
        files: 3,
        bytes: 0x1_0000_0001,
    };
    let failed_with = |kind, serial| deliver(serial, failed(kind, Some(-9)));
    let hold = |serial, slot, phase| {
        ToServer::Hold(HeldAttempt {
            attempt: attempt(serial),
            target: TargetName::new("fedora-43-riscv64").unwrap(),
            srpm: SrpmName::new("bash-5.3.0-2.fc43.src.rpm").unwrap(),
            sha256: digest(0x40),
            slot,
            phase,
        })
    };
    vec![
        (
            "Register",
            ToServer::Register(Registration {
                name: BuilderName::new("panda-1").unwrap(),
                targets: vec![
                    TargetName::new("fedora-43-aarch64").unwrap(),
                    TargetName::new("fedora-42-armhfp").unwrap(),
                ],
                slots: 5,
                arch: "aarch64".into(),
                software: "moji-client 0.1.0".into(),
                resources: Resources { cores: 6, memory: 0x4_0000_0004, disk: 0x5_0000_0005 },
                tags: vec![Tag::new("big").unwrap(), Tag::new("fast-disk").unwrap()],
            }),
        ),
        ("Ask", ToServer::Ask { slot: 251 }),
        ("Drain", ToServer::Drain),
        ("Heartbeat idle", ToServer::Heartbeat { attempts: vec![], disk: None }),
        (
            "Heartbeat busy",
            ToServer::Heartbeat {
                attempts: vec![(attempt(6), Phase::Building), (attempt(7), Phase::Receiving)],
                disk: Some(0x6_0000_0006),
            },
        ),
        ("Log", ToServer::Log { attempt: attempt(8), file: LogFile::Build, offset: 0x1_0001, stream: 9 }),
        (
            "Manifest",
            ToServer::Manifest {
                attempt: attempt(10),
                entries: vec![entry("a-1-1.noarch.rpm", 0x1234_5678, 0x80), entry("build.log", 250, 0xa0)],
            },
        ),
        ("Deliver succeeded", deliver(65_536, Outcome::Succeeded)),
        ("Deliver failed, package", failed_with(FailureKind::Package, 112)),
        ("Deliver failed, missing dependency", failed_with(FailureKind::MissingDependency, 113)),
        ("Deliver failed, infrastructure", failed_with(FailureKind::Infrastructure, 114)),
        ("Deliver failed, configuration", failed_with(FailureKind::Configuration, 115)),
        ("Deliver failed, unreadable SRPM", failed_with(FailureKind::UnreadableSrpm, 116)),
        ("Deliver failed, interrupted", failed_with(FailureKind::Interrupted, 117)),
        ("Deliver failed, no exit code", deliver(18, failed(FailureKind::Package, None))),
        (
            "Release, nobody's fault",
            ToServer::Release { attempt: attempt(20), reason: "second SIGTERM".into(), trouble: false },
        ),
        (
            "Release, trouble",
            ToServer::Release { attempt: attempt(19), reason: "disk full".into(), trouble: true },
        ),
        ("Stream", ToServer::Stream(StreamMessage::Received { stream: 21, bytes: 0x22_0000 })),
        ("Goodbye", ToServer::Goodbye { reason: "drained".into() }),
        ("Hold in a slot", hold(22, Some(23), Phase::Building)),
        ("Hold in the outbox", hold(24, None, Phase::Delivering)),
        ("Upload", ToServer::Upload { attempt: attempt(25), offset: 0x2_0000_0002, stream: 26 }),
        ("Operate", ToServer::Operate(Operate { software: "moji 0.1.0".into() })),
    ]
}

pub(crate) fn from_operator() -> Vec<(&'static str, FromOperator)> {
    let act = |request, act| FromOperator::Act { request, act };
    let target = || Some(TargetName::new("fedora-43-s390x").unwrap());
    let submit = |request, target, place, is_repeat| FromOperator::Submit {
        request,
        srpm: SrpmName::new("gcc-15.2.1-7.fc43.src.rpm").unwrap(),
        target,
        size: 0x7_0000_0007,
        sha256: digest(0x10),
        place,
        is_repeat,
    };
    let place =
        |request, place| act(request, Act::Prioritize { entry: "python3-*".into(), target: target(), place });
    let builds = || vec!["17".into(), "fedora-43-s390x/gcc".into()];
    vec![
        ("Heartbeat", FromOperator::Heartbeat),
        ("Get", FromOperator::Get { request: 60, path: "/api/v1/builds?state=failed".into() }),
        ("Submit", submit(61, None, None, false)),
        ("Submit again, for a target, first", submit(62, target(), Some(Place::First), true)),
        ("Upload", FromOperator::Upload { request: 63, offset: 0x1_0002, stream: 64 }),
        ("Act Retry", act(65, Act::Retry { builds: builds() })),
        ("Act RetryFailed", act(66, Act::RetryFailed { kind: None, target: None })),
        (
            "Act RetryFailed of a kind",
            act(67, Act::RetryFailed { kind: Some(FailureKind::Infrastructure), target: target() }),
        ),
        ("Act Cancel", act(68, Act::Cancel { builds: builds() })),
        ("Act Hold", act(69, Act::Hold { builds: builds(), reason: Some("wait for glibc".into()) })),
        ("Act Prioritize First", place(70, Place::First)),
        ("Act Prioritize Last", place(71, Place::Last)),
        ("Act Prioritize At", place(72, Place::At(3))),
        ("Act Prioritize Nowhere", place(73, Place::Nowhere)),
        ("Act Drain", act(74, Act::Drain { builder: "lab/board-7".into(), reason: None })),
        ("Act Resume", act(75, Act::Resume { builder: "lab/board-7".into() })),
        ("Act Pause", act(76, Act::Pause { reason: Some("mass rebuild".into()) })),
        ("Act Unpause", act(77, Act::Unpause)),
        ("Stream", FromOperator::Stream(StreamMessage::Unwanted { stream: 78 })),
        ("Goodbye", FromOperator::Goodbye { reason: "done".into() }),
    ]
}

pub(crate) fn to_operator() -> Vec<(&'static str, ToOperator)> {
    let welcome = |role, credential| ToOperator::Welcome {
        heartbeat_ms: 20_000,
        dead_after_ms: 100_000,
        software: "moji-server 0.1.0".into(),
        role,
        credential,
    };
    let done = |about: &str, is_done, text: &str| Done { about: about.into(), is_done, text: text.into() };
    vec![
        ("Welcome submitter", welcome(Role::Submitter, Some(CredentialName::new("alice").unwrap()))),
        ("Welcome admin", welcome(Role::Admin, None)),
        ("HeartbeatSeen", ToOperator::HeartbeatSeen),
        (
            "Answer",
            ToOperator::Answer {
                request: 80,
                status: 404,
                content_type: "application/json".into(),
                stream: 81,
            },
        ),
        ("Wanted", ToOperator::Wanted { request: 82, offset: 0x8_0000_0008 }),
        (
            "Done",
            ToOperator::Done {
                request: 83,
                done: vec![done("17", true, "queued again"), done("gcc", false, "a builder has it")],
            },
        ),
        ("Refused", ToOperator::Refused { request: 84, reason: "it cannot be built".into() }),
        ("Stream", ToOperator::Stream(StreamMessage::Received { stream: 85, bytes: 70_001 })),
        ("Goodbye", ToOperator::Goodbye { reason: "the server is stopping".into() }),
    ]
}

pub(crate) fn to_builder() -> Vec<(&'static str, ToBuilder)> {
    let assign = |serial, slot, stream, repository| {
        ToBuilder::Assign(Assignment {
            attempt: attempt(serial),
            slot,
            target: TargetName::new("fedora-43-aarch64").unwrap(),
            srpm: SrpmName::new("zlib-1.3.1-2.fc43.src.rpm").unwrap(),
            size: 1_500_000,
            stream,
            repository,
        })
    };
    let [absolute, on_server] = repositories().map(|(_, url)| Some(url));
    vec![
        (
            "Registered",
            ToBuilder::Registered {
                heartbeat_ms: 15_000,
                dead_after_ms: 90_000,
                software: "moji-server 0.1.0".into(),
            },
        ),
        ("Assign", assign(30, 31, 32, None)),
        ("Assign with a repository", assign(48, 49, 50, absolute)),
        ("Assign with a repository on the server", assign(51, 52, 53, on_server)),
        ("HeartbeatSeen", ToBuilder::HeartbeatSeen),
        ("Accepted", ToBuilder::Accepted { attempt: attempt(33) }),
        (
            "Rejected for good",
            ToBuilder::Rejected { attempt: attempt(34), reason: "not its SRPM".into(), again: false },
        ),
        (
            "Rejected, again",
            ToBuilder::Rejected { attempt: attempt(35), reason: "wrong digest".into(), again: true },
        ),
        ("Stale", ToBuilder::Stale { attempt: attempt(36) }),
        ("Cancel", ToBuilder::Cancel { attempt: attempt(37), reason: "SRPM removed".into() }),
        ("Stream", ToBuilder::Stream(StreamMessage::Unwanted { stream: 38 })),
        ("Goodbye", ToBuilder::Goodbye { reason: "the server restarts".into() }),
        (
            "Resume",
            ToBuilder::Resume {
                attempt: attempt(39),
                logs: vec![(LogFile::Root, 70_000), (LogFile::Build, 45)],
            },
        ),
        ("Resume without logs", ToBuilder::Resume { attempt: attempt(46), logs: vec![] }),
        ("Wanted", ToBuilder::Wanted { attempt: attempt(47), offset: 0x3_0000_0003, part: digest(0x60) }),
        ("Suspended", ToBuilder::Suspended { seconds: 300, reason: "three failures in a row".into() }),
    ]
}

pub(crate) fn repositories() -> [(&'static str, RepositoryUrl); 2] {
    let absolute = RepositoryUrl::absolute("https://repo.example.org/moji/generations/54/");
    let on_server = RepositoryUrl::on_server(6790, "/fedora-43-aarch64/generations/55/");
    [("Absolute", absolute.unwrap()), ("OnServer", on_server.unwrap())]
}

pub(crate) fn streams() -> Vec<(&'static str, StreamMessage)> {
    vec![
        ("Received", StreamMessage::Received { stream: 40, bytes: 65_535 }),
        ("End", StreamMessage::End { stream: 41, sha256: None }),
        ("End with a digest", StreamMessage::End { stream: 42, sha256: Some(digest(0xc0)) }),
        ("Abort", StreamMessage::Abort { stream: 43, reason: "disk full".into() }),
        ("Unwanted", StreamMessage::Unwanted { stream: 0x0102_0304 }),
    ]
}

pub(crate) const PHASES: [Phase; 5] =
    [Phase::Receiving, Phase::Preparing, Phase::InstallingBuildRequires, Phase::Building, Phase::Delivering];

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A variant of an enum as the derived code knows it: its name, and its fields' names where it has
/// any of its own.
pub(crate) type Variant = (&'static str, &'static [&'static str]);

/// Every variant of `E`, in the order of the wire.
pub(crate) fn variants<'de, E: Deserialize<'de>>() -> Vec<Variant> {
    let fields_of = |variant| match E::deserialize(Probe { variant }) {
        Err(Seen::Variant(names, fields)) => Some((*names.get(variant as usize)?, fields)),
        // A variant without fields; or a number that no variant has.
        Err(Seen::Names(names)) => Some((*names.get(variant as usize)?, &[][..])),
        Ok(_) => names::<E>().get(variant as usize).map(|name| (*name, &[][..])),
        Err(Seen::Other) => None,
    };
    (0..names::<E>().len() as u32).map(|variant| fields_of(variant).unwrap()).collect()
}

/// The names of the fields of the structure `S`, in the order of the wire.
pub(crate) fn fields<'de, S: Deserialize<'de>>() -> &'static [&'static str] {
    match S::deserialize(Probe { variant: 0 }) {
        Err(Seen::Variant(_, fields)) => fields,
        _ => panic!("not a structure"),
    }
}

fn names<'de, E: Deserialize<'de>>() -> &'static [&'static str] {
    match E::deserialize(Probe { variant: u32::MAX }) {
        Err(Seen::Names(names)) => names,
        _ => panic!("not an enum"),
    }
}

/// A deserializer that decodes nothing: its error says what the type asked for.
struct Probe {
    variant: u32,
}

#[derive(Debug)]
enum Seen {
    Names(&'static [&'static str]),
    Variant(&'static [&'static str], &'static [&'static str]),
    Other,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a probe")
    }
}

impl std::error::Error for Seen {}

impl de::Error for Seen {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self::Other
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Seen;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Seen> {
        Err(Seen::Other)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Seen> {
        let probe = ProbeVariant { names, variant: self.variant };
        visitor.visit_enum(probe).map_err(|seen| match seen {
            Seen::Other => Seen::Names(names),
            seen => seen,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Seen> {
        Err(Seen::Variant(&[], fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct ProbeVariant {
    names: &'static [&'static str],
    variant: u32,
}

impl<'de> EnumAccess<'de> for ProbeVariant {
    type Error = Seen;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Seen> {
        let number = de::value::U32Deserializer::new(self.variant);
        Ok((seed.deserialize(number)?, self))
    }
}

impl<'de> VariantAccess<'de> for ProbeVariant {
    type Error = Seen;

    fn unit_variant(self) -> Result<(), Seen> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, Seen> {
        Err(Seen::Variant(self.names, &[]))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Seen> {
        Err(Seen::Variant(self.names, &[]))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Seen> {
        Err(Seen::Variant(self.names, fields))
    }
}
