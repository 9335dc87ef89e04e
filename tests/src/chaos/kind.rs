//! The kinds of trouble, by where they strike.

use std::ops::Range;

/// Where a fault strikes. At most one at a time in each; those of different lanes overlap as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Processes of taskmanagers.
    Taskmanagers,
    /// Processes of both jobmanagers.
    Jobmanagers,
    /// Processes of the three brokers.
    Brokers,
    /// Between taskmanagers and Kafka.
    TaskmanagerKafka,
    /// Between jobmanagers and Kafka.
    JobmanagerKafka,
    /// Between taskmanagers and jobmanagers.
    TaskmanagerJobmanager,
    /// Object storage, and the way to it.
    Storage,
    /// The wikis' API.
    Api,
}

impl Lane {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Taskmanagers,
        Self::Jobmanagers,
        Self::Brokers,
        Self::TaskmanagerKafka,
        Self::JobmanagerKafka,
        Self::TaskmanagerJobmanager,
        Self::Storage,
        Self::Api,
    ];
}

macro_rules! kinds {
    ($($(#[$about:meta])* $kind:ident, $name:literal, $lane:ident, $ms:expr;)*) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($(#[$about])* $kind,)*
        }

        impl Kind {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// Its name in plan and log.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// Where it strikes.
            #[must_use]
            pub fn lane(self) -> Lane {
                match self { $(Self::$kind => Lane::$lane),* }
            }

            /// How long it lasts, milliseconds.
            #[must_use]
            pub fn duration_ms(self) -> Range<u64> {
                match self { $(Self::$kind => $ms),* }
            }
        }
    };
}

// Against: heartbeat.timeout 4 s, high_availability.lease_ttl 4 s, transaction.timeout 15 s, enrich.request_timeout 2 s.
kinds! {
    /// SIGKILL; another one is started after the duration.
    TaskmanagerKill, "taskmanager killed", Taskmanagers, 0..4000;
    /// SIGSTOP, SIGCONT before anybody misses it.
    TaskmanagerPauseShort, "taskmanager stopped, shorter than heartbeat.timeout", Taskmanagers, 500..3000;
    /// SIGSTOP; it is fenced meanwhile and wakes as a zombie.
    TaskmanagerPauseLong, "taskmanager stopped, longer than heartbeat.timeout", Taskmanagers, 6000..10_000;
    /// SIGSTOP; the broker has forgotten its transaction too.
    TaskmanagerPauseBeyondTransaction, "taskmanager stopped, longer than transaction.timeout", Taskmanagers, 17_000..20_000;
    /// SIGTERM; another one is started after the duration.
    TaskmanagerTerminate, "taskmanager left by SIGTERM", Taskmanagers, 0..3000;
    /// One more, which stays.
    ScaleUp, "one taskmanager more", Taskmanagers, 1000..3000;
    /// One leaves by SIGTERM for good.
    ScaleDown, "one taskmanager fewer", Taskmanagers, 1000..3000;
    /// SIGKILL; started again after the duration.
    LeaderKill, "leading jobmanager killed", Jobmanagers, 500..8000;
    /// SIGSTOP for less than the lease.
    LeaderPauseShort, "leading jobmanager stopped, shorter than its lease", Jobmanagers, 500..2500;
    /// SIGSTOP; the standby leads when it wakes.
    LeaderPauseLong, "leading jobmanager stopped, longer than its lease", Jobmanagers, 7000..12_000;
    /// SIGKILL of the one that stands by.
    StandbyKill, "standby killed", Jobmanagers, 500..4000;
    /// SIGKILL of both.
    JobmanagersKill, "both jobmanagers killed", Jobmanagers, 1000..6000;
    /// SIGKILL; started again after the duration.
    BrokerKill, "broker killed", Brokers, 1000..6000;
    /// SIGSTOP.
    BrokerPause, "broker stopped", Brokers, 2000..8000;
    /// SIGTERM: leaderships and coordinators move first; started again after the duration.
    BrokerRestart, "broker restarted gracefully", Brokers, 500..3000;
    /// SIGSTOP and SIGCONT, nine tenths of the time stopped: as from a disk that does not keep up.
    BrokerStutter, "broker slow (stopped in slices)", Brokers, 5000..10_000;
    /// Requests of transactions lost, late, halved, unanswered; EndTxn above all.
    TaskmanagerKafkaRequests, "taskmanager-Kafka, requests of transactions harmed", TaskmanagerKafka, 6000..12_000;
    /// All connections closed, new ones refused for the duration.
    TaskmanagerKafkaCut, "taskmanager-Kafka cut", TaskmanagerKafka, 200..5000;
    /// All connections reset, three times.
    TaskmanagerKafkaReset, "taskmanager-Kafka reset three times", TaskmanagerKafka, 600..3000;
    /// Each direction later.
    TaskmanagerKafkaDelay, "taskmanager-Kafka delayed", TaskmanagerKafka, 4000..9000;
    /// Brokers hear and are not heard.
    TaskmanagerKafkaSilence, "taskmanager-Kafka, answers held back", TaskmanagerKafka, 2000..8000;
    /// As above.
    JobmanagerKafkaRequests, "jobmanager-Kafka, requests of transactions harmed", JobmanagerKafka, 6000..12_000;
    /// As above.
    JobmanagerKafkaCut, "jobmanager-Kafka cut", JobmanagerKafka, 200..8000;
    /// As above.
    JobmanagerKafkaDelay, "jobmanager-Kafka delayed", JobmanagerKafka, 4000..9000;
    /// As above.
    JobmanagerKafkaSilence, "jobmanager-Kafka, answers held back", JobmanagerKafka, 2000..8000;
    /// Connections closed, new ones refused for the duration.
    TaskmanagerJobmanagerCut, "taskmanager-jobmanager cut", TaskmanagerJobmanager, 200..8000;
    /// Each direction later.
    TaskmanagerJobmanagerDelay, "taskmanager-jobmanager delayed", TaskmanagerJobmanager, 3000..8000;
    /// Nothing passes, nobody is told.
    TaskmanagerJobmanagerSilence, "taskmanager-jobmanager, nothing passes", TaskmanagerJobmanager, 1000..8000;
    /// Connections reset, new ones refused for the duration.
    StorageCut, "storage cut", Storage, 1000..6000;
    /// Each direction later.
    StorageSlow, "storage slow", Storage, 3000..8000;
    /// 503 to everything.
    StorageErrors, "storage answers 503", Storage, 2000..8000;
    /// The gateway is killed.
    StorageGone, "storage killed", Storage, 2000..10_000;
    /// To all requests.
    ApiTooManyRequests, "API answers 429", Api, 2000..8000;
    /// To all requests.
    ApiUnavailable, "API answers 503", Api, 2000..8000;
    /// No answer.
    ApiHang, "API hangs", Api, 2000..8000;
    /// Answers that break off.
    ApiReset, "API breaks off its answers", Api, 2000..8000;
    /// On and off.
    ApiFlapping, "API flaps", Api, 4000..10_000;
}
