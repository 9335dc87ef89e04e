//! A line on stderr while something takes its time, when a person looks at it.

use std::time::{Duration, Instant};

use console::Term;

/// Waits for `work`; from the first second on, says what is waited for and how long it has taken.
pub(crate) async fn during<T>(what: &str, work: impl Future<Output = T>) -> T {
    let stderr = Term::stderr();
    if !stderr.is_term() {
        return work.await;
    }
    let started = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => {
                let _ = stderr.clear_line();
                return result;
            }
            _ = tick.tick() => {
                let _ = stderr.clear_line();
                let _ = stderr.write_str(&format!("{what} … {} s", started.elapsed().as_secs()));
            }
        }
    }
}
