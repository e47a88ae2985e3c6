//! A worker that the kernel kills for want of memory is told as that and costs its task alone; one that
//! is killed otherwise is not told as that. Alone in its binary: what tells is a counter of the machine's,
//! which each process looks at as a whole.

mod common;

use std::fs::{self, File, read_to_string, write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{eventually, gate, kill, pass, skipped, watchdog};
use multiproc_pool::{Pool, TaskError};
use multiproc_process::init_before_main;
use multiproc_wire::Fd;

init_before_main!();

const SIGKILL: i32 = 9;

/// What the processes of the group may have, and what the task wants.
const LIMIT: usize = 50 << 20;
const WANTED: usize = 4 * LIMIT;
const PAGE: usize = 4096;

/// A control group of this test's own, with a limit of memory.
struct Group(PathBuf);

impl Group {
    /// `None`, and a word about it, if there can be none.
    fn make() -> Option<Self> {
        Group::try_make()
            .map_err(|why| {
                skipped(format_args!("no control group for memory can be made: {why}"));
            })
            .ok()
    }

    fn try_make() -> Result<Self, String> {
        let groups = read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let of = |controller: &str| {
            groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|name| name == controller).then_some(path)
            })
        };
        match (of("memory"), of("")) {
            (Some(path), _) => Group::in_first(&place_of("cgroup", "memory", path)?),
            (_, Some(path)) => Group::in_second(&place_of("cgroup2", "", path)?),
            _ => Err("this process is in none".into()),
        }
    }

    /// In a hierarchy of the first version.
    fn in_first(parent: &Path) -> Result<Self, String> {
        let group = Group::below(parent)?;
        group.set("memory.limit_in_bytes", LIMIT)?;
        // Where there is no swap to be had, there may be nothing to say so to.
        let _none = group.set("memory.memsw.limit_in_bytes", LIMIT);
        let _none = group.set("memory.swappiness", 0);
        Ok(group)
    }

    /// In a hierarchy of the second version, where not every group can limit those below it.
    fn in_second(own: &Path) -> Result<Self, String> {
        let limits = |place: &&Path| {
            let given = read_to_string(place.join("cgroup.subtree_control"));
            given.is_ok_and(|given| given.split_whitespace().any(|name| name == "memory"))
        };
        let parent =
            own.ancestors().find(limits).ok_or("none above this process's limits memory")?;
        let group = Group::below(parent)?;
        group.set("memory.max", LIMIT)?;
        let _none = group.set("memory.swap.max", 0);
        Ok(group)
    }

    fn below(parent: &Path) -> Result<Self, String> {
        let path = parent.join(format!("multiproc-test-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Group(path))
    }

    fn set(&self, what: &str, value: usize) -> Result<(), String> {
        write(self.0.join(what), value.to_string()).map_err(|error| format!("{what}: {error}"))
    }

    /// Where the processes are listed that are in it. Who writes 0 there moves itself.
    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    /// A process that is still in it would keep it, and one that has just ended does so for a moment.
    fn drop(&mut self) {
        eventually(|| {
            let left = read_to_string(self.processes()).unwrap_or_default();
            left.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0).for_each(kill);
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

/// The directory of a group, whose path begins where the hierarchy does.
fn place_of(kind: &str, controller: &str, path: &str) -> Result<PathBuf, String> {
    let mounts = read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let place = mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let is_kind = file_system.next()? == kind;
        let mut options = file_system.nth(1)?.split(',');
        let is_it = is_kind && (controller.is_empty() || options.any(|name| name == controller));
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let below = Path::new(path).strip_prefix(root).ok().filter(|_| is_it)?;
        Some(Path::new(point).join(below))
    });
    place.ok_or_else(|| format!("the group {path} is not mounted here"))
}

/// How many processes the kernel has killed for want of memory.
fn killed_by_kernel() -> u64 {
    let counters = read_to_string("/proc/vmstat").unwrap();
    let counter = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    counter.unwrap().trim().parse().unwrap()
}

/// Whose kill it was is known by what was counted meanwhile: one test after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    watchdog();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pool() -> Pool {
    Pool::builder().workers(2).build().unwrap()
}

/// Every page of it is written to.
fn take_memory() {
    let mut bytes = vec![0_u8; WANTED];
    bytes.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(bytes);
}

fn take_too_much((group, x): (PathBuf, u32)) -> u32 {
    if x == 57 {
        write(group, "0").unwrap();
        take_memory();
    }
    x
}

fn die((_, x): (PathBuf, u32)) -> u32 {
    if x == 57 {
        kill(std::process::id());
    }
    x
}

/// Runs a hundred tasks, and gives the error of the one that fails.
fn error_of(pool: &Pool, task: fn((PathBuf, u32)) -> u32, path: &Path) -> TaskError {
    let outcomes = pool.try_map(task, (0..100).map(|x| (path.to_owned(), x))).unwrap();
    assert_eq!(outcomes.len(), 100);
    let mut failed = None;
    for (x, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(value) => assert!(value == x as u32 && x != 57, "{x}: {value}"),
            Err(error) => {
                assert!(x == 57 && error.is_death(), "{x}: {error}");
                assert_eq!(error.signal(), Some(SIGKILL), "{error}");
                failed = Some(error);
            }
        }
    }
    failed.expect("task 57 fails")
}

#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory() {
    let _alone = alone();
    let Some(group) = Group::make() else { return };
    let pool = pool();
    for chunk in [1, 10, 100] {
        let pool = pool.with_chunk_size(chunk);
        let before = killed_by_kernel();
        let error = error_of(&pool, take_too_much, &group.processes());
        assert!(killed_by_kernel() > before);
        assert!(error.is_out_of_memory(), "{error}");
        let text = error.to_string();
        assert!(text.contains("by the kernel, for want of memory"), "{text}");
        // One that comes right after it is another matter.
        not_blamed_on_the_kernel(&error_of(&pool, die, Path::new("")));
    }
}

/// Regression: who saw the first death had seen both kills, and the other was nobody's.
#[test]
fn two_workers_that_the_kernel_kills_at_once() {
    let _alone = alone();
    let Some(group) = Group::make() else { return };
    let pool = pool().with_chunk_size(1);
    for round in 0..20 {
        let before = killed_by_kernel();
        let (fd, gate) = gate();
        let tasks = (0..2).map(|_| (group.processes(), fd.try_clone().unwrap().into()));
        let task = |(group, gate): (PathBuf, Fd<File>)| {
            write(group, "0").unwrap();
            pass(&gate);
            take_memory();
        };
        let later = pool.map_async(task, tasks).unwrap();
        eventually(|| read_to_string(group.processes()).unwrap().lines().count() == 2);
        gate.let_through(2);
        let errors = later.outcomes().into_iter().map(Result::unwrap_err);
        assert_eq!(errors.filter(TaskError::is_out_of_memory).count(), 2, "round {round}");
        assert!(killed_by_kernel() - before >= 2, "round {round}");
        not_blamed_on_the_kernel(&error_of(&pool, die, Path::new("")));
    }
}

#[test]
fn a_worker_that_somebody_kills() {
    let _alone = alone();
    let pool = pool();
    for chunk in [1, 10, 100] {
        not_blamed_on_the_kernel(&error_of(&pool.with_chunk_size(chunk), die, Path::new("")));
    }
}

fn not_blamed_on_the_kernel(error: &TaskError) {
    assert!(!error.is_out_of_memory(), "{error}");
    assert!(!error.to_string().contains("memory"), "{error}");
}
