use std::any::Any;
use std::marker::PhantomData;

use multiproc_os::image::Function;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says what the tasks of a pool are given: [`Stateless`] or [`Stateful`].
///
/// One set of methods serves both kinds of pools that way.
pub trait Mode: sealed::Sealed + 'static {
    /// What each worker keeps, and lends to each of its tasks.
    type State: Any;
    /// What a worker's finalizer returns.
    type Final: Serialize + DeserializeOwned;
    /// A task's function: `fn(A) -> R`, or `fn(&mut S, A) -> R`.
    type Task<A, R>: Function;
    /// A task's function where all tasks share an argument: `fn(&C, A) -> R`, or
    /// `fn(&mut S, &C, A) -> R`.
    type TaskWith<C, A, R>: Function;
    /// A function of a chunk of a slice and its index: `fn(&mut [T], usize) -> R`, or
    /// `fn(&mut S, &mut [T], usize) -> R`.
    type ChunkTask<T, R>: Function;

    #[doc(hidden)]
    fn call<A, R>(task: Self::Task<A, R>, state: &mut Self::State, argument: A) -> R;

    #[doc(hidden)]
    fn call_with<C, A, R>(
        task: Self::TaskWith<C, A, R>,
        state: &mut Self::State,
        context: &C,
        argument: A,
    ) -> R;

    #[doc(hidden)]
    fn call_chunk<T, R>(
        task: Self::ChunkTask<T, R>,
        state: &mut Self::State,
        chunk: &mut [T],
        index: usize,
    ) -> R;
}

/// The tasks of the pool are given their arguments, and no more.
#[derive(Debug)]
pub enum Stateless {}

/// The tasks of the pool are given, beside their arguments, an `S` that each worker has made for itself.
///
/// `F` is what the worker's [finalizer](crate::Builder::finalizer) makes of it in the end.
#[derive(Debug)]
pub struct Stateful<S, F = ()>(PhantomData<fn(S) -> F>);

impl Mode for Stateless {
    type State = ();
    type Final = ();
    type Task<A, R> = fn(A) -> R;
    type TaskWith<C, A, R> = fn(&C, A) -> R;
    type ChunkTask<T, R> = fn(&mut [T], usize) -> R;

    fn call<A, R>(task: Self::Task<A, R>, (): &mut (), argument: A) -> R {
        task(argument)
    }

    fn call_with<C, A, R>(
        task: Self::TaskWith<C, A, R>,
        (): &mut (),
        context: &C,
        argument: A,
    ) -> R {
        task(context, argument)
    }

    fn call_chunk<T, R>(
        task: Self::ChunkTask<T, R>,
        (): &mut (),
        chunk: &mut [T],
        index: usize,
    ) -> R {
        task(chunk, index)
    }
}

impl<S: Any, F: Serialize + DeserializeOwned + 'static> Mode for Stateful<S, F> {
    type State = S;
    type Final = F;
    type Task<A, R> = fn(&mut S, A) -> R;
    type TaskWith<C, A, R> = fn(&mut S, &C, A) -> R;
    type ChunkTask<T, R> = fn(&mut S, &mut [T], usize) -> R;

    fn call<A, R>(task: Self::Task<A, R>, state: &mut S, argument: A) -> R {
        task(state, argument)
    }

    fn call_with<C, A, R>(
        task: Self::TaskWith<C, A, R>,
        state: &mut S,
        context: &C,
        argument: A,
    ) -> R {
        task(state, context, argument)
    }

    fn call_chunk<T, R>(
        task: Self::ChunkTask<T, R>,
        state: &mut S,
        chunk: &mut [T],
        index: usize,
    ) -> R {
        task(state, chunk, index)
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::Stateless {}
    impl<S, F> Sealed for super::Stateful<S, F> {}
}
