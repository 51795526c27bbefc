//! Flows that a change of services leaves without their end.

use super::assemble::with_node_port;
use super::{Definition, Frontend, any_address};
use crate::net::{Addr, FlowKey, Proto};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Socket = (Addr, u16);

/// The flows, as what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// By a backend that is gone, and where those that went to it had meant to go.
    gone: Vec<(Socket, Arc<[Frontend]>)>,
    /// Addresses that are services' now: flows to them that are not translated go nowhere.
    fresh: Vec<Frontend>,
}

impl Stale {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.fresh.is_empty()
    }

    /// Adds those that a service's change from `old` to `new` leaves: of protocols that `ends`
    /// names, the flows of backends that do not serve any more.
    pub fn note(&mut self, old: Option<&Definition>, new: Option<&Definition>, ends: impl Fn(Proto) -> bool) {
        let [before, after] = [old, new].map(|one| one.map_or_else(Served::new, served));
        for (port, (frontends, backends)) in before.iter().filter(|((proto, ..), _)| ends(*proto)) {
            let still = after.get(port).map(|(_, backends)| backends);
            let gone = backends.iter().filter(|backend| still.is_none_or(|still| !still.contains(backend)));
            self.gone.extend(gone.map(|backend| (*backend, frontends.clone())));
        }
        // Nothing tells those who send datagrams that a backend would answer now.
        for (port, (frontends, _)) in after.iter().filter(|((proto, ..), _)| *proto == Proto::UDP) {
            let known = before.get(port).map_or(&[][..], |(frontends, _)| frontends);
            let fresh = frontends.iter().filter(|frontend| !frontend.addr.is_unspecified());
            self.fresh.extend(fresh.filter(|frontend| !known.contains(frontend)));
        }
    }

    /// All that was noted, ready to be asked.
    pub fn settled(mut self) -> Self {
        self.gone.sort_unstable_by_key(|(backend, _)| *backend);
        self.fresh.sort_unstable();
        self
    }

    /// A flow is among those of a [`settled`](Self::settled) list, by its opener's key and the one
    /// that answers have.
    pub fn covers(&self, key: &FlowKey, reply_key: &FlowKey) -> bool {
        let here = Frontend { addr: key.dst, proto: key.proto, port: key.dport };
        let backend = (reply_key.src, reply_key.sport);
        if backend == (key.dst, key.dport) {
            return self.fresh.binary_search(&here).is_ok();
        }
        let first = self.gone.partition_point(|(gone, _)| *gone < backend);
        let its = self.gone[first..].iter().take_while(|(gone, _)| *gone == backend);
        let node = Frontend { addr: any_address(key.dst.is_v4()), ..here };
        its.into_iter().any(|(_, frontends)| frontends.iter().any(|to| *to == here || *to == node))
    }
}

type Served = BTreeMap<(Proto, Arc<str>, bool), (Arc<[Frontend]>, BTreeSet<Socket>)>;

/// Where each port is found, and who serves it, by its protocol, name and IP version.
fn served(definition: &Definition) -> Served {
    let addresses = definition.addresses();
    let mut served = Served::new();
    for (at, port) in definition.ports.iter().enumerate() {
        for v4 in [true, false] {
            let mut own = addresses.iter().filter(|(addr, _)| addr.is_v4() == v4).copied().collect();
            let Some(frontends) = with_node_port(&mut own, port, v4) else { continue };
            let frontend = |(addr, number, _)| Frontend { addr, proto: port.proto, port: number };
            let backends = definition.backends.iter().filter(|endpoint| endpoint.addr.is_v4() == v4);
            let backends = backends.filter(|endpoint| endpoint.ready || endpoint.serving);
            let backends = backends.filter_map(|endpoint| Some((endpoint.addr, endpoint.port(at)?)));
            served.insert(
                (port.proto, port.name.clone(), v4),
                (frontends.into_iter().map(frontend).collect(), backends.collect()),
            );
        }
    }
    served
}
