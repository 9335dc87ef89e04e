//! An API before which something speaks oddly: every third answer is one that no API should give, byte by byte; and hosts
//! whose every answer is of one odd kind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::harness::http;

/// Hosts end so whose every answer is of the kind that their name begins with.
pub const ODD_HOSTS: &str = ".odd.example";

/// One in so many answers is odd.
const ONE_IN: usize = 3;

/// What is asked for again, and in the end answered.
const PASSING: [&str; 24] = [
    "html",
    "empty",
    "cut",
    "reset",
    "too-short",
    "too-long",
    "no-chunk",
    "bad-gzip",
    "list",
    "deep",
    "bom",
    "nothing",
    "others",
    "no-http",
    "closed",
    "hang",
    "drip",
    "429",
    "503",
    "500",
    "502",
    "408",
    "maxlag",
    "internal",
];

/// What ends at once; each is a host.
pub const LASTING: [&str; 12] =
    ["301", "302", "307", "400", "401", "403", "404", "414", "101", "readapidenied", "bomb", "textmissing"];

/// An API that is serving until it is dropped.
pub struct OddApi {
    address: SocketAddr,
    server: Arc<Server>,
    _task: AbortOnDropHandle<()>,
}

struct Server {
    wiki: String,
    asked: AtomicUsize,
    given: Mutex<BTreeMap<String, usize>>,
}

impl OddApi {
    /// Serves what the wiki at `host:port` answers, and what it would not.
    ///
    /// # Errors
    /// No port.
    pub async fn start(wiki: &str) -> anyhow::Result<Self> {
        let server = Arc::new(Server { wiki: wiki.to_owned(), asked: AtomicUsize::default(), given: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let serving = Arc::clone(&server);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = Arc::clone(&serving);
                // A client that goes away in the middle is the point.
                tokio::spawn(async move { serve(socket, &server).await });
            }
        });
        Ok(Self { address, server, _task: AbortOnDropHandle::new(task) })
    }

    /// URL of its `api.php`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/w/api.php", self.address)
    }

    /// Odd answers given, by kind.
    #[must_use]
    pub fn given(&self) -> BTreeMap<String, usize> {
        self.server.given.lock().map(|given| given.clone()).unwrap_or_default()
    }

    /// All kinds of odd answers.
    pub fn kinds() -> impl Iterator<Item = &'static str> {
        PASSING.into_iter().chain(LASTING)
    }
}

async fn serve(mut socket: TcpStream, server: &Server) -> anyhow::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("/");
        let host = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
        let host = host.unwrap_or_default();
        let number = server.asked.fetch_add(1, Ordering::Relaxed);
        let kind = match host.strip_suffix(ODD_HOSTS) {
            Some(kind) => Some(kind.to_owned()),
            None => number.is_multiple_of(ONE_IN).then(|| PASSING[number / ONE_IN % PASSING.len()].to_owned()),
        };
        // An answer that does not name a page is how the API says that its redirect leads nowhere.
        let kind = kind.filter(|kind| path.contains("revids=") || !matches!(kind.as_str(), "nothing" | "others"));
        if let Some(kind) = kind {
            if let Ok(mut given) = server.given.lock() {
                *given.entry(kind.clone()).or_default() += 1;
            }
            if !odd(&mut socket, &kind, path).await? {
                return Ok(());
            }
            continue;
        }
        let (status, body) = http::get(&server.wiki, path, &host).await?;
        socket
            .write_all(format!("HTTP/1.1 {status} As told\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
            .await?;
        socket.write_all(body.as_bytes()).await?;
    }
}

/// Gives this kind of answer; whether the connection is of further use.
async fn odd(socket: &mut TcpStream, kind: &str, path: &str) -> anyhow::Result<bool> {
    let first: i64 = revids(path).first().copied().unwrap_or_default();
    let revision = |id: i64, slot: &str| {
        format!(
            r#"{{"query":{{"pages":[{{"pageid":1,"title":"A","revisions":[{{"revid":{id},"slots":{{"main":{slot}}}}}]}}]}}}}"#
        )
    };
    let error = |code: &str| format!(r#"{{"error":{{"code":"{code}","info":"odd"}}}}"#);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let whole = |body: &str| format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let good = r#"{"batchcomplete":true,"query":{"pages":[]}}"#;
    let (text, lives) = match kind {
        "html" => (whole("<!DOCTYPE html><title>Maintenance</title>"), true),
        "empty" => (whole(""), true),
        "cut" => (format!("{head}Content-Length: 5000\r\n\r\n{{\"query\""), false),
        "too-short" => (format!("{head}Content-Length: 9\r\n\r\n{good}"), false),
        "too-long" => (format!("{head}Content-Length: 500\r\n\r\n{good}"), false),
        "no-chunk" => (format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n{good}\r\n"), false),
        "bad-gzip" => (whole(good).replacen("\r\n", "\r\nContent-Encoding: gzip\r\n", 1), true),
        "list" => (whole("[]"), true),
        "deep" => (whole(&"[".repeat(50_000)), true),
        "bom" => (whole(&format!("\u{feff}{good}")), true),
        "nothing" => (whole(good), true),
        // Forged content, of a revision that nobody asked for.
        "others" => (whole(&revision(first + 1_000_000_000, r#"{"content":"forged"}"#)), true),
        "no-http" => (good.to_owned(), false),
        "closed" => (String::new(), false),
        "hang" | "drip" | "reset" => (format!("{head}Content-Length: 5000\r\n\r\n{{"), false),
        "maxlag" => (whole(&error("maxlag")), true),
        "internal" => (whole(&error("internal_api_error_DBQueryError")), true),
        "readapidenied" => (whole(&error(kind)), true),
        "textmissing" => (whole(&revision(first, r#"{"textmissing":true}"#)), true),
        "bomb" => (format!("{head}Connection: close\r\n\r\n"), false),
        status => {
            let more = "Location: http://127.0.0.1:1/\r\nRetry-After: 0\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0";
            (format!("HTTP/1.1 {status} Odd\r\n{more}\r\n\r\n"), false)
        }
    };
    socket.write_all(text.as_bytes()).await?;
    match kind {
        "hang" => drop(socket.read(&mut [0]).await),
        "drip" => loop {
            socket.write_all(b" ").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        },
        "reset" => socket.set_zero_linger()?,
        "bomb" => socket.write_all(&vec![b' '; 40 << 20]).await?,
        _ => {}
    }
    Ok(lives)
}

fn revids(path: &str) -> Vec<i64> {
    let ids = path.split(['?', '&']).find_map(|parameter| parameter.strip_prefix("revids=")).unwrap_or_default();
    ids.split("%7C").filter_map(|id| id.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_found_in_a_batch() {
        assert_eq!(revids("/w/api.php?action=query&revids=7%7C8&maxlag=5"), [7, 8]);
        assert!(revids("/w/api.php?action=query").is_empty());
    }
}
