//! Moji's builder, which takes SRPMs from a `moji-server`, builds them with Mock and delivers the results; and what
//! `moji` is made of, with which people see the farm and steer it ([`operator`]).

pub mod access;
pub mod agent;
pub mod backoff;
pub mod builder;
pub mod connection;
pub mod crash;
pub mod delivery;
pub mod disk;
pub mod job;
pub mod log;
pub mod mock;
pub mod operator;
pub mod options;
pub mod out_of_sight;
pub mod outbox;
pub mod resources;
pub mod run;
pub mod start;
mod tail;
pub mod work_dir;
