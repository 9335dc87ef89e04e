//! What the checker says of a job.

use std::{collections::HashSet, fmt::Write as _, time::Instant};

use anyhow::ensure;
use weir_proto::v1::SplitInfo;

use super::{CANARY, Job, Overrides, no_overrides};
use crate::{
    checker::{
        self, Evidence, Record, Rule, Verdict,
        conservation::{self, Counted, Counts},
        read,
        schema::Schemas,
        truth::Truth,
    },
    harness::kafka::Input,
};

impl Job {
    /// Reads everything and judges it.
    ///
    /// # Errors
    /// The verdict is not clean, or topics cannot be read.
    pub async fn verdict(&self, truth: &dyn Truth, overrides: &Overrides<'_>) -> anyhow::Result<Verdict> {
        let verdict = self.judge(truth, overrides).await?;
        ensure!(verdict.is_clean(), "the checker found violations: {verdict}");
        Ok(verdict)
    }

    /// Reads everything and judges it, whatever the verdict.
    ///
    /// # Errors
    /// Topics cannot be read.
    pub async fn judge(&self, truth: &dyn Truth, overrides: &Overrides<'_>) -> anyhow::Result<Verdict> {
        let started = Instant::now();
        let inputs = self.inputs().await?;
        let (sink, sink_topic, error_topic) = (self.spec.sink.clone(), self.sink_topic(), self.error_topic());
        let (outputs, errors) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            Ok((read::topic(&sink, &sink_topic)?, read::topic(&sink, &error_topic)?))
        })
        .await??;
        let job = checker::Job {
            sink_stream: self.stream("enriched"),
            error_stream: self.stream("error"),
            source_stream: self.stream("reconcile"),
            sink_schema: "/mediawiki/page/change/1.2.0".to_owned(),
            redirect_targets: !self.spec.page_content_change,
            exactly_once: self.spec.exactly_once,
            overrides: overrides(&inputs),
        };
        let schemas = Schemas::load(&self.workspace.fixtures().join("schemas/jsonschema"))?;
        let evidence = Evidence { inputs: &inputs, outputs: &outputs, errors: &errors };
        let mut verdict = checker::check(&job, &evidence, truth, &schemas);
        if self.spec.exactly_once {
            conservation::check(&job, &evidence, &self.counts(), &mut verdict);
        }
        self.say(&format!("checked in {:.1} s: {verdict}", started.elapsed().as_secs_f64()));
        if verdict.violations.iter().any(|violation| violation.rule == Rule::Lost) {
            self.tell_of_lost(&inputs, &outputs).await?;
        }
        let found = verdict.violations.iter().map(|violation| format!("{:?}: {}\n", violation.rule, violation.what));
        std::fs::write(self.folder.join("violations.txt"), found.collect::<String>())?;
        Ok(verdict)
    }

    /// Reads everything and judges it: `again` were done twice, each with one repeat but for canaries, which leave no trace,
    /// and nothing else may be wrong.
    ///
    /// # Errors
    /// Another number of repeats, other violations, or topics cannot be read.
    pub async fn judge_repeats(&self, truth: &dyn Truth, again: &[Input]) -> anyhow::Result<()> {
        let is_canary =
            |input: &&Input| String::from_utf8_lossy(input.value.as_deref().unwrap_or_default()).contains(CANARY);
        let canaries = again.iter().filter(is_canary).count();
        let found = self.judge(truth, &no_overrides).await?;
        let is_repeat = |rule| rule == Rule::Doubled || rule == Rule::Order;
        let others: Vec<_> = found.violations.iter().filter(|violation| !is_repeat(violation.rule)).collect();
        ensure!(others.is_empty(), "violations other than repeats: {others:?}");
        let (repeats, count) = (found.repeats, again.len());
        ensure!(repeats + canaries == count, "{repeats} repeats and {canaries} canaries of {count} inputs done again");
        Ok(())
    }

    /// What the product counted, in the checker's words.
    fn counts(&self) -> Vec<Counted> {
        let counted = |info: &SplitInfo| {
            let (split, counters) = (info.split.clone().unwrap_or_default(), info.counters.unwrap_or_default());
            Counted {
                topic: split.topic,
                partition: split.partition,
                split: split.index,
                key_hashes: (info.key_range_start, info.key_range_end),
                counts: Counts {
                    enriched: counters.enriched,
                    passed_through: counters.passed_through,
                    errors: counters.errors,
                    dropped: counters.dropped,
                },
            }
        };
        self.counted.iter().map(counted).collect()
    }

    /// Of lost outputs: were they written and aborted, or never written? Kept beside the logs.
    async fn tell_of_lost(&self, inputs: &[Record], outputs: &[Record]) -> anyhow::Result<()> {
        let (sink, topic) = (self.spec.sink.clone(), self.sink_topic());
        let all = tokio::task::spawn_blocking(move || read::topic_with_aborted(&sink, &topic)).await??;
        let committed: HashSet<_> = outputs.iter().filter_map(|record| record.source().ok()).collect();
        let known: HashSet<_> = inputs.iter().map(Record::position).collect();
        let mut told = String::new();
        for record in all {
            let source = record.source().map_err(anyhow::Error::msg)?;
            if known.contains(&source) && !committed.contains(&source) {
                writeln!(told, "aborted: {:?} was at {:?}", source, record.position())?;
            }
        }
        self.say(&format!("{} outputs were written and aborted, and not written again", told.lines().count()));
        std::fs::write(self.folder.join("aborted.txt"), told)?;
        let all = outputs.iter().map(|record| format!("{:?} from {:?}\n", record.position(), record.source()));
        Ok(std::fs::write(self.folder.join("outputs.txt"), all.collect::<String>())?)
    }
}
