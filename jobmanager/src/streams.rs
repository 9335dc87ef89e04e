//! SHIM until weir_common::streams is there.
use weir_common::config::{Config, Sink};

#[derive(Clone, Debug)]
pub(crate) struct ResolvedStreams {
    pub(crate) source_topics: Vec<String>,
    pub(crate) sink: OutputStream,
    pub(crate) error_sink: OutputStream,
}

#[derive(Clone, Debug)]
pub(crate) struct OutputStream {
    pub(crate) stream: String,
    pub(crate) topic: String,
    pub(crate) schema_uri: String,
    pub(crate) message_key_fields: Vec<(String, String)>,
}

fn output(sink: &Sink) -> OutputStream {
    let name = sink.stream.name.clone();
    let topic = format!("{}{name}", sink.options.kafka_topic_prefix.clone().unwrap_or_default());
    OutputStream { stream: name, topic, schema_uri: String::new(), message_key_fields: Vec::new() }
}

pub(crate) async fn resolve(config: &Config) -> anyhow::Result<ResolvedStreams> {
    let manager = &config.stream_manager;
    let topics = manager.source.options.topics.clone();
    Ok(ResolvedStreams {
        source_topics: topics.unwrap_or_else(|| vec![manager.source.stream.name.clone()]),
        sink: output(&manager.sink),
        error_sink: output(&manager.error_sink),
    })
}
