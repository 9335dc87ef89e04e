//! Events about what a wiki's database holds.

use serde_json::{Map, Value, json};

use crate::checker::truth::mediawiki::{Revision, prefixed};

/// An event about a revision, every field of it from the database. `stream`: the source's. Its texts are unique by `number`.
pub(super) fn about(stream: &str, wiki: (&str, &str), revision: &Revision, number: usize) -> Value {
    let (wiki_id, domain) = wiki;
    let title = prefixed(revision.page_namespace, &revision.page_title);
    let (page_change, changelog) = kinds(revision);
    let dt = time(&revision.rev_timestamp);
    let visible = |bit: i64| revision.rev_deleted & bit == 0;
    let slots: Map<String, Value> = revision
        .slots
        .iter()
        .map(|(role, slot)| {
            let slot = json!({"slot_role": role, "content_model": slot.model_name, "content_sha1": slot.content_sha1,
            "content_size": slot.content_size, "origin_rev_id": slot.slot_origin});
            (role.clone(), slot)
        })
        .collect();
    let mut editor = json!({"user_text": revision.actor_name, "groups": ["*"], "is_bot": false,
        "is_temp": revision.actor_name.starts_with('~')});
    if let Some(id) = revision.actor_user {
        editor["user_id"] = id.into();
    }
    let mut event = json!({
        "$schema": "/mediawiki/page/change/1.2.0",
        "meta": {"stream": stream, "domain": domain, "id": uuid::Uuid::new_v4().to_string(), "request_id": format!("request-{number}"),
            "dt": "2026-03-17T02:11:09.001Z"},
        "dt": dt, "changelog_kind": changelog, "page_change_kind": page_change, "wiki_id": wiki_id,
        "page": {"page_id": revision.page_id, "page_title": title, "namespace_id": revision.page_namespace,
            "is_redirect": revision.page_is_redirect == 1},
        "performer": editor,
        "revision": {"rev_id": revision.rev_id, "rev_dt": dt, "rev_parent_id": revision.rev_parent_id, "rev_size": revision.rev_len,
            "rev_sha1": revision.rev_sha1, "is_minor_edit": false, "is_content_visible": visible(1),
            "is_comment_visible": visible(2), "is_editor_visible": visible(4), "content_slots": slots},
    });
    if visible(2) {
        event["revision"]["comment"] = revision.comment_text.as_str().into();
    }
    if visible(4) {
        event["revision"]["editor"] = event["performer"].clone();
    }
    event
}

fn kinds(revision: &Revision) -> (&'static str, &'static str) {
    match revision.page_title.as_str() {
        _ if revision.rev_deleted != 0 => ("visibility_change", "update"),
        title if title.starts_with("Moved") && revision.rev_id == revision.page_latest => ("move", "update"),
        "Undeleted" => ("undelete", "insert"),
        _ if revision.rev_parent_id == 0 => ("create", "insert"),
        _ => ("edit", "update"),
    }
}

fn time(t: &str) -> String {
    format!("{}-{}-{}T{}:{}:{}Z", &t[0..4], &t[4..6], &t[6..8], &t[8..10], &t[10..12], &t[12..14])
}
