//! Suspend, resume, reset.

use std::path::Path;

use jiff::Timestamp;
use serde_json::json;
use weir_proto::v1::{self, reset_request::To};

use super::{
    Connection,
    commands::{QUICK, SLOW},
    document, offsets, progress, tables,
};
use crate::{
    exit::{Failure, Outcome},
    output,
};

/// `weir reset`
#[derive(Debug, clap::Args)]
pub struct ResetArgs {
    /// `earliest`, `latest`, a time (`2026-11-25T12:00:00Z`), offsets (`topic:partition:offset,…`), or a file with one
    /// `topic:partition:offset` a line
    #[arg(long, value_name = "WHERE", value_parser = parse_target)]
    pub to: Target,
    /// Only splits of this source topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only splits of these partitions
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    pub partition: Vec<i32>,
    /// Go back although finished records are done again: their output comes twice
    #[arg(long)]
    pub allow_replay: bool,
    /// Go on although records are passed over that nobody has read: they are lost to the job
    #[arg(long)]
    pub allow_skip: bool,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// `weir suspend`
#[derive(Debug, clap::Args)]
pub struct SuspendArgs {
    /// Rest with every partition at one plain offset, from which another consumer can go on
    #[arg(long)]
    pub offset_cut: bool,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// Where a reset leads.
#[derive(Clone, Debug, PartialEq)]
pub struct Target(To);

fn parse_target(text: &str) -> Result<Target, String> {
    Ok(Target(match text {
        "earliest" => To::Earliest(true),
        "latest" => To::Latest(true),
        _ if text.parse::<Timestamp>().is_ok() => {
            To::TimestampMs(text.parse::<Timestamp>().map_err(|error| error.to_string())?.as_millisecond())
        }
        _ if Path::new(text).is_file() => {
            let content = std::fs::read_to_string(text).map_err(|error| format!("`{text}` cannot be read: {error}"))?;
            offsets_of(content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')))?
        }
        _ => offsets_of(text.split(','))?,
    }))
}

fn offsets_of<'a>(entries: impl Iterator<Item = &'a str>) -> Result<To, String> {
    let parse = |entry: &str| {
        // From the right: a topic's name has no colon, but nothing here depends on it.
        let mut fields = entry.rsplitn(3, ':');
        let (offset, partition, topic) = (fields.next()?, fields.next()?, fields.next()?);
        let offset = offset.parse().ok().filter(|offset| *offset >= 0)?;
        Some(v1::PartitionOffset { topic: topic.to_owned(), partition: partition.parse().ok()?, offset })
    };
    let wrong = |entry: &str| {
        format!("`{entry}` is none of `earliest`, `latest`, a time, a file, nor `topic:partition:offset`")
    };
    let offsets = entries.map(|entry| parse(entry).ok_or_else(|| wrong(entry))).collect::<Result<Vec<_>, _>>()?;
    if offsets.is_empty() {
        Err("no offsets are named".to_owned())
    } else {
        Ok(To::Offsets(v1::ResetOffsets { offsets }))
    }
}

/// Lets the job rest.
pub async fn suspend(args: &SuspendArgs) -> Outcome {
    let request = v1::SuspendRequest { offset_cut: args.offset_cut };
    let call = args.connection.call(SLOW, async |client| client.suspend(request).await);
    let v1::SuspendResponse { location, warning, offsets } = progress::during("suspending", call).await?;
    let present = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut document = json!({ "state": "SUSPENDED", "checkpoint": present(&location), "warning": present(&warning) });
    if args.offset_cut {
        document["offsets"] = offsets::document_of(&offsets);
    }
    output::show(args.connection.output, &document, || {
        let snapshot = present(&warning).unwrap_or_else(|| format!("checkpoint {location}"));
        format!("suspended; {snapshot}{}", offsets::table_of(&offsets))
    })
}

/// Lets it go on.
pub async fn resume(connection: &Connection) -> Outcome {
    connection.call(QUICK, async |client| client.resume(v1::ResumeRequest {}).await).await?;
    output::show(connection.output, &json!({ "state": "RUNNING" }), || "resumed".to_owned())
}

/// Moves splits.
pub async fn reset(args: ResetArgs) -> Outcome {
    if !args.partition.is_empty() && args.topic.is_none() {
        return Err(Failure::usage("--partition needs --topic: each topic has such a partition"));
    }
    let request = v1::ResetRequest {
        to: Some(args.to.0),
        topic: args.topic.unwrap_or_default(),
        partitions: args.partition,
        allow_replay: args.allow_replay,
        allow_skip: args.allow_skip,
    };
    let call = args.connection.call(SLOW, async |client| client.reset(request.clone()).await);
    let answer = progress::during("moving splits", call).await?;
    let partitions = answer.partitions.iter().map(document::partition_reset);
    let document = json!({ "splits": answer.splits, "partitions": partitions.collect::<Vec<_>>() });
    output::show(args.connection.output, &document, || {
        let head = format!("{} splits moved", answer.splits);
        if answer.partitions.is_empty() { head } else { format!("{head}\n\n{}", tables::resets(&answer.partitions)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(topic: &str, partition: i32, offset: i64) -> v1::PartitionOffset {
        v1::PartitionOffset { topic: topic.to_owned(), partition, offset }
    }

    #[test]
    fn where_to_is_understood_or_refused() {
        let to = |text: &str| parse_target(text).map(|target| target.0);
        assert_eq!(to("earliest"), Ok(To::Earliest(true)));
        assert_eq!(to("latest"), Ok(To::Latest(true)));
        assert_eq!(to("1970-01-01T00:00:01Z"), Ok(To::TimestampMs(1000)));
        let offsets = v1::ResetOffsets { offsets: vec![offset("eqiad.a", 0, 7), offset("b", 2, 0)] };
        assert_eq!(to("eqiad.a:0:7,b:2:0"), Ok(To::Offsets(offsets)));
        for wrong in ["", "newest", "a:b:1", "a:0", "a:0:-1", "12"] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
    }
}
