//! Moji's server: hands SRPMs from a folder to builders, and publishes what they built as a dnf
//! repository.

mod accept;
pub mod access;
pub mod beneath;
mod bucket;
pub mod build_key;
pub mod builder_id;
pub mod catalogue;
pub mod commit;
pub mod crash;
pub mod durable;
pub mod farm;
pub mod folders;
pub mod fsck;
pub mod history;
pub mod hold;
pub mod http;
pub mod lease_record;
pub mod left_behind;
pub mod limits;
pub mod log;
pub mod logins;
pub mod metadata;
pub mod options;
pub mod out_of_sight;
pub mod peer;
pub mod quarantine;
mod quiet;
pub mod record;
pub mod repository_url;
pub mod room;
mod rpm_file;
pub mod run;
pub mod scheduler;
pub mod session;
pub mod source;
mod staging;
pub mod verify;
mod working;

pub use accept::{Listener, Place};
pub use build_key::BuildKey;
pub use builder_id::BuilderId;
pub use limits::Limits;
pub use peer::Peer;
