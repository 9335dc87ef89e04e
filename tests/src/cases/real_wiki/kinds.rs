//! The pages of the odd wiki, a kind each, and what must become of events about their newest revision.

use serde_json::{Value, json};

/// What must become of it.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// The content as the wiki's database holds it.
    Stored,
    /// This text, though the database holds another: what the API makes of it.
    Shown(&'static str),
    /// The content as stored, but the redirect's target has no namespace, for the sink's schema knows none below zero.
    NoNamespace,
    /// An error event of this type.
    Error(&'static str),
}

/// One page.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// With namespace and spaces.
    pub(super) title: String,
    /// For `makePages.php`.
    pub(super) operations: Vec<Value>,
    /// Bytes that the database must hold in the main slot, for pages that were stored past MediaWiki.
    pub(super) stored: Option<Vec<u8>>,
    pub(super) then: Then,
}

impl Kind {
    fn new(title: &str, then: Then, operations: Vec<Value>) -> Self {
        Self { title: title.to_owned(), operations, stored: None, then }
    }

    fn more(mut self, operation: Value) -> Self {
        self.operations.push(operation);
        self
    }
}

/// Pages of this size, so many: more than one answer may hold.
pub(super) const BIG: usize = 5;

/// Revisions of one page.
pub(super) const MANY: usize = 120;

/// Title of the page with many revisions.
pub(super) const MANY_TITLE: &str = "Many revisions";

/// Arabic presentation forms, which the API decomposes where the wiki's language is Arabic, and nowhere else.
pub(super) const ARABIC: (&str, &str) = ("\u{fefb} \u{fe8d}\u{fedf}", "\u{644}\u{627} \u{627}\u{644}");

/// Titles of MediaWiki's own making: `A` moved with a redirect left behind, which the event's old title names.
pub(super) const MOVED_REDIRECT: [&str; 2] = ["Redirect of old", "Redirect of now"];

fn save(title: &str, model: &str, text: &str) -> Value {
    json!({"op": "save", "title": title, "slots": {"main": {"model": model, "text": text}}})
}

/// For the operation `store`.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A page that is saved.
fn saved(title: &str, text: &str) -> Kind {
    Kind::new(title, Then::Stored, vec![save(title, "wikitext", text)])
}

/// A page whose bytes are put into the database past MediaWiki.
fn raw(title: &str, bytes: &[u8], then: Then) -> Kind {
    let store = json!({"op": "store", "title": title, "hex": hexadecimal(bytes)});
    Kind { stored: Some(bytes.to_vec()), ..Kind::new(title, then, vec![save(title, "wikitext", "stands in"), store]) }
}

/// The same with further fields of the operation `store`.
fn raw_with(title: &str, bytes: &[u8], then: Then, field: &str, value: impl Into<Value>) -> Kind {
    let mut kind = raw(title, bytes, then);
    kind.operations[1][field] = value.into();
    kind
}

/// All of them.
pub(super) fn all() -> Vec<Kind> {
    [texts(), models(), slots(), hidden(), histories(), redirects(), users(), many()].concat()
}

fn texts() -> Vec<Kind> {
    let controls = b"a\0b\x01c\x08d\te\nf\x0bg\x0ch\ri\x1fj\x7fk\xc2\x85l";
    let broken = b"a\xffb \xc3( \xe2\x82 x \xed\xa0\x80 \xf0\x9f\x98 \xc0\x80 \xf8\x88\x80\x80\x80 \x80\x80 end\xc3";
    vec![
        raw("Composed", "é Å 한 Ω".as_bytes(), Then::Stored),
        raw(
            "Decomposed",
            "e\u{301} A\u{30a} \u{1112}\u{1161}\u{11ab} \u{212b} \u{2126} \u{344}".as_bytes(),
            Then::Shown("\u{e9} \u{c5} \u{d55c} \u{c5} \u{3a9} \u{308}\u{301}"),
        ),
        raw("Marks out of order", "a\u{301}\u{323}".as_bytes(), Then::Shown("\u{1ea1}\u{301}")),
        raw("Four bytes each", "😀𝒳\u{10fffd}\u{e0001}".as_bytes(), Then::Stored),
        raw(
            "Control characters",
            controls,
            Then::Shown("a\u{fffd}b\u{fffd}c\u{fffd}d\te\nf\u{fffd}g\u{fffd}h\ri\u{fffd}j\x7fk\u{85}l"),
        ),
        raw("Replacement characters", "\u{fffd} \u{feff} \u{fdd0} \u{1fffe}".as_bytes(), Then::Stored),
        raw("No characters", "\u{fffe} \u{ffff}".as_bytes(), Then::Shown("\u{fffd} \u{fffd}")),
        raw(
            "Broken UTF-8",
            broken,
            Then::Shown(
                "a\u{fffd}b \u{fffd}( \u{fffd} x \u{fffd} \u{fffd} \u{fffd} \u{fffd} \u{fffd}\u{fffd} end\u{fffd}",
            ),
        ),
        raw("JSON's and HTML's", "a\u{2028}b\u{2029}c</script>/&'\"\\ \\u0041 &amp;".as_bytes(), Then::Stored),
        raw("Line ends", b"a\r\nb\rc\n \n\n  \t", Then::Stored),
        raw("Right to left", "\u{202e}אבג\u{202c} \u{200f}\u{200b}\u{ad}".as_bytes(), Then::Stored),
        raw("Arabic elsewhere", ARABIC.0.as_bytes(), Then::Stored),
        raw("Zero", b"0", Then::Stored),
        raw_with("Zipped", "zipped é".as_bytes(), Then::Stored, "flags", "utf-8,gzip"),
        raw_with("Without flags", b"latin \xe9", Then::Shown("latin \u{fffd}"), "flags", ""),
        saved("Empty", ""),
        saved("Odd? & \"title\" + ☃ C++ 'x' é", "x"),
        saved(&"A".repeat(255), "x"),
        saved("Talk:😀", "x"),
    ]
}

fn models() -> Vec<Kind> {
    let of = |title: &str, model, text| Kind::new(title, Then::Stored, vec![save(title, model, text)]);
    vec![
        of("User:A/a.json", "json", "{ \"a\" :1,\"b\":\"\\u00e9\\/\"}"),
        of("User:A/a.js", "javascript", "alert(\"a\");\n"),
        of("User:A/a.css", "css", "a { color: red }"),
        of("Plain text", "text", "<b>"),
        raw_with("Broken JSON", b"{\"a\":", Then::Stored, "model", "json"),
        // The wiki has no code for it, as after an extension is gone: the API fails for whatever is asked for with it.
        raw_with("Unknown model", b"{}", Then::Error("UnknownContentModel"), "model", "no-such-model"),
        Kind::new("Secret page", Then::Error("ReadApiDenied"), vec![save("Secret page", "wikitext", "x")]),
        // The same by a fault that the API does not name.
        raw_with("Broken model", b"{}", Then::Error("ApiError"), "model", "weir-broken"),
    ]
}

fn slots() -> Vec<Kind> {
    let two = json!({"op": "save", "title": "Two slots", "slots": {
        "main": {"model": "wikitext", "text": "main"}, "extra": {"model": "json", "text": "{\"ü\": \"\\\"q\\\"\"}"}}});
    let unheard = json!({"op": "store", "title": "Unheard-of role", "role": "unheard-of", "model": "json",
        "hex": hexadecimal(b"{\"x\":1}")});
    let lose = |title: &str, what: &str| json!({"op": "lose", "title": title, "what": what});
    let lost = |title: &str, what: &str, error_type| {
        Kind::new(title, Then::Error(error_type), vec![save(title, "wikitext", "soon lost"), lose(title, what)])
    };
    let broken = json!({"op": "store", "title": "Two slots, one lost", "role": "extra", "model": "text", "hex": "78"});
    vec![
        Kind::new("Two slots", Then::Stored, vec![two]),
        saved("Unheard-of role", "x").more(unheard),
        lost("Lost text", "text", "TextMissing"),
        lost("Lost slots", "slots", "SlotsMissing"),
        lost("Lost content", "content", "SlotsMissing"),
        // Marked as lost: the API shows an empty text.
        lost("Known to be lost", "known", "TextMissing"),
        // In a store that does not answer: it may be back, so it is asked for again.
        Kind {
            stored: None,
            ..raw_with("Stored elsewhere", b"DB://nowhere/1", Then::Error("ApiError"), "flags", "utf-8,external")
        },
        Kind::new("Two slots, one lost", Then::Error("TextMissing"), vec![])
            .more(save("Two slots, one lost", "wikitext", "soon lost too"))
            .more(broken)
            .more(lose("Two slots, one lost", "text"))
            .more(json!({"op": "store", "title": "Two slots, one lost", "hex": "78"})),
    ]
}

fn hidden() -> Vec<Kind> {
    [("text", 1), ("suppressed text", 9), ("user", 4), ("comment", 2), ("everything", 15)]
        .map(|(what, bits)| {
            let title = format!("Hidden {what}");
            saved(&title, "before")
                .more(save(&title, "wikitext", "after"))
                .more(json!({"op": "hide", "title": title, "bits": bits}))
        })
        .to_vec()
}

fn histories() -> Vec<Kind> {
    let op = |op: &str, title: &str| json!({"op": op, "title": title});
    let away = |from: &str, to: &str, redirect: bool| {
        let mv = json!({"op": "move", "title": from, "to": to, "redirect": redirect});
        Kind::new(to, Then::Stored, vec![save(from, "wikitext", "moved"), mv])
    };
    vec![
        away("Moved", "Moved away", true),
        away("Moved without a trace", "Moved away unseen", false),
        away("Moved among namespaces", "User talk:Moved", true),
        Kind::new("Deleted", Then::Error("BadRevision"), vec![])
            .more(save("Deleted", "wikitext", "x"))
            .more(op("delete", "Deleted")),
        saved("Undeleted", "first")
            .more(save("Undeleted", "wikitext", "second"))
            .more(op("delete", "Undeleted"))
            .more(op("undelete", "Undeleted")),
        Kind::new("Deleted and made anew", Then::Stored, vec![])
            .more(save("Deleted and made anew", "wikitext", "old"))
            .more(op("delete", "Deleted and made anew"))
            .more(save("Deleted and made anew", "wikitext", "new")),
    ]
}

fn redirects() -> Vec<Kind> {
    let to = |title: &str, target: &str, then| {
        Kind::new(title, then, vec![save(title, "wikitext", &format!("#REDIRECT [[{target}]]\n\nÜ"))])
    };
    let stored = |title, target| to(title, target, Then::Stored);
    let [old, now] = MOVED_REDIRECT;
    vec![
        stored("Redirect", "Plain text"),
        stored("Redirect with fragment", "Plain text#Some séction"),
        stored("Redirect to a redirect", "Redirect with fragment"),
        stored("Redirect to nowhere", "No such page"),
        stored("Redirect to itself", "Redirect to itself"),
        stored("Redirect in a circle", "Redirect in a circle, too"),
        stored("Redirect in a circle, too", "Redirect in a circle"),
        stored("Talk:Redirect", "User:A/a.js"),
        stored("Redirect to an empty talk page", "Talk:Plain text"),
        stored("Redirect abroad", "mw:Help:Contents x#y"),
        stored("Redirect far abroad", "mw:mw:Foo"),
        stored("Redirect to no such wiki", "zzqq:Foo"),
        stored("Redirect to an odd title", "Odd? & \"title\" + ☃ C++ 'x' é"),
        // No redirect by MediaWiki's rules: it has no row of it either.
        stored("Redirect to a forbidden page", "Special:Userlogout"),
        stored("Redirect to an invalid title", "A<b>"),
        // Namespaces below zero are none for page/change 1.2.0.
        to("Redirect to a special page", "Special:Log/X y", Then::NoNamespace),
        to("Redirect to a special redirect", "Special:MyLanguage/Plain text", Then::NoNamespace),
        to("Redirect to media", "Media:X.png", Then::NoNamespace),
        stored("No redirect any more", "Plain text").more(save("No redirect any more", "wikitext", "text again")),
        saved("Redirect only now", "text").more(save("Redirect only now", "wikitext", "#REDIRECT [[Empty]]")),
        // Moved, and the redirect that is left behind has its old title.
        Kind::new(now, Then::Stored, vec![save(old, "wikitext", "#REDIRECT [[Plain text]]")])
            .more(json!({"op": "move", "title": old, "to": now})),
    ]
}

fn users() -> Vec<Kind> {
    let names =
        ["192.0.2.7", "2001:db8::1", "meta>Imported", "~2026-1234", "O'Neill \"Q\" \\ & co", "😀 user", "ראובן", "É"];
    let by = |name: &&str| {
        let title = format!("Made by {}", name.chars().filter(|char| char.is_alphanumeric()).collect::<String>());
        let mut kind = saved(&title, "x");
        kind.operations[0]["user"] = (*name).into();
        kind
    };
    names.iter().map(by).collect()
}

fn many() -> Vec<Kind> {
    let mut many = saved(MANY_TITLE, "Revision %d é");
    many.operations[0]["times"] = MANY.into();
    // 1.9 MB each; quotes and line ends double in JSON.
    let mut pages: Vec<Kind> = (0..BIG)
        .map(|number| {
            let line = format!("x\"\n{number}é\\äöü");
            let times = 1_900_000 / line.len();
            let mut kind = raw_with(&format!("Big {number}"), line.as_bytes(), Then::Stored, "repeat", times);
            kind.stored = Some(line.repeat(times).into_bytes());
            kind
        })
        .collect();
    let mut huge = raw_with("Too big", b"too big ", Then::Error("ContentTooLarge"), "repeat", 1_100_000);
    huge.stored = None;
    pages.extend([many, huge]);
    pages
}
