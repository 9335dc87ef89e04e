//! `weir errors replay`: inputs of error events through the enrichment again.

use std::{collections::BTreeMap, time::Duration};

use console::Term;
use serde_json::{Value, json};
use tonic::{Code, Streaming};
use weir_proto::v1;

use super::{
    Connection,
    document::counters,
    errors::{FilterArgs, Place, parse_place},
};
use crate::{
    exit::{Failure, Outcome, Reason},
    output::{self, facts, number},
};

/// Time for the jobmanager to begin, and for it to say anything: it does so twice a second.
const SILENCE: Duration = Duration::from_secs(60);

/// `weir errors replay`
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Only these, by their places in the error topic as listed, `PARTITION:OFFSET`
    #[arg(value_parser = parse_place, value_name = "ERROR")]
    errors: Vec<Place>,
    /// Which
    #[command(flatten)]
    filter: FilterArgs,
    /// All errors that the error topic holds: needed where nothing else says which
    #[arg(long)]
    all: bool,
    /// At most so many, the oldest of each partition first
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "COUNT")]
    limit: u64,
    /// Inputs a second
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Those too that were replayed before: their output comes once more
    #[arg(long)]
    again: bool,
    /// Count them by type, do nothing
    #[arg(long)]
    dry_run: bool,
    /// End when all inputs are handed to the job, do not wait for what becomes of them
    #[arg(long)]
    no_wait: bool,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// Asks for it and follows it to its end.
pub(super) async fn replay(args: ReplayArgs) -> Outcome {
    if args.errors.is_empty() && args.filter.is_empty() && !args.all {
        return Err(Failure::usage(
            "say which errors: places as listed, --from, --to, --type, --wiki, --source, or --all; --dry-run counts them",
        ));
    }
    let position = |place: &Place| v1::ErrorPosition { partition: place.0, offset: place.1 };
    let request = v1::ReplayErrorsRequest {
        filter: Some(args.filter.to_proto()),
        positions: args.errors.iter().map(position).collect(),
        per_second: args.rate,
        limit: args.limit,
        again: args.again,
        dry_run: args.dry_run,
        no_wait: args.no_wait,
    };
    let mut steps = args.connection.call(SILENCE, async |client| client.replay_errors(request.clone()).await).await?;
    let mut last = v1::ReplayErrorsResponse::default();
    let interrupted = tokio::select! {
        followed = follow(&args.connection, &mut steps, &mut last) => followed.map(|()| false)?,
        _ = tokio::signal::ctrl_c() => true,
    };
    // The jobmanager stops when this end of the stream is gone.
    drop(steps);
    let _ = Term::stderr().clear_line();
    output::show(args.connection.output, &document(&last, args.dry_run), || text(&last, args.dry_run))?;
    if interrupted {
        let message =
            "interrupted: what is written is done by the job all the same; the same command goes on behind it";
        return Err(Failure::new(Reason::Failed, message));
    }
    match (last.lost, last.too_large) {
        (0, 0) => Ok(()),
        (lost, too_large) => Err(Failure::new(
            Reason::Failed,
            format!(
                "{} inputs could not be replayed: {lost} are gone from the source, and their error events hold only a part; \
                 {too_large} are too large for the replay topic",
                lost + too_large
            ),
        )),
    }
}

async fn follow(
    connection: &Connection,
    steps: &mut Streaming<v1::ReplayErrorsResponse>,
    last: &mut v1::ReplayErrorsResponse,
) -> Outcome {
    let stderr = Term::stderr();
    loop {
        let step = tokio::time::timeout(SILENCE, steps.message()).await.map_err(|_| {
            Failure::new(Reason::Unreachable, format!("the jobmanager has said nothing for {SILENCE:?}"))
        })?;
        let ended = || {
            let message = "the jobmanager ended before the replay did; the same command goes on behind what is written";
            Failure::new(Reason::Unreachable, message)
        };
        match step {
            Ok(Some(step)) => *last = step,
            Ok(None) if last.phase == "DONE" => return Ok(()),
            Ok(None) => return Err(ended()),
            // A stream that breaks has no status of the jobmanager's.
            Err(status) if status.code() == Code::Unknown => return Err(ended()),
            Err(status) => return Err(Failure::of_status(&connection.jobmanager, &status)),
        }
        if stderr.is_term() && last.phase != "DONE" {
            let _ = stderr.clear_line();
            let _ = stderr.write_str(&line(last));
        }
    }
}

fn line(step: &v1::ReplayErrorsResponse) -> String {
    match step.phase.as_str() {
        "COUNTING" => format!("looking: {} error events, {} to replay", number(step.looked_at), number(step.chosen)),
        "WRITING" => format!("writing: {} of {}", number(step.written), number(step.chosen)),
        _ => format!("enriching: at most {} left, job {}", number(step.remaining), step.job_state),
    }
}

fn document(end: &v1::ReplayErrorsResponse, dry_run: bool) -> Value {
    let place = |at: &v1::ErrorPosition| json!({ "partition": at.partition, "offset": at.offset });
    json!({
        "dry_run": dry_run,
        "finished": end.phase == "DONE",
        "looked_at": end.looked_at,
        "chosen": end.chosen,
        "chosen_by_type": by_type(end),
        "replayed_before": end.replayed_before,
        "written": end.written,
        "lost": end.lost,
        "lost_errors": end.lost_errors.iter().map(place).collect::<Vec<_>>(),
        "too_large": end.too_large,
        "outcome": counters(end.outcome.as_ref()),
    })
}

fn by_type(end: &v1::ReplayErrorsResponse) -> BTreeMap<&String, &u64> {
    end.chosen_by_type.iter().collect()
}

fn text(end: &v1::ReplayErrorsResponse, dry_run: bool) -> String {
    let mut lines = vec![
        ("Error events read", number(end.looked_at)),
        ("Replayed before", number(end.replayed_before)),
        (if dry_run { "Would be replayed" } else { "To replay" }, number(end.chosen)),
    ];
    let types: Vec<(String, String)> =
        by_type(end).into_iter().map(|(kind, count)| (format!("  {kind}"), number(count))).collect();
    lines.extend(types.iter().map(|(kind, count)| (kind.as_str(), count.clone())));
    if !dry_run {
        let outcome = end.outcome.unwrap_or_default();
        lines.extend([
            ("Written", number(end.written)),
            ("Finished", number(outcome.consumed)),
            ("  enriched", number(outcome.enriched)),
            ("  passed through", number(outcome.passed_through)),
            ("  errors again", number(outcome.errors)),
            ("  dropped", number(outcome.dropped)),
        ]);
    }
    let lost: Vec<String> = end.lost_errors.iter().map(|at| format!("{}:{}", at.partition, at.offset)).collect();
    if !lost.is_empty() {
        lines.push(("Input lost", format!("{}: {}", number(end.lost), lost.join(" "))));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_with_what_became_of_it() {
        let end = v1::ReplayErrorsResponse {
            phase: "DONE".to_owned(),
            chosen: 1200,
            chosen_by_type: [("Timeout".to_owned(), 1000), ("BadRevision".to_owned(), 200)].into(),
            written: 1199,
            lost: 1,
            lost_errors: vec![v1::ErrorPosition { partition: 0, offset: 7 }],
            outcome: Some(v1::SplitCounters { consumed: 1199, enriched: 1100, errors: 99, ..Default::default() }),
            ..Default::default()
        };
        let shown = text(&end, false);
        let at = |part: &str| shown.find(part).unwrap_or_else(|| panic!("no {part} in {shown}"));
        assert!(at("BadRevision") < at("Timeout") && at("Timeout") < at("Written"), "{shown}");
        assert!(shown.contains("1 199") && shown.contains("1: 0:7"), "{shown}");
        assert!(!text(&end, true).contains("Written"));
        let document = document(&end, false);
        assert_eq!((&document["finished"], &document["outcome"]["errors"]), (&json!(true), &json!(99)));
    }

    #[tokio::test]
    async fn nothing_is_replayed_unless_it_is_said_what() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: ReplayArgs,
        }
        let parse = |words: &[&str]| {
            let line =
                <Line as clap::Parser>::try_parse_from([&["replay", "--jobmanager", "127.0.0.1:1"], words].concat());
            line.expect("a command line").args
        };
        assert_eq!(replay(parse(&[])).await.expect_err("nothing is meant").reason, Reason::Usage);
        for words in [&["--all"][..], &["0:7"], &["--type", "Timeout"], &["--from", "1 h"]] {
            assert_eq!(
                replay(parse(words)).await.expect_err("nobody is there").reason,
                Reason::Unreachable,
                "{words:?}"
            );
        }
    }
}
