//! The run's log: what happened when, for people.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{inject::Done, watch::Seen};

/// To standard error and a file.
pub struct Log {
    started: Instant,
    file: Mutex<File>,
    ended: AtomicU32,
}

impl Log {
    /// Times count from now.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn start(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { started: Instant::now(), file: Mutex::new(File::create(path)?), ended: AtomicU32::new(0) })
    }

    /// A line with its time.
    pub fn say(&self, what: &str) {
        self.write(&format!("{:7.1} s  {what}", self.started.elapsed().as_secs_f64()));
    }

    fn write(&self, what: &str) {
        let line = format!("[chaos] {what}");
        eprintln!("{line}");
        // What cannot be kept was printed.
        let _ = writeln!(self.file.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
    }

    /// A process that nobody ended.
    pub fn ended(&self, what: &str) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.say(what);
    }

    /// How many [`Log::ended`] noted.
    #[must_use]
    pub fn ended_by_themselves(&self) -> u32 {
        self.ended.load(Ordering::Relaxed)
    }

    /// What each fault cost, and each kind.
    pub fn costs(&self, done: &[Done], seen: &Seen) {
        self.say("what each fault cost; faults of other links overlap with it");
        let mut kinds: BTreeMap<&str, (u32, Duration, usize)> = BTreeMap::new();
        for Done { fault, target, from, to } in done {
            let cost = seen.cost(*from, *to);
            let at = from.saturating_duration_since(self.started).as_secs_f64();
            let lasted = to.saturating_duration_since(*from).as_secs_f64();
            self.write(&format!("{at:7.1} s  for {lasted:4.1} s  {cost}: {} ({target})", fault.kind.name()));
            let kind = kinds.entry(fault.kind.name()).or_default();
            *kind = (kind.0 + 1, kind.1.max(cost.pause), kind.2 + cost.delayed);
        }
        self.write(&format!("{} faults of {} kinds", done.len(), kinds.len()));
        for (name, (count, pause, delayed)) in kinds {
            let pause = pause.as_secs_f64();
            self.write(&format!("  {count:3} x {name:58} longest pause {pause:4.1} s, {delayed:6} records delayed"));
        }
    }
}
