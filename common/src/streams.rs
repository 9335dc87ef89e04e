//! Streams by EventStreamConfig: topics, schema and key of every stream of the job.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use thiserror::Error;

use crate::{
    config::{Config, Sink, StreamName},
    http::{self, HttpError, Routes},
};

/// What the job reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedStreams {
    /// Topics to read: the configured ones, else the stream's.
    pub source_topics: Vec<String>,
    /// `/title/version` of the source.
    pub source_schema_uri: String,
    /// Enriched events.
    pub sink: OutputStream,
    /// Error events.
    pub error_sink: OutputStream,
}

/// How the stream configuration differs from what the job runs with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Topics that the source has beside those that are read.
    pub new_topics: Vec<String>,
    /// What a running job cannot follow, in words: streams that are written are another now, topics of the source are not
    /// named any more.
    pub others: Vec<String>,
}

impl ResolvedStreams {
    /// What is new in `found` for a job that runs with `self`.
    #[must_use]
    pub fn changes(&self, found: &Self) -> Changes {
        let beside = |some: &[String], others: &[String]| {
            some.iter().filter(|topic| !others.contains(topic)).cloned().collect::<Vec<_>>()
        };
        let mut others: Vec<String> = beside(&self.source_topics, &found.source_topics)
            .into_iter()
            .map(|topic| format!("source topic `{topic}` is not named any more, and still read"))
            .collect();
        for (ours, theirs) in [(&self.sink, &found.sink), (&self.error_sink, &found.error_sink)] {
            if ours != theirs {
                others.push(format!("stream `{}` is {theirs} now, and still written as {ours}", ours.stream));
            }
        }
        Changes { new_topics: beside(&found.source_topics, &self.source_topics), others }
    }
}

/// A stream that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputStream {
    /// Its name, the events' `meta.stream`.
    pub stream: String,
    /// The one topic that is written.
    pub topic: String,
    /// `/mediawiki/page/change/1.2.0`, the events' `$schema`.
    pub schema_uri: String,
    /// In the stream configuration's order; empty: records have no key.
    pub message_key_fields: Vec<KeyField>,
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.message_key_fields.iter().map(|field| field.path.as_str()).collect();
        write!(f, "topic `{}`, schema {}, keyed by [{}]", self.topic, self.schema_uri, keys.join(", "))
    }
}

/// One field of a message key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyField {
    /// Name in the key.
    pub name: String,
    /// Where its value is in the event, dotted.
    pub path: String,
}

/// Why streams cannot be resolved.
#[derive(Debug, Error)]
pub enum StreamsError {
    /// The stream configuration cannot be fetched.
    #[error("stream configuration: {0}; it is `stream_manager.stream_config_uri`, routed by `http_client_routes`")]
    Http(#[from] HttpError),
    /// The file cannot be read.
    #[error("stream configuration {path}: {cause}; check `stream_manager.stream_config_uri`")]
    File {
        /// Its path.
        path: String,
        /// The system's words.
        cause: String,
    },
    /// The answer is not one of EventStreamConfig's.
    #[error("stream configuration {uri}: {why}; expected an object `streams` as `action=streamconfigs` answers")]
    Answer {
        /// Where it came from.
        uri: String,
        /// What is wrong.
        why: String,
    },
    /// A configured stream is not in the answer.
    #[error("stream `{stream}` is not in the stream configuration {uri}, which has: {known}; check its name")]
    UnknownStream {
        /// The stream.
        stream: String,
        /// Where the answer came from.
        uri: String,
        /// What the answer has.
        known: String,
    },
    /// A stream has no topic.
    #[error("stream `{stream}` has no topics in the stream configuration; name them in `{key}`")]
    NoTopics {
        /// The stream.
        stream: String,
        /// The key that helps.
        key: &'static str,
    },
}

/// Resolves the job's streams, from a `file://` or by asking EventStreamConfig with a few retries.
///
/// # Errors
/// An address that does not answer, an answer that is none, a stream or a topic that is missing: with what to do.
pub async fn resolve(config: &Config) -> Result<ResolvedStreams, StreamsError> {
    let manager = &config.stream_manager;
    let uri = &manager.stream_config_uri;
    let body = match uri.strip_prefix("file://") {
        Some(path) => tokio::fs::read(path)
            .await
            .map_err(|error| StreamsError::File { path: path.to_owned(), cause: error.to_string() })?,
        None => {
            let client = http::client(config.enrich.ssl_ca_bundle_path.as_deref(), &config.enrich.user_agent)?;
            http::get(&client, &Routes::new(&manager.http_client_routes), &question(config)).await?
        }
    };
    resolve_from(config, &body)
}

/// Resolves the job's streams from an answer of EventStreamConfig.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_from(config: &Config, answer: &[u8]) -> Result<ResolvedStreams, StreamsError> {
    let manager = &config.stream_manager;
    let uri = &manager.stream_config_uri;
    let streams = parse(answer).map_err(|why| StreamsError::Answer { uri: uri.clone(), why })?;
    let find = |stream: &StreamName| {
        streams.get(&stream.name).ok_or_else(|| StreamsError::UnknownStream {
            stream: stream.name.clone(),
            uri: uri.clone(),
            known: streams.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    };
    let source = find(&manager.source.stream)?;
    let source_topics = match &manager.source.options.topics {
        Some(topics) if !topics.is_empty() => topics.clone(),
        _ => source.topics.clone(),
    };
    if source_topics.is_empty() {
        let stream = manager.source.stream.name.clone();
        return Err(StreamsError::NoTopics { stream, key: "stream_manager.source.options.topics" });
    }
    let output = |sink: &Sink, key| output_stream(sink, find(&sink.stream)?, key);
    Ok(ResolvedStreams {
        source_topics,
        source_schema_uri: schema_uri(&source.schema_title, &manager.source.stream.version),
        sink: output(&manager.sink, "stream_manager.sink.options.kafka_topic_prefix")?,
        error_sink: output(&manager.error_sink, "stream_manager.error_sink.options.kafka_topic_prefix")?,
    })
}

fn output_stream(sink: &Sink, entry: &Entry, key: &'static str) -> Result<OutputStream, StreamsError> {
    let stream = &sink.stream.name;
    let topic = match &sink.options.kafka_topic_prefix {
        Some(prefix) => format!("{prefix}{stream}"),
        None => entry.topics.first().ok_or_else(|| StreamsError::NoTopics { stream: stream.clone(), key })?.clone(),
    };
    Ok(OutputStream {
        stream: stream.clone(),
        topic,
        schema_uri: schema_uri(&entry.schema_title, &sink.stream.version),
        message_key_fields: entry.message_key_fields.0.clone(),
    })
}

fn schema_uri(title: &str, version: &str) -> String {
    format!("/{}/{version}", title.trim_matches('/'))
}

/// The request of production's clients: all settings of just these streams.
fn question(config: &Config) -> String {
    let manager = &config.stream_manager;
    let names = [&manager.source.stream.name, &manager.sink.stream.name, &manager.error_sink.stream.name];
    let streams = names.map(String::as_str).join("|").replace('|', "%7C");
    let uri = &manager.stream_config_uri;
    let separator = if uri.contains('?') { '&' } else { '?' };
    format!("{uri}{separator}action=streamconfigs&format=json&all_settings=true&streams={streams}")
}

#[derive(Deserialize)]
struct Answer {
    streams: Option<BTreeMap<String, Entry>>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    info: String,
}

#[derive(Deserialize)]
struct Entry {
    schema_title: String,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default)]
    message_key_fields: KeyFields,
}

fn parse(answer: &[u8]) -> Result<BTreeMap<String, Entry>, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| format!("not its answer: {error}"))?;
    match answer {
        Answer { streams: Some(streams), .. } => Ok(streams),
        Answer { error: Some(error), .. } => Err(format!("the API answers error `{}`: {}", error.code, error.info)),
        Answer { .. } => Err("`streams` is missing".to_owned()),
    }
}

/// Key fields in the order of the document: the key's bytes, and so its partition, depend on it.
#[derive(Default)]
struct KeyFields(Vec<KeyField>);

impl<'de> Deserialize<'de> for KeyFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = KeyFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of key field -> path")
            }

            fn visit_unit<E>(self) -> Result<KeyFields, E> {
                Ok(KeyFields::default())
            }

            // MediaWiki writes an empty map as an empty list.
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<KeyFields, A::Error> {
                match list.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(KeyFields::default()),
                    Some(_) => Err(serde::de::Error::custom("`message_key_fields` is a list")),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KeyFields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, path)) = map.next_entry()? {
                    fields.push(KeyField { name, path });
                }
                Ok(KeyFields(fields))
            }
        }
        deserializer.deserialize_any(InOrder)
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
