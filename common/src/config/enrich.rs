//! Section `enrich`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{duration, size::ByteSize};

/// Production's section of the same name, with what Weir adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Enrich {
    /// Which job's rules hold. Default: by the source's stream, see [`Config::enrich_job`].
    pub job: Option<EnrichJob>,
    /// URL of `api.php`; one base for all wikis, chosen by `Host`, or a template with `{domain}`.
    pub mediawiki_api_endpoint_template: String,
    /// CA bundle for https endpoints. Default: the system's.
    pub ssl_ca_bundle_path: Option<PathBuf>,
    /// `User-Agent` of every request. Default: Weir's version and the job's name, which the loader sets. Name the operator
    /// here.
    pub user_agent: String,
    /// `maxlag` parameter of every request. Default 5 s, the API's etiquette.
    pub maxlag: u32,
    /// Time for one request, connect to last byte. Default 120 s, the service mesh's own time-out.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// Requests in flight of one taskmanager. Default 64.
    pub max_concurrent_requests: usize,
    /// Requests in flight of all taskmanagers together, divided among them by the jobmanager. Default 256.
    pub max_concurrent_requests_per_job: usize,
    /// Revisions asked for together. Default 50, the API's limit; 500 with `apihighlimits`.
    pub batch_revisions: usize,
    /// How long a lone revision waits for company. Default 5 ms.
    #[serde(with = "duration")]
    pub batch_linger: Duration,
    /// Cap of one answer's content, the sum of declared sizes in a batch. Default 8 MiB, under the API's 12 MB.
    pub batch_bytes: ByteSize,
    /// Retries of what may pass: time-outs, 429, 5xx, maxlag, database errors.
    pub retry: Retry,
    /// Retries of a revision that the API does not know (yet).
    pub not_found: NotFound,
    /// What to do with fields that the sink's schema does not know. Default `prune`.
    pub unknown_fields: UnknownFields,
    /// Validate output against the sink's schema before it is produced. Default true.
    pub validate_output: bool,
}

impl Default for Enrich {
    fn default() -> Self {
        Self {
            job: None,
            mediawiki_api_endpoint_template: "http://localhost:6500/w/api.php".to_owned(),
            ssl_ca_bundle_path: None,
            user_agent: concat!("weir/", env!("CARGO_PKG_VERSION")).to_owned(),
            maxlag: 5,
            request_timeout: Duration::from_secs(120),
            max_concurrent_requests: 64,
            max_concurrent_requests_per_job: 256,
            batch_revisions: 50,
            batch_linger: Duration::from_millis(5),
            batch_bytes: ByteSize::mib(8),
            retry: Retry::default(),
            not_found: NotFound::default(),
            unknown_fields: UnknownFields::Prune,
            validate_output: true,
        }
    }
}

/// Jobs whose rules are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnrichJob {
    /// `mw-content-history-reconcile-enrich`
    ContentHistoryReconcile,
    /// `mw-page-content-change-enrich`
    PageContentChange,
}

/// Exponential backoff with full jitter, up to a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts in all. Default 10.
    pub max_attempts: u32,
    /// Upper bound of the first wait. Default 500 ms; doubles with each attempt.
    #[serde(with = "duration")]
    pub initial_backoff: Duration,
    /// Upper bound of any wait, `Retry-After` included. Default 30 s.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// Time from the first attempt after which an event is given up. Default 10 min.
    #[serde(with = "duration")]
    pub budget: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            budget: Duration::from_secs(600),
        }
    }
}

/// `badrevids` may be replica lag: asked again a few times while the event is young.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotFound {
    /// Attempts in all. Default 4.
    pub max_attempts: u32,
    /// Wait between them. Default 1 s.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// An event older than this (by `meta.dt`, else the record's timestamp) is asked for only once more.
    /// Default 1 h.
    #[serde(with = "duration")]
    pub max_age: Duration,
}

impl Default for NotFound {
    fn default() -> Self {
        Self { max_attempts: 4, delay: Duration::from_secs(1), max_age: Duration::from_secs(3600) }
    }
}

/// Fields of the input that the sink's pinned schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFields {
    /// Leave them out, counted and named. As typed rows do today.
    #[default]
    Prune,
    /// Send the event to the error stream.
    Error,
    /// Keep them, unvalidated.
    Keep,
}
