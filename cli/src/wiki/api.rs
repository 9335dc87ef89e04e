//! The Action API's answers, as far as the job asks: `prop=revisions`, redirects by page id, stream configuration.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    content::{self, Availability, Revision, Wiki},
    streams,
};

/// The API's cap on the content of one answer, as Wikimedia sets it.
const RESULT_BYTES_MAX: usize = 12_582_912;

/// Ids of one request, without `apihighlimits`.
const IDS_MAX: usize = 50;

/// Parameters of a request.
pub type Params = BTreeMap<String, String>;

/// An answer before it is put on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status; 200 even for the API's own errors.
    pub status: StatusCode,
    /// The error code, which goes into `MediaWiki-API-Error` too.
    pub error: Option<String>,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Body,
}

/// JSON from MediaWiki, or whatever stands before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// MediaWiki's own.
    Json(String),
    /// A proxy's page.
    Html(&'static str),
}

impl Answer {
    fn ok(body: impl ToString) -> Self {
        Self { status: StatusCode::OK, error: None, retry_after: None, body: Body::Json(body.to_string()) }
    }

    /// An error of the API itself: status 200.
    #[must_use]
    pub fn api_error(code: &str, mut error: Value) -> Self {
        error["code"] = json!(code);
        let body = json!({ "error": error, "servedby": "stub-wiki" });
        Self {
            status: StatusCode::OK,
            error: Some(code.to_owned()),
            retry_after: None,
            body: Body::Json(body.to_string()),
        }
    }

    /// A page from a proxy in front.
    #[must_use]
    pub fn proxy(status: StatusCode, html: &'static str) -> Self {
        Self { status, error: None, retry_after: None, body: Body::Html(html) }
    }

    /// The same with `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// Answers one request. `seen_before` says whether a late revision was asked for before, and remembers it.
pub fn answer(wiki: &Wiki, host: &str, params: &Params, seen_before: &mut dyn FnMut(u64) -> bool) -> Answer {
    match params.get("action").map(String::as_str) {
        Some("streamconfigs") => Answer::ok(streams::configuration(params.get("streams").map_or("", String::as_str))),
        Some("query") if !content::host_exists(host) => {
            Answer::proxy(StatusCode::NOT_FOUND, "<!DOCTYPE html><title>Unknown site</title>")
        }
        Some("query") => query(wiki, host, params, seen_before),
        action => Answer::api_error(
            "badvalue",
            json!({ "info": format!("Unrecognized value for parameter \"action\": {}.", action.unwrap_or("")) }),
        ),
    }
}

fn query(wiki: &Wiki, host: &str, params: &Params, seen_before: &mut dyn FnMut(u64) -> bool) -> Answer {
    let ids =
        |name: &str| params.get(name).map(|list| list.split('|').map(str::parse).collect::<Result<Vec<u64>, _>>());
    let (name, ids) = match (ids("revids"), ids("pageids")) {
        (Some(ids), _) => ("revids", ids),
        (None, Some(ids)) => ("pageids", ids),
        (None, None) => return Answer::ok(json!({ "batchcomplete": true })),
    };
    let Ok(ids) = ids else {
        return Answer::api_error(
            "badinteger",
            json!({ "info": format!("Invalid value for integer parameter {name}.") }),
        );
    };
    if ids.len() > IDS_MAX {
        let info = format!("Too many values supplied for parameter \"{name}\". The limit is {IDS_MAX}.");
        return Answer::api_error("toomanyvalues", json!({ "info": info, "limit": IDS_MAX, "lowlimit": IDS_MAX }));
    }
    match name {
        "revids" => Answer::ok(revisions(wiki, host, &ids, params, seen_before)),
        _ => Answer::ok(pages(host, &ids, params.contains_key("redirects"))),
    }
}

fn revisions(wiki: &Wiki, host: &str, ids: &[u64], params: &Params, seen_before: &mut dyn FnMut(u64) -> bool) -> Value {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let from = params.get("rvcontinue").and_then(|id| id.parse().ok()).unwrap_or(0);
    let asked = Asked::new(params);
    let mut bad = Map::new();
    let mut pages: BTreeMap<u64, Value> = BTreeMap::new();
    let (mut bytes, mut next) = (0, None);
    for id in ids {
        let known = match content::availability_of(id) {
            _ if id == 0 => false,
            Availability::Unknown => false,
            Availability::Late => seen_before(id),
            _ => true,
        };
        if !known {
            bad.insert(id.to_string(), json!({ "revid": id, "missing": true }));
            continue;
        }
        let page_id = content::page_of(id);
        let page = pages.entry(page_id).or_insert_with(|| page(host, page_id));
        if id < from || next.is_some() {
            continue;
        }
        let revision = wiki.revision(host, id);
        bytes += revision.size();
        if asked.content && bytes > RESULT_BYTES_MAX {
            next = Some(id);
            continue;
        }
        if page.get("revisions").is_none() {
            page["revisions"] = json!([]);
        }
        page["revisions"].as_array_mut().expect("an array, made above").push(asked.revision(revision));
    }
    finish(bad, pages.into_values().collect(), next, params)
}

fn finish(bad: Map<String, Value>, pages: Vec<Value>, next: Option<u64>, params: &Params) -> Value {
    let mut answer = match next {
        None => json!({ "batchcomplete": true }),
        Some(id) => json!({
            "continue": { "rvcontinue": id, "continue": "||" },
            "warnings": { "result": { "warnings": format!(
                "This result was truncated because it would otherwise be larger than the limit of {RESULT_BYTES_MAX} bytes."
            ) } },
        }),
    };
    if params.contains_key("redirects") {
        answer["warnings"]["query"] = json!({
            "warnings": "Redirect resolution cannot be used together with the \"revids\" parameter. \
                         Any redirects the \"revids\" point to have not been resolved."
        });
    }
    answer["query"] = json!({});
    if !bad.is_empty() {
        answer["query"]["badrevids"] = Value::Object(bad);
    }
    if !pages.is_empty() {
        answer["query"]["pages"] = Value::Array(pages);
    }
    answer
}

fn page(host: &str, page_id: u64) -> Value {
    let namespace = if host == "commons.wikimedia.org" { 6 } else { 0 };
    json!({ "pageid": page_id, "ns": namespace, "title": content::title_of(page_id) })
}

/// What `rvprop` names.
struct Asked {
    content: bool,
    sha1: bool,
}

impl Asked {
    fn new(params: &Params) -> Self {
        let props: Vec<&str> = params.get("rvprop").map_or_else(Vec::new, |props| props.split('|').collect());
        Self {
            content: props.contains(&"content"),
            sha1: props.iter().any(|prop| matches!(*prop, "sha1" | "slotsha1")),
        }
    }

    fn revision(&self, revision: Revision) -> Value {
        let hidden = revision.availability == Availability::Hidden;
        let mut answer = json!({
            "revid": revision.rev_id,
            "parentid": revision.parent_id,
            "timestamp": "2026-03-17T02:11:01Z",
            "size": revision.size(),
            "roles": revision.slots.iter().map(|slot| slot.role).collect::<Vec<_>>(),
        });
        if hidden {
            answer["sha1hidden"] = json!(true);
        }
        let mut slots = Map::new();
        for slot in revision.slots {
            let mut entry = json!({ "size": slot.body.len(), "contentmodel": slot.model });
            if hidden {
                entry["texthidden"] = json!(true);
                entry["sha1hidden"] = json!(true);
            } else if self.sha1 {
                entry["sha1"] = json!(slot.sha1_hex());
            }
            if revision.availability == Availability::TextMissing {
                entry["textmissing"] = json!(true);
            } else if self.content && !hidden {
                entry["contentformat"] = json!(slot.format);
                entry["content"] = Value::String(slot.body);
            }
            slots.insert(slot.role.to_owned(), entry);
        }
        answer["slots"] = Value::Object(slots);
        answer
    }
}

fn pages(host: &str, ids: &[u64], follow: bool) -> Value {
    let (mut redirects, mut interwiki, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for &id in ids {
        let Some(target) = content::redirect_of(host, id).filter(|_| follow) else {
            pages.push(page(host, id));
            continue;
        };
        let to = target.prefixed_title();
        let mut hop = json!({ "from": content::title_of(id), "to": to });
        match (target.interwiki, target.page_id) {
            (Some(prefix), _) => {
                hop["tointerwiki"] = json!(prefix);
                interwiki.push(json!({ "title": to, "iw": prefix }));
            }
            (None, Some(page_id)) => pages.push(page(host, page_id)),
            (None, None) => pages.push(json!({ "ns": 0, "title": to, "missing": true })),
        }
        redirects.push(hop);
    }
    let mut query = Map::new();
    for (name, list) in [("redirects", redirects), ("interwiki", interwiki), ("pages", pages)] {
        if !list.is_empty() {
            query.insert(name.to_owned(), Value::Array(list));
        }
    }
    json!({ "batchcomplete": true, "query": query })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "en.wikipedia.org";

    fn ask(params: &[(&str, &str)]) -> Value {
        ask_wiki(&Wiki { content_bytes: 500 }, params)
    }

    fn ask_wiki(wiki: &Wiki, params: &[(&str, &str)]) -> Value {
        let mut params: Params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        params.insert("action".to_owned(), "query".to_owned());
        match answer(wiki, HOST, &params, &mut |_| false).body {
            Body::Json(body) => serde_json::from_str(&body).expect("JSON"),
            Body::Html(html) => panic!("not JSON: {html}"),
        }
    }

    #[test]
    fn a_batch_groups_revisions_by_page_and_names_bad_ones() {
        let body = ask(&[("revids", "2001|1000|1001|1999|1996"), ("rvprop", "ids|sha1|content"), ("rvslots", "*")]);
        assert_eq!(body["batchcomplete"], true);
        assert_eq!(body["query"]["badrevids"]["1999"], json!({ "revid": 1999, "missing": true }));
        assert_eq!(body["query"]["badrevids"]["1996"]["missing"], true);
        let pages = body["query"]["pages"].as_array().expect("pages");
        assert_eq!(pages.len(), 2);
        assert_eq!(pages[0]["title"], "Page 1");
        let main = &pages[0]["revisions"][1]["slots"]["main"];
        let expected = &Wiki { content_bytes: 500 }.revision(HOST, 1001).slots[0];
        assert_eq!(main["content"], expected.body);
        assert_eq!(main["sha1"], expected.sha1_hex());
        assert_eq!(main["contentformat"], "text/x-wiki");
    }

    #[test]
    fn hidden_and_lost_text_is_marked_and_absent() {
        let body = ask(&[("revids", "1998|1997"), ("rvprop", "content|sha1")]);
        let slot = |i: usize| body["query"]["pages"][0]["revisions"][i]["slots"]["main"].clone();
        assert_eq!(slot(0)["textmissing"], true);
        assert_eq!(slot(1)["texthidden"], true);
        assert!(slot(0).get("content").is_none() && slot(1).get("content").is_none());
    }

    #[test]
    fn an_answer_over_the_cap_goes_on_where_it_stopped() {
        let wiki = Wiki { content_bytes: 5_000_000 };
        let params = [("revids", "1000|1001|2000"), ("rvprop", "content")];
        let first = ask_wiki(&wiki, &params);
        assert_eq!(first["continue"], json!({ "rvcontinue": 2000, "continue": "||" }));
        assert!(first["query"]["pages"][1].get("revisions").is_none());
        let second = ask_wiki(&wiki, &[params[0], params[1], ("rvcontinue", "2000"), ("continue", "||")]);
        assert_eq!(second["query"]["pages"][1]["revisions"][0]["revid"], 2000);
        assert!(second["query"]["pages"][0].get("revisions").is_none());
        assert_eq!(second["batchcomplete"], true);
    }

    #[test]
    fn redirects_are_followed_by_page_id_one_hop() {
        let follow = |id| ask(&[("pageids", id), ("redirects", "1"), ("prop", "info")])["query"].clone();
        assert_eq!(follow("7")["redirects"][0], json!({ "from": "Page 7", "to": "Page 8" }));
        assert_eq!(follow("7")["pages"][0]["pageid"], 8);
        assert_eq!(follow("27")["pages"][0]["missing"], true);
        assert_eq!(follow("47")["redirects"][0]["tointerwiki"], "mw");
        assert_eq!(follow("47").get("pages"), None);
        assert_eq!(follow("9")["pages"][0]["pageid"], 9);
    }

    #[test]
    fn too_many_or_broken_ids_are_the_apis_errors() {
        let many = (0..51).map(|id| id.to_string()).collect::<Vec<_>>().join("|");
        assert_eq!(ask(&[("revids", &many)])["error"]["code"], "toomanyvalues");
        assert_eq!(ask(&[("revids", "x")])["error"]["code"], "badinteger");
    }
}
