//! HTTP clients: rustls with ring, a CA bundle, a user agent; and production's routes.

use std::{collections::BTreeMap, path::Path, sync::Once, time::Duration};

use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url, header};
use thiserror::Error;

/// Largest answer that [`get`] takes. Stream configurations and schemas are far smaller.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const START_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const START_ATTEMPTS: u32 = 5;
const START_BACKOFF: Duration = Duration::from_millis(250);

/// What keeps a client or an answer from being had.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The CA bundle cannot be used.
    #[error("CA bundle {path}: {cause}; give a PEM file that this user can read in `enrich.ssl_ca_bundle_path`")]
    CaBundle {
        /// The configured path.
        path: String,
        /// What the system or the parser says.
        cause: String,
    },
    /// The client cannot be made.
    #[error("cannot set up an HTTP client: {0}")]
    Client(String),
    /// A URL cannot be read.
    #[error("`{url}` is not a URL: {cause}")]
    Url {
        /// As configured.
        url: String,
        /// The parser's words.
        cause: String,
    },
    /// Nobody answers, or only with errors that may pass, after all retries.
    #[error(
        "{url} (asked at {address}): {cause}; tried {attempts} times; check the address, the route and the network"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Scheme, host and port after routes.
        address: String,
        /// The last failure.
        cause: String,
        /// How often.
        attempts: u32,
    },
    /// It answers, but not with the document.
    #[error("{url} (asked at {address}): status {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// Scheme, host and port after routes.
        address: String,
        /// HTTP status.
        status: u16,
    },
}

/// A builder for clients of this process; callers add their own time-outs and pool sizes.
///
/// # Errors
/// A CA bundle that cannot be read. With a bundle, only its authorities are trusted.
pub fn builder(ca_bundle: Option<&Path>, user_agent: &str) -> Result<ClientBuilder, HttpError> {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails only where a provider is there already, which then does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let builder = Client::builder().user_agent(user_agent).connect_timeout(CONNECT_TIMEOUT);
    let Some(path) = ca_bundle else { return Ok(builder) };
    let refused = |cause: String| HttpError::CaBundle { path: path.display().to_string(), cause };
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.to_string()))?;
    if certificates.is_empty() {
        return Err(refused("no certificate in it".to_owned()));
    }
    Ok(builder.tls_certs_only(certificates))
}

/// A client as [`builder`] makes it.
///
/// # Errors
/// As [`builder`].
pub fn client(ca_bundle: Option<&Path>, user_agent: &str) -> Result<Client, HttpError> {
    builder(ca_bundle, user_agent)?.build().map_err(|error| HttpError::Client(chain(&error)))
}

/// `http_client_routes`: a request whose URL starts with a key goes to the value's scheme, host and port, and says
/// the original host in its `Host` header.
#[derive(Clone, Debug, Default)]
pub struct Routes(BTreeMap<String, String>);

/// Where a request really goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The URL to ask.
    pub url: Url,
    /// `Host` header, where it is not the URL's own.
    pub host: Option<String>,
}

impl Routes {
    /// As configured.
    #[must_use]
    pub fn new(routes: &BTreeMap<String, String>) -> Self {
        Self(routes.clone())
    }

    /// Applies the longest key that `url` starts with.
    ///
    /// # Errors
    /// A URL or a route that cannot be read.
    pub fn apply(&self, url: &str) -> Result<Routed, HttpError> {
        let original = parse(url)?;
        let route = self.0.iter().filter(|(prefix, _)| url.starts_with(prefix.as_str())).max_by_key(|(k, _)| k.len());
        let Some((_, target)) = route else { return Ok(Routed { url: original, host: None }) };
        let target = parse(target)?;
        let bad = |cause: &str| HttpError::Url { url: target.to_string(), cause: cause.to_owned() };
        let mut url = original.clone();
        url.set_scheme(target.scheme()).map_err(|()| bad("its scheme does not fit"))?;
        url.set_host(target.host_str()).map_err(|error| bad(&error.to_string()))?;
        url.set_port(target.port()).map_err(|()| bad("its port does not fit"))?;
        let host = original.host_str().map(|host| match original.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
        Ok(Routed { url, host })
    }
}

fn parse(url: &str) -> Result<Url, HttpError> {
    Url::parse(url).map_err(|error| HttpError::Url { url: url.to_owned(), cause: error.to_string() })
}

/// Gets a document at start, with a few retries of what may pass.
///
/// # Errors
/// [`HttpError::Unreachable`] after the last retry, [`HttpError::Status`] at once for other statuses than 200.
pub async fn get(client: &Client, routes: &Routes, url: &str) -> Result<Vec<u8>, HttpError> {
    let routed = routes.apply(url)?;
    let address = routed.url.origin().ascii_serialization();
    let mut cause = String::new();
    for attempt in 0..START_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(START_BACKOFF * 2u32.pow(attempt - 1)).await;
        }
        match once(client, &routed).await {
            Ok((StatusCode::OK, body)) => return Ok(body),
            Ok((status, _)) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                cause = format!("status {}", status.as_u16());
            }
            Ok((status, _)) => {
                return Err(HttpError::Status { url: url.to_owned(), address, status: status.as_u16() });
            }
            Err(error) => cause = error,
        }
        tracing::debug!(url, %address, attempt, cause, "no answer yet");
    }
    Err(HttpError::Unreachable { url: url.to_owned(), address, cause, attempts: START_ATTEMPTS })
}

async fn once(client: &Client, routed: &Routed) -> Result<(StatusCode, Vec<u8>), String> {
    let mut request = client.get(routed.url.clone()).timeout(START_REQUEST_TIMEOUT);
    if let Some(host) = &routed.host {
        request = request.header(header::HOST, host);
    }
    let mut response = request.send().await.map_err(|error| chain(&error))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| chain(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body))
}

/// An error with its causes: reqwest's own text alone does not say why.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_changes_where_a_request_goes_and_keeps_its_host() {
        let routes = Routes::new(&BTreeMap::from([
            ("https://meta.wikimedia.org/w/api.php".to_owned(), "http://localhost:6500".to_owned()),
            ("https://other.example:8443".to_owned(), "http://127.0.0.1:1".to_owned()),
        ]));
        let table = [
            (
                "https://meta.wikimedia.org/w/api.php?action=x",
                "http://localhost:6500/w/api.php?action=x",
                Some("meta.wikimedia.org"),
            ),
            ("https://other.example:8443/a", "http://127.0.0.1:1/a", Some("other.example:8443")),
            ("https://en.wikipedia.org/w/api.php", "https://en.wikipedia.org/w/api.php", None),
        ];
        for (url, to, host) in table {
            let routed = routes.apply(url).expect(url);
            assert_eq!((routed.url.as_str(), routed.host.as_deref()), (to, host));
        }
        assert!(routes.apply("meta").is_err());
    }

    #[test]
    fn a_missing_ca_bundle_is_named() {
        let error = builder(Some(Path::new("/nowhere/ca.pem")), "weir").expect_err("no such file").to_string();
        assert!(error.contains("/nowhere/ca.pem") && error.contains("ssl_ca_bundle_path"), "{error}");
    }
}
