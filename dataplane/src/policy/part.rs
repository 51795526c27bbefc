//! Which pieces to keep in trees of their own, by what they say about addresses.
//!
//! A piece that says nothing of an address is copied by every bit of it that is picked; one that does say it
//! is parted by nothing else as well. So up to four kinds are kept apart. Each costs a visit, unless
//! what was found before undercuts it.

use super::lower::Dim;
use super::point::{Cube, Layout};

/// From this many pieces on they are parted.
const MANY: usize = 64;
/// Parts with fewer pieces are joined with those that say least.
const FEW: usize = 24;
/// Leading bits of an address that a piece must say to be narrow.
const NARROW: [u32; 2] = [10, 28];

/// `list` in parts, by lowest piece.
pub(super) fn parts(cubes: &[Cube], layout: Layout, list: &[u32]) -> Vec<Vec<u32>> {
    if list.len() < MANY {
        return vec![list.to_vec()];
    }
    let mut kinds: [Vec<u32>; 4] = Default::default();
    for piece in list {
        let narrow = |dim| usize::from(said(&cubes[*piece as usize], layout, dim) >= NARROW[layout as usize]);
        kinds[narrow(Dim::Src) * 2 + narrow(Dim::Dst)].push(*piece);
    }
    for kind in 1..4 {
        if kinds[kind].len() < FEW {
            let few = std::mem::take(&mut kinds[kind]);
            kinds[0] = merged(&kinds[0], &few);
        }
    }
    let mut parts: Vec<Vec<u32>> = kinds.into_iter().filter(|kind| !kind.is_empty()).collect();
    parts.sort_by_key(|part| part[0]);
    parts
}

/// Leading bits of the address that the cube says.
fn said(cube: &Cube, layout: Layout, dim: Dim) -> u32 {
    layout
        .places(dim)
        .iter()
        .map(|place| (cube.mask[place.word] >> place.shift << (64 - place.width)).count_ones())
        .sum()
}

/// Both, ascending.
fn merged(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut both: Vec<u32> = a.iter().chain(b).copied().collect();
    both.sort_unstable();
    both
}
