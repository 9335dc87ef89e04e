//! Schema repositories: `file://` or `http(s)://`, asked in order; YAML or JSON; `$ref`s resolved.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::Client;
use serde_json::Value;
use thiserror::Error;

use crate::{
    config::Config,
    http::{self, HttpError, Routes},
    yaml,
};

/// `$ref`s within `$ref`s; event schemas have two or three.
const MAX_REF_DEPTH: usize = 16;

/// Why a schema cannot be had.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// No repository has it.
    #[error("schema `{uri}` is in none of `stream_manager.schema_uris`; looked at: {tried}")]
    NotFound {
        /// `/title/version`
        uri: String,
        /// All addresses, comma separated.
        tried: String,
    },
    /// A repository does not answer.
    #[error("schema repository: {0}; it is one of `stream_manager.schema_uris`")]
    Http(#[from] HttpError),
    /// A file is there but cannot be read.
    #[error("schema {path}: {cause}")]
    File {
        /// Its path.
        path: String,
        /// The system's words.
        cause: String,
    },
    /// A document is no schema.
    #[error("schema {at}: {why}")]
    Document {
        /// Where it was found.
        at: String,
        /// What is wrong.
        why: String,
    },
}

/// The repositories of a job. What was fetched once is kept.
pub struct Repository {
    roots: Vec<String>,
    routes: Routes,
    client: Client,
    documents: Mutex<HashMap<String, Arc<Value>>>,
}

impl Repository {
    /// The repositories of `stream_manager.schema_uris`; touches nothing yet.
    ///
    /// # Errors
    /// A CA bundle that cannot be used.
    pub fn new(config: &Config) -> Result<Self, SchemaError> {
        Ok(Self {
            roots: config.stream_manager.schema_uris.iter().map(|uri| uri.trim_end_matches('/').to_owned()).collect(),
            routes: Routes::new(&config.stream_manager.http_client_routes),
            client: http::client(config.enrich.ssl_ca_bundle_path.as_deref(), &config.enrich.user_agent)?,
            documents: Mutex::default(),
        })
    }

    /// The schema `title/version` (a leading `/` is fine), every `$ref` to another document replaced by what it names.
    ///
    /// # Errors
    /// [`SchemaError`]; a repository that does not answer counts only when none before it has the schema.
    pub async fn fetch(&self, title_and_version: &str) -> Result<Value, SchemaError> {
        let uri = format!("/{}", title_and_version.trim_matches('/'));
        let document = self.document(&uri).await?;
        let mut schema = (*document).clone();
        self.inline(&mut schema, &uri, None, 0).await?;
        Ok(schema)
    }

    /// Replaces `$ref`s below `node`, a part of the document `uri`. `within` is that document where the part stands
    /// in another one, so that its local `$ref`s must be replaced, too.
    async fn inline(
        &self,
        node: &mut Value,
        uri: &str,
        within: Option<&Arc<Value>>,
        depth: usize,
    ) -> Result<(), SchemaError> {
        if depth > MAX_REF_DEPTH {
            return Err(SchemaError::Document {
                at: uri.to_owned(),
                why: "`$ref`s nest too deeply or in a ring".into(),
            });
        }
        for pointer in refs(node) {
            let Some(slot) = node.pointer_mut(&pointer) else { continue };
            let Some(reference) = slot.get("$ref").and_then(Value::as_str).map(str::to_owned) else { continue };
            let (target, fragment) = reference.split_once('#').unwrap_or((&reference, ""));
            let (target_uri, document) = match (target, within) {
                ("", None) => continue,
                ("", Some(document)) => (uri.to_owned(), Arc::clone(document)),
                _ => {
                    let absolute = self.absolute(target, uri);
                    let document = self.document(&absolute).await?;
                    (absolute, document)
                }
            };
            let mut part = document.pointer(fragment).cloned().ok_or_else(|| SchemaError::Document {
                at: uri.to_owned(),
                why: format!("`$ref: {reference}` names nothing"),
            })?;
            Box::pin(self.inline(&mut part, &target_uri, Some(&document), depth + 1)).await?;
            // Ids and dialects of parts would move the base of what is around them.
            if let Value::Object(object) = &mut part {
                object.remove("$id");
                object.remove("$schema");
            }
            *slot = part;
        }
        Ok(())
    }

    /// A `$ref`'s document as `/path/in/repository`.
    fn absolute(&self, target: &str, from: &str) -> String {
        let in_root = self.roots.iter().find_map(|root| target.strip_prefix(root.as_str()));
        if let Some(path) = in_root {
            return path.to_owned();
        }
        if target.starts_with('/') {
            return target.to_owned();
        }
        let mut segments: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
        segments.pop();
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(segments.pop()),
                part => segments.push(part),
            }
        }
        format!("/{}", segments.join("/"))
    }

    async fn document(&self, uri: &str) -> Result<Arc<Value>, SchemaError> {
        if let Some(known) = self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(uri) {
            return Ok(Arc::clone(known));
        }
        let document = Arc::new(self.find(uri).await?);
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).insert(uri.to_owned(), Arc::clone(&document));
        Ok(document)
    }

    async fn find(&self, uri: &str) -> Result<Value, SchemaError> {
        let mut tried = Vec::new();
        let mut unreachable = None;
        for root in &self.roots {
            for extension in ["", ".yaml", ".json"] {
                let at = format!("{root}{uri}{extension}");
                match self.read(&at).await {
                    Ok(Some(bytes)) => return parse(&at, &bytes),
                    Ok(None) => {}
                    // Its other names would only wait for the same silence.
                    Err(error @ SchemaError::Http(HttpError::Unreachable { .. })) => {
                        unreachable = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
                tried.push(at);
            }
        }
        Err(unreachable.unwrap_or_else(|| SchemaError::NotFound { uri: uri.to_owned(), tried: tried.join(", ") }))
    }

    /// `None`: not there.
    async fn read(&self, at: &str) -> Result<Option<Vec<u8>>, SchemaError> {
        let Some(path) = at.strip_prefix("file://").map(PathBuf::from) else {
            return match http::get(&self.client, &self.routes, at).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(HttpError::Status { status: 403 | 404 | 410, .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        };
        // A folder has the name without extension where versions are folders.
        match tokio::fs::metadata(&path).await {
            Ok(metadata) if metadata.is_file() => {}
            _ => return Ok(None),
        }
        let cause =
            |error: std::io::Error| SchemaError::File { path: path.display().to_string(), cause: error.to_string() };
        tokio::fs::read(&path).await.map(Some).map_err(cause)
    }
}

fn parse(at: &str, bytes: &[u8]) -> Result<Value, SchemaError> {
    let bad = |why: String| SchemaError::Document { at: at.to_owned(), why };
    let text = std::str::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    let value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => yaml::to_json(text).map_err(|error| bad(format!("line {}: {}", error.line, error.what)))?,
    };
    if value.is_object() { Ok(value) } else { Err(bad("not an object".to_owned())) }
}

/// JSON pointers of all objects with a `$ref`, outermost first and none inside another one.
fn refs(node: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![(String::new(), node)];
    while let Some((pointer, node)) = waiting.pop() {
        match node {
            Value::Object(object) if object.get("$ref").is_some_and(Value::is_string) => found.push(pointer),
            Value::Object(object) => waiting.extend(
                object
                    .iter()
                    .map(|(key, child)| (format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")), child)),
            ),
            Value::Array(items) => {
                waiting.extend(items.iter().enumerate().map(|(i, child)| (format!("{pointer}/{i}"), child)));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
