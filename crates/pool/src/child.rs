//! What a worker process does.

use std::any::Any;
use std::time::Instant;

use multiproc_os::deadline::Deadline;
use multiproc_os::image::{ENTRY_SIZE, Entry};
use multiproc_process::__private::{be_quiet, catch};
use multiproc_shm::ShmBox;
use multiproc_wire::{Endpoint, Message, Series, encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::chunks::Element;
use crate::context::{Context, Shelf};
use crate::engine::board::{Board, Turn};
use crate::mode::Mode;
use crate::outcome::{self, Trouble};
use crate::trace;

/// The argument of a worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: Endpoint,
    pub(crate) board: Board,
    /// The first order is [`Order::Open`].
    pub(crate) opens: bool,
    /// It retires when it has more resident memory than so many bytes after a task.
    pub(crate) most_resident: Option<u64>,
}

/// To the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make your state. The framed argument follows.
    Open { entry: [u8; ENTRY_SIZE] },
    /// Keep this for tasks to come. The framed value follows.
    Keep { context: u64 },
    /// Run these tasks. The framed arguments follow.
    Run(Run),
    /// End, after this has made something of your state.
    Retire { entry: Option<[u8; ENTRY_SIZE]> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) entry: [u8; ENTRY_SIZE],
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Whether it is to say when it begins each.
    pub(crate) timed: bool,
    pub(crate) context: Option<u64>,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Ready,
    /// The results of these tasks. The framed outcomes follow.
    Results {
        first: u32,
        count: u32,
        done: Option<Done>,
    },
    /// What the finalizer returned follows, framed.
    Final,
}

/// With the last results of an assignment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    /// How long all of it took.
    pub(crate) nanos: u64,
    /// Has more resident memory than it may.
    pub(crate) overgrown: bool,
}

/// A task function with the code that knows its types.
pub(crate) type TaskEntry = Entry<Assignment, Desk>;
/// An initializer, likewise.
pub(crate) type OpenEntry = Entry<Message, Result<Box<dyn Any>, String>>;
/// A finalizer, likewise.
pub(crate) type CloseEntry = Entry<Box<dyn Any>, Message>;

/// What a worker has in hand.
pub(crate) struct Desk {
    place: &'static Place,
    state: Box<dyn Any>,
    shelf: Shelf,
}

/// An assignment as it is run.
pub(crate) struct Assignment {
    desk: Desk,
    run: Run,
    arguments: Message,
}

/// Follows orders until it retires, or the pool lets go of the line.
pub(crate) fn work(place: Place) -> Result<(), String> {
    be_quiet();
    let place: &'static Place = Box::leak(Box::new(place));
    let mut desk = Desk { place, state: Box::new(()), shelf: Shelf::default() };
    if !place.opens {
        place.report(&Report::Ready, &Message::new());
    }
    loop {
        let received = place.line.recv_with(Deadline::NEVER, |mut reader| {
            let order: Order = reader.read()?;
            Ok::<_, multiproc_wire::Error>((order, reader.into_message()?))
        });
        let (order, content) = match received {
            Ok(Some(Ok(received))) => received,
            Ok(None) => continue,
            Err(error) if error.is_closed() => return Ok(()),
            Ok(Some(Err(error))) | Err(error) => return Err(format!("its order: {error}")),
        };
        match order {
            Order::Open { entry } => {
                let entry = OpenEntry::decode(&entry).ok_or(NO_FUNCTION)?;
                desk.state = entry.call(content)?;
                place.report(&Report::Ready, &Message::new());
            }
            Order::Keep { context } => desk.shelf.put(Context::new(context, content)),
            Order::Run(run) => {
                let entry = TaskEntry::decode(&run.entry).ok_or(NO_FUNCTION)?;
                desk = entry.call(Assignment { desk, run, arguments: content });
            }
            Order::Retire { entry } => {
                if let Some(entry) = entry {
                    let entry = CloseEntry::decode(&entry).ok_or(NO_FUNCTION)?;
                    place.report(&Report::Final, &entry.call(desk.state));
                }
                return Ok(());
            }
        }
    }
}

const NO_FUNCTION: &str = "its order names no function of this program";

/// The code that knows a task function's types.
pub(crate) fn run<M: Mode, A: DeserializeOwned, R: Serialize>(
    function: M::Task<A, R>,
    assignment: Assignment,
) -> Desk {
    let Assignment { mut desk, run, arguments } = assignment;
    match desk.state.downcast_mut::<M::State>() {
        Some(state) => {
            run_all(desk.place, &run, &arguments, |argument| M::call(function, state, argument));
        }
        None => fail_all::<R>(desk.place, &run, NO_STATE),
    }
    desk
}

/// The code that knows the types of a function whose tasks share an argument.
pub(crate) fn run_with<
    M: Mode,
    C: DeserializeOwned + 'static,
    A: DeserializeOwned,
    R: Serialize,
>(
    function: M::TaskWith<C, A, R>,
    assignment: Assignment,
) -> Desk {
    let Assignment { mut desk, run, arguments } = assignment;
    let context = desk.shelf.get::<C>(run.context);
    match (desk.state.downcast_mut::<M::State>(), context) {
        (Some(state), Ok(context)) => run_all(desk.place, &run, &arguments, |argument| {
            M::call_with(function, state, context, argument)
        }),
        (None, _) => fail_all::<R>(desk.place, &run, NO_STATE),
        (_, Err(reason)) => fail_all::<R>(desk.place, &run, &format!("the context: {reason}")),
    }
    desk
}

/// The code that knows the types of a function of chunks.
pub(crate) fn run_chunks<M: Mode, T: Element, R: Serialize>(
    function: M::ChunkTask<T, R>,
    assignment: Assignment,
) -> Desk {
    let Assignment { mut desk, run, arguments } = assignment;
    match desk.state.downcast_mut::<M::State>() {
        Some(state) => {
            let call = |(mut chunk, index): (ShmBox<[T]>, usize)| {
                // The chunk goes home whatever the function does.
                let outcome = catch(|| M::call_chunk(function, state, &mut chunk, index));
                (chunk, outcome)
            };
            run_all(desk.place, &run, &arguments, call);
        }
        None => fail_all::<R>(desk.place, &run, NO_STATE),
    }
    desk
}

const NO_STATE: &str = "the worker's state is of another type";

/// The code that knows an initializer's types.
pub(crate) fn open<A: DeserializeOwned, S: Any>(
    function: fn(A) -> S,
    argument: Message,
) -> Result<Box<dyn Any>, String> {
    let argument = argument.reader().read_framed();
    let argument = argument.map_err(|error| format!("the initializer's argument: {error}"))?;
    Ok(Box::new(function(argument)))
}

/// The code that knows a finalizer's types.
pub(crate) fn close<S: Any, F: Serialize>(function: fn(S) -> F, state: Box<dyn Any>) -> Message {
    let mut series = Series::new();
    let Ok(state) = state.downcast::<S>() else { return failed(NO_STATE.into()) };
    let done = catch(|| outcome::push(&mut series, Ok(function(*state))));
    if let Err(panic) = done {
        outcome::push::<()>(&mut series, Err(Trouble::panicked(panic)));
    }
    series.into_message()
}

/// What stands for the value of a finalizer that did not come to return one.
pub(crate) fn failed(reason: String) -> Message {
    let mut series = Series::new();
    outcome::push::<()>(&mut series, Err(Trouble::failed(reason)));
    series.into_message()
}

fn run_all<A: DeserializeOwned, R: Serialize>(
    place: &'static Place,
    run: &Run,
    arguments: &Message,
    mut call: impl FnMut(A) -> R,
) {
    let start = Instant::now();
    let mut arguments = arguments.reader();
    let mut results = Results::new(place, run);
    let mut tasks = run.first..run.first + run.count;
    let mut overgrown = false;
    loop {
        // One for all of them, of which one that panics costs none beside it. What sends is outside.
        let stretch = catch(|| {
            for task in tasks.by_ref() {
                if run.timed {
                    place.board.note_start(Deadline::now().nanos());
                }
                match place.board.begin(task) {
                    Turn::Begin => {}
                    Turn::Skip => return true,
                    Turn::Die => wait_for_the_end(),
                }
                let outcome = match arguments.read_framed::<A>() {
                    Ok(argument) => Ok(trace::task(task, || call(argument))),
                    Err(error) => Err(Trouble::failed(format!("its argument: {error}"))),
                };
                let kept = results.add(outcome);
                place.watch_memory(&mut overgrown);
                if !kept {
                    return false;
                }
            }
            true
        });
        match stretch {
            Ok(true) => break,
            Ok(false) => results.send(None),
            Err(panic) => {
                let kept = results.add::<R>(Err(Trouble::panicked(panic)));
                place.watch_memory(&mut overgrown);
                if !kept {
                    results.send(None);
                }
            }
        }
    }
    let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    results.send(Some(Done { nanos, overgrown }));
}

fn fail_all<R: Serialize>(place: &'static Place, run: &Run, reason: &str) {
    let mut results = Results::new(place, run);
    for task in run.first..run.first + run.count {
        match place.board.begin(task) {
            Turn::Begin => {
                if !results.add::<R>(Err(Trouble::failed(reason.into()))) {
                    results.send(None);
                }
            }
            Turn::Skip => break,
            Turn::Die => wait_for_the_end(),
        }
    }
    results.send(Some(Done { nanos: 0, overgrown: false }));
}

/// The parent has sent `SIGKILL`, or is about to.
fn wait_for_the_end() -> ! {
    loop {
        std::thread::park();
    }
}

/// How much memory this process has resident, in bytes.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * multiproc_os::memory::page_size())
}

impl Place {
    /// After a task: refuses the others if it has more memory than it may.
    #[inline]
    fn watch_memory(&self, overgrown: &mut bool) {
        if self.most_resident.is_some_and(|most| resident().is_some_and(|now| now > most)) {
            *overgrown = true;
            self.board.take_back(|left| left);
        }
    }

    fn report(&self, report: &Report, content: &Message) {
        // It has no value in it that cannot be encoded.
        let header = encode(report).unwrap_or_default();
        let parts = [header.bytes(), content.bytes()];
        let sent = self.line.send_parts(parts, &content.fds(), Deadline::NEVER);
        // The pool would wait for it for ever. This is outside of what tasks may panic in: it ends the
        // worker, and leaves what is in the outbox.
        if let Err(error) = sent {
            panic!("cannot send what came of its tasks: {error}");
        }
    }
}

/// Results that were not sent yet.
struct Results {
    place: &'static Place,
    /// An assignment of one task has no use for the outbox: its result goes out at once.
    single: bool,
    first: u32,
    count: u32,
    series: Series,
}

impl Results {
    fn new(place: &'static Place, run: &Run) -> Self {
        place.board.clear_outbox(run.first);
        let single = run.count == 1;
        Results { place, single, first: run.first, count: 0, series: Series::new() }
    }

    /// Adds what came of a task. Returns whether it is kept where the death of this worker does not reach
    /// it; if not, it is to be sent at once.
    #[inline]
    #[must_use]
    fn add<R: Serialize>(&mut self, outcome: Result<R, Trouble>) -> bool {
        let start = self.series.bytes().len();
        outcome::push(&mut self.series, outcome);
        self.count += 1;
        self.single
            || !self.series.has_fds() && self.place.board.keep(&self.series.bytes()[start..])
    }

    fn send(&mut self, done: Option<Done>) {
        if done.is_none() && self.count == 0 {
            return;
        }
        let report = Report::Results { first: self.first, count: self.count, done };
        self.place.report(&report, self.series.as_message());
        self.series.clear();
        self.first += self.count;
        self.count = 0;
        self.place.board.clear_outbox(self.first);
    }
}
