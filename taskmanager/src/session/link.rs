//! The stream to the jobmanager: dialled again and again, for as long as the process lives.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};
use weir_common::config::Heartbeat;
use weir_proto::v1::{self, task_manager_service_client::TaskManagerServiceClient as Client};

/// Messages on their way out. A jobmanager that takes none of so many is as good as gone.
const OUTGOING: usize = 1024;

/// Waits between two dials.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// The longest is far below any `heartbeat.timeout`: a new jobmanager adopts only who comes back within it.
const MAX_WAIT: Duration = Duration::from_secs(1);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is probed after the first, and given up after the second.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));

/// State of the stream.
pub(super) enum Link {
    /// Waiting, then connecting.
    Dialing(BoxFuture<'static, anyhow::Result<Channel>>),
    /// Register was sent, the answer's head has not come.
    Attaching(Outgoing, BoxFuture<'static, Result<Streaming<v1::JobManagerMessage>, Status>>),
    /// Open.
    Up(Outgoing, Box<Streaming<v1::JobManagerMessage>>),
}

/// What happened on it.
pub(super) enum LinkEvent {
    /// Connected: Register goes now.
    Connected(Channel),
    /// The stream is open.
    Attached,
    /// A message.
    Message(Box<v1::JobManagerMessage>),
    /// It is gone.
    Broken(String),
}

/// The sending half, with the times of heartbeats that were not answered yet.
pub(super) struct Outgoing {
    sender: mpsc::Sender<v1::TaskManagerMessage>,
    heartbeats: VecDeque<Instant>,
}

impl Link {
    /// Dials after a wait.
    pub(super) fn dial(address: &str, wait: Duration) -> Self {
        let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Self::Dialing(Box::pin(async move {
            tokio::time::sleep(wait).await;
            let endpoint = Endpoint::from_shared(uri.clone())
                .with_context(|| format!("`jobmanager.address` gives `{uri}`, which is not an address"))?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE.0)
                .keep_alive_timeout(KEEP_ALIVE.1)
                .keep_alive_while_idle(true);
            endpoint.connect().await.with_context(|| format!("{uri} does not answer"))
        }))
    }

    /// Opens the stream with its first message.
    pub(super) fn attach(channel: Channel, register: v1::Register, limit: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(OUTGOING);
        let mut outgoing = Outgoing { sender, heartbeats: VecDeque::new() };
        outgoing.send(v1::TaskManagerMessage { kind: Some(v1::task_manager_message::Kind::Register(register)) });
        let mut client = Client::new(channel);
        let attach = async move {
            let answer = tokio::time::timeout(limit, client.attach(ReceiverStream::new(receiver))).await;
            let silent = |_| Status::deadline_exceeded(format!("no answer within {limit:?}"));
            answer.map_err(silent)?.map(tonic::Response::into_inner)
        };
        Self::Attaching(outgoing, Box::pin(attach))
    }

    /// The next thing that happens.
    ///
    /// # Cancel safety
    /// Cancel safe: its future is kept in the state.
    pub(super) async fn next(&mut self) -> LinkEvent {
        match self {
            Self::Dialing(dial) => match dial.await {
                Ok(channel) => LinkEvent::Connected(channel),
                Err(error) => LinkEvent::Broken(format!("{error:#}")),
            },
            Self::Attaching(_, attach) => match attach.await {
                Ok(stream) => {
                    self.open(stream);
                    LinkEvent::Attached
                }
                Err(status) => LinkEvent::Broken(status.message().to_owned()),
            },
            Self::Up(_, stream) => match stream.message().await {
                Ok(Some(message)) => LinkEvent::Message(Box::new(message)),
                Ok(None) => LinkEvent::Broken("the jobmanager closed the stream".to_owned()),
                Err(status) => LinkEvent::Broken(format!("{}: {}", status.code(), status.message())),
            },
        }
    }

    fn open(&mut self, stream: Streaming<v1::JobManagerMessage>) {
        if let Self::Attaching(outgoing, _) = self {
            let (sender, heartbeats) = (outgoing.sender.clone(), std::mem::take(&mut outgoing.heartbeats));
            *self = Self::Up(Outgoing { sender, heartbeats }, Box::new(stream));
        }
    }

    /// The sending half, once Register is on its way.
    pub(super) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match self {
            Self::Dialing(_) => None,
            Self::Attaching(outgoing, _) | Self::Up(outgoing, _) => Some(outgoing),
        }
    }
}

impl Outgoing {
    /// `false`: the jobmanager takes nothing any more.
    pub(super) fn send(&mut self, message: v1::TaskManagerMessage) -> bool {
        self.sender.try_send(message).is_ok()
    }

    pub(super) fn heartbeat(&mut self, heartbeat: v1::Heartbeat) -> bool {
        let sent = Instant::now();
        let message = v1::TaskManagerMessage { kind: Some(v1::task_manager_message::Kind::Heartbeat(heartbeat)) };
        self.heartbeats.push_back(sent);
        self.send(message)
    }

    /// When the heartbeat was sent that an answer belongs to: answers come in order. A jobmanager that leaves some out
    /// only makes us believe in an older one.
    pub(super) fn answered(&mut self) -> Option<Instant> {
        self.heartbeats.pop_front()
    }
}

/// How long a jobmanager may be silent to whom it has registered: well inside the time in which a next one adopts.
pub(super) fn patience(heartbeat: &Heartbeat) -> Duration {
    (heartbeat.timeout / 2).max(heartbeat.interval * 2)
}

/// A jobmanager opens a stream at once; one that is stopped takes connections and never answers.
pub(super) fn attach_timeout(heartbeat: &Heartbeat) -> Duration {
    (heartbeat.timeout / 4).clamp(Duration::from_millis(500), Duration::from_secs(5))
}

/// Time before the next dial, after so many that failed.
pub(super) fn wait_before(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(MAX_WAIT)
}
