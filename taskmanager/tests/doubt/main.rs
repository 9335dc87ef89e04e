//! What the doubt rule is for: transactions that are disturbed on the wire, on a real broker.
//!
//! Several writers, each with a transactional id of its own, write small transactions through a proxy that knows Kafka's
//! requests and harms those that a transaction consists of: lost before delivery, answer lost, delivered after the
//! client has gone on, held past the client's socket time-out, half delivered, answer held back. Then everything is
//! read back: each record once, each key in order, progress where it was said to be.
//!
//! The same is done with the sink's real writer over [`Textbook`], a producer that handles every failed call as
//! librdkafka's manual has it and believes every Ok. Records are lost and doubled there.

mod textbook;
mod trial;
mod verdict;

use std::{env, time::Duration};

use weir_taskmanager::engine::KafkaOutput;
use weir_tests::harness::{parts::ProxiedKafka, workspace::Workspace};

use self::{textbook::Textbook, trial::Trial, verdict::Verdict};

/// Longer than any cut, so that a slow one is not in doubt for that alone.
const NEVER: Duration = Duration::from_secs(3600);

/// So many disturbed transactions show all that can go wrong.
const MANY: u64 = 2000;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A broker for one trial, and what is gone when it ends.
struct Broker {
    workspace: Workspace,
    kafka: Option<ProxiedKafka>,
}

impl Broker {
    async fn up(folder: &str) -> Self {
        let workspace = Workspace::without_programs().expect("a folder");
        let kafka = ProxiedKafka::up(&workspace, folder).await.expect("a broker");
        Self { workspace, kafka: Some(kafka) }
    }

    fn kafka(&self) -> &ProxiedKafka {
        self.kafka.as_ref().expect("up until it is dropped")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kafka.take();
        self.workspace.clear();
    }
}

fn tell(name: &str, verdict: &Verdict) {
    eprintln!("\n{name}\n{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a real broker"]
async fn with_the_rule_disturbed_transactions_are_exact() {
    let broker = Broker::up("kafka-doubt").await;
    let trial = Trial {
        name: "doubt",
        seed: number("WEIR_DOUBT_SEED", 1),
        disturbed: number("WEIR_DOUBT_TRANSACTIONS", 200),
        slow: Duration::from_secs(2),
    };
    let verdict = trial
        .run(broker.kafka(), |config, job, slot| KafkaOutput::new(config, job, slot).expect("settings that are taken"))
        .await;
    tell("with the doubt rule", &verdict);
    assert!(verdict.is_exact(), "with the doubt rule nothing is lost, doubled or out of order");
    assert!(verdict.disturbed >= trial.disturbed, "as many transactions as were asked for were disturbed");
    assert!(verdict.recycles() > 0, "transactions in doubt end with a new producer");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a real broker"]
async fn without_it_records_are_lost_and_doubled() {
    let broker = Broker::up("kafka-textbook").await;
    let trial = Trial {
        name: "textbook",
        seed: number("WEIR_DOUBT_SEED", 1),
        disturbed: number("WEIR_DOUBT_WITHOUT", 200),
        slow: NEVER,
    };
    let verdict = trial.run(broker.kafka(), Textbook::new).await;
    tell("without it", &verdict);
    assert!(verdict.doubled > 0, "without the rule records are doubled");
    // Rarer: a late abort has to come between the last record and the progress of another transaction.
    assert!(verdict.lost > 0 || trial.disturbed < MANY, "without the rule records are lost");
}
