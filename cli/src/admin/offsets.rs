//! `weir savepoint export|import`: savepoints as plain Kafka offsets.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;
use weir_proto::v1::{self, import_savepoint_request::From};

use super::{Connection, commands::SLOW, document, progress};
use crate::{
    exit::{Failure, Outcome},
    output::{self, number, table},
};

/// What a file of offsets says it is.
const FORMAT: &str = "weir-offsets";
const VERSION: u32 = 1;

/// `weir savepoint export`
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Its location as listed, its id or its label; an offset cut
    savepoint: String,
    /// Write it to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Form of the offsets
    #[arg(long = "as", value_enum, default_value_t, value_name = "FORM")]
    form: Form,
    /// Also commit the offsets to this consumer group on the source cluster, which must have no members
    #[arg(long, default_value = "", value_name = "GROUP")]
    group: String,
    /// Whom to ask
    #[command(flatten)]
    connection: Connection,
}

/// `weir savepoint import`
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What `weir savepoint export` wrote, or lines `topic,partition,offset`; `-` reads stdin
    #[arg(required_unless_present = "group", conflicts_with = "group")]
    file: Option<PathBuf>,
    /// Take what this consumer group has committed on the source cluster
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Becomes part of its name: letters, digits, `-`, `_`
    #[arg(long, default_value = "")]
    label: String,
    /// Whom to ask, and how to print
    #[command(flatten)]
    connection: Connection,
}

/// How offsets are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One document, which `import` reads
    #[default]
    Json,
    /// `topic,partition,offset` lines, for kafka-consumer-groups --reset-offsets --from-file
    Csv,
    /// Flink's scan.startup.specific-offsets, for each topic
    Flink,
}

/// The document of `export`.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: String,
    version: u32,
    job_name: String,
    savepoint: String,
    checkpoint_id: u64,
    bootstrap_servers: String,
    offsets: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    topic: String,
    partition: i32,
    offset: i64,
}

/// Prints or writes an offset cut as plain offsets.
pub(super) async fn export(args: ExportArgs) -> Outcome {
    let request = v1::ExportSavepointRequest { savepoint: args.savepoint, group: args.group.clone() };
    let exported = args.connection.call(SLOW, async |client| client.export_savepoint(request.clone()).await).await?;
    let text = written(&exported, args.form)?;
    if !args.group.is_empty() {
        eprintln!("committed to group {} at {}", args.group, exported.bootstrap_servers);
    }
    let Some(file) = args.to else { return output::print(text.trim_end()) };
    std::fs::write(&file, text)
        .map_err(|error| Failure::usage(format!("`{}` cannot be written: {error} (--to)", file.display())))?;
    let partitions = exported.offsets.len();
    let document = json!({ "written": file.display().to_string(), "partitions": partitions });
    output::show(args.connection.output, &document, || {
        format!("{}: the offsets of {partitions} partitions", file.display())
    })
}

fn written(exported: &v1::ExportSavepointResponse, form: Form) -> Outcome<String> {
    let offsets = &exported.offsets;
    Ok(match form {
        Form::Json => {
            let savepoint = exported.savepoint.clone().unwrap_or_default();
            let entry = |each: &v1::PartitionOffset| Entry {
                topic: each.topic.clone(),
                partition: each.partition,
                offset: each.offset,
            };
            let document = Document {
                format: FORMAT.to_owned(),
                version: VERSION,
                job_name: exported.job_name.clone(),
                savepoint: savepoint.location,
                checkpoint_id: savepoint.checkpoint_id,
                bootstrap_servers: exported.bootstrap_servers.clone(),
                offsets: offsets.iter().map(entry).collect(),
            };
            serde_json::to_string_pretty(&document).map_err(anyhow::Error::from)? + "\n"
        }
        Form::Csv => offsets.iter().fold(String::new(), |mut text, each| {
            let _ = writeln!(text, "{},{},{}", each.topic, each.partition, each.offset);
            text
        }),
        Form::Flink => {
            let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for each in offsets {
                let entry = format!("partition:{},offset:{}", each.partition, each.offset);
                topics.entry(&each.topic).or_default().push(entry);
            }
            topics.iter().fold(String::new(), |mut text, (topic, entries)| {
                let _ = writeln!(text, "# {topic}\nscan.startup.specific-offsets: {}", entries.join(";"));
                text
            })
        }
    })
}

/// Makes a savepoint from plain offsets.
pub(super) async fn import(args: ImportArgs) -> Outcome {
    let from = match (args.group, args.file) {
        (Some(group), _) => From::Group(group),
        (None, Some(file)) => From::Offsets(v1::ResetOffsets { offsets: read(&file)? }),
        (None, None) => return Err(Failure::usage("name a file of offsets, or a consumer group (--group)")),
    };
    let request = v1::ImportSavepointRequest { label: args.label, from: Some(from) };
    let call = args.connection.call(SLOW, async |client| client.import_savepoint(request.clone()).await);
    let imported = progress::during("importing", call).await?;
    let savepoint = imported.savepoint.unwrap_or_default();
    let partitions = imported.partitions.iter().map(|each| {
        json!({
            "topic": each.topic,
            "partition": each.partition,
            "offset": each.offset,
            "cursor": each.cursor,
        })
    });
    let document = json!({
        "savepoint": document::checkpoint(&savepoint),
        "partitions": partitions.collect::<Vec<_>>(),
    });
    output::show(args.connection.output, &document, || {
        let mut table = table(&["PARTITION", ">OFFSET", ">JOB IS AT", ">RESTORE GOES BY"]);
        for each in &imported.partitions {
            table.add_row([
                format!("{}-{}", each.topic, each.partition),
                each.offset.to_string(),
                each.cursor.to_string(),
                number(each.offset - each.cursor),
            ]);
        }
        let (id, location) = (savepoint.checkpoint_id, &savepoint.location);
        format!("imported as savepoint {id}: {location}\n`weir restore {location}` goes there\n\n{}", table.trim_fmt())
    })
}

fn read(file: &Path) -> Outcome<Vec<v1::PartitionOffset>> {
    let failed = |error: std::io::Error| Failure::usage(format!("`{}` cannot be read: {error}", file.display()));
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map_err(failed)?;
        text
    } else {
        std::fs::read_to_string(file).map_err(failed)?
    };
    parse(&text).map_err(|reason| Failure::usage(format!("`{}`: {reason}", file.display())))
}

/// The document of `export`, or lines `topic,partition,offset`, as Kafka's own tool writes them.
fn parse(text: &str) -> Result<Vec<v1::PartitionOffset>, String> {
    let entries: Vec<Entry> = if text.trim_start().starts_with('{') {
        let document: Document = serde_json::from_str(text)
            .map_err(|error| format!("is not what `weir savepoint export` writes: {error}"))?;
        if document.format != FORMAT || document.version != VERSION {
            return Err(format!(
                "has format {} {}, this build reads {FORMAT} {VERSION}; use the Weir version that wrote it",
                document.format, document.version
            ));
        }
        document.offsets
    } else {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| entry(line).ok_or_else(|| format!("`{line}` is not `topic,partition,offset`")))
            .collect::<Result<_, _>>()?
    };
    if entries.is_empty() {
        return Err("names no offsets".to_owned());
    }
    let offset = |Entry { topic, partition, offset }| v1::PartitionOffset { topic, partition, offset };
    Ok(entries.into_iter().map(offset).collect())
}

fn entry(line: &str) -> Option<Entry> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let (topic, partition, offset) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (fields.next().is_none() && !topic.is_empty()).then(|| Entry { topic: topic.to_owned(), partition, offset })
}

/// `offsets[]` of a cut that was just taken.
pub(super) fn document_of(offsets: &[v1::PartitionOffset]) -> serde_json::Value {
    offsets.iter().map(document::offset).collect()
}

/// The same for people; empty where there are none.
pub(super) fn table_of(offsets: &[v1::PartitionOffset]) -> String {
    if offsets.is_empty() {
        return String::new();
    }
    let mut table = table(&["PARTITION", ">OFFSET"]);
    for each in offsets {
        table.add_row([format!("{}-{}", each.topic, each.partition), each.offset.to_string()]);
    }
    format!("\n\n{}", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(topic: &str, partition: i32, offset: i64) -> v1::PartitionOffset {
        v1::PartitionOffset { topic: topic.to_owned(), partition, offset }
    }

    fn exported() -> v1::ExportSavepointResponse {
        v1::ExportSavepointResponse {
            savepoint: None,
            job_name: "job".to_owned(),
            bootstrap_servers: "kafka:9092".to_owned(),
            offsets: vec![offset("a", 0, 42), offset("a", 1, 300), offset("b", 0, 7)],
        }
    }

    #[test]
    fn what_is_exported_is_imported_in_each_form_that_can_be() {
        for form in [Form::Json, Form::Csv] {
            let text = written(&exported(), form).expect("written");
            assert_eq!(parse(&text), Ok(exported().offsets), "{form:?}: {text}");
        }
        let flink = written(&exported(), Form::Flink).expect("written");
        let expected = "# a\nscan.startup.specific-offsets: partition:0,offset:42;partition:1,offset:300\n\
                        # b\nscan.startup.specific-offsets: partition:0,offset:7\n";
        assert_eq!(flink, expected);
    }

    #[test]
    fn kafka_s_own_tool_s_file_is_read_and_others_are_refused_with_the_reason() {
        assert_eq!(parse("# x\n\"a\",0,42\n a , 1 , 300 \n"), Ok(vec![offset("a", 0, 42), offset("a", 1, 300)]));
        for (text, reason) in [
            ("", "names no offsets"),
            ("a,0", "`a,0` is not"),
            ("a,0,x", "is not `topic,partition,offset`"),
            ("a,0,1,2", "is not"),
            ("{}", "is not what"),
            (
                r#"{"format":"weir-offsets","version":2,"job_name":"","savepoint":"","checkpoint_id":1,"bootstrap_servers":"","offsets":[]}"#,
                "has format weir-offsets 2",
            ),
        ] {
            assert!(parse(text).is_err_and(|error| error.contains(reason)), "{text}: {:?}", parse(text));
        }
    }
}
