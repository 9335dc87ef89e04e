//! Kafka, Ceph RGW and MediaWiki, by the scripts of `tests/env`.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use axum::{extract::Query, http::Uri};

use super::workspace::Workspace;
use crate::proxy::Proxy;

/// Something that a script started; ended when dropped.
struct Part {
    script: PathBuf,
    folder: PathBuf,
}

impl Part {
    fn up(workspace: &Workspace, script: &str, folder: &str, more: &[&str]) -> anyhow::Result<(Self, Values)> {
        Self::up_with(workspace, script, folder, more, &[])
    }

    fn up_with(
        workspace: &Workspace,
        script: &str,
        folder: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> anyhow::Result<(Self, Values)> {
        let part = Self { script: workspace.script(script), folder: workspace.run.join(folder) };
        let mut command = part.command("up", more);
        let printed = run(command.envs(environment.iter().copied()), None)?;
        let values = printed.lines().filter_map(|line| line.split_once('='));
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok((part, Values(values)))
    }

    /// Blocking: scripts run in their own time.
    fn call(&self, verb: &str, more: &[&str], input: Option<&[u8]>) -> anyhow::Result<String> {
        run(&mut self.command(verb, more), input)
    }

    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.arg(verb).arg(&self.folder).args(more);
        command
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Err(why) = self.call("down", &[], None) {
            eprintln!("{}: {why:#}", self.script.display());
        }
    }
}

struct Values(BTreeMap<String, String>);

impl Values {
    fn get(&self, name: &str) -> anyhow::Result<String> {
        self.0.get(name).cloned().with_context(|| format!("the script did not print {name}"))
    }
}

/// Runs a command to its end; its standard output, or its standard error as the error.
fn run(command: &mut Command, input: Option<&[u8]>) -> anyhow::Result<String> {
    let name = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    // To files, not pipes: what a script starts in the background would hold a pipe open.
    let files = [tempfile()?, tempfile()?];
    let mut child = command
        .stdin(stdin)
        .stdout(files[0].1.try_clone()?)
        .stderr(files[1].1.try_clone()?)
        .spawn()
        .with_context(|| name.clone())?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        pipe.write_all(input)?;
    }
    let status = child.wait()?;
    let [output, errors] = files.map(|(path, _)| {
        let text = std::fs::read(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        String::from_utf8_lossy(&text).into_owned()
    });
    if !status.success() {
        bail!("{name}: {status}\n{errors}");
    }
    Ok(output)
}

fn tempfile() -> anyhow::Result<(PathBuf, std::fs::File)> {
    let path = std::env::temp_dir().join(format!("weir-e2e-output.{}", uuid::Uuid::new_v4()));
    let file = std::fs::File::create(&path)?;
    Ok((path, file))
}

/// A Kafka broker.
pub struct Kafka {
    /// `host:port`.
    pub bootstrap: String,
    _part: Part,
}

impl Kafka {
    /// Starts one.
    ///
    /// # Errors
    /// What the script said.
    pub fn up(workspace: &Workspace, folder: &str) -> anyhow::Result<Self> {
        let (part, values) = Part::up(workspace, "kafka/kafka.sh", folder, &[])?;
        Ok(Self { bootstrap: values.get("BOOTSTRAP_SERVERS")?, _part: part })
    }
}

/// A Kafka broker whose second listener is reached through a proxy alone.
pub struct ProxiedKafka {
    /// `host:port` of the listener that no proxy stands before.
    pub direct: String,
    /// The proxy; clients that start there stay there.
    pub proxy: Proxy,
    _part: Part,
}

impl ProxiedKafka {
    /// Starts one, and its proxy.
    ///
    /// # Errors
    /// What the script said; no port.
    pub async fn up(workspace: &Workspace, folder: &str) -> anyhow::Result<Self> {
        let proxy = Proxy::kafka(NOBODY).await?;
        let (workspace, folder, port) = (workspace.clone(), folder.to_owned(), proxy.address().port().to_string());
        let (part, values) = tokio::task::spawn_blocking(move || {
            Part::up_with(&workspace, "kafka/kafka.sh", &folder, &[], &[("KAFKA_PROXY", &port)])
        })
        .await??;
        proxy.forward_to(values.get("PROXIED")?.parse()?);
        Ok(Self { direct: values.get("BOOTSTRAP_SERVERS")?, proxy, _part: part })
    }
}

/// Three Kafka brokers, each reached directly and through proxies.
pub struct Cluster {
    /// `host:port,host:port,host:port` of the listeners that no proxy stands before.
    pub direct: String,
    /// Groups of three proxies, one for each broker; clients that start at a group stay there.
    pub links: Vec<[Proxy; 3]>,
    part: Part,
}

impl Cluster {
    /// Starts one with so many groups of proxies.
    ///
    /// # Errors
    /// What the script said; no port.
    pub async fn up(workspace: &Workspace, folder: &str, groups: usize) -> anyhow::Result<Self> {
        let mut links = Vec::new();
        for _ in 0..groups {
            links.push([Proxy::kafka(NOBODY).await?, Proxy::kafka(NOBODY).await?, Proxy::kafka(NOBODY).await?]);
        }
        let ports = links.iter().map(ports).collect::<Vec<_>>().join(" ");
        let (workspace, folder) = (workspace.clone(), folder.to_owned());
        let (part, values) = tokio::task::spawn_blocking(move || {
            Part::up_with(&workspace, "kafka/cluster.sh", &folder, &[], &[("KAFKA_PROXY", &ports)])
        })
        .await??;
        let proxied = values.get("PROXIED")?;
        for (link, upstreams) in links.iter().zip(proxied.split(' ')) {
            for (proxy, upstream) in link.iter().zip(upstreams.split(',')) {
                proxy.forward_to(upstream.parse()?);
            }
        }
        Ok(Self { direct: values.get("BOOTSTRAP_SERVERS")?, links, part })
    }

    /// `host:port,…` of a group of proxies.
    #[must_use]
    pub fn bootstrap(&self, group: usize) -> String {
        let addresses: Vec<_> = self.links[group].iter().map(|proxy| proxy.address().to_string()).collect();
        addresses.join(",")
    }

    /// `kill`, `stop`, `start`, `pause` or `resume` of broker 1, 2 or 3. Blocking.
    ///
    /// # Errors
    /// What the script said.
    pub fn broker(&self, verb: &str, number: u32) -> anyhow::Result<()> {
        self.part.call(verb, &[&number.to_string()], None).map(drop)
    }

    /// The process of a broker.
    ///
    /// # Errors
    /// It has none.
    pub fn pid(&self, number: u32) -> anyhow::Result<u32> {
        let file = self.part.folder.join(number.to_string()).join("kafka.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim().parse()?)
    }
}

fn ports(link: &[Proxy; 3]) -> String {
    let ports: Vec<_> = link.iter().map(|proxy| proxy.address().port().to_string()).collect();
    ports.join(",")
}

/// Where a proxy forwards to until it is told.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Ceph's S3 gateway with a bucket `weir`.
pub struct Rgw {
    /// `http://host:port`.
    pub endpoint: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    part: Part,
}

impl Rgw {
    /// Starts one.
    ///
    /// # Errors
    /// What the script said.
    pub fn up(workspace: &Workspace, folder: &str) -> anyhow::Result<Self> {
        let (part, values) = Part::up(workspace, "rgw/rgw.sh", folder, &[])?;
        Ok(Self {
            endpoint: values.get("S3_ENDPOINT")?,
            access_key: values.get("S3_ACCESS_KEY")?,
            secret_key: values.get("S3_SECRET_KEY")?,
            part,
        })
    }

    /// SIGKILL of the gateway; what it stores stays.
    ///
    /// # Errors
    /// What the script said.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.part.call("kill", &[], None).map(drop)
    }

    /// Starts the gateway again.
    ///
    /// # Errors
    /// What the script said.
    pub fn start(&self) -> anyhow::Result<()> {
        self.part.call("start", &[], None).map(drop)
    }
}

/// MediaWiki with several wikis.
pub struct MediaWiki {
    /// URL of `api.php`.
    pub api: String,
    part: Part,
}

impl MediaWiki {
    /// Starts one with these wikis, `(name, domain)`.
    ///
    /// # Errors
    /// What the script said.
    pub fn up(workspace: &Workspace, folder: &str, wikis: &[(&str, &str)]) -> anyhow::Result<Self> {
        let wikis: Vec<String> = wikis.iter().map(|(name, domain)| format!("{name}={domain}")).collect();
        let wikis: Vec<&str> = wikis.iter().map(String::as_str).collect();
        let (part, values) = Part::up(workspace, "mediawiki/mediawiki.sh", folder, &wikis)?;
        Ok(Self { api: values.get("API")?, part })
    }

    /// Makes pages; see `makePages.php`.
    ///
    /// # Errors
    /// What the script said.
    pub fn load(&self, wiki: &str, operations: &str) -> anyhow::Result<()> {
        self.part.call("load", &[wiki], Some(operations.as_bytes())).map(drop)
    }

    /// Parameters of the requests that the wiki had since this was last asked, in order.
    ///
    /// # Errors
    /// The file of requests cannot be read.
    pub fn requests(&self, wiki: &str) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
        let file = self.part.folder.join(format!("requests.{wiki}"));
        let lines = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        std::fs::write(&file, "")?;
        let parameters = |line: &str| {
            let url: Uri = format!("http://wiki/?{line}").parse().with_context(|| line.to_owned())?;
            Ok(Query::try_from_uri(&url).with_context(|| line.to_owned())?.0)
        };
        lines.lines().map(parameters).collect()
    }

    /// What the wiki's database holds; see `truth.php`.
    ///
    /// # Errors
    /// What the script said.
    pub fn truth(&self, wiki: &str) -> anyhow::Result<String> {
        self.part.call("truth", &[wiki], None)
    }
}
