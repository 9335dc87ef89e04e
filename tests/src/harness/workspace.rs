//! Where the repository, the programs and this run's folder are.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};

/// Folders of this run.
#[derive(Clone, Debug)]
pub struct Workspace {
    /// Root of the repository.
    pub root: PathBuf,
    /// Folder of the programs under test.
    pub bin: PathBuf,
    /// This run's own folder; every process started names it in its command line.
    pub run: PathBuf,
}

const PREFIX: &str = "weir-e2e.";

impl Workspace {
    /// Makes this run's folder, and clears away what a run left behind whose process is gone.
    ///
    /// # Errors
    /// The programs are not built, the folder cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let workspace = Self::without_programs()?;
        for name in ["weir", "weir-jobmanager", "weir-taskmanager"] {
            let program = workspace.bin.join(name);
            ensure!(program.is_file(), "{} is not built; run `make build`", program.display());
        }
        Ok(workspace)
    }

    /// The same for a test that starts none of the programs.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn without_programs() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests are inside of the repository")?;
        let program = std::env::current_exe()?;
        let bin = program.parent().context("a program is in a folder")?.to_owned();
        let temporary = std::env::temp_dir();
        for entry in std::fs::read_dir(&temporary)?.flatten() {
            let name = entry.file_name();
            let owner =
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                end_all_of(&entry.path());
                // Whatever stays is a folder in a temporary place.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let run = temporary.join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir_all(&run)?;
        Ok(Self { root: root.to_owned(), bin, run })
    }

    /// A script of `tests/env`.
    #[must_use]
    pub fn script(&self, name: &str) -> PathBuf {
        self.root.join("tests/env").join(name)
    }

    /// `tests/fixtures`.
    #[must_use]
    pub fn fixtures(&self) -> PathBuf {
        self.root.join("tests/fixtures")
    }

    /// Ends whatever still runs in this run's folder and deletes it.
    pub fn clear(&self) {
        end_all_of(&self.run);
        let _ = std::fs::remove_dir_all(&self.run);
    }
}

/// Ends every process that works in the folder or names it in its command line, this one excepted.
pub fn end_all_of(folder: &Path) {
    let mark = folder.display().to_string();
    for pid in processes() {
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let works_there = std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let names_it = String::from_utf8_lossy(&command_line).contains(&mark);
        if pid != std::process::id() && (works_there || names_it) {
            signal(pid, "KILL");
        }
    }
    std::thread::sleep(Duration::from_millis(50));
}

fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Sends a signal to one process that this run started.
pub fn signal(pid: u32, name: &str) {
    // The shell's own `kill`: the program of that name is not on every machine.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).stderr(Stdio::null()).status();
    if let Err(why) = sent {
        eprintln!("cannot run sh: {why}");
    }
}

/// A free port of loopback. Below the range that outgoing connections are given, so that none takes it meanwhile.
///
/// # Errors
/// None found.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..200 {
        let port = rand::random_range(10_000..20_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port found")
}
