//! EventStreamConfig's answer, over a route and from a file.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::config::load;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

fn config(name: &str) -> Config {
    let mut config =
        load(&[format!("{FIXTURES}/config/{name}").into()], std::iter::empty()).expect("production's file").config;
    config.enrich.ssl_ca_bundle_path = None;
    config
}

/// The fixture's answer as its text has it: the order of key fields counts.
fn answer() -> String {
    #[derive(Deserialize)]
    struct Fixture<'f> {
        #[serde(borrow)]
        response: Response<'f>,
    }
    #[derive(Deserialize)]
    struct Response<'f> {
        #[serde(borrow)]
        body: &'f serde_json::value::RawValue,
    }
    let text = std::fs::read_to_string(format!("{FIXTURES}/streamconfigs/reconcile.json")).expect("there");
    serde_json::from_str::<Fixture<'_>>(&text).expect("JSON").response.body.get().to_owned()
}

fn key(name: &str, path: &str) -> KeyField {
    KeyField { name: name.to_owned(), path: path.to_owned() }
}

fn expected() -> ResolvedStreams {
    let topics = ["eqiad.", "codfw."].map(|dc| format!("{dc}mediawiki.content_history_reconcile.v1"));
    ResolvedStreams {
        source_topics: topics.to_vec(),
        source_schema_uri: "/mediawiki/page/change/1.2.0".to_owned(),
        sink: OutputStream {
            stream: "mediawiki.content_history_reconcile_enriched.v1".to_owned(),
            topic: "eqiad.mediawiki.content_history_reconcile_enriched.v1".to_owned(),
            schema_uri: "/mediawiki/page/change/1.2.0".to_owned(),
            message_key_fields: vec![key("wiki_id", "wiki_id"), key("page_id", "page.page_id")],
        },
        error_sink: OutputStream {
            stream: "mw_content_history_reconcile_enrich.error".to_owned(),
            topic: "eqiad.mw_content_history_reconcile_enrich.error".to_owned(),
            schema_uri: "/error/2.1.0".to_owned(),
            message_key_fields: Vec::new(),
        },
    }
}

#[test]
fn topics_schemas_and_keys_come_from_the_answer() {
    let mut config = config("reconcile.app.config.yaml");
    assert_eq!(resolve_from(&config, answer().as_bytes()).expect("the fixture"), expected());
    config.stream_manager.source.options.topics = Some(vec!["mine".to_owned()]);
    config.stream_manager.sink.options.kafka_topic_prefix = None;
    let resolved = resolve_from(&config, answer().as_bytes()).expect("the fixture");
    assert_eq!(resolved.source_topics, ["mine"]);
    assert_eq!(resolved.sink.topic, "eqiad.mediawiki.content_history_reconcile_enriched.v1");
}

#[test]
fn answers_that_are_none_are_explained() {
    let config = config("reconcile.app.config.yaml");
    let source = "mediawiki.content_history_reconcile.v1";
    let empty_topics = format!(r#"{{"streams": {{"{source}": {{"schema_title": "a", "message_key_fields": []}}}}}}"#);
    for (answer, part) in [
        ("<html>", "not its answer"),
        ("{}", "`streams` is missing"),
        (r#"{"error": {"code": "unknown_action", "info": "what?"}}"#, "error `unknown_action`: what?"),
        (r#"{"streams": {"other": {"schema_title": "a"}}}"#, "which has: other"),
        (r#"{"streams": []}"#, "not its answer"),
        (&empty_topics, "name them in `stream_manager.source.options.topics`"),
    ] {
        let error = resolve_from(&config, answer.as_bytes()).expect_err(answer).to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// Answers one request after the other, and returns what it was asked.
async fn server(answers: Vec<(u16, String)>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a request"));
            }
            let head = format!("HTTP/1.1 {status} S\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.expect("a client");
            asked.push(String::from_utf8(request).expect("ASCII"));
        }
        asked
    });
    (address, asked)
}

#[test]
fn what_the_source_has_got_is_told_from_what_a_running_job_cannot_follow() {
    let running = expected();
    assert_eq!(running.changes(&running), Changes::default());
    let mut found = expected();
    let gone = std::mem::replace(&mut found.source_topics[0], "drmrs.new".to_owned());
    found.sink.schema_uri.push('0');
    let changes = running.changes(&found);
    assert_eq!(changes.new_topics, ["drmrs.new"]);
    let [topic, stream] = &changes.others[..] else { panic!("{changes:?}") };
    assert!(topic.contains(&gone), "{topic}");
    assert!(stream.contains(&found.sink.schema_uri) && stream.contains(&running.sink.topic), "{stream}");
}

#[tokio::test]
async fn the_api_is_asked_by_its_route_with_its_own_host_and_again_after_trouble() {
    let mut config = config("reconcile.app.config.yaml");
    let (address, asked) = server(vec![(503, "busy".to_owned()), (200, answer())]).await;
    let routes = &mut config.stream_manager.http_client_routes;
    routes.insert("https://meta.wikimedia.org/w/api.php".to_owned(), format!("http://{address}"));
    assert_eq!(resolve(&config).await.expect("an answer"), expected());
    let asked = asked.await.expect("the server");
    assert!(asked[1].starts_with("GET /w/api.php?action=streamconfigs&format=json&all_settings=true&streams="));
    assert!(asked[1].to_lowercase().contains("\r\nhost: meta.wikimedia.org\r\n"), "{}", asked[1]);
}

#[tokio::test]
async fn files_are_read_and_what_is_unreachable_is_named() {
    let mut config = config("reconcile.app.config.yaml");
    let path = std::env::temp_dir().join(format!("weir-streams-{}.json", std::process::id()));
    std::fs::write(&path, answer()).expect("a temporary file");
    config.stream_manager.stream_config_uri = format!("file://{}", path.display());
    assert_eq!(resolve(&config).await.expect("an answer"), expected());
    std::fs::remove_file(&path).expect("made above");
    let error = resolve(&config).await.expect_err("gone").to_string();
    assert!(error.contains("stream_config_uri") && error.contains("weir-streams"), "{error}");

    // A port that nobody listens on.
    let address = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound");
    config.stream_manager.stream_config_uri = format!("http://{address}/w/api.php");
    let error = resolve(&config).await.expect_err("nobody there").to_string();
    assert!(error.contains(&address.to_string()) && error.contains("tried 5 times"), "{error}");
}
