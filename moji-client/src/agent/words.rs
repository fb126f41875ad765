//! What the agent hears and what it wants done.

use std::time::Duration;

use moji_proto::AttemptId;

/// A point in time: how long the client runs.
pub type Moment = Duration;

/// What an agent must know of its builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many SRPMs to build at a time.
    pub slots: u16,
    /// Leave when there was nothing to do for so long.
    pub exit_when_idle: Option<Duration>,
    /// While results of more bytes than this wait in the outbox, no slot asks for work.
    pub outbox_limit: u64,
    /// Results that could not be delivered for so long are removed.
    pub outbox_age: Duration,
    /// Whether there must be room on the disk before a slot asks for work.
    pub needs_room: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Results of an earlier run lie in the outbox; oldest first, before anything else happens.
    Found {
        /// The attempt.
        attempt: AttemptId,
        /// Their size.
        bytes: u64,
        /// How long they have been waiting.
        age: Duration,
    },
    /// The server has welcomed this builder.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The server gives an SRPM to a slot.
    Assigned {
        /// The slot.
        slot: u16,
        /// The attempt.
        attempt: AttemptId,
    },
    /// A slot's SRPM is here, whole: from now on the attempt needs no connection.
    Received(u16),
    /// Mock has ended in a slot, by itself: there is something to pack.
    Built(u16),
    /// A slot's job has ended.
    JobEnded {
        /// The slot.
        slot: u16,
        /// How.
        end: JobEnd,
    },
    /// The server's answer to a hold: the attempt is this connection's again.
    Resumed(AttemptId),
    /// The server's answer to a delivery: it wants the bytes.
    Wanted(AttemptId),
    /// An upload has ended; the server's verdict comes.
    Uploaded(AttemptId),
    /// The results in the outbox are not what they were: they can never be delivered.
    Broken(AttemptId),
    /// The results of an attempt are published.
    Accepted(AttemptId),
    /// The results of an attempt were not good.
    Rejected {
        /// The attempt.
        attempt: AttemptId,
        /// Whether to deliver them again, after a pause.
        again: bool,
    },
    /// The server wants no more of an attempt.
    Dropped(AttemptId),
    /// The disk was looked at.
    Looked {
        /// Whether there is room for a build.
        enough: bool,
    },
    /// Finish what is being built, deliver it, leave: the first signal.
    Drain,
    /// Stop what is being built, give it back, leave: the second signal.
    Stop,
}

/// How a job ended. Nothing of it is left in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// Without results: it was stopped, or its SRPM never came.
    Nothing,
    /// Without results, because something is wrong with this machine.
    Trouble,
    /// Its results are in the outbox, durable.
    Packed {
        /// Their size.
        bytes: u64,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Tell the server that this builder holds an attempt of an earlier connection.
    Hold(AttemptId),
    /// Ask the server for work for a slot.
    Ask(u16),
    /// Tell the server that this builder takes no more work.
    SayDrain,
    /// Begin a slot's job.
    Start {
        /// The slot.
        slot: u16,
        /// The attempt.
        attempt: AttemptId,
    },
    /// The live logs of a slot's job may go on over this connection.
    GoOn(u16),
    /// Stop a slot's job; it ends with [`Event::JobEnded`]. Once it has built, it packs what there is, if it can.
    Abort(u16),
    /// Announce the results of an attempt and list them.
    Deliver(AttemptId),
    /// Send the results of an attempt; ends with [`Event::Uploaded`] or [`Event::Broken`].
    Upload(AttemptId),
    /// Give an attempt back to the server.
    Release {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        why: GivenBack,
    },
    /// Remove the results of an attempt from the outbox.
    Discard {
        /// The attempt.
        attempt: AttemptId,
        /// Why.
        why: Discarded,
    },
    /// The server broke the protocol: give the connection up.
    Protest(&'static str),
    /// Look how much room there is; answered by [`Event::Looked`].
    Look,
    /// Tell the people.
    Tell(Notice),
    /// End the program.
    Leave(Why),
}

/// Why an attempt is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// The builder was stopped.
    Stopped,
    /// The slot takes no work.
    Surplus,
    /// There is no room on the disk.
    NoRoom,
    /// Something is wrong with this machine: its job said what.
    Trouble,
    /// Its results are not what they were.
    Broken,
    /// Its results have waited for too long.
    TooOld,
    /// It is not here any more.
    Forgotten,
}

/// Why results are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// They are published.
    Accepted,
    /// The server will never take them.
    Refused,
    /// The server wants no more of the attempt.
    Dropped,
    /// They are not what they were.
    Broken,
    /// They have waited for too long.
    TooOld,
}

/// What people should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// No slot asks for work, because the outbox is full.
    OutboxFull,
    /// That is over.
    OutboxRoomy,
    /// No slot asks for work, because there is too little room on the disk.
    DiskLow,
    /// That is over.
    DiskRoomy,
}

/// Why a builder leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was told to.
    Told,
    /// There was nothing to do for long enough.
    Idle,
}
