//! Another network namespace.

use crate::error::{Code, Error};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A container's network namespace.
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens it, which keeps it.
    ///
    /// # Errors
    /// There is none, or it is the host's own.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::new(Code::Environment, format!("CNI_NETNS: {}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let own = fs::metadata("/proc/self/ns/net").map_err(failed)?;
        if (metadata.dev(), metadata.ino()) == (own.dev(), own.ino()) {
            let message =
                format!("CNI_NETNS: {} is the host's own: a container needs one of its own", path.display());
            return Err(Error::new(Code::Environment, message));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Makes one without a name: it goes with this, and whatever is in it.
    ///
    /// # Errors
    /// That needs `CAP_SYS_ADMIN`.
    pub fn anonymous() -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::new(Code::Kernel, format!("making a network namespace: {error}"))
        };
        let path = PathBuf::from("/proc/thread-self/ns/net");
        let body = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| failed(&error))?;
            File::open(&path).map_err(|error| failed(&error))
        };
        // On a thread of its own, so that nothing else finds itself there.
        let file = match std::thread::scope(|scope| scope.spawn(body).join()) {
            Ok(file) => file?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Self { path, file })
    }

    /// Its descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does it there, on a thread of its own, so that nothing else finds itself there.
    ///
    /// # Errors
    /// It is not a network namespace, or may not be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let body = || setns(&self.file, CloneFlags::CLONE_NEWNET).map(|()| work());
        let outcome = std::thread::scope(|scope| scope.spawn(body).join());
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                Err(Error::new(Code::Environment, format!("CNI_NETNS: {}: {error}", self.path.display())))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
