//! The stream configuration while the job runs.

use std::time::Duration;

use weir_proto::v1;

use super::harness::{Jobmanager, locked, stream_config, until, until_async};

#[tokio::test]
async fn new_topics_of_the_source_are_taken_in_and_what_cannot_be_followed_is_said_until_it_is_taken_back() {
    let path = std::env::temp_dir().join(format!("weir-stream-config-{}.json", uuid::Uuid::new_v4()));
    let write = |topics: &[&str], sink: &str| std::fs::write(&path, stream_config(topics, sink)).expect("a file");
    write(&["t"], "out");
    let jobmanager = Jobmanager::start_with(1, 1, |config| {
        config.stream_manager.stream_config_uri = format!("file://{}", path.display());
        config.stream_config.refresh_interval = Duration::from_millis(50);
    })
    .await;
    let degraded = async || {
        let status = jobmanager.admin().await.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
        status.degraded.join("\n")
    };
    write(&["t", "u"], "out");
    until("the new topic to be read", || *locked(&jobmanager.kafka.read_also) == ["u"]).await;
    write(&["u"], "elsewhere");
    until_async("what is said", async || {
        let said = degraded().await;
        said.contains("source topic `t` is not named any more") && said.contains("topic `elsewhere`")
    })
    .await;
    std::fs::remove_file(&path).expect("made above");
    until_async("the missing file to be said", async || degraded().await.contains("the job goes on as it is")).await;
    write(&["t", "u"], "out");
    until_async("nothing to be wrong", async || !degraded().await.contains("stream configuration")).await;
    assert_eq!(*locked(&jobmanager.kafka.read_also), ["u"], "once");
    std::fs::remove_file(&path).expect("made above");
}
