//! The API answers of `tests/fixtures/api`, read for what they finally say.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use anyhow::Context;
use serde_json::Value;

use super::{Answer, Link, Slot, Truth};

/// What the fixtures' wikis hold.
#[derive(Default)]
pub struct Fixtures {
    revisions: HashMap<(String, i64), Answer>,
    redirects: HashMap<(String, i64), Link>,
}

impl Fixtures {
    /// Reads the answers that belong to an input (`01-…` to `20-…`), and adds what `extra` says.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let mut fixtures = Self::default();
        for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".json") && !name.starts_with('9') {
                fixtures.add(&serde_json::from_str(&std::fs::read_to_string(&path)?)?);
            }
        }
        Ok(fixtures)
    }

    /// Adds a revision with one wikitext slot.
    pub fn add_page(&mut self, domain: &str, rev_id: i64, body: &str) {
        let slot = Slot { body: body.to_owned(), model: "wikitext".to_owned(), format: Some("text/x-wiki".to_owned()) };
        let slots = BTreeMap::from([("main".to_owned(), slot)]);
        self.revisions.insert((domain.to_owned(), rev_id), Answer::Slots(slots));
    }

    fn add(&mut self, file: &Value) {
        for call in file["calls"].as_array().into_iter().flatten() {
            let domain = call["request"]["host"].as_str().unwrap_or_default();
            // The last answer stands: what came before is what is retried.
            let Some(last) = call["responses"].as_array().and_then(|all| all.last()) else { continue };
            let query = &last["body"]["query"];
            if let Some(page) = call["request"]["params"]["pageids"].as_str().and_then(|id| id.parse().ok()) {
                if let Some(link) = first_hop(query) {
                    self.redirects.insert((domain.to_owned(), page), link);
                }
                continue;
            }
            for revision in
                query["pages"].as_array().into_iter().flatten().flat_map(|p| p["revisions"].as_array()).flatten()
            {
                let id = revision["revid"].as_i64().unwrap_or_default();
                self.revisions.insert((domain.to_owned(), id), answer(revision));
            }
        }
    }
}

impl Truth for Fixtures {
    fn revision(&self, domain: &str, rev_id: i64) -> Answer {
        self.revisions.get(&(domain.to_owned(), rev_id)).cloned().unwrap_or(Answer::Missing)
    }

    fn redirect(&self, domain: &str, page_id: i64) -> Option<Link> {
        self.redirects.get(&(domain.to_owned(), page_id)).cloned()
    }
}

/// `{"$repeat": [text, count]}` stands for the text repeated.
#[must_use]
pub fn unfold(content: &Value) -> Option<String> {
    if let Some(text) = content.as_str() {
        return Some(text.to_owned());
    }
    let text = content["$repeat"][0].as_str()?;
    Some(text.repeat(usize::try_from(content["$repeat"][1].as_u64()?).ok()?))
}

fn answer(revision: &Value) -> Answer {
    let mut slots = BTreeMap::new();
    for (role, slot) in revision["slots"].as_object().into_iter().flatten() {
        if slot["texthidden"] == true {
            return Answer::Hidden;
        }
        let Some(body) = unfold(&slot["content"]) else { return Answer::Missing };
        let text = |name: &str| slot[name].as_str().map(str::to_owned);
        slots.insert(
            role.clone(),
            Slot { body, model: text("contentmodel").unwrap_or_default(), format: text("contentformat") },
        );
    }
    Answer::Slots(slots)
}

fn first_hop(query: &Value) -> Option<Link> {
    let hop = query["redirects"].get(0)?;
    let to = hop["to"].as_str()?;
    let page = query["pages"].as_array().into_iter().flatten().find(|page| page["title"] == to);
    let interwiki = hop["tointerwiki"].as_str().map(str::to_owned);
    Some(Link {
        page_title: to.replace(' ', "_"),
        namespace_id: page.and_then(|page| page["ns"].as_i64()),
        page_id: page.and_then(|page| page["pageid"].as_i64()),
        interwiki_prefix: interwiki,
    })
}
