//! A container's link: what it is called, made, found and removed by.
//!
//! Its host's side carries the attachment as its alias, which the kernel keeps as long as the link is there.
//! So who owns a link is known without a file, and after any crash: DEL and GC remove what is theirs and nothing else.

use crate::{
    config::Config,
    environment::Environment,
    error::{Code, Error},
    kernel::{self, Kernel, Link, Prefix, Veth},
    netns::Netns,
};
use margay_api::{control::v1::CniAttachment, link::host_interface};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The gateway of every container: nothing but the dataplane answers for it.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The same of IPv6: the link-local address of [`HOST_MAC`].
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee));

/// Of the host's side of every link, as Calico has it.
const HOST_MAC: [u8; 6] = [0xee; 6];

/// Before the attachment in a link's alias.
const ALIAS: &str = "margay ";

/// The longest alias (IFALIASZ).
const ALIAS_BYTES: usize = 255;

/// The MTU where nobody says any: Ethernet's.
const MTU: u32 = 1500;

/// One interface of one container on one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// As the agent knows it.
    pub id: CniAttachment,
    /// The host's side of its link.
    pub host_interface: String,
}

impl Attachment {
    /// The one that a command is about.
    ///
    /// # Errors
    /// Its names are too long together.
    pub fn of(environment: &Environment, config: &Config) -> Result<Self, Error> {
        let id = CniAttachment {
            network: config.network.name.clone(),
            container_id: environment.container.clone(),
            interface: environment.interface.clone(),
        };
        let length = alias(&id).len();
        if length > ALIAS_BYTES {
            let message = format!(
                "CNI_CONTAINERID: with the names of network and interface it is {} bytes too long",
                length - ALIAS_BYTES
            );
            return Err(Error::new(Code::Environment, message));
        }
        // Calico's name for what Calico has; it knows one interface a pod.
        let whose = match &environment.args.pod {
            Some(pod) if id.interface == "eth0" => format!("{}.{}", pod.namespace, pod.name),
            Some(pod) => format!("{}.{}/{}", pod.namespace, pod.name, id.interface),
            None => format!("/{}/{}", id.container_id, id.interface),
        };
        Ok(Self { host_interface: host_interface(&whose), id })
    }

    /// The host's side, if it is there and of this attachment.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn link(&self, host: &Kernel) -> Result<Option<Link>, Error> {
        let link = host.link(&self.host_interface).await?;
        Ok(link.filter(|link| link.alias == alias(&self.id)))
    }

    /// Removes the link, if it is there.
    ///
    /// # Errors
    /// The kernel will not.
    pub async fn unlink(&self, host: &Kernel) -> Result<(), Error> {
        match self.link(host).await? {
            Some(link) => host.remove(link.index).await,
            None => Ok(()),
        }
    }

    /// Makes the link, both ends up, and no packet past the dataplane: no address yet, and the host's kernel takes none
    /// for others. Returns the container's side. What an earlier sandbox of the same pod left goes.
    ///
    /// # Errors
    /// The kernel will not. Nothing is left then.
    pub async fn make(
        &self,
        host: &Kernel,
        netns: &Netns,
        mtu: u32,
        mac: Option<[u8; 6]>,
        forwards: bool,
    ) -> Result<Link, Error> {
        if let Some(old) = host.link(&self.host_interface).await? {
            host.remove(old.index).await?;
        }
        let mtu = if mtu == 0 { MTU } else { mtu };
        let (near, far) = (&self.host_interface, &self.id.interface);
        let veth = Veth { near, near_mac: HOST_MAC, netns, far, far_mac: mac, mtu };
        host.add_veth(&veth).await?;
        let made = self.dress(host, netns, forwards).await;
        if made.is_err() {
            // Not by its alias, which it may not have yet. The first error counts.
            if let Ok(Some(link)) = host.link(near).await {
                let _ = host.remove(link.index).await;
            }
        }
        made
    }

    async fn dress(&self, host: &Kernel, netns: &Netns, forwards: bool) -> Result<Link, Error> {
        let gone =
            |name: &str| Error::new(Code::Kernel, format!("interface {name} is gone as soon as it was made"));
        let (near, far) = (&self.host_interface, &self.id.interface);
        // Should the dataplane end, its program goes, and the kernel would see the container's packets:
        // it forwards none, and takes none for itself.
        kernel::set(&format!("ipv4/conf/{near}/forwarding"), "0")?;
        kernel::set(&format!("ipv4/conf/{near}/rp_filter"), "1")?;
        if kernel::has_ipv6() {
            kernel::set(&format!("ipv6/conf/{near}/disable_ipv6"), "1")?;
        }
        let forwarding = if forwards { "1" } else { "0" };
        netns.enter(|| -> Result<(), Error> {
            kernel::set("ipv4/ip_forward", forwarding)?;
            if kernel::has_ipv6() {
                kernel::set("ipv6/conf/all/forwarding", forwarding)?;
                // Until it has an address of it.
                kernel::set(&format!("ipv6/conf/{far}/disable_ipv6"), "1")?;
                kernel::set(&format!("ipv6/conf/{far}/accept_dad"), "0")?;
                kernel::set(&format!("ipv6/conf/{far}/accept_ra"), "0")?;
            }
            Ok(())
        })??;
        let link = host.link(near).await?.ok_or_else(|| gone(near))?;
        host.set_up(link.index, Some(&alias(&self.id))).await?;
        let inside = Kernel::of(netns)?;
        let link = inside.link(far).await?.ok_or_else(|| gone(far))?;
        inside.set_up(link.index, None).await?;
        Ok(link)
    }
}

/// Gives the container's side of a link its addresses, and routes by gateways.
///
/// # Errors
/// The kernel will not.
pub async fn furnish(
    netns: &Netns,
    link: &Link,
    addresses: &[IpAddr],
    routes: &[(Prefix, IpAddr)],
) -> Result<(), Error> {
    let name = &link.name;
    if addresses.iter().any(IpAddr::is_ipv6) {
        netns.enter(|| kernel::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0"))??;
    }
    let inside = Kernel::of(netns)?;
    for address in addresses {
        inside.add_address(link.index, *address).await?;
    }
    if addresses.iter().any(IpAddr::is_ipv4) {
        inside.add_route(link.index, (GATEWAY_V4, 32), None).await?;
    }
    for (to, gateway) in routes {
        inside.add_route(link.index, *to, Some(*gateway)).await?;
    }
    Ok(())
}

/// Host's sides of links to a network, whoever made them, with what they belong to.
///
/// # Errors
/// The kernel does not say.
pub async fn links_to(network: &str, host: &Kernel) -> Result<Vec<(Link, CniAttachment)>, Error> {
    let links = host.links().await?.into_iter();
    let ours = links.filter_map(|link| {
        let id = parse(&link.alias)?;
        (id.network == network).then_some((link, id))
    });
    Ok(ours.collect())
}

fn alias(id: &CniAttachment) -> String {
    format!("{ALIAS}{}/{}/{}", id.network, id.container_id, id.interface)
}

fn parse(alias: &str) -> Option<CniAttachment> {
    let mut parts = alias.strip_prefix(ALIAS)?.splitn(3, '/').map(str::to_owned);
    Some(CniAttachment { network: parts.next()?, container_id: parts.next()?, interface: parts.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Args, Command, Pod};

    fn attachment(container: &str, interface: &str, pod: Option<(&str, &str)>) -> Result<Attachment, Error> {
        let pod = pod.map(|(namespace, name)| Pod { namespace: namespace.into(), name: name.into() });
        let environment = Environment {
            command: Command::Add,
            container: container.into(),
            netns: None,
            interface: interface.into(),
            args: Args { pod, ..Args::default() },
            path: vec![],
        };
        let config = br#"{"cniVersion": "1.1.0", "name": "net", "type": "margay-cni"}"#;
        Attachment::of(&environment, &Config::parse(config).unwrap())
    }

    #[test]
    fn a_pods_link_is_called_as_calico_calls_it() {
        let first = attachment("c", "eth0", Some(("x", "a"))).unwrap();
        assert_eq!(first.host_interface, "cali456b416f2bf");
        let names = [
            attachment("c", "net1", Some(("x", "a"))),
            attachment("c", "eth0", None),
            attachment("c", "net1", None),
            attachment("c1", "eth0", None),
            Ok(first),
        ]
        .map(|attachment| attachment.unwrap().host_interface);
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
    }

    #[test]
    fn an_alias_says_whose_it_is() {
        let id = attachment("c.1", "eth0", None).unwrap().id;
        assert_eq!(parse(&alias(&id)), Some(id));
        for other in ["", "margay", "margay net/c", "a bridge", "net/c/eth0"] {
            assert_eq!(parse(other), None, "{other}");
        }
        assert!(attachment(&"c".repeat(235), "eth0", None).is_ok());
        let error = attachment(&"c".repeat(250), "eth0", None).unwrap_err();
        assert!(error.message.contains("too long"), "{error}");
    }
}
