//! Named memory and lists, shared with Python's `multiprocessing.shared_memory` both ways.
#![allow(unsafe_code)] // alarm(2).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Once;

use multiproc_shm::{Item, ShareableList, SharedMemory};

/// Runs each line that it is given, and answers with what it evaluates to.
const SHELL: &str = r#"
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory, ShareableList

def leave_alone(memory):
    # Else Python unlinks at its exit even what it has only attached.
    resource_tracker.unregister(memory._name, "shared_memory")

for line in sys.stdin:
    try:
        try:
            answer = repr(eval(line))
        except SyntaxError:
            exec(line)
            answer = "done"
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(answer, flush=True)
"#;

struct Python {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Python {
    /// `None`, and a word about it, if there is no Python, or one that is too old.
    fn start() -> Option<Self> {
        // SAFETY: starts a timer of this process, which ends it.
        unsafe { libc::alarm(120) };
        if let Some(why) = unusable() {
            static ONCE: Once = Once::new();
            let line = format!("skipped: {why}\n");
            // The harness captures what is printed by macros.
            ONCE.call_once(|| io::stderr().write_all(line.as_bytes()).unwrap());
            return None;
        }
        let mut command = Command::new("python3");
        command.args(["-c", SHELL]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Python { child, input, output })
    }

    /// Gives what a line evaluates to.
    fn eval(&mut self, line: impl AsRef<str>) -> String {
        writeln!(self.input.as_ref().unwrap(), "{}", line.as_ref()).unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    fn exec(&mut self, line: impl AsRef<str>) {
        let answer = self.eval(&line);
        assert!(answer == "done" || answer == "None", "{}: {answer}", line.as_ref());
    }

    /// Ends it, and waits until its resource tracker has ended too. Gives what both complained of.
    fn exit(mut self) -> String {
        self.input = None;
        let mut complaints = String::new();
        let stderr = self.child.stderr.as_mut();
        // The tracker has it open.
        stderr.unwrap().read_to_string(&mut complaints).unwrap();
        assert!(self.child.wait().unwrap().success());
        complaints
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Of one that has ended, both fail.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Why Python can not be tested with.
fn unusable() -> Option<String> {
    // Python 3.8 lays its lists out otherwise.
    let old = "import sys; sys.exit(sys.version_info < (3, 9))";
    match Command::new("python3").args(["-c", old]).status() {
        Ok(status) if status.success() => None,
        Ok(_) => Some("python3 is older than 3.9".to_owned()),
        Err(error) => Some(format!("python3 does not run: {error}")),
    }
}

fn name(what: &str) -> String {
    format!("multiproc-test-python-{what}-{}", std::process::id())
}

fn bytes(memory: &SharedMemory, offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn memory_of_rust_is_read_and_written_by_python() {
    let Some(mut python) = Python::start() else { return };
    let name = name("rust");
    let memory = SharedMemory::create(&name, 5000).unwrap();
    memory.write(4990, b"from Rust").unwrap();

    python.exec(format!("memory = SharedMemory(name={name:?})"));
    python.exec("leave_alone(memory)");
    assert_eq!(python.eval("memory.size"), "5000");
    assert_eq!(python.eval("bytes(memory.buf[4990:4999])"), "b'from Rust'");
    python.exec("memory.buf[:11] = b'from Python'");
    assert_eq!(bytes(&memory, 0, 11), b"from Python");
    let exists = python.eval(format!("SharedMemory(name={name:?}, create=True, size=1)"));
    assert!(exists.starts_with("FileExistsError"), "{exists}");
    assert_eq!(python.exit(), "");

    // It was left alone.
    SharedMemory::open(&name).unwrap().unlink().unwrap();
}

#[test]
fn python_unlinks_what_it_is_not_told_to_leave_alone() {
    let Some(mut python) = Python::start() else { return };
    let name = name("attached");
    let memory = SharedMemory::create(&name, 1).unwrap();
    python.exec(format!("memory = SharedMemory(name={name:?})"));
    let complaints = python.exit();
    assert!(complaints.contains("leaked shared_memory"), "{complaints}");
    assert!(memory.unlink().unwrap_err().is_not_found());
}

#[test]
fn memory_of_python_is_read_and_written_by_rust() {
    let Some(mut python) = Python::start() else { return };
    python.exec("memory = SharedMemory(create=True, size=5000)");
    let name = python.eval("memory.name");
    let name = name.trim_matches('\'');
    python.exec("memory.buf[4990:] = b'Python'.ljust(10)");

    let memory = SharedMemory::open(name).unwrap();
    assert_eq!((memory.len(), bytes(&memory, 4990, 10)), (5000, b"Python    ".to_vec()));
    memory.write(1, b"Rust").unwrap();
    assert_eq!(python.eval("bytes(memory.buf[:6])"), "b'\\x00Rust\\x00'");
    assert!(SharedMemory::create(name, 1).unwrap_err().is_already_exists());
    python.exec("memory.unlink()");
    assert_eq!(python.exit(), "");
    assert!(SharedMemory::open(name).unwrap_err().is_not_found());
    assert_eq!(bytes(&memory, 1, 4), b"Rust");
}

#[test]
fn a_list_of_rust_is_read_and_changed_by_python() {
    let Some(mut python) = Python::start() else { return };
    let name = name("list");
    let items = ["howdy".into(), b"\x00\xff".into(), 100.into(), (-273.15).into(), true.into()];
    let list = ShareableList::create(&name, items.into_iter().chain([Item::None, "ü".into()]));
    let list = list.unwrap();

    python.exec(format!("found = ShareableList(name={name:?})"));
    python.exec("leave_alone(found.shm)");
    let all = "['howdy', b'\\x00\\xff', 100, -273.15, True, None, 'ü']";
    assert_eq!(python.eval("list(found)"), all);
    assert_eq!(python.eval("found.format"), "'8s8sqdxxxxxxx?xxxxxx?x8s'");
    for change in ["found[0] = 12345678", "found[2] = 'a text'", "found[3] = None"] {
        python.exec(change);
    }
    python.exec("found[4] = b'bytes'");
    let items = [12345678.into(), b"\x00\xff".into(), "a text".into(), Item::None];
    assert_eq!(list.to_vec().unwrap()[..4], items);
    assert_eq!(list.get(4).unwrap(), Some(b"bytes".into()));
    list.set(0, "eight by").unwrap();
    list.set(1, false).unwrap();
    list.set(5, i64::MIN).unwrap();
    assert_eq!(
        python.eval("found[0], found[1], found[5]"),
        format!("('eight by', False, {})", i64::MIN)
    );
    assert!(python.eval("found.__setitem__(0, 'x' * 9)").starts_with("ValueError"));
    assert_eq!(python.exit(), "");
    list.memory().unlink().unwrap();
}

#[test]
fn a_list_of_python_is_read_and_changed_by_rust() {
    let Some(mut python) = Python::start() else { return };
    python.exec("made = ShareableList(['howdy', b'', 100, -2.5, True, None, 'x' * 20])");
    let name = python.eval("made.shm.name");
    let list = ShareableList::open(name.trim_matches('\'')).unwrap();
    let long = "x".repeat(20);
    let items = ["howdy".into(), b"".into(), 100.into(), (-2.5).into(), true.into(), Item::None];
    assert_eq!(list.to_vec().unwrap()[..6], items);
    assert_eq!(list.index(&*long).unwrap(), Some(6));

    list.set(0, 7).unwrap();
    list.set(3, "half").unwrap();
    list.set(5, b"some").unwrap();
    list.set(6, "24 bytes fit into a slot").unwrap();
    assert!(list.set(6, "25 bytes do not go into it").unwrap_err().is_too_long());
    let all = "[7, b'', 100, 'half', True, b'some', '24 bytes fit into a slot']";
    assert_eq!(python.eval("list(made)"), all);
    assert_eq!(python.eval("(made.count(True), made.index('half'))"), "(1, 3)");
    python.exec("made[6] = 'short'");
    assert_eq!(list.get(6).unwrap(), Some("short".into()));

    // Both write the same bytes.
    python.exec("again = ShareableList(list(made))");
    let theirs = SharedMemory::open(python.eval("again.shm.name").trim_matches('\'')).unwrap();
    let ours = ShareableList::new(list.to_vec().unwrap()).unwrap();
    assert_eq!(bytes(&theirs, 0, theirs.len()), bytes(ours.memory(), 0, theirs.len()));
    python.eval("(made.shm.unlink(), again.shm.unlink())");
    assert_eq!(python.exit(), "");
}
