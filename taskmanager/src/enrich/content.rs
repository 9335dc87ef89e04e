//! What the API's answer changes in an event: bodies, formats and models of slots, the redirect target. Nothing else.

use super::{
    api::{Content, Link, Revision, Slot},
    edit::Patch,
    event::Target,
    fault::Fault,
    routes::Kind,
};

/// Where [`fill`] puts texts; the role of a slot is `*`.
pub(crate) const TEXTS: [[&str; 4]; 3] = [
    ["revision", "content_slots", "*", "content_body"],
    ["revision", "content_slots", "*", "content_model"],
    ["revision", "content_slots", "*", "content_format"],
];

/// Whether [`fill`] changes nothing of the event but these texts, each to another or a new one.
pub(crate) fn changes_texts_alone(target: &Target, revision: &Revision, link: Option<&Link>) -> bool {
    let is_text = |(role, slot): (&String, &Slot)| {
        matches!(slot.content, Content::Text(_)) && target.roles.iter().any(|listed| listed == role)
    };
    link.is_none() && target.content_visible && !revision.slots.is_empty() && revision.slots.iter().all(is_text)
}

/// Adds content and redirect target to the changes.
///
/// # Errors
/// `SlotMissing` if the event lists a slot that the wiki does not have.
pub(crate) fn fill(patch: &mut Patch, target: &Target, revision: Revision, link: Option<&Link>) -> Result<(), Fault> {
    // A revision without any slots is hidden as a whole; otherwise all slots of the event must be there.
    let absent = target.roles.iter().find(|role| !revision.slots.contains_key(*role));
    if let Some(role) = absent.filter(|_| !revision.slots.is_empty()) {
        let message = format!("{} rev_id {}: the wiki has no slot {role}", target.domain, target.rev_id);
        return Err(Fault::new(Kind::SlotMissing, message));
    }
    for role in target.roles.iter().filter(|_| revision.slots.is_empty()) {
        patch.remove(&["revision", "content_slots", role, "content_body"]);
    }
    for (role, slot) in revision.slots {
        fill_slot(patch, target, &role, slot);
    }
    if let Some(link) = link {
        patch.set(&["page", "redirect_page_link"], link);
    }
    Ok(())
}

fn fill_slot(patch: &mut Patch, target: &Target, role: &str, slot: Slot) {
    let listed = target.roles.iter().any(|listed| listed == role);
    let mut set = |field: &str, text: Option<String>| {
        if let Some(text) = text {
            patch.set(&["revision", "content_slots", role, field], text);
        }
    };
    match slot.content {
        Content::Text(body) if target.content_visible => {
            if !listed {
                set("slot_role", Some(role.to_owned()));
                set("content_sha1", slot.sha1.as_deref().and_then(base36));
            }
            set("content_model", slot.model);
            set("content_format", slot.format);
            if let Some(size) = slot.size.filter(|_| !listed) {
                patch.set(&["revision", "content_slots", role, "content_size"], size);
            }
            patch.set_token(&["revision", "content_slots", role, "content_body"], body);
        }
        Content::Text(_) | Content::Hidden if listed => {
            set("content_model", slot.model);
            set("content_format", slot.format);
            patch.remove(&["revision", "content_slots", role, "content_body"]);
        }
        Content::Text(_) | Content::Hidden => {}
    }
}

/// SHA-1 as events have it: base 36, 31 characters; the API gives 40 hex digits.
fn base36(hex: &str) -> Option<String> {
    if hex.len() != 40 || !hex.is_ascii() {
        return None;
    }
    let mut digits = (0..40).map(|at| hex[at..=at].chars().next()?.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let mut text = vec![b'0'; 31];
    for place in text.iter_mut().rev() {
        let mut remainder = 0;
        for digit in &mut digits {
            let value = remainder * 16 + *digit;
            (*digit, remainder) = (value / 36, value % 36);
        }
        *place = char::from_digit(remainder, 36).expect("a remainder of 36 is a digit") as u8;
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;

    fn revision(role: &str, content: Content) -> Revision {
        let slot = Slot {
            model: Some("wikitext".to_owned()),
            format: Some("text/x-wiki".to_owned()),
            size: Some(92),
            sha1: Some("056930767253dbbbbdef505f03a5f09599785e6e".to_owned()),
            content,
        };
        Revision { page_id: 1, page_title: "Other".to_owned(), slots: [(role.to_owned(), slot)].into() }
    }

    fn target(roles: &[&str], content_visible: bool) -> Target {
        Target {
            domain: "a.b".parse().expect("a name"),
            wiki_id: "w".to_owned(),
            rev_id: 9,
            page_id: 7,
            page_title: "A".to_owned(),
            is_redirect: false,
            content_visible,
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            content_bytes: 0,
        }
    }

    fn filled(event: &str, roles: &[&str], visible: bool, revision: Revision) -> serde_json::Value {
        let mut patch = Patch::default();
        fill(&mut patch, &target(roles, visible), revision, None).expect("complete");
        serde_json::from_slice(&patch.apply_to_text(event).expect("an object")).expect("JSON")
    }

    fn body() -> Content {
        Content::Text(RawValue::from_string("\"b\"".to_owned()).expect("a string"))
    }

    const EVENT: &str =
        r#"{"revision":{"content_slots":{"main":{"slot_role":"main","content_size":5,"content_sha1":"x"}}}}"#;

    #[test]
    fn listed_slots_get_body_model_and_format_and_keep_the_rest() {
        let main = json!({"slot_role": "main", "content_size": 5, "content_sha1": "x", "content_model": "wikitext",
            "content_format": "text/x-wiki", "content_body": "b"});
        assert_eq!(filled(EVENT, &["main"], true, revision("main", body()))["revision"]["content_slots"]["main"], main);
    }

    #[test]
    fn slots_that_the_event_does_not_list_are_added_whole() {
        let main = json!({"slot_role": "main", "content_size": 92, "content_sha1": "0mr52apjzfy3bx291pfmzx9lyqzei5q",
            "content_model": "wikitext", "content_format": "text/x-wiki", "content_body": "b"});
        assert_eq!(filled("{}", &[], true, revision("main", body()))["revision"]["content_slots"]["main"], main);
    }

    #[test]
    fn hidden_content_never_gets_out() {
        let with_body = r#"{"revision":{"content_slots":{"main":{"content_body":"old"}}}}"#;
        for (visible, content) in [(false, body()), (true, Content::Hidden)] {
            let event = filled(with_body, &["main"], visible, revision("main", content));
            assert_eq!(event["revision"]["content_slots"]["main"].get("content_body"), None);
        }
        assert_eq!(filled("{}", &[], true, revision("main", Content::Hidden)), json!({}));
        let empty = Revision { page_id: 1, page_title: String::new(), slots: [].into() };
        assert_eq!(filled(with_body, &["main"], true, empty)["revision"]["content_slots"]["main"], json!({}));
    }

    #[test]
    fn a_listed_slot_that_the_wiki_does_not_have_is_a_fault() {
        let fault = fill(&mut Patch::default(), &target(&["main", "x"], true), revision("main", body()), None);
        assert_eq!(fault.expect_err("x is absent").kind, Kind::SlotMissing);
    }
}
