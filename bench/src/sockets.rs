//! Real TCP sockets: a server that sends back what comes, and a client that holds many connections at
//! once or opens one after the other. `bench/sockets` runs them on either side of a node.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Bytes of a message.
const BYTES: usize = 64;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Send back what comes, until killed
    Echo {
        /// Where to listen; more than one, so that a client has more ports of its own
        #[arg(required = true)]
        at: Vec<SocketAddr>,
    },
    /// Open many connections, then have all of them speak, again and again
    Hold {
        /// Echo servers, in turn
        #[arg(required = true)]
        to: Vec<SocketAddr>,
        /// So many at once
        #[arg(long, default_value_t = 10_000, value_name = "N")]
        connections: usize,
        /// How often each speaks
        #[arg(long, default_value_t = 10, value_name = "N")]
        times: usize,
    },
    /// Open a connection, speak, close it, and so on
    Churn {
        /// Echo servers, in turn
        #[arg(required = true)]
        to: Vec<SocketAddr>,
        /// So many at a time
        #[arg(long, default_value_t = 64, value_name = "N")]
        at_once: usize,
        /// For so long
        #[arg(long, default_value_t = 5, value_name = "S")]
        seconds: u64,
    },
}

/// What a client saw. Every message came back as it was sent, or there are no figures.
#[derive(Debug, Serialize)]
struct Figures {
    connections: usize,
    connections_a_second: f64,
    messages: usize,
    messages_a_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// Runs one side.
pub fn run(options: Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let figures = match options.what {
            What::Echo { at } => return echo(at).await,
            What::Hold { to, connections, times } => hold(to, connections, times).await?,
            What::Churn { to, at_once, seconds } => churn(to, at_once, Duration::from_secs(seconds)).await?,
        };
        println!("{}", serde_json::to_string(&figures)?);
        Ok(())
    })
}

async fn echo(at: Vec<SocketAddr>) -> Result<()> {
    let mut tasks = vec![];
    for at in at {
        let listener = TcpListener::bind(at).await.with_context(|| format!("listening at {at}"))?;
        tasks.push(tokio::spawn(answer(listener)));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn answer(listener: TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await.context("accepting a connection")?;
        tokio::spawn(async move {
            let mut room = [0; BYTES];
            // A client that fails says so itself.
            while let Ok(len @ 1..) = stream.read(&mut room).await {
                if stream.write_all(&room[..len]).await.is_err() {
                    break;
                }
            }
        });
    }
}

async fn open(to: SocketAddr) -> Result<TcpStream> {
    let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await;
    let stream = stream.context("a connection is not answered")?.context("opening a connection")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Says something of its own, and waits for it to come back; how long it took.
async fn speak(stream: &mut TcpStream, n: usize) -> Result<Duration> {
    let said: [u8; BYTES] = std::array::from_fn(|at| (n + at) as u8);
    let (start, mut heard) = (Instant::now(), [0; BYTES]);
    stream.write_all(&said).await.context("sending")?;
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard))
        .await
        .context("a message does not come back")?
        .context("receiving")?;
    ensure!(heard == said, "a message comes back as another");
    Ok(start.elapsed())
}

async fn hold(to: Vec<SocketAddr>, connections: usize, times: usize) -> Result<Figures> {
    let (places, start) = (Arc::new(Semaphore::new(256)), Instant::now());
    let mut opening = vec![];
    for n in 0..connections {
        let (to, place) = (to[n % to.len()], places.clone().acquire_owned().await?);
        opening.push(tokio::spawn(async move {
            let stream = open(to).await;
            drop(place);
            stream
        }));
    }
    let mut streams = Vec::with_capacity(connections);
    for stream in opening {
        streams.push(stream.await??);
    }
    let opened = start.elapsed();
    let start = Instant::now();
    let speaking = streams.into_iter().enumerate().map(|(n, mut stream)| {
        tokio::spawn(async move {
            let mut took = Vec::with_capacity(times);
            for time in 0..times {
                took.push(speak(&mut stream, n + time).await?);
            }
            anyhow::Ok((stream, took))
        })
    });
    // Nobody hangs up before the last has spoken.
    let (mut open, mut took) = (vec![], vec![]);
    for task in speaking.collect::<Vec<_>>() {
        let (stream, its) = task.await??;
        open.push(stream);
        took.extend(its);
    }
    Ok(figures(connections, opened, took, start.elapsed()))
}

async fn churn(to: Vec<SocketAddr>, at_once: usize, span: Duration) -> Result<Figures> {
    let start = Instant::now();
    let clients = (0..at_once).map(|client| {
        let to = to.clone();
        tokio::spawn(async move {
            let mut took = vec![];
            while start.elapsed() < span {
                let n = client + took.len();
                let begun = Instant::now();
                let mut stream = open(to[n % to.len()]).await?;
                speak(&mut stream, n).await?;
                took.push(begun.elapsed());
            }
            anyhow::Ok(took)
        })
    });
    let mut took = vec![];
    for client in clients.collect::<Vec<_>>() {
        took.extend(client.await??);
    }
    let all = start.elapsed();
    Ok(figures(took.len(), all, took, all))
}

fn figures(connections: usize, opened: Duration, mut took: Vec<Duration>, spoke: Duration) -> Figures {
    took.sort_unstable();
    let at = |share: f64| {
        let at = (took.len().saturating_sub(1) as f64 * share) as usize;
        took.get(at).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    Figures {
        connections,
        connections_a_second: connections as f64 / opened.as_secs_f64(),
        messages: took.len(),
        messages_a_second: took.len() as f64 / spoke.as_secs_f64(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
    }
}
