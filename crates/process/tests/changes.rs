//! Proves that a child has what its builder says in place of what its parent has, under each start
//! method, and that its own children have that too.

mod common;

use std::env;
use std::io::{Read, Write, pipe, read_to_string};

use common::METHODS;
use multiproc_os::context;
use multiproc_process::{Builder, Process};

fn main() {
    common::init();
    common::run(&[
        ("variables_are_set_and_removed", variables_are_set_and_removed),
        ("a_cleared_environment_has_what_is_set_after", a_cleared_environment),
        ("children_of_a_child_have_its_environment", children_have_its_environment),
        ("a_variable_that_cannot_be_starts_nothing", a_variable_that_cannot_be),
        ("the_directory_is_entered", the_directory_is_entered),
        ("a_directory_that_cannot_be_entered_is_an_error", a_directory_that_cannot_be_entered),
        ("the_processors_are_chosen", the_processors_are_chosen),
        ("processors_that_are_not_there_are_an_error", processors_that_are_not_there),
        ("standard_streams_are_redirected", standard_streams_are_redirected),
        ("a_panic_goes_to_the_error_stream_that_was_chosen", a_panic_goes_where_errors_go),
    ]);
}

/// A builder for each method.
fn builders() -> impl Iterator<Item = Builder> {
    // None outlives a test that fails.
    METHODS
        .into_iter()
        .map(|method| Process::builder().name("tester").daemon(true).start_method(method))
}

fn variable(name: String) -> Option<String> {
    env::var(name).ok()
}

fn variables(_: ()) -> Vec<(String, String)> {
    let mut all: Vec<_> = env::vars().collect();
    all.sort();
    all
}

fn variables_are_set_and_removed() {
    let before = variables(());
    for builder in builders() {
        let builder = builder.env("A", "x=y").envs([("B", "1"), ("C", "")]).env_remove("PATH");
        let found = builder.spawn(variables, ()).unwrap().join().unwrap();
        let mut expected = before.clone();
        expected.retain(|(name, _)| name != "PATH");
        expected.extend([("A", "x=y"), ("B", "1"), ("C", "")].map(|(n, v)| (n.into(), v.into())));
        expected.sort();
        assert_eq!(found, expected);
    }
    assert_eq!(variables(()), before, "this process's own stay");
    for builder in builders() {
        let process = builder.spawn(variable, "A".into()).unwrap();
        assert_eq!(process.join().unwrap(), None, "the next child's are this process's again");
    }
}

fn a_cleared_environment() {
    for builder in builders() {
        let builder = builder.env("BEFORE", "1").env_clear().env("AFTER", "2");
        let found = builder.spawn(variables, ()).unwrap().join().unwrap();
        assert_eq!(found, [("AFTER".to_string(), "2".to_string())]);
    }
}

fn children_have_its_environment() {
    let below = |()| {
        METHODS.map(|method| {
            let builder = Process::builder().daemon(true).start_method(method);
            builder.spawn(variables, ()).unwrap().join().unwrap()
        })
    };
    for builder in builders() {
        let found = builder.env_clear().env("ONLY", "1").spawn(below, ()).unwrap().join().unwrap();
        assert_eq!(found, [(); 3].map(|()| vec![("ONLY".to_string(), "1".to_string())]));
    }
}

fn a_variable_that_cannot_be() {
    let before = common::children(std::process::id());
    for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "1\0B=2")] {
        for builder in builders() {
            let error = builder.env(name, value).spawn(variables, ()).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("cannot start process tester: "), "{text}");
            assert!(text.contains("cannot be set in an environment"), "{text}");
        }
    }
    assert_eq!(common::children(std::process::id()), before);
}

fn current_directory(_: ()) -> String {
    env::current_dir().unwrap().to_str().unwrap().to_owned()
}

fn the_directory_is_entered() {
    let own = current_directory(());
    let new = tempfile::tempdir().unwrap();
    let path = new.path().canonicalize().unwrap();
    std::fs::create_dir(path.join("below")).unwrap();
    for builder in builders() {
        let process = builder.current_dir(&path).spawn(current_directory, ()).unwrap();
        assert_eq!(process.join().unwrap(), path.to_str().unwrap());
    }
    env::set_current_dir(&path).unwrap();
    for builder in builders() {
        let process = builder.current_dir("below").spawn(current_directory, ()).unwrap();
        assert_eq!(process.join().unwrap(), path.join("below").to_str().unwrap());
    }
    env::set_current_dir(own).unwrap();
}

fn a_directory_that_cannot_be_entered() {
    for builder in builders() {
        let process = builder.current_dir("/nowhere/at all").spawn(current_directory, ()).unwrap();
        let text = process.join().unwrap_err().to_string();
        assert!(text.contains("cannot enter the directory \"/nowhere/at all\": No such"), "{text}");
    }
}

fn the_processors_are_chosen() {
    let all = context::affinity().unwrap();
    for cpu in &all {
        for builder in builders() {
            let found = |()| context::affinity().unwrap();
            let process = builder.cpu_affinity([*cpu]).spawn(found, ()).unwrap();
            assert_eq!(process.join().unwrap(), [*cpu]);
        }
    }
    assert_eq!(context::affinity().unwrap(), all, "this process's own stay");
}

fn processors_that_are_not_there() {
    for none in [vec![], vec![1023], vec![u32::MAX]] {
        for builder in builders() {
            let process = builder.cpu_affinity(none.clone()).spawn(|()| (), ()).unwrap();
            let text = process.join().unwrap_err().to_string();
            assert!(text.contains(&format!("cannot run on the processors {none:?}: ")), "{text}");
        }
    }
}

fn standard_streams_are_redirected() {
    for builder in builders() {
        let ((input, mut feed), (output, to_output), (error, to_error)) =
            (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
        let builder = builder.stdin(input).stdout(to_output).stderr(to_error);
        let copy = |()| {
            let mut byte = [0];
            std::io::stdin().read_exact(&mut byte).unwrap();
            // Without a line's end it stays in the buffer.
            print!("out {}", byte[0]);
            eprint!("err {}", byte[0]);
        };
        let process = builder.spawn(copy, ()).unwrap();
        feed.write_all(&[7]).unwrap();
        // They end, since nobody but the child has the ends that are written to.
        assert_eq!(read_to_string(output).unwrap(), "out 7");
        assert_eq!(read_to_string(error).unwrap(), "err 7");
        process.join().unwrap();
    }
}

fn a_panic_goes_where_errors_go() {
    for builder in builders() {
        let (error, to_error) = pipe().unwrap();
        let fail = |()| {
            let _quiet = std::panic::take_hook();
            panic!("on purpose")
        };
        let process: Process<()> = builder.stderr(to_error).spawn(fail, ()).unwrap();
        assert!(read_to_string(error).unwrap().contains("on purpose"));
        process.join().unwrap_err();
    }
}
