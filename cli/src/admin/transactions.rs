//! The job's transactional ids.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use weir_proto::v1;

use super::{Connection, progress};
use crate::{
    exit::Outcome,
    output::{self, number, table},
};

/// Time for what asks Kafka.
const LISTING: Duration = Duration::from_secs(60);

/// A fence takes a second; while Kafka does not answer it is tried again.
const ABORTING: Duration = Duration::from_secs(120);

/// `weir transactions …`
#[derive(Debug, Subcommand)]
pub enum TransactionsCommand {
    /// List the job's transactional ids, and how far the sink's topics are stable
    List {
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Fence one of the job's transactional ids: what is open on it is aborted, its splits move
    Abort {
        /// The transactional id as listed, or its slot's number
        transaction: String,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
}

/// Lists them, or aborts what is open on one.
pub async fn transactions(command: TransactionsCommand) -> Outcome {
    match command {
        TransactionsCommand::List { connection } => {
            let request = v1::ListTransactionsRequest {};
            let list = connection.call(LISTING, async |client| client.list_transactions(request).await).await?;
            output::show(connection.output, &document(&list), || tables(&list))
        }
        TransactionsCommand::Abort { transaction, connection } => {
            let request = v1::AbortTransactionRequest { transaction };
            let call = connection.call(ABORTING, async |client| client.abort_transaction(request.clone()).await);
            let v1::AbortTransactionResponse { transactional_id, slot, taskmanager_id } =
                progress::during("fencing", call).await?;
            let holder = (!taskmanager_id.is_empty()).then_some(taskmanager_id);
            let document = json!({ "transactional_id": transactional_id, "slot": slot, "taskmanager_id": holder });
            output::show(connection.output, &document, || match &holder {
                None => format!("{transactional_id} is fenced; nobody had it"),
                Some(holder) => format!("{transactional_id} is fenced; taskmanager {holder} had it and gets another"),
            })
        }
    }
}

fn document(list: &v1::ListTransactionsResponse) -> Value {
    let transaction = |each: &v1::TransactionInfo| {
        json!({
            "transactional_id": each.transactional_id,
            "slot": each.slot,
            "state": each.state,
            "taskmanager_id": (!each.taskmanager_id.is_empty()).then_some(&each.taskmanager_id),
            "grant_id": (each.grant_id > 0).then_some(each.grant_id),
            "splits": each.splits,
            "last_commit_age_ms": each.last_commit_age_ms,
        })
    };
    let sink_end = |each: &v1::SinkEnd| {
        json!({
            "topic": each.topic,
            "partition": each.partition,
            "last_stable_offset": each.last_stable_offset,
            "high_watermark": each.high_watermark,
        })
    };
    json!({
        "transactions": list.transactions.iter().map(transaction).collect::<Vec<_>>(),
        "sink_ends": list.sink_ends.iter().map(sink_end).collect::<Vec<_>>(),
        "sink_ends_unknown": (!list.sink_ends_unknown.is_empty()).then_some(&list.sink_ends_unknown),
    })
}

fn tables(list: &v1::ListTransactionsResponse) -> String {
    let mut ids = table(&["TRANSACTIONAL ID", "STATE", ">SPLITS", ">LAST COMMIT", "TASKMANAGER"]);
    for each in &list.transactions {
        ids.add_row([
            each.transactional_id.clone(),
            each.state.clone(),
            each.splits.to_string(),
            each.last_commit_age_ms.map_or_else(|| "-".to_owned(), |age| format!("{:.1} s ago", age as f64 / 1000.0)),
            if each.taskmanager_id.is_empty() { "-".to_owned() } else { each.taskmanager_id.clone() },
        ]);
    }
    let ids = if list.transactions.is_empty() { "no slot was leased yet".to_owned() } else { ids.trim_fmt() };
    if !list.sink_ends_unknown.is_empty() {
        return format!("{ids}\n\nhow far the sink is stable is not known: {}", list.sink_ends_unknown);
    }
    let mut ends = table(&["SINK PARTITION", ">STABLE TO", ">END", ">NOT STABLE"]);
    for each in &list.sink_ends {
        ends.add_row([
            format!("{}-{}", each.topic, each.partition),
            each.last_stable_offset.to_string(),
            each.high_watermark.to_string(),
            number((each.high_watermark - each.last_stable_offset).max(0)),
        ]);
    }
    format!("{ids}\n\n{}", ends.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_null_and_said() {
        let list = v1::ListTransactionsResponse {
            transactions: vec![v1::TransactionInfo { state: "FREE".to_owned(), ..Default::default() }],
            sink_ends: Vec::new(),
            sink_ends_unknown: "no broker answers".to_owned(),
        };
        let document = document(&list);
        for key in ["taskmanager_id", "grant_id", "last_commit_age_ms"] {
            assert_eq!(document["transactions"][0][key], Value::Null, "{key}");
        }
        assert_eq!(document["sink_ends_unknown"], "no broker answers");
        assert!(tables(&list).contains("not known: no broker answers"));
    }

    #[test]
    fn what_is_held_back_stands_out() {
        let end = v1::SinkEnd { topic: "out".to_owned(), partition: 2, last_stable_offset: 10, high_watermark: 1510 };
        let list = v1::ListTransactionsResponse { sink_ends: vec![end], ..Default::default() };
        let text = tables(&list);
        assert!(text.contains("no slot was leased yet") && text.contains("out-2") && text.contains("1 500"), "{text}");
    }
}
