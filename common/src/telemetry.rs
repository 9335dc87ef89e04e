//! Log lines, to standard error: text for people, Elastic Common Schema for machines.

use std::{fmt, io::IsTerminal as _};

use serde_json::{Map, Value, json};
use thiserror::Error;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::config::{Log, LogFormat};

/// `log.level` is no filter.
#[derive(Debug, Error)]
#[error("log filter `{filter}`: {cause}; write for example `info` or `info,weir_taskmanager=debug`")]
pub struct FilterError {
    /// As written in `WEIR_LOG`, `RUST_LOG` or `log.level`.
    pub filter: String,
    /// The parser's words.
    pub cause: String,
}

/// Sends log lines to standard error from now on. `WEIR_LOG`, else `RUST_LOG`, else `log.level` is the filter.
/// A process that logs already is left as it is.
///
/// # Errors
/// A filter that cannot be read.
pub fn init(log: &Log) -> Result<(), FilterError> {
    let text = ["WEIR_LOG", "RUST_LOG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| log.level.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&text)?).with_writer(std::io::stderr);
    // Refused only where a subscriber is there already.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Ecs => builder.event_format(Ecs { service: service_name() }).try_init(),
    };
    Ok(())
}

/// Reads a filter.
///
/// # Errors
/// What is wrong with it.
pub fn filter(text: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::try_new(text).map_err(|error| FilterError { filter: text.to_owned(), cause: error.to_string() })
}

fn service_name() -> String {
    let path = std::env::current_exe().ok();
    path.and_then(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).unwrap_or_else(|| "weir".to_owned())
}

/// One JSON object a line. What is no field of the schema goes to `labels`, which it keeps for that.
struct Ecs {
    service: String,
}

impl<S, N> FormatEvent<S, N> for Ecs
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line = json!({
            "@timestamp": jiff::Timestamp::now().to_string(),
            "log.level": metadata.level().as_str().to_ascii_lowercase(),
            "message": fields.message,
            "ecs.version": "8.11.0",
            "service.name": self.service,
            "log.logger": metadata.target(),
            "process.pid": std::process::id(),
        });
        if let Some(span) = ctx.lookup_current() {
            line["log.origin.function"] = span.name().into();
        }
        if !fields.labels.is_empty() {
            line["labels"] = Value::Object(fields.labels);
        }
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    labels: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.labels.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_ecs_line_is_one_json_object() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(Ecs { service: "weir-test".to_owned() })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("cut").entered();
            tracing::warn!(split = %"t-0/1", attempt = 3, "fetch failed,\n\"will\" retry");
        });
        let bytes = lines.0.lock().expect("not poisoned").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["message"], "fetch failed,\n\"will\" retry");
        assert_eq!(line["log.level"], "warn");
        assert_eq!(line["service.name"], "weir-test");
        assert_eq!(line["labels"], json!({"split": "t-0/1", "attempt": 3}));
        assert!(line["@timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    }

    #[test]
    fn a_bad_filter_is_refused() {
        assert!(filter("info,weir=debug").is_ok());
        assert!(filter("info,=,=x=y").is_err());
    }
}
