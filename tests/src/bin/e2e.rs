//! Runs the end-to-end cases: `e2e [--list] [--keep] [CASE...]`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::{StreamExt, stream};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
};
use weir_tests::{
    cases::{Case, Environment, all, alone},
    harness::{
        process::tail,
        workspace::{Workspace, end_all_of},
    },
};

/// Cases at a time: two cores, and a case waits most of the time.
const PARALLEL: usize = 2;

struct Report {
    name: &'static str,
    took: Duration,
    result: anyhow::Result<()>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    if flag("--list") {
        all().iter().chain(&alone()).for_each(|case| println!("{:22} {}", case.name, case.about));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = names.iter().find(|name| !all().iter().chain(&alone()).any(|case| case.name == **name)) {
        anyhow::bail!("no case is called {unknown}; e2e --list names them");
    }
    let wanted = |case: &Case| names.is_empty() || names.iter().any(|name| *name == case.name);
    let (cases, last) = (all().into_iter().filter(wanted).collect(), alone().into_iter().filter(wanted).collect());
    let workspace = Workspace::new()?;
    let environment = Arc::new(Environment::new(workspace.clone()));
    let reports = tokio::select! {
        reports = run_all(cases, last, &environment) => reports,
        () = asked_to_stop()? => {
            workspace.clear();
            std::process::exit(130);
        }
    };
    // Ends brokers, storage and wikis by their own scripts.
    tokio::task::spawn_blocking(move || drop(environment)).await.context("clearing up")?;
    print(&reports, &workspace);
    let failed = reports.iter().any(|report| report.result.is_err());
    if failed || flag("--keep") {
        end_all_of(&workspace.run);
        println!("logs are in {}", workspace.run.display());
    } else {
        workspace.clear();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn run_all(cases: Vec<Case>, last: Vec<Case>, environment: &Arc<Environment>) -> Vec<Report> {
    let mut reports = run(cases, PARALLEL, environment).await;
    reports.extend(run(last, 1, environment).await);
    reports
}

async fn run(cases: Vec<Case>, parallel: usize, environment: &Arc<Environment>) -> Vec<Report> {
    stream::iter(cases)
        .map(|case| async move {
            let started = Instant::now();
            eprintln!("[{}] starts: {}", case.name, case.about);
            let environment = Arc::clone(environment);
            // A thread of its own: reading and checking topics of one case must not hold up the other's clock.
            let result = tokio::task::spawn_blocking(move || {
                Handle::current().block_on(async move {
                    match tokio::time::timeout(case.limit, (case.run)(environment)).await {
                        Ok(result) => result,
                        Err(_) => Err(anyhow::anyhow!("not finished after {:?}", case.limit)),
                    }
                })
            });
            let result = result.await.unwrap_or_else(|panic| Err(anyhow::anyhow!("{panic}")));
            let took = started.elapsed();
            let word = if result.is_ok() { "passed" } else { "FAILED" };
            eprintln!("[{}] {word} after {:.1} s", case.name, took.as_secs_f64());
            Report { name: case.name, took, result }
        })
        .buffer_unordered(parallel)
        .collect()
        .await
}

fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("interrupted; ending what was started");
    })
}

/// Prints failures with the ends of their logs, then the table.
fn print(reports: &[Report], workspace: &Workspace) {
    for report in reports {
        let Err(why) = &report.result else { continue };
        println!("\n=== {} FAILED: {why:#}", report.name);
        let logs = std::fs::read_dir(workspace.run.join(report.name)).into_iter().flatten().flatten();
        for log in logs.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")) {
            let end = tail(&log, 12);
            if !end.is_empty() {
                println!("--- {}\n{end}", log.display());
            }
        }
    }
    println!("\n{:22} {:>8}  result", "case", "seconds");
    for report in reports {
        let word = if report.result.is_ok() { "passed" } else { "FAILED" };
        println!("{:22} {:8.1}  {word}", report.name, report.took.as_secs_f64());
    }
    let failed = reports.iter().filter(|report| report.result.is_err()).count();
    println!("{} cases, {failed} failed", reports.len());
    // Once more, for those who see only the end of a log.
    for report in reports {
        if let Err(why) = &report.result {
            println!("{}: {}", report.name, shortened(&format!("{why:#}")));
        }
    }
}

/// At most as much as a person reads at once.
fn shortened(text: &str) -> String {
    const CHARACTERS: usize = 1500;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
