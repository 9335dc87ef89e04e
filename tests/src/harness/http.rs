//! The few plain HTTP requests that the tests themselves make.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// GET; status and body.
///
/// # Errors
/// No connection, no answer in 10 s, or not HTTP.
pub async fn get(address: &str, path: &str, host: &str) -> anyhow::Result<(u16, String)> {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer is neither chunked nor kept alive, its end is the connection's.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .with_context(|| format!("http://{address}{path} does not answer"))??;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("not HTTP: {answer:.100}"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.with_context(|| format!("no status: {head}"))?, body.to_owned()))
}
