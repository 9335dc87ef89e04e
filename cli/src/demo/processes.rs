//! The demo's child processes: started, watched, started again when the user (or the demo) kills one, ended with it.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Pause before a process is started again.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// A process that ends sooner than this has not worked at all …
const SHORT_LIFE: Duration = Duration::from_secs(5);

/// … and so many short lives in a row end the demo. A jobmanager that was killed needs some: until its membership
/// expires (6 s), its successor is refused.
const SHORT_LIVES_MAX: u32 = 12;

/// Exit code of a configuration that cannot work: starting again does not help.
const CONFIGURATION: i32 = 2;

/// Time for a process to leave after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(12);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// `jobmanager`, `taskmanager-0`.
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
}

/// One process as the view shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) name: &'static str,
    /// `None` while it is down.
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
}

/// All processes of the demo. Dropping it kills them.
pub(crate) struct Processes {
    shared: Arc<Shared>,
    tracker: TaskTracker,
    // Ends last: it kills what is left if this process dies without saying so.
    _guard: Guard,
}

struct Shared {
    running: Mutex<Vec<Running>>,
    notes: Mutex<Vec<String>>,
    failure: Mutex<Option<String>>,
    failed: CancellationToken,
    guard_input: Mutex<Option<std::process::ChildStdin>>,
    restarts: AtomicU64,
}

/// Finds a binary beside this one.
pub(crate) fn beside_me(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("cannot tell where this program is")?;
    let program = me.with_file_name(name);
    if !program.is_file() {
        bail!("{} is missing: the demo needs it beside weir (`cargo build --workspace --bins`)", program.display());
    }
    Ok(program)
}

impl Processes {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (guard, guard_input) = Guard::start()?;
        let shared = Shared {
            running: Mutex::default(),
            notes: Mutex::default(),
            failure: Mutex::default(),
            failed: CancellationToken::new(),
            guard_input: Mutex::new(Some(guard_input)),
            restarts: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared), tracker: TaskTracker::new(), _guard: guard })
    }

    /// Starts a process and keeps it running until `stop`.
    pub(crate) fn keep(&self, spec: Spec, stop: CancellationToken) {
        lock(&self.shared.running).push(Running { name: spec.name, pid: None, restarts: 0 });
        let shared = Arc::clone(&self.shared);
        self.tracker.spawn(async move {
            if let Err(error) = shared.supervise(&spec, &stop).await {
                *lock(&shared.failure) = Some(format!("{error:#}"));
                shared.failed.cancel();
            }
        });
    }

    /// Returns why, when a process cannot be kept running.
    pub(crate) async fn failed(&self) -> String {
        self.shared.failed.cancelled().await;
        lock(&self.shared.failure).clone().unwrap_or_default()
    }

    /// All processes, in the order in which they were started.
    pub(crate) fn running(&self) -> Vec<Running> {
        lock(&self.shared.running).clone()
    }

    /// Starts that followed an end.
    pub(crate) fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// What happened since the last call.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.shared.notes))
    }

    /// SIGKILL to one of them, as a user would.
    pub(crate) async fn kill(&self, name: &str) {
        let pid = self.running().iter().find(|process| process.name == name).and_then(|process| process.pid);
        if let Some(pid) = pid {
            self.shared.note(format!("the demo kills {name} (kill -9 {pid})"));
            signal("KILL", pid).await;
        }
    }

    /// Waits until all that were told to stop have.
    pub(crate) async fn stopped(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

impl Shared {
    async fn supervise(&self, spec: &Spec, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut short_lives = 0;
        loop {
            let started = Instant::now();
            let mut child = spawn(spec)?;
            let pid = child.id();
            self.set_pid(spec.name, pid);
            let status = tokio::select! {
                status = child.wait() => status?,
                () = stop.cancelled() => {
                    end(child).await;
                    self.set_pid(spec.name, None);
                    return Ok(());
                }
            };
            self.set_pid(spec.name, None);
            short_lives = if started.elapsed() < SHORT_LIFE { short_lives + 1 } else { 0 };
            if status.code() == Some(CONFIGURATION) || short_lives >= SHORT_LIVES_MAX {
                bail!("{} ended ({status}); its last words:\n{}", spec.name, last_lines(&spec.log, 5));
            }
            if short_lives <= 1 {
                self.note(format!("{} (pid {}) {}, starting it again", spec.name, pid.unwrap_or(0), describe(status)));
            }
            tokio::select! {
                () = tokio::time::sleep(RESTART_DELAY) => {}
                () = stop.cancelled() => return Ok(()),
            }
            self.restarts.fetch_add(1, Ordering::Relaxed);
            if let Some(process) = lock(&self.running).iter_mut().find(|process| process.name == spec.name) {
                process.restarts += 1;
            }
        }
    }

    fn set_pid(&self, name: &str, pid: Option<u32>) {
        let mut running = lock(&self.running);
        if let Some(process) = running.iter_mut().find(|process| process.name == name) {
            process.pid = pid;
        }
        let pids: Vec<String> = running.iter().filter_map(|process| process.pid).map(|pid| pid.to_string()).collect();
        if let Some(input) = lock(&self.guard_input).as_mut() {
            let _ = writeln!(input, "{}", pids.join(" "));
        }
    }

    fn note(&self, text: String) {
        lock(&self.notes).push(text);
    }
}

fn spawn(spec: &Spec) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(&spec.log);
    let log = log.with_context(|| format!("cannot write {}", spec.log.display()))?;
    Command::new(&spec.program)
        .arg("--config")
        .arg(&spec.config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: ctrl-C in the terminal is for the demo, which ends its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", spec.program.display()))
}

async fn end(mut child: Child) {
    if let Some(pid) = child.id() {
        signal("TERM", pid).await;
    }
    if tokio::time::timeout(TERM_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Sends a signal to one of our children, by the shell's own `kill`.
async fn signal(name: &str, pid: u32) {
    let _ = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status().await;
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(count).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shell that reads the children's pids from a pipe and kills those of the last line when the pipe closes: whatever
/// ends the demo, its children do not outlive it.
struct Guard(std::process::Child);

impl Guard {
    fn start() -> anyhow::Result<(Self, std::process::ChildStdin)> {
        use std::os::unix::process::CommandExt as _;
        let script = "pids=; while read -r line; do pids=$line; done; test -z \"$pids\" || kill -9 $pids";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let input = shell.stdin.take().context("sh has no stdin")?;
        Ok((Self(shell), input))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Closing the pipe makes the guard kill what still runs.
        drop(lock(&self.shared.guard_input).take());
        let _ = self._guard.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Spec {
        let program = folder.join("child.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).expect("made executable");
        Spec { name: "child", program, config: folder.join("none"), log: folder.join("log") }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("weir-processes-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temp is writable");
        folder
    }

    async fn pid_other_than(processes: &Processes, old: Option<u32>) -> u32 {
        for _ in 0..200 {
            match processes.running()[0].pid {
                Some(pid) if Some(pid) != old => return pid,
                _ => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
        panic!("no process came");
    }

    fn alive(pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[tokio::test]
    async fn a_killed_process_is_replaced_and_none_outlives_the_demo() {
        let folder = folder("replaced");
        let processes = Processes::new().expect("sh is there");
        processes.keep(shell(&folder, "exec sleep 600"), CancellationToken::new());
        let first = pid_other_than(&processes, None).await;
        processes.kill("child").await;
        let second = pid_other_than(&processes, Some(first)).await;
        assert!(processes.take_notes().iter().any(|note| note.contains("was killed by signal 9")));
        assert!(alive(second));
        assert_eq!(processes.running()[0].restarts, 1);
        drop(processes);
        for _ in 0..100 {
            if !alive(second) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(!alive(second));
        let _ = std::fs::remove_dir_all(folder);
    }

    #[tokio::test]
    async fn a_configuration_error_ends_the_demo_with_the_childs_words() {
        let folder = folder("configuration");
        let processes = Processes::new().expect("sh is there");
        processes.keep(shell(&folder, "echo storage.uri is wrong >&2; exit 2"), CancellationToken::new());
        let failure = tokio::time::timeout(Duration::from_secs(10), processes.failed()).await.expect("it fails");
        assert!(failure.contains("storage.uri is wrong"), "{failure}");
        let _ = std::fs::remove_dir_all(folder);
    }
}
