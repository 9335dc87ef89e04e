//! The job's error events.

use tonic::{Code, Status};
use weir_proto::v1;

use super::Service;
use crate::{
    errors::{ErrorEvent, Filter},
    kafka::KafkaProblem,
};

/// Events that are listed where no limit is asked for, and at most.
const DEFAULT_LIMIT: usize = 20;
const LIMIT_MAX: usize = 1000;

/// Of a message in a list: a thousand of them stay small.
const MESSAGE_CHARS_MAX: usize = 1000;

impl Service {
    pub(super) async fn errors(&self, request: v1::ListErrorsRequest) -> Result<v1::ListErrorsResponse, Status> {
        let limit = match request.limit as usize {
            0 => DEFAULT_LIMIT,
            limit => limit.min(LIMIT_MAX),
        };
        let filter = filter(request.filter.unwrap_or_default());
        let found = self.runtime()?.backend().list_errors(filter, limit).await.map_err(|error| of_kafka(&error))?;
        let topic = self.error_topic().await?;
        Ok(v1::ListErrorsResponse {
            errors: found.errors.into_iter().map(|error| info(&topic, error)).collect(),
            more: found.more,
            searched_back_to_unix_ms: found.searched_back_to_ms.unwrap_or_default(),
        })
    }

    pub(super) async fn error(&self, request: v1::GetErrorRequest) -> Result<v1::GetErrorResponse, Status> {
        let position = (request.partition, request.offset);
        let found = self.runtime()?.backend().error_at(position).await.map_err(|error| of_kafka(&error))?;
        let topic = self.error_topic().await?;
        let (error, event) = found.ok_or_else(|| {
            let v1::GetErrorRequest { partition, offset } = request;
            Status::not_found(format!("no record is at offset {offset} of {topic}-{partition} (any more)"))
        })?;
        Ok(v1::GetErrorResponse { error: Some(info(&topic, error)), event })
    }

    async fn error_topic(&self) -> Result<String, Status> {
        Ok(self.view().await?.error_topic)
    }
}

pub(super) fn of_kafka(error: &KafkaProblem) -> Status {
    let code = match error {
        KafkaProblem::Configuration(_) | KafkaProblem::GroupHasMembers(_) => Code::FailedPrecondition,
        KafkaProblem::Pending(_) | KafkaProblem::Unreachable(_) => Code::Unavailable,
        KafkaProblem::Failed(_) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

pub(super) fn filter(filter: v1::ErrorFilter) -> Filter {
    let time = |unix_ms: i64| (unix_ms != 0).then_some(unix_ms);
    Filter {
        from_ms: time(filter.from_unix_ms),
        to_ms: time(filter.to_unix_ms),
        error_types: filter.error_types,
        wikis: filter.wikis,
        sources: filter.sources,
    }
}

fn info(topic: &str, error: ErrorEvent) -> v1::ErrorInfo {
    let source = error.source.map(|(partition, offset)| v1::PartitionOffset {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        offset,
    });
    v1::ErrorInfo {
        topic: topic.to_owned(),
        partition: error.position.0,
        offset: error.position.1,
        time_unix_ms: error.timestamp_ms,
        error_type: error.error_type,
        message: error.message.chars().take(MESSAGE_CHARS_MAX).collect(),
        emitter_id: error.emitter_id,
        wiki_id: error.wiki_id.unwrap_or_default(),
        domain: error.domain.unwrap_or_default(),
        page_id: error.page_id,
        rev_id: error.rev_id,
        source,
        raw_event_bytes: error.raw_event.len() as u64,
        raw_event: error.raw.name().to_owned(),
    }
}
