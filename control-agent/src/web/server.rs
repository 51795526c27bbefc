//! Connections: how many, for how long, and how much each may say.

use super::{
    answer::{Site, answer},
    entrance::{Entrance, Visitor},
};
use crate::{access::Caller, control::Agent};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections served at a time; more wait. A browser has up to six.
const CONNECTIONS: usize = 32;
/// How long a client may take to ask, and to take the last answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be used, by a browser that asks again and again. One that does not take what it asked for
/// is cut off soon after.
const LIFE: Duration = Duration::from_secs(60);
/// The most that the head of a request may take, in bytes.
const REQUEST: usize = 16 << 10;
/// Between attempts to accept while there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the page to whoever comes in by `entrance`, until the future is dropped.
pub async fn serve(agent: Arc<Agent>, mut entrance: Entrance) -> Infallible {
    let site = Arc::new(Site::new(agent));
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = conversations.join_next() => {}
            visitor = entrance.next(), if conversations.len() < CONNECTIONS => match visitor {
                Ok(Visitor::Local(stream)) => {
                    conversations.spawn(converse(stream, None, site.clone()));
                }
                Ok(Visitor::Certified(stream, caller)) => {
                    conversations.spawn(converse(*stream, Some(caller), site.clone()));
                }
                Err(_) => sleep(PAUSE).await,
            },
        }
    }
}

async fn converse<S>(stream: S, caller: Option<Caller>, site: Arc<Site>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = service_fn(|request: hyper::Request<Incoming>| {
        let (site, caller) = (site.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(&site, caller.as_ref(), &request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(REQUEST);
    let mut conversation = pin!(http.serve_connection(TokioIo::new(stream), answer));
    // Who hangs up has heard enough, here and below.
    tokio::select! {
        _ = conversation.as_mut() => return,
        () = sleep(LIFE) => conversation.as_mut().graceful_shutdown(),
    }
    let _ = timeout(PATIENCE, conversation).await;
}
