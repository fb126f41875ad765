//! Why a question has no answer.

use crate::farm_handle::Stopping;
use crate::history::StoreError;

/// Why a question has no answer. Its text is for whoever asked, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// There is no such thing (404).
    #[error("{0}")]
    NotFound(String),
    /// The question is wrong (400).
    #[error("{0}")]
    Wrong(String),
    /// Not now (503).
    #[error("{0}")]
    Unavailable(String),
}

impl From<Stopping> for ApiError {
    fn from(stopping: Stopping) -> Self {
        Self::Unavailable(stopping.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(format!("the history cannot be read now: {error}"))
    }
}
