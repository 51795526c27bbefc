//! The programs that lead a workload's packets by way of a tap (`lead.bpf.c`).

use super::guard::Named;
use super::ifreq::Interface;
use super::program::{ProgramError, chain};
use aya::EbpfLoader;
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramError as AyaError};

/// The way of a workload's packets between its link and a tap, until it is dropped or the process ends. Then what the
/// workload sends reaches the host's stack, which forwards none of it.
pub struct Lead {
    _links: [FdLink; 2],
}

impl Lead {
    /// Leads what comes in by `link` to `tap`, and what is written to `tap` to the other end of `link`.
    pub fn attach(link: Named<'_>, tap: Named<'_>) -> Result<Self, ProgramError> {
        let interface = link.name.to_owned();
        let load = |reason: String| ProgramError::Load { interface: interface.clone(), reason };
        let is_veth = Interface::named(link.name).is_ok_and(|link| link.driver() == "veth");
        let mut loaded = EbpfLoader::new()
            .override_global("link_index", &link.index, true)
            .override_global("tap_index", &tap.index, true)
            .override_global("is_veth", &u8::from(is_veth), true)
            .load(OBJECT)
            .map_err(|e| load(chain(&e)))?;
        let mut attach = |name: &str, to: &str| {
            let program: &mut SchedClassifier = loaded
                .program_mut(name)
                .ok_or_else(|| load(format!("no program {name}")))?
                .try_into()
                .map_err(|e: AyaError| load(chain(&e)))?;
            program.load().map_err(|e| load(chain(&e)))?;
            // Never by netlink: such a filter would outlive us, and lead to a tap that is gone.
            let order = TcAttachOptions::TcxOrder(LinkOrder::default());
            let made = program.attach_with_options(to, TcAttachType::Ingress, order);
            let made = made.and_then(|id| program.take_link(id)).map_err(|e| ProgramError::Lead {
                interface: interface.clone(),
                at: to.to_owned(),
                reason: chain(&e),
            })?;
            FdLink::try_from(made).map_err(|_| ProgramError::NoLink { interface: to.to_owned() })
        };
        // Outwards first: nothing is led to the tap before what comes from it has a way.
        Ok(Self { _links: [attach("to_workload", tap.name)?, attach("from_workload", link.name)?] })
    }
}

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lead.bpf.o"));
