//! The checker knows what the stub wiki holds by its own reading of the rule; here the two are held against each other.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::environment::Environment;
use crate::{
    checker::truth::{Answer, Slot, Truth},
    events::WIKIS,
    harness::http,
};

pub(super) async fn holds_what_the_checker_expects(environment: Arc<Environment>) -> anyhow::Result<()> {
    for bytes in [0, 45, 2000, 150_000] {
        let stub = environment.stub(&format!("rule-{bytes}"), "0", "0", bytes).await?;
        let address = stub.api.trim_start_matches("http://").trim_end_matches("/w/api.php").to_owned();
        for (_, domain) in WIKIS {
            // A page, redirects of all three kinds, and revisions that are hidden, lost and unknown.
            for rev_id in [1_000, 7_001, 27_001, 47_001, 5_997, 5_998, 5_999, 123_456] {
                let query =
                    "/w/api.php?action=query&format=json&formatversion=2&prop=revisions&rvslots=*&rvprop=ids|content";
                let (status, body) = http::get(&address, &format!("{query}&revids={rev_id}"), domain).await?;
                ensure!(status == 200, "{domain} {rev_id}: {status}");
                let found = read(&serde_json::from_str(&body)?);
                let wanted = stub.truth.revision(domain, rev_id);
                ensure!(found == wanted, "{bytes} bytes, {domain} {rev_id}:\n{found:?}\n{wanted:?}");
            }
        }
    }
    Ok(())
}

fn read(answer: &Value) -> Answer {
    let revision = &answer["query"]["pages"][0]["revisions"][0];
    let mut slots = BTreeMap::new();
    for (role, slot) in revision["slots"].as_object().into_iter().flatten() {
        if slot["texthidden"] == true {
            return Answer::Hidden;
        }
        let text = |name: &str| slot[name].as_str().map(str::to_owned).context("missing");
        let (Ok(body), Ok(model)) = (text("content"), text("contentmodel")) else { return Answer::Missing };
        slots.insert(role.clone(), Slot { body, model, format: text("contentformat").ok() });
    }
    if slots.is_empty() { Answer::Missing } else { Answer::Slots(slots) }
}
