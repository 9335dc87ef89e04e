//! What stands before the stub wiki: answers as told, and never for the stuck page until all is healed.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::http;

/// The page whose revisions are not answered.
pub const STUCK_PAGE: i64 = 7_777;

/// Revisions of a page of the stub wiki.
const REVISIONS: i64 = 1000;

/// Each phase of [`Mode::Flapping`].
const FLAP: Duration = Duration::from_millis(700);

/// How the API behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// As the wiki does.
    #[default]
    Healthy,
    /// 429 with `Retry-After`.
    TooManyRequests,
    /// 503.
    Unavailable,
    /// No answer until the mode changes.
    Hang,
    /// Answers that break off.
    Reset,
    /// Healthy and unavailable in turn.
    Flapping,
}

#[derive(Clone, Copy, Debug)]
struct Behaviour {
    mode: Mode,
    stuck: bool,
}

struct Server {
    /// `host:port` of the wiki.
    wiki: String,
    behaviour: watch::Receiver<Behaviour>,
    started: Instant,
}

/// An API that is serving until it is dropped.
pub struct Api {
    address: SocketAddr,
    behaviour: watch::Sender<Behaviour>,
    _task: AbortOnDropHandle<()>,
}

impl Api {
    /// Serves what the wiki at `host:port` answers.
    ///
    /// # Errors
    /// No port.
    pub async fn start(wiki: &str) -> anyhow::Result<Self> {
        let (behaviour, seen) = watch::channel(Behaviour { mode: Mode::Healthy, stuck: true });
        let server = Arc::new(Server { wiki: wiki.to_owned(), behaviour: seen, started: Instant::now() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(server);
        let task = tokio::spawn(async move {
            if let Err(why) = axum::serve(listener, router).await {
                eprintln!("the API ended: {why}");
            }
        });
        Ok(Self { address, behaviour, _task: AbortOnDropHandle::new(task) })
    }

    /// URL of its `api.php`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/w/api.php", self.address)
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.behaviour.send_modify(|behaviour| behaviour.mode = mode);
    }

    /// Healthy, and the stuck page is answered too.
    pub fn heal(&self) {
        self.behaviour.send_replace(Behaviour { mode: Mode::Healthy, stuck: false });
    }
}

async fn answer(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap) -> Response {
    let mut behaviour = server.behaviour.clone();
    if asks_for_stuck(uri.query().unwrap_or_default()) {
        // Its client gives up before.
        let _ = behaviour.wait_for(|now| !now.stuck).await;
    }
    let mode = behaviour.borrow().mode;
    let flapped = (server.started.elapsed().as_millis() / FLAP.as_millis()) % 2 == 1;
    match mode {
        Mode::TooManyRequests => {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "too many requests").into_response();
        }
        Mode::Unavailable => return unavailable(),
        Mode::Flapping if flapped => return unavailable(),
        Mode::Hang => drop(behaviour.wait_for(|now| now.mode != Mode::Hang).await),
        Mode::Reset => return broken(),
        Mode::Healthy | Mode::Flapping => {}
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    match http::get(&server.wiki, path, host).await {
        Ok((status, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            (status, [(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
        }
        Err(_) => unavailable(),
    }
}

/// Whether a query names a revision of the stuck page, or the page.
fn asks_for_stuck(query: &str) -> bool {
    let ids = |name: &str| -> Vec<i64> {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let ids = value.unwrap_or_default().split("%7C").flat_map(|part| part.split('|'));
        ids.filter_map(|id| id.parse().ok()).collect()
    };
    ids("revids").iter().any(|id| id / REVISIONS == STUCK_PAGE) || ids("pageids").contains(&STUCK_PAGE)
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "upstream connect error").into_response()
}

/// hyper closes the connection when a body fails.
fn broken() -> Response {
    let chunks = [Ok(r#"{"batchcomplete":true,"que"#), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    let body = Body::from_stream(futures::stream::iter(chunks));
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stuck_page_is_found_in_a_batch() {
        let table = [
            ("action=query&revids=7777001&rvprop=ids", true),
            ("revids=1001%7C7777999%7C3", true),
            ("revids=1001|7777000", true),
            ("pageids=7777", true),
            ("revids=7778000%7C777700", false),
            ("pageids=77770&action=query", false),
            ("action=query", false),
        ];
        for (query, stuck) in table {
            assert_eq!(asks_for_stuck(query), stuck, "{query}");
        }
    }
}
