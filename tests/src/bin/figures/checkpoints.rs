//! How long a checkpoint takes, whatever the API does: from trigger to stored in S3.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use weir_tests::{cases::Environment, events::Maker, harness::until};

use super::{LIMIT, Percentiles, job};

/// As many as the jobmanager remembers.
const SAMPLES: u64 = 100;

const PER_SECOND: u32 = 300;

/// With a steady load, an API that answers at once, after a second, and never.
pub(super) async fn under_a_slow_api(environment: &Environment) -> anyhow::Result<String> {
    let mut out = format!("checkpoints, {PER_SECOND} events/s, every 500 ms\n");
    for (latency, name, about) in
        [("0", "checkpoints-0", "0 ms"), ("1 s", "checkpoints-1s", "1 s"), ("1 h", "checkpoints-hang", "hangs")]
    {
        let (mut job, stub) = job(environment, name, latency, |spec| {
            spec.environment.push(("WEIR__CHECKPOINT__INTERVAL", "500 ms"));
            spec.environment.push(("WEIR__CHECKPOINT__MIN_PAUSE", "100 ms"));
        })
        .await?;
        let inputs = Arc::new(Maker::new(3, job.source_topics()).from_stub(&stub.truth, 2000, 60_000));
        let feeding = job.feed(&inputs, PER_SECOND);
        // The first ones belong to the start.
        let begun = job.admin.status().await?.number_of_completed_checkpoints;
        until("a hundred checkpoints", LIMIT, async || {
            let status = job.admin.status().await?;
            Ok((status.number_of_completed_checkpoints >= begun + SAMPLES + 10).then_some(()))
        })
        .await?;
        feeding.abort();
        let all = job.admin.checkpoints().await?;
        let failed = all.iter().filter(|found| found.status == "FAILED").count();
        ensure!(failed == 0, "{failed} checkpoints failed");
        let completed = all.iter().filter(|found| found.status == "COMPLETED").map(|found| found.duration_us);
        out += &format!("  API {about:6} {}\n", Percentiles::of_micros(completed.collect()));
        for mut process in job.taskmanagers.drain(..).chain(job.jobmanager.take()) {
            process.kill().await?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(out)
}
