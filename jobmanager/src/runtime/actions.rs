//! Performs the coordinator's actions, and takes in what taskmanagers say.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use tokio::sync::oneshot;
use weir_common::{
    failure::FailureKind,
    ids::{CheckpointId, GrantId, SlotId, TaskmanagerId},
    split::SplitId,
};
use weir_proto::v1::{self, job_manager_message::Kind};

use super::{
    Command, ConnectionId, Peer, Runtime, Trouble,
    backend::SinkEnd,
    handle::{self, Attach, Message},
    record::Then,
};
use crate::{
    coordinator::{
        action::{Action, Reply, SnapshotKind},
        event::{Event, RequestId, SplitStates, StoredSavepoint},
    },
    rpc::convert,
    store::{
        Info, StoreError,
        snapshot::{Content, Snapshot},
    },
};

/// A disconnected taskmanager comes back after so long.
const COME_BACK_AFTER_MS: u64 = 1000;

impl Runtime {
    pub(super) fn perform_now(&mut self, action: Action) {
        match action {
            Action::SendGrant { taskmanager, slot, grant } => {
                self.record_then(Then::Grant { taskmanager, slot, grant });
            }
            Action::SendAssign { taskmanager, splits, limits } => {
                let places = self.shared.places(splits.keys());
                let assign = convert::assign(splits, &places, &limits);
                self.send(&taskmanager, Kind::Assign(assign));
            }
            Action::SendRevoke { taskmanager, splits } => {
                let splits = splits.iter().map(convert::split_to_proto).collect();
                self.send(&taskmanager, Kind::Revoke(v1::Revoke { splits }));
            }
            Action::SendBarrier { taskmanager, checkpoint } => {
                self.send(&taskmanager, Kind::Barrier(v1::Barrier { checkpoint_id: checkpoint.0 }));
            }
            Action::SendDrain { taskmanager, leave } => self.send(&taskmanager, Kind::Drain(v1::Drain { leave })),
            Action::Disconnect { taskmanager, reason } => {
                tracing::warn!(%taskmanager, reason, "disconnecting taskmanager");
                let retry_after_ms = COME_BACK_AFTER_MS;
                let leader_address = String::new();
                let refused =
                    v1::Refused { reason: "LOST".to_owned(), message: reason, retry_after_ms, leader_address };
                self.send(&taskmanager, Kind::Refused(refused));
                self.peers.remove(&taskmanager);
            }
            Action::FenceSlot { slot } => self.fence(slot),
            Action::ReadProgress { splits } => self.read_progress(splits),
            Action::WriteProgress { splits } => {
                self.moved(&splits);
                // Written after every snapshot that there is: none is on the way while a job is at rest.
                let newest = self.coordinator.checkpoints().next().map(|checkpoint| self.snapshot_id(checkpoint.id));
                if let Some(upto) = newest.max(self.newest_snapshot) {
                    self.recorder.rewind(upto);
                }
                self.record_then(Then::WriteProgress { splits });
            }
            Action::RenewProgress { splits } => self.write_progress(splits),
            Action::StoreSnapshot { checkpoint, kind, splits } => self.store_snapshot(checkpoint, kind, splits),
            Action::ListSavepoints => self.list_savepoints(),
            Action::DeleteSavepoints { keys } => self.delete_savepoints(keys),
            Action::Reply { request, reply } => self.reply(request, reply),
            Action::MirrorLag { cursors } => {
                let backend = Arc::clone(&self.shared.backend);
                self.shared.spawn(async move {
                    Command::Noted { trouble: Trouble::of("lag mirror", &backend.mirror(cursors).await) }
                });
            }
            Action::RecordRest { suspended } => {
                self.recorder.rest(suspended);
                self.record_then(Then::RestRecorded);
            }
            Action::Finish => {
                tracing::info!("the job has ended");
                self.peers.clear();
                self.end = Some(Ok(()));
            }
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: Reply) {
        if let Some(caller) = self.replies.remove(&request) {
            // A caller who did not wait finds the result in the lists.
            let _ = caller.send(reply);
        }
    }

    fn send(&mut self, to: &TaskmanagerId, kind: Kind) {
        let Some(peer) = self.peers.get(to) else { return };
        let message = v1::JobManagerMessage { leader_epoch: self.shared.leader_epoch.0, kind: Some(kind) };
        // A jobmanager that was stopped, or cut off, may have a successor that it does not know of yet: it says nothing, and
        // taskmanagers look for who leads.
        let why = match self.shared.term.leads() {
            true => peer.outgoing.try_send(Ok(message)).err().map(|_| "taskmanager does not take its messages"),
            false => Some("this jobmanager cannot know whether it still leads"),
        };
        if let Some(why) = why {
            tracing::warn!(taskmanager = %to, "{why}: the stream is closed");
            // Its end comes back as `Detach` of a connection that is gone; the coordinator is told by the stream's task.
            let (taskmanager, connection) = (to.clone(), peer.connection);
            self.shared.spawn(async move { Command::Detach { taskmanager, connection } });
        }
    }

    pub(super) fn send_grant(&mut self, to: &TaskmanagerId, slot: SlotId, grant: GrantId) {
        tracing::info!(taskmanager = %to, %slot, %grant, "slot leased");
        let grant = v1::Grant {
            slot: slot.0,
            transactional_id: slot.transactional_id(&self.job.job_name),
            grant_id: grant.0,
            grant_ttl_ms: self.grant_ttl_ms(),
        };
        self.send(to, Kind::Grant(grant));
    }

    /// Asks Kafka how far what the sink writes to is stable; an error topic on another cluster is not written in
    /// transactions.
    pub(super) fn find_sink_ends(&self, reply: oneshot::Sender<Result<Vec<SinkEnd>, String>>) {
        let elsewhere = weir_common::kafka::error_sink_is_elsewhere(&self.shared.config);
        let streams = [self.job.sink.as_ref(), self.job.error_sink.as_ref().filter(|_| !elsewhere)];
        let topics: BTreeSet<String> = streams.into_iter().flatten().map(|stream| stream.topic.clone()).collect();
        let backend = Arc::clone(&self.shared.backend);
        self.shared.tasks.spawn(async move {
            let ends = backend.sink_ends(topics.into_iter().collect()).await;
            // Whoever asked may have left.
            let _ = reply.send(ends.map_err(|error| error.to_string()));
        });
    }

    fn list_savepoints(&self) {
        let snapshots = self.shared.snapshots.clone();
        self.shared.spawn(async move {
            let listed = snapshots.savepoints().await;
            let trouble = Trouble::of("savepoints", &listed);
            let now = Timestamp::now();
            let stored = |info: Info| {
                let age = now.duration_since(info.modified).try_into().unwrap_or_default();
                Some(StoredSavepoint { kind: info.savepoint?, key: info.key, age })
            };
            let event = match listed {
                Ok(infos) => Event::SavepointsListed { savepoints: infos.into_iter().filter_map(stored).collect() },
                Err(_) => Event::SavepointsUnknown,
            };
            Command::Done { event, trouble }
        });
    }

    fn delete_savepoints(&self, keys: Vec<String>) {
        let snapshots = self.shared.snapshots.clone();
        self.shared.tasks.spawn(async move {
            for key in keys {
                match snapshots.delete(&key).await {
                    Ok(()) => tracing::info!(key, "periodic savepoint deleted, older than savepoint.retention"),
                    Err(error) => {
                        tracing::warn!(%error, "an old savepoint could not be deleted, the next look tries again")
                    }
                }
            }
        });
    }

    fn grant_ttl_ms(&self) -> u64 {
        convert::millis(self.shared.config.heartbeat.grant)
    }

    fn fence(&self, slot: SlotId) {
        if !self.shared.exactly_once {
            return self.shared.spawn(async move {
                Command::Done { event: Event::SlotFenced { slot }, trouble: Trouble::none("fencing") }
            });
        }
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let started = std::time::Instant::now();
            let fenced = backend.fence(slot).await;
            let trouble = Trouble::of("fencing", &fenced);
            let event = match fenced {
                Ok(()) => {
                    tracing::info!(%slot, took = ?started.elapsed(), "slot fenced");
                    Event::SlotFenced { slot }
                }
                Err(_) => Event::FenceFailed { slot },
            };
            Command::Done { event, trouble }
        });
    }

    fn read_progress(&self, splits: Vec<SplitId>) {
        let places = self.shared.places(&splits);
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let read = backend.read_progress(places).await;
            let trouble = Trouble::of("progress", &read);
            let event = match read {
                Ok(splits) => Event::ProgressRead { splits },
                Err(_) => Event::ProgressReadFailed { splits },
            };
            Command::Done { event, trouble }
        });
    }

    pub(super) fn write_progress(&self, splits: SplitStates) {
        let places = self.shared.places(splits.keys());
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let written = backend.write_progress(splits, places).await;
            let event = match &written {
                Ok(()) => Event::ProgressWritten,
                Err(error) => Event::ProgressWriteFailed { reason: error.to_string() },
            };
            Command::Done { event, trouble: Trouble::of("progress", &written) }
        });
    }

    fn store_snapshot(&self, checkpoint: CheckpointId, kind: SnapshotKind, splits: SplitStates) {
        let shared = Arc::clone(&self.shared);
        let (id, slots) =
            (self.snapshot_id(checkpoint), self.coordinator.slots_in_use().map(|(slot, _)| slot).collect());
        let job = self.job.job_name.clone();
        self.shared.spawn(async move {
            let snapshot = Snapshot::new(&Content {
                job: &job,
                id,
                kind: &kind,
                time: Timestamp::now(),
                config_digest: &shared.config_digest,
                splits_per_partition: shared.config.job.splits_per_partition,
                slots,
                splits: &splits,
            });
            let stored = shared.snapshots.store(snapshot).await;
            let trouble = Trouble::of("storage", &stored);
            match stored {
                Ok((location, size_bytes)) => {
                    tracing::info!(%checkpoint, location, size_bytes, "snapshot stored");
                    let snapshots = shared.snapshots.clone();
                    shared.tasks.spawn(async move {
                        if let Err(error) = snapshots.retire().await {
                            tracing::warn!(%error, "old checkpoints could not be deleted, the next one tries again");
                        }
                    });
                    Command::Done { event: Event::SnapshotStored { checkpoint, location, size_bytes }, trouble }
                }
                Err(error @ StoreError::Superseded(_)) => Command::Fatal { exit: error.into() },
                Err(error) => {
                    Command::Done { event: Event::SnapshotFailed { checkpoint, reason: error.to_string() }, trouble }
                }
            }
        });
    }

    pub(super) fn attach(&mut self, taskmanager: TaskmanagerId, connection: ConnectionId, attach: Attach) {
        let Attach { hello, held, outgoing } = attach;
        tracing::info!(
            %taskmanager, host = hello.host, pid = hello.pid, version = hello.version,
            held = held.as_ref().map(|held| held.slot.0), "taskmanager registered"
        );
        let stats = v1::TaskManagerStats::default();
        self.peers.insert(taskmanager.clone(), Peer { connection, hello, outgoing, stats });
        let registered = v1::Registered {
            protocol_version: weir_proto::PROTOCOL_VERSION,
            heartbeat_interval_ms: convert::millis(self.shared.config.heartbeat.interval),
            job: Some(self.job.clone()),
        };
        self.send(&taskmanager, Kind::Registered(registered));
        self.apply(Event::Registered { taskmanager, held });
    }

    pub(super) fn message(&mut self, taskmanager: TaskmanagerId, message: Message) {
        let event = match message {
            Message::Heartbeat(stats) => return self.heartbeat(taskmanager, *stats),
            Message::SlotReady(grant) => Event::SlotReady { taskmanager, grant },
            Message::Report(checkpoint, splits) => Event::Reported { taskmanager, checkpoint, splits },
            Message::Released(splits) => Event::Released { taskmanager, splits },
            Message::Draining => {
                tracing::info!(%taskmanager, "taskmanager wants to leave: its splits move");
                Event::Draining { taskmanager }
            }
            Message::SlotLost(grant, reason) => {
                tracing::warn!(%taskmanager, %grant, reason, "taskmanager lost its slot: fencing it, then a new one");
                Event::SlotLost { taskmanager, grant }
            }
            Message::SplitFailed(splits, failure) => {
                tracing::error!(%taskmanager, splits = splits.len(), %failure, "splits cannot be read: they are taken back");
                if failure.kind == FailureKind::TopicGone {
                    self.topic_gone(splits.iter().map(|split| split.topic.clone()));
                }
                Event::SplitsFailed { taskmanager, splits, failure }
            }
        };
        self.apply(event);
    }

    fn heartbeat(&mut self, taskmanager: TaskmanagerId, stats: v1::TaskManagerStats) {
        for (split, end) in handle::log_ends(&stats) {
            let known = self.log_ends.entry(split.topic_partition()).or_insert(end);
            *known = end.max(*known);
        }
        if let Some(peer) = self.peers.get_mut(&taskmanager) {
            peer.stats = stats;
        }
        self.apply(Event::Heartbeat { taskmanager: taskmanager.clone() });
        let grant_id = self.coordinator.grant(&taskmanager).map_or(0, |(_, grant)| grant.0);
        let of_job = self.shared.config.enrich.max_concurrent_requests_per_job;
        let part = self.coordinator.share(&taskmanager, of_job).unwrap_or(0);
        let requests_max = u32::try_from(part).unwrap_or(u32::MAX);
        let ack = v1::HeartbeatAck { grant_id, grant_ttl_ms: self.grant_ttl_ms(), requests_max };
        self.send(&taskmanager, Kind::HeartbeatAck(ack));
    }
}
