//! The demo's Kafka: librdkafka's mock cluster inside this process, or a real one.

use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    mocking::MockCluster,
    producer::DefaultProducerContext,
};

use super::layout::Names;

/// Partitions of the sink's and the error topic. The mock keeps 5 MB of each: more partitions, more time to read.
const OUTPUT_PARTITIONS: i32 = 4;

/// Partitions of each source topic: one, as in production.
const SOURCE_PARTITIONS: i32 = 1;

/// Replicas where the cluster has as many brokers; a demo needs no more.
const REPLICAS: i32 = 1;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the demo's topics live.
pub(crate) enum Cluster {
    /// Keeps no transactions, and only the newest 5 MB of each partition.
    Mock(MockCluster<'static, DefaultProducerContext>),
    /// Somebody's brokers.
    Real { bootstrap_servers: String },
}

impl Cluster {
    /// Starts the mock, or takes the brokers named; creates the topics.
    ///
    /// # Errors
    /// Brokers that do not answer, topics that cannot be created.
    pub(crate) async fn start(bootstrap_servers: Option<&str>, names: &Names) -> anyhow::Result<Self> {
        let topics = [
            (&names.sources[0], SOURCE_PARTITIONS),
            (&names.sources[1], SOURCE_PARTITIONS),
            (&names.sink, OUTPUT_PARTITIONS),
            (&names.errors, OUTPUT_PARTITIONS),
        ];
        match bootstrap_servers {
            None => {
                let mock = MockCluster::new(1).context("cannot start the mock cluster")?;
                for (topic, partitions) in topics {
                    mock.create_topic(topic, partitions, 1).with_context(|| format!("cannot create {topic}"))?;
                }
                Ok(Self::Mock(mock))
            }
            Some(servers) => {
                let cluster = Self::Real { bootstrap_servers: servers.to_owned() };
                cluster.create(&topics).await?;
                Ok(cluster)
            }
        }
    }

    /// For clients.
    pub(crate) fn bootstrap_servers(&self) -> String {
        match self {
            Self::Mock(mock) => mock.bootstrap_servers(),
            Self::Real { bootstrap_servers } => bootstrap_servers.clone(),
        }
    }

    fn admin(&self) -> anyhow::Result<AdminClient<DefaultClientContext>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers());
        config.create().context("cannot create a Kafka admin client")
    }

    async fn create(&self, topics: &[(&String, i32)]) -> anyhow::Result<()> {
        let servers = self.bootstrap_servers();
        let topics: Vec<_> = topics
            .iter()
            .map(|(topic, partitions)| NewTopic::new(topic, *partitions, TopicReplication::Fixed(REPLICAS)))
            .collect();
        let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT));
        let created = self.admin()?.create_topics(&topics, &options).await;
        for result in created.with_context(|| format!("no Kafka broker answers at {servers} (--bootstrap-servers)"))? {
            if let Err((topic, error)) = result {
                bail!("{servers} refuses to create topic {topic}: {error}");
            }
        }
        Ok(())
    }

    /// Deletes the demo's topics on a real cluster, as far as they exist; the mock's end with this process.
    pub(crate) async fn clean_up_unless(&self, keep: bool, names: &Names) {
        if keep {
            return;
        }
        if let (Self::Real { .. }, Ok(admin)) = (self, self.admin()) {
            let topics = names.topics();
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
            let _ = admin.delete_topics(&topics, &options).await;
            let jobmanagers = format!("{}.jobmanager", names.job);
            let groups = [names.job.as_str(), &names.progress_topic(), &jobmanagers];
            let _ = admin.delete_groups(&groups, &options).await;
        }
    }
}
