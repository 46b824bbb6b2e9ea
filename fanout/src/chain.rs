//! Lines of numbers that can be left from anywhere in one step.

/// The end of a line. A shard holds fewer than 2^32 of anything.
const NONE: u32 = u32::MAX;

/// The neighbours of each number. A number stands in one chain of its links at most.
///
/// Memory: 8 bytes for each number up to the largest that ever stood in a chain.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
}

/// A line of numbers, first in front. Cost: O(1) for everything.
#[derive(Debug)]
pub(crate) struct Chain {
    first: u32,
    last: u32,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

impl Chain {
    pub(crate) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Adds a number that stands in no chain of these links.
    pub(crate) fn push_back(&mut self, links: &mut Links, number: u32) {
        let place = number as usize;
        let link = Link {
            before: self.last,
            after: NONE,
        };
        if links.0.len() <= place {
            links.0.resize(place + 1, link);
        }
        links.0[place] = link;
        match links.0.get_mut(self.last as usize) {
            Some(last) if self.last != NONE => last.after = number,
            Some(_) | None => self.first = number,
        }
        self.last = number;
    }

    /// Adds a number that stands in no chain of these links, before all others.
    pub(crate) fn push_front(&mut self, links: &mut Links, number: u32) {
        let first = self.first;
        self.push_back(links, number);
        if first != NONE {
            self.remove(links, number);
            links.0[number as usize] = Link {
                before: NONE,
                after: first,
            };
            links.0[first as usize].before = number;
            self.first = number;
        }
    }

    /// Takes out a number that stands in this chain.
    pub(crate) fn remove(&mut self, links: &mut Links, number: u32) {
        let Link { before, after } = links.0[number as usize];
        if before == NONE {
            debug_assert_eq!(self.first, number, "it stands in this chain");
            self.first = after;
        } else {
            links.0[before as usize].after = after;
        }
        if after == NONE {
            debug_assert_eq!(self.last, number, "it stands in this chain");
            self.last = before;
        } else {
            links.0[after as usize].before = before;
        }
    }

    pub(crate) fn pop_front(&mut self, links: &mut Links) -> Option<u32> {
        let first = self.first()?;
        self.remove(links, first);
        Some(first)
    }

    /// The first becomes the last.
    pub(crate) fn rotate(&mut self, links: &mut Links) {
        if self.first != self.last
            && let Some(first) = self.pop_front(links)
        {
            self.push_back(links, first);
        }
    }

    #[cfg(test)]
    pub(crate) fn iter<'a>(&self, links: &'a Links) -> impl Iterator<Item = u32> + 'a {
        let known = |number: u32| (number != NONE).then_some(number);
        std::iter::successors(known(self.first), move |number| {
            known(links.0[*number as usize].after)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The peer is a `VecDeque` for each of two chains over the same links.
        #[test]
        fn chains_hold_what_plain_queues_hold(
            ops in prop::collection::vec((0..6u8, 0..2usize, 0..12u32), 0..200),
        ) {
            let mut links = Links::default();
            let mut chains = [Chain::default(), Chain::default()];
            let mut peers = [VecDeque::new(), VecDeque::new()];
            for (op, which, number) in ops {
                let is_free = !peers.iter().any(|peer| peer.contains(&number));
                let (chain, peer) = (&mut chains[which], &mut peers[which]);
                match op {
                    0 | 1 if is_free => {
                        chain.push_back(&mut links, number);
                        peer.push_back(number);
                    }
                    5 if is_free => {
                        chain.push_front(&mut links, number);
                        peer.push_front(number);
                    }
                    2 => prop_assert_eq!(chain.pop_front(&mut links), peer.pop_front()),
                    3 => {
                        chain.rotate(&mut links);
                        let first = peer.pop_front();
                        peer.extend(first);
                    }
                    _ => if let Some(place) = peer.iter().position(|held| *held == number) {
                        chain.remove(&mut links, number);
                        peer.remove(place);
                    }
                }
                for (chain, peer) in chains.iter().zip(&peers) {
                    let held: VecDeque<u32> = chain.iter(&links).collect();
                    prop_assert_eq!(&held, peer);
                    prop_assert_eq!(chain.first(), peer.front().copied());
                    prop_assert_eq!(chain.is_empty(), peer.is_empty());
                }
            }
        }
    }
}
