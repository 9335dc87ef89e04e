//! A wiki farm that plays `tests/fixtures/api`, and answers anything else from a rule.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response, Uri},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep};

use crate::support::fixture;

/// Host, path and parameters of one request.
pub(crate) type Asked = (String, String, BTreeMap<String, String>);

/// Answers what no fixture does: status, headers, body.
pub(crate) type Rule = fn(&Asked) -> (u16, Vec<(&'static str, String)>, String);

/// A running stub.
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    rule: Option<Rule>,
    delay: Duration,
    asked: Mutex<Vec<Asked>>,
    unmatched: Mutex<Vec<Asked>>,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
}

struct Call {
    request: Asked,
    responses: Vec<Value>,
    played: usize,
}

impl Stub {
    /// Plays the fixtures; other requests follow the rule, or are answered with 418 and remembered.
    pub(crate) async fn start(files: &[&str], rule: Option<Rule>, delay: Duration) -> Self {
        let calls = files.iter().flat_map(|file| calls_of(file)).collect();
        let shared = Arc::new(Shared { calls: Mutex::new(calls), rule, delay, ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/w/api.php", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn unmatched(&self) -> Vec<Asked> {
        self.shared.unmatched.lock().expect("no panic").clone()
    }

    pub(crate) fn in_flight_max(&self) -> usize {
        self.shared.in_flight_max.load(Ordering::SeqCst)
    }

    /// From now on [`Self::in_flight_max`] is about what comes.
    pub(crate) fn forget_in_flight(&self) {
        self.shared.in_flight_max.store(0, Ordering::SeqCst);
    }
}

fn calls_of(file: &str) -> Vec<Call> {
    let document: Value = serde_json::from_str(&fixture(file)).expect("JSON");
    let calls = document["calls"].as_array().expect("calls").clone();
    calls.into_iter().map(call).collect()
}

fn call(call: Value) -> Call {
    let request = &call["request"];
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let params = request["params"].as_object().expect("params");
    let params = params.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    Call {
        request: (text(&request["host"]), text(&request["path"]), params),
        responses: call["responses"].as_array().expect("responses").clone(),
        played: 0,
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    shared.in_flight_max.fetch_max(now, Ordering::SeqCst);
    let host = headers["host"].to_str().expect("text").to_owned();
    assert!(headers["user-agent"].to_str().expect("text").starts_with("weir-test"));
    assert!(headers["accept-encoding"].to_str().expect("text").contains("gzip"));
    let url: reqwest::Url = format!("http://stub{uri}").parse().expect("a URL");
    let params = url.query_pairs().into_owned().collect();
    let asked = (host, uri.path().to_owned(), params);
    shared.asked.lock().expect("no panic").push(asked.clone());
    sleep(shared.delay).await;
    let response = play(&shared, &asked);
    shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    response
}

fn play(shared: &Shared, asked: &Asked) -> Response<Body> {
    let mut calls = shared.calls.lock().expect("no panic");
    if let Some(call) = calls.iter_mut().find(|call| call.request == *asked) {
        let response = &call.responses[call.played.min(call.responses.len() - 1)];
        call.played += 1;
        return recorded(response);
    }
    let (status, headers, body) = match shared.rule {
        Some(rule) => rule(asked),
        None => {
            shared.unmatched.lock().expect("no panic").push(asked.clone());
            (418, Vec::new(), "no fixture answers this".to_owned())
        }
    };
    let response = headers
        .into_iter()
        .fold(Response::builder().status(status), |response, (name, value)| response.header(name, value));
    response.body(body.into()).expect("a response")
}

fn recorded(response: &Value) -> Response<Body> {
    let mut builder = Response::builder().status(response["status"].as_u64().expect("status") as u16);
    for (name, value) in response["headers"].as_object().expect("headers") {
        builder = builder.header(name, value.as_str().expect("text"));
    }
    let body = match &response["text"] {
        Value::String(text) => text.clone(),
        _ => repeat(response["body"].clone()).to_string(),
    };
    builder.body(body.into()).expect("a response")
}

/// Puts the text in place of `{"$repeat": [text, count]}`.
pub(crate) fn repeat(value: Value) -> Value {
    match value {
        Value::Object(fields) => match fields.get("$repeat") {
            Some(repeat) => {
                let count = repeat[1].as_u64().expect("a count") as usize;
                repeat[0].as_str().expect("a text").repeat(count).into()
            }
            None => Value::Object(fields.into_iter().map(|(name, value)| (name, self::repeat(value))).collect()),
        },
        Value::Array(items) => items.into_iter().map(self::repeat).collect(),
        other => other,
    }
}

/// A rule: every revision exists, its content is `text of <id>`; every redirect leads to a special page.
pub(crate) fn every_revision((_, _, params): &Asked) -> (u16, Vec<(&'static str, String)>, String) {
    let query = if let Some(ids) = params.get("revids") {
        let revision = |id: &str| {
            let id: i64 = id.parse().expect("a number");
            let slot =
                json!({"contentmodel": "wikitext", "contentformat": "text/x-wiki", "content": format!("text of {id}")});
            json!({"pageid": 1, "ns": 0, "title": "A", "revisions": [{"revid": id, "slots": {"main": slot}}]})
        };
        json!({"pages": ids.split('|').map(revision).collect::<Vec<_>>()})
    } else {
        let target = "Special:Log/Example";
        json!({"redirects": [{"from": "Whatever", "to": target}], "pages": [{"ns": -1, "title": target, "special": true}]})
    };
    (
        200,
        vec![("content-type", "application/json".to_owned())],
        json!({"batchcomplete": true, "query": query}).to_string(),
    )
}
