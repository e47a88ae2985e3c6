//! The driver: it has chunks in flight, keeps them until all their results are there, and sees to it
//! that they come. It is one thread with a runtime of its own.

mod agents;
mod engine;
mod flight;
mod receive;
mod shared;
mod watch;

pub use agents::AgentInfo;
pub(crate) use engine::start;
pub(crate) use shared::Shared;
