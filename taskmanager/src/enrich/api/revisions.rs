//! Content of revisions: several of one wiki in one query, whatever part of them the API answers at a time.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use async_trait::async_trait;

use super::{
    answer::{Continuation, Revision, probe, read_revisions},
    batch::{Lookup, after_refusal},
    client::Client,
    domain::Domain,
};
use crate::enrich::{
    fault::Fault,
    routes::{Kind, Route},
};

const PROPERTIES: &str = "ids|timestamp|size|slotsize|sha1|slotsha1|contentmodel|roles|content";

/// Looks revisions up.
#[derive(Clone, Debug)]
pub(crate) struct Revisions(pub(crate) Client);

/// A revision wanted.
#[derive(Clone, Debug)]
pub(crate) struct RevisionAsk {
    /// Its id.
    pub(crate) rev_id: i64,
}

type Found = BTreeMap<i64, Result<Revision, Fault>>;

#[async_trait]
impl Lookup for Revisions {
    type Ask = RevisionAsk;
    type Answer = Revision;

    async fn probe(&self, domain: &Domain) -> Result<(), Fault> {
        probe(&self.0, domain).await
    }

    async fn look_up(&self, domain: &Domain, asks: &[RevisionAsk]) -> Vec<Result<Revision, Fault>> {
        let mut found = Found::new();
        let mut chunks = vec![asks.iter().map(|ask| ask.rev_id).collect::<BTreeSet<_>>()];
        while let Some(mut chunk) = chunks.pop() {
            let known = found.len();
            let asked = self.query(domain, &chunk, &mut found).await;
            chunk.retain(|rev_id| !found.contains_key(rev_id));
            match asked {
                // What an answer leaves out is asked for again as long as that brings anything.
                Ok(()) if !chunk.is_empty() && found.len() > known => chunks.push(chunk),
                Ok(()) => {}
                Err(fault) if fault.route() == Route::Split && chunk.len() > 1 => {
                    let rev_ids: Vec<i64> = chunk.into_iter().collect();
                    let parts = rev_ids.rchunks(after_refusal(&fault, rev_ids.len()));
                    chunks.extend(parts.map(|part| part.iter().copied().collect()));
                }
                Err(fault) => found.extend(chunk.into_iter().map(|rev_id| (rev_id, Err(fault.clone())))),
            }
        }
        let mut wanted = asks.iter().map(|ask| ask.rev_id);
        let mut results = Vec::with_capacity(asks.len());
        while let Some(rev_id) = wanted.next() {
            // Two events may be about one revision; only then its content is copied.
            let again = wanted.clone().any(|later| later == rev_id);
            let result = if again { found.get(&rev_id).cloned() } else { found.remove(&rev_id) };
            results.push(result.unwrap_or_else(|| {
                Err(Fault::new(Kind::LeftOut, format!("{domain} rev_id {rev_id}: left out of the answer")))
            }));
        }
        results
    }
}

impl Revisions {
    /// Asks for a chunk and follows `continue`. Every step finds a revision or ends, so it is bounded.
    async fn query(&self, domain: &Domain, chunk: &BTreeSet<i64>, found: &mut Found) -> Result<(), Fault> {
        self.0.metrics().count_batch(chunk.len());
        let ids = chunk.iter().map(i64::to_string).collect::<Vec<_>>().join("|");
        let mut next = Continuation::new();
        loop {
            let mut params =
                vec![("prop", "revisions"), ("rvprop", PROPERTIES), ("rvslots", "*"), ("revids", ids.as_str())];
            params.extend(next.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let answer = self.0.query(domain, &params).await?;
            let answer = read_revisions(domain, &answer)?;
            let known = found.len();
            for (rev_id, revision) in answer.revisions.into_iter().filter(|(rev_id, _)| chunk.contains(rev_id)) {
                keep(domain, found, rev_id, revision);
            }
            let Some(continuation) = answer.next else { return Ok(()) };
            if found.len() == known {
                return Self::stuck(domain, &continuation, chunk, found);
            }
            next = continuation;
        }
    }

    /// The API goes on with a revision but never gets past it: alone it is larger than any answer may be.
    fn stuck(domain: &Domain, next: &Continuation, chunk: &BTreeSet<i64>, found: &mut Found) -> Result<(), Fault> {
        let rev_id = next.get("rvcontinue").and_then(|id| id.parse::<i64>().ok());
        let Some(rev_id) = rev_id.filter(|rev_id| chunk.contains(rev_id) && !found.contains_key(rev_id)) else {
            return Err(Fault::new(Kind::OtherShape, format!("{domain}: the answer continues without progress")));
        };
        let message = format!("{domain} rev_id {rev_id}: its content is larger than any answer of the API");
        found.insert(rev_id, Err(Fault::new(Kind::LoneTooLarge, message)));
        Ok(())
    }
}

/// Every part of a continued answer repeats `badrevids`. Anything else that comes twice is not believed, for which of the
/// two is the revision's cannot be told.
fn keep(domain: &Domain, found: &mut Found, rev_id: i64, revision: Result<Revision, Fault>) {
    let is_bad = |revision: &Result<_, Fault>| matches!(revision, Err(fault) if fault.kind == Kind::BadRevision);
    match found.entry(rev_id) {
        Entry::Vacant(entry) => drop(entry.insert(revision)),
        Entry::Occupied(entry) if is_bad(entry.get()) && is_bad(&revision) => {}
        Entry::Occupied(mut entry) => {
            let message = format!("{domain} rev_id {rev_id}: the answer has it twice");
            *entry.get_mut() = Err(Fault::new(Kind::Twice, message));
        }
    }
}
