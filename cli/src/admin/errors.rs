//! `weir errors`: the job's error events.

use std::time::Duration;

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_proto::v1;

use super::{
    Connection,
    document::offset,
    progress,
    replay::{ReplayArgs, replay},
};
use crate::{
    args::parse_duration,
    exit::{Failure, Outcome, Reason},
    output::{self, bytes, facts, table, time},
};

/// Time for what reads the error topic; the jobmanager takes at most half of it.
const READING: Duration = Duration::from_secs(60);

/// Characters of a message in a table.
const MESSAGE_CHARS: usize = 100;

/// `weir errors …`
#[derive(Debug, Subcommand)]
pub enum ErrorsCommand {
    /// List error events, newest first
    List {
        /// Which
        #[command(flatten)]
        filter: FilterArgs,
        /// Newest ones to show, at most 1000
        #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Print one error event as it is stored
    Show {
        /// Its place in the error topic as listed, `PARTITION:OFFSET`
        #[arg(value_parser = parse_place)]
        error: Place,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Send the inputs of error events through the enrichment again, each once
    Replay(ReplayArgs),
}

/// Which error events are meant. Given several times or separated by commas, any of the values.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Not older than this: a time (`2026-11-25T12:00:00Z`), or how long ago (`2 h`)
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    pub from: Option<Timestamp>,
    /// Older than this: a time, or how long ago
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    pub to: Option<Timestamp>,
    /// Only this `error_type`
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub error_type: Vec<String>,
    /// Only this wiki, by `wiki_id` or domain
    #[arg(long, value_name = "WIKI", value_delimiter = ',')]
    pub wiki: Vec<String>,
    /// Only where the input was in this topic or topic-partition
    #[arg(long, value_name = "TOPIC[-PARTITION]", value_delimiter = ',')]
    pub source: Vec<String>,
}

impl FilterArgs {
    pub(super) fn is_empty(&self) -> bool {
        let Self { from, to, error_type, wiki, source } = self;
        from.is_none() && to.is_none() && error_type.is_empty() && wiki.is_empty() && source.is_empty()
    }

    pub(super) fn to_proto(&self) -> v1::ErrorFilter {
        let unix_ms = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millisecond);
        v1::ErrorFilter {
            from_unix_ms: unix_ms(self.from),
            to_unix_ms: unix_ms(self.to),
            error_types: self.error_type.clone(),
            wikis: self.wiki.clone(),
            sources: self.source.clone(),
        }
    }
}

/// Partition and offset in the error topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub i32, pub i64);

pub(super) fn parse_place(text: &str) -> Result<Place, String> {
    let parse = || {
        let (partition, offset) = text.split_once(':')?;
        let place = Place(partition.parse().ok()?, offset.parse().ok()?);
        (place.0 >= 0 && place.1 >= 0).then_some(place)
    };
    parse().ok_or_else(|| format!("`{text}` is no place of an error event: write PARTITION:OFFSET, as listed"))
}

fn parse_when(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    let time = ago.and_then(|ago| Timestamp::now().checked_sub(ago).ok());
    time.ok_or_else(|| format!("`{text}` is neither a time (`2026-11-25T12:00:00Z`) nor how long ago (`2 h`)"))
}

/// Lists and shows.
pub async fn errors(command: ErrorsCommand) -> Outcome {
    match command {
        ErrorsCommand::List { filter, limit, connection } => {
            let request = v1::ListErrorsRequest { filter: Some(filter.to_proto()), limit };
            let call = connection.call(READING, async |client| client.list_errors(request.clone()).await);
            let list = progress::during("reading the error topic", call).await?;
            output::show(connection.output, &document(&list), || tables(&list))
        }
        ErrorsCommand::Show { error: Place(partition, offset), connection } => {
            let request = v1::GetErrorRequest { partition, offset };
            let call = connection.call(READING, async |client| client.get_error(request).await);
            let found = progress::during("reading the error topic", call).await?;
            let info = found.error.unwrap_or_default();
            let event = shown(&found.event)?;
            let document = json!({ "error": error(&info), "event": event });
            output::show(connection.output, &document, || format!("{}\n\n{event:#}", described(&info)))
        }
        ErrorsCommand::Replay(args) => replay(args).await,
    }
}

/// Whoever wrote it: what is no JSON is shown as text.
fn shown(event: &[u8]) -> Outcome<Value> {
    let text = || Value::from(String::from_utf8_lossy(event).into_owned());
    if event.is_empty() {
        return Err(Failure::new(Reason::Failed, "the record is there, and empty"));
    }
    Ok(serde_json::from_slice(event).unwrap_or_else(|_| text()))
}

fn document(list: &v1::ListErrorsResponse) -> Value {
    json!({
        "errors": list.errors.iter().map(error).collect::<Vec<_>>(),
        "more": list.more,
        "searched_back_to": time(list.searched_back_to_unix_ms),
    })
}

fn error(error: &v1::ErrorInfo) -> Value {
    let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "topic": error.topic,
        "partition": error.partition,
        "offset": error.offset,
        "time": time(error.time_unix_ms),
        "error_type": known(&error.error_type),
        "message": error.message,
        "emitter_id": known(&error.emitter_id),
        "wiki_id": known(&error.wiki_id),
        "domain": known(&error.domain),
        "page_id": error.page_id,
        "rev_id": error.rev_id,
        "source": error.source.as_ref().map(offset),
        "raw_event": error.raw_event,
        "raw_event_bytes": error.raw_event_bytes,
    })
}

fn wiki(error: &v1::ErrorInfo) -> &str {
    let known = [&error.wiki_id, &error.domain].into_iter().find(|name| !name.is_empty());
    known.map_or("?", String::as_str)
}

fn source(error: &v1::ErrorInfo) -> String {
    let named = |source: &v1::PartitionOffset| format!("{}-{}@{}", source.topic, source.partition, source.offset);
    error.source.as_ref().map_or_else(|| "?".to_owned(), named)
}

fn tables(list: &v1::ListErrorsResponse) -> String {
    let mut text = if list.errors.is_empty() { "no such error events".to_owned() } else { rows(&list.errors) };
    if list.more {
        text.push_str("\n\nthere are older ones: --limit, or --to with the oldest time above");
    }
    if let Some(back_to) = time(list.searched_back_to_unix_ms) {
        text.push_str(&format!("\n\nlooked back to {back_to} within the time: go on with --to {back_to}"));
    }
    text
}

fn rows(errors: &[v1::ErrorInfo]) -> String {
    let mut table = table(&["ERROR", "TIME", "TYPE", "WIKI", ">PAGE", ">REVISION", "SOURCE", "MESSAGE"]);
    let id = |id: Option<i64>| id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    for error in errors {
        let message: String = error.message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let mut shown: String = message.chars().take(MESSAGE_CHARS).collect();
        if shown.len() < message.len() {
            shown.push('…');
        }
        table.add_row([
            format!("{}:{}", error.partition, error.offset),
            time(error.time_unix_ms).unwrap_or_else(|| "-".to_owned()),
            if error.error_type.is_empty() { "-".to_owned() } else { error.error_type.clone() },
            wiki(error).to_owned(),
            id(error.page_id),
            id(error.rev_id),
            source(error),
            shown,
        ]);
    }
    table.trim_fmt()
}

fn described(error: &v1::ErrorInfo) -> String {
    let raw = match error.raw_event.as_str() {
        "CUT" => "only its beginning, of",
        "REPLACED" => "bytes that are not UTF-8 replaced,",
        _ => "whole,",
    };
    facts(&[
        ("Error", format!("{}-{} at offset {}", error.topic, error.partition, error.offset)),
        ("Time", time(error.time_unix_ms).unwrap_or_default()),
        ("Type", error.error_type.clone()),
        ("Wiki", wiki(error).to_owned()),
        ("Source", source(error)),
        ("Raw event", format!("{raw} {}", bytes(error.raw_event_bytes))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_places_are_understood_or_refused() {
        assert_eq!(parse_when("1970-01-01T00:00:01Z"), Ok(Timestamp::from_second(1).expect("a time")));
        let ago = Timestamp::now().as_second() - parse_when("2 h").expect("a duration").as_second();
        assert!((7199..=7201).contains(&ago), "{ago}");
        assert!(parse_when("2").is_err() && parse_when("yesterday").is_err());
        assert_eq!(parse_place("1:20"), Ok(Place(1, 20)));
        for wrong in ["", "1", "1:", "a:1", "1:-1", "-1:1", "topic:1:2"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_known_is_null_and_lists_say_how_far_they_go() {
        let hostile = v1::ErrorInfo { message: "a\n\u{1b}[31mb".to_owned(), offset: 7, ..Default::default() };
        let list = v1::ListErrorsResponse { errors: vec![hostile], more: true, searched_back_to_unix_ms: 1000 };
        let document = document(&list);
        for key in ["error_type", "wiki_id", "source", "page_id"] {
            assert_eq!(document["errors"][0][key], Value::Null, "{key}");
        }
        let text = tables(&list);
        assert!(
            text.contains("0:7") && text.contains("older ones") && text.contains("--to 1970-01-01T00:00:01Z"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
        assert!(tables(&v1::ListErrorsResponse::default()).starts_with("no such"));
    }
}
