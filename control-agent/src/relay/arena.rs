//! Things by small numbers, which are given again when their things are gone.

/// Things, each under a number that stays its own as long as it is there.
pub(super) struct Arena<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    pub fn put(&mut self, thing: T) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.places[at as usize] = Some(thing);
                at
            }
            None => {
                let at = u32::try_from(self.places.len()).expect("objects are counted in millions");
                self.places.push(Some(thing));
                at
            }
        }
    }

    pub fn take(&mut self, at: u32) -> Option<T> {
        let thing = self.places.get_mut(at as usize)?.take();
        if thing.is_some() {
            self.free.push(at);
        }
        thing
    }

    pub fn get(&self, at: u32) -> Option<&T> {
        self.places.get(at as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.places.get_mut(at as usize)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(at, place)| Some((at, place.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..).zip(&mut self.places).filter_map(|(at, place)| Some((at, place.as_mut()?)))
    }

    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

/// A set of such numbers.
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    pub fn has(&self, at: u32) -> bool {
        self.words.get(at as usize / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub fn set(&mut self, at: u32, to: bool) {
        let word = at as usize / 64;
        if self.has(at) == to {
            return;
        }
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] ^= 1 << (at % 64);
        self.count = if to { self.count + 1 } else { self.count - 1 };
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let word = |(at, word): (u32, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        (0..).zip(&self.words).flat_map(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_again_once_its_thing_is_gone() {
        let mut arena = Arena::default();
        let (a, b) = (arena.put("a"), arena.put("b"));
        assert_eq!((arena.take(a), arena.take(a), arena.len()), (Some("a"), None, 1));
        assert_eq!(arena.put("c"), a);
        assert_eq!(arena.iter().collect::<Vec<_>>(), [(a, &"c"), (b, &"b")]);
    }

    #[test]
    fn bits_are_set_and_counted_once() {
        let mut bits = Bits::default();
        for at in [3, 64, 3, 200] {
            bits.set(at, true);
        }
        bits.set(64, false);
        bits.set(1000, false);
        assert_eq!((bits.iter().collect::<Vec<_>>(), bits.len()), (vec![3, 200], 2));
        assert!(bits.has(200) && !bits.has(64) && !bits.has(10_000));
    }
}
