use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use multiproc_os::context;
use multiproc_wire::SharedFd;
use serde::{Deserialize, Serialize};

use crate::limit::Limit;

/// What a child is to have otherwise than its parent. The child itself changes it, once it has taken
/// over and before its function runs: a test harness finds itself by the environment, and the program
/// by its directory, so that neither may change before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Changes {
    clear: bool,
    /// In order; `None` removes.
    variables: Vec<(OsString, Option<OsString>)>,
    /// A relative one is so to the parent's.
    directory: Option<OsString>,
    cpus: Option<Vec<u32>>,
    niceness: Option<i32>,
    group: Option<i32>,
    ignore_interrupt: Option<bool>,
    limits: Vec<(Limit, u64)>,
    /// Standard input, output and error.
    streams: [Option<SharedFd>; 3],
}

impl Changes {
    pub(crate) fn set(&mut self, name: &OsStr, value: Option<&OsStr>) {
        self.variables.push((name.to_owned(), value.map(OsStr::to_owned)));
    }

    pub(crate) fn clear(&mut self) {
        self.variables.clear();
        self.clear = true;
    }

    pub(crate) fn enter(&mut self, directory: &OsStr) {
        self.directory = Some(directory.to_owned());
    }

    pub(crate) fn run_on(&mut self, cpus: Vec<u32>) {
        self.cpus = Some(cpus);
    }

    pub(crate) fn be_nice(&mut self, niceness: i32) {
        self.niceness = Some(niceness);
    }

    pub(crate) fn join_group(&mut self, group: i32) {
        self.group = Some(group);
    }

    pub(crate) fn set_ignore_interrupt(&mut self, ignore: bool) {
        self.ignore_interrupt = Some(ignore);
    }

    pub(crate) fn ignore_interrupt(&self) -> Option<bool> {
        self.ignore_interrupt
    }

    pub(crate) fn limit(&mut self, limit: Limit, most: u64) {
        self.limits.push((limit, most));
    }

    /// 0 is input, 1 is output, 2 is error.
    pub(crate) fn redirect(&mut self, stream: usize, fd: OwnedFd) {
        self.streams[stream] = Some(fd.into());
    }

    /// Checks what can be told before a process is started: that names and values can stand in an
    /// environment, and that numbers are some that the kernel knows.
    pub(crate) fn check(&self) -> io::Result<()> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if let Some(niceness) = self.niceness
            && !(-20..=19).contains(&niceness)
        {
            return invalid(format!("the niceness {niceness} is not one from -20 to 19"));
        }
        if let Some(group) = self.group
            && group < 0
        {
            return invalid(format!("there is no process group {group}: 0 stands for a new one"));
        }
        for (name, value) in &self.variables {
            let bytes = name.as_bytes();
            // A name may start with `=`: see `context::set_environment`.
            let bad_name = bytes.is_empty() || bytes[1..].contains(&b'=') || bytes.contains(&0);
            if bad_name || value.as_ref().is_some_and(|value| value.as_bytes().contains(&0)) {
                let text = format!(
                    "{name:?} cannot be set in an environment: it is empty, has a = in it, \
                    or it or its value has a zero byte"
                );
                return invalid(text);
            }
        }
        Ok(())
    }

    /// Makes them, in the child.
    pub(crate) fn make(&self) -> Result<(), String> {
        if self.streams.iter().any(Option::is_some) {
            let inherited = context::standard_streams();
            let streams = std::array::from_fn(|stream| {
                let (new, old) = (self.streams[stream].as_ref(), inherited[stream].as_ref());
                new.map(AsFd::as_fd).or(old.map(AsFd::as_fd))
            });
            context::set_standard_streams(streams)
                .map_err(|error| format!("cannot redirect its standard streams: {error}"))?;
        }
        if self.clear || !self.variables.is_empty() {
            context::set_environment(&self.environment(&context::environment()))
                .map_err(|error| format!("cannot change its environment: {error}"))?;
        }
        if let Some(directory) = &self.directory {
            std::env::set_current_dir(directory)
                .map_err(|error| format!("cannot enter the directory {directory:?}: {error}"))?;
        }
        if let Some(cpus) = &self.cpus {
            context::set_affinity(cpus)
                .map_err(|error| format!("cannot run on the processors {cpus:?}: {error}"))?;
        }
        if let Some(ignore) = self.ignore_interrupt {
            context::ignore_interrupt(ignore);
        }
        if let Some(group) = self.group {
            context::set_process_group(group)
                .map_err(|error| format!("cannot join the process group {group}: {error}"))?;
        }
        if let Some(niceness) = self.niceness {
            context::set_niceness(niceness)
                .map_err(|error| format!("cannot have the niceness {niceness}: {error}"))?;
        }
        for (limit, most) in &self.limits {
            context::set_limit(limit.resource(), limit.pair(*most))
                .map_err(|error| format!("cannot have the limit {limit:?} of {most}: {error}"))?;
        }
        Ok(())
    }

    /// The block of variables that this makes of another: see [`context::environment`].
    fn environment(&self, before: &[u8]) -> Vec<u8> {
        let split = |entry: &[u8]| {
            let end = 1 + entry.iter().skip(1).position(|byte| *byte == b'=')?;
            let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((text(&entry[..end]), text(&entry[end + 1..])))
        };
        let mut all: Vec<(OsString, OsString)> = match self.clear {
            true => Vec::new(),
            false => before.split(|byte| *byte == 0).filter_map(split).collect(),
        };
        for (name, value) in &self.variables {
            all.retain(|(other, _)| other != name);
            all.extend(value.as_ref().map(|value| (name.clone(), value.clone())));
        }
        let bytes = |(name, value): (OsString, OsString)| {
            [name.as_bytes(), b"=", value.as_bytes(), &[0]].concat()
        };
        all.into_iter().flat_map(bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &Changes) -> String {
        String::from_utf8(changes.environment(b"A=1\0B=2\0=C=3\0D=\0")).unwrap()
    }

    fn set(changes: &mut Changes, name: &str, value: Option<&str>) {
        changes.set(name.as_ref(), value.map(OsStr::new));
    }

    #[test]
    fn variables_are_set_removed_and_cleared_in_order() {
        let mut changes = Changes::default();
        assert_eq!(changed(&changes), "A=1\0B=2\0=C=3\0D=\0");
        set(&mut changes, "A", Some("x=y"));
        set(&mut changes, "B", None);
        set(&mut changes, "=C", None);
        set(&mut changes, "E", Some("5"));
        set(&mut changes, "E", Some("6"));
        assert_eq!(changed(&changes), "D=\0A=x=y\0E=6\0");
        changes.clear();
        assert_eq!(changed(&changes), "");
        set(&mut changes, "F", Some(""));
        assert_eq!(changed(&changes), "F=\0");
    }

    #[test]
    fn what_no_environment_can_hold_is_refused() {
        for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "1\0B=2")] {
            let mut changes = Changes::default();
            set(&mut changes, name, Some(value));
            let error = changes.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}={value:?}");
        }
        let mut changes = Changes::default();
        set(&mut changes, "=A", Some("x=y"));
        changes.check().unwrap();
    }
}
