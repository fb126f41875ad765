//! Files and folders of REPO, for whoever asks.
//!
//! Everything is opened [`beneath`](crate::beneath) REPO: no link is followed, only regular files are
//! read. What begins with a dot is not there. It deliberately does not know what the files mean.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use jiff::Timestamp;
use moji_proto::TargetName;
use rustix::fs::{AtFlags, FileType};
use tokio::io::AsyncReadExt as _;
use tokio::task::spawn_blocking;
use tokio_util::io::ReaderStream;

use super::dnf;
use super::listing::{self, Entry};
use super::path::{Named, encoded, named};
use super::range::{self, Answer, Version};
use crate::beneath::Folder;
use crate::repository_url::RepositoryUrls;

/// Entries of a folder that are shown.
const ENTRIES: usize = 20_000;
/// How much of a file is read at a time.
const PIECE: usize = 256 * 1024;

/// What is served.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    urls: RepositoryUrls,
}

impl Files {
    pub(super) fn new(folder: PathBuf, urls: RepositoryUrls) -> Arc<Self> {
        Arc::new(Self { folder, urls })
    }
}

/// What a path names.
enum Found {
    File(File, std::fs::Metadata),
    Folder(Vec<Entry>, usize),
    /// A folder, asked for like a file.
    FolderWithoutSlash,
}

/// Answers a request for something below `/repo/`.
pub(super) async fn serve(
    State(files): State<Arc<Files>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let rest = uri.path().strip_prefix(super::REPO);
    let Some(Named { path, is_folder }) = rest.and_then(named) else { return plain(StatusCode::NOT_FOUND) };
    let (at, root) = (path.clone(), files.folder.clone());
    let found = spawn_blocking(move || find(&root, &at, is_folder)).await;
    match found.map_err(io::Error::other).and_then(|found| found) {
        Ok(Found::File(file, data)) => whole_or_part(&method, &headers, file, &data, &path).await,
        Ok(Found::Folder(entries, left_out)) => {
            let title = format!("{}{}", super::REPO, path.display());
            let page = listing::page(&title, !path.as_os_str().is_empty(), &entries, left_out);
            let page =
                with(Response::new(Body::from(page)), header::CONTENT_TYPE, "text/html; charset=utf-8");
            with(page, header::CACHE_CONTROL, "no-cache")
        }
        Ok(Found::FolderWithoutSlash) => {
            let parts = path.iter().map(|part| encoded(part.as_bytes()) + "/");
            let place = std::iter::once(super::REPO.to_owned()).chain(parts).collect::<String>();
            with(plain(StatusCode::MOVED_PERMANENTLY), header::LOCATION, &place)
        }
        Err(_) if !is_folder && path.ends_with(dnf::FILE) => repo_file(&files, &path, &headers).await,
        Err(error) if is_busy(&error) => plain(StatusCode::SERVICE_UNAVAILABLE),
        Err(error) => {
            // Not there, a link, a device, closed to the server: all the same for whoever asks.
            tracing::debug!("{}: {error}", uri.path());
            plain(StatusCode::NOT_FOUND)
        }
    }
}

/// Made for a repository that has none of its own.
async fn repo_file(files: &Files, path: &Path, headers: &HeaderMap) -> Response<Body> {
    let target = match path.parent().and_then(Path::to_str) {
        Some("") => None,
        parent => match parent.and_then(|parent| TargetName::new(parent).ok()) {
            Some(target) => Some(target),
            None => return plain(StatusCode::NOT_FOUND),
        },
    };
    if let Some(target) = target.clone() {
        let root = files.folder.clone();
        let metadata = Path::new(target.as_str()).join("repodata");
        let looked = spawn_blocking(move || Folder::open(&root)?.folder(metadata)).await;
        if !matches!(looked, Ok(Ok(_))) {
            return plain(StatusCode::NOT_FOUND);
        }
    }
    let base = match (files.urls.given(), dnf::host(headers)) {
        (Some(given), _) => format!("{given}/"),
        (None, Some(host)) => format!("http://{host}{}", super::REPO),
        (None, None) => return plain(StatusCode::BAD_REQUEST),
    };
    let target = target.as_ref().map(TargetName::as_str);
    let below = target.map(|target| encoded(target.as_bytes()) + "/").unwrap_or_default();
    let file = dnf::repo_file(target, &format!("{base}{below}"));
    let response = with(Response::new(Body::from(file)), header::CONTENT_TYPE, "text/plain; charset=utf-8");
    with(response, header::CACHE_CONTROL, "no-cache")
}

fn is_busy(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let busy = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| busy.contains(&code))
}

fn find(root: &Path, path: &Path, is_folder: bool) -> io::Result<Found> {
    let root = Folder::open(root)?;
    if path.as_os_str().is_empty() {
        return list(&root);
    }
    if is_folder {
        return list(&root.folder(path)?);
    }
    match root.open_file(path) {
        Ok(file) => {
            let data = file.metadata()?;
            Ok(Found::File(file, data))
        }
        Err(error) => match root.folder(path) {
            Ok(_) => Ok(Found::FolderWithoutSlash),
            Err(_) => Err(error),
        },
    }
}

fn list(folder: &Folder) -> io::Result<Found> {
    let mut names = folder.names()?;
    names.retain(|name| !name.as_bytes().starts_with(b"."));
    let left_out = names.len().saturating_sub(ENTRIES);
    names.truncate(ENTRIES);
    let mut entries = Vec::new();
    for name in names {
        // What goes meanwhile is not there.
        let Ok(data) = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let size = match FileType::from_raw_mode(data.st_mode) {
            FileType::Directory => None,
            FileType::RegularFile => Some(u64::try_from(data.st_size).unwrap_or_default()),
            _ => continue,
        };
        let modified = Timestamp::from_second(data.st_mtime).unwrap_or_default();
        entries.push(Entry { size, name: name.as_bytes().to_vec(), modified });
    }
    entries.sort_by(|a, b| (a.size.is_some(), &a.name).cmp(&(b.size.is_some(), &b.name)));
    Ok(Found::Folder(entries, left_out))
}

/// A file as the headers of a request want it.
pub(super) async fn whole_or_part(
    method: &Method,
    headers: &HeaderMap,
    file: File,
    data: &std::fs::Metadata,
    path: &Path,
) -> Response<Body> {
    let length = data.len();
    let version = Version {
        etag: format!("\"{:x}-{length:x}-{:x}.{:x}\"", data.ino(), data.mtime(), data.mtime_nsec()),
        modified: Timestamp::from_second(data.mtime()).unwrap_or_default(),
    };
    let (status, from, to) = match range::answer(headers, &version, length) {
        Answer::Whole => (StatusCode::OK, 0, length),
        Answer::Part { from, to } => (StatusCode::PARTIAL_CONTENT, from, to),
        Answer::NotModified => return described(plain(StatusCode::NOT_MODIFIED), &version, path),
        Answer::Unsatisfiable => {
            let range = format!("bytes */{length}");
            return with(plain(StatusCode::RANGE_NOT_SATISFIABLE), header::CONTENT_RANGE, &range);
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        let sought = spawn_blocking(move || {
            let mut file = file;
            file.seek(SeekFrom::Start(from)).map(|_| file)
        });
        let Ok(Ok(file)) = sought.await else { return plain(StatusCode::INTERNAL_SERVER_ERROR) };
        Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file).take(to - from), PIECE))
    };
    let mut response = described(Response::new(body), &version, path);
    *response.status_mut() = status;
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {from}-{}/{length}", to - 1);
        response = with(response, header::CONTENT_RANGE, &range);
    }
    with(response, header::CONTENT_LENGTH, &(to - from).to_string())
}

fn described(response: Response<Body>, version: &Version, path: &Path) -> Response<Body> {
    let response = with(response, header::ETAG, &version.etag);
    let response = with(response, header::CONTENT_TYPE, type_of(path));
    let response = with(response, header::ACCEPT_RANGES, "bytes");
    let response = match range::date(version.modified) {
        Some(date) => with(response, header::LAST_MODIFIED, &date),
        None => response,
    };
    // Everything else that metadata name has a name of its own; this one decides which.
    let changes = path.ends_with("repodata/repomd.xml");
    if changes { with(response, header::CACHE_CONTROL, "no-cache") } else { response }
}

fn type_of(path: &Path) -> &'static str {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("rpm") => "application/x-rpm",
        Some("xml") => "application/xml",
        Some("json") => "application/json",
        Some("gz") => "application/gzip",
        Some("bz2") => "application/x-bzip2",
        Some("xz") => "application/x-xz",
        Some("zst") => "application/zstd",
        Some("html") => "text/html; charset=utf-8",
        Some("log" | "txt" | "cfg" | "spec") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn plain(status: StatusCode) -> Response<Body> {
    let text = match status.canonical_reason() {
        Some(reason) if status.is_client_error() || status.is_server_error() => format!("{reason}\n"),
        _ => String::new(),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    with(response, header::CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut response: Response<Body>, name: HeaderName, value: &str) -> Response<Body> {
    // What is no header value is left out: all of these are made here.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
