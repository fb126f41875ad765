//! Tier 3: real programs, sockets, files, `rpmbuild` and `createrepo_c`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, like tests"
)]

mod arriving;
mod converging;
mod crash_points;
mod cut_upload;
mod events_out;
mod flood;
mod fsck;
mod full_disk;
mod generated;
mod http_api;
mod latency;
mod limits;
mod linked;
mod live_logs;
mod losses;
mod lost_writes;
mod main_job;
mod messages;
mod middle;
mod native_metadata;
mod passwords;
mod priority;
mod proxy;
mod reader;
mod readers;
mod repeating;
mod requires;
mod retrying;
mod signals;
mod stragglers;
mod targets;
mod tls;
