//! What the cases share, started when the first one asks for it.

use std::{sync::Arc, time::Duration};

use tokio::{
    process::Command,
    sync::{Mutex, OnceCell},
};

use crate::{
    checker::truth::{mediawiki::MediaWikis, stub::StubWiki},
    events::{Maker, ODD_WIKIS, WIKIS, pages},
    harness::{
        job::{Job, Spec},
        parts::{Kafka, MediaWiki, Rgw},
        process::Process,
        until,
        workspace::Workspace,
    },
};

/// Pages of each MediaWiki.
const PAGES: u32 = 60;

/// Wikis that run on the real MediaWiki.
const REAL_WIKIS: usize = 3;

/// What the cases share.
pub struct Environment {
    /// Folders.
    pub workspace: Workspace,
    kafka: OnceCell<Kafka>,
    second_kafka: OnceCell<Kafka>,
    rgw: OnceCell<Rgw>,
    mediawiki: OnceCell<Arc<MediaWiki>>,
    wikis: OnceCell<RealWikis>,
    /// Held by the case that uses MediaWiki: together, two cases would only measure how long PHP makes them wait.
    pub mediawiki_turn: Mutex<()>,
}

/// What the real wikis' databases hold.
pub struct RealWikis {
    /// From the databases.
    pub truth: MediaWikis,
}

/// A stub wiki and what it holds.
pub struct Stub {
    /// URL of `api.php`.
    pub api: String,
    /// By its rule.
    pub truth: StubWiki,
    /// The process.
    pub process: Process,
}

impl Environment {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(workspace: Workspace) -> Self {
        let (kafka, second_kafka) = (OnceCell::new(), OnceCell::new());
        let (mediawiki, wikis, mediawiki_turn) = (OnceCell::new(), OnceCell::new(), Mutex::new(()));
        Self { workspace, kafka, second_kafka, rgw: OnceCell::new(), mediawiki, wikis, mediawiki_turn }
    }

    /// `host:port` of the first broker.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn kafka(&self) -> anyhow::Result<String> {
        Ok(self.kafka.get_or_try_init(|| self.blocking(|w| Kafka::up(w, "kafka"))).await?.bootstrap.clone())
    }

    /// `host:port` of the second broker.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn second_kafka(&self) -> anyhow::Result<String> {
        Ok(self.second_kafka.get_or_try_init(|| self.blocking(|w| Kafka::up(w, "kafka-2"))).await?.bootstrap.clone())
    }

    /// Section `storage` for a job on the shared S3.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn storage(&self) -> anyhow::Result<String> {
        let rgw = self.rgw.get_or_try_init(|| self.blocking(|w| Rgw::up(w, "rgw"))).await?;
        Ok(storage_yaml(rgw, &rgw.endpoint))
    }

    /// A broker of the case's own.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn own_kafka(&self, folder: &'static str) -> anyhow::Result<Kafka> {
        self.blocking(move |w| Kafka::up(w, folder)).await
    }

    /// An S3 of the case's own.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn own_rgw(&self, folder: &'static str) -> anyhow::Result<Rgw> {
        self.blocking(move |w| Rgw::up(w, folder)).await
    }

    /// MediaWiki with all wikis of the tests, empty until somebody makes pages.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn mediawiki(&self) -> anyhow::Result<&Arc<MediaWiki>> {
        let all: Vec<_> = WIKIS.iter().take(REAL_WIKIS).chain(&ODD_WIKIS).copied().collect();
        let make = move |workspace: &Workspace| MediaWiki::up(workspace, "mediawiki", &all).map(Arc::new);
        self.mediawiki.get_or_try_init(|| self.blocking(make)).await
    }

    /// The real wikis.
    ///
    /// # Errors
    /// They cannot be started or filled.
    pub async fn wikis(&self) -> anyhow::Result<&RealWikis> {
        let server = Arc::clone(self.mediawiki().await?);
        let make = move |_: &Workspace| {
            let mut truth = MediaWikis::default();
            for (seed, (name, domain)) in (0..).zip(&WIKIS[..REAL_WIKIS]) {
                server.load(name, &pages(seed, PAGES))?;
                truth.add(domain, &server.truth(name)?)?;
            }
            Ok(RealWikis { truth })
        };
        self.wikis.get_or_try_init(|| self.blocking(make)).await
    }

    /// A stub wiki of the case's own: 2 KB pages, `latency` of each answer, some failures.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn stub(&self, name: &str, latency: &str, failure_rate: &str, bytes: usize) -> anyhow::Result<Stub> {
        let mut command = Command::new(self.workspace.bin.join("weir"));
        command.args(["stub-wiki", "--latency", latency, "--failure-rate", failure_rate]);
        command.args(["--content-bytes", &bytes.to_string()]).current_dir(&self.workspace.run);
        let mut process = Process::start(&format!("stub-wiki-{name}"), &self.workspace.run, &mut command)?;
        let url = until("the stub wiki to say where it is", Duration::from_secs(20), async || {
            process.must_live()?;
            Ok(process.text().lines().find(|line| line.starts_with("http://")).map(str::to_owned))
        })
        .await?;
        Ok(Stub { api: format!("{url}/w/api.php"), truth: StubWiki::new(bytes), process })
    }

    /// A job on the real wikis, with no more requests at once than four PHP workers answer soon, and more overrides.
    ///
    /// # Errors
    /// Something shared cannot be started.
    pub async fn job_on_mediawiki(
        &self,
        name: &str,
        overrides: &[(&'static str, &'static str)],
    ) -> anyhow::Result<Job> {
        let api = self.mediawiki().await?.api.clone();
        let mut spec = self.spec(name, &api).await?;
        spec.environment.push(("WEIR__ENRICH__MAX_CONCURRENT_REQUESTS", "4"));
        spec.environment.extend(overrides);
        Job::prepare(&self.workspace, spec).await
    }

    /// A job on the shared broker and S3, exactly once.
    ///
    /// # Errors
    /// Something shared cannot be started.
    pub async fn spec(&self, name: &str, api: &str) -> anyhow::Result<Spec> {
        let kafka = self.kafka().await?;
        Ok(Spec {
            name: name.to_owned(),
            source: kafka.clone(),
            sink: kafka,
            exactly_once: true,
            api: api.to_owned(),
            storage: self.storage().await?,
            more: String::new(),
            source_partitions: 1,
            sink_partitions: 3,
            standby: false,
            replays: false,
            page_content_change: false,
            environment: Vec::new(),
        })
    }

    /// Such a job, its topics made.
    ///
    /// # Errors
    /// Something shared cannot be started.
    pub async fn job(&self, name: &str, api: &str) -> anyhow::Result<Job> {
        Job::prepare(&self.workspace, self.spec(name, api).await?).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        start: impl FnOnce(&Workspace) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let workspace = self.workspace.clone();
        tokio::task::spawn_blocking(move || start(&workspace)).await?
    }
}

/// Section `storage` for an S3 that is reached at `endpoint`.
#[must_use]
pub(crate) fn storage_yaml(rgw: &Rgw, endpoint: &str) -> String {
    format!(
        "  uri: s3://weir/jobs\n  s3:\n    endpoint: {}\n    access_key_id: {}\n    secret_access_key: {}\n    request_timeout: 3 s\n",
        endpoint, rgw.access_key, rgw.secret_key
    )
}

/// Events of a job about the stub wiki's pages.
#[must_use]
pub(super) fn stub_events(job: &Job, stub: &Stub, seed: u64, count: usize) -> Arc<Vec<crate::harness::kafka::Input>> {
    Arc::new(Maker::new(seed, job.source_topics()).from_stub(&stub.truth, 150, count))
}
