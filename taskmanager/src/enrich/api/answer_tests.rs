use super::*;

fn read(body: &str) -> Result<RevisionsAnswer, Fault> {
    let answer = client::Answer { body: body.as_bytes().to_vec(), retry_after: Some(Duration::from_secs(5)) };
    read_revisions(&"a.b".parse().expect("a name"), &answer)
}

fn read_one_slot(slot: &str) -> Result<Revision, Fault> {
    let body = format!(
        r#"{{"query":{{"pages":[{{"pageid":1,"title":"A","revisions":[{{"revid":9,"slots":{{"main":{slot}}}}}]}}]}}}}"#
    );
    read(&body).expect("an answer").revisions.remove(0).1
}

#[test]
fn faults_of_slots() {
    for (slot, wanted) in [
        (r#"{"missing":true}"#, Kind::SlotMissing),
        (r#"{"textmissing":true}"#, Kind::TextMissing),
        (r#"{"size":3,"content":""}"#, Kind::TextMissing),
        (r#"{"badcontentformat":true}"#, Kind::BadContentFormat),
        (r#"{"contentmodel":"wikitext"}"#, Kind::NoContent),
        (r#"{"content":7}"#, Kind::NoContent),
        (r#"{"content":null}"#, Kind::NoContent),
        (r#"{"content":["a"]}"#, Kind::NoContent),
        (r#"{"content":"\ud800"}"#, Kind::BadContent),
    ] {
        assert_eq!(read_one_slot(slot).expect_err(slot).kind, wanted, "{slot}");
    }
    for empty in [r#"{"size":0,"content":""}"#, r#"{"content":""}"#] {
        assert!(
            matches!(&read_one_slot(empty).expect("content").slots["main"].content, Content::Text(text) if text.get() == "\"\"")
        );
    }
    let hidden = read_one_slot(r#"{"contentmodel":"wikitext","texthidden":true}"#).expect("hidden is no fault");
    assert!(matches!(hidden.slots["main"].content, Content::Hidden));
}

#[test]
fn content_is_copied_or_compacted() {
    for (content, wanted) in [(r#""a\n\"é""#, r#""a\n\"é""#), (r#""\u00e9\/\ud83c\udfbb""#, r#""é/🎻""#)] {
        let revision = read_one_slot(&format!(r#"{{"content":{content}}}"#)).expect("content");
        let Content::Text(text) = &revision.slots["main"].content else { panic!("not hidden") };
        assert_eq!(text.get(), wanted);
    }
}

#[test]
fn answers_that_are_no_answers() {
    for body in ["", " ", "<html>", "\u{feff}{}", "{\"query\":", "{}{}", "nul"] {
        assert_eq!(read(body).expect_err(body).kind, Kind::NotJson, "{body}");
    }
    for body in ["[]", "null", "7", "\"a\"", "{}", r#"{"query":null}"#, r#"{"query":{},"query":{}}"#] {
        assert_eq!(read(body).expect_err(body).kind, Kind::OtherShape, "{body}");
    }
}

/// Each level of a good answer in turn replaced by each type of JSON.
#[test]
fn every_level_of_another_type_is_a_fault_or_changes_nothing() {
    let good: Value = serde_json::from_str(
        r#"{"batchcomplete":true,"query":{"badrevids":{"8":{"revid":8,"missing":true}},"pages":[{"pageid":1,"ns":0,"title":"A","revisions":[
        {"revid":9,"slots":{"main":{"size":1,"sha1":"x","contentmodel":"wikitext","contentformat":"text/x-wiki","content":"b"}}}]}]}}"#,
    )
    .expect("JSON");
    let others = ["null", "true", "7", "-1", "1.5", "1e400", r#""x""#, "[]", "[7]", "{}", r#"{"x":[[]]}"#];
    let mut faults = 0;
    let mut tried = 0;
    for pointer in pointers(&good, String::new()) {
        for other in others {
            let mut answer = good.clone();
            *answer.pointer_mut(&pointer).expect("there") = "@".into();
            let answer = answer.to_string().replace(r#""@""#, other);
            tried += 1;
            let Ok(answer) = read(&answer) else {
                faults += 1;
                continue;
            };
            for (rev_id, revision) in answer.revisions {
                let Ok(revision) = revision else { continue };
                let Content::Text(text) = &revision.slots["main"].content else { continue };
                let moved = pointer.ends_with("/revid") && rev_id.to_string() == other;
                let other_text = pointer.ends_with("/content") && text.get() == other;
                assert!((rev_id == 9 || moved) && (text.get() == r#""b""# || other_text), "{pointer} {other}");
            }
        }
    }
    assert!(tried > 150 && faults > tried / 3, "{faults} faults of {tried}");
}

fn pointers(value: &Value, at: String) -> Vec<String> {
    let inside: Vec<String> = match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, field)| pointers(field, format!("{at}/{name}"))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| pointers(item, format!("{at}/{index}"))).collect()
        }
        _ => Vec::new(),
    };
    inside.into_iter().chain((!at.is_empty()).then_some(at)).collect()
}

#[test]
fn nesting_of_any_depth_is_refused_or_skipped() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [10, 127, 128, 5_000, 1_000_000] {
        let deep = deep(depth);
        assert_eq!(read(&deep).expect_err("an array").kind, Kind::OtherShape, "{depth}");
        assert!(read(&"[".repeat(depth)).is_err() && read(&"{\"a\":".repeat(depth)).is_err());
        let unknown = format!(r#"{{"x":{deep},"query":{{"y":{deep},"pages":[{{"z":{deep},"revisions":[]}}]}}}}"#);
        assert!(read(&unknown).expect("what nobody reads is skipped").revisions.is_empty(), "{depth}");
        let fault = read_one_slot(&format!(r#"{{"content":{deep}}}"#)).expect_err("no text");
        assert_eq!(fault.kind, Kind::NoContent, "{depth}");
        for read_part in [
            format!(r#"{{"continue":{{"rvcontinue":{deep}}},"query":{{"x":1}}}}"#),
            format!(r#"{{"query":{{"badrevids":{deep}}}}}"#),
            format!(r#"{{"query":{{"badrevids":{{"7":{deep}}}}}}}"#),
            format!(r#"{{"query":{{"pages":{deep}}}}}"#),
            format!(r#"{{"query":{{"pages":[{{"revisions":[{{"revid":9,"slots":{deep}}}]}}]}}}}"#),
        ] {
            assert!(read(&read_part).is_err() || depth <= 127, "{depth}");
        }
    }
}

#[test]
fn a_slot_or_field_that_comes_twice_is_not_believed() {
    let twice = read(
        r#"{"query":{"pages":[{"revisions":[{"revid":9,"slots":{"main":{"content":"a"},"m\u0061in":{"content":"b"}}}]}]}}"#,
    );
    let revision = &twice.expect("an answer").revisions[0].1;
    assert_eq!(revision.as_ref().expect_err("which one?").kind, Kind::Twice);
    let content = r#"{"query":{"pages":[{"revisions":[{"revid":9,"slots":{"main":{"content":"a","content":"b"}}}]}]}}"#;
    assert_eq!(read(content).expect_err("which one?").kind, Kind::OtherShape);
}

#[test]
fn an_empty_answer_is_one_if_it_says_that_it_is_complete() {
    assert!(read(r#"{"batchcomplete":true}"#).expect("an answer").revisions.is_empty());
    assert_eq!(read(r#"{"batchcomplete":false}"#).expect_err("no answer").kind, Kind::OtherShape);
    let no_slots = r#"{"query":{"pages":[{"revisions":[{"revid":9,"slots":[]}]}]}}"#;
    let revision = &read(no_slots).expect("as PHP writes an empty map").revisions[0].1;
    assert_eq!(revision.as_ref().expect_err("empty").kind, Kind::NoContent);
}

#[test]
fn errors_with_http_200() {
    for (code, kind) in [
        ("maxlag", Kind::MaxLag),
        ("ratelimited", Kind::ApiRateLimited),
        ("readapidenied", Kind::ReadDenied),
        ("permissiondenied", Kind::ReadDenied),
        ("toomanyvalues", Kind::TooManyValues),
        ("internal_api_error_MWUnknownContentModelException", Kind::UnknownModel),
        ("accessdenied", Kind::PageDenied),
        ("internal_api_error_DBQueryError", Kind::OtherApiError),
        ("readonly", Kind::OtherApiError),
        ("brand-new", Kind::OtherApiError),
    ] {
        let fault = read(&format!(r#"{{"error":{{"code":"{code}","info":"i"}}}}"#)).expect_err(code);
        assert_eq!((fault.kind, fault.retry_after), (kind, Some(Duration::from_secs(5))), "{code}");
    }
}

#[test]
fn bad_revisions_and_continuation() {
    let answer = read(r#"{"continue":{"rvcontinue":5,"continue":"||"},"query":{"badrevids":{"7":{"missing":true}},"pages":[{"pageid":1,"title":"A"}]}}"#)
        .expect("an answer");
    assert_eq!(answer.revisions.len(), 1);
    assert_eq!(answer.revisions[0].1.as_ref().expect_err("unknown").kind, Kind::BadRevision);
    let next = answer.next.expect("continues");
    assert_eq!((next["rvcontinue"].as_str(), next["continue"].as_str()), ("5", "||"));
    assert!(read(r#"{"query":{"badrevids":[]}}"#).expect("an answer").revisions.is_empty());
}
