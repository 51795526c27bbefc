//! Routes, as the kernel has them.

use super::{NetlinkError, asking};
use crate::net::{Addr, Prefix};
use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};

/// A route of one of the kernel's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its table.
    pub table: u32,
    /// What it matches.
    pub destination: Prefix,
    /// Of several with one prefix, the one with the smallest is in force.
    pub metric: u32,
    /// Where it leads.
    pub target: RouteTarget,
}

/// Where a route of the kernel leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// Over links. Those that the kernel does not use now are left out; there may be none left.
    Via(Vec<RouteHop>),
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere: nobody is there.
    Unreachable,
    /// Nowhere: it is forbidden.
    Prohibit,
    /// To the next table.
    Throw,
}

/// One of a route's ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteHop {
    /// The interface's number.
    pub link: u32,
    /// The router; `None`: the destination is on the link.
    pub gateway: Option<Addr>,
    /// 1 to 256.
    pub weight: u32,
}

impl super::Netlink {
    /// All routes of one table, those for packets of some type of service and those of the host's own
    /// addresses apart. Of two with one prefix and metric, the first is in force.
    pub async fn routes(&self, table: u32) -> Result<Vec<Route>, NetlinkError> {
        let mut routes = vec![];
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut wanted = RouteMessage::default();
            wanted.header.address_family = family;
            let mut answers = std::pin::pin!(self.handle.route().get(wanted).execute());
            while let Some(message) = answers.try_next().await.map_err(asking("routes"))? {
                routes.extend(route(&message).filter(|route| route.table == table));
            }
        }
        Ok(routes)
    }
}

/// `None` for what is not a route to forward by.
pub(super) fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.tos != 0 || header.source_prefix_length != 0 || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let target = match header.kind {
        RouteType::Unicast => RouteTarget::Via(hops(message)),
        RouteType::BlackHole => RouteTarget::Blackhole,
        RouteType::Unreachable => RouteTarget::Unreachable,
        RouteType::Prohibit => RouteTarget::Prohibit,
        RouteType::Throw => RouteTarget::Throw,
        _ => return None,
    };
    let mut destination = match header.address_family {
        AddressFamily::Inet => Addr::v4([0; 4]),
        AddressFamily::Inet6 => Addr::v6([0; 16]),
        _ => return None,
    };
    let (mut table, mut metric) = (u32::from(header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => destination = address(addr)?,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let destination = Prefix::new(destination, header.destination_prefix_length.into()).ok()?;
    Some(Route { table, destination, metric, target })
}

fn hops(message: &RouteMessage) -> Vec<RouteHop> {
    let (mut gateway, mut link, mut several) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Gateway(addr) => gateway = address(addr),
            RouteAttribute::Oif(number) => link = Some(*number),
            RouteAttribute::MultiPath(hops) => several = Some(hops),
            // A router of the other family, which has no adjacency here.
            RouteAttribute::Via(_) => return vec![],
            _ => {}
        }
    }
    let Some(several) = several else {
        let dead = message.header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
        let hop = link.map(|link| RouteHop { link, gateway, weight: 1 });
        return hop.filter(|_| !dead).into_iter().collect();
    };
    let used = several.iter().filter(|hop| {
        let via = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Via(_));
        !hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)
            && !hop.attributes.iter().any(via)
    });
    used.map(|hop| {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(addr) => address(addr),
            _ => None,
        });
        RouteHop { link: hop.interface_index, gateway, weight: u32::from(hop.hops) + 1 }
    })
    .collect()
}

fn address(addr: &RouteAddress) -> Option<Addr> {
    match addr {
        RouteAddress::Inet(v4) => Some(Addr::v4(v4.octets())),
        RouteAddress::Inet6(v6) => Some(Addr::v6(v6.octets())),
        _ => None,
    }
}
