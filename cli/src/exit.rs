//! Exit codes, the same for every command.

use std::{fmt, process::ExitCode};

use tonic::Code;

/// Text for `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed: the jobmanager could not do it, or a check found violations
  2  usage or configuration
  3  refused: the job's state does not allow it (the message says what would)
  4  unreachable: no jobmanager answers at that address";

/// Why a command ends without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It was tried and did not work.
    Failed = 1,
    /// It was asked wrongly, or the configuration is wrong.
    Usage = 2,
    /// It may not be done now.
    Refused = 3,
    /// Nobody answers.
    Unreachable = 4,
}

/// A failure as the operator sees it: one message and an exit code.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub reason: Reason,
    /// What happened, to what, what to do. Empty when the output said it.
    pub message: String,
}

/// What a command comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Usage or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Reason::Usage, message)
    }

    /// The jobmanager's answer that is not an answer.
    #[must_use]
    pub fn of_status(address: &str, status: &tonic::Status) -> Self {
        let reason = match status.code() {
            Code::FailedPrecondition | Code::Aborted => Reason::Refused,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Reason::Unreachable,
            Code::InvalidArgument | Code::OutOfRange => Reason::Usage,
            _ => Reason::Failed,
        };
        let message = match status.code() {
            Code::Unimplemented => format!(
                "the server at {address} does not know this call: it is no jobmanager, or one of another version ({})",
                status.message()
            ),
            _ if reason == Reason::Unreachable => {
                format!("the jobmanager at {address} does not answer: {}", status.message())
            }
            _ => status.message().to_owned(),
        };
        Self { reason, message }
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.reason as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Reason::Failed, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn statuses_become_exit_codes() {
        for (status, reason) in [
            (Status::failed_precondition("output exists"), Reason::Refused),
            (Status::unavailable("connection refused"), Reason::Unreachable),
            (Status::deadline_exceeded("10 s"), Reason::Unreachable),
            (Status::invalid_argument("label"), Reason::Usage),
            (Status::not_found("no such savepoint"), Reason::Failed),
            (Status::unimplemented("what"), Reason::Failed),
            (Status::internal("bug"), Reason::Failed),
        ] {
            assert_eq!(Failure::of_status("127.0.0.1:6123", &status).reason, reason, "{status}");
        }
    }

    #[test]
    fn an_unreachable_jobmanager_is_named() {
        let failure = Failure::of_status("jm:6123", &Status::unavailable("connection refused"));
        assert_eq!(failure.to_string(), "the jobmanager at jm:6123 does not answer: connection refused");
    }
}
