//! Every kind of input among good ones, and an API that answers oddly: one output, one error event or one counted drop each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::ensure;

use super::environment::Environment;
use crate::{
    checker::{Position, Record, event::Expected, json},
    events::Maker,
    harness::{
        job::Job,
        kafka::{Input, produce},
    },
    odd_api::{LASTING, ODD_HOSTS, OddApi},
};

const GOOD: usize = 1500;

pub(super) async fn inputs_and_answers(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("hostile", "2 ms", "0", 1000).await?;
    let api = OddApi::start(stub.api.trim_start_matches("http://").trim_end_matches("/w/api.php")).await?;
    let mut spec = environment.spec("hostile", &api.url()).await?;
    // One answer in three is odd: nothing is given up for having had several of them.
    spec.environment.push(("WEIR__ENRICH__RETRY__MAX_ATTEMPTS", "100"));
    spec.environment.push(("WEIR__ENRICH__REQUEST_TIMEOUT", "1 s"));
    spec.environment.push(("WEIR__ENRICH__BATCH_REVISIONS", "10"));
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let topics = job.source_topics();
    let mut maker = Maker::new(50, topics.clone());
    let mut inputs = maker.from_stub(&stub.truth, 150, GOOD);
    let event = loop {
        let input = maker.of_page(&stub.truth, 5);
        let text = String::from_utf8(input.value.unwrap_or_default()).unwrap_or_default();
        let is_edit = text.contains(r#""page_change_kind":"edit""#) && text.contains(r#""domain":"en.wikipedia.org""#);
        if is_edit && text.contains(r#""rev_id":5"#) {
            break text;
        }
    };
    let bad = bad_values(&event);
    let kinds = bad.len() + TAKEN.len() + LASTING.len() + 5;
    let all = bad.iter().cloned().chain(taken(&event)).chain(odd_hosts(&event));
    let mut add = |key: Option<Vec<u8>>, value: Option<Vec<u8>>| {
        let topic = topics[inputs.len() % 2].clone();
        inputs.push(Input { topic, key, value });
    };
    for value in all {
        add(Some(b"k".to_vec()), Some(value));
    }
    add(None, None);
    add(Some(b"tombstone".to_vec()), None);
    add(None, Some(event.clone().into_bytes()));
    add(Some(Vec::new()), Some(event.clone().into_bytes()));
    add(Some(vec![0xff; 100_000]), Some(event.clone().into_bytes()));

    job.start().await?;
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(180)).await?;
    let status = job.admin.status().await?;
    ensure!(status.restarts == 0, "{} slots or taskmanagers were lost over odd records or answers", status.restarts);
    job.shut_down().await?;
    let overrides = |records: &[Record]| overrides(records, &bad);
    let verdict = job.verdict(&stub.truth, &overrides).await?;
    let given = api.given();
    job.say(&format!("{kinds} kinds of inputs; {} of odd answers: {given:?}", given.len()));
    for kind in OddApi::kinds() {
        ensure!(given.contains_key(kind), "no answer was of kind {kind}");
    }
    ensure!(verdict.inputs == inputs.len(), "{} inputs of {}", verdict.inputs, inputs.len());
    Ok(())
}

/// What ends as an error event, whatever the wiki holds. The rest is judged by the general rules.
fn overrides(records: &[Record], bad: &[Vec<u8>]) -> BTreeMap<Position, Expected> {
    let mut overrides = BTreeMap::new();
    for record in records {
        let Some(value) = &record.value else { continue };
        let domain = std::str::from_utf8(value).ok().and_then(|text| json::text_at(text, &["meta", "domain"]));
        if bad.contains(value) || domain.is_some_and(|domain| domain.ends_with(ODD_HOSTS)) {
            overrides.insert(record.position(), Expected::Error);
        }
    }
    overrides
}

/// The event with one text in place of another.
fn with(event: &str, old: &str, new: &str) -> Vec<u8> {
    assert!(event.contains(old), "{old} is not in {event}");
    event.replacen(old, new, 1).into_bytes()
}

/// Events of which nothing is to be said against, odd as they are.
const TAKEN: [(&str, &str); 6] = [
    (r#""meta":{"#, r#""meta":{"big":9007199254740993,"digits":123456789012345678901234567890,"tiny":1.50e-7,"#),
    (r#""meta":{"#, r#""meta":{"new":{"deep":[[[[{"x":null}]]]],"text":"é\u0000\ud83c\udf3b"},"#),
    (r#""meta":{"#, "\"meta\" : {\n\t\"blank\" : [ 1 , 2 ] ,"),
    (r#""page_change_kind":"edit""#, r#""page_change_kind":"delete""#),
    (r#""page_change_kind":"edit""#, r#""page_change_kind":"undelete""#),
    (r#""domain":"en.wikipedia.org""#, r#""domain":"canary""#),
];

fn taken(event: &str) -> Vec<Vec<u8>> {
    TAKEN.iter().map(|(old, new)| with(event, old, new)).collect()
}

fn odd_hosts(event: &str) -> Vec<Vec<u8>> {
    let host = |kind: &&str| with(event, "en.wikipedia.org", &format!("{kind}{ODD_HOSTS}"));
    LASTING.iter().map(host).collect()
}

/// Values that are no events, or events that cannot be enriched.
fn bad_values(event: &str) -> Vec<Vec<u8>> {
    let mut bad: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"null".to_vec(),
        b"7".to_vec(),
        b"\"text\"".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        vec![0xff, 0x00, 0xc3, 0x28],
        vec![0; 1000],
        format!("\u{feff}{event}").into_bytes(),
        event.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        format!("{event}{event}").into_bytes(),
        format!("{event}\0").into_bytes(),
        event.as_bytes()[..event.len() - 1].to_vec(),
        "[".repeat(300_000).into_bytes(),
        r#"{"a":"#.repeat(60_000).into_bytes(),
        with(event, r#""meta":{"#, &format!(r#""meta":{{"deep":{}{},"#, "[".repeat(5_000), "]".repeat(5_000))),
        with(event, r#""meta":{"#, &format!(r#""meta":{{"many":[{}1],"#, "1,".repeat(20_000))),
        with(event, r#""meta":{"#, &format!(r#""meta":{{"long":"{}","#, "x".repeat(2_200_000))),
        with(event, r#""meta":{"#, r#""meta":{"number":1e400,"#),
        with(event, r#""meta":{"#, &format!(r#""meta":{{"number":{},"#, "9".repeat(400))),
        with(event, r#""meta":{"#, r#""meta":{"half":"\ud800","#),
        with(event, r#""meta":{"#, r#""meta":{"twice":1,"twice":1,"#),
        with(event, r#""meta":{"#, r#""m\u0065ta":{},"meta":{"#),
        with(event, r#""page":{"#, r#""page":{"page_id":1,"#),
        with(event, r#"},"dt":""#, r#"},"dt":"yesterday "#),
        with(event, r#""changelog_kind":"update""#, r#""changelog_kind":"upsert""#),
        with(event, r#""page_change_kind":"edit""#, r#""page_change_kind":"protect""#),
        with(event, r#""namespace_id":0"#, r#""namespace_id":0.5"#),
        with(event, r#""domain":"en.wikipedia.org""#, r#""domain":"nosuch.wikipedia.org""#),
    ];
    // Hosts that a request must not be sent to, and what must not come into its head.
    for domain in [
        "",
        ".",
        "en.wikipedia.org/w/../x",
        "en.wikipedia.org:80",
        "user@en.wikipedia.org",
        "127.0.0.1:1",
        "[::1]",
        "a?b",
        "a#b",
        "a%2eb",
        r"a\\b",
        r"en.wikipedia.org\r\nX-Evil: 1",
        r"en.wikipedia.org\u0000",
        "пример.рф",
        "-a.b",
        "*.b",
    ] {
        bad.push(with(event, r#""domain":"en.wikipedia.org""#, &format!(r#""domain":"{domain}""#)));
    }
    bad.push(with(event, r#""domain":"en.wikipedia.org""#, &format!(r#""domain":"{}.org""#, "a".repeat(64))));
    bad.push(with(event, r#""domain":"en.wikipedia.org""#, &format!(r#""domain":"{}org""#, "a.".repeat(130))));
    // What enrichment needs, of each other type.
    let fields = [
        r#""wiki_id":"enwiki""#,
        r#""page_id":5,"#,
        r#""domain":"en.wikipedia.org""#,
        r#""page_change_kind":"edit""#,
        r#""changelog_kind":"update""#,
    ];
    for field in fields {
        let name = &field[..=field.find(':').unwrap_or_default()];
        for value in ["null", "true", "-1", "1.5", "18446744073709551616", "[]", "{}", r#"["x"]"#] {
            let comma = if field.ends_with(',') { "," } else { "" };
            bad.push(with(event, field, &format!("{name}{value}{comma}")));
        }
    }
    let rev_id = json::number_at(event, &["revision", "rev_id"]).unwrap_or_default();
    for value in ["null", "0", "-0", "-5", "5.0", "5e3", "1e400", "9223372036854775808", "\"5\"", "[5]", "{}", "false"]
    {
        bad.push(with(event, &format!(r#""rev_id":{rev_id}"#), &format!(r#""rev_id":{value}"#)));
    }
    bad
}
