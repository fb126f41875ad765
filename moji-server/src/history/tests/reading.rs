//! The reader beside the writer: its connections, and files that are replaced.

use super::*;
use crate::history::store::StoreError;
use crate::history::{BuildFilter, History, Reader};

async fn builds(reader: &Reader) -> Result<usize, StoreError> {
    reader
        .ask(|views| Ok(views.builds(&BuildFilter { limit: 10, ..BuildFilter::default() })?.items.len()))
        .await
}

#[tokio::test]
async fn connections_are_kept_and_follow_the_file() {
    let farm = Farm::new();
    let reader = Reader::of(&farm.folders);
    let error = builds(&reader).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("history.sqlite")), "{error:?}");
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    let (history, _) = History::open(&farm.folders).unwrap();
    assert_eq!(builds(&reader).await, Ok(1));
    let many: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let reader = reader.clone();
                async move { builds(&reader).await }
            })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap(), Ok(1));
    }
    assert!((1..=2).contains(&reader.kept()), "{}", reader.kept());
    // What the writer writes is seen by connections that were open before.
    history.record(Entry::Queued(srpm("b", 100)));
    assert!(history.flush());
    assert_eq!(builds(&reader).await, Ok(2));
    history.close();

    // Put aside, and made anew from the folders, which do not tell of b.
    schema::set_aside(&farm.path(), at(5)).unwrap();
    assert!(builds(&reader).await.is_err());
    let (history, _) = History::open(&farm.folders).unwrap();
    assert_eq!(builds(&reader).await, Ok(1));
    assert_eq!(reader.kept(), 1);
    // The connections to the old one are closed, and have not taken the new one's log away.
    history.record(Entry::Queued(srpm("c", 100)));
    assert!(history.flush());
    assert_eq!(builds(&reader).await, Ok(2));
    history.close();
    assert_eq!(rows(&farm.connection(), "PRAGMA integrity_check"), ["ok"]);
}

#[tokio::test]
async fn what_is_of_another_version_is_not_read() {
    let farm = Farm::new();
    let reader = Reader::of(&farm.folders);
    let mut connection = Connection::open(farm.path()).unwrap();
    assert!(matches!(builds(&reader).await, Err(StoreError::Unavailable(_))), "empty");
    schema::migrate(&mut connection, &schema::MIGRATIONS[..2]).unwrap();
    let error = builds(&reader).await.unwrap_err().to_string();
    assert!(error.contains("its version is 2"), "{error}");
    schema::migrate(&mut connection, schema::MIGRATIONS).unwrap();
    assert_eq!(builds(&reader).await, Ok(0));
    assert_eq!(
        reader.ask(|_| Err::<(), _>(StoreError::Broken("a bad page".into()))).await,
        Err(StoreError::Broken("a bad page".into()))
    );
    assert_eq!(reader.kept(), 0, "opened anew after that");
}
