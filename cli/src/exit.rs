//! How a command ends: the exit code a script reads, and the three lines a person reads.

use std::{fmt, io, process::ExitCode};

use tonic::Status;

/// The exit codes, as every command's `--help` and `docs/margayctl.md` list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// The command line, or an object, is not valid.
    Usage = 2,
    /// There is no such object.
    NotFound = 3,
    /// The object is there already, or changed meanwhile.
    Conflict = 4,
    /// No answer, or none in time.
    Unreachable = 5,
    /// The check ran and found problems.
    Problems = 6,
    /// Done for some objects, not for others.
    Partial = 7,
}

/// The last part of every help page.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  the operation failed
  2  the command line, or an object, is not valid
  3  not found
  4  conflict: exists already, or changed meanwhile
  5  unreachable, or no answer in time
  6  the check ran and found problems
  7  partial: done for some objects, not for others";

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command failed: what went wrong, why, and what to do about it, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub code: Code,
    problem: String,
    cause: String,
    next: String,
}

/// What a command returns.
pub type Outcome<T = Code> = Result<T, Failure>;

impl Failure {
    /// A failure of the three lines.
    pub fn new(
        code: Code,
        problem: impl Into<String>,
        cause: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { code, problem: problem.into(), cause: cause.into(), next: next.into() }
    }

    /// A command line that parses, yet asks for something that makes no sense.
    pub fn usage(problem: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) -> Self {
        Self::new(Code::Usage, problem, cause, next)
    }

    /// What a server answered to an attempt to do something ("apply the objects").
    pub fn rpc(attempt: impl fmt::Display, status: &Status) -> Self {
        let code = code_of(status.code());
        let next = match code {
            Code::Usage => "correct it and try again",
            Code::NotFound => "see what there is with `margayctl get KIND -A`",
            Code::Conflict => "look at the present object with `margayctl get`, and try again",
            Code::Unreachable => {
                "check that the server runs, with `margayctl status`, or give it longer with --timeout"
            }
            _ if status.code() == tonic::Code::FailedPrecondition => {
                "mend what stands in the way, and try again"
            }
            _ => "look at `margayctl status` and at the server's log",
        };
        let cause = match status.message() {
            "" => format!("the server answered {:?} and said no more", status.code()),
            message => message.to_owned(),
        };
        Self::new(code, format!("cannot {attempt}"), cause, next)
    }

    /// How a command ends that was to do something ("delete") to each of several objects, and
    /// did it to `done` of them.
    ///
    /// # Errors
    /// What went wrong with each that failed; partial if there is one that did not.
    pub fn of_several(verb: &str, mut failures: Vec<Self>, done: usize, objects: usize) -> Outcome {
        let Some(first) = failures.first() else { return Ok(Code::Ok) };
        if objects == 1 {
            return Err(failures.remove(0));
        }
        let code = if done > 0 { Code::Partial } else { first.code };
        let causes: Vec<_> =
            failures.iter().map(|failure| format!("{}: {}", failure.problem, failure.cause)).collect();
        Err(Self::new(
            code,
            format!("could not {verb} {} of {objects} objects", objects - done),
            causes.join("\n"),
            first.next.clone(),
        ))
    }

    /// Problem and cause, where there is but a line for it.
    pub fn one_line(&self) -> String {
        format!("{}: {}", self.problem, self.cause.replace('\n', "; "))
    }

    /// The same failure, where a part was done before.
    pub fn after_a_part(self) -> Self {
        Self { code: Code::Partial, ..self }
    }

    /// The same failure with better advice.
    pub fn advise(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A cause of several lines (one a field) keeps its shape under the margin.
        let cause = self.cause.trim_end().replace('\n', "\n       ");
        write!(f, "error: {}\ncause: {}\nnext:  {}", self.problem, cause, self.next)
    }
}

impl From<io::Error> for Failure {
    /// Of standard output, the only thing that is written without saying so.
    fn from(error: io::Error) -> Self {
        // Whoever read our output (`head`, a pager) has seen enough: that is no failure.
        let code = if error.kind() == io::ErrorKind::BrokenPipe { Code::Ok } else { Code::Failed };
        Self::new(code, "cannot write the output", error.to_string(), "check where standard output goes")
    }
}

fn code_of(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Ok => Code::Ok,
        tonic::Code::InvalidArgument => Code::Usage,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists | tonic::Code::Aborted => Code::Conflict,
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Code::Unreachable
        }
        _ => Code::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_grpc_has_its_exit_code() {
        let expected = [
            (tonic::Code::Ok, 0),
            (tonic::Code::Cancelled, 5),
            (tonic::Code::Unknown, 1),
            (tonic::Code::InvalidArgument, 2),
            (tonic::Code::DeadlineExceeded, 5),
            (tonic::Code::NotFound, 3),
            (tonic::Code::AlreadyExists, 4),
            (tonic::Code::PermissionDenied, 1),
            (tonic::Code::ResourceExhausted, 1),
            (tonic::Code::FailedPrecondition, 1),
            (tonic::Code::Aborted, 4),
            (tonic::Code::OutOfRange, 1),
            (tonic::Code::Unimplemented, 1),
            (tonic::Code::Internal, 1),
            (tonic::Code::Unavailable, 5),
            (tonic::Code::DataLoss, 1),
            (tonic::Code::Unauthenticated, 1),
        ];
        for (grpc, exit) in expected {
            assert_eq!(code_of(grpc) as u8, exit, "{grpc:?}");
        }
    }

    #[test]
    fn a_failure_is_three_lines() {
        let failure = Failure::rpc("get tier/web", &Status::not_found("there is no tier web"));
        assert_eq!(failure.code, Code::NotFound);
        assert_eq!(
            failure.to_string(),
            "error: cannot get tier/web\ncause: there is no tier web\nnext:  see what there is with `margayctl get KIND -A`"
        );
    }

    #[test]
    fn of_several_objects_each_failure_is_named_and_the_code_tells_all_from_some() {
        let failure = |name: &str| Failure::new(Code::NotFound, format!("cannot get {name}"), "none", "look");
        let of = |names: &[&str], objects| {
            let failures: Vec<_> = names.iter().map(|name| failure(name)).collect();
            let done = objects - failures.len();
            Failure::of_several("get", failures, done, objects)
        };
        assert_eq!(of(&[], 2), Ok(Code::Ok));
        assert_eq!(of(&["a"], 1), Err(failure("a")));
        assert_eq!(of(&["a"], 3).unwrap_err().code, Code::Partial);
        let all = of(&["a", "b"], 2).unwrap_err();
        assert_eq!(all.code, Code::NotFound);
        assert_eq!(
            all.to_string(),
            "error: could not get 2 of 2 objects\n\
             cause: cannot get a: none\n       cannot get b: none\n\
             next:  look"
        );
    }

    #[test]
    fn advice_fits_the_answer_and_a_silent_server_is_quoted_by_its_code() {
        let failure = Failure::rpc("delete tier/web", &Status::failed_precondition("it has policies"));
        assert!(failure.to_string().ends_with("mend what stands in the way, and try again"));
        let failure = Failure::rpc("apply", &Status::internal(""));
        assert!(failure.to_string().contains("the server answered Internal and said no more"));
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).code, Code::Ok);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code, Code::Failed);
    }

    #[test]
    fn the_help_lists_every_code() {
        for code in 0..=7 {
            assert!(HELP.contains(&format!("\n  {code}  ")));
        }
    }
}
