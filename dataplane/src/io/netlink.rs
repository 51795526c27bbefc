//! What the kernel knows of links, addresses, neighbours and routes (rtnetlink), for the control side.
//!
//! A NIC stays the kernel's, so its neighbours are learned where the kernel learns them: we ask
//! it to resolve a next hop and read its table. Subscribe first ([`Netlink::connect`]), then ask
//! for what there is; every event is the whole new state of one thing, so applying both in any
//! overlap ends at the truth.

mod route;

pub use route::{Route, RouteHop, RouteTarget};

use crate::net::{Addr, Mac};
use futures::channel::mpsc::UnboundedReceiver;
use futures::{FutureExt, StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState as KernelState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use std::io;
use std::net::IpAddr;

/// A connection to the kernel. Asks, while [`Events`] tells.
pub struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// Why the kernel did not answer as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No connection.
    #[error("connecting to rtnetlink: {0}")]
    Connect(#[source] io::Error),
    /// It refused.
    #[error("{question}: {source}")]
    Refused {
        /// What was asked.
        question: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// The connection is gone, or the answer makes no sense.
    #[error("{question}: {reason}")]
    NoAnswer {
        /// What was asked.
        question: String,
        /// What happened.
        reason: String,
    },
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zeroes where it has none of six bytes.
    pub mac: Mac,
    /// The longest packet without its link header, in bytes.
    pub mtu: u32,
    /// Set up, and with a carrier.
    pub up: bool,
}

/// An address of the host, with the prefix length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub link: u32,
    /// The address.
    pub addr: Addr,
    /// 0 to 32 or 128.
    pub prefix_len: u8,
}

/// A neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's number.
    pub link: u32,
    /// Whom.
    pub addr: Addr,
    /// What is known.
    pub state: NeighbourState,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Its Ethernet address. The kernel may be about to confirm it.
    Resolved(Mac),
    /// Being asked for.
    Resolving,
    /// It did not answer.
    Failed,
    /// No longer, or not, in the table.
    Unknown,
}

/// What has changed: the new state of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link is there, or any of its facts changed.
    Link(Link),
    /// The link of this number is gone.
    LinkRemoved(u32),
    /// An address is there.
    Address(Address),
    /// An address is gone.
    AddressRemoved(Address),
    /// A neighbour's state, on any link.
    Neighbour(Neighbour),
    /// A route is there, or leads elsewhere.
    Route(Route),
    /// These ways of a route are gone: all, or for IPv6 some of several.
    RouteRemoved(Route),
    /// A route that may not be in force was added: ask for all of them again.
    RouteAppended,
    /// Events were lost because we were too slow: ask for everything again.
    Lost,
}

/// The stream of events.
pub struct Events {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Events {
    /// The next event. `None`: the connection is gone.
    ///
    /// Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let (message, _) = self.messages.next().await?;
            let appended = message.header.flags & NLM_F_APPEND != 0;
            if let Some(event) = event(message.payload, appended) {
                return Some(event);
            }
        }
    }

    /// The next event, if it is there already.
    pub fn ready(&mut self) -> Option<Event> {
        self.next().now_or_never().flatten()
    }
}

impl Netlink {
    /// Connects in the network namespace of the calling thread, and subscribes; to what becomes of routes,
    /// too, if they are wanted. The connection is driven by a task of the current tokio runtime, until
    /// this is dropped.
    pub fn connect(routes: bool) -> Result<(Self, Events), NetlinkError> {
        let mut groups = vec![
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        if routes {
            groups.extend([MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route]);
        }
        let (mut connection, handle, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Connect)?;
        // The kernel may grant less; what does not fit is told as `Lost`.
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER);
        Ok((Self { handle, connection: tokio::spawn(connection) }, Events { messages }))
    }

    /// The link called `name`, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let question = || format!("asking for interface {name}");
        let mut answers = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        match answers.try_next().await {
            Ok(message) => Ok(message.as_ref().and_then(link)),
            Err(e) if code(&e) == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(failed(question(), e)),
        }
    }

    /// All links.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages: Vec<_> =
            self.handle.link().get().execute().try_collect().await.map_err(asking("links"))?;
        Ok(messages.iter().filter_map(link).collect())
    }

    /// All addresses of the host.
    pub async fn addresses(&self) -> Result<Vec<Address>, NetlinkError> {
        let messages: Vec<_> =
            self.handle.address().get().execute().try_collect().await.map_err(asking("addresses"))?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// All neighbours, of both families and every link.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let messages: Vec<_> =
            self.handle.neighbours().get().execute().try_collect().await.map_err(asking("neighbours"))?;
        Ok(messages.iter().filter_map(neighbour).collect())
    }

    /// Has the kernel resolve a neighbour, and keep it resolved (`NTF_EXT_MANAGED`, Linux 5.16;
    /// older ones resolve once) until [`forget`](Self::forget). The outcome is an event. Static
    /// entries are left alone.
    pub async fn resolve(&self, link: u32, addr: Addr) -> Result<(), NetlinkError> {
        let question = || format!("resolving neighbour {addr} on interface {link}");
        // To "use" a static entry would make an ordinary one of it.
        if self.is_static(link, addr).await.map_err(|e| failed(question(), e))? {
            return Ok(());
        }
        let mut request = self.handle.neighbours().add(link, IpAddr::from(addr)).replace();
        let message = request.message_mut();
        message.header.state = KernelState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        request.execute().await.map_err(|e| failed(question(), e))
    }

    /// Removes a neighbour from the kernel's table, unless its entry is static or none.
    pub async fn forget(&self, link: u32, addr: Addr) -> Result<(), NetlinkError> {
        let question = || format!("removing neighbour {addr} on interface {link}");
        if self.is_static(link, addr).await.map_err(|e| failed(question(), e))? {
            return Ok(());
        }
        match self.handle.neighbours().del(named(link, addr)).execute().await {
            Err(e) if code(&e) == Some(libc::ENOENT) => Ok(()),
            done => done.map_err(|e| failed(question(), e)),
        }
    }

    async fn is_static(&self, link: u32, addr: Addr) -> Result<bool, rtnetlink::Error> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(named(link, addr)));
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        match handle.request(request)?.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message))) => {
                Ok(matches!(message.header.state, KernelState::Permanent | KernelState::Noarp))
            }
            Some(NetlinkPayload::Error(e)) if e.raw_code() == -libc::ENOENT => Ok(false),
            Some(NetlinkPayload::Error(e)) => Err(rtnetlink::Error::NetlinkError(e)),
            _ => Err(rtnetlink::Error::RequestFailed),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Bytes of events the kernel may keep for us.
const RECEIVE_BUFFER: usize = 4 << 20;

fn event(payload: NetlinkPayload<RouteNetlinkMessage>, appended: bool) -> Option<Event> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(Event::Lost),
        _ => return None,
    };
    match message {
        RouteNetlinkMessage::NewLink(message) => link(&message).map(Event::Link),
        // A bridge tells of a port that left it by the same message of its own family.
        RouteNetlinkMessage::DelLink(message) => (message.header.interface_family == AddressFamily::Unspec)
            .then_some(Event::LinkRemoved(message.header.index)),
        RouteNetlinkMessage::NewAddress(message) => address(&message).map(Event::Address),
        RouteNetlinkMessage::DelAddress(message) => address(&message).map(Event::AddressRemoved),
        RouteNetlinkMessage::NewNeighbour(message) => neighbour(&message).map(Event::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => neighbour(&message)
            .map(|neighbour| Event::Neighbour(Neighbour { state: NeighbourState::Unknown, ..neighbour })),
        RouteNetlinkMessage::NewRoute(message) => route::route(&message).map(|route| {
            // Of IPv6, what is appended is one more way, and told with all the others.
            if appended && route.destination.is_v4() { Event::RouteAppended } else { Event::Route(route) }
        }),
        RouteNetlinkMessage::DelRoute(message) => route::route(&message).map(Event::RouteRemoved),
        _ => None,
    }
}

/// `None` for messages that tell of something else than the link itself.
fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let (mut name, mut mtu, mut mac) = (None, None, Mac::default());
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Mtu(value) => mtu = Some(*value),
            LinkAttribute::Address(value) => mac = mac_of(value).unwrap_or_default(),
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Some(Link { index: message.header.index, name: name?, mac, mtu: mtu?, up })
}

fn address(message: &AddressMessage) -> Option<Address> {
    // On a point-to-point link `Address` is the peer's, and `Local` ours.
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    let addr = local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        })
    })?;
    Some(Address { link: message.header.index, addr: addr.into(), prefix_len: message.header.prefix_len })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut addr, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(Addr::v4(v4.octets())),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                addr = Some(Addr::v6(v6.octets()))
            }
            NeighbourAttribute::LinkLayerAddress(value) => mac = mac_of(value),
            _ => {}
        }
    }
    let state = match (message.header.state, mac) {
        (KernelState::Failed, _) => NeighbourState::Failed,
        (KernelState::Incomplete | KernelState::None, _) | (_, None) => NeighbourState::Resolving,
        (_, Some(mac)) => NeighbourState::Resolved(mac),
    };
    Some(Neighbour { link: message.header.ifindex, addr: addr?, state })
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn named(link: u32, addr: Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match IpAddr::from(addr) {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.header.ifindex = link;
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

fn asking(what: &'static str) -> impl Fn(rtnetlink::Error) -> NetlinkError {
    move |e| failed(format!("asking for all {what}"), e)
}

fn failed(question: String, error: rtnetlink::Error) -> NetlinkError {
    match error {
        rtnetlink::Error::NetlinkError(e) => NetlinkError::Refused { question, source: e.to_io() },
        other => NetlinkError::NoAnswer { question, reason: other.to_string() },
    }
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(e) => Some(-e.raw_code()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::LinkHeader;

    fn link_message(family: AddressFamily, flags: LinkFlags, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header = LinkHeader { interface_family: family, index: 7, flags, ..LinkHeader::default() };
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_bridge_port_that_leaves_is_not_a_link_that_goes() {
        let gone = |family| {
            let message = link_message(family, LinkFlags::empty(), vec![]);
            event(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)), false)
        };
        assert_eq!(gone(AddressFamily::Bridge), None);
        assert_eq!(gone(AddressFamily::Unspec), Some(Event::LinkRemoved(7)));
    }

    #[test]
    fn a_link_is_up_only_with_a_carrier() {
        let facts = || vec![LinkAttribute::IfName("eth0".into()), LinkAttribute::Mtu(1500)];
        let up = |flags| link(&link_message(AddressFamily::Unspec, flags, facts())).unwrap().up;
        assert!(up(LinkFlags::Up | LinkFlags::LowerUp));
        assert!(!up(LinkFlags::Up) && !up(LinkFlags::LowerUp));
        assert_eq!(link(&link_message(AddressFamily::Unspec, LinkFlags::Up, vec![])), None);
    }

    #[test]
    fn a_neighbour_is_resolved_by_its_address_not_by_its_state_alone() {
        let state = |state, mac: &[u8]| {
            let mut message = named(3, "10.0.0.1".parse().unwrap());
            message.header.state = state;
            if !mac.is_empty() {
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            }
            neighbour(&message).unwrap().state
        };
        let mac = [2, 0, 0, 0, 0, 1];
        assert_eq!(state(KernelState::Stale, &mac), NeighbourState::Resolved(Mac(mac)));
        assert_eq!(state(KernelState::Permanent, &mac), NeighbourState::Resolved(Mac(mac)));
        assert_eq!(state(KernelState::Reachable, &mac[..4]), NeighbourState::Resolving);
        assert_eq!(state(KernelState::Incomplete, &[]), NeighbourState::Resolving);
        assert_eq!(state(KernelState::Failed, &mac), NeighbourState::Failed);
    }

    #[test]
    fn lost_events_are_told() {
        assert_eq!(event(NetlinkPayload::Overrun(vec![]), false), Some(Event::Lost));
    }
}
