//! Regions: what is refused, how they grow, what gates are.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_os::memory::Memory;
use multiproc_sync::RawLock;
use multiproc_sync::region::{Header, Region};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Door {
    gate: RawLock,
    passed: AtomicU64,
}

impl Header for Door {
    const KIND: [u8; 8] = *b"door\0\0\0\0";
}

#[derive(FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
struct Window([AtomicU64; 9]);

impl Header for Window {
    const KIND: [u8; 8] = *b"window\0\0";
}

fn fd(region: impl AsFd) -> OwnedFd {
    region.as_fd().try_clone_to_owned().unwrap()
}

/// A second handle, with mappings of its own, as another process has it.
fn reopen(region: &Region<Door>) -> Region<Door> {
    Region::from_fd(fd(region)).unwrap()
}

fn why_refused(fd: impl Into<OwnedFd>) -> String {
    let error = Region::<Door>::from_fd(fd.into()).unwrap_err();
    assert!(error.is_foreign(), "{error}");
    error.to_string()
}

#[test]
fn what_is_no_region_is_refused() {
    let (pipe, _writer) = std::io::pipe().unwrap();
    why_refused(pipe);
    why_refused(File::open("/proc/self/exe").unwrap());
    why_refused(File::open("/dev/zero").unwrap());
    let short = Memory::create("test", 100).unwrap();
    assert!(why_refused(short.into_fd()).contains("too short"));
    let zeros = Memory::create("test", 1 << 20).unwrap();
    assert!(why_refused(zeros.into_fd()).contains("something else"));
    let window = Region::<Window>::create("test", 8).unwrap();
    assert!(why_refused(fd(&window)).contains("window"));
}

/// Changes one byte of the region after the other, of those that say what it is.
#[test]
fn a_region_that_is_another_in_any_byte_is_refused() {
    const DESCRIPTION: u64 = 56;
    for growable in [false, true] {
        let make = if growable { Region::<Door>::create_growable } else { Region::create };
        for at in 0..DESCRIPTION {
            for bits in [0x01, 0x80, 0xff] {
                let region = make("test", 64).unwrap();
                let file = File::from(fd(&region));
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                byte[0] ^= bits;
                file.write_all_at(&byte, at).unwrap();
                match Region::<Door>::from_fd(fd(&region)) {
                    // Growable regions are told from others by any bit, and may have other lengths.
                    Ok(other) => {
                        assert!(at >= 48 || (36..40).contains(&at), "byte {at}: {other:?}")
                    }
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
    }
}

#[test]
fn lengths_are_awkward() {
    for len in [0, 1, 63, 64, 4095, 4096, 4097, 1 << 20] {
        for make in [Region::<Door>::create, Region::create_growable] {
            let region = make("test", len).unwrap();
            region.lock().unwrap().bytes_mut().fill(7);
            let again = reopen(&region);
            let guard = again.lock().unwrap();
            assert_eq!(guard.bytes().len(), len);
            assert!(guard.bytes().iter().all(|byte| *byte == 7));
            assert_eq!(guard.region().header().passed.load(Relaxed), 0);
        }
    }
    for len in [usize::MAX, isize::MAX as usize, isize::MAX as usize - 100] {
        assert!(Region::<Door>::create("test", len).unwrap_err().is_too_long());
        assert!(Region::<Door>::create_growable("test", len).unwrap_err().is_too_long());
    }
    let sparse = Region::<Door>::create("test", 4 << 30).unwrap();
    assert_eq!(sparse.lock().unwrap().bytes().last(), Some(&0));
}

#[test]
fn a_growth_is_followed() {
    let region = Region::<Door>::create_growable("test", 10).unwrap();
    let other = reopen(&region);
    region.lock().unwrap().bytes_mut().fill(1);
    for len in [11, 4096, 4097, 1 << 20] {
        let mut guard = region.lock().unwrap();
        let old = guard.bytes().len();
        guard.grow(len).unwrap();
        guard.grow(5).unwrap();
        assert_eq!(guard.bytes().len(), len);
        assert!(guard.bytes()[old..].iter().all(|byte| *byte == 0));
        guard.bytes_mut()[old..].fill(1);
        drop(guard);
        assert_eq!(other.len(), len);
        assert!(other.lock().unwrap().bytes() == vec![1; len]);
    }
    // The other way round.
    other.lock().unwrap().grow(2 << 20).unwrap();
    assert_eq!(region.lock().unwrap().bytes().len(), 2 << 20);
    assert!(region.lock().unwrap().grow(usize::MAX).unwrap_err().is_too_long());
    assert_eq!(region.lock().unwrap().bytes().len(), 2 << 20);

    let fixed = Region::<Door>::create("test", 10).unwrap();
    assert!(fixed.lock().unwrap().grow(11).is_err());
}

#[test]
fn what_is_discarded_is_zero() {
    let region = Region::<Door>::create_growable("test", 1 << 20).unwrap();
    let mut guard = region.lock().unwrap();
    guard.bytes_mut().fill(1);
    guard.discard(4096..(1 << 20) - 10).unwrap();
    guard.discard(0..0).unwrap();
    assert!(guard.bytes()[..4096].iter().all(|byte| *byte == 1));
    assert!(guard.bytes()[4096..(1 << 20) - 10].iter().all(|byte| *byte == 0));
    assert!(guard.bytes()[(1 << 20) - 10..].iter().all(|byte| *byte == 1));
}

#[test]
fn a_gate_is_a_lock_apart_from_the_bytes() {
    let region = Region::<Door>::create("test", 8).unwrap();
    let other = reopen(&region);
    let gate = region.lock_gate(|door| &door.gate, Deadline::NEVER).unwrap();
    assert!(!gate.holder_died());
    drop(other.lock().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(other.try_lock_gate(|door| &door.gate).unwrap().is_none());
            let soon = Deadline::after(Duration::from_millis(1));
            assert!(other.lock_gate(|door| &door.gate, soon).unwrap_err().is_timeout());
        });
    });
    drop(gate);
    assert!(other.try_lock_gate(|door| &door.gate).unwrap().is_some());

    std::mem::forget(region.lock_gate(|door| &door.gate, Deadline::NEVER).unwrap());
    drop(region);
    drop(other.lock().unwrap());
}

#[test]
#[should_panic(expected = "not in the header")]
fn a_gate_of_another_region_is_refused() {
    static ELSEWHERE: RawLock = RawLock::new();
    let region = Region::<Door>::create("test", 8).unwrap();
    let _refused = region.lock_gate(|_| &ELSEWHERE, Deadline::NEVER);
}
