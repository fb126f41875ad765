//! What the farm promises today. Tests of crashes, full disks and soaking read it here, so that they
//! become stricter by one line when the farm does.

/// What becomes of an attempt whose Mock has ended when its client, its server or their connection is
/// lost before the server has accepted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// Its SRPM may be built once more.
    MayBeBuiltAgain,
    /// Its results are delivered in the end: nothing is built twice.
    IsDelivered,
}

/// What becomes of a build that failed because a disk of its builder was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildersFault {
    /// It is final, and a person queues the SRPM again.
    IsFinal,
    /// It is built once more by itself.
    IsBuiltAgain,
}

/// Today's promise about finished builds.
pub const FINISHED: Finished = Finished::MayBeBuiltAgain;

/// Today's promise about full disks of builders.
pub const BUILDERS_FAULT: BuildersFault = BuildersFault::IsBuiltAgain;
