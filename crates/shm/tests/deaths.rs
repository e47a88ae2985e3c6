//! Killed after any single instruction of an operation: what others find is old, new, or an error.

use multiproc_harness::trace::Traced;
use multiproc_shm::{Array, Item, ShareableList, SharedMemory};

fn main() {
    multiproc_harness::run(&[
        ("setter_of_a_number_killed", setter_of_a_number_killed),
        ("setter_of_a_text_killed", setter_of_a_text_killed),
        ("setter_of_another_type_killed", setter_of_another_type_killed),
        ("copier_into_an_array_killed", copier_into_an_array_killed),
        ("creator_of_a_list_killed", creator_of_a_list_killed),
    ]);
}

/// Kills a process so many times on its way through what it does, and looks at what it leaves. Where
/// exactly differs from run to run, so that many runs kill at each instruction.
fn at_many(kills: u64, before: impl Fn(), act: impl Fn(), mut after: impl FnMut(bool)) {
    let all = Traced::start(&before, &act).run(u64::MAX, || {});
    after(true);
    let step = all.unwrap().div_ceil(kills);
    let first = u64::from(std::process::id()) % step;
    println!("    after {first}, {} .. instructions", first + step);
    for kill in 0..=kills + 1 {
        // The watchdog is for each of them.
        multiproc_harness::watchdog();
        let ended = Traced::start(&before, &act).run(first + kill * step, || {}).is_some();
        after(ended);
        if ended {
            return;
        }
    }
    panic!("it does not come to its end");
}

/// Kills the setter of an item.
fn set(old: Item, new: Item, may_break: bool) {
    let list = ShareableList::new([old.clone(), 1.into()]).unwrap();
    let same = ShareableList::from_memory(list.memory().clone()).unwrap();
    let (mut broken, mut changed) = (0, 0);
    let after = |ended: bool| {
        match list.get(0) {
            Ok(item) => {
                let item = item.unwrap();
                assert!(item == new || item == old && !ended, "{item:?}");
                changed += u32::from(item == new);
            }
            Err(error) => {
                assert!(error.is_foreign() && !ended, "{error}");
                broken += 1;
            }
        }
        // It is as good as new.
        assert_eq!(list.get(1).unwrap(), Some(1.into()));
        list.set(0, old.clone()).unwrap();
        assert_eq!(list.get(0).unwrap(), Some(old.clone()));
    };
    // The first time, pages are mapped and symbols are bound.
    let before = || same.set(0, old.clone()).unwrap();
    at_many(60, before, || same.set(0, new.clone()).unwrap(), after);
    assert!(changed > 0 && (broken > 0) == may_break, "{changed} changed, {broken} broken");
}

fn setter_of_a_number_killed() {
    set(7.into(), i64::MIN.into(), false);
    set("short".into(), "shorter".into(), false);
}

fn setter_of_a_text_killed() {
    set("a text of some length".into(), "another of that".into(), true);
}

fn setter_of_another_type_killed() {
    set(7.into(), 7.5.into(), true);
}

fn copier_into_an_array_killed() {
    let array = Array::from_slice(&[1u64; 40]).unwrap();
    let mut poisoned = 0;
    let after = |ended: bool| {
        match array.to_vec() {
            Ok(elements) => {
                let whole = [[1; 40], [2; 40]].contains(&elements.try_into().unwrap());
                assert!(whole);
            }
            Err(error) => {
                assert!(error.is_poisoned() && !ended, "{error}");
                poisoned += 1;
            }
        }
        array.lock_anyway().unwrap().fill(1);
        array.clear_poison();
    };
    let before = || array.copy_from_slice(&[1; 40]).unwrap();
    at_many(60, before, || array.copy_from_slice(&[2; 40]).unwrap(), after);
    assert!(poisoned > 0);
}

fn creator_of_a_list_killed() {
    let name = format!("multiproc-test-creator-{}", std::process::id());
    let items = || (0..2).map(Item::from);
    let (mut none, mut whole) = (0, 0);
    let after = |ended: bool| match ShareableList::open(&name) {
        Ok(list) => {
            assert!(list.to_vec().unwrap().into_iter().eq(items()));
            list.memory().unlink().unwrap();
            whole += 1;
        }
        Err(error) => {
            assert!(error.is_not_found() && !ended, "{error}");
            none += 1;
        }
    };
    // As in `set`.
    let before = || {
        ShareableList::create(&name, items()).unwrap();
        SharedMemory::unlink_name(&name).unwrap();
    };
    let create = || drop(ShareableList::create(&name, items()).unwrap());
    at_many(8, before, create, after);
    assert!(none > 0 && whole > 0, "{none} not made, {whole} made");
}
