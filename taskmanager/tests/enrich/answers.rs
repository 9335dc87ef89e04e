//! Every kind of answer, over a real socket: its route is the table's (docs/answers.md), and the client is well after it.

use std::{
    collections::BTreeSet,
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use futures::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_common::{config::Enrich, counters::OutcomeKind};
use weir_taskmanager::enrich::ReconcileEnricher;

use crate::{
    support::*,
    tls,
    wire::{
        Step::{self, *},
        Wire, good, gzip_bomb, ok, pages,
    },
};

const REV_ID: i64 = 9;
const ATTEMPTS: u32 = 2;

struct Case {
    name: &'static str,
    script: Vec<Step>,
    error_type: &'static str,
    /// Requests until the error event.
    requests: u32,
    /// Stands in the message.
    says: &'static str,
}

fn case(name: &'static str, script: Vec<Step>, error_type: &'static str, requests: u32, says: &'static str) -> Case {
    Case { name, script, error_type, requests, says }
}

fn quick(endpoint: String) -> Enrich {
    let mut config = config(endpoint);
    config.retry.max_attempts = ATTEMPTS;
    config.not_found.max_attempts = 3;
    config
}

fn say(text: impl AsRef<[u8]>) -> Step {
    Say(text.as_ref().to_vec())
}

fn status(status: &'static str, headers: &'static str) -> Vec<Step> {
    vec![say(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n{headers}\r\noops"))]
}

fn api_error(code: &str) -> Vec<Step> {
    vec![Say(ok("", format!(r#"{{"error":{{"code":"{code}","info":"as told"}}}}"#)))]
}

/// An answer with this slot, or these fields of the revision.
fn revision(fields: &str) -> Vec<Step> {
    let body = format!(r#"{{"query":{{"pages":[{{"pageid":1,"title":"A","revisions":[{{"revid":9,{fields}}}]}}]}}}}"#);
    vec![Say(ok("", body))]
}

fn slot(slot: &str) -> Vec<Step> {
    revision(&format!(r#""slots":{{"main":{slot}}}"#))
}

fn of_the_connection() -> Vec<Case> {
    let length = |length: &str, body: &str| say(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
    let chunked = |body: &str| say(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    let headers = |count: usize| "X-Many: 1\r\n".repeat(count);
    let lost = |name, script| case(name, script, "ConnectionFailed", ATTEMPTS, "before the answer was complete");
    vec![
        lost("closed without a word", vec![Close]),
        lost("reset without a word", vec![Reset]),
        lost("reset within the head", vec![say("HTTP/1.1 200 OK\r\nConte"), Reset]),
        lost("closed within the head", vec![say("HTTP/1.1 200 OK\r\nConte"), Close]),
        lost("reset within the body", vec![length("1000", "{\"query\""), Reset]),
        lost("closed within the body", vec![length("1000", "{\"query\""), Close]),
        lost("a length beyond anything", vec![length("18446744073709551615", "{}"), Close]),
        lost("a length that is no number", vec![length("many", "{}"), Close]),
        lost("two lengths", vec![length("2\r\nContent-Length: 3", "{}"), Close]),
        lost("cut between chunks", vec![chunked("2\r\n{\"\r\n"), Close]),
        lost("a chunk without a size", vec![chunked("x\r\n{}\r\n"), Close]),
        lost("no HTTP", vec![say(pages(&[REV_ID])), Close]),
        lost("another protocol", vec![say("SSH-2.0-OpenSSH_9.2\r\n"), Close]),
        lost("HTTP/2 unasked", vec![say([0, 0, 0, 4, 0, 0, 0, 0, 0]), Close]),
        lost("a thousand headers", vec![say(format!("HTTP/1.1 200 OK\r\n{}\r\n", headers(1000)))]),
        lost("headers beyond a megabyte", vec![say(format!("HTTP/1.1 200 OK\r\n{}", headers(100_000)))]),
    ]
}

fn of_time() -> Vec<Case> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let whole = format!("{head}Content-Length: 1000000\r\n\r\n");
    let late = |name, script| case(name, script, "Timeout", ATTEMPTS, "enrich.request_timeout");
    let pause = Duration::from_millis(10);
    vec![
        late("no answer", vec![Hang]),
        late("hang within the head", vec![say(head), Hang]),
        late("hang after the headers", vec![say(&whole), Hang]),
        late("hang within the body", vec![say(format!("{whole}{{\"query\":")), Hang]),
        late("a body that drips", vec![say(&whole), Drip(" ", pause)]),
        late(
            "chunks that drip",
            vec![say(format!("{head}Transfer-Encoding: chunked\r\n\r\n")), Drip("1\r\n \r\n", pause)],
        ),
        late("a head that drips", vec![say(head), say("X-Slow: "), Drip("x", pause)]),
        late("1xx without end", vec![Drip("HTTP/1.1 102 Processing\r\n\r\n", pause)]),
    ]
}

fn of_status() -> Vec<Case> {
    let once = |name, headers| case(name, status(name, headers), "UnexpectedStatus", 1, "HTTP ");
    let again = |name, error_type| case(name, status(name, "Retry-After: 0\r\n"), error_type, ATTEMPTS, "HTTP ");
    let elsewhere = "Location: http://127.0.0.1:1/w/api.php\r\n";
    vec![
        again("429 Too Many Requests", "RateLimited"),
        again("503 Service Unavailable", "ServerError"),
        again("500 Internal Server Error", "ServerError"),
        again("502 Bad Gateway", "ServerError"),
        again("504 Gateway Timeout", "ServerError"),
        again("520 Unknown", "ServerError"),
        again("999 Odd", "ServerError"),
        again("408 Request Timeout", "UnexpectedStatus"),
        again("425 Too Early", "UnexpectedStatus"),
        once("413 Content Too Large", ""),
        once("414 URI Too Long", ""),
        once("431 Request Header Fields Too Large", ""),
        once("301 Moved Permanently", elsewhere),
        once("302 Found", elsewhere),
        once("303 See Other", elsewhere),
        once("307 Temporary Redirect", elsewhere),
        once("308 Permanent Redirect", elsewhere),
        once("302 Found without a place", ""),
        case("304 Not Modified", vec![say("HTTP/1.1 304 Not Modified\r\n\r\n")], "UnexpectedStatus", 1, "HTTP 304"),
        once("400 Bad Request", ""),
        once("401 Unauthorized", "WWW-Authenticate: Basic\r\n"),
        once("403 Forbidden", ""),
        once("404 Not Found", ""),
        once("418 I'm a teapot", ""),
        once("451 Unavailable For Legal Reasons", ""),
        case(
            "101 unasked",
            vec![say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")],
            "UnexpectedStatus",
            1,
            "HTTP 101",
        ),
    ]
}

fn of_the_body() -> Vec<Case> {
    let unreadable = |name, body: &[u8], says| case(name, vec![Say(ok("", body))], "UnreadableAnswer", ATTEMPTS, says);
    let json = "not the API's JSON";
    let documented = "not as documented";
    let good = pages(&[REV_ID]);
    let short = format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{good}");
    let deep = "[".repeat(100_000);
    let gzip = "Content-Encoding: gzip\r\n";
    let large = "answer larger than";
    vec![
        unreadable("HTML", b"<!DOCTYPE html><title>Maintenance</title>", json),
        unreadable("nothing", b"", json),
        unreadable("a byte order mark", format!("\u{feff}{good}").as_bytes(), json),
        unreadable("UTF-16", &good.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>(), json),
        unreadable("cut JSON", &good.as_bytes()[..good.len() - 5], json),
        unreadable("JSON and more", format!("{good}{good}").as_bytes(), json),
        unreadable(
            "not UTF-8",
            &good.bytes().map(|byte| if byte == b'9' { 0xff } else { byte }).collect::<Vec<u8>>(),
            json,
        ),
        unreadable("a bare control character", good.replace("text of", "text\u{1}").as_bytes(), json),
        unreadable("a list", b"[]", json),
        unreadable("null", b"null", json),
        unreadable("no query", b"{}", "no `query`"),
        unreadable("a query that is a list", br#"{"query":[]}"#, "left out of the answer"),
        unreadable("pages by id", br#"{"query":{"pages":{"1":{"pageid":1}}}}"#, documented),
        unreadable("two queries", br#"{"query":{},"query":{}}"#, json),
        unreadable("a revision without id", br#"{"query":{"pages":[{"revisions":[{}]}]}}"#, documented),
        unreadable("an id that is text", br#"{"query":{"pages":[{"revisions":[{"revid":"9"}]}]}}"#, documented),
        unreadable("an id beyond numbers", br#"{"query":{"pages":[{"revisions":[{"revid":1e400}]}]}}"#, documented),
        unreadable("100,000 levels", deep.as_bytes(), json),
        unreadable("100,000 levels inside", format!(r#"{{"query":{{"pages":{deep}"#).as_bytes(), json),
        unreadable("another revision", pages(&[10]).as_bytes(), "left out of the answer"),
        unreadable("no revision", br#"{"batchcomplete":true,"query":{}}"#, "left out of the answer"),
        unreadable("nothing to say", br#"{"batchcomplete":true}"#, "left out of the answer"),
        unreadable("twice", pages(&[REV_ID, REV_ID]).as_bytes(), "twice"),
        unreadable("for ever", br#"{"query":{},"continue":{"rvcontinue":"1","continue":"||"}}"#, "without progress"),
        case("fewer bytes counted than sent", vec![say(short), Close], "UnreadableAnswer", ATTEMPTS, json),
        case("gzip that is none", vec![Say(ok(gzip, &good))], "UnreadableAnswer", ATTEMPTS, "does not decompress"),
        case(
            "gzip that is cut",
            vec![Say(ok(gzip, &gzip_bomb(100_000)[..100]))],
            "UnreadableAnswer",
            ATTEMPTS,
            "does not decompress",
        ),
        case(
            "gzip with a wrong checksum",
            vec![Say(ok(gzip, gzip_bomb(1000)))],
            "UnreadableAnswer",
            ATTEMPTS,
            "does not decompress",
        ),
        case(
            "an encoding that was not asked for",
            vec![Say(ok("Content-Encoding: br\r\n", b"\x0b\x02\x80{}\x03"))],
            "UnreadableAnswer",
            ATTEMPTS,
            json,
        ),
        case("a gzip bomb", vec![Say(ok(gzip, gzip_bomb(64 << 20)))], "ContentTooLarge", 1, large),
        case("a flood", vec![say("HTTP/1.1 200 OK\r\n\r\n"), Say(vec![b' '; 40 << 20])], "ContentTooLarge", 1, large),
    ]
}

fn of_the_api() -> Vec<Case> {
    let error = |code, error_type, requests| case(code, api_error(code), error_type, requests, "as told");
    let missing = |name, script, error_type| case(name, script, error_type, 1, "rev_id 9");
    vec![
        error("maxlag", "MaxLag", ATTEMPTS),
        error("ratelimited", "RateLimited", ATTEMPTS),
        error("readonly", "ApiError", ATTEMPTS),
        error("internal_api_error_DBQueryError", "ApiError", ATTEMPTS),
        error("brand-new", "ApiError", ATTEMPTS),
        error("readapidenied", "ReadApiDenied", 1),
        error("permissiondenied", "ReadApiDenied", 1),
        error("toomanyvalues", "ApiError", 1),
        case(
            "badrevids",
            vec![Say(ok("", r#"{"query":{"badrevids":{"9":{"revid":9,"missing":true}}}}"#))],
            "BadRevision",
            3,
            "badrevids",
        ),
        case(
            "past it never",
            vec![Say(ok("", r#"{"query":{},"continue":{"rvcontinue":"9"}}"#))],
            "ContentTooLarge",
            1,
            "larger than any answer",
        ),
        missing("slotsmissing", revision(r#""slotsmissing":true"#), "SlotsMissing"),
        missing("no slots", revision(r#""slots":{}"#), "NoContent"),
        missing("slots left out", revision(r#""size":1"#), "NoContent"),
        missing("another slot alone", revision(r#""slots":{"aux":{"content":"x"}}"#), "SlotMissing"),
        missing("missing", slot(r#"{"missing":true}"#), "SlotMissing"),
        missing("textmissing", slot(r#"{"textmissing":true}"#), "TextMissing"),
        missing("badcontentformat", slot(r#"{"badcontentformat":true}"#), "BadContentFormat"),
        missing("no content", slot(r#"{"size":1}"#), "NoContent"),
        missing("content that is no text", slot(r#"{"content":{"x":1}}"#), "NoContent"),
        missing("half a pair", slot(r#"{"content":"\ud83c"}"#), "BadContent"),
        case(
            "a slot twice",
            revision(r#""slots":{"main":{"content":"a"},"main":{"content":"b"}}"#),
            "UnreadableAnswer",
            ATTEMPTS,
            "twice",
        ),
    ]
}

async fn take(case: Case, timeout: Duration) {
    let Case { name, script, error_type, requests, says } = case;
    let wire = Wire::start(script).await;
    let mut config = quick(wire.url());
    config.request_timeout = timeout;
    let enricher = enricher(&config);
    let input = edit_of("en.wikipedia.org", REV_ID);
    let event = error_event(&enrich(&enricher, input.clone()).await);
    validator(&schemas().error).validate(&event).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(event["error_type"], error_type, "{name}: {event}");
    assert_eq!(wire.heads().len(), requests as usize, "{name}: {event}");
    assert!(event["message"].as_str().expect("text").contains(says), "{name}: {event}");
    assert_eq!(event["raw_event"], input, "{name}");
}

/// Time enough for a machine that is busy with other tests.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_answer_takes_the_route_of_the_table() {
    let groups = [of_the_connection(), of_status(), of_the_body(), of_the_api()];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "each once");
    join_all(cases.into_iter().map(|case| take(case, LONG))).await;
}

#[tokio::test]
async fn what_is_not_complete_in_time_is_given_up() {
    join_all(of_time().into_iter().map(|case| take(case, Duration::from_millis(300)))).await;
}

async fn body_of(enricher: &ReconcileEnricher, rev_id: i64) -> Value {
    let outcome = enrich(enricher, edit_of("en.wikipedia.org", rev_id)).await;
    assert_eq!(outcome.kind, OutcomeKind::Enriched, "{:?}", outcome.output);
    output(&outcome)["revision"]["content_slots"]["main"]["content_body"].clone()
}

#[tokio::test]
async fn odd_answers_that_are_good_are_taken() {
    let old: fn(&[i64]) -> Vec<u8> = |ids| [b"HTTP/1.0 200 OK\r\n\r\n", pages(ids).as_bytes()].concat();
    let hints: fn(&[i64]) -> Vec<u8> =
        |ids| [&b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"[..], &good(ids)].concat();
    let chunks: fn(&[i64]) -> Vec<u8> = |ids| {
        let one = |byte: &u8| [b"1\r\n", &[*byte][..], b"\r\n"].concat();
        let body: Vec<u8> = pages(ids).as_bytes().iter().flat_map(one).collect();
        [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &body, b"0\r\n\r\n"].concat()
    };
    let more: fn(&[i64]) -> Vec<u8> = |ids| good(&[ids, &[77, 78]].concat());
    let created: fn(&[i64]) -> Vec<u8> = |ids| {
        let body = pages(ids);
        format!("HTTP/1.1 203 Non-Authoritative\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let table = [
        ("HTTP/1.0", vec![Answer(old), Close]),
        ("1xx before it", vec![Answer(hints)]),
        ("a byte a chunk", vec![Answer(chunks)]),
        ("revisions that nobody asked for", vec![Answer(more)]),
        ("another 2xx", vec![Answer(created)]),
    ];
    for (name, script) in table {
        let wire = Wire::start(script).await;
        let enricher = enricher(&quick(wire.url()));
        for rev_id in [9, 10] {
            assert_eq!(body_of(&enricher, rev_id).await, format!("text of {rev_id}"), "{name}");
        }
    }
}

/// A second answer behind the first one, which nobody asked for, is not taken for the answer of what is asked next.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_nobodys() {
    let forged = format!("{}{}", String::from_utf8(ok("", "{}")).expect("text"), {
        let body = pages(&[10]).replace("text of 10", "forged");
        String::from_utf8(ok("", body)).expect("text")
    });
    let wire = Wire::start(vec![say(forged)]).await;
    let enricher = enricher(&quick(wire.url()));
    error_event(&enrich(&enricher, edit_of("en.wikipedia.org", REV_ID)).await);
    wire.turn(vec![Answer(good)]);
    assert_eq!(body_of(&enricher, 10).await, "text of 10");
}

#[tokio::test]
async fn redirects_are_refused_and_never_followed() {
    let elsewhere = Wire::start(vec![Answer(good)]).await;
    let headers = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url());
    let wire = Wire::start(vec![say(headers)]).await;
    let event = error_event(&enrich(&enricher(&quick(wire.url())), edit_of("en.wikipedia.org", REV_ID)).await);
    assert!(event["message"].as_str().expect("text").contains("redirects are not followed"), "{event}");
    assert_eq!((wire.heads().len(), elsewhere.heads().len()), (1, 0));
}

#[tokio::test]
async fn a_bad_part_of_an_answer_harms_only_its_own_revision() {
    let mixed: fn(&[i64]) -> Vec<u8> = |ids| {
        let revision = |id: &i64| match id % 4 {
            0 => format!(r#"{{"revid":{id},"slots":{{"main":{{"content":"text of {id}"}}}}}}"#),
            1 => [7, 8].map(|n| format!(r#"{{"revid":{id},"slots":{{"main":{{"content":"{n}"}}}}}}"#)).join(","),
            2 => r#"{"revid":4711,"slots":{"main":{"content":"of another"}}}"#.to_owned(),
            _ => format!(r#"{{"revid":{id},"slots":{{"main":{{"textmissing":true}}}}}}"#),
        };
        let revisions: Vec<String> = ids.iter().map(revision).collect();
        let body =
            format!(r#"{{"query":{{"pages":[{{"pageid":1,"title":"A","revisions":[{}]}}]}}}}"#, revisions.join(","));
        ok("", body)
    };
    let wire = Wire::start(vec![Answer(mixed)]).await;
    let mut config = quick(wire.url());
    config.batch_linger = Duration::from_millis(300);
    let enricher = enricher(&config);
    let outcomes = join_all((100..120).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    for (outcome, id) in outcomes.iter().zip(100..) {
        match id % 4 {
            0 => {
                let body = &output(outcome)["revision"]["content_slots"]["main"]["content_body"];
                assert_eq!(body, &format!("text of {id}"));
            }
            3 => assert_eq!(error_event(outcome)["error_type"], "TextMissing"),
            _ => assert_eq!(error_event(outcome)["error_type"], "UnreadableAnswer"),
        }
    }
}

#[tokio::test]
async fn hidden_text_leaves_without_a_body() {
    for script in [
        slot(r#"{"contentmodel":"wikitext","texthidden":true}"#),
        revision(r#""texthidden":true,"slots":{"main":{}}"#),
        revision(r#""texthidden":true"#),
    ] {
        let wire = Wire::start(script).await;
        let outcome = enrich(&enricher(&quick(wire.url())), edit_of("en.wikipedia.org", REV_ID)).await;
        assert_eq!(outcome.kind, OutcomeKind::Enriched);
        assert_eq!(output(&outcome)["revision"]["content_slots"]["main"].get("content_body"), None);
    }
}

#[tokio::test]
async fn no_tls_is_told_from_no_connection() {
    let alert = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A fatal alert: handshake_failure.
                let _ = (&socket).write_all(&[0x15, 3, 3, 0, 2, 2, 40]);
            }
        });
        address
    };
    for (address, says) in [(alert, "HandshakeFailure"), (unknown_ca(), "invalid peer certificate")] {
        let event = refused_by(&format!("https://localhost:{}/w/api.php", address.port())).await;
        assert_eq!(event["error_type"], "TlsFailed", "{event}");
        assert!(event["message"].as_str().expect("text").contains(says), "{event}");
    }
    let event = refused_by(&format!("https://{}/w/api.php", plain_http().await)).await;
    assert_eq!(event["error_type"], "TlsFailed", "{event}");
    let event = refused_by("http://127.0.0.1:1/w/api.php").await;
    assert_eq!(event["error_type"], "ConnectionFailed", "{event}");
    assert!(event["message"].as_str().expect("text").contains("refused"), "{event}");
}

async fn refused_by(endpoint: &str) -> Value {
    error_event(&enrich(&enricher(&quick(endpoint.to_owned())), edit_of("en.wikipedia.org", REV_ID)).await)
}

/// A server that says in plain HTTP that it does not understand.
async fn plain_http() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // Kept open until the client has read it; how it goes is the client's business.
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

/// A TLS server with a certificate that nobody has signed.
fn unknown_ca() -> SocketAddr {
    let config = Arc::new(tls::make().server);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            // Ends with the client's alert.
            while connection.is_handshaking() && connection.complete_io(&mut socket).is_ok() {}
        }
    });
    address
}

/// Records that the API can never answer are given up, also where they are all that there is: what tries an API that counts
/// as down asks for nothing.
#[tokio::test]
async fn records_that_cannot_be_answered_do_not_keep_the_api_down() {
    let poisoned: fn(&[i64]) -> Vec<u8> = |ids| match ids {
        [] => ok("", r#"{"batchcomplete":true}"#),
        _ => b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_vec(),
    };
    let wire = Wire::start(vec![Answer(poisoned)]).await;
    let mut config = quick(wire.url());
    config.retry.max_attempts = 12;
    (config.retry.initial_backoff, config.retry.max_backoff) = (Duration::from_millis(700), Duration::from_millis(700));
    let enricher = enricher(&config);
    let all = join_all((1..=4).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id))));
    let outcomes = tokio::time::timeout(Duration::from_secs(120), all).await.expect("given up");
    for outcome in outcomes {
        assert_eq!(error_event(&outcome)["error_type"], "ServerError");
    }
    let probes = wire.heads().iter().filter(|head| !head.contains("revids=")).count();
    assert!(probes > 0, "the API counted as down");
}

/// A page of a proxy in place of every answer is an outage: lag, not error events.
#[tokio::test]
async fn an_outage_told_in_html_is_waited_for() {
    let wire = Wire::start(vec![Say(ok("Content-Type: text/html\r\n", "<title>Maintenance</title>"))]).await;
    let mut config = quick(wire.url());
    config.retry.max_attempts = 20;
    (config.retry.initial_backoff, config.retry.max_backoff) = (Duration::from_millis(300), Duration::from_millis(300));
    config.retry.budget = Duration::from_secs(20);
    let enricher = enricher(&config);
    let outage = async {
        while !wire.heads().iter().any(|head| !head.contains("revids=")) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        wire.turn(vec![Answer(|ids| if ids.is_empty() { ok("", r#"{"batchcomplete":true}"#) } else { good(ids) })]);
    };
    let all = join_all((1..=8).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id))));
    let ((), outcomes) = tokio::join!(outage, all);
    assert!(outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Enriched));
}
