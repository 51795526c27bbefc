//! `GET /metrics`, and whether the process lives and is ready, as service managers ask (`/livez`, `/readyz`).

use super::{Families, Format};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Connections served at a time; more wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection that is scraped again and again may live.
const LIFE: Duration = Duration::from_secs(600);
/// Between attempts to accept while there are too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that can be scraped.
pub trait Metrics: Send + Sync + 'static {
    /// What it has counted by now; else why that cannot be told.
    fn families(&self) -> impl Future<Output = Result<Families, String>> + Send;

    /// Does its work; else what it waits for. A process that is not ready may get there by itself, and is not to be
    /// restarted for it: one that cannot tell its families is.
    fn ready(&self) -> impl Future<Output = Result<(), String>> + Send;
}

/// Serves `/metrics`, `/livez` and `/readyz` at `listen` until the future is dropped. Whoever can reach the address can read them, so it
/// should be one of loopback, or of a network whose machines may.
///
/// # Errors
/// The address is taken, or not of this machine.
pub async fn serve<M: Metrics>(
    listen: SocketAddr,
    metrics: M,
) -> std::io::Result<impl Future<Output = Infallible>> {
    let listener = TcpListener::bind(listen).await?;
    Ok(accept(listener, Arc::new(metrics)))
}

async fn accept<M: Metrics>(listener: TcpListener, metrics: Arc<M>) -> Infallible {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                tokio::spawn(async move {
                    converse(stream, metrics).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn converse<M: Metrics>(stream: TcpStream, metrics: Arc<M>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move {
            Ok::<_, Infallible>(
                answer(request.method(), request.uri().path(), accepted(&request), &*metrics).await,
            )
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // Who hangs up has heard enough.
    let _ = timeout(LIFE, http.serve_connection(TokioIo::new(stream), answer)).await;
}

fn accepted(request: &Request<Incoming>) -> Format {
    let header = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    header.map_or(Format::Prometheus, Format::accepted)
}

async fn answer<M: Metrics>(method: &Method, path: &str, format: Format, metrics: &M) -> Response<String> {
    if method != Method::GET && method != Method::HEAD {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header's value"));
        return refused;
    }
    match path {
        "/metrics" => match in_time(metrics.families()).await {
            Ok(families) => response(StatusCode::OK, format.content_type(), families.text(format)),
            Err(why) => unavailable(why),
        },
        "/livez" => in_time(metrics.families()).await.map_or_else(unavailable, |_| ok()),
        "/readyz" => in_time(metrics.ready()).await.map_or_else(unavailable, |()| ok()),
        "/" => {
            let page = "<!doctype html>\n<title>Margay</title>\n<a href=\"/metrics\">Metrics</a>\n";
            response(StatusCode::OK, "text/html; charset=utf-8", page.to_owned())
        }
        _ => response(StatusCode::NOT_FOUND, "text/plain", "see /metrics, /livez or /readyz\n".to_owned()),
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("it takes too long".to_owned()))
}

fn ok() -> Response<String> {
    response(StatusCode::OK, "text/plain", "ok\n".to_owned())
}

fn unavailable(why: String) -> Response<String> {
    response(StatusCode::SERVICE_UNAVAILABLE, "text/plain", why + "\n")
}

fn response(status: StatusCode, content: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content.parse().expect("a header's value"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    struct Seven;

    impl Metrics for Seven {
        async fn families(&self) -> Result<Families, String> {
            let mut families = Families::default();
            families.count("margay_seven", "Always seven.", 7);
            Ok(families)
        }

        async fn ready(&self) -> Result<(), String> {
            Err("store: not there yet".to_owned())
        }
    }

    struct Gone;

    impl Metrics for Gone {
        async fn families(&self) -> Result<Families, String> {
            Err("it is shutting down".to_owned())
        }

        async fn ready(&self) -> Result<(), String> {
            Ok(())
        }
    }

    async fn ask<M: Metrics>(metrics: M, request: &str, header: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(accept(listener, Arc::new(metrics)));
        let mut stream = TcpStream::connect(at).await.unwrap();
        let text = format!("{request} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{header}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        server.abort();
        answer
    }

    #[tokio::test]
    async fn who_asks_for_open_metrics_gets_it_and_others_prometheus_text() {
        let plain = ask(Seven, "GET /metrics", "").await;
        assert!(plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{plain}");
        assert!(plain.ends_with("margay_seven_total 7\n"), "{plain}");
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        let open = ask(Seven, "GET /metrics", accept).await;
        assert!(
            open.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n")
        );
        assert!(open.ends_with("margay_seven_total 7\n# EOF\n"), "{open}");
    }

    #[tokio::test]
    async fn who_waits_for_something_lives_and_is_not_ready() {
        assert!(ask(Seven, "GET /livez", "").await.ends_with("\r\n\r\nok\n"));
        let waits = ask(Seven, "GET /readyz", "").await;
        assert!(waits.starts_with("HTTP/1.1 503") && waits.ends_with("store: not there yet\n"), "{waits}");
        assert!(ask(Gone, "GET /livez", "").await.starts_with("HTTP/1.1 503"));
        assert!(ask(Gone, "GET /readyz", "").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn what_is_not_there_and_what_is_not_asked_is_said() {
        assert!(ask(Seven, "GET /", "").await.contains("<a href=\"/metrics\">"));
        assert!(ask(Seven, "GET /secrets", "").await.starts_with("HTTP/1.1 404"));
        let refused = ask(Seven, "POST /metrics", "").await;
        assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"), "{refused}");
        let head = ask(Seven, "HEAD /metrics", "").await;
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        let gone = ask(Gone, "GET /metrics", "").await;
        assert!(gone.starts_with("HTTP/1.1 503") && gone.ends_with("it is shutting down\n"), "{gone}");
    }
}
