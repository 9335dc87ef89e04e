//! Any bytes for parser, routes and editor.

use rand::{Rng, RngExt, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, value::RawValue};

use super::{
    fixture,
    mutate::{fields, skip_blanks, value_end},
    run,
};
use crate::enrich::{
    api::{Content, Revision, Slot},
    content,
    edit::{EditError, Named, Patch},
    event::{self, Sketch, Treatment},
    output::{self, message_key},
    recipe::Recipe,
    routes::Kind,
    stream::OutputStream,
    strict,
};

fn corpus() -> Vec<Vec<u8>> {
    let files = ["events/input.jsonl", "events/input_newer_schema.jsonl", "events/input_invalid.txt"];
    files
        .iter()
        .flat_map(|file| fixture(file).lines().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn events_are_read_and_edited_or_refused() {
    let seen = run("events", &corpus(), judge);
    for outcome in ["malformed", "invalid", "canary", "passed", "edited", "not editable"] {
        assert!(seen.get(outcome).is_some_and(|count| *count > 0), "{outcome} was not reached: {seen:?}");
    }
}

fn judge(rng: &mut StdRng, bytes: &[u8]) -> &'static str {
    let sketch = Sketch::read(Some(bytes));
    let value = match event::parse(Some(bytes)) {
        Ok(value) => value,
        Err(fault) => {
            assert_eq!(fault.kind, Kind::MalformedInput);
            let ours = ["occurs twice", "values", "not a JSON object", "is empty"];
            let lenient = serde_json::from_slice::<Value>(bytes).is_ok();
            assert!(!lenient || ours.iter().any(|ours| fault.message.contains(ours)), "{}", fault.message);
            return "malformed";
        }
    };
    assert_eq!(value, serde_json::from_slice::<Value>(bytes).expect("it was parsed"));
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    let (_, _) = (event::event_time(&value).is_ok(), event::produced_at(&value));
    let _ = message_key(&sink(), &value).is_ok();
    let treatment = event::treatment(&value, Recipe::CONTENT_HISTORY_RECONCILE.passed_through);
    let mut patch = Patch::default();
    output::stamp(&mut patch, &sink(), jiff::Timestamp::UNIX_EPOCH);
    let outcome = match treatment {
        Err(fault) => {
            assert_eq!(fault.kind, Kind::InvalidInput);
            "invalid"
        }
        Ok(Treatment::Canary) => "canary",
        Ok(Treatment::PassThrough) => "passed",
        Ok(Treatment::Enrich(target)) => {
            if let Some(sketch) = sketch {
                assert_eq!(sketch.content_bytes(), target.content_bytes);
                assert_eq!(sketch.page(), Some((target.wiki_id.clone(), target.page_id)));
            }
            let _ = content::fill(&mut patch, &target, revision(rng, &target.roles), None).is_ok();
            "edited"
        }
    };
    further_changes(rng, &mut patch, text);
    match edited(text, value, &patch) {
        Ok(()) => outcome,
        Err(EditError::NotAnObject(_)) => "not editable",
        Err(EditError::DuplicateField(name)) => panic!("{name}: parsed as if it was there once"),
    }
}

fn sink() -> OutputStream {
    OutputStream {
        stream: "sink".to_owned(),
        topic: "eqiad.sink".to_owned(),
        schema_uri: "/a/1.0.0".to_owned(),
        message_key_fields: vec![
            ("wiki_id".to_owned(), "wiki_id".to_owned()),
            ("page".to_owned(), "page.page_id".to_owned()),
        ],
        max_message_bytes: 0,
    }
}

fn revision(rng: &mut impl Rng, roles: &[String]) -> Revision {
    let slot = || Slot {
        model: Some("wikitext".to_owned()),
        content: Content::Text(RawValue::from_string(r#""b\u00e9\n""#.to_owned()).expect("a string")),
        ..Slot::default()
    };
    let also = rng.random_bool(0.2).then(|| "also".to_owned());
    let slots = roles.iter().cloned().chain(also).map(|role| (role, slot())).collect();
    Revision { page_id: 1, page_title: "A".to_owned(), slots }
}

/// Some fields of the event itself, at any level, set or removed: as pruning does.
fn further_changes(rng: &mut impl Rng, patch: &mut Patch, text: &str) {
    let names: Vec<String> =
        fields(text.as_bytes()).into_iter().filter_map(|field| serde_json::from_str(&text[field.name]).ok()).collect();
    for _ in 0..rng.random_range(0..3) {
        let path: Vec<&str> =
            (0..rng.random_range(1..4)).filter_map(|_| names.choose(rng).map(String::as_str)).collect();
        if rng.random() { patch.remove(&path) } else { patch.set(&path, "set") }
    }
}

/// The edited text is what the edited value is, and what no change names is as it was.
fn edited(text: &str, mut value: Value, patch: &Patch) -> Result<(), EditError> {
    let output = patch.apply_to_text(text)?;
    let output = String::from_utf8(output).expect("UTF-8");
    patch.apply_to_value(&mut value);
    let strict = strict::from_slice(output.as_bytes()).expect("JSON, every field once");
    // Encoded content is stood in for in the value.
    assert_eq!(blank_bodies(strict), blank_bodies(value));
    untouched(text, &output, patch);
    Ok(())
}

fn blank_bodies(mut value: Value) -> Value {
    let slots = value.pointer_mut("/revision/content_slots").and_then(Value::as_object_mut);
    for slot in slots.into_iter().flat_map(|slots| slots.values_mut()) {
        if let Some(body) = slot.get_mut("content_body") {
            *body = Value::Null;
        }
    }
    value
}

/// Fields that the patch does not name stand in the output byte for byte, in their order; new ones come after them.
fn untouched(input: &str, output: &str, patch: &Patch) {
    let mut written = members(output).into_iter();
    for (name, value) in members(input) {
        let decoded: String = serde_json::from_str(name).expect("a name");
        match patch.change_of(&decoded) {
            Named::Kept => assert_eq!(written.next(), Some((name, value))),
            Named::Removed => {}
            Named::Set => assert_eq!(written.next().map(|(name, _)| name), Some(name)),
            Named::Inside(inner) => {
                let (written_name, written_value) = written.next().expect("it is there");
                assert_eq!(written_name, name);
                untouched(value, written_value, inner);
            }
        }
    }
    for (name, _) in written {
        let decoded: String = serde_json::from_str(name).expect("a name");
        assert!(matches!(patch.change_of(&decoded), Named::Set | Named::Inside(_)), "{name} comes from nowhere");
    }
}

/// Names and values of an object, as they stand there.
fn members(object: &str) -> Vec<(&str, &str)> {
    let bytes = object.as_bytes();
    let mut members = Vec::new();
    let mut at = skip_blanks(bytes, 0) + 1;
    loop {
        at = skip_blanks(bytes, at);
        if bytes.get(at) != Some(&b'"') {
            return members;
        }
        let name = at..value_end(bytes, at);
        let value = skip_blanks(bytes, skip_blanks(bytes, name.end) + 1);
        let value = value..value_end(bytes, value);
        at = skip_blanks(bytes, value.end) + 1;
        members.push((&object[name], &object[value]));
    }
}
