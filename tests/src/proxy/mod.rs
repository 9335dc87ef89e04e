//! A TCP proxy between two parties of a test, that harms what passes through it.
//!
//! [`Proxy::start`] knows bytes alone: cut, reset, delay, bandwidth, either direction stopped, nobody there. With
//! [`Proxy::kafka`] it also knows the frames of Kafka's requests, and a [`Plan`] chooses those that are lost, late, halved
//! or not answered. A broker that is proxied must advertise the proxy's address (`KAFKA_PROXY` of `tests/env/kafka`), or
//! clients leave it after their first answer.

mod connection;
pub mod frame;
mod plan;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_util::task::AbortOnDropHandle;

pub use self::plan::{Fault, Plan};

/// At most this many connections at once; more wait until one ends.
const MAX_CONNECTIONS: usize = 1024;
/// At most this many faults are kept with their particulars; more are only counted.
const MAX_INJECTED: usize = 100_000;

/// How the line is. [`Link::default`] is a healthy one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What clients send arrives. `false`: it waits, and so does the end of their connection (half-open).
    pub to_server: bool,
    /// What servers send arrives. `false`: as above.
    pub to_client: bool,
    /// Nobody is there: new connections are reset.
    pub refuse: bool,
    /// Added to each direction.
    pub delay: Duration,
    /// Of each direction of each connection; `None` = as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl Default for Link {
    fn default() -> Self {
        Self { to_server: true, to_client: true, refuse: false, delay: Duration::ZERO, bytes_per_second: None }
    }
}

/// A request that was disturbed.
#[derive(Clone, Debug)]
pub struct Injected {
    /// When it came in.
    pub at: Instant,
    /// The request.
    pub head: frame::Head,
    /// Whose (`client.id`).
    pub client: String,
    /// Counted by kind, from 0.
    pub nth: u64,
    /// What happened to it.
    pub fault: Fault,
}

/// How connections are ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// By FIN.
    Close,
    /// By RST.
    Reset,
}

struct Shared {
    upstream: Mutex<SocketAddr>,
    link: watch::Sender<Link>,
    cut: watch::Sender<Cut>,
    /// Whether requests are read frame by frame.
    frames: bool,
    requests: Mutex<Requests>,
}

#[derive(Default)]
struct Requests {
    plan: Option<Plan>,
    /// By api key.
    seen: BTreeMap<i16, u64>,
    injected: Vec<Injected>,
    counts: BTreeMap<(i16, &'static str), u64>,
}

/// The proxy. Dropping it ends it with all its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    /// One that knows bytes alone.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::serve(upstream, false).await
    }

    /// One that knows Kafka's requests. The upstream may be told later ([`Proxy::forward_to`]): a broker wants to know
    /// its proxy's address first.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn kafka(upstream: SocketAddr) -> io::Result<Self> {
        Self::serve(upstream, true).await
    }

    async fn serve(upstream: SocketAddr, frames: bool) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            link: watch::Sender::new(Link::default()),
            cut: watch::Sender::new(Cut::Close),
            frames,
            requests: Mutex::default(),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, shared.clone())));
        Ok(Self { address, shared, _task: task })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there.
    pub fn forward_to(&self, upstream: SocketAddr) {
        *lock(&self.shared.upstream) = upstream;
    }

    /// Changes the line, for connections that exist too.
    pub fn set(&self, link: Link) {
        self.shared.link.send_replace(link);
    }

    /// A healthy line, and no more disturbed requests. What was delayed before still arrives.
    pub fn heal(&self) {
        self.set(Link::default());
        self.disturb(None);
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.shared.cut.send_replace(Cut::Close);
    }

    /// Resets all connections.
    pub fn reset(&self) {
        self.shared.cut.send_replace(Cut::Reset);
    }

    /// Disturbs requests by this plan from now on; only with [`Proxy::kafka`]. Requests are counted from the proxy's start.
    pub fn disturb(&self, plan: Option<Plan>) {
        lock(&self.shared.requests).plan = plan;
    }

    /// Requests that came in, by api key.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<i16, u64> {
        lock(&self.shared.requests).seen.clone()
    }

    /// Faults, by api key and [`Fault::name`].
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(i16, &'static str), u64> {
        lock(&self.shared.requests).counts.clone()
    }

    /// The first 100,000 faults, oldest first.
    #[must_use]
    pub fn injected(&self) -> Vec<Injected> {
        lock(&self.shared.requests).injected.clone()
    }
}

impl Shared {
    /// Counts a request and decides its fate.
    fn judge(&self, frame: &[u8]) -> Option<Fault> {
        let head = frame::Head::of(frame)?;
        let mut requests = lock(&self.requests);
        let seen = requests.seen.entry(head.api_key).or_default();
        let nth = *seen;
        *seen += 1;
        let fault = requests.plan.as_ref()?.fault(head.api_key, nth)?;
        *requests.counts.entry((head.api_key, fault.name())).or_default() += 1;
        if requests.injected.len() < MAX_INJECTED {
            let client = frame::client_id(frame);
            requests.injected.push(Injected { at: Instant::now(), head, client, nth, fault });
        }
        Some(fault)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Ends its connections when it is dropped.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            // Out of descriptors, for example: not at full speed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if shared.link.borrow().refuse {
            reset(&client);
            continue;
        }
        let shared = shared.clone();
        connections.spawn(async move {
            connection::serve(client, &shared).await;
            drop(permit);
        });
    }
}

/// Has the connection end by RST when it is dropped.
fn reset(stream: &TcpStream) {
    // It can only fail on a socket that is gone.
    let _ = stream.set_zero_linger();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
