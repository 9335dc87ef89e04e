//! Admin calls to the jobmanager.

mod commands;
mod document;
mod errors;
mod offsets;
mod operations;
mod progress;
mod replay;
mod tables;
mod transactions;

use std::{error::Error, time::Duration};

use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use weir_proto::v1::admin_service_client::AdminServiceClient;

pub use self::commands::{
    CheckpointsArgs, RestoreArgs, SavepointCommand, StopArgs, checkpoints, restore, savepoint, splits, status, stop,
    taskmanagers,
};
pub use self::errors::{ErrorsCommand, FilterArgs, Place, errors};
pub use self::offsets::{ExportArgs, Form, ImportArgs};
pub use self::operations::{ResetArgs, SuspendArgs, reset, resume, suspend};
pub use self::replay::ReplayArgs;
pub use self::transactions::{TransactionsCommand, transactions};
use crate::{
    args::parse_duration,
    exit::{Failure, Outcome, Reason},
    output::Format,
};

/// A client of the admin service.
pub(crate) type Client = AdminServiceClient<Channel>;

/// Time to get a connection at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer: a thousand splits with their finished-ahead maps stay far below it.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Which jobmanager, how long to wait, in which form to print.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// The jobmanager's gRPC address; with a standby, both, separated by commas
    #[arg(long, env = "WEIR_JOBMANAGER", default_value = "127.0.0.1:6123", value_name = "HOST:PORT")]
    pub jobmanager: String,
    /// Time to wait for the answer [default: 10 s; savepoints, stop, restore, suspend, reset 15 min; transactions 1 and 2 min]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

impl Connection {
    /// Makes one call and waits for it, at most `timeout` or what the operator said. A standby did not do what was asked,
    /// so the jobmanager that it names is asked instead, once.
    async fn call<T>(
        &self,
        timeout: Duration,
        call: impl AsyncFn(&mut Client) -> Result<Response<T>, Status>,
    ) -> Outcome<T> {
        let (mut client, address) = connect_any(&self.jobmanager).await?;
        let timeout = self.timeout.unwrap_or(timeout);
        let silent = |address: &str| {
            let message = format!("the jobmanager at {address} did not answer within {timeout:?} (--timeout)");
            Failure::new(Reason::Unreachable, message)
        };
        let answer = tokio::time::timeout(timeout, call(&mut client)).await.map_err(|_| silent(&address))?;
        let Some(leader) = answer.as_ref().err().and_then(leader_of) else {
            return answer.map(Response::into_inner).map_err(|status| Failure::of_status(&address, &status));
        };
        let mut client = connect(&leader).await?;
        let answer = tokio::time::timeout(timeout, call(&mut client)).await.map_err(|_| silent(&leader))?;
        answer.map(Response::into_inner).map_err(|status| Failure::of_status(&leader, &status))
    }
}

/// Who leads, as a standby says it.
fn leader_of(status: &Status) -> Option<String> {
    let leader = status.metadata().get(weir_proto::LEADER_ADDRESS_KEY)?;
    leader.to_str().ok().map(str::to_owned)
}

/// Connects to the first of these jobmanagers that answers.
pub(crate) async fn connect_any(addresses: &str) -> Outcome<(Client, String)> {
    let mut failures = Vec::new();
    for address in addresses.split(',').map(str::trim) {
        match connect(address).await {
            Ok(client) => return Ok((client, address.to_owned())),
            Err(failure) if failure.reason == Reason::Unreachable => failures.push(failure.message),
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::new(Reason::Unreachable, failures.join("; ")))
}

/// Connects to a jobmanager.
pub(crate) async fn connect(address: &str) -> Outcome<Client> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|_| Failure::usage(format!("`{address}` is no address (--jobmanager); write host:port")))?
        .connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint.connect().await.map_err(|error| {
        let message = format!(
            "no jobmanager answers at {address}: {}. Is it running? --jobmanager or WEIR_JOBMANAGER name another one",
            root_cause(&error)
        );
        Failure::new(Reason::Unreachable, message)
    })?;
    Ok(Client::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(jobmanager: &str) -> Connection {
        Connection { jobmanager: jobmanager.to_owned(), timeout: None, output: Format::Table }
    }

    #[tokio::test]
    async fn nobody_there_is_exit_4_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let failure = status(&connection(&address)).await.expect_err("nobody there");
        assert_eq!(failure.reason, Reason::Unreachable);
        assert!(failure.message.contains(&address) && failure.message.contains("refused"), "{failure}");
    }

    #[tokio::test]
    async fn someone_silent_is_exit_4_after_the_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let silent = Connection { timeout: Some(Duration::from_millis(50)), ..connection(&address) };
        let failure = status(&silent).await.expect_err("no answer");
        assert_eq!(failure.reason, Reason::Unreachable, "{failure}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_exit_2() {
        let failure = status(&connection("not an address")).await.expect_err("no address");
        assert_eq!(failure.reason, Reason::Usage);
    }
}
