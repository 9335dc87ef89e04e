//! [`Storage`] on the `object_store` crate: S3 with path-style addressing and custom endpoint, or a folder.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult, RetryConfig,
    UpdateVersion,
    aws::{AmazonS3Builder, S3ConditionalPut},
    local::LocalFileSystem,
    path::Path,
};
use weir_common::config;

use super::{Listed, Put, Storage, StoreError, Version};

/// Retries of one call; with `storage.s3.request_timeout` they bound its time.
const MAX_RETRIES: usize = 2;

/// Where the credentials may come from, besides the configuration.
const CREDENTIAL_VARIABLES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// A store below a prefix.
#[derive(Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket` or `file://`.
    base: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
    address: String,
}

impl Objects {
    /// Opens `storage.uri`; nothing is asked of it yet, but that a folder is there.
    ///
    /// # Errors
    /// [`StoreError::Configuration`] with key and remedy.
    pub fn open(storage: &config::Storage) -> Result<Self, StoreError> {
        let uri = storage.uri.as_str();
        if let Some(rest) = uri.strip_prefix("s3://") {
            return open_s3(rest, &storage.s3);
        }
        match uri.strip_prefix("file://") {
            Some(folder) if folder.starts_with('/') => open_folder(folder),
            _ => Err(StoreError::Configuration(format!(
                "storage.uri `{uri}` is neither `s3://bucket/prefix` nor `file:///folder`"
            ))),
        }
    }

    /// A store that is forgotten with the process, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        let store = Arc::new(object_store::memory::InMemory::new());
        Self { store, base: "memory://".to_owned(), prefix: "weir".to_owned(), address: "memory".to_owned() }
    }

    fn path(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }

    fn error(&self, doing: &str, key: &str, error: &Error) -> StoreError {
        let (address, location) = (&self.address, self.location(key));
        let cause = brief(&error.to_string());
        let what = format!("storage at {address}: {doing} {location}: {cause}");
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreError::Denied(what),
            Error::NotFound { .. } => StoreError::NotFound(what),
            Error::AlreadyExists { .. } => StoreError::Exists(what),
            Error::Precondition { .. } | Error::NotModified { .. } => StoreError::Changed(what),
            // The crate hides the status of a list that failed; its text has it.
            _ if cause.contains("NoSuchBucket") => StoreError::NotFound(what),
            _ if ["403 Forbidden", "401 Unauthorized"].iter().any(|status| cause.contains(status)) => {
                StoreError::Denied(what)
            }
            _ => StoreError::Unreachable(what),
        }
    }
}

impl From<PutResult> for Version {
    fn from(PutResult { e_tag, version, .. }: PutResult) -> Self {
        Self { e_tag, version }
    }
}

/// The crate's text on one line, with no more than the code of the XML that it ends with.
fn brief(text: &str) -> String {
    const MAX_CHARS: usize = 500;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let (words, xml) = line.split_once("<?xml").unwrap_or((&line, ""));
    let code = xml.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    format!("{words}{code}").trim_end_matches([':', ' ']).chars().take(MAX_CHARS).collect()
}

fn open_folder(folder: &str) -> Result<Objects, StoreError> {
    let failed = |error: &dyn std::fmt::Display| {
        StoreError::Configuration(format!(
            "storage.uri `file://{folder}`: {error}; make the folder writable for this user or choose another one"
        ))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| failed(&error))?.with_fsync(true);
    let base = format!("file://{}", folder.trim_end_matches('/'));
    Ok(Objects { store: Arc::new(store), address: base.clone(), base, prefix: String::new() })
}

fn open_s3(bucket_and_prefix: &str, s3: &config::S3) -> Result<Objects, StoreError> {
    let (bucket, prefix) = bucket_and_prefix.split_once('/').unwrap_or((bucket_and_prefix, ""));
    let set = |name: &&str| std::env::var_os(name).is_some();
    if s3.access_key_id.is_none() && !CREDENTIAL_VARIABLES.iter().any(set) {
        return Err(StoreError::Configuration(format!(
            "storage.uri `s3://{bucket_and_prefix}` needs credentials: set storage.s3.access_key_id and \
             storage.s3.secret_access_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )));
    }
    // Installs the process's TLS, which the client of `object_store` takes as it finds it.
    let _ = weir_common::http::builder(None, "weir");
    let endpoint = s3.endpoint.as_deref().unwrap_or_default();
    let client = ClientOptions::new()
        .with_timeout(s3.request_timeout)
        .with_connect_timeout(s3.request_timeout.min(Duration::from_secs(5)))
        .with_allow_http(endpoint.starts_with("http://"));
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(200), max_backoff: Duration::from_secs(2), base: 2. };
    let retry = RetryConfig { backoff, max_retries: MAX_RETRIES, retry_timeout: s3.request_timeout * 2 };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_region(&s3.region)
        .with_virtual_hosted_style_request(!s3.path_style_access)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client)
        .with_retry(retry);
    if !endpoint.is_empty() {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(id) = &s3.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(secret) = &s3.secret_access_key {
        builder = builder.with_secret_access_key(secret.reveal());
    }
    let store = builder
        .build()
        .map_err(|error| StoreError::Configuration(format!("storage: {}", brief(&error.to_string()))))?;
    let address = match endpoint {
        "" => format!("s3://{bucket_and_prefix} ({})", s3.region),
        _ => format!("s3://{bucket_and_prefix} at {endpoint}"),
    };
    let prefix = prefix.trim_matches('/').to_owned();
    Ok(Objects { store: Arc::new(store), base: format!("s3://{bucket}"), prefix, address })
}

#[async_trait]
impl Storage for Objects {
    fn address(&self) -> &str {
        &self.address
    }

    fn location(&self, key: &str) -> String {
        format!("{}/{}", self.base, self.path(key))
    }

    fn key_of(&self, location: &str) -> Option<String> {
        let below_base = location.strip_prefix(&self.base)?.trim_start_matches('/');
        let key = below_base.strip_prefix(&self.prefix)?.trim_start_matches('/');
        (!key.is_empty()).then(|| key.to_owned())
    }

    async fn get(&self, key: &str) -> Result<(Bytes, Version), StoreError> {
        let failed = |error| self.error("reading", key, &error);
        let result = self.store.get(&self.path(key)).await.map_err(failed)?;
        let version = Version { e_tag: result.meta.e_tag.clone(), version: result.meta.version.clone() };
        Ok((result.bytes().await.map_err(failed)?, version))
    }

    async fn put(&self, key: &str, content: Bytes, put: Put) -> Result<Version, StoreError> {
        let path = self.path(key);
        let write = |mode| self.store.put_opts(&path, content.clone().into(), PutOptions::from(mode));
        let conditional = match put {
            Put::New => write(PutMode::Create).await,
            Put::Over(Version { e_tag, version }) => {
                let over = |e_tag| PutMode::Update(UpdateVersion { e_tag, version: version.clone() });
                match write(over(e_tag.clone())).await {
                    // Ceph's gateway compares an upload's If-Match with the ETag without its quotes.
                    Err(Error::Precondition { .. }) => {
                        write(over(e_tag.map(|e_tag| e_tag.trim_matches('"').to_owned()))).await
                    }
                    result => result,
                }
            }
        };
        match conditional {
            Ok(result) => Ok(result.into()),
            // A folder cannot; what the pointer guards is guarded by epochs in the keys as well.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => {
                let plain = self.store.put(&path, content.into()).await;
                plain.map(Version::from).map_err(|error| self.error("writing", key, &error))
            }
            Err(error) => Err(self.error("writing", key, &error)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let whole = self.path("").as_ref().trim_end_matches('/').to_owned();
        let listed = self.store.list(Some(&self.path(folder))).map_ok(|meta| Listed {
            key: meta
                .location
                .as_ref()
                .strip_prefix(whole.as_str())
                .unwrap_or_default()
                .trim_start_matches('/')
                .to_owned(),
            size_bytes: meta.size,
            modified: Timestamp::from_second(meta.last_modified.timestamp()).unwrap_or_default(),
        });
        listed.try_collect().await.map_err(|error| self.error("listing", folder, &error))
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error("deleting", key, &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_s_xml_is_told_by_its_code_alone() {
        let text =
            "status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\n</Error>";
        assert_eq!(brief(text), "status code: 403 Forbidden: SignatureDoesNotMatch");
        assert_eq!(brief("no\n answer"), "no answer");
    }
}
