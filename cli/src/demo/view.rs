//! What the user of the demo sees: a live picture in a terminal, a line every few seconds elsewhere.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use console::{Term, style, truncate_str};
use jiff::ZonedDateTime;

use super::{processes::Running, verify::Tally, watch::Job};
use crate::output::{bytes, micros, number, table, time};

/// Rates are of the time just passed.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Notes that the live picture keeps.
const NOTES_KEPT: usize = 6;

/// All that is shown, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) tally: Tally,
    pub(crate) violations: u64,
    pub(crate) processes: Vec<Running>,
    pub(crate) job: Job,
    /// Full names of the two source topics, shown as `a` and `b`.
    pub(crate) sources: [String; 2],
    /// `starting`, `draining`; empty while events flow.
    pub(crate) phase: &'static str,
}

/// Where it is shown.
pub(crate) enum View {
    /// A terminal: drawn over again and again.
    Live { term: Term, lines: usize, heading: Vec<String>, notes: VecDeque<String>, rates: Rates },
    /// Lines, on stdout or (beside JSON) on stderr.
    Lines { term: Term, last: Option<Instant>, rates: Rates },
}

impl View {
    /// `json`: stdout is the summary's alone.
    pub(crate) fn new(json: bool, heading: &[String]) -> Self {
        let term = if json { Term::stderr() } else { Term::buffered_stdout() };
        if !json && term.is_term() {
            let (heading, notes) = (heading.to_vec(), VecDeque::new());
            return Self::Live { term, lines: 0, heading, notes, rates: Rates::default() };
        }
        for line in heading {
            let _ = term.write_line(line);
        }
        let _ = term.flush();
        Self::Lines { term, last: None, rates: Rates::default() }
    }

    /// Shows the scene and what happened since the last one. A terminal that has gone is no reason to stop.
    pub(crate) fn show(&mut self, scene: &Scene, happened: Vec<String>, now: Instant) {
        let clock = ZonedDateTime::now().strftime("%H:%M:%S").to_string();
        match self {
            Self::Live { term, lines, heading, notes, rates } => {
                rates.add(&scene.tally, now);
                notes.extend(happened.into_iter().map(|note| format!("{clock} {note}")));
                while notes.len() > NOTES_KEPT {
                    notes.pop_front();
                }
                let mut picture = heading.clone();
                picture.extend(render(scene, rates));
                picture.extend(notes.iter().cloned());
                let _ = draw(term, *lines, &picture);
                *lines = picture.len();
            }
            Self::Lines { term, last, rates } => {
                rates.add(&scene.tally, now);
                for note in happened {
                    let _ = term.write_line(&format!("{clock} {note}"));
                }
                if last.is_none_or(|last| now - last >= LINE_INTERVAL) {
                    *last = Some(now);
                    let _ = term.write_line(&format!("{clock} {}", line(scene, rates)));
                }
                let _ = term.flush();
            }
        }
    }
}

fn draw(term: &Term, lines_before: usize, picture: &[String]) -> std::io::Result<()> {
    let width = usize::from(term.size().1);
    if lines_before > 0 {
        term.move_cursor_up(lines_before)?;
    }
    for line in picture {
        term.clear_line()?;
        term.write_line(&truncate_str(line, width, "…"))?;
    }
    term.clear_to_end_of_screen()?;
    term.flush()
}

/// Inputs and outputs a second.
#[derive(Debug, Default)]
pub(crate) struct Rates(VecDeque<(Instant, u64, u64)>);

impl Rates {
    fn add(&mut self, tally: &Tally, now: Instant) {
        self.0.push_back((now, tally.inputs, outputs(tally)));
        while self.0.len() > 2 && now - self.0[0].0 > RATE_WINDOW {
            self.0.pop_front();
        }
    }

    fn per_second(&self) -> (f64, f64) {
        match (self.0.front(), self.0.back()) {
            (Some(first), Some(last)) if last.0 > first.0 => {
                let seconds = (last.0 - first.0).as_secs_f64();
                ((last.1 - first.1) as f64 / seconds, (last.2 - first.2) as f64 / seconds)
            }
            _ => (0.0, 0.0),
        }
    }
}

fn outputs(tally: &Tally) -> u64 {
    tally.enriched + tally.passed_through + tally.errors
}

fn render(scene: &Scene, rates: &Rates) -> Vec<String> {
    let tally = &scene.tally;
    let (inputs_rate, outputs_rate) = rates.per_second();
    let violations = match scene.violations {
        0 => style("no violation".to_owned()).green(),
        count => style(format!("{count} VIOLATIONS")).red().bold(),
    };
    let mut lines = vec![
        String::new(),
        format!(
            "events   in {} ({inputs_rate:.0}/s)   out {} ({outputs_rate:.0}/s)   under way {}   repeats {}   {violations}",
            number(tally.inputs),
            number(outputs(tally)),
            number(tally.missing),
            number(tally.repeats),
        ),
        format!(
            "outcomes enriched {}   passed through {}   errors {}   canaries dropped {}",
            number(tally.enriched),
            number(tally.passed_through),
            number(tally.errors),
            number(tally.dropped),
        ),
        format!("job      {}", job_line(scene)),
        String::new(),
    ];
    lines.extend(process_table(scene).lines().map(ToOwned::to_owned));
    lines.push(String::new());
    if let Some(victim) = scene.processes.iter().rev().find_map(|process| process.pid) {
        lines.push(style(format!("try: kill -9 {victim}")).cyan().to_string());
    }
    lines
}

fn job_line(scene: &Scene) -> String {
    let Some(status) = &scene.job.status else {
        if scene.phase == "starting" {
            return "starting".to_owned();
        }
        return "the jobmanager does not answer; the taskmanagers go on".to_owned();
    };
    let checkpoint = status.last_checkpoint.as_ref().map_or_else(
        || "no checkpoint yet".to_owned(),
        |checkpoint| {
            format!(
                "checkpoint {} {} in {} at {}",
                checkpoint.checkpoint_id,
                checkpoint.status,
                micros(checkpoint.duration_us),
                time(checkpoint.triggered_unix_ms).unwrap_or_default()
            )
        },
    );
    let degraded = status.degraded.first().map(|reason| format!("   DEGRADED: {reason}")).unwrap_or_default();
    let phase = if scene.phase.is_empty() { String::new() } else { format!(", {}", scene.phase) };
    format!("{}{phase}   lag {}   {checkpoint}{degraded}", status.state, number(status.lag))
}

fn process_table(scene: &Scene) -> String {
    let heads =
        ["PROCESS", ">PID", ">RESTARTS", "STATE", ">SLOT", "SPLITS", ">IN FLIGHT", ">FINISHED", ">REQUESTS", ">RSS"];
    let mut table = table(&heads);
    for process in &scene.processes {
        let pid = process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let info = scene.job.taskmanagers.iter().find(|tm| Some(tm.pid) == process.pid);
        let mut row = vec![process.name.to_owned(), pid, process.restarts.to_string()];
        match info {
            Some(tm) => row.extend([
                tm.state.clone(),
                tm.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string()),
                splits_of(scene, &tm.taskmanager_id),
                number(tm.in_flight),
                number(tm.totals.as_ref().map_or(0, |totals| totals.consumed)),
                number(tm.api_requests),
                bytes(tm.rss_bytes),
            ]),
            None => {
                row.push(if process.pid.is_some() { "up" } else { "down" }.to_owned());
                row.resize(heads.len(), String::new());
            }
        }
        table.add_row(row);
    }
    table.trim_fmt()
}

/// `a0 a2 b1`: key ranges by source topic.
fn splits_of(scene: &Scene, taskmanager_id: &str) -> String {
    let splits = scene.job.splits.iter().filter(|split| split.taskmanager_id == taskmanager_id);
    let names = splits.filter_map(|split| split.split.as_ref()).map(|id| {
        let topic = if id.topic == scene.sources[0] { 'a' } else { 'b' };
        format!("{topic}{}", id.index)
    });
    names.collect::<Vec<_>>().join(" ")
}

fn line(scene: &Scene, rates: &Rates) -> String {
    let tally = &scene.tally;
    let (inputs_rate, outputs_rate) = rates.per_second();
    let shares: Vec<String> = scene
        .job
        .taskmanagers
        .iter()
        .map(|tm| {
            let process = if tm.pid == 0 { "lost".to_owned() } else { format!("pid {}", tm.pid) };
            format!("{process}: {} {}", tm.state, splits_of(scene, &tm.taskmanager_id))
        })
        .collect();
    format!(
        "in {} ({inputs_rate:.0}/s), out {} ({outputs_rate:.0}/s), errors {}, repeats {}, violations {}; {}; {}",
        tally.inputs,
        outputs(tally),
        tally.errors,
        tally.repeats,
        scene.violations,
        job_line(scene),
        shares.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use weir_proto::v1;

    use super::*;

    fn scene() -> Scene {
        let split = |index| v1::SplitInfo {
            split: Some(v1::SplitId { topic: "eqiad.in".to_owned(), partition: 0, index }),
            taskmanager_id: "tm".to_owned(),
            ..Default::default()
        };
        Scene {
            tally: Tally { inputs: 1200, enriched: 1100, missing: 100, ..Default::default() },
            processes: vec![
                Running { name: "jobmanager", pid: Some(10), restarts: 0 },
                Running { name: "taskmanager-0", pid: Some(11), restarts: 2 },
                Running { name: "taskmanager-1", pid: None, restarts: 0 },
            ],
            job: Job {
                status: Some(v1::GetStatusResponse { state: "RUNNING".to_owned(), ..Default::default() }),
                taskmanagers: vec![v1::TaskManagerInfo {
                    taskmanager_id: "tm".to_owned(),
                    pid: 11,
                    state: "READY".to_owned(),
                    slot: Some(1),
                    ..Default::default()
                }],
                splits: vec![split(0), split(3)],
            },
            sources: ["eqiad.in".to_owned(), "codfw.in".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn the_picture_names_processes_splits_and_whom_to_kill() {
        let text = render(&scene(), &Rates::default()).join("\n");
        for part in ["in 1 200", "under way 100", "no violation", "RUNNING", "a0 a3", "down", "try: kill -9 11"] {
            assert!(console::strip_ansi_codes(&text).contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_silent_jobmanager_is_said() {
        let scene = Scene { job: Job::default(), ..scene() };
        assert!(line(&scene, &Rates::default()).contains("the jobmanager does not answer"));
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        for second in 0..10 {
            let tally = Tally { inputs: second * 100, enriched: second * 50, ..Default::default() };
            rates.add(&tally, start + Duration::from_secs(second));
        }
        assert_eq!(rates.per_second(), (100.0, 50.0));
    }
}
