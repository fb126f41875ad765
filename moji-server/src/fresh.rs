//! An answer that many want at a time, and that is good for all of them for a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The last answer. Cheap to clone: all clones share it.
#[derive(Debug)]
pub(crate) struct Fresh<T>(Arc<Mutex<Option<Answer<T>>>>);

#[derive(Debug)]
struct Answer<T> {
    at: Instant,
    answer: Arc<T>,
}

impl<T> Clone for Fresh<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Fresh<T> {
    /// The last answer is not good any more.
    pub(crate) async fn forget(&self) {
        *self.0.lock().await = None;
    }

    /// The last answer, if it is no older than `age`; else what `make` gives. Those who come meanwhile wait for it.
    ///
    /// # Errors
    /// When `make` fails; whoever comes next tries again.
    pub(crate) async fn get<E>(
        &self,
        age: Duration,
        make: impl Future<Output = Result<Arc<T>, E>>,
    ) -> Result<Arc<T>, E> {
        let mut last = self.0.lock().await;
        if let Some(Answer { at, answer }) = last.as_ref()
            && at.elapsed() < age
        {
            return Ok(Arc::clone(answer));
        }
        let answer = make.await?;
        *last = Some(Answer { at: Instant::now(), answer: Arc::clone(&answer) });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_at_a_time_get_one_answer_and_a_failure_is_not_kept() {
        let (fresh, asked) = (Fresh::default(), AtomicU32::new(0));
        let ask = || async {
            fresh
                .get(Duration::from_millis(200), async {
                    sleep(Duration::from_millis(50)).await;
                    match asked.fetch_add(1, Ordering::Relaxed) {
                        0 => Err("not yet"),
                        number => Ok(Arc::new(number)),
                    }
                })
                .await
        };
        let (failed, first, second) = tokio::join!(ask(), ask(), ask());
        assert_eq!((failed, *first.unwrap(), *second.unwrap()), (Err("not yet"), 1, 1));
        sleep(Duration::from_millis(150)).await;
        assert_eq!(*ask().await.unwrap(), 1);
        sleep(Duration::from_millis(50)).await;
        assert_eq!(*ask().await.unwrap(), 2);
    }
}
