/// How a child process comes into being.
///
/// | method | what the child has of the parent | costs | when |
/// | --- | --- | --- | --- |
/// | [`ForkServer`](StartMethod::ForkServer) | nothing but its argument | a fork of a small process | the default |
/// | [`Spawn`](StartMethod::Spawn) | nothing but its argument | the program starts anew | the parent must be the child's parent to the kernel |
/// | [`Fork`](StartMethod::Fork) | a copy of everything | a fork of the whole parent | large data that is only read, single-threaded programs |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// A clean, single-threaded copy of the program, started at the first spawn, forks off children.
    #[default]
    ForkServer,
    /// The program's own file is run anew, up to [`init`](crate::init).
    Spawn,
    /// The process is copied as it is. Refused while it has more than one thread.
    Fork,
}
