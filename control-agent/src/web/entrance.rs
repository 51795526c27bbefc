//! The way in: loopback as it is, other addresses by mutual TLS alone.

use crate::access::{Accepted, Caller, Door, Files, TlsError};
use futures::StreamExt as _;
use std::{io, net::SocketAddr};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected as _;

/// Where the page is served.
pub struct Entrance {
    at: SocketAddr,
    way: Way,
}

enum Way {
    Loopback(TcpListener),
    Tls(Door),
}

/// The page cannot be served there.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The address is taken, or not of this machine.
    #[error("{0}")]
    Address(#[from] io::Error),
    /// Anybody in the network could read it.
    #[error(
        "{0} is not an address of loopback, so whoever comes must show a certificate: give --tls-cert, --tls-key and \
         --tls-client-ca too, or serve at 127.0.0.1 and come by ssh -L"
    )]
    Open(SocketAddr),
    /// Certificates would look as if they were asked for.
    #[error("{0} is an address of loopback, where no certificates are used: leave --tls-cert away")]
    Unused(SocketAddr),
    /// The files are no good.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// Who came.
pub(super) enum Visitor {
    /// Somebody on this machine.
    Local(TcpStream),
    /// Somebody with a certificate, who is the second.
    Certified(Box<Accepted>, Caller),
}

impl Entrance {
    /// Listens. The files are for what is not loopback, and needed there. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The address is not to be had, or would let in who is not known.
    pub async fn open(at: SocketAddr, files: Option<Files>) -> Result<Self, EntranceError> {
        let loopback = at.ip().to_canonical().is_loopback();
        let files = match (loopback, files) {
            (true, None) => None,
            (false, Some(files)) => Some(files),
            (true, Some(_)) => return Err(EntranceError::Unused(at)),
            (false, None) => return Err(EntranceError::Open(at)),
        };
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        let way = match files {
            None => Way::Loopback(listener),
            Some(files) => Way::Tls(Door::https(listener, files)?),
        };
        Ok(Self { at, way })
    }

    /// Where that is.
    pub fn address(&self) -> SocketAddr {
        self.at
    }

    /// The next one. Nobody is lost when this is dropped while it waits.
    pub(super) async fn next(&mut self) -> io::Result<Visitor> {
        match &mut self.way {
            Way::Loopback(listener) => listener.accept().await.map(|(stream, _)| Visitor::Local(stream)),
            Way::Tls(door) => {
                let accepted = door.next().await.ok_or(io::ErrorKind::NotConnected)??;
                let caller = accepted.connect_info();
                Ok(Visitor::Certified(Box::new(accepted), caller))
            }
        }
    }
}
