//! Words on standard input, one a line, for a program that measures with a drain.

use std::io::{self, BufRead as _};

use freshet_proto::cursor::Cursor;
use tokio::sync::mpsc;

use crate::drain::system;
use crate::setup::SetupError;

/// Commands that wait. Source: arbitrary, because who commands waits for each answer.
const COMMANDS_MAX: usize = 16;

/// What a drain is told to do. Each is answered with a line once it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `line`: print the figures.
    Line,
    /// `reset`: measure from now on.
    Reset,
    /// `stall`: no client reads after the read it waits in.
    Stall,
    /// `resume`: clients that stalled read again.
    Resume,
    /// `cut`: leave all connections at once, without a word.
    Cut,
    /// `connect`, `connect CURSOR`: connect all again, as fast as it goes, resuming from a cursor.
    Connect(Option<Cursor>),
}

impl Command {
    fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let command = match (words.next()?, words.next()) {
            ("line", None) => Self::Line,
            ("reset", None) => Self::Reset,
            ("stall", None) => Self::Stall,
            ("resume", None) => Self::Resume,
            ("cut", None) => Self::Cut,
            ("connect", None) => Self::Connect(None),
            ("connect", Some(cursor)) => Self::Connect(Some(cursor.parse().ok()?)),
            _ => return None,
        };
        words.next().is_none().then_some(command)
    }

    /// The word that its answer carries.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::Resume => "resume",
            Self::Cut => "cut",
            Self::Connect(_) => "connect",
        }
    }
}

/// The commands that will come. The channel closes with standard input, or at a word that is none.
pub(super) fn commands() -> Result<mpsc::Receiver<Command>, SetupError> {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    std::thread::Builder::new()
        .name("commands".to_owned())
        .spawn(move || {
            let commands = io::stdin().lock().lines();
            let commands = commands.map_while(|line| Command::read(&line.ok()?));
            for command in commands {
                if sender.blocking_send(command).is_err() {
                    return;
                }
            }
        })
        .map_err(|source| system("starting the thread of the commands", source))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_word_and_perhaps_a_cursor() {
        assert_eq!(Command::read("cut"), Some(Command::Cut));
        let cursor = "3-14".parse().unwrap();
        assert_eq!(
            Command::read(" connect 3-14 "),
            Some(Command::Connect(Some(cursor)))
        );
        for bad in ["", "cut 3-14", "connect x", "connect 3-14 3-14", "stop"] {
            assert_eq!(Command::read(bad), None, "{bad:?}");
        }
    }
}
