//! Proves that a child has of its parent what the parent has at the time of the spawn: directory,
//! environment, umask, limits, processors, standard streams, whoever it is forked from.

mod common;

use std::fs::File;
use std::io::{PipeReader, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use common::{METHODS, set_variable};
use multiproc_os::context;
use multiproc_process::{Process, StartMethod};
use multiproc_wire::Fd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn main() {
    common::init();
    common::run(&[
        ("directory", directory),
        ("environment", environment),
        ("environment_changed_in_a_child", environment_changed_in_a_child),
        ("umask", umask),
        ("limits", limits),
        ("processors", processors),
        ("standard_output_is_redirected_and_flushed", redirected_output),
        ("standard_input", standard_input),
        ("closed_standard_streams_are_not_taken_by_sockets", closed_streams),
        ("interrupts", interrupts),
        ("a_changed_process_group_has_a_new_server", changed_group),
        ("a_changed_root_directory_has_a_new_server", changed_root),
    ]);
}

/// Runs the function under each method and gives what it returned.
fn under_each<R: Serialize + DeserializeOwned>(function: fn(()) -> R) -> [R; 3] {
    METHODS.map(|method| {
        Process::builder().start_method(method).spawn(function, ()).unwrap().join().unwrap()
    })
}

fn current_directory(_: ()) -> String {
    std::env::current_dir().unwrap().to_str().unwrap().to_owned()
}

fn directory() {
    let before = std::env::current_dir().unwrap();
    under_each(|()| ());
    let new = tempfile::tempdir().unwrap();
    let name = new.path().canonicalize().unwrap();
    std::env::set_current_dir(&name).unwrap();
    assert_eq!(under_each(current_directory), [name.to_str().unwrap(); 3]);
    // One that is there no more is inherited all the same.
    new.close().unwrap();
    assert_eq!(under_each(|()| std::env::current_dir().is_err()), [true; 3]);
    std::env::set_current_dir(&before).unwrap();
    assert_eq!(under_each(current_directory), [before.to_str().unwrap(); 3]);
}

fn all_variables(_: ()) -> Vec<u8> {
    context::environment()
}

fn environment() {
    under_each(|()| ());
    set_variable("TEST_NEW", Some("with = and \n and ä"));
    set_variable("TEST_EMPTY", Some(""));
    let path = std::env::var("PATH").unwrap();
    set_variable("PATH", None);
    let sorted = |block: Vec<u8>| {
        let mut entries: Vec<_> = block.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        entries.sort();
        entries
    };
    let expected = sorted(context::environment());
    for (found, method) in under_each(all_variables).into_iter().zip(METHODS) {
        assert_eq!(sorted(found), expected, "{method:?}");
    }
    let large = "x".repeat(100_000);
    set_variable("TEST_LARGE", Some(&large));
    let length = |()| std::env::var("TEST_LARGE").unwrap().len();
    assert_eq!(under_each(length), [100_000; 3]);
    set_variable("TEST_LARGE", None);
    set_variable("TEST_NEW", None);
    set_variable("TEST_EMPTY", None);
    set_variable("PATH", Some(&path));
    assert_eq!(under_each(|()| std::env::var("TEST_NEW").is_err()), [true; 3]);
}

fn environment_changed_in_a_child() {
    for outer in METHODS {
        let process = Process::builder().start_method(outer);
        let change = |()| {
            set_variable("TEST_CHILD", Some("changed"));
            under_each(|()| std::env::var("TEST_CHILD").unwrap())
        };
        let found = process.spawn(change, ()).unwrap().join().unwrap();
        assert_eq!(found, ["changed"; 3], "{outer:?}");
    }
    assert!(std::env::var("TEST_CHILD").is_err());
}

fn umask() {
    under_each(|()| ());
    let before = context::umask().unwrap();
    for mask in [0o077, 0o022, 0o027] {
        context::set_umask(mask);
        assert_eq!(under_each(|()| context::umask().unwrap()), [mask; 3]);
    }
    context::set_umask(before);
}

fn limits() {
    under_each(|()| ());
    let before = getrlimit(Resource::Nofile);
    let read = |()| context::limits().unwrap();
    for soft in [100, 64, 1000] {
        setrlimit(Resource::Nofile, Rlimit { current: Some(soft), ..before }).unwrap();
        assert_eq!(under_each(read), [context::limits().unwrap(); 3]);
    }
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(under_each(read), [context::limits().unwrap(); 3]);
}

fn processors() {
    under_each(|()| ());
    let all = context::affinity().unwrap();
    for one in &all {
        context::set_affinity(&[*one]).unwrap();
        assert_eq!(under_each(|()| context::affinity().unwrap()), [[*one]; 3]);
        assert_eq!(under_each(|()| multiproc_process::cpu_count()), [1; 3]);
    }
    context::set_affinity(&all).unwrap();
    assert_eq!(under_each(|()| context::affinity().unwrap()), [&*all; 3]);
}

/// Runs `test` with other standard streams.
fn with_streams(streams: [Option<OwnedFd>; 3], test: impl FnOnce()) {
    let kept = context::standard_streams();
    let kept = kept.each_ref().map(|fd| fd.as_ref().map(AsFd::as_fd));
    std::io::stdout().flush().unwrap();
    let place: [fn(OwnedFd); 3] = [
        |fd| rustix::stdio::dup2_stdin(fd).unwrap(),
        |fd| rustix::stdio::dup2_stdout(fd).unwrap(),
        |fd| rustix::stdio::dup2_stderr(fd).unwrap(),
    ];
    for ((number, fd), place) in (0..).zip(streams).zip(place) {
        match fd {
            Some(fd) => place(fd),
            None => close(number),
        }
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    let _flushed = std::io::stdout().flush();
    context::set_standard_streams(kept).unwrap();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[allow(unsafe_code)] // A standard stream has no owner that could be dropped.
fn close(stream: i32) {
    // SAFETY: nothing that owns it is left: `with_streams` opens it anew.
    unsafe { libc::close(stream) };
}

fn redirected_output() {
    under_each(|()| ());
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let streams = [&File::open("/dev/null").unwrap(), &out, &err];
    with_streams(streams.map(|file| Some(file.try_clone().unwrap().into())), || {
        under_each(|()| {
            // Without a line's end it stays in the buffer.
            print!("out;");
            eprint!("err;");
        });
    });
    let mut text = String::new();
    out.rewind().unwrap();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out;out;out;");
    text.clear();
    err.rewind().unwrap();
    err.read_to_string(&mut text).unwrap();
    assert_eq!(text, "err;err;err;");
}

fn standard_input() {
    under_each(|()| ());
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"abc").unwrap();
    let [_, out, err] = context::standard_streams();
    with_streams([Some(reader.into()), out, err], || {
        let read = |()| {
            let mut byte = [0];
            // std's own input has a buffer, which would take it all.
            rustix::io::read(rustix::stdio::stdin(), &mut byte).unwrap();
            char::from(byte[0])
        };
        assert_eq!(under_each(read), ['a', 'b', 'c']);
    });
}

/// What the standard streams are, and whether an argument's descriptor has become one.
fn describe_streams(mut gate: Fd<PipeReader>) -> Vec<String> {
    let own =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*gate)));
    gate.read_exact(&mut [0]).unwrap();
    let mut streams: Vec<String> = (0..3)
        .map(|number| match std::fs::read_link(format!("/proc/self/fd/{number}")) {
            Ok(_) if std::os::fd::AsRawFd::as_raw_fd(&*gate) == number => "taken".into(),
            Ok(target) => target.to_str().unwrap().to_owned(),
            Err(_) => "closed".into(),
        })
        .collect();
    streams.push(own.unwrap().to_str().unwrap()[..4].to_owned());
    streams
}

fn closed_streams() {
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    for closed in 1..8 {
        for method in METHODS {
            // The server is started while streams are closed, too.
            drop(common::kill_server());
            let streams = [0, 1, 2].map(|bit| (closed & (1 << bit) == 0).then(null));
            let (reader, mut writer) = std::io::pipe().unwrap();
            writer.write_all(&[1]).unwrap();
            let mut found = Err(String::new());
            with_streams(streams, || {
                let builder = Process::builder().start_method(method);
                let process = builder.spawn(describe_streams, reader.into());
                found = process.and_then(Process::join).map_err(|error| error.to_string());
                for number in 0..3 {
                    let open = std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok();
                    assert_eq!(open, closed & (1 << number) == 0, "left as it was");
                }
            });
            let found = found.unwrap();
            assert_eq!(
                found,
                ["/dev/null", "/dev/null", "/dev/null", "pipe"],
                "{closed} {method:?}"
            );
        }
    }
}

fn interrupts() {
    for ignored in [false, true, false] {
        context::ignore_interrupt(ignored);
        assert_eq!(under_each(|()| context::ignores_interrupt()), [ignored; 3]);
    }
}

/// Ctrl-C at a terminal reaches one group.
fn changed_group() {
    // A process that leads its session cannot change its group; a child does not.
    let changes = |()| {
        let group: fn(()) -> i32 = |()| context::process_group();
        assert_eq!(under_each(group), [context::process_group(); 3]);
        rustix::process::setpgid(None, None).unwrap();
        let own = std::process::id().cast_signed();
        assert_eq!(Process::spawn(group, ()).unwrap().join().unwrap(), own);
        // The old server was waited for by a thread.
        common::wait_for_threads();
        assert_eq!(under_each(group), [own; 3]);
    };
    let builder = Process::builder().daemon(true).start_method(StartMethod::Spawn);
    builder.spawn(changes, ()).unwrap().join().unwrap();
}

fn changed_root() {
    if !rustix::process::geteuid().is_root() {
        println!("    skipped: only root can change the root directory");
        return;
    }
    // In a child, since there is no way back.
    let child = |()| {
        let server = |()| std::os::unix::process::parent_id();
        let before = Process::spawn(server, ()).unwrap().join().unwrap();
        assert_eq!(Process::spawn(server, ()).unwrap().join().unwrap(), before);
        // The same directory by another name, so that the program still finds /proc.
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        rustix::process::chroot(root.path()).unwrap();
        std::env::set_current_dir("/").unwrap();
        // Without /proc nothing can be started, least of all outside of the new root.
        Process::spawn(|()| std::path::Path::new("/etc").exists(), ())
            .and_then(Process::join)
            .map_err(|error| error.to_string())
    };
    let result = Process::builder().start_method(StartMethod::Spawn).spawn(child, ()).unwrap();
    let result = result.join().unwrap();
    assert!(result.is_err(), "{result:?}");
}
