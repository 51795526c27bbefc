//! Work in the background that ends with its owner.

use std::future::Future;
use tokio::task::AbortHandle;

/// A running task. It ends when this is dropped.
#[derive(Debug)]
pub struct Task(AbortHandle);

impl Task {
    /// Starts it. Must be called within a Tokio runtime.
    pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
