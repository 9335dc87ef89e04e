//! A process of the product.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::workspace::signal;

/// A process is gone that should run: no use in waiting for anything more.
#[derive(Debug)]
pub struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

/// A running process; killed when dropped.
pub struct Process {
    /// How the case calls it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Where its standard output and error go.
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program, its output in `<folder>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().context("a child that was just started has an id")?;
        Ok(Self { name: name.to_owned(), pid, log, child })
    }

    /// Fails when the process has ended.
    ///
    /// # Errors
    /// It has ended; the end of its log.
    pub fn must_live(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Ended(format!("{} ended with {status}:\n{}", self.name, self.tail(15))).into()),
        }
    }

    /// How it has ended; `None` while it runs.
    ///
    /// # Errors
    /// The system refuses.
    pub fn exit(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// The system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        signal(self.pid, "TERM");
        self.ended(limit).await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let started = Instant::now();
        match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} has not ended after {:?}:\n{}", self.name, started.elapsed(), self.tail(15)),
        }
    }

    /// Everything it has written.
    #[must_use]
    pub fn text(&self) -> String {
        std::fs::read(&self.log).map_or_else(|why| why.to_string(), |text| String::from_utf8_lossy(&text).into_owned())
    }

    /// The last lines of it.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Resident memory in bytes and CPU time, from /proc.
    ///
    /// # Errors
    /// The process has ended.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.pid)
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Highest resident memory, bytes.
    pub peak_bytes: u64,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
}

/// What the process with this id has used.
///
/// # Errors
/// There is none.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name in parentheses; user and system time are fields 14 and 15 of the whole, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(Usage {
        rss_bytes: kib("VmRSS:") * 1024,
        peak_bytes: kib("VmHWM:") * 1024,
        cpu_seconds: (ticks(11) + ticks(12)) / 100.0,
    })
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
