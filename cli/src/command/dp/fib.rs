//! `dp fib`: where packets go.

use std::{
    io::{self, Write as _},
    net::IpAddr,
};

use margay_api::dataplane::v1 as api;
use serde::Serialize;

use crate::{
    args::{FibLookup, FibShow, Global},
    client,
    exit::{Code, Failure, Outcome},
    output::{Cell, Output, Table, Tone, View},
    readable::{address, mac, percent, rounded},
};

/// `dp fib lookup`.
pub async fn lookup(global: &Global, args: &FibLookup, out: &mut Output) -> Outcome {
    let mut dataplane = client::dataplane(global).await?;
    let request =
        api::LookupRouteRequest { address: octets(args.address), from_workload: args.from_workload };
    let answer =
        client::answer(global.timeout, "look the address up", dataplane.lookup_route(request)).await?;
    let routes: Vec<Route> = answer.into_inner().routes.into_iter().map(Route::from).collect();
    let code = if routes.is_empty() { Code::NotFound } else { Code::Ok };
    out.show(&Routes { routes, more: false }, args.output)?;
    Ok(code)
}

/// `dp fib show`.
pub async fn routes(global: &Global, args: &FibShow, out: &mut Output) -> Outcome {
    let request = api::ListRoutesRequest {
        within: args.within.as_deref().map(prefix).transpose()?,
        origin: args.origin.clone().unwrap_or_default(),
        limit: args.limit,
    };
    let mut dataplane = client::dataplane(global).await?;
    let attempt = "list the routes";
    let answer = client::answer(global.timeout, attempt, dataplane.list_routes(request)).await?;
    let (mut parts, mut routes, mut more) = (answer.into_inner(), vec![], false);
    while let Some(part) = client::answer(global.timeout, attempt, parts.message()).await? {
        routes.extend(part.routes.into_iter().map(Route::from));
        more |= part.more;
    }
    out.show(&Routes { routes, more }, args.output)?;
    Ok(Code::Ok)
}

#[derive(Debug, Serialize)]
struct Routes {
    routes: Vec<Route>,
    /// There are more than the limit.
    more: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    destination: String,
    table: String,
    origin: String,
    in_force: bool,
    kind: String,
    next_hops: Vec<NextHop>,
    ways: Vec<Way>,
}

/// As it was asked for; of a tunnel, its other end.
#[derive(Debug, Serialize)]
struct NextHop {
    /// Empty: the destination itself.
    gateway: String,
    /// Empty: whichever leads to the gateway.
    interface: String,
    weight: u32,
}

/// As it was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Way {
    interface: String,
    /// Empty: the destination itself.
    next_hop: String,
    /// Empty: not resolved.
    mac: String,
    share: f64,
}

impl From<api::ShownRoute> for Route {
    fn from(from: api::ShownRoute) -> Self {
        let destination = from.destination.unwrap_or_default();
        let hop = |hop: api::NextHop| NextHop {
            gateway: address(&hop.gateway),
            interface: hop.interface_name,
            weight: hop.weight,
        };
        let way = |way: api::ShownWay| Way {
            interface: way.interface_name,
            next_hop: address(&way.next_hop),
            mac: mac(&way.mac),
            share: rounded(way.share),
        };
        Self {
            destination: format!("{}/{}", address(&destination.address), destination.length),
            table: from.table,
            origin: from.origin,
            in_force: from.in_force,
            kind: from.kind,
            next_hops: from.next_hops.into_iter().map(hop).collect(),
            ways: from.ways.into_iter().map(way).collect(),
        }
    }
}

impl Route {
    /// For people: whether it counts, and a tunnel's other end.
    fn kind(&self) -> String {
        match (self.kind.as_str(), self.next_hops.first()) {
            _ if !self.in_force => "not in force".into(),
            (kind @ ("ipip" | "vxlan" | "vxlan-v6"), Some(node)) => format!("{kind} to {}", node.gateway),
            (kind, _) => kind.into(),
        }
    }
}

impl View for Routes {
    const RECORDS: Option<&'static str> = Some("routes");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        if self.routes.is_empty() {
            return writeln!(out, "No route.");
        }
        let mut table = Table::new(["DESTINATION", "TABLE", "ORIGIN", "KIND", "BY", "INTERFACE", ">SHARE"]);
        for route in &self.routes {
            let kind = route.kind();
            let start = || -> Vec<Cell> {
                vec![
                    (&route.destination).into(),
                    (&route.table).into(),
                    (&route.origin).into(),
                    kind.as_str().into(),
                ]
            };
            // A way each line.
            for way in &route.ways {
                let by = if way.next_hop.is_empty() { "itself" } else { &way.next_hop };
                let mut row = start();
                row.extend([by.into(), (&way.interface).into(), percent(way.share).into()]);
                table.row(row);
            }
            if route.ways.is_empty() {
                let by = match route.kind.as_str() {
                    "local" | "blackhole" | "unreachable" | "prohibit" => Cell::default(),
                    _ => Cell::toned("nobody there", Tone::Bad),
                };
                let mut row = start();
                row.extend([by, Cell::default(), Cell::default()]);
                table.row(row);
            }
        }
        table.print(out)?;
        if self.more {
            writeln!(out, "\nThere are more: give a prefix, or raise --limit.")?;
        }
        Ok(())
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn prefix(text: &str) -> Outcome<api::Prefix> {
    let wrong = || {
        Failure::new(
            Code::Usage,
            format!("cannot read {text:?}"),
            "it is no address or prefix",
            "write it as in 10.0.0.0/8 or 2001:db8::/32",
        )
    };
    let (addr, length) = match text.split_once('/') {
        Some((addr, length)) => (addr, Some(length.parse().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let address = octets(addr.parse().map_err(|_| wrong())?);
    let length = length.unwrap_or(address.len() as u32 * 8);
    Ok(api::Prefix { address, length })
}
