//! The way to a farm: a connection that is made when it is needed, and made anew when it was lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use moji_proto::api::Problem;
use moji_proto::operator::{Act, Done};
use moji_proto::outcome::one_line;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Answer, Failure, Session};
use crate::access::Access;
use crate::backoff::Backoff;
use crate::run::Connector;

/// Longest answer that is read as a whole.
const ANSWER: usize = 64 << 20;

/// What bytes go over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// What comes of dialling.
pub type Dialled<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send + 'a>>;

/// A [`Connector`] whose type nobody needs to know.
pub trait Dial: Send + Sync + 'static {
    /// Connects.
    fn dial(&self) -> Dialled<'_>;
    /// Where to, for people.
    fn server(&self) -> String;
    /// A random number that spreads the tries to connect.
    fn jitter(&self) -> u32;
}

impl<C: Connector> Dial for C {
    fn dial(&self) -> Dialled<'_> {
        Box::pin(async { Ok(Box::new(self.connect().await?) as Box<dyn Wire>) })
    }

    fn server(&self) -> String {
        Connector::server(self)
    }

    fn jitter(&self) -> u32 {
        Connector::jitter(self)
    }
}

/// A farm. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Farm(Arc<Inner>);

struct Inner {
    dial: Box<dyn Dial>,
    way: Mutex<Way>,
}

struct Way {
    access: Access,
    session: Option<(Session, JoinHandle<()>)>,
}

impl std::fmt::Debug for Farm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Farm({})", self.0.dial.server())
    }
}

impl Farm {
    /// The farm at the end of `dial`; nothing is connected yet.
    pub fn new(dial: impl Dial, access: Access) -> Self {
        Self(Arc::new(Inner { dial: Box::new(dial), way: Mutex::new(Way { access, session: None }) }))
    }

    /// Which one, for people.
    pub fn server(&self) -> String {
        self.0.dial.server()
    }

    /// A session that is alive: the one that there is, or another one. Tries once.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn session(&self) -> Result<Session, Failure> {
        let mut way = self.0.way.lock().await;
        if let Some((session, _)) = &way.session
            && session.is_alive()
        {
            return Ok(session.clone());
        }
        way.session = None;
        let server = self.server();
        let io = self.0.dial.dial().await.map_err(|error| {
            Failure::Unreachable(format!(
                "cannot connect to {server}: {error} (is moji-server running there? --server names another)"
            ))
        })?;
        let (session, task) = Box::pin(Session::begin(io, &server, &mut way.access)).await?;
        way.session = Some((session.clone(), task));
        Ok(session)
    }

    /// What is at this path, with status 200.
    ///
    /// # Errors
    /// When there is no connection, or no such thing; with what the server says of it.
    pub async fn get(&self, path: &str) -> Result<Answer, Failure> {
        let answer = self.session().await?.get(path).await?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let status = answer.status;
        let body = answer.body.all(ANSWER).await?;
        let said = serde_json::from_slice(&body).map(|problem: Problem| one_line(&problem.error));
        let said = said.unwrap_or_else(|_| format!("the server answers {status} to {path}"));
        // It says so while it starts or stops.
        Err(if status == 503 { Failure::Unreachable(said) } else { Failure::Refused(said) })
    }

    /// The bytes at this path.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Failure> {
        self.get(path).await?.body.all(ANSWER).await
    }

    /// What the JSON at this path says.
    ///
    /// # Errors
    /// As [`Self::get`]; when it says something else.
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        read(path, &self.bytes(path).await?)
    }

    /// The same, whatever becomes of the connection. `say` is told of the first failure.
    ///
    /// # Errors
    /// When it does not help to try again.
    pub async fn patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        mut say: impl FnMut(&str),
    ) -> Result<T, Failure> {
        let mut patience = self.patience();
        loop {
            match self.json(path).await {
                Ok(found) => return Ok(found),
                Err(failure) => patience.again(failure, &mut say).await?,
            }
        }
    }

    /// Has something done: what became of each thing that it names.
    ///
    /// # Errors
    /// When the server refuses all of it, or the connection ends: then nobody knows whether it was done.
    pub async fn act(&self, act: Act) -> Result<Vec<Done>, Failure> {
        self.session().await?.act(act).await
    }

    /// How to go on after lost connections.
    pub fn patience(&self) -> Patience {
        Patience { farm: self.clone(), backoff: Backoff::default(), is_lost: false }
    }

    /// Says goodbye, and waits until that has left. A later request connects again.
    pub async fn leave(&self) {
        let session = self.0.way.lock().await.session.take();
        if let Some((session, task)) = session {
            drop(session);
            // It waits for other clones of the session no longer than a goodbye may take.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), task).await;
        }
    }
}

/// What JSON says.
///
/// # Errors
/// When it says something else.
pub(crate) fn read<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let error = one_line(&error.to_string());
        Failure::Refused(format!(
            "the server's answer to {path} is not understood ({error}): is it of another version than this moji?"
        ))
    })
}

/// Waits between tries to connect, which grow until something works again.
#[derive(Debug)]
pub struct Patience {
    farm: Farm,
    backoff: Backoff,
    is_lost: bool,
}

impl Patience {
    /// Waits, when another try may help.
    ///
    /// # Errors
    /// `failure`, when it does not.
    pub async fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        if !failure.is_passing() {
            return Err(failure);
        }
        self.is_lost = true;
        sleep(self.backoff.next(self.farm.0.dial.jitter())).await;
        Ok(())
    }

    /// The same, with a word to `say` when it is the first failure.
    ///
    /// # Errors
    /// `failure`, when another try does not help.
    pub async fn again(&mut self, failure: Failure, mut say: impl FnMut(&str)) -> Result<(), Failure> {
        if failure.is_passing() && !self.is_lost {
            say(&format!("{failure}: trying again"));
        }
        self.after(failure).await
    }

    /// Something works. Whether it did not before.
    pub fn works(&mut self) -> bool {
        self.backoff.reset();
        std::mem::take(&mut self.is_lost)
    }

    /// Whether nothing has worked since the last failure.
    pub fn is_lost(&self) -> bool {
        self.is_lost
    }
}
