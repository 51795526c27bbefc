//! The commands: what each does, in which order, and what stays of it when something fails.

use crate::{
    agent::{Agent, AgentError},
    attachment::{self, Attachment, GATEWAY_V4, GATEWAY_V6},
    config::{Config, address},
    environment::{Command, Environment},
    error::{Code, Error, all},
    ipam,
    kernel::{Kernel, Link, Prefix, parse_mac},
    netns::Netns,
    queue::Queue,
    result::{Added, Interface, Ip, Route, versions},
};
use margay_api::control::v1::{CniAddRequest, CniAssign, CniAttachment};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Does what the environment says. Returns what is to be written to standard output, if anything.
///
/// # Errors
/// As the specification has them.
pub async fn run(environment: &Environment, config: &Config) -> Result<Option<Value>, Error> {
    let plugin = Plugin { environment, config, queue: Queue::of(&config.network.state_dir) };
    match environment.command {
        Command::Add => plugin.add().await.map(|added| Some(added.to_json(config.version))),
        Command::Del => plugin.del().await.map(|()| None),
        Command::Check => plugin.check().await.map(|()| None),
        Command::Gc => plugin.gc().await.map(|()| None),
        Command::Status => plugin.status().await.map(|()| None),
        Command::Version => Ok(Some(versions())),
    }
}

struct Plugin<'a> {
    environment: &'a Environment,
    config: &'a Config,
    queue: Queue,
}

impl Plugin<'_> {
    /// Link, addresses, endpoint; and only when policy is in force on it, the container's addresses and routes.
    async fn add(&self) -> Result<Added, Error> {
        let Config { network, .. } = self.config;
        if network.previous.is_some() {
            let message = "prevResult: this plugin makes the interface: put it first in the list of plugins";
            return Err(Error::new(Code::Config, message));
        }
        let attachment = Attachment::of(self.environment, self.config)?;
        let netns = self.netns()?;
        let mac = self.mac()?;
        let assign = self.assign()?;
        let mut agent = Agent::connect(&network.agent_socket).await?;
        self.queue.replay(&mut agent).await?;
        // Whether there is an address for it is asked with the pod's own wishes.
        let status = agent.ready(None).await?;
        let host = Kernel::here()?;
        if let Some(there) = self.there(&attachment, &host, &netns).await? {
            return self.finish(&attachment, &mut agent, &netns, &there, None).await;
        }
        let mtu = if network.mtu == 0 { status.workload_mtu } else { network.mtu };
        let forwards = network.container_settings.allow_ip_forwarding;
        let link = attachment.make(&host, &netns, mtu, mac, forwards).await?;
        let there = There { link, addresses: Vec::new(), routes: Vec::new() };
        let added = self.finish(&attachment, &mut agent, &netns, &there, assign).await;
        if added.is_err() {
            // What DEL would do, which the runtime may or may not ask for. The first error counts.
            let _ = self.take_down(&attachment, &host).await;
        }
        added
    }

    /// An ADD of the same attachment before this one has come so far that there are addresses.
    async fn there(
        &self,
        attachment: &Attachment,
        host: &Kernel,
        netns: &Netns,
    ) -> Result<Option<There>, Error> {
        let Some(near) = attachment.link(host).await? else { return Ok(None) };
        let inside = Kernel::of(netns)?;
        let Some(link) = inside.link(&attachment.id.interface).await? else { return Ok(None) };
        let addresses = inside.addresses(link.index).await?;
        let whole = link.peer == Some(near.index) && !addresses.is_empty();
        Ok(whole.then_some(There { link, addresses, routes: Vec::new() }))
    }

    /// From a link to an attachment.
    async fn finish(
        &self,
        attachment: &Attachment,
        agent: &mut Agent,
        netns: &Netns,
        there: &There,
        assign: Option<CniAssign>,
    ) -> Result<Added, Error> {
        let Config { network, .. } = self.config;
        let (mut given, mut routes, mut dns) =
            (there.addresses.clone(), there.routes.clone(), network.dns.clone());
        if given.is_empty()
            && let Some(plugin) = ipam::Plugin::of(self.environment, self.config)
        {
            let assigned = plugin.add()?;
            (given, routes) = (assigned.addresses()?, assigned.routes);
            dns = dns.or(assigned.dns);
        }
        let pod = self.environment.args.pod.clone();
        let (pod_namespace, pod_name) = pod.map(|pod| (pod.namespace, pod.name)).unwrap_or_default();
        let request = CniAddRequest {
            attachment: Some(attachment.id.clone()),
            node: network.nodename.clone(),
            pod_namespace,
            pod_name,
            host_interface: attachment.host_interface.clone(),
            mac: there.link.mac.clone(),
            addresses: given.iter().map(IpAddr::to_string).collect(),
            assign,
            labels: self.config.labels().into_iter().collect(),
            timeout_seconds: network.policy_setup_timeout_seconds,
        };
        let attached = agent.add(request).await?;
        let addresses: Vec<IpAddr> = attached
            .addresses
            .iter()
            .map(|text| address(text, "the agent's answer"))
            .collect::<Result<_, _>>()?;
        let routes = ways(&addresses, &routes)?;
        attachment::furnish(netns, &there.link, &addresses, &routes).await?;
        let sandbox = netns.path().display().to_string();
        let near = Interface {
            name: attachment.host_interface.clone(),
            mac: "ee:ee:ee:ee:ee:ee".to_owned(),
            mtu: there.link.mtu,
            sandbox: String::new(),
        };
        let far = Interface {
            name: attachment.id.interface.clone(),
            mac: there.link.mac.clone(),
            mtu: there.link.mtu,
            sandbox,
        };
        Ok(Added {
            interfaces: vec![near, far],
            ips: addresses
                .iter()
                .map(|address| Ip { address: host_prefix(*address), interface: Some(1) })
                .collect(),
            routes: routes
                .iter()
                .map(|(to, gateway)| Route {
                    dst: format!("{}/{}", to.0, to.1),
                    gw: Some(gateway.to_string()),
                })
                .collect(),
            dns,
        })
    }

    /// All that can be, even where some of it cannot.
    async fn del(&self) -> Result<(), Error> {
        let attachment = Attachment::of(self.environment, self.config)?;
        self.take_down(&attachment, &Kernel::here()?).await
    }

    /// The endpoint first, so that nobody misses its link; the addresses last, so that nobody gets them before.
    async fn take_down(&self, attachment: &Attachment, host: &Kernel) -> Result<(), Error> {
        let forgotten = self.forget(&attachment.id).await;
        let unlinked = attachment.unlink(host).await;
        let released = match ipam::Plugin::of(self.environment, self.config) {
            Some(plugin) if forgotten.is_ok() => plugin.del(),
            _ => Ok(()),
        };
        all([forgotten, unlinked, released])
    }

    /// Has the agent forget the endpoint: now, or when it is back.
    async fn forget(&self, id: &CniAttachment) -> Result<(), Error> {
        let told = async {
            let mut agent = Agent::connect(&self.config.network.agent_socket).await?;
            self.queue.replay(&mut agent).await?;
            agent.del(id.clone()).await
        };
        match told.await {
            Ok(()) => Ok(()),
            Err(AgentError::Away(_)) => self.queue.put(id),
            Err(AgentError::Said(error)) => Err(error),
        }
    }

    /// Everything that ADD made and said is still so.
    async fn check(&self) -> Result<(), Error> {
        let Config { network, .. } = self.config;
        let Some(previous) = &network.previous else {
            return Err(Error::new(Code::Config, "prevResult: missing: CHECK needs what ADD returned"));
        };
        let previous = Added::parse(previous, "prevResult")?;
        let attachment = Attachment::of(self.environment, self.config)?;
        let netns = self.netns()?;
        let broken = |what: String| Err(Error::new(Code::Broken, what));
        let Some(near) = attachment.link(&Kernel::here()?).await? else {
            return broken(format!(
                "interface {} of the host is gone, or another's",
                attachment.host_interface
            ));
        };
        let inside = Kernel::of(&netns)?;
        let name = &attachment.id.interface;
        let Some(link) = inside.link(name).await? else {
            return broken(format!("interface {name} of the container is gone"));
        };
        if link.peer != Some(near.index) {
            return broken(format!("interface {name} of the container is another's"));
        }
        for link in [&near, &link] {
            if !link.up {
                return broken(format!("interface {} is down", link.name));
            }
        }
        let known =
            previous.interfaces.iter().position(|known| known.name == *name && !known.sandbox.is_empty());
        let known_mac = known.map(|at| previous.interfaces[at].mac.as_str()).filter(|mac| !mac.is_empty());
        if let Some(mac) = known_mac.filter(|mac| !mac.eq_ignore_ascii_case(&link.mac)) {
            return broken(format!("interface {name} has the address {}, not {mac}", link.mac));
        }
        // Another plugin of the list may have added some of its own interfaces.
        let own = previous.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == known);
        let expected: Vec<IpAddr> =
            own.map(|ip| address(&ip.address, "prevResult.ips")).collect::<Result<_, _>>()?;
        let present = inside.addresses(link.index).await?;
        if let Some(missing) = expected.iter().find(|address| !present.contains(address)) {
            return broken(format!("interface {name} does not have the address {missing} any more"));
        }
        for route in &previous.routes {
            let to = prefix(&route.dst)?;
            if !inside.has_route(link.index, to).await? {
                return broken(format!("there is no route to {} by interface {name} any more", route.dst));
            }
        }
        if let Some(plugin) = ipam::Plugin::of(self.environment, self.config) {
            plugin.check()?;
        }
        let mut agent = Agent::connect(&network.agent_socket).await?;
        let expected = expected.iter().map(IpAddr::to_string).collect();
        Ok(agent.check(attachment.id, expected).await?)
    }

    /// Frees what is not valid, and goes on where something of it fails.
    async fn gc(&self) -> Result<(), Error> {
        let Config { network, .. } = self.config;
        let Some(valid) = &network.valid else {
            let message = "cni.dev/valid-attachments: missing: without it every container would be detached";
            return Err(Error::new(Code::Config, message));
        };
        let valid: Vec<CniAttachment> = valid
            .iter()
            .map(|valid| CniAttachment {
                network: network.name.clone(),
                container_id: valid.container.clone(),
                interface: valid.interface.clone(),
            })
            .collect();
        let host = Kernel::here()?;
        let mut outcomes = Vec::new();
        for (link, id) in attachment::links_to(&network.name, &host).await? {
            if !valid.contains(&id) {
                outcomes.push(host.remove(link.index).await);
            }
        }
        let told = async {
            let mut agent = Agent::connect(&network.agent_socket).await?;
            self.queue.replay(&mut agent).await?;
            agent.gc(network.name.clone(), valid).await
        };
        outcomes.push(told.await.map_err(Error::from));
        if let Some(plugin) = ipam::Plugin::of(self.environment, self.config) {
            outcomes.push(plugin.tell("GC"));
        }
        all(outcomes)
    }

    async fn status(&self) -> Result<(), Error> {
        let ready = async {
            let mut agent = Agent::connect(&self.config.network.agent_socket).await?;
            self.queue.replay(&mut agent).await?;
            agent.ready(self.assign()?).await
        };
        match ready.await {
            Ok(_) => {}
            // What is there goes on without it.
            Err(AgentError::Away(why)) => return Err(Error::new(Code::NotReady, why)),
            Err(AgentError::Said(error)) => return Err(error),
        }
        match ipam::Plugin::of(self.environment, self.config) {
            Some(plugin) => plugin.tell("STATUS"),
            None => Ok(()),
        }
    }

    /// Where the container is.
    fn netns(&self) -> Result<Netns, Error> {
        match &self.environment.netns {
            Some(path) => Netns::open(path),
            None => Err(Error::new(Code::Environment, "CNI_NETNS: missing")),
        }
    }

    /// What the agent is to assign; nothing where an IPAM plugin does.
    fn assign(&self) -> Result<Option<CniAssign>, Error> {
        let ipam = &self.config.network.ipam;
        if !ipam.is_ours() {
            return Ok(None);
        }
        let mut wanted = self.config.wanted_addresses()?;
        if let Some(text) = &self.environment.args.address {
            wanted.push(address(text, "CNI_ARGS: IP")?);
        }
        Ok(Some(CniAssign {
            ipv4: ipam.assign_ipv4,
            ipv6: ipam.assign_ipv6,
            ipv4_pools: ipam.ipv4_pools.clone(),
            ipv6_pools: ipam.ipv6_pools.clone(),
            addresses: wanted.iter().map(IpAddr::to_string).collect(),
        }))
    }

    /// What the runtime wants the container's side to have.
    fn mac(&self) -> Result<Option<[u8; 6]>, Error> {
        let wanted = self.config.wanted_mac().or(self.environment.args.mac.as_deref());
        wanted
            .map(|text| {
                // A group's address is nobody's.
                parse_mac(text).filter(|mac| mac[0] & 1 == 0).ok_or_else(|| {
                    Error::new(
                        Code::Config,
                        format!("runtimeConfig.mac: {text:?} is not an Ethernet address"),
                    )
                })
            })
            .transpose()
    }
}

/// A link that is there, and what is known of it.
struct There {
    /// The container's side.
    link: Link,
    addresses: Vec<IpAddr>,
    routes: Vec<Route>,
}

/// Where a container's packets go: what its IPAM plugin says, or everywhere, by the one gateway there is.
fn ways(addresses: &[IpAddr], routes: &[Route]) -> Result<Vec<(Prefix, IpAddr)>, Error> {
    let mut ways = Vec::new();
    for (v4, gateway, everywhere) in [
        (true, GATEWAY_V4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        (false, GATEWAY_V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    ] {
        if addresses.iter().all(|address| address.is_ipv4() != v4) {
            continue;
        }
        let given = routes.iter().map(|route| prefix(&route.dst)).collect::<Result<Vec<_>, _>>()?;
        let mut given: Vec<_> = given.into_iter().filter(|(to, _)| to.is_ipv4() == v4).collect();
        if given.is_empty() {
            given.push((everywhere, 0));
        }
        ways.extend(given.into_iter().map(|to| (to, gateway)));
    }
    Ok(ways)
}

fn prefix(text: &str) -> Result<Prefix, Error> {
    let wrong = || Error::new(Code::Config, format!("routes: {text:?} is not a prefix"));
    let (to, length) = text.split_once('/').ok_or_else(wrong)?;
    let to: IpAddr = to.parse().map_err(|_| wrong())?;
    let length = length.parse().ok().filter(|length| *length <= if to.is_ipv4() { 32 } else { 128 });
    Ok((to, length.ok_or_else(wrong)?))
}

fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn to(dst: &str) -> Route {
        Route { dst: dst.into(), gw: Some("10.1.0.1".into()) }
    }

    fn shown(ways: &[(Prefix, IpAddr)]) -> Vec<String> {
        ways.iter().map(|((to, length), gateway)| format!("{to}/{length} via {gateway}")).collect()
    }

    #[test]
    fn a_container_goes_everywhere_unless_its_ipam_plugin_says_where() {
        let both = addresses(&["10.0.0.1", "fd00::1"]);
        let everywhere = ["0.0.0.0/0 via 169.254.1.1", "::/0 via fe80::ecee:eeff:feee:eeee"];
        assert_eq!(shown(&ways(&both, &[]).unwrap()), everywhere);
        let some = ways(&both, &[to("10.3.0.0/16"), to("10.4.0.0/16")]).unwrap();
        assert_eq!(
            shown(&some),
            ["10.3.0.0/16 via 169.254.1.1", "10.4.0.0/16 via 169.254.1.1", everywhere[1]]
        );
        assert_eq!(shown(&ways(&both[..1], &[to("::/0")]).unwrap()), everywhere[..1]);
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129"] {
            assert!(ways(&both, &[to(wrong)]).is_err(), "{wrong}");
        }
    }
}
