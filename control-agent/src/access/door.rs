//! The ways in: each connection comes with who is at its other end.

use super::{Caller, Files, Role, TlsError, certificate, tls::Current};
use crate::task::Task;
use futures::{Stream, StreamExt};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::server::Connected;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that wait to be served, and those that are shaking hands.
const WAITING: usize = 64;

/// A connection, and who asks over it.
pub struct Accepted {
    stream: Io,
    caller: Caller,
}

enum Io {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Where connections come from.
pub struct Door(Pin<Box<dyn Stream<Item = io::Result<Accepted>> + Send>>);

impl Door {
    /// A UNIX socket. Root and this process's own user may everything, and whom the file lets in besides what `group` may.
    pub fn unix(listener: UnixListener, group: Role) -> Self {
        let accepted = UnixListenerStream::new(listener).map(move |stream| {
            let stream = stream?;
            let peer = stream.peer_cred()?;
            let caller = by_credentials(peer.uid(), peer.pid(), nix::unistd::geteuid().as_raw(), group);
            Ok(Accepted { stream: Io::Unix(stream), caller })
        });
        Self(Box::pin(accepted))
    }

    /// TCP, for those who have a certificate that the authorities have signed.
    ///
    /// # Errors
    /// The files are no good.
    pub fn tls(listener: TcpListener, files: Files) -> Result<Self, TlsError> {
        Self::speaking("h2", listener, files)
    }

    /// The same, for web browsers.
    ///
    /// # Errors
    /// The files are no good.
    pub fn https(listener: TcpListener, files: Files) -> Result<Self, TlsError> {
        Self::speaking("http/1.1", listener, files)
    }

    fn speaking(protocol: &'static str, listener: TcpListener, files: Files) -> Result<Self, TlsError> {
        let current = Current::of(files, protocol)?;
        let (sender, accepted) = mpsc::channel(WAITING);
        let accepting = Task::spawn(accept(listener, current, sender));
        let accepted = ReceiverStream::new(accepted).map(move |accepted| {
            let _until_the_stream_ends = &accepting;
            Ok(accepted)
        });
        Ok(Self(Box::pin(accepted)))
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self(Box::pin(futures::stream::select(self.0, other.0)))
    }
}

impl Stream for Door {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

fn by_credentials(user: u32, process: Option<i32>, own: u32, group: Role) -> Caller {
    let role = if user == 0 || user == own { Role::Admin } else { group };
    let process = process.map_or_else(String::new, |process| format!(" process {process}"));
    Caller::new(format!("user {user}{process}"), role)
}

/// For as long as somebody takes what is accepted.
async fn accept(listener: TcpListener, mut current: Current, accepted: mpsc::Sender<Accepted>) {
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(WAITING));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of one connection, or of all files that may be open: those are closed in time.
                tracing::warn!(%error, "A009 a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, accepted) = (TlsAcceptor::from(current.config()), accepted.clone());
        if accepted.is_closed() {
            return;
        }
        // One who is slow to shake hands keeps nobody else waiting.
        tokio::spawn(async move {
            let _permit = permit;
            let greeted = match timeout(HANDSHAKE, greet(&acceptor, stream)).await {
                Ok(greeted) => greeted,
                Err(_) => Err(format!("no handshake in {} s", HANDSHAKE.as_secs())),
            };
            match greeted {
                // Nobody takes it any more: the server ends.
                Ok(greeted) => drop(accepted.send(greeted).await),
                Err(why) => tracing::warn!(%address, why, "A010 a connection was refused"),
            }
        });
    }
}

async fn greet(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<Accepted, String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first).ok_or("there is no certificate")?;
    let caller = certificate::caller(certificate).map_err(|error| error.to_string())?;
    Ok(Accepted { stream: Io::Tls(Box::new(stream)), caller })
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Io::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Io::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Io::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Io::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_own_user_may_everything_and_the_group_what_it_is_told() {
        let role = |user| by_credentials(user, Some(7), 900, Role::Viewer).role;
        assert_eq!((role(0), role(900), role(1000)), (Role::Admin, Role::Admin, Role::Viewer));
        assert_eq!(by_credentials(1000, Some(7), 900, Role::Viewer).name, "user 1000 process 7");
    }
}
