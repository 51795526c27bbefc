//! Which flows somebody asks about.

use crate::model::{Cidr, Protocol};
use margay_api::{
    control::v1::{FlowFilter, FlowParty, ObservedFlow},
    dataplane::v1::{Direction, FlowRecord},
};
use std::net::IpAddr;

/// A filter that was read.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    verdict: Option<String>,
    from: Option<End>,
    to: Option<End>,
    policy: Option<String>,
    reason: Option<String>,
    protocol: Option<Protocol>,
    port: Option<u16>,
}

/// Who is at an end of a flow.
#[derive(Clone, Debug)]
enum End {
    Net(Cidr),
    /// All of it, where there is no name.
    Named(String, Option<String>),
    /// Of what has no namespace.
    Name(String),
}

impl Filter {
    /// Reads it.
    ///
    /// # Errors
    /// A sentence that names the field, the value and the remedy.
    pub fn read(filter: Option<&FlowFilter>) -> Result<Self, String> {
        let Some(filter) = filter else { return Ok(Self::default()) };
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        if !["", "allow", "deny", "drop"].contains(&filter.verdict.as_str()) {
            return Err(format!("verdict: {:?} is none: write allow, deny or drop", filter.verdict));
        }
        let protocol = match filter.protocol.as_str() {
            "" => None,
            protocol => Some(protocol.parse().map_err(|error| format!("protocol: {error}"))?),
        };
        let port = u16::try_from(filter.port)
            .map_err(|_| format!("port: {} is none: write a number from 1 to 65535", filter.port))?;
        Ok(Self {
            verdict: given(&filter.verdict),
            from: End::read("from", &filter.from)?,
            to: End::read("to", &filter.to)?,
            policy: given(&filter.policy),
            reason: given(&filter.reason),
            protocol,
            port: Some(port).filter(|port| *port != 0),
        })
    }

    /// The flow is such a one.
    pub fn matches(&self, flow: &ObservedFlow) -> bool {
        let Some(record) = &flow.record else { return false };
        let (source, destination) = addresses(record);
        self.verdict.as_ref().is_none_or(|verdict| *verdict == record.verdict)
            && self.reason.as_ref().is_none_or(|reason| *reason == record.reason)
            && self.protocol.is_none_or(|protocol| u32::from(protocol.number()) == record.protocol)
            && self.port.is_none_or(|port| ports(record).contains(&Some(port.into())))
            && self.from.as_ref().is_none_or(|end| end.is(source, flow.source.as_ref()))
            && self.to.as_ref().is_none_or(|end| end.is(destination, flow.destination.as_ref()))
            && self.policy.as_ref().is_none_or(|policy| decisions(record).any(|by| by_policy(by, policy)))
    }
}

impl End {
    fn read(field: &str, text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Some(Self::Net(Cidr::host(addr))));
        }
        if let Ok(net) = text.parse() {
            return Ok(Some(Self::Net(net)));
        }
        match text.split_once('/') {
            None => Ok(Some(Self::Name(text.to_owned()))),
            Some((namespace, name)) if !namespace.is_empty() && !name.contains('/') => {
                let name = (!name.is_empty()).then(|| name.to_owned());
                Ok(Some(Self::Named(namespace.to_owned(), name)))
            }
            Some(_) => Err(format!(
                "{field}: {text:?} is nobody: write NAMESPACE/NAME, NAMESPACE/, a name, an address or a prefix"
            )),
        }
    }

    fn is(&self, addr: Option<IpAddr>, party: Option<&FlowParty>) -> bool {
        match self {
            Self::Net(net) => addr.is_some_and(|addr| net.contains(addr)),
            Self::Named(namespace, name) => party.is_some_and(|party| {
                party.namespace == *namespace && name.as_ref().is_none_or(|name| *name == party.name)
            }),
            Self::Name(name) => party.is_some_and(|party| party.namespace.is_empty() && party.name == *name),
        }
    }
}

/// Who opens, and who is reached: after translation, where that is known.
pub fn addresses(record: &FlowRecord) -> (Option<IpAddr>, Option<IpAddr>) {
    let source = record.original.as_ref().and_then(|original| addr(&original.source));
    let reached = match &record.reply {
        Some(reply) => addr(&reply.source),
        None => record.original.as_ref().and_then(|original| addr(&original.destination)),
    };
    (source, reached)
}

/// To which it is opened, and which is reached.
fn ports(record: &FlowRecord) -> [Option<u32>; 2] {
    [
        record.original.as_ref().map(|original| original.destination_port),
        record.reply.as_ref().map(|reply| reply.source_port),
    ]
}

/// An address of 4 or 16 bytes.
pub fn addr(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// All that was decided, by staged policies too.
fn decisions(record: &FlowRecord) -> impl Iterator<Item = &Direction> {
    let host = record.host.iter().filter_map(|stage| stage.decision.as_ref());
    let all = record.egress.iter().chain(&record.ingress).chain(host);
    all.flat_map(|direction| std::iter::once(direction).chain(direction.staged.as_deref()))
}

fn by_policy(direction: &Direction, policy: &str) -> bool {
    direction.policy == policy || direction.policy.rsplit('/').next() == Some(policy)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{allowed, denied};
    use super::*;

    fn matches(set: impl FnOnce(&mut FlowFilter)) -> [bool; 2] {
        let mut filter = FlowFilter::default();
        set(&mut filter);
        let filter = Filter::read(Some(&filter)).unwrap();
        [filter.matches(&allowed()), filter.matches(&denied())]
    }

    #[test]
    fn each_term_is_asked_and_an_empty_one_is_not() {
        assert_eq!(matches(|_| {}), [true, true]);
        assert_eq!(matches(|f| f.verdict = "deny".into()), [false, true]);
        assert_eq!(matches(|f| f.reason = "policy-denied".into()), [false, true]);
        assert_eq!(matches(|f| f.from = "shop/web".into()), [true, true]);
        assert_eq!(matches(|f| f.from = "shop/".into()), [true, true]);
        assert_eq!(matches(|f| f.from = "shop/we".into()), [false, false]);
        assert_eq!(matches(|f| f.from = "10.65.0.0/24".into()), [true, true]);
        assert_eq!(matches(|f| f.to = "10.65.1.9".into()), [true, false]);
        assert_eq!(matches(|f| f.to = "world".into()), [false, true]);
        assert_eq!(matches(|f| f.policy = "shop/db".into()), [true, false]);
        assert_eq!(matches(|f| f.policy = "db".into()), [true, false]);
        assert_eq!(matches(|f| f.policy = "later".into()), [true, false], "a staged one");
        assert_eq!(matches(|f| f.policy = "d".into()), [false, false]);
        assert_eq!(matches(|f| f.protocol = "tcp".into()), [true, true]);
        assert_eq!(matches(|f| f.protocol = "17".into()), [false, false]);
        assert_eq!(matches(|f| f.port = 443), [false, true]);
        assert_eq!(matches(|f| f.port = 5432), [true, false], "of the service");
        assert_eq!(matches(|f| f.port = 5433), [true, false], "of its backend");
        assert_eq!(matches(|f| f.port = 4000), [false, false], "the opener's own is no way to find a flow");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for (verdict, from) in [("maybe", ""), ("", "/x"), ("", "a/b/c"), ("", "10.0.0.0/99")] {
            let filter = FlowFilter { verdict: verdict.into(), from: from.into(), ..Default::default() };
            let read = Filter::read(Some(&filter));
            assert_eq!(read.is_err(), from != "10.0.0.0/99", "{verdict} {from}");
        }
        let read = |filter: FlowFilter| Filter::read(Some(&filter)).unwrap_err();
        let protocol = read(FlowFilter { protocol: "tpc".into(), ..Default::default() });
        assert!(protocol.starts_with("protocol: \"tpc\" is not a protocol"), "{protocol}");
        let port = read(FlowFilter { port: 65_536, ..Default::default() });
        assert_eq!(port, "port: 65536 is none: write a number from 1 to 65535");
    }
}
