//! Files that are not what they should be.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::history::History;
use crate::history::store::StoreError;

fn broken_files(farm: &Farm) -> Vec<String> {
    let entries = fs::read_dir(farm.folders.private()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.contains(".broken-") && !name.ends_with("-wal"));
    names.sort();
    names
}

/// A farm with one finished build and a history that knows it.
fn farm() -> Farm {
    let farm = Farm::new();
    farm.finish("a", 1, 1000, Outcome::Succeeded);
    open(&farm);
    assert_eq!(builds(&farm), 1);
    farm
}

fn open(farm: &Farm) {
    History::open(&farm.folders).unwrap().0.close();
}

fn builds(farm: &Farm) -> usize {
    rows(&farm.connection(), "SELECT id FROM builds").len()
}

#[test]
fn the_file_is_private_and_marked() {
    let farm = farm();
    assert_eq!(fs::metadata(farm.path()).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(farm.path(), fs::Permissions::from_mode(0o644)).unwrap();
    open(&farm);
    assert_eq!(fs::metadata(farm.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let connection = farm.connection();
    assert_eq!(rows(&connection, "PRAGMA application_id"), [0x6d6f_6a69.to_string()]);
    assert_eq!(rows(&connection, "PRAGMA user_version"), [schema::MIGRATIONS.len().to_string()]);
    assert_eq!(rows(&connection, "PRAGMA journal_mode"), ["wal"]);
}

#[test]
fn a_broken_file_is_put_aside_and_made_anew() {
    let foreign = |sql: &'static str| {
        move |farm: &Farm| {
            fs::remove_file(farm.path()).unwrap();
            Connection::open(farm.path()).unwrap().execute_batch(sql).unwrap();
        }
    };
    type Damage = Box<dyn Fn(&Farm)>;
    let damage: [(&str, Damage); 7] = [
        ("text", Box::new(|farm| fs::write(farm.path(), "dear diary\n".repeat(900)).unwrap())),
        ("short text", Box::new(|farm| fs::write(farm.path(), "dear diary").unwrap())),
        (
            "truncated",
            Box::new(|farm| {
                let file = fs::OpenOptions::new().write(true).open(farm.path()).unwrap();
                file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            }),
        ),
        (
            "overwritten pages",
            Box::new(|farm| {
                let mut bytes = fs::read(farm.path()).unwrap();
                let half = bytes.len() / 4;
                bytes[4096..4096 + half].fill(0xa5);
                fs::write(farm.path(), bytes).unwrap();
            }),
        ),
        ("another program's", Box::new(foreign("CREATE TABLE mails (id); PRAGMA application_id = 7"))),
        ("nobody's", Box::new(foreign("CREATE TABLE builds (id)"))),
        (
            "a word that is not known",
            Box::new(|farm| {
                let sql = "PRAGMA ignore_check_constraints = 1; UPDATE builds SET state = 'happy'";
                Connection::open(farm.path()).unwrap().execute_batch(sql).unwrap();
            }),
        ),
    ];
    for (what, damage) in damage {
        let farm = farm();
        damage(&farm);
        let bytes = fs::read(farm.path()).unwrap();
        open(&farm);
        assert_eq!(builds(&farm), 1, "{what}");
        let aside = broken_files(&farm);
        assert_eq!(aside.len(), 1, "{what}: {aside:?}");
        let kept = fs::read(farm.folders.private().join(&aside[0])).unwrap();
        assert!(
            kept == bytes || what == "a word that is not known",
            "{what}: what was put aside was changed"
        );
        open(&farm);
        assert_eq!(broken_files(&farm).len(), 1, "{what}: the new one is sound");
    }
}

#[test]
fn an_empty_file_is_a_lost_history() {
    let farm = farm();
    fs::write(farm.path(), "").unwrap();
    open(&farm);
    assert_eq!((builds(&farm), broken_files(&farm).len()), (1, 0));
}

#[test]
fn only_some_broken_files_are_kept() {
    let farm = farm();
    for _ in 0..5 {
        fs::write(farm.path(), "dear diary").unwrap();
        open(&farm);
    }
    assert_eq!(broken_files(&farm).len(), 3);
    assert_eq!(builds(&farm), 1);
}

#[test]
fn a_newer_file_is_an_error_and_stays() {
    let farm = farm();
    let newer = schema::MIGRATIONS.len() + 1;
    Connection::open(farm.path()).unwrap().pragma_update(None, "user_version", newer as i64).unwrap();
    let before = fs::read(farm.path()).unwrap();
    let error = History::open(&farm.folders).unwrap_err().to_string();
    assert!(error.contains("made by a newer moji-server") && error.contains("history.sqlite"), "{error}");
    assert_eq!(fs::read(farm.path()).unwrap(), before);
}

/// A file as the first version made it is read by this one, with all that is in it.
#[test]
fn version_1_becomes_the_newest() {
    let farm = Farm::new();
    let mut connection = Connection::open(farm.path()).unwrap();
    schema::migrate(&mut connection, &schema::MIGRATIONS[..1]).unwrap();
    let sql = "INSERT INTO builds (srpm, queued_at, state, settled_at, settled_by) \
               VALUES ('a-1-1.src.rpm', 5, 'succeeded', 6, 'fedcba9876543210-1'); \
               INSERT INTO attempts (id, build, builder, target, leased_at, ended_at, ending, outcome) \
               VALUES ('fedcba9876543210-1', 1, 'board', 'f43', 5, 6, 'delivered', 'succeeded'); \
               INSERT INTO artifacts VALUES ('fedcba9876543210-1', 'build.log', 7, 'x'); \
               INSERT INTO builds (id, srpm, queued_at, state) VALUES (70, 'b-1-1.src.rpm', 8, 'running'); \
               INSERT INTO attempts (id, build, builder, target, leased_at) \
               VALUES ('fedcba9876543210-2', 70, 'board', 'f43', 9)";
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    connection.execute_batch(sql).unwrap();
    drop(connection);
    farm.put(farm.folders.source.join(key("b").path()), b"srpm");
    open(&farm);
    assert_eq!((builds(&farm), broken_files(&farm).len()), (2, 0));
    let sql = "SELECT b.id, srpm, state, a.id, ending, artifacts.name FROM builds b JOIN attempts a ON a.build = b.id \
               LEFT JOIN artifacts ON attempt = a.id ORDER BY 1";
    assert_eq!(
        rows(&farm.connection(), sql),
        [
            "1 a-1-1.src.rpm succeeded fedcba9876543210-1 delivered build.log",
            "70 b-1-1.src.rpm queued fedcba9876543210-2 interrupted -",
        ]
    );
    assert_eq!(schema::integrity(&farm.connection()).unwrap(), [""; 0]);
    assert_eq!(rows(&farm.connection(), "PRAGMA user_version"), [schema::MIGRATIONS.len().to_string()]);
}

/// A migration that makes a table anew must not take what refers to it along, nor leave it without.
#[test]
fn a_migration_leaves_no_orphans() {
    let tables = "CREATE TABLE one (a INTEGER PRIMARY KEY); \
                  CREATE TABLE two (b INTEGER REFERENCES one ON DELETE CASCADE); \
                  INSERT INTO one VALUES (7); INSERT INTO two VALUES (7)";
    let anew = "CREATE TABLE other (a INTEGER PRIMARY KEY); INSERT INTO other SELECT * FROM one; \
                DROP TABLE one; ALTER TABLE other RENAME TO one";
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection, &[tables]).unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    let error = schema::migrate(&mut connection, &[tables, "DELETE FROM one"]).unwrap_err();
    assert!(matches!(error, StoreError::Broken(_)), "{error:?}");
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    schema::migrate(&mut connection, &[tables, anew]).unwrap();
    assert_eq!(rows(&connection, "SELECT a, b FROM one JOIN two ON a = b"), ["7 7"]);
}

#[test]
fn a_migration_is_done_once_and_whole() {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection, &["CREATE TABLE one (a)"]).unwrap();
    let two = ["CREATE TABLE one (a)", "CREATE TABLE two (a)"];
    schema::migrate(&mut connection, &two).unwrap();
    schema::migrate(&mut connection, &two).unwrap();
    let bad = [two[0], two[1], "CREATE TABLE three (a); CREATE TABLE one (a)"];
    let error = schema::migrate(&mut connection, &bad).unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    assert_eq!(rows(&connection, "PRAGMA user_version"), ["2"]);
    assert_eq!(rows(&connection, "SELECT name FROM sqlite_schema ORDER BY 1"), ["one", "two"]);
}
