//! BIRD's control socket: a line to it is a command, and what comes back are lines of a code of four digits, a `-` where
//! more follow, and text. A line that begins with a space has the code of the one before.

use std::{io, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

/// How long BIRD may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bound of one answer, in bytes: thousands of sessions.
const ANSWER: u64 = 16 << 20;

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What kind of line it is; from 8000 on something is wrong.
    pub(super) code: u16,
    pub(super) text: String,
}

/// BIRD's answer to one command.
///
/// # Errors
/// Nobody listens, or what answers is not BIRD.
pub(super) async fn ask(socket: &Path, command: &str) -> io::Result<Vec<Line>> {
    let asked = async {
        let stream = UnixStream::connect(socket).await?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read.take(ANSWER));
        answer(&mut lines).await?;
        write.write_all(format!("{command}\n").as_bytes()).await?;
        answer(&mut lines).await
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer");
    timeout(PATIENCE, asked).await.map_err(late)?
}

async fn answer(lines: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> io::Result<Vec<Line>> {
    let mut answer: Vec<Line> = Vec::new();
    loop {
        let mut bytes = Vec::new();
        if lines.read_until(b'\n', &mut bytes).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended halfway"));
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\n');
        let (line, last) = line(text, answer.last().map(|line| line.code))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not how BIRD answers"))?;
        answer.push(line);
        if last {
            return Ok(answer);
        }
    }
}

/// The line, and whether it is the last one.
fn line(text: &str, code_before: Option<u16>) -> Option<(Line, bool)> {
    if let Some(text) = text.strip_prefix(' ') {
        return Some((Line { code: code_before?, text: text.to_owned() }, false));
    }
    let (code, text) = text.split_at_checked(4)?;
    let last = match text.get(..1)? {
        " " => true,
        "-" => false,
        _ => return None,
    };
    Some((Line { code: code.parse().ok()?, text: text[1..].to_owned() }, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_codes_and_the_last_one_a_space() {
        let of = |code, text: &str| Line { code, text: text.to_owned() };
        assert_eq!(line("1002-peer up", None), Some((of(1002, "peer up"), false)));
        assert_eq!(line("   BGP state:  Idle", Some(1006)), Some((of(1006, "  BGP state:  Idle"), false)));
        assert_eq!(line("0003 Reconfigured", None), Some((of(3, "Reconfigured"), true)));
        assert_eq!(line("0000 ", None), Some((of(0, ""), true)));
        for bad in ["", "000", "0000", "00x0 a", "0000?", " without a code", "ä000 x"] {
            assert_eq!(line(bad, None), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_ends_halfway_is_an_error() {
        let whole = answer(&mut &b"1002-a\n b\n0000 \n"[..]).await.unwrap();
        assert_eq!(whole.iter().map(|line| line.code).collect::<Vec<_>>(), [1002, 1002, 0]);
        for bad in [&b"1002-a\n"[..], b"", b"HTTP/1.1 400\n", b"\xff\xff\n"] {
            assert!(answer(&mut &bad[..]).await.is_err());
        }
    }
}
