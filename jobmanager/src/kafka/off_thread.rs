//! Clients that are dropped where nobody waits: closing one may take seconds, or hang (`CORRECTNESS` row 20), and a jobmanager
//! that has lost its leadership goes on serving.

use std::{ops::Deref, thread};

/// Drops its value on a thread of its own.
pub(super) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T: Send + 'static> Deref for OffThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        thread::spawn(move || drop(value));
    }
}
