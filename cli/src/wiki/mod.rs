//! A stub of MediaWiki's Action API: for load, demo, benchmarks and tests, with latency and faults as wanted.

pub mod api;
pub mod content;
pub mod faults;
pub mod streams;

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body as HttpBody,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    api::{Answer, Body, Params},
    content::Wiki,
    faults::Fault,
};

/// Late revisions that are remembered, at most; then all are forgotten and come late once more.
const LATE_REMEMBERED_MAX: usize = 100_000;

/// How the stub behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it holds.
    pub wiki: Wiki,
    /// Time that every answer takes …
    pub latency: Duration,
    /// … and up to this much more.
    pub latency_jitter: Duration,
    /// Share of requests that fail, 0 to 1. Requests for stream configuration never do.
    pub failure_rate: f64,
}

/// A stub that is serving. Dropping it ends the service.
#[derive(Debug)]
pub struct StubWiki {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has done.
    pub counters: Arc<Counters>,
    stopped: CancellationToken,
}

/// What the stub has done since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests answered, failed ones included.
    pub requests: AtomicU64,
    /// Of them failed on purpose.
    pub faults: AtomicU64,
}

impl Drop for StubWiki {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl StubWiki {
    /// Base URL; the API is at any path, `/w/api.php` by custom.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

struct Server {
    options: Options,
    counters: Arc<Counters>,
    late_seen: Mutex<HashSet<(String, u64)>>,
}

/// Serves on `bind` until the returned value is dropped.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(bind: &str, options: Options) -> io::Result<StubWiki> {
    let listener = TcpListener::bind(bind).await?;
    let address = listener.local_addr()?;
    let (counters, stopped) = (Arc::new(Counters::default()), CancellationToken::new());
    let server = Arc::new(Server { options, counters: Arc::clone(&counters), late_seen: Mutex::default() });
    let router = Router::new().fallback(handle).with_state(server);
    // Answers are small and latency is what is measured.
    let listener = listener.tap_io(|connection| {
        let _ = connection.set_nodelay(true);
    });
    let stop = stopped.clone().cancelled_owned();
    tokio::spawn(async move {
        tokio::select! {
            served = axum::serve(listener, router) => served,
            () = stop => Ok(()),
        }
    });
    Ok(StubWiki { address, counters, stopped })
}

async fn handle(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap) -> Response {
    let params = parameters(&uri);
    // With HTTP/2 the authority stands in the URI.
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    server.counters.requests.fetch_add(1, Ordering::Relaxed);
    let options = &server.options;
    let latency = options.latency + options.latency_jitter.mul_f64(rand::random::<f64>());
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let is_query = params.get("action").is_some_and(|action| action == "query");
    match Fault::draw(options.failure_rate, rand::random()).filter(|_| is_query) {
        None => response(api::answer(&options.wiki, host, &params, &mut |rev_id| server.seen_before(host, rev_id))),
        Some(fault) => {
            server.counters.faults.fetch_add(1, Ordering::Relaxed);
            fault.answer().map_or_else(broken, response)
        }
    }
}

fn parameters(uri: &Uri) -> Params {
    // Only the query matters; the URL type wants a whole URL.
    let url = reqwest::Url::parse(&format!("http://stub/?{}", uri.query().unwrap_or_default()));
    url.map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default()
}

impl Server {
    fn seen_before(&self, host: &str, rev_id: u64) -> bool {
        let mut seen = self.late_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= LATE_REMEMBERED_MAX {
            seen.clear();
        }
        !seen.insert((host.to_owned(), rev_id))
    }
}

fn response(answer: Answer) -> Response {
    let mut response = match answer.body {
        Body::Json(body) => ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response(),
        Body::Html(text) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text).into_response(),
    };
    *response.status_mut() = answer.status;
    if let Some(code) = answer.error.and_then(|code| code.parse().ok()) {
        response.headers_mut().insert("mediawiki-api-error", code);
    }
    if let Some(seconds) = answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// An answer that breaks off: hyper closes the connection when a body fails.
fn broken() -> Response {
    let chunks = [Ok(r#"{"batchcomplete":true,"query":{"pa"#), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    let body = HttpBody::from_stream(futures::stream::iter(chunks));
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn stub(failure_rate: f64) -> StubWiki {
        let wiki = Wiki { content_bytes: 100 };
        let options = Options { wiki, latency: Duration::ZERO, latency_jitter: Duration::ZERO, failure_rate };
        serve("127.0.0.1:0", options).await.expect("a free port")
    }

    /// Status line and body as they come; a body that breaks off lacks its last chunk.
    async fn get(stub: &StubWiki, query: &str) -> String {
        let mut connection = TcpStream::connect(stub.address).await.expect("the stub listens");
        let request = format!(
            "GET /w/api.php?format=json&{query} HTTP/1.1\r\nhost: en.wikipedia.org\r\nconnection: close\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("UTF-8");
        answer
    }

    #[tokio::test]
    async fn revisions_and_stream_configuration_come_over_http() {
        let stub = stub(0.0).await;
        let answer = get(&stub, "action=query&prop=revisions&revids=1000%7C1001&rvprop=content").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("'''Revision 1001''' of en.wikipedia.org"), "{answer}");
        let answer = get(&stub, "action=streamconfigs&streams=a.v1").await;
        assert!(answer.contains("eqiad.a.v1"), "{answer}");
    }

    #[tokio::test]
    async fn a_late_revision_is_there_the_second_time() {
        let stub = stub(0.0).await;
        let query = "action=query&prop=revisions&revids=1996&rvprop=ids";
        assert!(get(&stub, query).await.contains("badrevids"));
        assert!(!get(&stub, query).await.contains("badrevids"));
    }

    #[tokio::test]
    async fn all_faults_are_seen_by_the_client() {
        let stub = stub(1.0).await;
        let marks = [" 429 ", " 503 ", "\"maxlag\"", "internal_api_error"];
        let mut seen = HashSet::new();
        for _ in 0..200 {
            let answer = get(&stub, "action=query&revids=1000").await;
            let mark = marks.iter().find(|mark| answer.contains(**mark)).unwrap_or(&"broken");
            assert!(*mark != "broken" || !answer.ends_with("0\r\n\r\n"), "a whole answer without fault: {answer}");
            seen.insert(*mark);
        }
        assert_eq!(seen.len(), marks.len() + 1, "{seen:?}");
        assert_eq!(stub.counters.faults.load(Ordering::Relaxed), 200);
    }
}
