//! Any bytes as an answer: refused, or read as what stands there, each content under the revision that it stands under.

use rand::rngs::StdRng;
use serde_json::Value;

use super::{
    answer::{Content, read_revisions},
    client::Answer,
    redirect::{RedirectAsk, is_found},
};
use crate::enrich::{fuzz, routes::Route};

#[test]
fn answers_are_read_as_they_are_or_refused() {
    let seen = fuzz::run("answers", &fuzz::answers(), judge);
    for outcome in ["refused", "read", "redirect", "nothing"] {
        assert!(seen.get(outcome).is_some_and(|count| *count > 0), "{outcome} was not reached: {seen:?}");
    }
}

fn judge(_: &mut StdRng, bytes: &[u8]) -> &'static str {
    let domain = "en.wikipedia.org".parse().expect("a name");
    let answer = Answer { body: bytes.to_vec(), retry_after: None };
    let ask = RedirectAsk { page_id: 55_501, title: Some("Julius Cesar".to_owned()) };
    let found = is_found(&domain, &answer, &ask);
    let Ok(read) = read_revisions(&domain, &answer) else { return "refused" };
    let otherwise = if found { "redirect" } else { "nothing" };
    let plain = serde_json::from_slice::<Value>(bytes).ok();
    let mut outcome = otherwise;
    for (rev_id, revision) in read.revisions {
        let revision = match revision {
            Ok(revision) => revision,
            Err(fault) => {
                assert_ne!(fault.route(), Route::WithoutBody);
                continue;
            }
        };
        outcome = "read";
        for (role, slot) in revision.slots {
            let Content::Text(body) = slot.content else { continue };
            let body: String = serde_json::from_str(body.get()).expect("a JSON string");
            let Some(plain) = &plain else { continue };
            assert!(stands_there(plain, rev_id, &role, &body), "{rev_id} {role}: {body}");
        }
    }
    outcome
}

fn stands_there(answer: &Value, rev_id: i64, role: &str, body: &str) -> bool {
    let pages = answer["query"]["pages"].as_array().into_iter().flatten();
    let revisions = pages.flat_map(|page| page["revisions"].as_array().into_iter().flatten());
    let mut its = revisions.filter(|revision| revision["revid"] == rev_id);
    its.any(|revision| revision["slots"][role]["content"] == body)
}
