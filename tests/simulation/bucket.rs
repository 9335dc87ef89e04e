//! The object store: whole objects, written under conditions, each request by itself late, failed, or failed after it was
//! done. The real snapshots are kept in it, and the lease.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use weir_jobmanager::{
    leadership::lease::Lease,
    store::{Listed, Put, Storage, StoreError, Version},
};

use crate::{
    time::{MS, Micros, SECOND},
    variants::Variant,
    world::World,
};

type Answer<T> = Result<T, StoreError>;

/// What is asked of the store, and where its answer goes.
enum Request {
    Get(String, Slot<(Bytes, Version)>),
    Put(String, Bytes, Put, Slot<Version>),
    List(String, Slot<Vec<Listed>>),
    Delete(String, Slot<()>),
}

/// An answer that comes later. The store's futures must be `Send`, though all happens in one thread.
struct Slot<T>(Arc<Mutex<Waiting<T>>>);

type Waiting<T> = (Option<Answer<T>>, Option<Waker>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Slot<T> {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }

    fn fill(&self, answer: Answer<T>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = Some(answer);
        if let Some(waker) = slot.1.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Slot<T> {
    type Output = Answer<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.0.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Hands requests to the world, which is not `Send`.
#[derive(Clone, Default)]
pub(crate) struct Bucket(Arc<Mutex<VecDeque<Request>>>);

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

impl Bucket {
    fn requests(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for Bucket {
    fn address(&self) -> &str {
        "bucket"
    }

    fn location(&self, key: &str) -> String {
        format!("bucket/{key}")
    }

    fn key_of(&self, location: &str) -> Option<String> {
        location.strip_prefix("bucket/").map(str::to_owned)
    }

    async fn get(&self, key: &str) -> Answer<(Bytes, Version)> {
        let slot = Slot::new();
        self.requests().push_back(Request::Get(key.to_owned(), slot.clone()));
        slot.await
    }

    async fn put(&self, key: &str, content: Bytes, put: Put) -> Answer<Version> {
        let slot = Slot::new();
        self.requests().push_back(Request::Put(key.to_owned(), content, put, slot.clone()));
        slot.await
    }

    async fn list(&self, folder: &str) -> Answer<Vec<Listed>> {
        let slot = Slot::new();
        self.requests().push_back(Request::List(folder.to_owned(), slot.clone()));
        slot.await
    }

    async fn delete(&self, key: &str) -> Answer<()> {
        let slot = Slot::new();
        self.requests().push_back(Request::Delete(key.to_owned(), slot.clone()));
        slot.await
    }
}

/// The objects themselves.
#[derive(Default)]
pub(crate) struct Objects {
    objects: BTreeMap<String, (Bytes, u64)>,
    lease: Option<(Lease, u64)>,
    writes: u64,
    /// Nothing is answered until then.
    pub(crate) away_until: Micros,
}

impl Objects {
    fn put(&mut self, key: &str, content: Bytes, put: &Put, unconditionally: bool) -> Answer<Version> {
        let current = self.objects.get(key).map(|(_, version)| version.to_string());
        let fits = match put {
            Put::New => current.is_none().then_some(()).ok_or(StoreError::Exists(key.to_owned())),
            Put::Over(version) => (current == version.e_tag).then_some(()).ok_or(StoreError::Changed(key.to_owned())),
        };
        if !unconditionally {
            fits?;
        }
        self.writes += 1;
        self.objects.insert(key.to_owned(), (content, self.writes));
        Ok(version(self.writes))
    }

    fn get(&self, key: &str) -> Answer<(Bytes, Version)> {
        let (content, version) = self.objects.get(key).ok_or(StoreError::NotFound(key.to_owned()))?;
        Ok((content.clone(), self::version(*version)))
    }

    fn list(&self, folder: &str) -> Vec<Listed> {
        let below = self.objects.iter().filter(|(key, _)| key.starts_with(folder));
        let listed = |(key, (content, _)): (&String, &(Bytes, u64))| Listed {
            key: key.clone(),
            size_bytes: content.len() as u64,
            modified: Timestamp::UNIX_EPOCH,
        };
        below.map(listed).collect()
    }
}

fn version(number: u64) -> Version {
    Version { e_tag: Some(number.to_string()), version: None }
}

/// What becomes of a request.
struct Fate {
    /// When it is done, if it is.
    done: Option<Micros>,
    /// When it is answered.
    answered: Micros,
    /// The answer says what was done.
    well: bool,
}

impl World {
    /// Takes in what was asked of the store since the last time.
    pub(crate) fn serve_bucket(self: &Rc<Self>) {
        loop {
            let Some(request) = self.bucket.requests().pop_front() else { return };
            match request {
                Request::Get(key, slot) => self.serve(slot, move |world| world.objects.borrow().get(&key)),
                Request::List(folder, slot) => self.serve(slot, move |world| Ok(world.objects.borrow().list(&folder))),
                Request::Delete(key, slot) => self.serve(slot, move |world| {
                    world.objects.borrow_mut().objects.remove(&key);
                    Ok(())
                }),
                Request::Put(key, content, put, slot) => self.serve(slot, move |world| {
                    let overwritten = world.variant == Variant::Overwritten;
                    let before = world.objects.borrow().objects.get(&key).map(|(content, _)| content.clone());
                    let done = world.objects.borrow_mut().put(&key, content.clone(), &put, overwritten);
                    if done.is_ok() {
                        world.check(written(&key, before.as_ref(), &content));
                    }
                    done
                }),
            }
        }
    }

    fn serve<T: 'static>(self: &Rc<Self>, slot: Slot<T>, request: impl FnOnce(&Rc<Self>) -> Answer<T> + 'static) {
        let fate = self.bucket_fate();
        let unreachable = || Err(StoreError::Unreachable("the store does not answer".to_owned()));
        match fate {
            Fate { done: Some(done), answered, well } => self.time.after(done, None, move |world| {
                let result = request(world);
                if well {
                    world.time.after(answered - done, None, move |_| slot.fill(result));
                } else if answered <= done {
                    slot.fill(unreachable());
                } else {
                    world.time.after(answered - done, None, move |_| slot.fill(unreachable()));
                }
            }),
            Fate { done: None, answered, .. } => self.time.after(answered, None, move |_| slot.fill(unreachable())),
        }
    }

    fn bucket_fate(&self) -> Fate {
        let time = &self.time;
        let away = self.objects.borrow().away_until > time.now();
        let quick = time.between(5 * MS, 60 * MS);
        if away {
            return Fate { done: None, answered: time.between(500 * MS, 2 * SECOND), well: false };
        }
        if self.healed() || !time.chance(self.weather.borrow().bucket) {
            return Fate { done: Some(quick / 2), answered: quick, well: true };
        }
        self.count("bucket trouble");
        match time.between(0, 4) {
            0 => Fate { done: None, answered: time.between(10 * MS, 2 * SECOND), well: false },
            1 => Fate { done: Some(quick), answered: quick + time.between(10 * MS, 2 * SECOND), well: false },
            2 => Fate { done: Some(quick), answered: quick + time.between(100 * MS, 4 * SECOND), well: true },
            _ => Fate {
                done: Some(time.between(SECOND, 8 * SECOND)),
                answered: time.between(10 * MS, SECOND),
                well: false,
            },
        }
    }

    /// Reads the lease; `None`: it could not be read.
    pub(crate) fn read_lease(self: &Rc<Self>, answer: impl FnOnce(&Rc<Self>, Option<Option<(Lease, u64)>>) + 'static) {
        match self.bucket_fate() {
            Fate { done: Some(done), answered, well: true } => self.time.after(done, None, move |world| {
                let read = world.objects.borrow().lease.clone();
                world.time.after(answered.saturating_sub(done), None, move |world| answer(world, Some(read)));
            }),
            Fate { answered, .. } => self.time.after(answered, None, move |world| answer(world, None)),
        }
    }

    /// Writes the lease under a condition: `Ok` with its new state, `Err(true)`: the condition failed, `Err(false)`: unclear.
    pub(crate) fn write_lease(
        self: &Rc<Self>,
        lease: Lease,
        over: Option<u64>,
        answer: impl FnOnce(&Rc<Self>, Result<u64, bool>) + 'static,
    ) {
        let Fate { done, answered, well } = self.bucket_fate();
        let write = move |world: &Rc<Self>| {
            let mut objects = world.objects.borrow_mut();
            if objects.lease.as_ref().map(|(_, version)| *version) != over {
                return Err(true);
            }
            objects.writes += 1;
            let version = objects.writes;
            objects.lease = Some((lease, version));
            Ok(version)
        };
        match done {
            Some(done) if well => self.time.after(done, None, move |world| {
                let result = write(world);
                world.time.after(answered.saturating_sub(done), None, move |world| answer(world, result));
            }),
            done => {
                if let Some(done) = done {
                    self.time.after(done, None, move |world| {
                        let _ = write(world);
                    });
                }
                self.time.after(answered, None, move |world| answer(world, Err(false)));
            }
        }
    }
}

/// Snapshots are never overwritten, and `latest` never goes back to an earlier leader.
fn written(key: &str, before: Option<&Bytes>, after: &Bytes) -> Result<(), String> {
    let Some(before) = before.filter(|before| *before != after) else { return Ok(()) };
    if !key.ends_with("/latest") {
        return Err(format!("object {key} is overwritten"));
    }
    let epoch = |content: &Bytes| {
        let pointer: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
        pointer["epoch"].as_u64()
    };
    if epoch(before) > epoch(after) {
        return Err(format!("`latest` goes back from epoch {:?} to {:?}", epoch(before), epoch(after)));
    }
    Ok(())
}
