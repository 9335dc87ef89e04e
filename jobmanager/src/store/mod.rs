//! Snapshots in S3-compatible storage or a folder.
//!
//! [`Storage`] is the little that is needed of a store, [`object`] has it from `object_store`; [`Snapshots`] knows the
//! job's rules: keys, the `latest` pointer, retention. What a snapshot says is [`snapshot`].

pub mod keys;
pub mod object;
pub mod snapshot;
mod snapshots;
pub mod survey;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use self::snapshots::{Info, Kind, Snapshots};

/// What a store did not do, by what the caller can do about it. The texts name the object and the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store answers, and does not let us.
    #[error("{0}")]
    Denied(String),
    /// Nothing there.
    #[error("{0}")]
    NotFound(String),
    /// There is an object already, and it is another one.
    #[error("{0}")]
    Exists(String),
    /// It was changed by somebody else since it was read.
    #[error("{0}")]
    Changed(String),
    /// A leader with a higher epoch writes here.
    #[error("{0}")]
    Superseded(String),
    /// The object is not what it should be.
    #[error("{0}")]
    Damaged(String),
    /// The object is whole, and a newer Weir wrote it.
    #[error("{0}")]
    NewerFormat(String),
    /// No answer, or one that may be different next time.
    #[error("{0}")]
    Unreachable(String),
    /// The configuration makes no sense.
    #[error("{0}")]
    Configuration(String),
}

/// Names one state of an object, for conditional writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// HTTP's ETag.
    pub e_tag: Option<String>,
    /// The store's own, where it has one.
    pub version: Option<String>,
}

/// Under which condition an object is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// Only where none is.
    New,
    /// Only over this state of it. A store without conditional writes writes in any case.
    Over(Version),
}

/// An object without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Below the store's prefix.
    pub key: String,
    /// How large.
    pub size_bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// What is needed of a store. All calls end within a bounded time, retries included. Dropping a future may leave the
/// object written.
#[async_trait]
pub trait Storage: std::fmt::Debug + Send + Sync {
    /// For messages: `s3://bucket/prefix at http://…`.
    fn address(&self) -> &str;

    /// For people and for coming back: `s3://bucket/prefix/<key>`.
    fn location(&self, key: &str) -> String;

    /// The key of a [`Storage::location`].
    fn key_of(&self, location: &str) -> Option<String>;

    /// The object, with the name of its state.
    async fn get(&self, key: &str) -> Result<(Bytes, Version), StoreError>;

    /// Writes an object whole, or not at all; returns the name of its new state.
    async fn put(&self, key: &str, content: Bytes, put: Put) -> Result<Version, StoreError>;

    /// Everything below a folder.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; one that is not there is removed already.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;
}
