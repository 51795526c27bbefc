//! Links, addresses and routes, by rtnetlink; and the few settings that are files.

use crate::{
    error::{Code, Error},
    netns::Netns,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    address::{AddressAttribute, AddressHeaderFlags},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::{fs, io, net::IpAddr, os::fd::AsRawFd as _, path::Path, pin::pin};
use tokio::{runtime, task::JoinHandle};

/// A connection to the kernel, in one network namespace.
pub struct Kernel {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// The first address of a prefix, and its length.
pub type Prefix = (IpAddr, u8);

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it was labelled with.
    pub alias: String,
    /// Its Ethernet address, as in `02:00:00:00:00:01`.
    pub mac: String,
    /// The largest packet.
    pub mtu: u32,
    /// The number of the other end, in whatever namespace that is.
    pub peer: Option<u32>,
    /// Set up.
    pub up: bool,
}

/// A link to be made.
pub struct Veth<'a> {
    /// The name of this end.
    pub near: &'a str,
    /// Its Ethernet address.
    pub near_mac: [u8; 6],
    /// Where the other end is.
    pub netns: &'a Netns,
    /// The name of the other end.
    pub far: &'a str,
    /// Its Ethernet address; the kernel makes one up where there is none.
    pub far_mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: u32,
}

impl Kernel {
    /// In the namespace of this thread. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// There is no netlink socket to be had.
    pub fn here() -> Result<Self, Error> {
        let failed = |error: io::Error| Error::new(Code::Kernel, format!("connecting to rtnetlink: {error}"));
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// In another namespace.
    ///
    /// # Errors
    /// It cannot be entered.
    pub fn of(netns: &Netns) -> Result<Self, Error> {
        let runtime = runtime::Handle::current();
        netns.enter(move || {
            let _entered = runtime.enter();
            Self::here()
        })?
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut answers = pin!(self.handle.link().get().match_name(name.to_owned()).execute());
        match answers.try_next().await {
            Ok(message) => Ok(message.as_ref().map(link)),
            Err(error) if number(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(refused(&format!("asking for interface {name}"), &error)),
        }
    }

    /// All links.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages = collect(self.handle.link().get().execute(), "asking for interfaces").await?;
        Ok(messages.iter().map(link).collect())
    }

    /// Makes a veth pair, both ends down, in one step.
    ///
    /// # Errors
    /// A name is taken, or the kernel will not.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        let mut far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(veth.far)
            .mtu(veth.mtu)
            .setns_by_fd(veth.netns.file().as_raw_fd());
        if let Some(mac) = veth.far_mac {
            far = far.address(mac.to_vec());
        }
        let near = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.near)
            .mtu(veth.mtu)
            .address(veth.near_mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far.build())));
        let what =
            format!("making the link {} to {} in {}", veth.near, veth.far, veth.netns.path().display());
        self.handle.link().add(near.build()).execute().await.map_err(|error| refused(&what, &error))
    }

    /// Sets a link up, labelled where there is a label.
    ///
    /// # Errors
    /// It is gone, or the kernel will not.
    pub async fn set_up(&self, index: u32, alias: Option<&str>) -> Result<(), Error> {
        let mut message = LinkUnspec::new_with_index(index).up();
        if let Some(alias) = alias {
            message = message.alias(alias);
        }
        let what = format!("setting interface {index} up");
        self.handle.link().change(message.build()).execute().await.map_err(|error| refused(&what, &error))
    }

    /// Removes a link, both ends. That there is none is no error.
    ///
    /// # Errors
    /// The kernel will not.
    pub async fn remove(&self, index: u32) -> Result<(), Error> {
        match self.handle.link().del(index).execute().await {
            Err(error) if number(&error) == Some(nix::libc::ENODEV) => Ok(()),
            done => done.map_err(|error| refused(&format!("removing interface {index}"), &error)),
        }
    }

    /// Gives a link an address of its own. That it has it is no error.
    ///
    /// # Errors
    /// The kernel will not.
    pub async fn add_address(&self, index: u32, address: IpAddr) -> Result<(), Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(index, address, length).replace();
        // Nobody else on a link of two can have it.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        let what = format!("giving interface {index} the address {address}");
        request.execute().await.map_err(|error| refused(&what, &error))
    }

    /// The addresses of a link that the world may see.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, Error> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages = collect(request.execute(), "asking for addresses").await?;
        let own = messages.iter().filter(|message| message.header.index == index);
        let addresses = own.flat_map(|message| &message.attributes).filter_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        Ok(addresses.filter(|address| !is_link_local(*address)).collect())
    }

    /// Adds the route to a prefix, by a gateway or to the link itself. That it is there is no error.
    ///
    /// # Errors
    /// The kernel will not.
    pub async fn add_route(
        &self,
        index: u32,
        (to, length): Prefix,
        gateway: Option<IpAddr>,
    ) -> Result<(), Error> {
        let what = format!("adding the route to {to}/{length}");
        let invalid = |error: &dyn std::fmt::Display| Error::new(Code::Config, format!("{what}: {error}"));
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to, length)
            .map_err(|error| invalid(&error))?
            .output_interface(index);
        route = match gateway {
            Some(gateway) => route.gateway(gateway).map_err(|error| invalid(&error))?.onlink(),
            None => route.scope(RouteScope::Link),
        };
        let request = self.handle.route().add(route.build()).replace();
        request.execute().await.map_err(|error| refused(&what, &error))
    }

    /// There is a route to the prefix by this link.
    ///
    /// # Errors
    /// The kernel does not say.
    pub async fn has_route(&self, index: u32, (to, length): Prefix) -> Result<bool, Error> {
        let request = match to {
            IpAddr::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
            IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        };
        let messages = collect(self.handle.route().get(request).execute(), "asking for routes").await?;
        Ok(messages.iter().any(|route| {
            let by =
                |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Oif(by) if *by == index);
            route.header.destination_prefix_length == length
                && destination(route).map_or(to.is_unspecified(), |destination| destination == to)
                && route.attributes.iter().any(by)
        }))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Writes a setting of the network, in the namespace of this thread: `ipv4/ip_forward`.
///
/// # Errors
/// There is no such setting, or it may not be written.
pub fn set(setting: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net").join(setting);
    fs::write(&path, value)
        .map_err(|error| Error::new(Code::Kernel, format!("writing {value} to {}: {error}", path.display())))
}

/// A machine may have been booted without IPv6.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Six bytes from `02:00:00:00:00:01`.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::IfAlias(alias) => link.alias.clone_from(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            }
            _ => {}
        }
    }
    link
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
        _ => None,
    })
}

async fn collect<T>(
    messages: impl Stream<Item = Result<T, rtnetlink::Error>>,
    what: &str,
) -> Result<Vec<T>, Error> {
    messages.map(|message| message.map_err(|error| refused(what, &error))).try_collect().await
}

fn number(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

fn refused(what: &str, error: &rtnetlink::Error) -> Error {
    let why = match number(error) {
        Some(number) => io::Error::from_raw_os_error(number).to_string(),
        None => error.to_string(),
    };
    Error::new(Code::Kernel, format!("{what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ethernet_address_is_six_bytes() {
        assert_eq!(parse_mac("02:00:00:00:00:aF"), Some([2, 0, 0, 0, 0, 0xaf]));
        for wrong in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "02:00:00:00:00:xx", "02-00-00-00-00-00"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
