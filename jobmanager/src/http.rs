//! Plain HTTP: health and status for probes and scripts, metrics for Prometheus.

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    role::{NotLeading, Roles},
    runtime::{Gone, view::View},
};

/// Serves health and status until `shutdown`.
///
/// # Errors
/// The listener broke.
pub async fn serve(roles: Roles, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .with_state(roles);
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?)
}

/// Serves metrics until `shutdown`.
///
/// # Errors
/// The listener broke.
pub async fn serve_metrics(roles: Roles, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(metrics_text)).with_state(roles);
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?)
}

/// The process answers, and so does its loop if it leads.
async fn healthz(State(roles): State<Roles>) -> Result<&'static str, Unavailable> {
    match roles.leading() {
        Ok((runtime, _)) => drop(runtime.view().await?),
        Err(_not_leading) => {}
    }
    Ok("ok\n")
}

/// It is the job's jobmanager and takes taskmanagers, or stands by and refers to who does. Degraded is ready: taking it
/// away would make things worse.
async fn readyz(State(roles): State<Roles>) -> Result<String, Unavailable> {
    match roles.leading() {
        Ok((runtime, _)) => Ok(format!("{}\n", runtime.view().await?.state)),
        Err(standby) if standby.stands_by => Ok("STANDBY\n".to_owned()),
        Err(starting) => Err(starting.into()),
    }
}

async fn status(State(roles): State<Roles>) -> Result<Json<Value>, Unavailable> {
    let (runtime, _) = roles.leading()?;
    Ok(Json(status_json(&runtime.view().await?, roles.leader())))
}

async fn metrics_text(State(roles): State<Roles>) -> Result<impl IntoResponse, Unavailable> {
    let text = match roles.leading() {
        Ok((runtime, _)) => metrics::encode(&runtime.view().await?),
        Err(_not_leading) => metrics::encode_standby(),
    };
    Ok(([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

fn status_json(view: &View, leader: Option<String>) -> Value {
    json!({
        "job_name": view.job_name,
        "state": view.state,
        "degraded": view.degraded,
        "delivery_guarantee": view.delivery_guarantee,
        "leader": leader,
        "leader_epoch": view.leader_epoch,
        "started": view.started,
        "version": env!("CARGO_PKG_VERSION"),
        "taskmanagers": view.taskmanagers.len(),
        "partitions": view.partitions(),
        "splits": view.splits.len(),
        "splits_assigned": view.splits_assigned(),
        "counters": view.counters,
        "lag": view.lag,
        "storage": view.storage,
        "number_of_completed_checkpoints": view.completed_checkpoints,
        "number_of_failed_checkpoints": view.failed_checkpoints,
        "last_completed_checkpoint": view.last_completed().map(|row| row.checkpoint.id),
    })
}

/// This jobmanager has no job to show.
struct Unavailable(String);

impl From<Gone> for Unavailable {
    fn from(gone: Gone) -> Self {
        Self(gone.to_string())
    }
}

impl From<NotLeading> for Unavailable {
    fn from(not_leading: NotLeading) -> Self {
        Self(not_leading.to_string())
    }
}

impl IntoResponse for Unavailable {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}
