use std::io::{self, PipeReader, PipeWriter, pipe};

use crate::changes::Changes;

/// The parent's ends of the pipes to a child's standard streams.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    pub(super) stdin: Option<PipeWriter>,
    pub(super) stdout: Option<PipeReader>,
    pub(super) stderr: Option<PipeReader>,
}

impl Pipes {
    /// Makes a pipe for each stream that is to have one, and has the child get the other end.
    pub(crate) fn open(piped: [bool; 3], changes: &mut Changes) -> io::Result<Self> {
        let mut pipes = Pipes::default();
        if piped[0] {
            let (theirs, ours) = pipe()?;
            changes.redirect(0, theirs.into());
            pipes.stdin = Some(ours);
        }
        for (stream, end) in [(1, &mut pipes.stdout), (2, &mut pipes.stderr)] {
            if piped[stream] {
                let (ours, theirs) = pipe()?;
                changes.redirect(stream, theirs.into());
                *end = Some(ours);
            }
        }
        Ok(pipes)
    }
}
