//! The configuration of BIRD 2, written anew as a whole.
//!
//! Nothing of it is text that somebody gave: it is made of numbers, addresses, prefixes and keywords, and of what
//! [`quoted`] lets pass.

use super::filter::{Way, statements};
use crate::calc::{Bgp, Session};
use crate::model::scalar::Community;
use crate::model::{BgpLogSeverity, Cidr, NextHopMode};
use std::fmt::Write as _;
use std::net::IpAddr;

/// The kernel's own table of routes, from which next hops are found.
const MAIN: u32 = 254;

/// What BIRD calls the session with that other end: Margay's own sessions are told by it.
pub fn protocol_name(addr: IpAddr, port: u16) -> String {
    let parts: Vec<_> = match addr {
        IpAddr::V4(addr) => addr.octets().iter().map(u8::to_string).collect(),
        IpAddr::V6(addr) => addr.segments().iter().map(|part| format!("{part:x}")).collect(),
    };
    format!("peer_{}_port_{port}", parts.join("_"))
}

/// The configuration. Routes go to the kernel's table of that number.
pub fn configuration(bgp: &Bgp, table: u32) -> String {
    let mut text = Text(String::new());
    text.head(bgp);
    text.underlay(bgp);
    for v4 in [true, false] {
        text.family(bgp, v4, table);
    }
    text.line(0, "template bgp speaker {");
    for line in [
        "multihop;",
        "connect delay time 1;",
        "connect retry time 5;",
        "error wait time 5, 30;",
        "graceful restart on;",
    ] {
        text.line(1, line);
    }
    text.line(0, "}");
    for ((addr, port), session) in &bgp.sessions {
        text.session(bgp, *addr, *port, session);
    }
    text.0
}

/// Prefixes with the lengths that count, as a set. Of none there is no set.
pub(super) fn prefix_set(prefixes: impl IntoIterator<Item = (Cidr, i64, i64)>) -> String {
    let all: Vec<_> =
        prefixes.into_iter().map(|(cidr, least, most)| format!("{cidr}{{{least},{most}}}")).collect();
    format!("[ {} ]", all.join(", "))
}

/// The list that a community is in, and the community.
pub(super) fn community(community: Community) -> (&'static str, String) {
    match community {
        Community::Standard([a, n]) => ("bgp_community", format!("({a},{n})")),
        Community::Large([a, n, m]) => ("bgp_large_community", format!("({a},{n},{m})")),
    }
}

/// Text of letters, digits and some signs in quotes; BIRD knows no way to escape others, which become `_`.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 128;
    let harmless = |c: char| c.is_ascii_alphanumeric() || " ._*:/-".contains(c);
    let text: String = text.chars().take(LONGEST).map(|c| if harmless(c) { c } else { '_' }).collect();
    format!("\"{text}\"")
}

struct Text(String);

impl Text {
    fn line(&mut self, depth: usize, line: impl AsRef<str>) {
        let width = depth * 2;
        writeln!(self.0, "{:width$}{}", "", line.as_ref()).expect("a string takes all text");
    }

    fn head(&mut self, bgp: &Bgp) {
        self.line(0, "# Written by margay-agent, again and again: what is changed here is lost.");
        self.line(0, format!("router id {};", bgp.router_id));
        let classes = match bgp.log {
            BgpLogSeverity::Debug => "{ debug, trace, info, remote, warning, error, auth, fatal, bug }",
            BgpLogSeverity::Info => "{ info, remote, warning, error, auth, fatal, bug }",
            BgpLogSeverity::Warning => "{ warning, error, auth, fatal, bug }",
            BgpLogSeverity::Error => "{ error, fatal, bug }",
            BgpLogSeverity::Fatal => "{ fatal, bug }",
        };
        self.line(0, format!("log stderr {classes};"));
        // One word, which the status is read by.
        self.line(0, "timeformat protocol \"%FT%T%z\";");
        if bgp.log == BgpLogSeverity::Debug {
            self.line(0, "debug protocols { states };");
        }
        self.line(0, "graceful restart wait 120;");
    }

    /// What next hops are reached by: connected networks, and what somebody else gave the kernel.
    fn underlay(&mut self, bgp: &Bgp) {
        self.line(0, "ipv4 table underlay4;");
        self.line(0, "ipv6 table underlay6;");
        self.line(0, "protocol device links { scan time 5; }");
        self.line(0, "protocol direct connected {");
        for v in [4, 6] {
            self.line(1, format!("ipv{v} {{ table underlay{v}; import all; }};"));
        }
        let ignored = bgp.ignored_interfaces.iter().map(String::as_str);
        let patterns = ["cali*", "margay*"].into_iter().chain(ignored);
        let patterns: String = patterns.map(|pattern| format!("-{}, ", quoted(pattern))).collect();
        self.line(1, format!("interface {patterns}\"*\";"));
        self.line(0, "}");
        for v in [4, 6] {
            self.line(0, format!("protocol kernel known{v} {{"));
            self.line(1, format!("kernel table {MAIN}; learn; scan time 10;"));
            self.line(1, format!("ipv{v} {{ table underlay{v}; import all; export none; }};"));
            self.line(0, "}");
        }
    }

    /// What the node has, who may hear of what, and what the kernel is given.
    fn family(&mut self, bgp: &Bgp, v4: bool, table: u32) {
        let (v, longest, metric) = if v4 { (4, 32, bgp.metrics[0]) } else { (6, 128, bgp.metrics[1]) };
        let of_family = |cidr: &&Cidr| cidr.is_v4() == v4;
        let inside = |cidr: &Cidr| (*cidr, i64::from(cidr.len()), longest);
        let exactly = |cidr: &Cidr| (*cidr, i64::from(cidr.len()), i64::from(cidr.len()));

        self.line(0, format!("protocol static own{v} {{"));
        self.line(1, format!("ipv{v};"));
        for cidr in bgp.own.iter().filter(of_family) {
            self.line(1, format!("route {cidr} blackhole;"));
        }
        self.line(0, "}");

        // What is this node's own cannot be elsewhere.
        self.line(0, format!("function refuse_own{v}() {{"));
        let addresses: Vec<_> = bgp.addresses.iter().map(|addr| Cidr::host(*addr)).collect();
        let own: Vec<_> = bgp.own.iter().chain(&addresses).filter(of_family).map(exactly).collect();
        if !own.is_empty() {
            self.line(1, format!("if net ~ {} then reject;", prefix_set(own)));
        }
        self.line(0, "}");

        self.line(0, format!("function announce{v}() {{"));
        let announced: Vec<_> = bgp.announced.iter().filter(of_family).map(inside).collect();
        if !announced.is_empty() {
            self.line(1, format!("if net ~ {} then {{", prefix_set(announced)));
            for (cidr, communities) in bgp.communities.iter().filter(|(cidr, _)| cidr.is_v4() == v4) {
                let added: String = communities
                    .iter()
                    .map(|value| community(*value))
                    .map(|(list, value)| format!("{list}.add({value}); "))
                    .collect();
                self.line(2, format!("if net ~ {} then {{ {added}}}", prefix_set([inside(cidr)])));
            }
            self.line(2, "accept;");
            self.line(1, "}");
        }
        self.line(0, "}");

        self.line(0, format!("filter to_kernel{v} {{"));
        self.line(1, "if source != RTS_BGP then reject;");
        let tunnelled: Vec<_> = bgp.tunnelled.iter().filter(of_family).map(inside).collect();
        if !tunnelled.is_empty() {
            self.line(1, format!("if net ~ {} then reject;", prefix_set(tunnelled)));
        }
        self.line(1, "accept;");
        self.line(0, "}");
        self.line(0, format!("protocol kernel kernel{v} {{"));
        self.line(
            1,
            format!("kernel table {table}; metric {metric}; persist; graceful restart on; merge paths on; scan time 10;"),
        );
        self.line(1, format!("ipv{v} {{ import none; export filter to_kernel{v}; }};"));
        self.line(0, "}");
    }

    fn session(&mut self, bgp: &Bgp, addr: IpAddr, port: u16, session: &Session) {
        self.line(0, format!("protocol bgp {} from speaker {{", protocol_name(addr, port)));
        let node = session.node.as_ref().map(|node| format!(" node {node}")).unwrap_or_default();
        self.line(1, format!("description {};", quoted(&format!("{}{node}", session.object))));
        let local = session.local.map(|addr| format!("{addr} ")).unwrap_or_default();
        self.line(1, format!("local {local}port {} as {};", bgp.port, session.local_as));
        self.line(1, format!("neighbor {addr} port {port} as {};", session.remote_as));
        self.line(1, format!("graceful restart time {};", session.restart));
        if bgp.bound && session.local.is_some() {
            self.line(1, "strict bind on;");
        }
        if let Some(hops) = session.hops {
            self.line(1, format!("multihop {hops}; ttl security on;"));
        }
        if session.own_as_allowed > 0 {
            self.line(1, format!("allow local as {};", session.own_as_allowed));
        }
        if let Some(keepalive) = session.keepalive {
            // Three may be lost; BIRD's own time is 240.
            self.line(1, format!("keepalive time {keepalive}; hold time {};", (3 * keepalive).max(240)));
        }
        if let Some(cluster) = session.reflects {
            self.line(1, format!("rr client; rr cluster id {cluster};"));
        }
        self.channel(bgp, addr.is_ipv4(), session);
        self.line(0, "}");
    }

    fn channel(&mut self, bgp: &Bgp, v4: bool, session: &Session) {
        let v = if v4 { 4 } else { 6 };
        self.line(1, format!("ipv{v} {{"));
        self.line(2, format!("igp table underlay{v}; add paths on;"));
        match session.next_hop {
            NextHopMode::Auto => {}
            NextHopMode::Self_ => self.line(2, "next hop self;"),
            NextHopMode::Keep => self.line(2, "next hop keep;"),
        }
        let filters: Option<Vec<_>> = session.filters.iter().map(|name| bgp.filters.get(name)).collect();
        for (way, word, first, last) in [
            (Way::Import, "import", format!("refuse_own{v}();"), "accept;".to_owned()),
            (Way::Export, "export", String::new(), format!("announce{v}(); reject;")),
        ] {
            let Some(filters) = &filters else {
                self.line(2, format!("{word} none;"));
                continue;
            };
            self.line(2, format!("{word} filter {{"));
            if !first.is_empty() {
                self.line(3, first);
            }
            for filter in filters {
                for statement in statements(filter, v4, way, session.is_internal()) {
                    self.line(3, statement);
                }
            }
            // What others announced is passed on as a longer way: theirs, where there is one, goes before it.
            if way == Way::Export && !session.is_internal() {
                self.line(3, format!("if source = RTS_BGP then bgp_path.prepend({});", session.local_as));
            }
            self.line(3, last);
            self.line(2, "};");
        }
        self.line(1, "};");
    }
}
