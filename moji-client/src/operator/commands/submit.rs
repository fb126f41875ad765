//! `moji submit`: SRPMs on their way to the queue; cut uploads go on where they were.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use moji_proto::io::StreamError;
use moji_proto::operator::{Done, FromOperator, Place, RequestId};
use moji_proto::{Hasher, Sha256, SrpmName, TargetName, limits};
use tokio::task::spawn_blocking;

use super::acts::Report;
use super::wait::{Awaited, Words};
use super::{Context, wait};
use crate::operator::options::Submit;
use crate::operator::output::note;
use crate::operator::output::progress::Progress;
use crate::operator::session::{Said, Submission};
use crate::operator::{Failure, Farm};

/// Bytes that are read at a time.
const PIECE: usize = limits::DATA_BYTES;

/// An SRPM's file.
#[derive(Debug, Clone)]
struct Srpm {
    path: PathBuf,
    file: Arc<File>,
    name: SrpmName,
    size: u64,
}

/// What is said of it.
#[derive(Debug, Clone)]
struct Wanted {
    target: Option<TargetName>,
    place: Option<Place>,
}

impl Context {
    pub(super) async fn submit(&self, wanted: Submit) -> Result<u8, Failure> {
        let Submit { srpms, target, priority, wait, json } = wanted;
        let srpms = opened(srpms).await?;
        // At the first try a wrong address or token is said at once.
        let _ = self.farm.session().await?;
        let mut said = Wanted { target, place: priority };
        let mut report = Report::new(json, self.style);
        let mut awaited = Vec::new();
        let progress = Progress::of_stderr(srpms.len());
        for srpm in srpms {
            let before = match wait {
                true => Some(Awaited::before(&self.farm, &srpm.name, said.target.as_ref()).await?),
                false => None,
            };
            match upload(&self.farm, &srpm, &said, &progress).await {
                Ok(done) => {
                    if done.iter().all(|done| done.is_done) {
                        awaited.extend(before);
                        said.place = said.place.map(behind);
                    }
                    report.add(done)?;
                }
                // The others may be welcome.
                Err(Failure::Refused(text)) => {
                    note(&format!("{}: {text}", srpm.name));
                    report.refused(srpm.name.to_string(), text);
                }
                Err(failure) => {
                    // What is queued already is queued.
                    report.end()?;
                    return Err(failure);
                }
            }
        }
        let code = report.end()?;
        let words = if json.json { Words::Aside } else { Words::Answer };
        let built = match awaited.is_empty() {
            true => 0,
            false => wait::wait(&self.farm, awaited, &self.style, words).await?,
        };
        Ok(if code == 0 { built } else { code })
    }
}

/// Where the next SRPM is to stand, when one stands there: they keep the order in which they were named.
fn behind(place: Place) -> Place {
    match place {
        Place::First => Place::At(2),
        Place::At(at) => Place::At(at.saturating_add(1)),
        Place::Last | Place::Nowhere => place,
    }
}

/// All files, before anything of them is sent: a mistake is said before half of them are queued.
async fn opened(paths: Vec<PathBuf>) -> Result<Vec<Srpm>, Failure> {
    let open = move || paths.iter().map(|path| Srpm::open(path)).collect();
    spawn_blocking(open).await.map_err(|error| Failure::Broken(error.to_string()))?
}

impl Srpm {
    fn open(path: &Path) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Wrong(format!("{}: {what}", path.display()));
        let name = path.file_name().unwrap_or_default();
        let name = name.to_str().ok_or_else(|| wrong("its name is not UTF-8".into()))?;
        let name = SrpmName::new(name).map_err(|error| wrong(error.to_string()))?;
        // Not a pipe, for whose other end an open would wait.
        let data = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
        if !data.is_file() {
            return Err(wrong("it is no file".into()));
        }
        let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), name, size: data.len() })
    }

    async fn digest(&self) -> Result<Sha256, Failure> {
        let (mut hasher, mut offset) = (Hasher::new(), 0);
        while offset < self.size {
            let piece = self.read(offset).await?;
            hasher.update(&piece);
            offset += piece.len() as u64;
        }
        Ok(hasher.finish())
    }

    /// The next bytes from there on, at least one.
    async fn read(&self, offset: u64) -> Result<Bytes, Failure> {
        let most = usize::try_from(self.size - offset).unwrap_or(usize::MAX).min(PIECE);
        let file = Arc::clone(&self.file);
        let read = spawn_blocking(move || {
            let mut piece = vec![0; most];
            let length = file.read_at(&mut piece, offset)?;
            piece.truncate(length);
            std::io::Result::Ok(piece)
        });
        let piece = read.await.map_err(std::io::Error::other).flatten();
        match piece {
            Ok(piece) if piece.is_empty() => {
                Err(Failure::Wrong(format!("{}: it was cut while it was read", self.path.display())))
            }
            Ok(piece) => Ok(piece.into()),
            Err(error) => Err(Failure::Wrong(format!("{}: cannot be read: {error}", self.path.display()))),
        }
    }
}

/// Sends an SRPM, whatever becomes of the connection: what the server says of it in the end.
async fn upload(
    farm: &Farm,
    srpm: &Srpm,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Vec<Done>, Failure> {
    let sha256 = srpm.digest().await?;
    let mut bar = progress.begin(srpm.name.as_str(), srpm.size);
    let mut patience = farm.patience();
    let mut is_repeat = false;
    loop {
        let failure = match once(farm, srpm, wanted, sha256, &mut is_repeat, &mut |at| bar.at(at)).await {
            Ok(done) => {
                bar.done();
                return Ok(done);
            }
            Err(failure) => failure,
        };
        if failure.is_passing() && !patience.is_lost() {
            bar.say(&format!("{failure}: trying again"));
        }
        if let Err(failure) = patience.after(failure).await {
            bar.broken();
            return Err(failure);
        }
    }
}

async fn once(
    farm: &Farm,
    srpm: &Srpm,
    wanted: &Wanted,
    sha256: Sha256,
    is_repeat: &mut bool,
    at: &mut (impl FnMut(u64) + Send),
) -> Result<Vec<Done>, Failure> {
    let (name, size, Wanted { target, place }) = (srpm.name.clone(), srpm.size, wanted.clone());
    let is_again = *is_repeat;
    let begin = move |request| FromOperator::Submit {
        request,
        srpm: name,
        target,
        size,
        sha256,
        place,
        is_repeat: is_again,
    };
    let mut submission = farm.session().await?.submit(begin).await?;
    loop {
        match submission.said().await? {
            Said::Done(done) => return Ok(done),
            Said::Refused(reason) => return Err(Failure::Refused(reason)),
            Said::Wanted(_, offset) if offset > srpm.size => {
                return Err(Failure::Refused("the server has more of it than there is".into()));
            }
            Said::Wanted(request, offset) => {
                // Before that nothing can have come of it.
                *is_repeat = true;
                send(&submission, srpm, request, offset, at).await?;
            }
        }
    }
}

/// Everything from `offset` on. What the server says to that comes afterwards.
async fn send(
    submission: &Submission,
    srpm: &Srpm,
    request: RequestId,
    mut offset: u64,
    at: &mut (impl FnMut(u64) + Send),
) -> Result<(), Failure> {
    let mut stream = submission.upload(request, offset).await?;
    at(offset);
    while offset < srpm.size {
        let piece = srpm.read(offset).await?;
        offset += piece.len() as u64;
        match stream.send(piece).await {
            Ok(()) => at(offset),
            // It says why.
            Err(StreamError::Unwanted) => return Ok(()),
            Err(error) => return Err(Failure::Unreachable(format!("the upload was cut: {error}"))),
        }
    }
    stream.end(None).await.map_err(|error| Failure::Unreachable(format!("the upload was cut: {error}")))
}
