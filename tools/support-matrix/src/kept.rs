//! What was read or made and may be asked for again, kept as long as all of it together is not too much.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, rc::Rc};

/// Values, each with a size; all together at most so large.
pub(crate) struct Kept<K, V> {
    most: usize,
    size: usize,
    all: HashMap<K, Rc<V>>,
}

impl<K: Eq + Hash, V> Kept<K, V> {
    /// Nothing yet; later at most `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, size: 0, all: HashMap::new() }
    }

    /// What is kept of that name.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Rc<V>>
    where
        K: Borrow<Q>,
    {
        self.all.get(key).cloned()
    }

    /// Keeps a value of that size. Everything else is forgotten first if that would be too much.
    pub(crate) fn keep(&mut self, key: K, size: usize, value: V) -> Rc<V> {
        if self.size + size > self.most {
            self.all.clear();
            self.size = 0;
        }
        let value = Rc::new(value);
        self.size += size;
        self.all.insert(key, Rc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_things_leave_room_for_fewer() {
        let mut kept = Kept::new(10);
        for number in 0..10 {
            kept.keep(number, 1, ());
        }
        assert!((0..10).all(|number| kept.get(&number).is_some()));
        kept.keep(10, 9, ());
        assert!(kept.get(&0).is_none() && kept.get(&10).is_some());
        // What is larger than all of it is kept alone, for as long as nobody asks for something else.
        kept.keep(11, 100, ());
        assert!(kept.get(&11).is_some() && kept.get(&10).is_none());
        kept.keep(12, 1, ());
        assert!(kept.get(&11).is_none() && kept.get(&12).is_some());
    }
}
