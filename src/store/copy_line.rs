//! Who copies a large value for an append: one at a time, in the order in which they came.
//!
//! ```text
//!  enter ──> │ first: copies │ second │ third …      a place is given up when it is dropped
//! ```
//!
//! Who copies keeps two values and makes a third one. If all did so who want to, they would hold the memory that they all
//! need, and of those who append to the same key all but one would copy in vain. Who waits keeps nothing but what it was
//! sent.
//!
//! Not here: the copying (`join`), what is sent (`command/join`), when it is looked who is first (`net`).

use crate::sync::lock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// See the module's head.
#[derive(Debug, Default)]
pub struct CopyLine {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    taken: BTreeSet<u64>,
    /// How many were ever taken.
    count: u64,
}

/// A place in the line. Whoever has one goes on as soon as it is the first, or drops it.
#[derive(Debug)]
pub struct CopyPlace {
    line: Arc<CopyLine>,
    number: u64,
}

impl CopyPlace {
    /// The last place of a line.
    pub fn new(line: &Arc<CopyLine>) -> CopyPlace {
        let mut places = lock(&line.places);
        places.count += 1;
        let number = places.count;
        places.taken.insert(number);
        CopyPlace { line: line.clone(), number }
    }

    /// What no other place is called, and those before it less than.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it is this one's turn.
    pub fn is_first(&self) -> bool {
        lock(&self.line.places).taken.first() == Some(&self.number)
    }
}

impl Drop for CopyPlace {
    fn drop(&mut self) {
        lock(&self.line.places).taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_first_until_it_has_gone() {
        let line = Arc::new(CopyLine::default());
        let [a, b, c, d] = std::array::from_fn(|_| CopyPlace::new(&line));
        assert!(a.is_first() && !b.is_first() && !c.is_first());
        drop(b);
        assert!(a.is_first() && !c.is_first());
        drop(a);
        assert!(c.is_first() && !d.is_first());
        drop(d);
        let e = CopyPlace::new(&line);
        drop(c);
        assert!(e.is_first());
    }
}
