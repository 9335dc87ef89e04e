use super::*;
use crate::store::object::Objects;

const TTL: Duration = Duration::from_millis(600);

fn candidate(storage: &Arc<Objects>, holder: &str) -> StorageLeadership {
    let settings = Settings { holder: holder.to_owned(), address: format!("{holder}:6123"), ttl: TTL };
    StorageLeadership::new(Arc::clone(storage) as Arc<dyn Storage>, "job", settings)
}

async fn lead(leadership: &StorageLeadership) -> Arc<dyn Term> {
    let led = tokio::time::timeout(Duration::from_secs(20), leadership.lead()).await;
    led.expect("in time").expect("it leads")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_follows_at_once_when_it_leaves() {
    let storage = Arc::new(Objects::in_memory());
    let first = candidate(&storage, "first");
    let term = lead(&first).await;
    assert_eq!((term.epoch(), term.leads()), (LeaderEpoch(1), true));
    let second = candidate(&storage, "second");
    let mut leader = second.leader();
    let seen = leader.wait_for(Option::is_some).await.expect("it looks").clone();
    assert_eq!(seen.as_deref(), Some("first:6123"));
    let early = tokio::time::timeout(TTL * 3, second.lead()).await;
    assert!(early.is_err() && term.leads(), "the first renews its lease");
    term.confirm(LeaderEpoch(41)).await.expect("it lasts");
    first.release().await;
    let next = lead(&second).await;
    assert_eq!(next.epoch(), LeaderEpoch(42));
    assert!(!term.leads());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_followed_when_its_time_is_over_and_knows_it_when_it_is_back() {
    let storage = Arc::new(Objects::in_memory());
    let first = candidate(&storage, "first");
    let term = lead(&first).await;
    // Its task does nothing any more, as that of a stopped process.
    let StorageLeadership { _stop, .. } = first;
    drop(_stop);
    let second = candidate(&storage, "second");
    let next = lead(&second).await;
    assert_eq!(next.epoch(), LeaderEpoch(2));
    assert!(!term.leads(), "its own clock ended it before");
    assert!(term.confirm(LeaderEpoch(0)).await.is_err());
    next.confirm(LeaderEpoch(0)).await.expect("it lasts");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_without_conditions_is_refused() {
    let folder = std::env::temp_dir().join(format!("weir-lease-{}", uuid::Uuid::new_v4()));
    let uri = format!("file://{}", folder.display());
    let storage = weir_common::config::Storage { uri, ..weir_common::config::Storage::default() };
    let folders = Arc::new(Objects::open(&storage).expect("a writable folder"));
    let refused = candidate(&folders, "first").lead().await.expect_err("a folder cannot");
    assert_eq!(refused.code(), 2);
    assert!(refused.to_string().contains("does not heed `If-Match`"), "{refused}");
    std::fs::remove_dir_all(folder).expect("removed");
}
