//! Plain HTTP: health and status for probes and scripts, metrics for Prometheus.

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    runtime::{Gone, Handle, view::View},
};

/// Serves health and status until `shutdown`.
///
/// # Errors
/// The listener broke.
pub async fn serve(runtime: Handle, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .with_state(runtime);
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?)
}

/// Serves metrics until `shutdown`.
///
/// # Errors
/// The listener broke.
pub async fn serve_metrics(runtime: Handle, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let router = Router::new().route("/metrics", get(metrics_text)).with_state(runtime);
    Ok(axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?)
}

/// The process answers, and so does its loop.
async fn healthz(State(runtime): State<Handle>) -> Result<&'static str, Leaving> {
    runtime.view().await?;
    Ok("ok\n")
}

/// It is the job's jobmanager and takes taskmanagers. Degraded is ready: taking it away would make things worse.
async fn readyz(State(runtime): State<Handle>) -> Result<String, Leaving> {
    Ok(format!("{}\n", runtime.view().await?.state))
}

async fn status(State(runtime): State<Handle>) -> Result<Json<Value>, Leaving> {
    Ok(Json(status_json(&runtime.view().await?)))
}

async fn metrics_text(State(runtime): State<Handle>) -> Result<impl IntoResponse, Leaving> {
    let text = metrics::encode(&runtime.view().await?);
    Ok(([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

fn status_json(view: &View) -> Value {
    json!({
        "job_name": view.job_name,
        "state": view.state,
        "degraded": view.degraded,
        "delivery_guarantee": view.delivery_guarantee,
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

/// The runtime has ended; the process will in a moment.
struct Leaving(Gone);

impl From<Gone> for Leaving {
    fn from(gone: Gone) -> Self {
        Self(gone)
    }
}

impl IntoResponse for Leaving {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}
