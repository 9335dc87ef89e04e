//! Makes input events, and the pages they are about.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::{
    checker::truth::{
        Answer, Truth,
        mediawiki::{MediaWikis, Revision, prefixed},
        stub::StubWiki,
    },
    harness::kafka::Input,
};

/// The wikis that events are about: database name and domain.
pub const WIKIS: [(&str, &str); 4] = [
    ("enwiki", "en.wikipedia.org"),
    ("frwiki", "fr.wikipedia.org"),
    ("commonswiki", "commons.wikimedia.org"),
    ("wikidatawiki", "www.wikidata.org"),
];

/// Wikis of the real MediaWiki with settings and pages of their own (`tests/env/mediawiki/LocalSettings.php`).
pub const ODD_WIKIS: [(&str, &str); 3] =
    [("testwiki", "test.wikipedia.org"), ("arwiki", "ar.wikipedia.org"), ("metawiki", "meta.wikimedia.org")];

/// What an event says of its page and revision.
struct About {
    wiki_id: &'static str,
    domain: &'static str,
    page_id: i64,
    title: String,
    namespace: i64,
    is_redirect: bool,
    rev_id: i64,
    parent_id: i64,
    dt: String,
    slots: Vec<(String, Value)>,
}

/// Makes events with a seed: which page, which site, which kind; a few deletes, canaries, unknown revisions and
/// nonsense among them.
pub struct Maker {
    rng: StdRng,
    topics: [String; 2],
    source_stream: String,
    made: u64,
}

impl Maker {
    /// Events for these topics.
    #[must_use]
    pub fn new(seed: u64, topics: [String; 2]) -> Self {
        let source_stream = topics[0].trim_start_matches("eqiad.").to_owned();
        Self { rng: StdRng::seed_from_u64(seed), topics, source_stream, made: 0 }
    }

    /// Events about revisions that a MediaWiki holds.
    #[must_use]
    pub fn from_mediawiki(&mut self, wikis: &MediaWikis, count: usize) -> Vec<Input> {
        let revisions = wikis.revisions();
        (0..count)
            .map(|_| {
                let (domain, revision) = *revisions.choose(&mut self.rng).expect("the wikis have pages");
                let about = stored(domain, revision);
                self.input(about)
            })
            .collect()
    }

    /// Events about revisions that the stub wiki holds, of `pages` pages a wiki.
    #[must_use]
    pub fn from_stub(&mut self, stub: &StubWiki, pages: i64, count: usize) -> Vec<Input> {
        (0..count)
            .map(|_| {
                let (wiki_id, domain) = *WIKIS.choose(&mut self.rng).expect("not empty");
                let page_id = self.rng.random_range(1..=pages);
                // Revisions from 996 on are hidden, lost or unknown: some, but few.
                let revision = if self.rng.random_ratio(1, 100) {
                    self.rng.random_range(996..1000)
                } else {
                    self.rng.random_range(0..996)
                };
                self.input(stubbed(stub, wiki_id, domain, page_id, page_id * 1000 + revision))
            })
            .collect()
    }

    /// An event about some revision of this page of the stub wiki.
    #[must_use]
    pub fn of_page(&mut self, stub: &StubWiki, page_id: i64) -> Input {
        let (wiki_id, domain) = WIKIS[0];
        let revision = self.rng.random_range(0..996);
        self.input(stubbed(stub, wiki_id, domain, page_id, page_id * 1000 + revision))
    }

    /// A change of some kind to this page of the stub wiki, as MediaWiki tells of it: a move names what was before, a redirect
    /// its target, `visibility_change` hides the text, `suppress` is a deletion that hides everything.
    #[must_use]
    pub fn change(&mut self, stub: &StubWiki, page_id: i64, kind: &str) -> Input {
        let (wiki_id, domain) = WIKIS[0];
        let revision = if kind == "visibility_change" { 998 } else { self.rng.random_range(0..996) };
        let about = stubbed(stub, wiki_id, domain, page_id, page_id * 1000 + revision);
        self.made += 1;
        let topic = self.topics.choose(&mut self.rng).expect("two").clone();
        let key = format!(r#"{{"wiki_id":"{wiki_id}","page_id":{page_id}}}"#).into_bytes();
        let mut event = self.event(&about, if kind == "suppress" { "delete" } else { kind }, domain, about.rev_id);
        if about.is_redirect {
            let link = r#""is_redirect":true,"redirect_page_link":{"page_title":"As_it_was","namespace_id":0,"is_redirect":false}"#;
            event = event.replacen(r#""is_redirect":true"#, link, 1);
        }
        if matches!(kind, "visibility_change" | "suppress") {
            event = event.replacen(r#""is_content_visible":true"#, r#""is_content_visible":false"#, 1);
        }
        if kind == "suppress" {
            event = event.replace(r#"_visible":true"#, r#"_visible":false"#);
        }
        let prior = match kind {
            "move" => r#","prior_state":{"page":{"page_title":"Former_title","namespace_id":0}}}"#,
            "visibility_change" => r#","prior_state":{"revision":{"is_content_visible":true}}}"#,
            _ => "}",
        };
        event.truncate(event.len() - 1);
        event.push_str(prior);
        Input { topic, key: Some(key), value: Some(event.into_bytes()) }
    }

    /// An edit of this page to a revision that the stub wiki does not know when it is asked for the first time.
    #[must_use]
    pub fn late(&mut self, stub: &StubWiki, page_id: i64) -> Input {
        let (wiki_id, domain) = WIKIS[0];
        let about = stubbed(stub, wiki_id, domain, page_id, page_id * 1000 + 996);
        self.made += 1;
        let topic = self.topics.choose(&mut self.rng).expect("two").clone();
        let key = format!(r#"{{"wiki_id":"{wiki_id}","page_id":{page_id}}}"#).into_bytes();
        let event = self.event(&about, "edit", domain, about.rev_id);
        Input { topic, key: Some(key), value: Some(event.into_bytes()) }
    }

    fn input(&mut self, about: About) -> Input {
        self.made += 1;
        let topic = self.topics.choose(&mut self.rng).expect("two").clone();
        let key = format!(r#"{{"wiki_id":"{}","page_id":{}}}"#, about.wiki_id, about.page_id).into_bytes();
        let event = match self.rng.random_range(0..1000) {
            0..20 => self.event(&about, "delete", about.domain, about.rev_id),
            20..30 => self.event(&about, "edit", "canary", about.rev_id),
            30..35 => self.event(&about, "edit", about.domain, 900_000_999),
            35..38 => return Input { topic, key: Some(key), value: Some(b"{\"cut\":".to_vec()) },
            38..40 => return Input { topic, key: None, value: Some(vec![0xff, 0xfe, b'{', 0]) },
            _ => self.event(&about, "edit", about.domain, about.rev_id),
        };
        Input { topic, key: Some(key), value: Some(event.into_bytes()) }
    }

    /// Built as text: field order as MediaWiki has it, which the checker expects back.
    fn event(&mut self, about: &About, kind: &str, domain: &str, rev_id: i64) -> String {
        let changelog = match kind {
            "delete" => "delete",
            "create" | "undelete" => "insert",
            _ => "update",
        };
        let id = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        let slots: Vec<String> = about.slots.iter().map(|(role, slot)| format!("{}:{slot}", json!(role))).collect();
        let About { wiki_id, page_id, title, namespace, is_redirect, parent_id, dt, .. } = about;
        let size: i64 = about.slots.iter().filter_map(|(_, slot)| slot["content_size"].as_i64()).sum();
        let (stream, made, millis) = (&self.source_stream, self.made, self.made % 1000);
        let uri = json!(format!("https://{domain}/wiki/{title}"));
        let meta = format!(
            r#"{{"stream":"{stream}","domain":"{domain}","id":"{id}","request_id":"request-{made}","dt":"2026-03-17T02:11:09.{millis:03}Z","uri":{uri}}}"#
        );
        let title = json!(title);
        let page = format!(
            r#"{{"page_id":{page_id},"page_title":{title},"namespace_id":{namespace},"is_redirect":{is_redirect}}}"#
        );
        let performer = r#"{"user_text":"Exämpler","user_id":1001,"groups":["*","user"],"is_bot":false}"#;
        let visible = r#""is_content_visible":true,"is_editor_visible":true,"is_comment_visible":true"#;
        let slots = slots.join(",");
        let revision = format!(
            r#"{{"rev_id":{rev_id},"rev_dt":"{dt}","rev_parent_id":{parent_id},"is_minor_edit":false,"rev_size":{size},{visible},"comment":"","content_slots":{{{slots}}}}}"#
        );
        format!(
            r#"{{"$schema":"/mediawiki/page/change/1.2.0","meta":{meta},"dt":"{dt}","changelog_kind":"{changelog}","page_change_kind":"{kind}","wiki_id":"{wiki_id}","page":{page},"performer":{performer},"revision":{revision}}}"#
        )
    }
}

fn stored(domain: &str, revision: &Revision) -> About {
    let (wiki_id, domain) = WIKIS.into_iter().find(|(_, known)| *known == domain).expect("a wiki of the test");
    let t = &revision.rev_timestamp;
    let slots = revision.slots.iter().map(|(role, slot)| {
        let slot = json!({"slot_role": role, "content_model": slot.model_name, "content_sha1": slot.content_sha1,
            "content_size": slot.content_size, "origin_rev_id": slot.slot_origin});
        (role.clone(), slot)
    });
    About {
        wiki_id,
        domain,
        page_id: revision.page_id,
        title: prefixed(revision.page_namespace, &revision.page_title),
        namespace: revision.page_namespace,
        is_redirect: revision.page_is_redirect == 1,
        rev_id: revision.rev_id,
        parent_id: revision.rev_parent_id,
        dt: format!("{}-{}-{}T{}:{}:{}Z", &t[0..4], &t[4..6], &t[6..8], &t[8..10], &t[10..12], &t[12..14]),
        slots: slots.collect(),
    }
}

fn stubbed(stub: &StubWiki, wiki_id: &'static str, domain: &'static str, page_id: i64, rev_id: i64) -> About {
    let slots = match stub.revision(domain, rev_id) {
        Answer::Slots(slots) => slots,
        Answer::Hidden | Answer::Missing => std::collections::BTreeMap::new(),
    };
    let slots = slots.into_iter().map(|(role, slot)| {
        let described = json!({"slot_role": role, "content_model": slot.model, "content_size": slot.body.len(),
            "content_sha1": "0".repeat(31), "origin_rev_id": rev_id});
        (role, described)
    });
    About {
        wiki_id,
        domain,
        page_id,
        title: format!("Page_{page_id}"),
        namespace: 0,
        is_redirect: stub.redirect(domain, page_id).is_some(),
        rev_id,
        parent_id: rev_id - 1,
        dt: "2026-03-17T02:11:05Z".to_owned(),
        slots: slots.collect(),
    }
}

/// Operations for `makePages.php`: pages of many sizes and scripts with some revisions each, a page of two slots,
/// redirects of every kind, hidden text.
#[must_use]
pub fn pages(seed: u64, count: u32) -> String {
    const WORDS: [&str; 12] = [
        "weir",
        "\"quoted\"",
        "tab\there",
        "back\\slash",
        "Œuvre",
        "语言",
        "Привет",
        "עברית",
        "🌊",
        "[[Page 1|text]]",
        "\n== Heading ==\n",
        "<nowiki>&nbsp;</nowiki>",
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut operations = Vec::new();
    let save = |title: &str, slots: Value| json!({"op": "save", "title": title, "slots": slots});
    let wikitext = |text: &str| json!({"main": {"model": "wikitext", "text": text}});
    for page in 1..=count {
        // Mostly short, some long: 30 bytes to about 100 KB.
        let words = 1 << rng.random_range(2..14);
        for revision in 0..rng.random_range(1..4) {
            let mut text = format!("Page {page}, revision {revision}\n");
            for _ in 0..words {
                text += WORDS.choose(&mut rng).expect("not empty");
                text += " ";
            }
            operations.push(save(&format!("Page {page}"), wikitext(&text)));
        }
    }
    for page in 0..count / 20 {
        let extra = json!({"main": {"model": "wikitext", "text": format!("Two slots {page}")},
            "extra": {"model": "json", "text": format!(r#"{{"page":{page},"text":"ü \"q\""}}"#)}});
        operations.push(save(&format!("File talk:Two slots {page}"), extra));
    }
    for (title, target) in [
        ("Redirect", "Page 1"),
        ("Redirect with section", "Page 2#Some section"),
        ("Talk:Redirect into namespace", "User:Somebody/Sub page"),
        ("Redirect nowhere", "No such page"),
        ("Redirect abroad", "mw:Help:Contents"),
        ("Redirect twice", "Redirect"),
    ] {
        operations.push(save(title, wikitext(&format!("#REDIRECT [[{target}]]\n\nÜberschrift"))));
    }
    for title in ["Page 1", "Page 2", "Page 3"] {
        operations.push(save(title, wikitext(&format!("the last of {title}"))));
        operations.push(json!({"op": "hide", "title": title}));
    }
    operations.iter().map(|operation| format!("{operation}\n")).collect()
}
