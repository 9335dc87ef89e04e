//! One request to the API: the right wiki, bounded in time and bytes, every failure classified.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Response, StatusCode, Url,
    header::{HOST, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use weir_common::{config::Enrich, http::builder};

use super::domain::Domain;
use crate::enrich::{fault::Fault, metrics::Metrics, routes::Kind};

/// The service mesh closes idle connections after 4 s; ours must go first, or requests meet a closing connection.
const IDLE_CONNECTION_TIME: Duration = Duration::from_secs(3);

/// Largest answer that is read. The API caps the content of an answer at 12 MiB; escaping can double it.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Of a cause, in a message.
const CAUSE_CHARS_MAX: usize = 200;

/// An answer with a 2xx status.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// What was read, decompressed.
    pub(crate) body: Vec<u8>,
    /// `Retry-After`, which errors with HTTP 200 (maxlag) carry too.
    pub(crate) retry_after: Option<Duration>,
}

/// Asks `api.php` of any wiki behind one endpoint. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    maxlag: String,
    metrics: Metrics,
}

#[derive(Clone, Debug)]
enum Endpoint {
    /// One URL for all wikis; the `Host` header chooses.
    Shared(Url),
    /// The domain is part of the URL.
    Template(String),
}

impl Client {
    /// # Errors
    /// A template that is no `http(s)` URL, a CA bundle that cannot be read.
    pub(crate) fn new(config: &Enrich, metrics: Metrics) -> anyhow::Result<Self> {
        let endpoint = Endpoint::parse(&config.mediawiki_api_endpoint_template)?;
        let ca_bundle = config.ssl_ca_bundle_path.as_deref().filter(|_| endpoint.is_https());
        let mut http = builder(ca_bundle, &config.user_agent)?
            .timeout(config.request_timeout)
            .redirect(Policy::none())
            .pool_idle_timeout(IDLE_CONNECTION_TIME)
            .pool_max_idle_per_host(config.max_concurrent_requests);
        if matches!(endpoint, Endpoint::Shared(_)) {
            // HTTP/2 takes the wiki from `:authority`, which is the endpoint's; only HTTP/1 follows the `Host` header.
            http = http.http1_only();
        }
        let http = http.build().context("cannot set up the HTTP client of the API")?;
        Ok(Self { http, endpoint, maxlag: config.maxlag.to_string(), metrics })
    }

    /// Sends one query and reads the whole answer. Only 2xx answers return.
    ///
    /// # Errors
    /// The fault, classified. Its message never holds the body.
    pub(crate) async fn query(&self, domain: &Domain, params: &[(&str, &str)]) -> Result<Answer, Fault> {
        let mut url = self.endpoint.url(domain)?;
        url.query_pairs_mut()
            .extend_pairs([("action", "query"), ("format", "json"), ("formatversion", "2")])
            .extend_pairs(params)
            .append_pair("maxlag", &self.maxlag);
        let mut request = self.http.get(url);
        if matches!(self.endpoint, Endpoint::Shared(_)) {
            request = request.header(HOST, domain.as_str());
        }
        let in_flight = self.metrics.begin_request();
        let started = Instant::now();
        let (status, answer) = match request.send().await {
            Ok(response) => (Some(response.status().as_u16()), read_answer(domain, response).await),
            Err(error) => (None, Err(transport_fault(domain, &error))),
        };
        self.metrics.end_request(status, started.elapsed());
        drop(in_flight);
        answer
    }

    /// The counters.
    #[must_use]
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl Endpoint {
    fn parse(template: &str) -> anyhow::Result<Self> {
        let sample = template.replace("{domain}", "wiki.example.org");
        let url: Url = sample
            .parse()
            .with_context(|| format!("enrich.mediawiki_api_endpoint_template: `{template}` is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() {
            bail!("enrich.mediawiki_api_endpoint_template: `{template}` must be http(s), without a query");
        }
        Ok(if sample == template { Self::Shared(url) } else { Self::Template(template.to_owned()) })
    }

    fn is_https(&self) -> bool {
        match self {
            Self::Shared(url) => url.scheme() == "https",
            Self::Template(template) => template.starts_with("https:"),
        }
    }

    fn url(&self, domain: &Domain) -> Result<Url, Fault> {
        let invalid = |why| Fault::new(Kind::InvalidInput, format!("meta.domain `{domain}` {why}"));
        match self {
            Self::Shared(url) => Ok(url.clone()),
            Self::Template(_) if !domain.is_public_name() => Err(invalid("names no public host")),
            Self::Template(template) => {
                template.replace("{domain}", domain.as_str()).parse().map_err(|_| invalid("makes no URL"))
            }
        }
    }
}

async fn read_answer(domain: &Domain, mut response: Response) -> Result<Answer, Fault> {
    let status = response.status();
    let retry_after = retry_after(response.headers(), Timestamp::now());
    if !status.is_success() {
        return Err(Fault { retry_after, ..status_fault(domain, status) });
    }
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    let mut body = Vec::with_capacity(announced.min(ANSWER_BYTES_MAX));
    while let Some(chunk) = response.chunk().await.map_err(|error| transport_fault(domain, &error))? {
        // Checked as it streams, after decompression: neither a wrong length nor a compression bomb gets further.
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = format!("{domain}: answer larger than {ANSWER_BYTES_MAX} bytes");
            return Err(Fault::new(Kind::AnswerTooLarge, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { body, retry_after })
}

fn status_fault(domain: &Domain, status: StatusCode) -> Fault {
    let kind = match status.as_u16() {
        429 => Kind::TooManyRequests,
        503 => Kind::Unavailable,
        408 | 425 => Kind::TryAgain,
        413 | 414 | 431 => Kind::RequestTooLarge,
        500.. => Kind::ServerError,
        _ => Kind::UnexpectedStatus,
    };
    let refused = if status.is_redirection() { ": redirects are not followed" } else { "" };
    Fault::new(kind, format!("{domain}: HTTP {status}{refused}"))
}

fn transport_fault(domain: &Domain, error: &reqwest::Error) -> Fault {
    let (kind, what) = if error.is_timeout() {
        (Kind::Timeout, "no complete answer within enrich.request_timeout")
    } else if error.is_builder() {
        (Kind::InvalidInput, "no request can be made for this domain")
    } else if is_of_tls(error) {
        (Kind::TlsFailed, "no TLS with the API")
    } else if error.is_connect() {
        (Kind::ConnectionFailed, "cannot connect to the API")
    } else if is_of_decompression(error) {
        (Kind::BadEncoding, "the answer does not decompress")
    } else {
        (Kind::ConnectionLost, "connection lost before the answer was complete")
    };
    Fault::new(kind, format!("{domain}: {what} ({})", cause(error)))
}

fn is_of_tls(error: &reqwest::Error) -> bool {
    causes(error).any(is_rustls)
}

/// What breaks in the decompressor is an error of IO at once; what breaks below it comes as one of the HTTP connection.
fn is_of_decompression(error: &reqwest::Error) -> bool {
    let foreign = causes(error).find(|cause| !cause.is::<reqwest::Error>());
    error.is_decode() && foreign.is_some_and(|cause| cause.is::<io::Error>())
}

/// Errors of IO hold their cause, sometimes in each other, and do not name it as their source.
fn is_rustls(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_rustls(inner))
}

/// The innermost cause: what is around it only says that a request failed.
fn cause(error: &reqwest::Error) -> String {
    let innermost = causes(error).last().map_or_else(|| error.to_string(), ToString::to_string);
    innermost.chars().take(CAUSE_CHARS_MAX).collect()
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error: &&(dyn Error + 'static)| (*error).source())
}

/// Seconds or an HTTP date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_never_left() {
        let domain = |text: &str| text.parse::<Domain>().expect("a host name");
        let shared = Endpoint::parse("http://localhost:6500/w/api.php").expect("a URL");
        assert_eq!(shared.url(&domain("evil.example")).expect("a URL").as_str(), "http://localhost:6500/w/api.php");
        let template = Endpoint::parse("https://{domain}/w/api.php").expect("a template");
        assert_eq!(
            template.url(&domain("en.wikipedia.org")).expect("a URL").as_str(),
            "https://en.wikipedia.org/w/api.php"
        );
        for local in ["localhost", "169.254.169.254", "127.1"] {
            assert_eq!(template.url(&domain(local)).expect_err("refused").kind, Kind::InvalidInput);
        }
        for bad in ["", "localhost/w/api.php", "ftp://a/b", "http://a/api.php?x={domain}"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let now: Timestamp = "2026-03-17T02:00:00Z".parse().expect("a time");
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, reqwest::header::HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Tue, 17 Mar 2026 02:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(read("Tue, 17 Mar 2026 01:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }

    #[test]
    fn statuses_are_classified() {
        let kind = |status| {
            status_fault(&"a.b".parse().expect("a name"), StatusCode::from_u16(status).expect("a status")).kind
        };
        assert_eq!([429, 503].map(kind), [Kind::TooManyRequests, Kind::Unavailable]);
        assert_eq!([500, 501, 502, 504, 520, 999].map(kind), [Kind::ServerError; 6]);
        assert_eq!([408, 425].map(kind), [Kind::TryAgain; 2]);
        assert_eq!([413, 414, 431].map(kind), [Kind::RequestTooLarge; 3]);
        assert_eq!([101, 301, 302, 304, 307, 400, 401, 403, 404, 418].map(kind), [Kind::UnexpectedStatus; 10]);
    }
}
