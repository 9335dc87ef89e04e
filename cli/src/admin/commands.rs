//! One function for each admin command.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use weir_proto::v1;

use super::{
    Connection, document,
    offsets::{self, ExportArgs, ImportArgs},
    progress, tables,
};
use crate::{
    exit::Outcome,
    output::{self, Format, number},
};

/// Time for what only reads the jobmanager's memory.
pub(super) const QUICK: Duration = Duration::from_secs(10);

/// Time for what takes a snapshot or moves all splits: `checkpoint.timeout` is 10 min unless set otherwise.
pub(super) const SLOW: Duration = Duration::from_secs(900);

/// `weir checkpoints`
#[derive(Debug, clap::Args)]
pub struct CheckpointsArgs {
    /// Newest ones to show
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub limit: u32,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// `weir savepoint …`
#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// Take a savepoint of the running job
    Trigger {
        /// Becomes part of its name: letters, digits, `-`, `_`
        #[arg(long, default_value = "")]
        label: String,
        /// Bring every partition to one plain offset first, so that any consumer can go on from it, and a start with
        /// another number of splits too. Nothing above it is read meanwhile
        #[arg(long)]
        offset_cut: bool,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Print an offset cut as plain Kafka offsets
    Export(ExportArgs),
    /// Make a savepoint from plain Kafka offsets; `weir restore` goes there
    Import(ImportArgs),
    /// List savepoints, newest first
    List {
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Print a savepoint as it is stored
    Show {
        /// Its location as listed, or its id
        savepoint: String,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete a savepoint
    Dispose {
        /// Its location as listed, or its id
        savepoint: String,
        /// Whom to ask, and how to print
        #[command(flatten)]
        connection: Connection,
    },
}

/// `weir stop --with-savepoint`
#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Take a savepoint, release every split, end the job. The only way to stop for now, so it has to be said
    #[arg(long, required = true)]
    pub with_savepoint: bool,
    /// Becomes part of the savepoint's name: letters, digits, `-`, `_`
    #[arg(long, default_value = "")]
    pub label: String,
    /// Bring every partition to one plain offset first, as in `weir savepoint trigger`
    #[arg(long)]
    pub offset_cut: bool,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// `weir restore`
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// The savepoint's location as listed, or its id
    pub savepoint: String,
    /// Go back although output beyond the savepoint exists: those records are written once more
    #[arg(long)]
    pub allow_replay: bool,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// The job at a glance.
pub async fn status(connection: &Connection) -> Outcome {
    let status = connection.call(QUICK, async |client| client.get_status(v1::GetStatusRequest {}).await).await?;
    output::show(connection.output, &document::status(&status), || tables::status(&status))
}

/// Who works.
pub async fn taskmanagers(connection: &Connection) -> Outcome {
    let request = v1::ListTaskManagersRequest {};
    let list = connection.call(QUICK, async |client| client.list_task_managers(request).await).await?.taskmanagers;
    let document = json!({ "taskmanagers": list.iter().map(document::taskmanager).collect::<Vec<_>>() });
    output::show(connection.output, &document, || tables::taskmanagers(&list))
}

/// Who has what, and how far it is.
pub async fn splits(connection: &Connection) -> Outcome {
    let list = connection.call(QUICK, async |client| client.list_splits(v1::ListSplitsRequest {}).await).await?.splits;
    let document = json!({ "splits": list.iter().map(document::split).collect::<Vec<_>>() });
    output::show(connection.output, &document, || tables::splits(&list))
}

/// The newest checkpoints and savepoints of this leadership.
pub async fn checkpoints(args: &CheckpointsArgs) -> Outcome {
    let request = v1::ListCheckpointsRequest { limit: args.limit };
    let list = args.connection.call(QUICK, async |client| client.list_checkpoints(request).await).await?.checkpoints;
    show_checkpoints(args.connection.output, "checkpoints", &list)
}

/// Savepoints: take, list, show, delete.
pub async fn savepoint(command: SavepointCommand) -> Outcome {
    match command {
        SavepointCommand::Trigger { label, offset_cut, connection } => {
            let request = v1::TriggerSavepointRequest { label, offset_cut };
            let call = connection.call(SLOW, async |client| client.trigger_savepoint(request.clone()).await);
            let taken = progress::during("taking a savepoint", call).await?;
            show_savepoint(connection.output, "savepoint", taken.savepoint.as_ref(), &taken.offsets)
        }
        SavepointCommand::Export(args) => offsets::export(args).await,
        SavepointCommand::Import(args) => offsets::import(args).await,
        SavepointCommand::List { connection } => {
            let request = v1::ListSavepointsRequest {};
            let list = connection.call(QUICK, async |client| client.list_savepoints(request).await).await?.savepoints;
            show_checkpoints(connection.output, "savepoints", &list)
        }
        SavepointCommand::Show { savepoint, connection } => {
            let request = v1::GetSavepointRequest { savepoint };
            let found = connection.call(QUICK, async |client| client.get_savepoint(request.clone()).await).await?;
            // The object is JSON already: both forms print it as it is stored.
            output::print(found.json.trim_end())
        }
        SavepointCommand::Dispose { savepoint, connection } => {
            let request = v1::DisposeSavepointRequest { savepoint };
            let gone =
                connection.call(QUICK, async |client| client.dispose_savepoint(request.clone()).await).await?.location;
            output::show(connection.output, &json!({ "disposed": gone }), || format!("deleted {gone}"))
        }
    }
}

/// Ends the job with a savepoint.
pub async fn stop(args: StopArgs) -> Outcome {
    let request = v1::StopWithSavepointRequest { label: args.label, offset_cut: args.offset_cut };
    let call = args.connection.call(SLOW, async |client| client.stop_with_savepoint(request.clone()).await);
    let taken = progress::during("stopping with a savepoint", call).await?;
    show_savepoint(args.connection.output, "stopped with savepoint", taken.savepoint.as_ref(), &taken.offsets)
}

/// Moves the job to a savepoint.
pub async fn restore(args: RestoreArgs) -> Outcome {
    let request = v1::RestoreRequest { savepoint: args.savepoint, allow_replay: args.allow_replay };
    let call = args.connection.call(SLOW, async |client| client.restore(request.clone()).await);
    let answer = progress::during("restoring", call).await?;
    output::show(args.connection.output, &document::restore(&answer), || tables::restore(&answer))
}

fn show_checkpoints(format: Format, name: &str, list: &[v1::CheckpointInfo]) -> Outcome {
    let document = json!({ name: list.iter().map(document::checkpoint).collect::<Vec<_>>() });
    output::show(format, &document, || tables::checkpoints(list))
}

/// `cut`: the offsets of an offset cut.
fn show_savepoint(
    format: Format,
    what: &str,
    taken: Option<&v1::CheckpointInfo>,
    cut: &[v1::PartitionOffset],
) -> Outcome {
    let mut document = json!({ "savepoint": taken.map_or(Value::Null, document::checkpoint) });
    if !cut.is_empty() {
        document["offsets"] = offsets::document_of(cut);
    }
    output::show(format, &document, || {
        let taken = taken.cloned().unwrap_or_default();
        let (id, location, bytes) = (taken.checkpoint_id, taken.location, number(taken.size_bytes));
        format!("{what} {id}: {location} ({bytes} bytes){}", offsets::table_of(cut))
    })
}
