#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(clippy::unwrap_used, clippy::expect_used)]

mod builder;
mod children;
mod current;
mod error;
mod init;
mod limit;
mod parent;
mod process;
mod start_method;

mod boot;
mod changes;
mod child;
mod fork;
mod fork_server;
mod panics;
mod reaper;
mod report;
mod spawn;
mod trace;

pub use builder::Builder;
pub use children::{ActiveChild, active_children};
pub use current::{CurrentProcess, cpu_count, current_process};
pub use error::{Error, Panic};
pub use fork_server::set_forkserver_preload;
pub use init::init;
pub use limit::Limit;
pub use parent::{ParentProcess, parent_process};
pub use process::Process;
pub use start_method::{StartMethod, set_start_method};

#[doc(hidden)]
pub mod __private {
    //! What [`init_before_main`](crate::init_before_main) expands to, and what the pool's workers need.
    pub use crate::init::init_from_constructor;
    pub use crate::panics::{be_quiet, catch};
    pub use multiproc_os::constructors::Constructor;
}
