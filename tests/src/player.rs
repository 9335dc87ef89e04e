//! Plays the API answers of `tests/fixtures/api`. Where several revisions are asked for together their answers are put
//! together, as MediaWiki does.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::HOST},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::checker::truth::fixtures::unfold;

/// What is asked for: host, parameter (`revids` or `pageids`), id.
type Asked = (String, &'static str, String);

struct Script {
    responses: Vec<Value>,
    played: usize,
}

/// A player that is serving until it is dropped.
pub struct Player {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Player {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Player {
    /// Serves the answers of a folder and, for each `(host, rev_id, text)` of `more`, a page with that text.
    ///
    /// # Errors
    /// A file that cannot be read; no port.
    pub async fn start(folder: &Path, more: &[(&str, i64, i64, &str)]) -> anyhow::Result<Self> {
        let mut scripts = HashMap::new();
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".json") && !name.starts_with('9') {
                read(&serde_json::from_str(&std::fs::read_to_string(&path)?)?, &mut scripts);
            }
        }
        for (host, page_id, rev_id, text) in more {
            let slot = json!({"size": text.len(), "contentmodel": "wikitext", "contentformat": "text/x-wiki", "content": text});
            let revision = json!({"revid": rev_id, "slots": {"main": slot}});
            let page = json!({"pageid": page_id, "ns": 0, "title": "Added", "revisions": [revision]});
            let response = json!({"status": 200, "body": {"query": {"pages": [page]}}});
            let asked = ((*host).to_owned(), "revids", rev_id.to_string());
            scripts.insert(asked, Script { responses: vec![response], played: 0 });
        }
        let router = Router::new().fallback(answer).with_state(Arc::new(Mutex::new(scripts)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            if let Err(why) = axum::serve(listener, router).await {
                eprintln!("the player ended: {why}");
            }
        });
        Ok(Self { address, task })
    }

    /// URL of its `api.php`.
    #[must_use]
    pub fn api(&self) -> String {
        format!("http://{}/w/api.php", self.address)
    }
}

fn read(file: &Value, scripts: &mut HashMap<Asked, Script>) {
    for call in file["calls"].as_array().into_iter().flatten() {
        let host = call["request"]["host"].as_str().unwrap_or_default().to_owned();
        let responses = call["responses"].as_array().cloned().unwrap_or_default();
        for parameter in ["revids", "pageids"] {
            if let Some(id) = call["request"]["params"][parameter].as_str() {
                let asked = (host.clone(), parameter, id.to_owned());
                scripts.insert(asked, Script { responses: responses.clone(), played: 0 });
            }
        }
    }
}

async fn answer(
    State(scripts): State<Arc<Mutex<HashMap<Asked, Script>>>>,
    headers: HeaderMap,
    Query(params): Query<BTreeMap<String, String>>,
) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Some(parameter) = ["revids", "pageids"].into_iter().find(|name| params.contains_key(*name)) else {
        return (StatusCode::BAD_REQUEST, "neither revids nor pageids").into_response();
    };
    let mut scripts = scripts.lock().unwrap_or_else(PoisonError::into_inner);
    let mut query = Map::new();
    for id in params[parameter].split('|') {
        let Some(script) = scripts.get_mut(&(host.to_owned(), parameter, id.to_owned())) else {
            if parameter == "revids" {
                let bad = query.entry("badrevids").or_insert_with(|| json!({}));
                bad[id] = json!({"revid": id.parse::<i64>().unwrap_or_default(), "missing": true});
            }
            continue;
        };
        let response = script.responses[script.played.min(script.responses.len() - 1)].clone();
        script.played += 1;
        if response["status"] == 200 && response["body"]["query"].is_object() {
            merge(&mut query, &response["body"]["query"]);
        } else {
            // What goes wrong goes wrong for the whole request.
            return plain(&response);
        }
    }
    json_response(StatusCode::OK, &json!({"batchcomplete": true, "query": query}))
}

fn merge(query: &mut Map<String, Value>, more: &Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        let mut value = value.clone();
        unfold_all(&mut value);
        match (query.get_mut(name), value) {
            (Some(Value::Array(have)), Value::Array(more)) => have.extend(more),
            (Some(Value::Object(have)), Value::Object(more)) => have.extend(more),
            (_, value) => drop(query.insert(name.clone(), value)),
        }
    }
}

fn unfold_all(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(unfold_all),
        Value::Object(fields) if fields.contains_key("$repeat") => *value = unfold(value).unwrap_or_default().into(),
        Value::Object(fields) => fields.values_mut().for_each(unfold_all),
        _ => {}
    }
}

fn plain(response: &Value) -> Response {
    let status = response["status"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = match response["text"].as_str() {
        Some(text) => (status, text.to_owned()).into_response(),
        None => json_response(status, &response["body"]),
    };
    for (name, value) in response["headers"].as_object().into_iter().flatten() {
        let name = axum::http::HeaderName::try_from(name.as_str());
        let value = axum::http::HeaderValue::try_from(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/json; charset=utf-8")], body.to_string()).into_response()
}
