//! What is told of the farm: the answers that pages, JSON and `moji` show, each put together from what the farm
//! knows now, what the history knows, and what lies in the folders.
//!
//! It changes nothing, and it is the only place where the three are joined. It deliberately does not know who asks,
//! nor how an answer looks.

mod builds;
mod error;
mod excerpts;
mod farm;
mod logs;
mod numbers;
mod places;
mod why;

use std::sync::Arc;

use moji_proto::api::{Event, Overview};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

pub use error::ApiError;
pub use logs::{Follower, LogOf, OpenLog};

use crate::farm_handle::FarmHandle;
use crate::folders::Folders;
use crate::fresh::Fresh;
use crate::history::Reader;
use crate::http::STREAMS;
use crate::repository_url::RepositoryUrls;
use excerpts::Excerpts;
use numbers::Numbers;

/// Answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    pub(crate) farm: FarmHandle,
    pub(crate) history: Reader,
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    pub(crate) folders: Arc<Folders>,
    /// Under which URLs REPO is served, as the operator says.
    pub(crate) repository_urls: RepositoryUrls,
    /// What goes on as long as something happens ends with this.
    pub(crate) ending: CancellationToken,
    /// Places for those who follow something.
    pub(crate) streams: Arc<Semaphore>,
    /// Places for those who make long logs harmless: one core at most.
    pub(crate) rendering: Arc<Semaphore>,
    /// What is counted.
    pub(crate) numbers: Arc<Numbers>,
    overview: Fresh<Overview>,
    report: Fresh<serde_json::Value>,
    excerpts: Arc<Excerpts>,
}

impl Api {
    /// Answers from these.
    pub fn new(
        farm: FarmHandle,
        history: Reader,
        events: broadcast::Sender<Arc<Event>>,
        folders: Arc<Folders>,
    ) -> Self {
        Self {
            farm,
            history,
            events,
            folders,
            repository_urls: RepositoryUrls::default(),
            ending: CancellationToken::new(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            rendering: Arc::new(Semaphore::new(1)),
            numbers: Arc::default(),
            overview: Fresh::default(),
            report: Fresh::default(),
            excerpts: Arc::default(),
        }
    }

    /// The same, of a server that knows where REPO is served.
    #[must_use]
    pub fn with_repository_urls(self, repository_urls: RepositoryUrls) -> Self {
        Self { repository_urls, ..self }
    }

    /// The same, whose answers that go on and on end at the latest with this.
    #[must_use]
    pub fn until(self, ending: CancellationToken) -> Self {
        Self { ending, ..self }
    }

    /// The same for those who have a credential: whatever strangers read, there is a place for them.
    #[must_use]
    pub fn apart(&self) -> Self {
        let (streams, history) = (Arc::new(Semaphore::new(STREAMS)), Reader::of(&self.folders));
        Self { streams, history, ..self.clone() }
    }

    /// Answers of a farm that does not run: what its folders and its history tell.
    pub fn of_folders(folders: Arc<Folders>) -> Self {
        let (farm, _) = FarmHandle::new();
        let (events, _) = broadcast::channel(1);
        Self::new(farm, Reader::of(&folders), events, folders)
    }
}
