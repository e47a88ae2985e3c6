//! A program built with `panic = "abort"`; see `../panic_abort.rs`.

use multiproc_process::{Process, StartMethod};

const METHODS: [StartMethod; 3] = [StartMethod::ForkServer, StartMethod::Spawn, StartMethod::Fork];

fn main() {
    multiproc_process::init();
    const { assert!(cfg!(panic = "abort")) };
    for method in METHODS {
        let spawn = |function: fn(String) -> String| {
            let builder = Process::builder().start_method(method);
            builder.spawn(function, "text".to_string()).unwrap()
        };
        assert_eq!(spawn(|text| text).join().unwrap(), "text");

        let error = spawn(|text| panic!("{text} in {}", "main thread")).join().unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "text in main thread");
        assert!(panic.location().unwrap().contains("main.rs:"));

        // Any panic ends the process, so that it is the function's.
        let thread = |_| {
            let thread = std::thread::spawn(|| -> () { panic!("in a thread") });
            format!("{:?}", thread.join().is_ok())
        };
        let error = spawn(thread).join().unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "in a thread");

        // The panic of a copy is told to who copied it, and to nobody above.
        let outer = |_| {
            let inner = Process::fork(|| -> () { panic!("inner") }).unwrap();
            inner.join().unwrap_err().panic().unwrap().message().to_string()
        };
        let mut outer = spawn(outer);
        let value = outer.join_timeout(std::time::Duration::MAX).unwrap();
        assert_eq!(value.as_deref(), Some("inner"));
        assert!(outer.exit_status().unwrap().unwrap().success());

        // The process has ended as such programs do.
        let mut process = spawn(|_| panic!("status"));
        assert!(process.join_timeout(std::time::Duration::MAX).is_err());
        let status = process.exit_status().unwrap().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6));
    }
    println!("all went well");
}
