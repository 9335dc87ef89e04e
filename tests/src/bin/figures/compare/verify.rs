//! Whether what a run produced is each input once, and each page's events in their order: a figure of anything else would be
//! a figure of nothing.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, ensure};
use rdkafka::{Message as _, message::Headers as _};
use weir_tests::checker::read;

/// Reads the committed output of `count` inputs of one topic.
///
/// # Errors
/// One is missing, there twice, without content or before an earlier one of its page; the topic cannot be read.
pub(crate) fn once_and_in_order(bootstrap: &str, topic: &str, count: usize) -> anyhow::Result<()> {
    let mut seen: HashSet<(i32, i64)> = HashSet::with_capacity(count);
    let mut newest: HashMap<Vec<u8>, i64> = HashMap::new();
    read::each(bootstrap, topic, |record| {
        let header = |name: &str| {
            let headers = record.headers()?.iter().find(|header| header.key == name)?.value?;
            std::str::from_utf8(headers).ok()?.parse::<i64>().ok()
        };
        let partition =
            header("weir-source-partition").context("an output without the header of its partition")? as i32;
        let offset = header("weir-source-offset").context("an output without the header of its offset")?;
        ensure!(seen.insert((partition, offset)), "input {partition}/{offset} came out twice");
        let key = record.key().context("an output without key")?.to_vec();
        let before = newest.insert(key, offset).unwrap_or(-1);
        ensure!(before < offset, "input {partition}/{offset} came out after {before} of its page");
        let body = br#""content_body":""#;
        let value = record.payload().unwrap_or_default();
        ensure!(value.windows(body.len()).any(|part| part == body), "input {partition}/{offset} has no content");
        Ok(())
    })?;
    ensure!(seen.len() == count, "{} of {count} inputs came out", seen.len());
    Ok(())
}
