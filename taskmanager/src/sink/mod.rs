//! The sink of one grant: a thread of its own, because librdkafka's transactional calls block. What it does there is
//! [`Sink::run`], which a simulation runs as it is.

pub(crate) mod inbox;
pub(crate) mod kafka;
pub(crate) mod lease;
mod limits;
pub(crate) mod output;
pub(crate) mod report;
pub(crate) mod writer;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;
use weir_common::ids::GrantId;
pub(crate) use weir_common::kafka::doubt;

use self::{
    inbox::{Command, Inbox, Next},
    lease::Lease,
    output::Output,
    report::{SinkEvent, SinkEventKind},
    writer::{Lost, Writer},
};
use crate::clock::{Clock, SystemClock, block_on};

/// How long the sink waits for something to do before it looks at its grant again.
const GLANCE: Duration = Duration::from_millis(500);

/// Runs a writer until its grant ends. Its events are few: one for each command and each `transaction.interval`.
pub struct Sink<O, C> {
    writer: Writer<O, C>,
    inbox: Arc<Inbox>,
    lease: Arc<Lease>,
    interval: Duration,
    events: UnboundedSender<SinkEvent>,
    grant: GrantId,
}

impl<O: Output + Send + 'static> Sink<O, SystemClock> {
    /// Starts the thread. It ends with `Stop`, or after it has said that the slot is lost; nobody joins it.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub(crate) fn spawn(self) -> std::io::Result<()> {
        thread::Builder::new().name("weir-sink".to_owned()).spawn(move || block_on(self.run())).map(drop)
    }
}

impl<O: Output, C: Clock> Sink<O, C> {
    /// A sink that cuts every `interval` (`transaction.interval`) and says what it does to `events`.
    pub fn new(
        writer: Writer<O, C>,
        inbox: Arc<Inbox>,
        lease: Arc<Lease>,
        interval: Duration,
        events: UnboundedSender<SinkEvent>,
    ) -> Self {
        let grant = lease.grant();
        Self { writer, inbox, lease, interval, events, grant }
    }

    /// Works until `Stop`, or until it has said that the slot is lost.
    ///
    /// # Cancel safety
    /// Dropping the future is dropping the slot: nothing more is committed, what the broker has of an open transaction is
    /// aborted by whoever initialises the id next.
    pub async fn run(mut self) {
        if let Err(Lost(reason)) = self.work().await {
            self.lease.end();
            self.say(SinkEventKind::Lost { reason });
        }
    }

    async fn work(&mut self) -> Result<(), Lost> {
        self.writer.start().await?;
        self.say(SinkEventKind::Ready);
        let mut next_cut = self.now() + self.interval;
        loop {
            let now = self.now();
            if !self.lease.is_valid(now) {
                return Err(Lost("the grant ran out or was withdrawn".to_owned()));
            }
            if now >= next_cut || self.writer.cut_is_due() {
                let splits = self.writer.cut().await?;
                if !splits.is_empty() {
                    self.say(SinkEventKind::Reported { checkpoint: None, splits });
                }
                next_cut = self.now() + self.interval;
            }
            let glance = next_cut.min(self.now() + GLANCE);
            match self.inbox.next(self.writer.clock(), glance).await {
                Next::Command(Command::Stop) => return Ok(()),
                Next::Command(command) => self.handle(command).await?,
                Next::Results(results) => {
                    for result in results {
                        self.writer.hand_over(result).await?;
                        if self.writer.cut_is_due() {
                            // The rest of the batch waits for it: what is kept stays within its bound.
                            let splits = self.writer.cut().await?;
                            self.say(SinkEventKind::Reported { checkpoint: None, splits });
                        }
                    }
                }
                Next::Nothing => {}
            }
        }
    }

    async fn handle(&mut self, command: Command) -> Result<(), Lost> {
        match command {
            Command::Assign(splits) => self.writer.assign(splits),
            Command::Barrier(checkpoint) => {
                self.writer.cut().await?;
                self.say(SinkEventKind::Reported { checkpoint: Some(checkpoint), splits: self.writer.reports() });
            }
            Command::Revoke(splits) => {
                // What is fetched already goes along: the next owner need not fetch it again.
                for result in self.inbox.take_results(|result| self.writer.owns(result)) {
                    self.writer.hand_over(result).await?;
                }
                self.writer.cut().await?;
                let splits = self.writer.remove(&splits);
                self.say(SinkEventKind::Released { splits });
            }
            Command::Stop => {}
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.writer.clock().now()
    }

    fn say(&self, kind: SinkEventKind) {
        // Nobody listens any more only when the process is leaving.
        let _ = self.events.send(SinkEvent { grant: self.grant, kind });
    }
}
