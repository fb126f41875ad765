//! The SQLite file: what it must look like, how an older one becomes that, and what is done about one
//! that cannot be used.
//!
//! It deliberately does not know what the rows mean.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::store::StoreError;

/// Marks a file as moji's history: "moji" in ASCII.
pub(super) const APPLICATION_ID: i32 = 0x6d6f_6a69;

/// Each makes the next version of the schema from the one before; the first makes version 1. What
/// was released is never changed: a change is one more.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("schema_1.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// What every version has.
const TABLES: [&str; 4] = ["builds", "attempts", "artifacts", "stamps"];

/// How long to wait while somebody else (a person with sqlite3, `fsck`) holds the file.
const BUSY: Duration = Duration::from_secs(5);

/// What a connection that is kept may keep of the file: below 0, KiB.
const CACHE_KIB: i64 = -8 * 1024;

/// How many broken files are kept.
const BROKEN_KEPT: usize = 3;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Broken(text),
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::ApiMisuse
                | ErrorCode::Unknown,
            ) => Self::Refused(text),
            Some(_) => Self::Unavailable(text),
            None if is_wrong_value(&error) => Self::Broken(text),
            None => Self::Refused(text),
        }
    }
}

/// A value that is not what its column should hold.
fn is_wrong_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// Statements that stay parsed: more than the writer has. With fewer each of them is gone again when its turn comes.
const STATEMENTS: usize = 128;

/// Opens the file for writing, brings it to the newest version, and says whether it is a new one.
pub(super) fn open(path: &Path) -> Result<(Connection, bool), StoreError> {
    make_private(path)
        .map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
    let mut connection = Connection::open_with_flags(path, flags())?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.busy_timeout(BUSY)?;
    let version = check(&connection)?;
    // Some network file systems cannot share memory, which WAL needs; without it all works too.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    migrate(&mut connection, MIGRATIONS)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok((connection, version == 0))
}

/// Opens the file to look at it: nothing is made, migrated or mended. Gives its version too.
pub(super) fn open_to_look(path: &Path) -> Result<(Connection, usize), StoreError> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    let version = check(&connection)?;
    Ok((connection, version))
}

/// Opens the file to ask it often: as [`open_to_look`], but the content is not checked, which takes seconds.
/// It must be of the newest version.
pub(super) fn open_to_ask(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, flags())?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    // The last one that closes the file would else write what waits in the log, perhaps of a file that has
    // been put aside.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    match version(&connection)? {
        found if found == MIGRATIONS.len() => Ok(connection),
        0 => Err(StoreError::Unavailable("there is nothing in it yet".to_owned())),
        found => Err(StoreError::Unavailable(format!(
            "its version is {found}, and {} is needed: start moji-server once",
            MIGRATIONS.len()
        ))),
    }
}

/// All that SQLite itself finds wrong, row by row and index by index: slower than [`check`].
pub(super) fn integrity(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut wrong = column(connection, "PRAGMA integrity_check")?;
    wrong.retain(|line| line != "ok");
    let mut orphans = connection.prepare("PRAGMA foreign_key_check")?;
    let orphans = orphans.query_map([], |row| row.get::<_, String>(0))?.count();
    if orphans > 0 {
        wrong.push(format!("{orphans} rows belong to nothing"));
    }
    Ok(wrong)
}

fn flags() -> OpenFlags {
    // Without CREATE: the file is made before, with its mode.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// SQLite gives the files beside it the same mode.
fn make_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, Permissions::from_mode(0o600))
        }
        Err(error) => Err(error),
    }
}

/// Whose it is, and of which version. 0: there is nothing in it.
fn version(connection: &Connection) -> Result<usize, StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let (application, version) = (number("application_id")?, number("user_version")?);
    if (application, version, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(StoreError::Broken("it is the database of another program".to_owned()));
    }
    let version = usize::try_from(version).unwrap_or(0);
    if version > MIGRATIONS.len() {
        return Err(StoreError::Newer(format!(
            "it was made by a newer moji-server (its version is {version}, this one knows {}): install that \
             one again, or move the file away; what can be is then made anew from the folders",
            MIGRATIONS.len()
        )));
    }
    Ok(version)
}

/// The same, and whether it is sound.
fn check(connection: &Connection) -> Result<usize, StoreError> {
    let version = version(connection)?;
    if version == 0 {
        return Ok(0);
    }
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let tables = column(connection, sql)?;
    if let Some(table) = TABLES.iter().find(|table| !tables.iter().any(|found| found == *table)) {
        return Err(StoreError::Broken(format!("it has no table {table}")));
    }
    let found = column(connection, "PRAGMA quick_check(1)")?;
    match found.first() {
        Some(line) if line == "ok" => Ok(version),
        line => Err(StoreError::Broken(line.cloned().unwrap_or_default())),
    }
}

fn column(connection: &Connection, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Applies the migrations that the file has not seen, each in a transaction of its own. Foreign keys are
/// not enforced afterwards: whoever writes turns that on.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let begin = usize::try_from(version).unwrap_or(0);
    // A table that is made anew is dropped first, which must not take what refers to it along. That
    // cannot be changed within a transaction.
    connection.pragma_update(None, "foreign_keys", false)?;
    for (at, migration) in migrations.iter().enumerate().skip(begin) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(migration)?;
        let orphans = transaction.prepare("PRAGMA foreign_key_check")?.query([])?.next()?.is_some();
        if orphans {
            return Err(StoreError::Broken(format!(
                "version {} would leave rows that belong to nothing",
                at + 1
            )));
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", (at + 1) as i64)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Puts a file that cannot be used aside as `<name>.broken-<time>`, keeps some of these, and says
/// where it is now.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let beside = |suffix: &str| -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    };
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let names = (0..).map(|n| if n == 0 { time.clone() } else { format!("{time}-{n}") });
    let suffix = names.map(|name| format!(".broken-{name}")).find(|suffix| !beside(suffix).exists());
    let suffix = suffix.unwrap_or_default();
    // The log first: beside a new file it would be taken for its own.
    for (part, keep) in [("-wal", true), ("-shm", false), ("", true)] {
        let moved = match keep {
            true => fs::rename(beside(part), beside(&format!("{suffix}{part}"))),
            false => fs::remove_file(beside(part)),
        };
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    forget_oldest(path)?;
    Ok(beside(&suffix))
}

fn forget_oldest(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.broken-", name.to_string_lossy());
    let mut broken = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && !name.ends_with("-wal") {
            broken.push(name);
        }
    }
    broken.sort();
    for name in broken.iter().rev().skip(BROKEN_KEPT) {
        fs::remove_file(folder.join(name))?;
        let _ = fs::remove_file(folder.join(format!("{name}-wal")));
    }
    Ok(())
}
