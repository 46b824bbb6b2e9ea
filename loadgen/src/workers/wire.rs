//! Lines of JSON over TCP, with a bound on their length.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Longest line of someone who has not said the token. Source: arbitrary, because a token and a
/// version fit many times.
const STRANGER_BYTES_MAX: u64 = 4096;
/// Longest line of a worker. Source: a report of the longest timeline, as when it is read from a
/// file.
const LINE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a line did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended")]
    Ended,
    #[error("a line has more than {0} bytes")]
    TooLong(u64),
    #[error("a line is not of the workers' protocol: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it does not say what it should")]
    Stranger,
}

/// The reading half.
#[derive(Debug)]
pub(super) struct Reader {
    half: BufReader<OwnedReadHalf>,
    line: Vec<u8>,
    bytes_max: u64,
}

/// The writing half.
#[derive(Debug)]
pub(super) struct Writer {
    half: OwnedWriteHalf,
}

/// Both halves of a connection to a stranger.
///
/// # Errors
///
/// [`WireError::Io`] if the socket does not take its option.
pub(super) fn split(stream: TcpStream) -> Result<(Reader, Writer), WireError> {
    stream.set_nodelay(true)?;
    let (read, half) = stream.into_split();
    let reader = Reader {
        half: BufReader::new(read),
        line: Vec::new(),
        bytes_max: STRANGER_BYTES_MAX,
    };
    Ok((reader, Writer { half }))
}

impl Reader {
    /// The other side has shown who it is: its lines may be long.
    pub(super) const fn trust(&mut self) {
        self.bytes_max = LINE_BYTES_MAX;
    }

    /// The next line. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`WireError`]: the caller leaves the connection.
    pub(super) async fn read<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        self.line.clear();
        let mut bounded = (&mut self.half).take(self.bytes_max);
        let read = bounded.read_until(b'\n', &mut self.line).await?;
        if self.line.ends_with(b"\n") {
            return Ok(serde_json::from_slice(&self.line)?);
        }
        if read as u64 == self.bytes_max {
            return Err(WireError::TooLong(self.bytes_max));
        }
        Err(WireError::Ended)
    }
}

impl Writer {
    /// Writes a line. Not cancel safe.
    ///
    /// # Errors
    ///
    /// [`WireError::Io`]: the other side is gone.
    pub(super) async fn write(&mut self, value: &impl Serialize) -> Result<(), WireError> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        Ok(self.half.write_all(&line).await?)
    }
}
