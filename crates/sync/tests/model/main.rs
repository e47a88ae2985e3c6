//! The protocols of the primitives, as the README has them, in every interleaving of a few threads that
//! may be killed between any two steps: nobody sleeps for ever, no two hold a lock, no death goes
//! unseen.
//!
//! Each rule of a protocol is also left out once, to show that it is needed and that these tests see
//! it. What builds on the lock takes it for granted: as one word that the kernel hands on when its
//! holder dies.

mod barrier;
mod condition;
mod event;
mod lock;
mod semaphore;

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// All that threads share and know, between two steps.
trait World: Copy + Eq + Hash {
    /// A rule that is left out.
    type Mutation: Copy + Debug;

    /// Adds all that can be after one more step, timeout or death.
    fn go_on(&self, mutation: Self::Mutation, add: impl FnMut(Self));

    /// Tells what is wrong, if anything is.
    fn check(&self) -> Result<(), &'static str>;
}

/// Looks at all worlds that can be. Gives how many there are, or what is wrong with one.
fn explore<W: World>(start: W, mutation: W::Mutation) -> Result<usize, &'static str> {
    let mut seen = HashSet::from([start]);
    let mut left = vec![start];
    while let Some(world) = left.pop() {
        world.check()?;
        world.go_on(mutation, |next| {
            if seen.insert(next) {
                left.push(next);
            }
        });
    }
    Ok(seen.len())
}

/// A robust lock, taken for granted. Whoever waits for it gets it once it is free.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Robust {
    /// A thread's number from 1; 0 is nobody.
    holder: u8,
    /// A holder has died, and nobody has cleared that.
    poisoned: bool,
}

impl Robust {
    fn is_free(self) -> bool {
        self.holder == 0
    }

    /// Takes it if it is free.
    fn take(&mut self, thread: usize) -> bool {
        let free = self.is_free();
        if free {
            self.holder = thread as u8 + 1;
        }
        free
    }

    fn release(&mut self) {
        self.holder = 0;
    }

    /// The kernel's part when a thread dies.
    fn bury(&mut self, thread: usize) {
        if self.holder == thread as u8 + 1 {
            *self = Robust { holder: 0, poisoned: true };
        }
    }
}
