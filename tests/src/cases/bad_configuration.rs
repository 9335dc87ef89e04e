//! Mistakes in the configuration: one clear message, exit code, and no port bound.

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use super::environment::Environment;
use crate::harness::{
    job::Job,
    process::Process,
    workspace::{Workspace, free_port},
};

/// A mistake and what must be said about it.
struct Mistake {
    name: &'static str,
    /// Replaces text of the file, or adds to it.
    change: fn(&str) -> String,
    code: i32,
    /// All of these must be in the message. `LINE` stands for `weir.yaml:<line of the marker>`.
    says: &'static [&'static str],
    programs: &'static [&'static str],
}

const BOTH: &[&str] = &["weir-jobmanager", "weir-taskmanager"];
const JOBMANAGER: &[&str] = &["weir-jobmanager"];

/// The line that a mistake is on ends with this, so that the test knows its number.
const MARK: &str = "# mistake";

const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "unknown key",
        change: |yaml| yaml.replace("checkpoint:\n", &format!("checkpoint:\n  intervall: 3 s  {MARK}\n")),
        code: 2,
        says: &["checkpoint.intervall", "LINE", "interval"],
        programs: BOTH,
    },
    Mistake {
        name: "duration without unit",
        change: |yaml| yaml.replace("  timeout: 30 s\n", &format!("  timeout: 30  {MARK}\n")),
        code: 2,
        says: &["checkpoint.timeout", "LINE", "30 s"],
        programs: BOTH,
    },
    Mistake {
        name: "transaction interval and timeout contradict",
        change: |yaml| format!("{yaml}transaction:\n  interval: 30 s  {MARK}\n  timeout: 60 s\n"),
        code: 2,
        says: &["transaction.interval", "transaction.timeout", "30 s"],
        programs: BOTH,
    },
    Mistake {
        name: "heartbeat interval and timeout contradict",
        change: |yaml| yaml.replace("interval: 500 ms\n", &format!("interval: 50 s  {MARK}\n")),
        code: 2,
        says: &["heartbeat.interval", "heartbeat.timeout"],
        programs: BOTH,
    },
    Mistake {
        name: "stream configuration unreachable",
        change: |yaml| {
            let line = yaml.lines().find(|line| line.contains("stream_config_uri")).unwrap_or_default();
            yaml.replace(line, &format!("  stream_config_uri: http://127.0.0.1:9/w/api.php  {MARK}"))
        },
        code: 4,
        says: &["stream_config_uri", "127.0.0.1:9"],
        programs: JOBMANAGER,
    },
    Mistake {
        name: "topic that does not exist",
        change: |yaml| yaml.replace("      consumer_group:", "      topics: [eqiad.nosuch]\n      consumer_group:"),
        code: 2,
        says: &["eqiad.nosuch"],
        programs: JOBMANAGER,
    },
    Mistake {
        name: "wrong S3 credentials",
        change: |yaml| yaml.replace("secret_access_key: weirtestsecret", "secret_access_key: wrong"),
        code: 2,
        says: &["s3://weir/jobs", "storage"],
        programs: JOBMANAGER,
    },
    Mistake {
        name: "delivery guarantees differ",
        change: |yaml| yaml.replacen("EXACTLY_ONCE", "AT_LEAST_ONCE", 1),
        code: 2,
        says: &["delivery_guarantee"],
        programs: BOTH,
    },
    Mistake {
        name: "not YAML",
        change: |yaml| format!("{yaml}  ]: {MARK}\n"),
        code: 2,
        says: &["weir.yaml:"],
        programs: BOTH,
    },
];

pub(super) async fn table(environment: Arc<Environment>) -> anyhow::Result<()> {
    let job = environment.job("bad-configuration", "http://127.0.0.1:9/w/api.php").await?;
    let good = std::fs::read_to_string(&job.config)?;
    let mut wrong = Vec::new();
    for mistake in MISTAKES {
        let yaml = (mistake.change)(&good);
        ensure!(yaml != good, "{}: the change does not fit the file", mistake.name);
        std::fs::write(&job.config, &yaml)?;
        let line = yaml.lines().position(|line| line.ends_with(MARK)).map(|at| format!("weir.yaml:{}", at + 1));
        for program in mistake.programs {
            let says: Vec<&str> = mistake
                .says
                .iter()
                .map(|says| match (*says, &line) {
                    ("LINE", Some(line)) => line.as_str(),
                    (other, _) => other,
                })
                .collect();
            if let Err(why) = refuses(&environment.workspace, &job, program, mistake.code, &says).await {
                wrong.push(format!("{} ({program}): {why:#}", mistake.name));
            }
        }
    }
    std::fs::remove_file(&job.config)?;
    for program in BOTH {
        if let Err(why) = refuses(&environment.workspace, &job, program, 2, &["weir.yaml"]).await {
            wrong.push(format!("missing file ({program}): {why:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{} mistakes are not refused as they should be:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// Starts the program with its ports taken: a program that binds before it checks would complain about them.
async fn refuses(workspace: &Workspace, job: &Job, program: &str, code: i32, says: &[&str]) -> anyhow::Result<()> {
    let taken = TcpListener::bind(("127.0.0.1", free_port()?))?;
    let address = taken.local_addr()?.to_string();
    let mut command = Command::new(workspace.bin.join(program));
    command.arg("--config").arg(&job.config);
    for name in ["JOBMANAGER__BIND", "JOBMANAGER__HTTP_BIND", "JOBMANAGER__METRICS_BIND", "TASKMANAGER__METRICS_BIND"] {
        command.env(format!("WEIR__{name}"), &address);
    }
    let name = format!("refused-{}", uuid::Uuid::new_v4());
    let mut process = Process::start(&name, &job.folder, &mut command)?;
    let status = process.ended(Duration::from_secs(60)).await.context("it should have left at once")?;
    let text = process.text();
    ensure!(status.code() == Some(code), "{status} instead of exit code {code}: {text}");
    ensure!(!text.contains("panicked"), "panicked: {text}");
    for says in says {
        if !text.contains(says) {
            bail!("does not say `{says}`: {text}");
        }
    }
    // One message, not a page of log lines: warnings of Kafka's client may stand before it.
    ensure!(text.lines().count() <= 12, "too many words: {text}");
    Ok(())
}
