//! gRPC over UNIX sockets: how every Margay process reaches another on its machine.

use hyper_util::rt::TokioIo;
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Owner and group may speak, nobody else.
const MODE: u32 = 0o660;

/// A listening socket, and its name in the file system, which goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("{0}: another process listens there; stop it, or choose another socket")]
    Taken(PathBuf),
    /// Not ours to replace.
    #[error("{0}: it exists and is not a socket; move it away, or choose another path")]
    NotASocket(PathBuf),
    /// The operating system says no.
    #[error("{path}: {error}")]
    Io {
        /// The socket's.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl Socket {
    /// Listens on `path`, whose directory is made if need be. A socket that a dead process left is replaced.
    ///
    /// # Errors
    /// Somebody listens there, or the file cannot be made.
    pub async fn bind(path: &Path) -> Result<(Self, UnixListener), BindError> {
        let io = |error| BindError::Io { path: path.to_owned(), error };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(io)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(BindError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(BindError::Taken(path.to_owned()));
            }
            _ => {}
        }
        // Under another name first: whoever sees the socket sees it with its final mode, and a
        // stale one is replaced in one step.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}", process::id()));
        let unfinished = PathBuf::from(unfinished);
        let _ = fs::remove_file(&unfinished);
        let listener = UnixListener::bind(&unfinished).map_err(io)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(MODE)).map_err(io)?;
        fs::rename(&unfinished, path).map_err(io)?;
        Ok((Self { path: path.to_owned() }, listener))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// How often an idle connection is asked whether its other end still answers, so that a hung
/// process is noticed and not only a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Connects to the gRPC server that listens on the socket `path`.
///
/// The channel reconnects by itself when a later call finds the connection gone.
///
/// # Errors
/// The socket does not exist, nobody listens on it, or it may not be opened by this user.
pub async fn connect(path: &Path) -> Result<Channel, tonic::transport::Error> {
    endpoint().connect_with_connector(connector(path.to_owned())).await
}

/// As [`connect`], but connects at the first call: for a peer that may not be up yet.
pub fn connect_lazy(path: &Path) -> Channel {
    endpoint().connect_with_connector_lazy(connector(path.to_owned()))
}

fn endpoint() -> Endpoint {
    // The authority is required by HTTP/2 and means nothing on a UNIX socket.
    Endpoint::from_static("http://localhost")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
}

fn connector(
    path: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = Result<TokioIo<UnixStream>, std::io::Error>> + Send,
> + Send
+ 'static {
    service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/margay/agent.sock");
        let (socket, _listener) = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        drop(socket);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "nothing else is left");
    }

    #[tokio::test]
    async fn a_living_owner_keeps_it_and_a_dead_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (socket, listener) = Socket::bind(&path).await.unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(BindError::Taken(_))));
        std::mem::forget(socket);
        drop(listener);
        assert!(path.exists(), "as a killed process leaves it");
        let (_socket, _listener) = Socket::bind(&path).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(BindError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
