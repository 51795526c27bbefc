//! Errors as the specification has them.

use crate::config::Version;
use serde_json::{Value, json};
use std::fmt;

/// What went wrong, by the numbers of CNI's specification; from 100 on they are this plugin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration is of a version that we do not speak.
    Version,
    /// The configuration asks for something that we do not do.
    Unsupported,
    /// An environment variable is missing or wrong.
    Environment,
    /// Reading or writing failed.
    Io,
    /// What was read is not what it should be.
    Decode,
    /// The configuration has a wrong value.
    Config,
    /// It may work later.
    TryAgain,
    /// Containers cannot be added.
    NotReady,
    /// Nor do those that are there get through.
    Down,
    /// CHECK: a container's network is not as ADD left it.
    Broken,
    /// The agent or the dataplane will not have it.
    Refused,
    /// The kernel will not.
    Kernel,
    /// An IPAM plugin said so.
    Delegate(u32),
}

impl Code {
    const fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Unsupported => 2,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::Config => 7,
            Self::TryAgain => 11,
            Self::NotReady => 50,
            Self::Down => 51,
            Self::Broken => 100,
            Self::Refused => 101,
            Self::Kernel => 102,
            Self::Delegate(code) => code,
        }
    }
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Of which kind.
    pub code: Code,
    /// What a person needs to know, in a sentence.
    pub message: String,
}

impl Error {
    /// One of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As it is written to standard output.
    pub fn to_json(&self, version: Version) -> Value {
        json!({"cniVersion": version.to_string(), "code": self.code.number(), "msg": self.message})
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Does several things of which one may fail without keeping the others from being done; the first
/// error is told, and how many there were.
pub fn all(outcomes: impl IntoIterator<Item = Result<(), Error>>) -> Result<(), Error> {
    let mut errors: Vec<Error> = outcomes.into_iter().filter_map(Result::err).collect();
    if errors.len() < 2 {
        return errors.pop().map_or(Ok(()), Err);
    }
    let code = errors[0].code;
    let messages: Vec<String> = errors.into_iter().map(|error| error.message).collect();
    Err(Error::new(code, messages.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_the_specification_has_it() {
        let error = Error::new(Code::Config, "mtu: -1 is too small");
        assert_eq!(
            error.to_json(Version::V1_1_0),
            json!({"cniVersion": "1.1.0", "code": 7, "msg": "mtu: -1 is too small"})
        );
        let codes = [Code::TryAgain, Code::NotReady, Code::Down, Code::Broken, Code::Delegate(3)];
        assert_eq!(codes.map(Code::number), [11, 50, 51, 100, 3]);
    }

    #[test]
    fn several_errors_are_told_together() {
        assert_eq!(all([Ok(()), Ok(())]), Ok(()));
        let one = Error::new(Code::Io, "a");
        assert_eq!(all([Ok(()), Err(one.clone())]), Err(one.clone()));
        let two = all([Err(one), Ok(()), Err(Error::new(Code::Kernel, "b"))]);
        assert_eq!(two, Err(Error::new(Code::Io, "a; b")));
    }
}
