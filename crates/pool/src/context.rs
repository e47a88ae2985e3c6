//! The argument that many tasks share: sent once to each worker, and kept there.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_process::__private::catch;
use multiproc_wire::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// So many a worker keeps, those that were used last.
pub(crate) const KEPT: usize = 4;

/// The parent's side of a context.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) content: Message,
}

/// Which contexts a worker keeps: the same rule on either side, so that the parent knows.
#[derive(Debug, Default)]
pub(crate) struct Recent(VecDeque<u64>);

/// The worker's side of a context.
pub(crate) struct Context {
    id: u64,
    value: Value,
}

enum Value {
    Encoded(Message),
    Decoded(Box<dyn Any>),
    /// It could not be decoded, and this is why.
    Broken(String),
}

/// The contexts that a worker keeps.
#[derive(Default)]
pub(crate) struct Shelf(Vec<Context>);

impl Sent {
    pub(crate) fn new<C: Serialize>(value: &C) -> Result<Self, multiproc_wire::Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let content = multiproc_wire::encode(value)?;
        Ok(Sent { id: NEXT.fetch_add(1, Relaxed), content })
    }
}

impl Recent {
    /// Notes that it is used. Returns whether the worker keeps it already.
    pub(crate) fn touch(&mut self, id: u64) -> bool {
        let place = self.0.iter().position(|&kept| kept == id);
        if let Some(place) = place {
            self.0.remove(place);
        } else if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(id);
        place.is_some()
    }
}

impl Context {
    pub(crate) fn new(id: u64, content: Message) -> Self {
        Context { id, value: Value::Encoded(content) }
    }
}

impl Shelf {
    /// Keeps a context, in the place of that which has not been used for the longest time.
    pub(crate) fn put(&mut self, context: Context) {
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(context);
    }

    /// Lends a context, which is read when it is used for the first time.
    pub(crate) fn get<C: DeserializeOwned + 'static>(
        &mut self,
        id: Option<u64>,
    ) -> Result<&C, String> {
        const MISSING: &str = "it did not come";
        let place = self.0.iter().position(|context| Some(context.id) == id).ok_or(MISSING)?;
        // Those at the end were used last.
        self.0[place..].rotate_left(1);
        let context = self.0.last_mut().ok_or(MISSING)?;
        if let Value::Encoded(content) = &mut context.value {
            let content = std::mem::take(content);
            context.value = match catch(|| multiproc_wire::decode::<C>(content)) {
                Ok(Ok(value)) => Value::Decoded(Box::new(value)),
                Ok(Err(error)) => Value::Broken(error.to_string()),
                Err(panic) => Value::Broken(panic.to_string()),
            };
        }
        match &context.value {
            Value::Decoded(value) => value.downcast_ref().ok_or("it is of another type".into()),
            Value::Broken(reason) => Err(reason.clone()),
            Value::Encoded(_) => Err(MISSING.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_same() {
        let mut recent = Recent::default();
        let mut shelf = Shelf::default();
        for id in [1, 2, 3, 1, 4, 5, 1, 2, 6, 7, 2, 1, 3, 3, 8, 9, 2] {
            let kept = recent.touch(id);
            assert_eq!(kept, shelf.get::<u64>(Some(id)).is_ok(), "context {id}");
            if !kept {
                shelf.put(Context::new(id, multiproc_wire::encode(&id).unwrap()));
            }
            assert_eq!(shelf.get(Some(id)), Ok(&id));
        }
    }
}
