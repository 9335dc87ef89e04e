//! The checker must catch what it is there to catch: a small flawless run, and one flaw at a time.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Evidence, Job, Record, Rule, Verdict, check,
    conservation::{self, Counted, Counts},
    event::Expected,
    schema::{Schema, Schemas},
    truth::{Answer, Link, Slot, Truth},
};

const SOURCE: &str = "eqiad.in";

struct OneWiki;

impl Truth for OneWiki {
    fn revision(&self, _: &str, rev_id: i64) -> Answer {
        match rev_id {
            404 => Answer::Missing,
            403 => Answer::Hidden,
            _ => {
                let slot = Slot { body: body(rev_id), model: "wikitext".into(), format: Some("text/x-wiki".into()) };
                Answer::Slots(BTreeMap::from([("main".to_owned(), slot)]))
            }
        }
    }

    fn redirect(&self, _: &str, page_id: i64) -> Option<Link> {
        (page_id == 7).then(|| Link {
            page_title: "Talk:A_b".into(),
            namespace_id: Some(1),
            page_id: Some(70),
            interwiki_prefix: None,
        })
    }
}

fn body(rev_id: i64) -> String {
    format!("text of {rev_id}: \"œ\"\n")
}

fn schemas() -> Schemas {
    let page_change = json!({"type": "object", "required": ["meta", "page"], "properties": {
        "page": {"required": ["page_id"], "properties": {"page_id": {"type": "integer"}}}}});
    let error = json!({"type": "object", "required": ["raw_event", "message"]});
    Schemas { page_change: Schema::new(page_change).expect("schema"), error: Schema::new(error).expect("schema") }
}

fn job() -> Job {
    Job {
        sink_stream: "out".into(),
        error_stream: "err".into(),
        source_stream: "in".into(),
        sink_schema: "/mediawiki/page/change/1.2.0".into(),
        redirect_targets: true,
        exactly_once: true,
        overrides: BTreeMap::new(),
    }
}

fn event(id: u32, domain: &str, kind: &str, page: i64, rev: i64) -> String {
    format!(
        r#"{{"$schema":"/mediawiki/page/change/1.1.0","meta":{{"stream":"in","domain":"{domain}","id":"00000000-0000-4000-8000-{id:012}","dt":"2026-01-01T00:00:00Z"}},"dt":"2026-01-01T00:00:01Z","page_change_kind":"{kind}","wiki_id":"enwiki","page":{{"page_id":{page},"is_redirect":{}}},"revision":{{"rev_id":{rev},"rev_size":1.50,"content_slots":{{"main":{{"content_size":3,"content_model":"wikitext"}}}}}}}}"#,
        page == 7
    )
}

fn record(topic: &str, offset: i64, key: Option<&str>, value: &str) -> Record {
    Record {
        topic: topic.into(),
        offset,
        timestamp_ms: 1_767_225_601_000,
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        ..Record::default()
    }
}

fn from(mut record: Record, offset: i64) -> Record {
    let header = |name: &str, value: String| (name.to_owned(), value.into_bytes());
    record.headers = vec![
        header("weir-source-topic", SOURCE.into()),
        header("weir-source-partition", "0".into()),
        header("weir-source-offset", offset.to_string()),
    ];
    record
}

/// Two events of page 1, a redirect, a delete, a canary, an unknown and a hidden revision, and nonsense.
struct Run {
    inputs: Vec<Record>,
    outputs: Vec<Record>,
    errors: Vec<Record>,
}

fn enriched(id: u32, input: &str, rev: i64) -> String {
    let text = serde_json::to_string(&body(rev)).expect("json");
    with_new_meta(id, input).replace(
        r#""content_model":"wikitext""#,
        &format!(r#""content_model":"wikitext","content_body":{text},"content_format":"text/x-wiki""#),
    )
}

fn with_new_meta(id: u32, input: &str) -> String {
    let old_id = &input[input.find("00000000-").expect("id")..][..36];
    input
        .replace(r#""stream":"in""#, r#""stream":"out""#)
        .replace("change/1.1.0", "change/1.2.0")
        .replace(old_id, &format!("11111111-0000-4000-8000-{id:012}"))
}

fn error_event(id: u32, raw: &str) -> String {
    json!({"$schema": "/error/2.1.0", "meta": {"stream": "err", "dt": "2026-01-01T00:00:02Z",
        "id": format!("11111111-0000-4000-8000-{id:012}")}, "message": "m", "raw_event": raw})
    .to_string()
}

fn flawless() -> Run {
    let events = [
        event(0, "en", "edit", 1, 10),
        event(1, "en", "edit", 1, 11),
        event(2, "en", "edit", 7, 12),
        event(3, "en", "delete", 3, 13),
        event(4, "canary", "edit", 4, 14),
        event(5, "en", "edit", 5, 404),
        event(6, "en", "edit", 6, 403),
        "nonsense".to_owned(),
    ];
    let key = |page: i64| format!(r#"{{"wiki_id":"enwiki","page_id":{page}}}"#);
    let pages = [1, 1, 7, 3, 4, 5, 6, 0];
    let inputs = (0..8).map(|i| record(SOURCE, i, Some(&key(pages[i as usize])), &events[i as usize])).collect();
    let link = r#""is_redirect":true,"redirect_page_link":{"page_title":"Talk:A_b","namespace_id":1,"page_id":70}"#;
    let values = [
        (0, enriched(0, &events[0], 10)),
        (1, enriched(1, &events[1], 11)),
        (2, enriched(2, &events[2], 12).replace(r#""is_redirect":true"#, link)),
        (3, with_new_meta(3, &events[3])),
        (6, with_new_meta(6, &events[6])),
    ];
    let outputs = values.iter().enumerate().map(|(at, (source, value))| {
        from(record("out", at as i64, Some(&key(pages[*source as usize])), value), *source)
    });
    let outputs = outputs.collect();
    let errors = vec![
        from(record("err", 0, None, &error_event(20, &events[5])), 5),
        from(record("err", 1, None, &error_event(21, "nonsense")), 7),
    ];
    Run { inputs, outputs, errors }
}

fn judge(run: &Run, job: &Job) -> Verdict {
    check(job, &Evidence { inputs: &run.inputs, outputs: &run.outputs, errors: &run.errors }, &OneWiki, &schemas())
}

fn edit(record: &mut Record, from: &str, to: &str) {
    let value = String::from_utf8(record.value.clone().expect("value")).expect("text");
    assert!(value.contains(from), "{from} is not in {value}");
    record.value = Some(value.replacen(from, to, 1).into_bytes());
}

#[test]
fn a_flawless_run_is_clean() {
    let verdict = judge(&flawless(), &job());
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.inputs, verdict.outputs, verdict.errors, verdict.dropped), (8, 5, 2, 1));
}

type Flaw = fn(&mut Run);

#[test]
fn one_flaw_at_a_time_is_caught() {
    let flaws: &[(&str, Rule, Flaw)] = &[
        ("output lost", Rule::Lost, |run| drop(run.outputs.remove(0))),
        ("error event lost", Rule::Lost, |run| drop(run.errors.remove(1))),
        ("output doubled", Rule::Doubled, |run| {
            let mut again = run.outputs[0].clone();
            edit(&mut again, "11111111-", "22222222-");
            run.outputs.push(Record { offset: 9, ..again });
        }),
        ("output and error event", Rule::Doubled, |run| {
            let raw = String::from_utf8(run.inputs[0].value.clone().expect("value")).expect("text");
            run.errors.push(from(record("err", 2, None, &error_event(30, &raw)), 0));
        }),
        ("two of a page swapped", Rule::Order, |run| {
            run.outputs[0].offset = 1;
            run.outputs[1].offset = 0;
        }),
        ("canary came out", Rule::Route, |run| {
            run.outputs.push(from(record("out", 9, None, &event(40, "canary", "edit", 4, 14)), 4));
        }),
        ("error event instead of output", Rule::Route, |run| {
            let lost = run.outputs.remove(0);
            let raw = String::from_utf8(run.inputs[0].value.clone().expect("value")).expect("text");
            assert_eq!(lost.source().expect("source").2, 0);
            run.errors.push(from(record("err", 2, None, &error_event(30, &raw)), 0));
        }),
        ("one byte of content", Rule::Content, |run| edit(&mut run.outputs[0], "text of 10", "text of 1O")),
        ("content of another revision", Rule::Content, |run| edit(&mut run.outputs[0], "text of 10", "text of 11")),
        ("content cut short", Rule::Content, |run| edit(&mut run.outputs[0], r#"œ\"\n"#, r#"œ\""#)),
        ("content missing", Rule::Content, |run| edit(&mut run.outputs[0], "content_body", "content_boddy")),
        ("hidden content shown", Rule::Content, |run| {
            edit(&mut run.outputs[4], r#""content_size""#, r#""content_body":"secret","content_size""#);
        }),
        ("redirect's target wrong", Rule::Content, |run| edit(&mut run.outputs[2], "Talk:A_b", "A_b")),
        ("redirect's target missing", Rule::Content, |run| edit(&mut run.outputs[2], r#","page_id":70"#, "")),
        ("page id changed", Rule::Identity, |run| edit(&mut run.outputs[0], r#""page_id":1,"#, r#""page_id":2,"#)),
        ("wiki changed", Rule::Identity, |run| edit(&mut run.outputs[3], "enwiki", "dewiki")),
        ("number respelt", Rule::Identity, |run| edit(&mut run.outputs[0], "1.50", "1.5")),
        ("field dropped", Rule::Identity, |run| edit(&mut run.outputs[0], r#""rev_size":1.50,"#, "")),
        ("field invented", Rule::Identity, |run| edit(&mut run.outputs[3], r#""wiki_id""#, r#""x":1,"wiki_id""#)),
        ("fields reordered", Rule::Identity, |run| {
            edit(&mut run.outputs[0], r#""rev_id":10,"rev_size":1.50"#, r#""rev_size":1.50,"rev_id":10"#);
        }),
        ("raw event altered", Rule::RawEvent, |run| edit(&mut run.errors[1], "nonsense", "nonsens")),
        ("raw event missing", Rule::RawEvent, |run| edit(&mut run.errors[0], "raw_event", "raw")),
        ("error event invalid", Rule::Schema, |run| edit(&mut run.errors[0], r#""message""#, r#""massage""#)),
        ("output invalid", Rule::Schema, |run| edit(&mut run.outputs[0], r#""page_id":1,"#, r#""page_id":"1","#)),
        ("key in another form", Rule::Key, |run| {
            run.outputs[0].key = Some(br#"{"wiki_id": "enwiki", "page_id": 1}"#.to_vec());
        }),
        ("key in two partitions", Rule::Key, |run| run.outputs[1].partition = 1),
        ("error event with key", Rule::Key, |run| run.errors[0].key = Some(b"k".to_vec())),
        ("id twice", Rule::Meta, |run| edit(&mut run.outputs[1], "000000000001", "000000000000")),
        ("id not new", Rule::Meta, |run| edit(&mut run.outputs[0], "11111111-", "00000000-")),
        ("stream not the sink's", Rule::Meta, |run| edit(&mut run.outputs[0], r#""stream":"out""#, r#""stream":"in""#)),
        ("header missing", Rule::Header, |run| drop(run.outputs[0].headers.remove(2))),
        ("header of nowhere", Rule::FromNowhere, |run| run.outputs[0].headers[2].1 = b"99".to_vec()),
        ("timestamp not dt", Rule::Timestamp, |run| run.outputs[0].timestamp_ms += 1),
    ];
    for (name, rule, flaw) in flaws {
        let mut run = flawless();
        flaw(&mut run);
        let verdict = judge(&run, &job());
        assert!(verdict.violations.iter().any(|found| found.rule == *rule), "{name}: wanted {rule:?}, got {verdict}");
    }
}

#[test]
fn at_least_once_counts_repeats_and_still_finds_loss() {
    let job = Job { exactly_once: false, ..job() };
    let mut run = flawless();
    let mut again = run.outputs[0].clone();
    edit(&mut again, "11111111-", "22222222-");
    run.outputs.push(Record { offset: 9, ..again });
    let verdict = judge(&run, &job);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!(verdict.repeats, 1);

    run.outputs.remove(1);
    assert!(judge(&run, &job).violations.iter().any(|found| found.rule == Rule::Lost));
}

#[test]
fn an_override_says_what_the_general_rule_cannot() {
    let mut run = flawless();
    edit(&mut run.inputs[0], r#""wiki_id""#, r#""newer":1,"wiki_id""#);
    assert!(!judge(&run, &job()).is_clean());
    let Answer::Slots(slots) = OneWiki.revision("en", 10) else { panic!("revision 10 is stored") };
    let expected = Expected::Enriched { slots, redirect: None, pruned: vec!["newer".to_owned()] };
    let overrides = BTreeMap::from([((SOURCE.to_owned(), 0, 0), expected)]);
    let verdict = judge(&run, &Job { overrides, ..job() });
    assert!(verdict.is_clean(), "{verdict}");
}

/// What a product that counts right says of the flawless run, in two key ranges.
fn counted() -> Vec<Counted> {
    let run = flawless();
    let kinds = [0, 0, 0, 1, 3, 2, 0, 2];
    let half = 1 << 31;
    [(0, half), (half, 1 << 32)]
        .into_iter()
        .enumerate()
        .map(|(index, (start, end))| {
            let mut counts = Counts::default();
            for (input, kind) in run.inputs.iter().zip(kinds) {
                let hash = xxhash_rust::xxh3::xxh3_64(input.key.as_deref().unwrap_or_default()) >> 32;
                if (start..end).contains(&hash) {
                    let fields =
                        [&mut counts.enriched, &mut counts.passed_through, &mut counts.errors, &mut counts.dropped];
                    *fields.into_iter().nth(kind).expect("four kinds") += 1;
                }
            }
            Counted { topic: SOURCE.into(), partition: 0, split: index as u32, key_hashes: (start, end), counts }
        })
        .collect()
}

fn conservation(run: &Run, counted: &[Counted]) -> Vec<Rule> {
    let mut verdict = Verdict::default();
    let evidence = Evidence { inputs: &run.inputs, outputs: &run.outputs, errors: &run.errors };
    conservation::check(&job(), &evidence, counted, &mut verdict);
    verdict.violations.iter().map(|violation| violation.rule).collect()
}

#[test]
fn counts_that_agree_with_the_topics_pass_and_each_other_is_found() {
    let right = counted();
    assert_eq!(conservation(&flawless(), &right), []);
    assert_eq!(conservation(&flawless(), &[]), []);
    let of = |change: fn(&mut Counts)| {
        let mut wrong = right.clone();
        change(&mut wrong[0].counts);
        conservation(&flawless(), &wrong)
    };
    let both = [Rule::Conservation; 2];
    assert_eq!(of(|counts| counts.enriched += 1), both, "one too many, in its range and in the partition");
    assert_eq!(of(|counts| counts.errors += 1), both);
    let mut shifted = right.clone();
    shifted[0].counts.enriched += 1;
    shifted[1].counts.enriched -= 1;
    assert_eq!(conservation(&flawless(), &shifted), both, "the sum is right, the ranges are not");
    let mut lost = flawless();
    lost.outputs.pop();
    assert_eq!(conservation(&lost, &right).len(), 2, "an output that is missing was counted");
    let keyless = {
        let mut run = flawless();
        run.inputs[0].key = None;
        run
    };
    assert_eq!(conservation(&keyless, &shifted), [], "by partition alone");
}
