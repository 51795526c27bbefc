//! Programs that lead packets between an interface and a tap, attached by tcx: each goes with its link, at our end at
//! the latest.

use super::program::{ProgramError, chain, loader};
use aya::Ebpf;
use aya::maps::{Array, Map, MapError};
use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifier, TcAttachOptions, TcAttachType};
use aya::programs::{LinkOrder, ProgramError as AyaError};

/// An interface by its name and the kernel's number for it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number.
    pub index: u32,
}

/// The programs of one object, loaded.
pub(super) struct Leading<'a> {
    /// For whose sake: errors name it.
    interface: &'a str,
    loaded: Ebpf,
}

impl<'a> Leading<'a> {
    /// Loads `object`, whose one global, `ends`, becomes these numbers.
    pub fn load<const N: usize>(
        object: &[u8],
        interface: &'a str,
        ends: [u32; N],
    ) -> Result<Self, ProgramError> {
        let load = |reason: String| refusal(interface, reason);
        let mut loaded = loader().load(object).map_err(|e| load(chain(&e)))?;
        // It stays among the others: programs that are loaded later name it by its file.
        let globals = loaded.map_mut(".bss").ok_or_else(|| load("no globals".into()))?;
        let mut globals: Array<_, [u32; N]> = globals.try_into().map_err(|e: MapError| load(chain(&e)))?;
        globals.set(0, ends, 0).map_err(|e| load(chain(&e)))?;
        Ok(Self { interface, loaded })
    }

    /// One of the object's maps, to be kept until the programs are attached.
    pub fn map<M>(&mut self, name: &str) -> Result<M, ProgramError>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        let map =
            self.loaded.take_map(name).ok_or_else(|| refusal(self.interface, format!("no map {name}")))?;
        map.try_into().map_err(|e: MapError| refusal(self.interface, chain(&e)))
    }

    /// Has program `name` see what passes `to`; `refused` says, of the interface and why, that the kernel will not.
    pub fn attach(
        &mut self,
        name: &str,
        to: &str,
        direction: TcAttachType,
        refused: impl FnOnce(String, String, String) -> ProgramError,
    ) -> Result<FdLink, ProgramError> {
        let load = |reason: String| refusal(self.interface, reason);
        let program: &mut SchedClassifier = self
            .loaded
            .program_mut(name)
            .ok_or_else(|| load(format!("no program {name}")))?
            .try_into()
            .map_err(|e: AyaError| load(chain(&e)))?;
        program.load().map_err(|e| load(chain(&e)))?;
        // Never by netlink: such a filter would outlive us, and lead to a tap that is gone.
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let link = program.attach_with_options(to, direction, order);
        let link = link
            .and_then(|id| program.take_link(id))
            .map_err(|e| refused(self.interface.to_owned(), to.to_owned(), chain(&e)))?;
        FdLink::try_from(link).map_err(|_| ProgramError::NoLink { interface: to.to_owned() })
    }
}

fn refusal(interface: &str, reason: String) -> ProgramError {
    ProgramError::Load { interface: interface.to_owned(), reason }
}
