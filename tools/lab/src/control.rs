//! What the lab's commands and its supervisor say to each other: a line of JSON each way, on a socket.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use kit::{Cause, Context, Error, Result};
use serde::{Deserialize, Serialize};

use crate::layout::{CONTROL, through};

/// No message is longer.
const LIMIT: u64 = 1 << 20;

/// What the supervisor can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// How the programs are.
    Status,
    /// Start these if they do not run; forget that they were held or gave up.
    Start(Vec<String>),
    /// Kill one with SIGKILL; with `hold` it stays down.
    Kill {
        /// Its name.
        program: String,
        /// Whether it stays down until it is started again.
        hold: bool,
    },
}

/// The answer to every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Why the request was refused.
    pub(crate) refused: Option<String>,
    /// All programs, after the request.
    pub(crate) programs: Vec<ProgramState>,
}

/// How a program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramState {
    /// Its name.
    pub name: String,
    /// What it does now.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// When it was started the last time, if it ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// How it ended the last time, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
}

/// What a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has asked for it yet.
    Waiting,
    /// It runs.
    Running,
    /// It ended and is about to be started again.
    Restarting,
    /// Killed on request, to stay down.
    Held,
    /// It ended too often.
    Failed,
}

impl State {
    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}

/// Asks the supervisor whose process has this number on the host.
pub(crate) fn ask(pid: u32, request: &Request) -> Result<Vec<ProgramState>> {
    let exchange = || -> std::io::Result<Answer> {
        let stream = UnixStream::connect(through(pid, CONTROL))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        send(&stream, request)?;
        receive(&stream)
    };
    let answer = exchange().cause(Cause::Node, || "the lab's supervisor does not answer")?;
    match answer.refused {
        Some(why) => Err(Error::new(Cause::Usage, why)),
        None => Ok(answer.programs),
    }
}

/// Writes one message.
pub(crate) fn send(mut stream: &UnixStream, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one message.
pub(crate) fn receive<T: serde::de::DeserializeOwned>(stream: &UnixStream) -> std::io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(LIMIT)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}
