//! Questions in, answers out: one JSON object a line each way, in the order asked.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    path::Path,
};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    exit::{Code, Failure, Outcome},
    output::Output,
};

/// Why a question has no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// It is no question. The next one may be.
    Wrong(String),
    /// No answer of this program can be trusted.
    Broken(Failure),
}

impl<E: std::error::Error> From<E> for Unanswered {
    fn from(error: E) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Answers each line of a file, or of standard input where it is `-`; blank lines ask nothing. A line longer than `limit`
/// bytes, or one that is no question, is answered by what `wrong` makes of the reason, and the command then ends
/// with [`Code::Usage`].
pub fn answer_each<A: Serialize>(
    file: &Path,
    limit: u64,
    out: &mut Output,
    wrong: impl Fn(String) -> Value,
    mut answer: impl FnMut(&[u8]) -> Result<A, Unanswered>,
) -> Outcome {
    let mut reader: Box<dyn BufRead> = match file.to_str() {
        Some("-") => Box::new(BufReader::new(io::stdin())),
        _ => Box::new(BufReader::new(File::open(file).map_err(|error| unreadable(file, &error))?)),
    };
    let mut code = Code::Ok;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(limit + 1).read_until(b'\n', &mut line);
        if read.map_err(|error| unreadable(file, &error))? == 0 {
            return Ok(code);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let whole = line.last() == Some(&b'\n') || line.len() as u64 <= limit;
        let answered = if whole {
            answer(line.trim_ascii())
        } else {
            skip_line(&mut *reader).map_err(|error| unreadable(file, &error))?;
            Err(Unanswered::Wrong(format!("the line is longer than {limit} bytes; split the question")))
        };
        match answered {
            Ok(answer) => serde_json::to_writer(&mut *out, &answer).map_err(io::Error::from)?,
            Err(Unanswered::Wrong(error)) => {
                code = Code::Usage;
                write!(out, "{}", wrong(error))?;
            }
            Err(Unanswered::Broken(failure)) => return Err(failure),
        }
        writeln!(out)?;
    }
}

/// The reason, and nothing else.
pub fn error(reason: String) -> Value {
    json!({ "error": reason })
}

/// Forgets the rest of a line, piece by piece.
fn skip_line(reader: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let piece = reader.fill_buf()?;
        let end = piece.iter().position(|byte| *byte == b'\n');
        let (used, done) = (end.map_or(piece.len(), |at| at + 1), end.is_some() || piece.is_empty());
        reader.consume(used);
        if done {
            return Ok(());
        }
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { Code::Usage } else { Code::Failed };
    let problem = format!("cannot read {}", file.display());
    Failure::new(code, problem, error.to_string(), "check the name and that you may read it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_long_line_is_not_the_next_question() {
        let mut reader = io::Cursor::new(b"aaaa\nbb".to_vec());
        skip_line(&mut reader).unwrap();
        assert_eq!(reader.position(), 5);
        skip_line(&mut reader).unwrap();
        assert_eq!(reader.position(), 7);
    }
}
