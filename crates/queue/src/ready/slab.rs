//! A table whose places are used again.

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// # Panics
    /// At 2^32 - 1 things.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return id;
        }
        let id = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        assert!(id != u32::MAX, "more than 2^32 groups in one queue");
        self.slots.push(Some(value));
        id
    }

    pub(super) fn find(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// # Panics
    /// If `id` is not in use: ids come from [`Slab::insert`] alone.
    #[inline]
    pub(super) fn get(&self, id: u32) -> &T {
        self.slots[id as usize].as_ref().expect("an id that is in use")
    }

    /// # Panics
    /// If `id` is not in use.
    #[inline]
    pub(super) fn get_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_mut().expect("an id that is in use")
    }

    /// # Panics
    /// If `id` is not in use.
    pub(super) fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        self.slots[id as usize].take().expect("an id that is in use")
    }

    /// No thing has this id or a larger one.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.slots).filter_map(|(id, slot)| slot.is_some().then_some(id))
    }
}
