//! Which bits to pick for a node, so that few pieces are left behind each combination.
//!
//! Greedy, on a sample: of all bits, the one that makes the sum of the squares of what is left
//! smallest is picked, then the next, while what a packet meets on average gets fewer by enough, and the copies of
//! pieces that do not say the bit can be paid.

use super::point::{Cube, Layout, WORDS};
use super::simd::{Cpu, Kernel};

/// Pieces looked at to choose the bits of a large list.
const SAMPLE: usize = 4096;
/// Bits of one node, at most.
const MAX_BITS: u32 = 17;
/// Branches of one node for each piece, at most, rounded up to a power of two: empty ones end walks early.
const WIDE: usize = 4;
/// So small a part of the tree's pieces may be copied many times.
const FEW: usize = 16;
/// Pieces that need no further parting.
const ENOUGH: usize = 4;

/// The bits of two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Picked {
    pub(super) words: [u8; 2],
    pub(super) masks: [u64; 2],
}

impl Picked {
    fn bits(&self) -> u32 {
        self.masks[0].count_ones() + self.masks[1].count_ones()
    }

    /// Where a piece goes: a number, and the bits of it that the piece does not say.
    #[inline]
    fn branches(&self, cpu: Cpu, cube: &Cube) -> (usize, usize) {
        let gather = |words: &[u64; WORDS], masks: [u64; 2]| {
            let [low, high] = [0, 1].map(|at| cpu.extract(words[usize::from(self.words[at])], masks[at]));
            (low | high << masks[0].count_ones()) as usize
        };
        let free = gather(&cube.mask.map(|mask| !mask), self.masks);
        (gather(&cube.value, self.masks) & !free, free)
    }

    /// Deals the pieces to the branches: where each branch's begin, and one more; and the pieces.
    pub(super) fn deal(&self, cubes: &[Cube], list: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let cpu = Cpu::detect();
        let to: Vec<(usize, usize)> =
            list.iter().map(|piece| self.branches(cpu, &cubes[*piece as usize])).collect();
        let mut starts = vec![0u32; (1 << self.bits()) + 1];
        to.iter().for_each(|(base, free)| subsets(*free, |more| starts[(base | more) + 1] += 1));
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut copies = vec![0; starts[starts.len() - 1] as usize];
        for (piece, (base, free)) in list.iter().zip(&to) {
            subsets(*free, |more| {
                let at = &mut next[base | more];
                copies[*at as usize] = *piece;
                *at += 1;
            });
        }
        (starts, copies)
    }
}

/// Every number whose bits are among those of `free`.
#[inline]
pub(super) fn subsets(free: usize, mut each: impl FnMut(usize)) {
    let mut more = 0usize;
    loop {
        each(more);
        more = more.wrapping_sub(free) & free;
        if more == 0 {
            break;
        }
    }
}

/// Bits that part `list`, or `None` where none do.
pub(super) fn pick(cubes: &[Cube], layout: Layout, list: &[u32], budget: usize) -> Option<Picked> {
    let mut greedy = Greedy::new(cubes, layout, list, budget);
    while greedy.step() {}
    let mut picked = greedy.picked();
    // The sample may have promised more than holds of all.
    if greedy.step > 1 {
        while picked.bits() > 0 && copies(cubes, list, &picked) > greedy.limit {
            greedy.chosen.pop();
            picked = greedy.picked();
        }
    }
    (picked.bits() > 0).then_some(picked)
}

fn copies(cubes: &[Cube], list: &[u32], picked: &Picked) -> usize {
    let cpu = Cpu::detect();
    let each = |piece: &u32| 1usize << picked.branches(cpu, &cubes[*piece as usize]).1.count_ones();
    list.iter().map(each).sum()
}

/// A bit of a word.
#[derive(Clone, Copy)]
struct Bit {
    word: usize,
    mask: u64,
}

struct Greedy {
    /// Copies of sampled cubes, those of one branch together.
    dealt: Vec<u32>,
    sample: Vec<Cube>,
    /// Where in `dealt` the branches that are still too large begin and end.
    large: Vec<(u32, u32)>,
    /// Pieces in branches that are small enough, with copies.
    settled: usize,
    candidates: Vec<Bit>,
    chosen: Vec<Bit>,
    max_bits: u32,
    /// Of sampled pieces with copies.
    sample_limit: usize,
    /// Of all pieces with copies.
    limit: usize,
    step: usize,
}

impl Greedy {
    fn new(cubes: &[Cube], layout: Layout, list: &[u32], budget: usize) -> Self {
        let step = list.len().div_ceil(SAMPLE);
        let sample: Vec<Cube> = list.iter().step_by(step).map(|piece| cubes[*piece as usize]).collect();
        let n = list.len();
        // What few pieces are copied to is little beside the whole tree.
        let few = n * FEW < cubes.len();
        let limit = (if few { 16 * n } else { n * 5 / 2 } + 8).min(n + budget);
        let mut candidates = Vec::new();
        for word in layout.words().iter().copied() {
            let (mut zeros, mut ones) = (0, 0);
            for cube in &sample {
                zeros |= cube.mask[word] & !cube.value[word];
                ones |= cube.value[word];
            }
            let mut both = zeros & ones;
            while both != 0 {
                candidates.push(Bit { word, mask: both & both.wrapping_neg() });
                both &= both - 1;
            }
        }
        let dealt: Vec<u32> = (0..sample.len() as u32).collect();
        let max_bits = (usize::BITS - (WIDE * n - 1).leading_zeros()).min(MAX_BITS);
        let sample_limit = limit.div_ceil(step);
        let large = vec![(0, dealt.len() as u32)];
        Self {
            dealt,
            sample,
            large,
            settled: 0,
            candidates,
            chosen: vec![],
            max_bits,
            sample_limit,
            limit,
            step,
        }
    }

    fn picked(&self) -> Picked {
        let mut picked = Picked { words: [0, 0], masks: [0, 0] };
        let mut words: Vec<usize> = self.chosen.iter().map(|bit| bit.word).collect();
        words.sort_unstable();
        words.dedup();
        for (at, word) in words.iter().enumerate() {
            picked.words[at] = *word as u8;
            picked.masks[at] =
                self.chosen.iter().filter(|bit| bit.word == *word).fold(0, |mask, bit| mask | bit.mask);
        }
        picked
    }

    /// Picks one more bit; false where that is not worth while.
    fn step(&mut self) -> bool {
        if self.chosen.len() as u32 >= self.max_bits || self.large.is_empty() {
            return false;
        }
        let now: usize = self.large.iter().map(|(first, end)| ((end - first) as usize).pow(2)).sum();
        let open: usize = self.large.iter().map(|(first, end)| (end - first) as usize).sum();
        let total = self.settled + open;
        let mut words: Vec<usize> = self.chosen.iter().map(|bit| bit.word).collect();
        words.sort_unstable();
        words.dedup();
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, bit) in self.candidates.iter().enumerate() {
            if words.len() == 2 && !words.contains(&bit.word) {
                continue;
            }
            let (mut cost, mut copied) = (0, 0);
            for (first, end) in &self.large {
                let (mut ones, mut free) = (0usize, 0usize);
                for cube in &self.dealt[*first as usize..*end as usize] {
                    let cube = &self.sample[*cube as usize];
                    free += usize::from(cube.mask[bit.word] & bit.mask == 0);
                    ones += usize::from(cube.value[bit.word] & bit.mask != 0);
                }
                let zeros = (end - first) as usize - ones - free;
                cost += (zeros + free).pow(2) + (ones + free).pow(2);
                copied += free;
            }
            if total + copied <= self.sample_limit && best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, copied, index));
            }
        }
        match best {
            // The squares' sum by the pieces' is how many a packet meets that some piece was made for.
            Some((cost, copied, index)) if cost * 100 * open < now * 93 * (open + copied) => self.take(index),
            _ => return false,
        }
        true
    }

    fn take(&mut self, index: usize) {
        let bit = self.candidates.swap_remove(index);
        self.chosen.push(bit);
        let mut dealt = Vec::with_capacity(self.dealt.len() * 5 / 4);
        let mut large = Vec::with_capacity(self.large.len() * 2);
        let enough = ENOUGH.div_ceil(self.step);
        for (first, end) in &self.large {
            let old = &self.dealt[*first as usize..*end as usize];
            for one in [false, true] {
                let begin = dealt.len();
                dealt.extend(old.iter().copied().filter(|cube| {
                    let cube = &self.sample[*cube as usize];
                    cube.mask[bit.word] & bit.mask == 0 || (cube.value[bit.word] & bit.mask != 0) == one
                }));
                if dealt.len() - begin > enough {
                    large.push((begin as u32, dealt.len() as u32));
                } else {
                    self.settled += dealt.len() - begin;
                    dealt.truncate(begin);
                }
            }
        }
        (self.dealt, self.large) = (dealt, large);
    }
}
