//! The programs that lead a protected uplink's own traffic of the host by way of a tap
//! (`guard.bpf.c`).

use super::program::{ProgramError, chain};
use super::tcx::{Leading, Named};
use crate::net::Addr;
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachType;
use std::collections::BTreeSet;

/// The way of the host's packets between the stack, a tap and an uplink, until it is dropped or the
/// process ends: then they take the direct way again.
pub struct Guard {
    interface: String,
    addresses: HashMap<MapData, [u8; 16], u8>,
    known: BTreeSet<Addr>,
    _links: [FdLink; 2],
}

impl Guard {
    /// Leads what the host sends by `uplink` to `tap`, and what is written to `tap` to the host as
    /// if `uplink` had received it.
    pub fn attach(uplink: Named<'_>, tap: Named<'_>) -> Result<Self, ProgramError> {
        let mut leading = Leading::load(OBJECT, uplink.name, [uplink.index, tap.index])?;
        let addresses = leading.map("addresses")?;
        let mut attach = |name, to, direction| {
            leading.attach(name, to, direction, |interface, at, reason| ProgramError::Guard {
                interface,
                at,
                reason,
            })
        };
        // Inwards first: nothing is led to the tap before what comes from it has a way.
        let links = [
            attach("to_host", tap.name, TcAttachType::Ingress)?,
            attach("from_host", uplink.name, TcAttachType::Egress)?,
        ];
        Ok(Self { interface: uplink.name.to_owned(), addresses, known: BTreeSet::new(), _links: links })
    }

    /// Makes `addresses` the host's: what it forwards under one of them counts as its own.
    pub fn set_addresses(&mut self, addresses: &[Addr]) -> Result<(), ProgramError> {
        let wanted: BTreeSet<Addr> = addresses.iter().copied().collect();
        for &addr in &wanted {
            if !self.known.contains(&addr) {
                self.addresses.insert(addr.octets(), 1, 0).map_err(|e| self.failed(addr, &e))?;
                self.known.insert(addr);
            }
        }
        let gone: Vec<Addr> = self.known.difference(&wanted).copied().collect();
        for addr in gone {
            self.addresses.remove(&addr.octets()).map_err(|e| self.failed(addr, &e))?;
            self.known.remove(&addr);
        }
        Ok(())
    }

    fn failed(&self, addr: Addr, error: &MapError) -> ProgramError {
        ProgramError::Prefix {
            interface: self.interface.clone(),
            prefix: crate::net::Prefix::host(addr),
            reason: chain(error),
        }
    }
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.bpf.o"));
