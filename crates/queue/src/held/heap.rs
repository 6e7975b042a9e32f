//! A heap of slots by their moment, from whose middle a slot can be taken: each slot knows its place.

/// No place in any heap.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Four children for each node: half the depth of a binary heap, and siblings share a cache line.
const WIDTH: usize = 4;

/// What the heap must know of its members.
pub(super) trait Nodes {
    /// What a member is ordered by; no two are equal.
    fn key(&self, id: u32) -> (u64, u64);
    /// Notes that a member now stands at `place`.
    fn placed(&mut self, id: u32, place: u32);
}

#[derive(Debug, Default)]
pub(super) struct Heap {
    ids: Vec<u32>,
}

impl Heap {
    pub(super) fn first(&self) -> Option<u32> {
        self.ids.first().copied()
    }

    /// At most `max` members that are `due`, where all before a due one are due too.
    pub(super) fn up_to(&self, max: usize, due: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::new();
        let mut places = vec![0];
        while let Some(place) = places.pop() {
            let Some(id) = self.ids.get(place).copied().filter(|id| due(*id)) else { continue };
            if found.len() == max {
                break;
            }
            found.push(id);
            places.extend((place * WIDTH + 1..=place * WIDTH + WIDTH).rev());
        }
        found
    }

    pub(super) fn push(&mut self, id: u32, nodes: &mut impl Nodes) {
        self.ids.push(id);
        self.rise(self.ids.len() - 1, nodes);
    }

    /// Takes out the member at `place`; nothing if there is none.
    pub(super) fn remove(&mut self, place: u32, nodes: &mut impl Nodes) {
        let place = place as usize;
        if place >= self.ids.len() {
            return;
        }
        self.ids.swap_remove(place);
        if place < self.ids.len() {
            self.sink(place, nodes);
            self.rise(place, nodes);
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a place is below the length, a parent below its child"
    )]
    fn rise(&mut self, mut place: usize, nodes: &mut impl Nodes) {
        let id = self.ids[place];
        let key = nodes.key(id);
        while place > 0 {
            let parent = (place - 1) / WIDTH;
            if nodes.key(self.ids[parent]) <= key {
                break;
            }
            self.put(place, self.ids[parent], nodes);
            place = parent;
        }
        self.put(place, id, nodes);
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "a place is below the length, and so are the children taken"
    )]
    fn sink(&mut self, mut place: usize, nodes: &mut impl Nodes) {
        let id = self.ids[place];
        let key = nodes.key(id);
        loop {
            let first = place * WIDTH + 1;
            let children = first.min(self.ids.len())..(first + WIDTH).min(self.ids.len());
            let Some(least) = children.min_by_key(|child| nodes.key(self.ids[*child])) else {
                break;
            };
            if key <= nodes.key(self.ids[least]) {
                break;
            }
            self.put(place, self.ids[least], nodes);
            place = least;
        }
        self.put(place, id, nodes);
    }

    #[expect(clippy::indexing_slicing, reason = "callers have checked the place")]
    fn put(&mut self, place: usize, id: u32, nodes: &mut impl Nodes) {
        self.ids[place] = id;
        nodes.placed(id, u32::try_from(place).unwrap_or(NOWHERE));
    }
}
