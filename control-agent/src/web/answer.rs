//! What is answered to a request: the page, or figures as JSON.

use super::{
    assets,
    figures::{Drops, Flows, Runtime, Status, Summary},
    query::Query,
};
use crate::{
    access::Caller,
    control::Agent,
    flows::{self, Line},
};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName},
};
use margay_api::{
    control::v1::summarize_flows_request::By,
    dataplane::v1::{GetRuntimeRequest, ListDropsRequest},
};
use serde::Serialize;
use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Records of flows in one answer.
const ROWS: u64 = 500;
/// Groups in one answer.
const GROUPS: usize = 500;

/// To every answer. Scripts and styles are of this page alone, and nobody else's page may show or read it.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// What is shown.
pub(super) struct Site {
    agent: Arc<Agent>,
    /// Of this process: its cursors are of no use to another.
    epoch: u64,
}

impl Site {
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent, epoch: unix_nanos() }
    }
}

/// To one who is on this machine, or who is a caller with a certificate.
pub(super) async fn answer<B>(
    site: &Site,
    caller: Option<&Caller>,
    request: &Request<B>,
) -> Response<String> {
    let answered = match refusal(caller, request) {
        Some(refused) => Err(refused),
        None => asked(site, request).await,
    };
    let mut response = answered.unwrap_or_else(Failure::response);
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), value.parse().expect("a header's value"));
    }
    response
}

/// Why a request is not answered, with a sentence.
#[derive(Debug, PartialEq, Eq)]
struct Failure(StatusCode, String);

impl Failure {
    fn response(self) -> Response<String> {
        let Self(status, sentence) = self;
        let mut response = said("text/plain; charset=utf-8", "no-store", sentence + "\n");
        *response.status_mut() = status;
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header's value"));
        }
        response
    }
}

/// Of the dataplane.
impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, status.message().to_owned())
    }
}

fn refusal<B>(caller: Option<&Caller>, request: &Request<B>) -> Option<Failure> {
    match caller {
        // As the API has it: what is shown is of all namespaces.
        Some(caller) => {
            if let Err(refused) = caller.may_read(None, "") {
                return Some(Failure(StatusCode::FORBIDDEN, refused.to_string()));
            }
        }
        // A page of another site can have its own name mean 127.0.0.1 (DNS rebinding), and would then be one with this
        // one. With certificates it cannot: ours is not for its name.
        None => {
            let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
            let named = header.into_iter().chain(request.uri().authority().map(|named| named.as_str()));
            if header.is_none() || !named.into_iter().all(is_loopback) {
                let sentence =
                    "served to 127.0.0.1, [::1] and localhost only: write one of those as the host";
                return Some(Failure(StatusCode::FORBIDDEN, sentence.to_owned()));
            }
        }
    }
    (request.method() != Method::GET && request.method() != Method::HEAD)
        .then(|| Failure(StatusCode::METHOD_NOT_ALLOWED, "only GET: nothing can be changed here".to_owned()))
}

/// A name of this very machine, with a port or without: over `ssh -L` it is another one than ours.
fn is_loopback(host: &str) -> bool {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback());
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let named = name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.is_ipv4() && address.is_loopback());
    named && is_port(port)
}

async fn asked<B>(site: &Site, request: &Request<B>) -> Result<Response<String>, Failure> {
    let path = request.uri().path();
    if let Some(asset) = assets::at(path) {
        // Asked for anew each time: a page of one release does not read figures of another.
        return Ok(said(asset.content_type, "no-cache", asset.text.to_owned()));
    }
    let bad = |sentence| Failure(StatusCode::BAD_REQUEST, sentence);
    let mut query = Query::parse(request.uri().query().unwrap_or_default()).map_err(bad)?;
    match path {
        "/api/flows" => {
            let (cursor, filter) = (query.text("cursor"), query.filter().map_err(bad)?);
            query.end().map_err(bad)?;
            site.flows(&cursor, &filter)
        }
        "/api/summary" => {
            let (by, filter) = (query.text("by"), query.filter().map_err(bad)?);
            let seconds = query.number("seconds", 60..=3600).map_err(bad)?;
            query.end().map_err(bad)?;
            site.summary(grouping(&by).map_err(bad)?, seconds, &filter)
        }
        "/api/status" => {
            query.end().map_err(bad)?;
            json(&Status::from(site.agent.status().await))
        }
        "/api/runtime" => {
            query.end().map_err(bad)?;
            let asked =
                site.agent.ask_dataplane(async |dataplane| dataplane.get_runtime(GetRuntimeRequest {}).await);
            json(&Runtime::from(asked.await?))
        }
        "/api/drops" => {
            query.end().map_err(bad)?;
            let asked =
                site.agent.ask_dataplane(async |dataplane| dataplane.list_drops(ListDropsRequest {}).await);
            json(&Drops::from(asked.await?))
        }
        _ => Err(Failure(StatusCode::NOT_FOUND, "there is nothing here: see /".to_owned())),
    }
}

fn grouping(by: &str) -> Result<By, String> {
    match by {
        "" | "conversation" => Ok(By::Conversation),
        "policy" => Ok(By::Policy),
        _ => Err(format!("by: {by:?} is none: write conversation or policy")),
    }
}

impl Site {
    fn flows(&self, cursor: &str, filter: &flows::Filter) -> Result<Response<String>, Failure> {
        let record = self.record()?;
        let seen = cursor
            .split_once('-')
            .and_then(|(epoch, seen)| (epoch.parse() == Ok(self.epoch)).then(|| seen.parse().ok()).flatten());
        let (kept, came, missed) = record.after(seen.unwrap_or(0));
        let wanted: Vec<_> = kept.iter().filter(|flow| filter.matches(flow)).collect();
        let left_out = wanted.len().saturating_sub(ROWS as usize);
        json(&Flows {
            cursor: format!("{}-{came}", self.epoch),
            anew: seen.is_none(),
            flows: wanted[left_out..].iter().filter_map(|flow| Line::of(flow)).collect(),
            left_out: left_out as u64,
            missed: if seen.is_some() { missed } else { 0 },
            lost: record.lost(),
        })
    }

    fn summary(&self, by: By, seconds: u64, filter: &flows::Filter) -> Result<Response<String>, Failure> {
        let record = self.record()?;
        let since = unix_nanos().saturating_sub(seconds * 1_000_000_000);
        let (mut groups, _, beyond) = record.summary(filter, since, by, 0);
        let left_out = groups.len().saturating_sub(GROUPS);
        groups.truncate(GROUPS);
        let groups = groups.into_iter().map(Into::into).collect();
        json(&Summary { groups, left_out, beyond, lost: record.lost() })
    }

    fn record(&self) -> Result<&flows::Flows, Failure> {
        self.agent.flows.as_deref().ok_or_else(|| {
            let sentence = "the agent keeps no record of flows: start it without --flows off";
            Failure(StatusCode::SERVICE_UNAVAILABLE, sentence.to_owned())
        })
    }
}

fn json(value: &impl Serialize) -> Result<Response<String>, Failure> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(said("application/json", "no-store", text)),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn said(content_type: &'static str, cache: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type.parse().expect("a header's value"));
    headers.insert(CACHE_CONTROL, cache.parse().expect("a header's value"));
    response
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    fn request(method: Method, uri: &str, host: Option<&str>) -> Request<()> {
        let request = Request::builder().method(method).uri(uri);
        let request = host.into_iter().fold(request, |request, host| request.header(HOST, host));
        request.body(()).unwrap()
    }

    fn status(caller: Option<&Caller>, request: &Request<()>) -> u16 {
        refusal(caller, request).map_or(200, |Failure(status, _)| status.as_u16())
    }

    #[test]
    fn on_loopback_a_name_of_loopback_is_needed_and_no_other_will_do() {
        for host in ["localhost", "LOCALHOST:9094", "127.0.0.1:80", "127.8.8.8", "[::1]", "[::1]:9094"] {
            assert_eq!(status(None, &request(Method::GET, "/", Some(host))), 200, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:9094",
            "0.0.0.0",
            "[::]",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "::1",
            "localhost:evil",
            "user@localhost",
            "127.1",
        ] {
            assert_eq!(status(None, &request(Method::GET, "/", Some(host))), 403, "{host}");
        }
        assert_eq!(status(None, &request(Method::GET, "/", None)), 403);
        let both = request(Method::GET, "http://evil.example/", Some("localhost"));
        assert_eq!(status(None, &both), 403);
    }

    #[test]
    fn nothing_is_changed_and_who_is_confined_sees_nothing() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            assert_eq!(status(None, &request(method, "/", Some("localhost"))), 405);
        }
        assert_eq!(status(None, &request(Method::HEAD, "/", Some("localhost"))), 200);
        let viewer = Caller::new("ann", Role::Viewer);
        let elsewhere = request(Method::GET, "/", Some("node-a.example:9094"));
        assert_eq!(status(Some(&viewer), &elsewhere), 200);
        let confined = Caller { namespaces: ["shop".to_owned()].into(), ..viewer };
        assert_eq!(status(Some(&confined), &elsewhere), 403);
    }
}
