//! The programs that lead a workload's packets by way of a tap (`lead.bpf.c`).

use super::ifreq::Interface;
use super::program::ProgramError;
use super::tcx::{Leading, Named};
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachType;

/// The way of a workload's packets between its link and a tap, until it is dropped or the process ends. Then what the
/// workload sends reaches the host's stack, which forwards none of it.
pub struct Lead {
    _links: [FdLink; 2],
}

impl Lead {
    /// Leads what comes in by `link` to `tap`, and what is written to `tap` to the other end of `link`.
    pub fn attach(link: Named<'_>, tap: Named<'_>) -> Result<Self, ProgramError> {
        let is_veth = Interface::named(link.name).is_ok_and(|link| link.driver() == "veth");
        let mut leading = Leading::load(OBJECT, link.name, [link.index, tap.index, is_veth.into()])?;
        let mut attach = |name, to| {
            leading.attach(name, to, TcAttachType::Ingress, |interface, at, reason| ProgramError::Lead {
                interface,
                at,
                reason,
            })
        };
        // Outwards first: nothing is led to the tap before what comes from it has a way.
        Ok(Self { _links: [attach("to_workload", tap.name)?, attach("from_workload", link.name)?] })
    }
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lead.bpf.o"));
