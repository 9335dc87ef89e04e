//! Where a redirect page leads: its first hop, asked by page id, since `redirects` is ignored next to `revids`.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    answer::{probe, read_query},
    batch::{Lookup, after_refusal},
    client::Client,
    domain::Domain,
};
use crate::enrich::{fault::Fault, routes::Route};

/// Looks redirect targets up.
#[derive(Clone, Debug)]
pub(crate) struct Redirects(pub(crate) Client);

/// A redirect page.
#[derive(Clone, Debug)]
pub(crate) struct RedirectAsk {
    /// Its id.
    pub(crate) page_id: i64,
    /// Its title, with spaces, as the API has just known it. `None` where only the event tells: it may have been moved since,
    /// and the redirect that it left behind may be asked for beside it.
    pub(crate) title: Option<String>,
}

/// `page.redirect_page_link`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Prefixed DB key, interwiki prefix included.
    pub(crate) page_title: String,
    /// 0 for interwiki targets.
    pub(crate) namespace_id: i64,
    /// Only of pages that exist.
    pub(crate) page_id: Option<i64>,
    /// Only of pages that exist.
    pub(crate) is_redirect: Option<bool>,
    /// Only of targets on other wikis.
    pub(crate) interwiki_prefix: Option<String>,
}

impl From<&Link> for Value {
    fn from(link: &Link) -> Self {
        let mut fields = Map::new();
        fields.insert("page_title".to_owned(), link.page_title.as_str().into());
        fields.insert("namespace_id".to_owned(), link.namespace_id.into());
        fields.extend(link.page_id.map(|id| ("page_id".to_owned(), id.into())));
        fields.extend(link.is_redirect.map(|is_redirect| ("is_redirect".to_owned(), is_redirect.into())));
        fields.extend(link.interwiki_prefix.as_deref().map(|prefix| ("interwiki_prefix".to_owned(), prefix.into())));
        Self::Object(fields)
    }
}

#[derive(Deserialize)]
struct Query<'a> {
    #[serde(borrow, default)]
    redirects: Vec<Hop<'a>>,
    #[serde(borrow, default)]
    pages: Vec<Page<'a>>,
}

#[derive(Clone, Deserialize)]
struct Hop<'a> {
    #[serde(borrow)]
    from: Cow<'a, str>,
    #[serde(borrow)]
    to: Cow<'a, str>,
    #[serde(borrow, default)]
    tointerwiki: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Page<'a> {
    pageid: Option<i64>,
    #[serde(default)]
    ns: i64,
    #[serde(borrow, default)]
    title: Cow<'a, str>,
    #[serde(default)]
    missing: bool,
    #[serde(default)]
    invalid: bool,
    #[serde(default)]
    redirect: bool,
}

/// What an answer says about one page.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// No redirect (any more), gone, or not to a valid target.
    NoLink,
    Link(Link),
    /// The target is a redirect itself: the API went on past it and does not show it.
    AskForTarget(String),
    /// The answer does not name the page, or which hop is the page's cannot be told among those of other pages.
    AskAlone,
}

#[async_trait]
impl Lookup for Redirects {
    type Ask = RedirectAsk;
    type Answer = Option<Link>;

    async fn probe(&self, domain: &Domain) -> Result<(), Fault> {
        probe(&self.0, domain).await
    }

    async fn look_up(&self, domain: &Domain, asks: &[RedirectAsk]) -> Vec<Result<Option<Link>, Fault>> {
        let mut findings = self.findings(domain, asks).await;
        for (ask, finding) in asks.iter().zip(&mut findings) {
            if matches!(finding, Ok(Finding::AskAlone)) {
                let found = self.query(domain, std::slice::from_ref(ask)).await;
                *finding = found.map(|mut found| found.pop().unwrap_or(Finding::NoLink));
            }
        }
        let titles = findings.iter().filter_map(|finding| match finding {
            Ok(Finding::AskForTarget(title)) => Some(title.clone()),
            _ => None,
        });
        let targets = self.targets(domain, titles.collect()).await;
        let settle = |finding: Result<Finding, Fault>| match finding? {
            Finding::Link(link) => Ok(Some(link)),
            Finding::AskForTarget(title) => targets.get(&title).cloned().unwrap_or(Ok(None)),
            Finding::NoLink | Finding::AskAlone => Ok(None),
        };
        findings.into_iter().map(settle).collect()
    }
}

impl Redirects {
    async fn findings(&self, domain: &Domain, asks: &[RedirectAsk]) -> Vec<Result<Finding, Fault>> {
        let mut findings = Vec::with_capacity(asks.len());
        let mut chunks = vec![asks];
        while let Some(chunk) = chunks.pop() {
            match self.query(domain, chunk).await {
                Ok(found) => findings.extend(found.into_iter().map(Ok)),
                Err(fault) if fault.route() == Route::Split && chunk.len() > 1 => {
                    chunks.extend(chunk.rchunks(after_refusal(&fault, chunk.len())));
                }
                Err(fault) => findings.extend(chunk.iter().map(|_| Err(fault.clone()))),
            }
        }
        findings
    }

    async fn query(&self, domain: &Domain, asks: &[RedirectAsk]) -> Result<Vec<Finding>, Fault> {
        self.0.metrics().count_batch(asks.len());
        let ids = asks.iter().map(|ask| ask.page_id.to_string()).collect::<Vec<_>>().join("|");
        let answer = self.0.query(domain, &[("prop", "info"), ("pageids", &ids), ("redirects", "1")]).await?;
        let (query, _) = read_query::<Query<'_>>(domain, &answer)?;
        Ok(asks.iter().map(|ask| find(&query, ask, asks.len() == 1)).collect())
    }

    /// The pages with these titles, as targets of redirects. Those that the API leaves out are left out.
    async fn targets(&self, domain: &Domain, titles: BTreeSet<String>) -> Targets {
        let mut targets = Targets::new();
        let mut chunks = chunks(titles);
        while let Some(chunk) = chunks.pop() {
            match self.query_titles(domain, &chunk).await {
                Ok(found) => targets.extend(found),
                Err(fault) if fault.route() == Route::Split && chunk.len() > 1 => {
                    let parts = chunk.rchunks(after_refusal(&fault, chunk.len()));
                    chunks.extend(parts.map(<[String]>::to_vec).collect::<Vec<_>>());
                }
                Err(fault) => targets.extend(chunk.into_iter().map(|title| (title, Err(fault.clone())))),
            }
        }
        targets
    }

    async fn query_titles(&self, domain: &Domain, titles: &[String]) -> Result<Targets, Fault> {
        self.0.metrics().count_batch(titles.len());
        let answer = self.0.query(domain, &[("prop", "info"), ("titles", &titles.join("|"))]).await?;
        let (query, _) = read_query::<Query<'_>>(domain, &answer)?;
        let target = |page: &Page<'_>| (page.title.clone().into_owned(), Ok(link_to(page, page.redirect)));
        Ok(query.pages.iter().map(target).collect())
    }
}

/// By title, with spaces.
type Targets = BTreeMap<String, Result<Option<Link>, Fault>>;

/// Most bytes of titles in one request, as they are in its URL: servers take lines of 8 KB.
const TITLES_BYTES_MAX: usize = 6000;

/// Titles to ask for together: as many as a URL may hold. There are no more than pages that were asked for.
fn chunks(titles: BTreeSet<String>) -> Vec<Vec<String>> {
    let mut chunks: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    for title in titles {
        // Anything may be escaped, and a separator is.
        let size = 3 * (title.len() + 1);
        bytes += size;
        match chunks.last_mut().filter(|_| bytes <= TITLES_BYTES_MAX) {
            Some(chunk) => chunk.push(title),
            None => {
                bytes = size;
                chunks.push(vec![title]);
            }
        }
    }
    chunks
}

fn find(query: &Query<'_>, ask: &RedirectAsk, alone: bool) -> Finding {
    // The page itself is only shown when it is no redirect, or gone.
    if query.pages.iter().any(|page| page.pageid == Some(ask.page_id)) {
        return Finding::NoLink;
    }
    let mut hops = query.redirects.iter();
    let hop = hops.find(|hop| ask.title.as_ref().is_some_and(|title| *title == hop.from)).or_else(|| {
        // Alone, the page is where the chain begins, whatever it is called by now; the API names the hops of a circle in order.
        let begins = |hop: &&Hop<'_>| query.redirects.iter().all(|other| other.to != hop.from);
        query.redirects.iter().find(begins).or(query.redirects.first()).filter(|_| alone)
    });
    let Some(hop) = hop else {
        // A redirect page whose target cannot be read is in none of the API's lists: absence is believed when it is said
        // twice, for an answer can be another one's, too.
        return Finding::AskAlone;
    };
    if let Some(prefix) = hop.tointerwiki.as_deref().filter(|prefix| !prefix.is_empty()) {
        let link = Link { page_title: db_key(&hop.to), interwiki_prefix: Some(prefix.to_owned()), ..Link::default() };
        return Finding::Link(link);
    }
    match query.pages.iter().find(|page| page.title == hop.to) {
        Some(page) => link_to(page, false).map_or(Finding::NoLink, Finding::Link),
        None => Finding::AskForTarget(hop.to.clone().into_owned()),
    }
}

/// What the fuzzing asks of an answer.
#[cfg(test)]
pub(super) fn is_found(domain: &Domain, answer: &super::client::Answer, ask: &RedirectAsk) -> bool {
    read_query::<Query<'_>>(domain, answer).is_ok_and(|(query, _)| matches!(find(&query, ask, true), Finding::Link(_)))
}

fn link_to(page: &Page<'_>, is_redirect: bool) -> Option<Link> {
    if page.invalid {
        return None;
    }
    let page_id = page.pageid.filter(|_| !page.missing);
    Some(Link {
        page_title: db_key(&page.title),
        namespace_id: page.ns,
        page_id,
        is_redirect: page_id.map(|_| is_redirect),
        interwiki_prefix: None,
    })
}

fn db_key(title: &str) -> String {
    title.replace(' ', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(query: &str, page_id: i64, title: &str, alone: bool) -> Finding {
        let query: Query<'_> = serde_json::from_str(query).expect("a query");
        find(&query, &RedirectAsk { page_id, title: Some(title.to_owned()).filter(|title| !title.is_empty()) }, alone)
    }

    #[test]
    fn first_hops() {
        let chain =
            r#"{"redirects":[{"from":"B b","to":"C"},{"from":"A","to":"B b"}],"pages":[{"pageid":3,"title":"C"}]}"#;
        let link = |title: &str, id| Link {
            page_title: title.to_owned(),
            page_id: Some(id),
            is_redirect: Some(false),
            ..Link::default()
        };
        assert_eq!(find_in(chain, 2, "B b", false), Finding::Link(link("C", 3)));
        assert_eq!(find_in(chain, 1, "A", false), Finding::AskForTarget("B b".to_owned()));
        assert_eq!(find_in(chain, 1, "renamed", false), Finding::AskAlone);
        assert_eq!(find_in(chain, 1, "renamed", true), Finding::AskForTarget("B b".to_owned()));
        assert_eq!(find_in(chain, 3, "C", false), Finding::NoLink);
        assert_eq!(find_in(r#"{"pages":[{"pageid":1,"missing":true}]}"#, 1, "A", true), Finding::NoLink);
        assert_eq!(find_in(r#"{"redirects":[],"pages":[]}"#, 1, "A", false), Finding::AskAlone);
        assert_eq!(find_in(r#"{"pages":[{"pageid":2}]}"#, 1, "A", true), Finding::AskAlone);
    }

    #[test]
    fn a_title_that_is_not_known_is_never_guessed_among_others() {
        // Page 1 was moved from A to B; page 2 is the redirect that this left behind.
        let both = r#"{"redirects":[{"from":"A","to":"B"},{"from":"B","to":"C"}],"pages":[{"pageid":3,"title":"C"}]}"#;
        let to_c = Link { page_title: "C".to_owned(), page_id: Some(3), is_redirect: Some(false), ..Link::default() };
        assert_eq!(find_in(both, 1, "B", false), Finding::Link(to_c));
        assert_eq!(find_in(both, 2, "A", false), Finding::AskForTarget("B".to_owned()));
        assert_eq!(find_in(both, 1, "", false), Finding::AskAlone);
        let circle = r#"{"redirects":[{"from":"A","to":"B"},{"from":"B","to":"A"}]}"#;
        assert_eq!(find_in(circle, 1, "", true), Finding::AskForTarget("B".to_owned()));
        let itself = r#"{"redirects":[{"from":"A","to":"A"}]}"#;
        assert_eq!(find_in(itself, 1, "A", false), Finding::AskForTarget("A".to_owned()));
    }

    #[test]
    fn targets_are_asked_for_together_as_a_url_bears_it() {
        let titles: BTreeSet<String> = (0..50).map(|number| format!("Page {number}")).collect();
        assert_eq!(chunks(titles.clone()), [titles.into_iter().collect::<Vec<_>>()]);
        let long: BTreeSet<String> = (0..50).map(|number| format!("{number:0>255}")).collect();
        let chunks = chunks(long.clone());
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 7, 7, 7, 7, 7, 1]);
        assert_eq!(chunks.into_iter().flatten().collect::<BTreeSet<_>>(), long);
    }

    #[test]
    fn special_and_invalid_targets() {
        let special = r#"{"redirects":[{"from":"A","to":"Special:Log/X y"}],"pages":[{"ns":-1,"title":"Special:Log/X y","special":true}]}"#;
        let link = Link { page_title: "Special:Log/X_y".to_owned(), namespace_id: -1, ..Link::default() };
        assert_eq!(find_in(special, 1, "A", true), Finding::Link(link));
        let invalid = r#"{"redirects":[{"from":"A","to":"<"}],"pages":[{"title":"<","invalid":true}]}"#;
        assert_eq!(find_in(invalid, 1, "A", true), Finding::NoLink);
    }
}
