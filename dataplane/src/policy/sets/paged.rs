//! A growing array in shared pages: a change of one item copies one page.

use std::sync::Arc;

/// Items in pages of `N`.
#[derive(Clone, Debug)]
pub(super) struct Paged<T, const N: usize> {
    pages: Vec<Arc<[T; N]>>,
}

impl<T, const N: usize> Default for Paged<T, N> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T, const N: usize> Paged<T, N> {
    /// The item, where it lies in a page.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at / N).map(|page| &page[at % N])
    }

    /// Every item, those never set as well.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}

impl<T: Clone + Default, const N: usize> Paged<T, N> {
    /// Sets an item; those before it that never were are made by default.
    pub(super) fn set(&mut self, at: usize, item: T) {
        while self.pages.len() <= at / N {
            self.pages.push(Arc::new(std::array::from_fn(|_| T::default())));
        }
        Arc::make_mut(&mut self.pages[at / N])[at % N] = item;
    }
}
