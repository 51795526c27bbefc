//! `wg`: encrypted tunnels, as `wg show` shows them.

use std::{io, io::Write as _, time::SystemTime};

use margay_api::dataplane::v1::{self as api, dataplane_client::DataplaneClient};
use serde::Serialize;
use tonic::{Status, transport::Channel};

use super::dp::{self, Counted};
use crate::{
    args::{Global, WgShow},
    client,
    exit::{Code, Outcome},
    output::{Output, View},
    readable::{address, base64, span},
};

/// Every interface.
#[derive(Debug, Serialize)]
pub struct Wireguard {
    interfaces: Vec<Interface>,
    /// When it was asked, in seconds since 1970.
    #[serde(skip)]
    now: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Interface {
    name: String,
    public_key: String,
    listening_port: u32,
    mtu: u32,
    peers: Vec<Peer>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    node: String,
    public_key: String,
    /// Where it was heard last, or is said to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    allowed_ips: Vec<String>,
    /// In seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_handshake: Option<u64>,
    received_bytes: u64,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    keepalive_seconds: Option<u32>,
    /// Why it is no peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
}

/// Shows it, or prints it for programs as `wg show all dump` does.
pub async fn show(global: &Global, args: &WgShow, out: &mut Output) -> Outcome {
    if !args.dump {
        return dp::show::<Wireguard>(global, &args.look, out).await;
    }
    let mut dataplane = client::dataplane(global).await?;
    let attempt = format!("read the dataplane's {}", Wireguard::WHAT);
    let all = client::answer(global.timeout, &attempt, Wireguard::fetch(&mut dataplane)).await?;
    all.dump(out)?;
    Ok(Code::Ok)
}

/// Has the dataplane take another key pair, and prints the public key.
pub async fn rotate(global: &Global, out: &mut Output) -> Outcome {
    let mut dataplane = client::dataplane(global).await?;
    let rotation = dataplane.rotate_wireguard_key(api::RotateWireguardKeyRequest {});
    let answer = client::answer(global.timeout, "give the node another key", rotation).await?.into_inner();
    writeln!(out, "{}", base64(&answer.public_key))?;
    Ok(Code::Ok)
}

impl Counted for Wireguard {
    const WHAT: &'static str = "WireGuard interfaces";

    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status> {
        let answer = dataplane.list_wireguard(api::ListWireguardRequest::default()).await?.into_inner();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { interfaces: answer.interfaces.into_iter().map(Interface::from).collect(), now })
    }

    /// Sums are what people compare with the other end's.
    fn since(&self, _: &Self) -> Self {
        Self { interfaces: self.interfaces.clone(), now: self.now }
    }
}

impl From<api::WireguardInterface> for Interface {
    fn from(from: api::WireguardInterface) -> Self {
        Self {
            name: from.name,
            public_key: base64(&from.public_key),
            listening_port: from.listening_port,
            mtu: from.mtu,
            peers: from.peers.into_iter().map(Peer::from).collect(),
        }
    }
}

impl From<api::WireguardPeerStatus> for Peer {
    fn from(from: api::WireguardPeerStatus) -> Self {
        let endpoint = match from.endpoint.len() {
            0 => None,
            16 => Some(format!("[{}]:{}", address(&from.endpoint), from.endpoint_port)),
            _ => Some(format!("{}:{}", address(&from.endpoint), from.endpoint_port)),
        };
        let net = |prefix: &api::Prefix| format!("{}/{}", address(&prefix.address), prefix.length);
        Self {
            node: from.node,
            public_key: base64(&from.public_key),
            endpoint,
            allowed_ips: from.allowed_ips.iter().map(net).collect(),
            latest_handshake: (from.latest_handshake > 0).then_some(from.latest_handshake / 1_000_000_000),
            received_bytes: from.received_bytes,
            sent_bytes: from.sent_bytes,
            keepalive_seconds: (from.keepalive_seconds > 0).then_some(from.keepalive_seconds),
            problem: from.problem,
        }
    }
}

impl View for Wireguard {
    const RECORDS: Option<&'static str> = Some("interfaces");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        if self.interfaces.is_empty() {
            return writeln!(out, "WireGuard is off (wireguardEnabled, wireguardEnabledV6)");
        }
        for (at, interface) in self.interfaces.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            writeln!(out, "interface: {}", interface.name)?;
            writeln!(out, "  public key: {}", interface.public_key)?;
            writeln!(out, "  listening port: {}", interface.listening_port)?;
            writeln!(out, "  mtu: {}", interface.mtu)?;
            for peer in &interface.peers {
                peer.text(out, self.now)?;
            }
        }
        Ok(())
    }
}

impl Peer {
    fn text(&self, out: &mut Output, now: u64) -> io::Result<()> {
        writeln!(out, "\npeer: {}", self.public_key)?;
        writeln!(out, "  node: {}", self.node)?;
        if !self.problem.is_empty() {
            writeln!(out, "  problem: {}", self.problem)?;
        }
        if let Some(endpoint) = &self.endpoint {
            writeln!(out, "  endpoint: {endpoint}")?;
        }
        let allowed = if self.allowed_ips.is_empty() { "(none)".into() } else { self.allowed_ips.join(", ") };
        writeln!(out, "  allowed ips: {allowed}")?;
        if let Some(at) = self.latest_handshake {
            writeln!(out, "  latest handshake: {} ago", span(now.saturating_sub(at)))?;
        }
        if self.received_bytes + self.sent_bytes > 0 {
            let [received, sent] = [self.received_bytes, self.sent_bytes].map(size);
            writeln!(out, "  transfer: {received} received, {sent} sent")?;
        }
        if let Some(seconds) = self.keepalive_seconds {
            writeln!(out, "  persistent keepalive: every {}", span(seconds.into()))?;
        }
        Ok(())
    }
}

impl Wireguard {
    /// A line for each interface and each peer, tabs between, in the order of `wg show all dump`. Private and pre-shared keys
    /// are never told.
    fn dump(&self, out: &mut Output) -> io::Result<()> {
        for interface in &self.interfaces {
            let Interface { name, public_key, listening_port, peers, .. } = interface;
            writeln!(out, "{name}\t(hidden)\t{public_key}\t{listening_port}\toff")?;
            for peer in peers {
                let or = |text: Option<&str>, none: &str| text.unwrap_or(none).to_owned();
                let allowed = peer.allowed_ips.join(",");
                let fields = [
                    name.clone(),
                    peer.public_key.clone(),
                    "(none)".into(),
                    or(peer.endpoint.as_deref(), "(none)"),
                    or(Some(allowed.as_str()).filter(|allowed| !allowed.is_empty()), "(none)"),
                    peer.latest_handshake.unwrap_or(0).to_string(),
                    peer.received_bytes.to_string(),
                    peer.sent_bytes.to_string(),
                    peer.keepalive_seconds.map_or_else(|| "off".into(), |seconds| seconds.to_string()),
                ];
                writeln!(out, "{}", fields.join("\t"))?;
            }
        }
        Ok(())
    }
}

/// As `wg` prints it: `1.43 KiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.len().min((bytes.max(1).ilog2() / 10) as usize + 1) - 1;
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{:.2} {}", bytes as f64 / f64::powi(1024.0, unit as i32), UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        let all = [0, 1023, 1024, 1536, 5 << 20, 3 << 50].map(size);
        assert_eq!(all, ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "5.00 MiB", "3072.00 TiB"]);
    }
}
