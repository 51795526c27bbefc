//! The programs that lead a protected uplink's own traffic of the host by way of a tap
//! (`guard.bpf.c`).

use super::program::{ProgramError, chain};
use crate::net::Addr;
use aya::EbpfLoader;
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramError as AyaError};
use std::collections::BTreeSet;

/// The way of the host's packets between the stack, a tap and an uplink, until it is dropped or the
/// process ends: then they take the direct way again.
pub struct Guard {
    interface: String,
    addresses: HashMap<MapData, [u8; 16], u8>,
    known: BTreeSet<Addr>,
    _links: [FdLink; 2],
}

/// An interface by its name and the kernel's number for it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub index: u32,
}

impl Guard {
    /// Leads what the host sends by `uplink` to `tap`, and what is written to `tap` to the host as
    /// if `uplink` had received it.
    pub fn attach(uplink: Named<'_>, tap: Named<'_>) -> Result<Self, ProgramError> {
        let interface = uplink.name.to_owned();
        let load = |reason: String| ProgramError::Load { interface: interface.clone(), reason };
        let mut loaded = EbpfLoader::new()
            .override_global("uplink_index", &uplink.index, true)
            .override_global("tap_index", &tap.index, true)
            .load(OBJECT)
            .map_err(|e| load(chain(&e)))?;
        let addresses = loaded.take_map("addresses").ok_or_else(|| load("no map addresses".into()))?;
        let addresses = addresses.try_into().map_err(|e: MapError| load(chain(&e)))?;
        let mut attach = |name: &str, to: &str, direction| {
            let program: &mut SchedClassifier = loaded
                .program_mut(name)
                .ok_or_else(|| load(format!("no program {name}")))?
                .try_into()
                .map_err(|e: AyaError| load(chain(&e)))?;
            program.load().map_err(|e| load(chain(&e)))?;
            // Never by netlink: such a filter would outlive us, and lead to a tap that is gone.
            let order = TcAttachOptions::TcxOrder(LinkOrder::default());
            let link = program.attach_with_options(to, direction, order);
            let link = link.and_then(|id| program.take_link(id)).map_err(|e| ProgramError::Guard {
                interface: interface.clone(),
                at: to.to_owned(),
                reason: chain(&e),
            })?;
            FdLink::try_from(link).map_err(|_| ProgramError::NoLink { interface: to.to_owned() })
        };
        // Inwards first: nothing is led to the tap before what comes from it has a way.
        let links = [
            attach("to_host", tap.name, TcAttachType::Ingress)?,
            attach("from_host", uplink.name, TcAttachType::Egress)?,
        ];
        Ok(Self { interface, addresses, known: BTreeSet::new(), _links: links })
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
