//! What goes wrong, until it heals.

use rand::RngExt;
use weir_jobmanager::coordinator::event::Event;

use super::{HEAL, Step, ToJobmanager, World};
use crate::taskmanager::Taskmanager;

impl World {
    pub(super) fn fault(&mut self) {
        if self.now > HEAL {
            return self.heal();
        }
        let living: Vec<usize> = (0..self.taskmanagers.len()).filter(|at| self.taskmanagers[*at].is_some()).collect();
        let victim = living.get(self.rng.random_range(0..living.len().max(1))).copied();
        let (now, roll) = (self.now, self.rng.random_range(0..100));
        let name = match (roll, victim) {
            (0..20, Some(at)) => {
                self.hang_up(at);
                "stream broken"
            }
            (20..35, Some(at)) => {
                let length = self.rng.random_range(100..20_000);
                if let Some(taskmanager) = self.taskmanager(at) {
                    taskmanager.paused_until = now + length;
                }
                "taskmanager paused"
            }
            (35..50, Some(at)) => {
                self.hang_up(at);
                self.taskmanagers[at] = None;
                self.start_taskmanager();
                "taskmanager killed"
            }
            (50..60, _) if living.len() < 6 => {
                self.start_taskmanager();
                "taskmanager added"
            }
            (60..70, Some(at)) if living.len() > 1 => {
                self.drain(at);
                "taskmanager drained"
            }
            (70..85, _) if self.jobmanager.is_some() => {
                self.kill_jobmanager();
                "jobmanager killed"
            }
            _ => "none",
        };
        if name != "none" {
            *self.faults.entry(name).or_default() += 1;
        }
        let wait = self.rng.random_range(100..6_000);
        self.at(wait, Step::Fault);
    }

    pub(super) fn drain(&mut self, at: usize) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.draining = true;
        taskmanager.next_cut = now;
        let taskmanager = taskmanager.id.clone();
        self.tell(at, ToJobmanager::Event(Event::Draining { taskmanager }));
    }

    pub(super) fn kill_jobmanager(&mut self) {
        self.jobmanager = None;
        for at in 0..self.taskmanagers.len() {
            self.hang_up(at);
        }
        let wait = self.rng.random_range(100..10_000);
        self.at(wait, Step::StartJobmanager);
    }

    /// A last taskmanager that nothing happens to, if none is left that stays.
    pub(super) fn heal(&mut self) {
        let stays = |each: &Option<Taskmanager>| each.as_ref().is_some_and(|each| !each.draining);
        if !self.taskmanagers.iter().any(stays) {
            self.start_taskmanager();
        }
    }
}
