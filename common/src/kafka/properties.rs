//! The Java client's property names, as production writes them, and what librdkafka calls the same.

use rdkafka::ClientConfig;
use thiserror::Error;

/// Which client a property is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads.
    Consumer,
    /// Writes.
    Producer,
    /// Neither, on a cluster whose properties are a producer's: takes only what makes the connection.
    Connection,
}

/// A property that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{name}`: {problem}; {remedy}")]
pub struct PropertyError {
    /// As configured.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// How librdkafka takes a Java property.
enum Java {
    /// By this name.
    Renamed(&'static str),
    /// By this name, and the value is bytes where librdkafka wants KiB.
    Kbytes(&'static str),
    /// Only with one of these values, which is what is set anyway.
    Fixed(&'static [&'static str], &'static str),
    /// Not at all: remedy.
    Refused(&'static str),
}

const NO_MEANING: &str = "it has no meaning for this client: remove it";
const PEM_TRUST: &str = "export the authorities as PEM and write `ssl.ca.location: /path/ca.pem`";
const OAUTH: &str = "use librdkafka's `sasl.oauthbearer.method`, `sasl.oauthbearer.client.id` and the like";

const TABLE: &[(&str, Java)] = &[
    ("max.request.size", Java::Renamed("message.max.bytes")),
    ("delivery.timeout.ms", Java::Renamed("message.timeout.ms")),
    ("buffer.memory", Java::Kbytes("queue.buffering.max.kbytes")),
    ("compression.type", Java::Renamed("compression.codec")),
    ("fetch.max.wait.ms", Java::Renamed("fetch.wait.max.ms")),
    ("receive.buffer.bytes", Java::Renamed("socket.receive.buffer.bytes")),
    ("send.buffer.bytes", Java::Renamed("socket.send.buffer.bytes")),
    ("socket.connection.setup.timeout.ms", Java::Renamed("socket.connection.setup.timeout.ms")),
    ("ssl.truststore.certificates", Java::Renamed("ssl.ca.pem")),
    ("ssl.keystore.key", Java::Renamed("ssl.key.pem")),
    ("ssl.keystore.certificate.chain", Java::Renamed("ssl.certificate.pem")),
    ("ssl.keystore.type", Java::Fixed(&["PKCS12", "PEM"], "librdkafka reads PKCS#12 and PEM key stores: convert it")),
    ("ssl.truststore.location", Java::Refused(PEM_TRUST)),
    ("ssl.truststore.password", Java::Refused(PEM_TRUST)),
    ("ssl.truststore.type", Java::Refused(PEM_TRUST)),
    ("ssl.protocol", Java::Refused(NO_MEANING)),
    ("ssl.enabled.protocols", Java::Refused(NO_MEANING)),
    ("ssl.provider", Java::Refused(NO_MEANING)),
    ("sasl.jaas.config", Java::Refused("write its parts as `sasl.mechanism`, `sasl.username` and `sasl.password`")),
    ("sasl.login.callback.handler.class", Java::Refused(OAUTH)),
    ("sasl.client.callback.handler.class", Java::Refused(OAUTH)),
    ("key.serializer", Java::Refused(NO_MEANING)),
    ("value.serializer", Java::Refused(NO_MEANING)),
    ("key.deserializer", Java::Refused(NO_MEANING)),
    ("value.deserializer", Java::Refused(NO_MEANING)),
    ("interceptor.classes", Java::Refused(NO_MEANING)),
    ("metric.reporters", Java::Refused(NO_MEANING)),
    ("metrics.num.samples", Java::Refused(NO_MEANING)),
    ("metrics.recording.level", Java::Refused(NO_MEANING)),
    ("max.block.ms", Java::Refused(NO_MEANING)),
    ("partitioner.class", Java::Refused("records are partitioned by murmur2 of their key, as Java does: remove it")),
    ("partitioner.ignore.keys", Java::Refused(NO_MEANING)),
    ("max.poll.records", Java::Refused("what is held at once is `taskmanager.memory_budget`")),
    ("partition.assignment.strategy", Java::Refused("the jobmanager assigns splits: remove it")),
    ("partition.discovery.interval.ms", Java::Refused("write `partition.discovery.interval: 60 s`")),
    // What this job decides by itself.
    ("bootstrap.servers", Java::Refused("write it as `bootstrap_servers` beside `properties`")),
    ("group.id", Java::Refused("write it as `consumer_group` of the source")),
    ("auto.offset.reset", Java::Refused("write `job.starting_offsets: earliest`, `latest` or `committed`")),
    ("transactional.id", Java::Refused("it is made of `stream_manager.job_name`: remove it")),
    ("transaction.timeout.ms", Java::Refused("write `transaction.timeout: 60 s`")),
    ("enable.auto.commit", Java::Fixed(&["false"], "progress is committed with the output: remove it")),
    ("enable.auto.offset.store", Java::Fixed(&["false"], "progress is committed with the output: remove it")),
    ("isolation.level", Java::Fixed(&["read_committed"], "aborted records must not be read: remove it")),
    ("enable.idempotence", Java::Fixed(&["true"], "without it retries repeat and reorder records: remove it")),
    ("acks", Java::Fixed(&["all", "-1"], "fewer acknowledgements lose records: remove it")),
    ("request.required.acks", Java::Fixed(&["all", "-1"], "fewer acknowledgements lose records: remove it")),
    ("debug", Java::Refused("raise `log.level`, for example `info,librdkafka=debug`")),
    ("log_level", Java::Refused("raise `log.level`, for example `info,librdkafka=debug`")),
];

/// First words of the properties that make a connection, whatever it is used for.
const CONNECTION: &[&str] = &[
    "security.",
    "ssl.",
    "sasl.",
    "socket.",
    "client.",
    "broker.",
    "reconnect.",
    "api.",
    "metadata.",
    "enable.ssl.",
    "connections.",
    "https.",
    "retry.",
    "topic.metadata.",
];

/// What librdkafka is given for a configured property; `None` for what is set anyway or is not this role's.
///
/// Names of the Java client are translated, librdkafka's own pass if it knows them and takes the value.
///
/// # Errors
/// Names and values that are refused, with the remedy.
pub fn translate(name: &str, value: &str, role: Role) -> Result<Option<(String, String)>, PropertyError> {
    let refused = |problem: String, remedy: &str| {
        Err(PropertyError { name: name.to_owned(), problem, remedy: remedy.to_owned() })
    };
    let entry = TABLE.iter().find(|(java, _)| *java == name).map(|(_, entry)| entry);
    let (key, value) = match entry {
        Some(Java::Refused(remedy)) => return refused("cannot be set here".to_owned(), remedy),
        Some(Java::Fixed(values, remedy)) if !values.contains(&value) => {
            return refused(format!("cannot be `{value}`"), remedy);
        }
        Some(Java::Fixed(..)) => return Ok(None),
        Some(Java::Kbytes(key)) => match value.trim().parse::<u64>() {
            Ok(bytes) => (*key, bytes.div_ceil(1024).to_string()),
            Err(_) => return refused(format!("`{value}` is not a number of bytes"), "write a whole number"),
        },
        // librdkafka's property of the same name is the producer's wait for acknowledgements.
        None if name == "request.timeout.ms" && role != Role::Producer => ("socket.timeout.ms", value.to_owned()),
        Some(Java::Renamed(key)) => (*key, value.to_owned()),
        None => (name, value.to_owned()),
    };
    if let Err(problem) = known_to_librdkafka(key, &value) {
        let remedy = nearest(name).map_or_else(
            || "see librdkafka's CONFIGURATION.md for the names that it knows".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        return refused(problem, &remedy);
    }
    let taken = role != Role::Connection || CONNECTION.iter().any(|prefix| key.starts_with(prefix));
    Ok(taken.then(|| (key.to_owned(), value)))
}

/// Whether a property's value must not be shown.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "jaas", "key.pem", "keystore.key", "private.key", "token"]
        .iter()
        .any(|part| name.contains(part))
}

fn known_to_librdkafka(name: &str, value: &str) -> Result<(), String> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(rdkafka::error::KafkaError::ClientConfig(_, why, ..)) => Err(if is_secret(name) {
            "librdkafka does not take it".to_owned()
        } else {
            format!("librdkafka does not take it ({})", why.trim_end_matches('\0'))
        }),
        Err(error) => Err(error.to_string()),
    }
}

/// Names that people write, for "did you mean".
const USUAL: &[&str] = &[
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "linger.ms",
    "batch.size",
    "compression.codec",
    "message.max.bytes",
    "message.timeout.ms",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "client.id",
    "client.rack",
    "socket.timeout.ms",
    "retry.backoff.ms",
];

fn nearest(name: &str) -> Option<&'static str> {
    let names = TABLE.iter().map(|(java, _)| *java).chain(USUAL.iter().copied());
    crate::config::nearest(name, names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_names_become_librdkafkas() {
        let table = [
            ("max.request.size", "10485760", "message.max.bytes", "10485760"),
            ("compression.type", "zstd", "compression.codec", "zstd"),
            ("delivery.timeout.ms", "20000", "message.timeout.ms", "20000"),
            ("buffer.memory", "134217728", "queue.buffering.max.kbytes", "131072"),
            ("linger.ms", "20", "linger.ms", "20"),
            ("security.protocol", "SSL", "security.protocol", "SSL"),
            (
                "ssl.ca.location",
                "/etc/ssl/certs/wmf-ca-certificates.crt",
                "ssl.ca.location",
                "/etc/ssl/certs/wmf-ca-certificates.crt",
            ),
            ("queue.buffering.max.messages", "5", "queue.buffering.max.messages", "5"),
        ];
        for (java, value, name, translated) in table {
            let expected = Ok(Some((name.to_owned(), translated.to_owned())));
            assert_eq!(translate(java, value, Role::Producer), expected, "{java}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_remedy() {
        let table = [
            ("ssl.truststore.location", "/a.jks", "ssl.ca.location"),
            ("sasl.jaas.config", "org.apache…", "sasl.username"),
            ("acks", "1", "remove it"),
            ("enable.idempotence", "false", "remove it"),
            ("auto.offset.reset", "latest", "job.starting_offsets"),
            ("transaction.timeout.ms", "1", "transaction.timeout"),
            ("max.requst.size", "1", "did you mean `max.request.size`"),
            ("completely.unknown.thing.of.nobody", "1", "CONFIGURATION.md"),
            ("linger.ms", "soon", "librdkafka does not take it"),
            ("buffer.memory", "much", "whole number"),
        ];
        for (name, value, remedy) in table {
            let error = translate(name, value, Role::Producer).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(remedy), "{error}");
        }
    }

    #[test]
    fn what_is_set_anyway_and_other_roles_properties_are_left_out() {
        for (name, value, role) in [
            ("acks", "all", Role::Producer),
            ("enable.auto.commit", "false", Role::Consumer),
            ("max.request.size", "10485760", Role::Connection),
            ("linger.ms", "5", Role::Connection),
        ] {
            assert_eq!(translate(name, value, role), Ok(None), "{name}");
        }
        assert!(matches!(translate("sasl.username", "u", Role::Connection), Ok(Some(_))));
    }

    #[test]
    fn secrets_are_known_by_name() {
        for name in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"] {
            assert!(is_secret(name), "{name}");
        }
        assert!(!is_secret("ssl.key.location") && !is_secret("security.protocol"));
    }
}
