//! Which rate is the highest with no more than so much loss (RFC 2544, section 26.1): several loss ratios in one
//! search and votes of several trials, as MLRsearch has it (draft-ietf-bmwg-mlrsearch), with trials of one length.
//!
//! One trial proves little on a machine with other work to do. A rate counts as good for a goal once so
//! many of its trials were that the rest could not outvote them, and as bad the other way round. What is
//! found is the highest good rate below the lowest bad one.

use super::trial::Outcome;
use std::collections::BTreeMap;

/// What loss is allowed.
pub struct Goal {
    /// Of the packets sent.
    pub loss: f64,
    /// Trials at a rate.
    pub trials: u32,
    /// Done when both bounds are so near, of the upper one.
    pub width: f64,
}

/// A search. It tells what to try, and is told what came of it.
pub struct Search {
    most: u64,
    goals: Vec<Goal>,
    /// Losses, by rate.
    tried: BTreeMap<u64, Vec<f64>>,
}

/// What trials say of a rate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Good,
    Bad,
    Nothing,
}

impl Search {
    /// Up to `most` packets a second. Goals are sought one after the other, those with more loss first.
    pub const fn new(most: u64, goals: Vec<Goal>) -> Self {
        Self { most, goals, tried: BTreeMap::new() }
    }

    /// The rate of the next trial; `None`: all is found that can be.
    pub fn next(&self) -> Option<u64> {
        self.goals.iter().find_map(|goal| self.next_for(goal))
    }

    /// What came of a trial.
    pub fn note(&mut self, load: u64, outcome: &Outcome) {
        self.note_loss(load, outcome.loss());
    }

    /// The highest rate for the goal of this number; `None`: no rate was low enough.
    pub fn found(&self, goal: usize) -> Option<u64> {
        self.bounds(&self.goals[goal]).0
    }

    fn note_loss(&mut self, load: u64, loss: f64) {
        self.tried.entry(load).or_default().push(loss);
    }

    fn next_for(&self, goal: &Goal) -> Option<u64> {
        // Whatever was begun is finished first.
        let begun =
            |(load, losses): (&u64, &Vec<f64>)| (says(goal, losses) == Says::Nothing).then_some(*load);
        if let Some(load) = self.tried.iter().rev().find_map(begun) {
            return Some(load);
        }
        match self.bounds(goal) {
            (_, None) => (!self.tried.contains_key(&self.most)).then_some(self.most),
            (None, Some(bad)) => self.below(bad),
            (Some(good), Some(bad)) => {
                let near = bad - good <= 1 || (bad - good) as f64 <= goal.width * bad as f64;
                (!near).then_some(good + (bad - good) / 2)
            }
        }
    }

    /// Where to look when nothing was good yet: first at what came through at the most, then at ever
    /// larger steps down.
    fn below(&self, bad: u64) -> Option<u64> {
        let through = self.tried.get(&self.most).and_then(|losses| losses.iter().copied().reduce(f64::min));
        let through = (self.most as f64 * (1.0 - through.unwrap_or(1.0))) as u64;
        let next = if through > 0 && through < bad { through } else { bad - bad.div_ceil(8) };
        // A rate of a thousandth is none.
        (next > self.most / 1000).then_some(next)
    }

    /// The highest good rate below the lowest bad one, and that one.
    fn bounds(&self, goal: &Goal) -> (Option<u64>, Option<u64>) {
        let bad =
            self.tried.iter().find(|(_, losses)| says(goal, losses) == Says::Bad).map(|(load, _)| *load);
        let below = self.tried.range(..bad.unwrap_or(u64::MAX));
        let good = below.rev().find(|(_, losses)| says(goal, losses) == Says::Good).map(|(load, _)| *load);
        (good, bad)
    }
}

fn says(goal: &Goal, losses: &[f64]) -> Says {
    let bad = losses.iter().filter(|loss| **loss > goal.loss).count() as u32;
    let good = losses.len() as u32 - bad;
    if 2 * bad > goal.trials {
        Says::Bad
    } else if 2 * good >= goal.trials {
        Says::Good
    } else {
        Says::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn goals() -> Vec<Goal> {
        [0.005, 0.0].map(|loss| Goal { loss, trials: 3, width: 0.01 }).into()
    }

    /// Runs a search against a device that carries `capacity` and loses the rest; how many trials it took.
    fn run(most: u64, mut loss: impl FnMut(u64) -> f64) -> (Search, u32) {
        let mut search = Search::new(most, goals());
        let mut trials = 0;
        while let Some(load) = search.next() {
            search.note_loss(load, loss(load));
            trials += 1;
            assert!(trials < 200, "the search does not end");
        }
        (search, trials)
    }

    #[test]
    fn a_sharp_edge_is_found_within_the_width_of_either_goal() {
        for capacity in [2_000, 31_337, 500_000, 999_999] {
            let over = |load: u64| 1.0 - capacity as f64 / (load as f64).max(capacity as f64);
            let (search, trials) = run(1_000_000, over);
            let (pdr, ndr) = (search.found(0).unwrap(), search.found(1).unwrap());
            assert!(ndr <= capacity && ndr as f64 >= 0.985 * capacity as f64, "{ndr} of {capacity}");
            let most = capacity as f64 / 0.995;
            assert!(pdr as f64 <= most && pdr as f64 >= 0.985 * most, "{pdr} of {most}");
            assert!(ndr <= pdr);
            assert!(trials < 80, "{trials}");
        }
    }

    #[test]
    fn what_loses_nothing_is_good_for_the_most() {
        let (search, trials) = run(1_000_000, |_| 0.0);
        assert_eq!((search.found(0), search.found(1)), (Some(1_000_000), Some(1_000_000)));
        assert_eq!(trials, 2);
    }

    #[test]
    fn what_always_loses_has_no_rate() {
        let (search, _) = run(1_000_000, |_| 1.0);
        assert_eq!((search.found(0), search.found(1)), (None, None));
        let (search, _) = run(1_000_000, |_| 0.001);
        assert!(search.found(0).is_some());
        assert_eq!(search.found(1), None);
    }

    #[test]
    fn one_trial_in_ten_that_goes_wrong_does_not_lead_it_astray() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let (search, _) = run(1_000_000, |load| {
                let noise = if random.chance(10) { 0.02 } else { 0.0 };
                (1.0 - 400_000.0 / (load as f64).max(400_000.0)).max(noise)
            });
            let ndr = search.found(1).unwrap();
            assert!((200_000..=400_000).contains(&ndr), "{ndr} by seed {seed}");
        }
    }
}
