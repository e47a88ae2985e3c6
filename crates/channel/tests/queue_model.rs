//! Proves that a queue does what a `VecDeque` does, whatever is put in and taken out in which order:
//! records go round the end of the ring at every place, while it grows and after it has shrunk.

use std::collections::VecDeque;

use multiproc_channel::Queue;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Puts in an item of so many bytes.
    Put(usize),
    Get,
    /// Takes out all but so many.
    Drain(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let len = prop_oneof![
        8 => 0..200usize,
        4 => 1000..9000usize,
        1 => 60_000..70_000usize,
        1 => 100_000..700_000usize,
    ];
    prop_oneof![
        10 => len.prop_map(Act::Put),
        8 => Just(Act::Get),
        1 => (0..4usize).prop_map(Act::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_is_like_a_deque(acts in vec(act(), 1..200), bound in prop_oneof![Just(usize::MAX), 1..20usize]) {
        let (queue, mut model) = (Queue::bounded(bound).unwrap(), VecDeque::new());
        // Another handle has its own mapping, which follows the growth of the first.
        let message = multiproc_wire::encode(&queue).unwrap();
        let other: Queue<Vec<u8>> = multiproc_wire::decode(message).unwrap();
        let mut number = 0u8;
        for (step, act) in acts.into_iter().enumerate() {
            let handle = if step % 3 == 0 { &other } else { &queue };
            match act {
                Act::Put(len) => {
                    number = number.wrapping_add(1);
                    let item: Vec<u8> = (0..len).map(|i| number.wrapping_add(i as u8)).collect();
                    match handle.try_put(item.clone()) {
                        Ok(()) => model.push_back(item),
                        Err(error) => {
                            prop_assert!(error.is_full() && model.len() == bound);
                            prop_assert!(error.into_inner().unwrap() == item);
                        }
                    }
                }
                Act::Get => prop_assert!(handle.try_get().unwrap() == model.pop_front()),
                Act::Drain(left) => {
                    while model.len() > left {
                        prop_assert!(handle.try_get().unwrap() == model.pop_front());
                    }
                }
            }
            prop_assert_eq!(queue.len(), model.len());
            prop_assert_eq!(other.is_empty(), model.is_empty());
            prop_assert_eq!(other.is_full(), model.len() == bound);
        }
        other.close();
        let rest: Vec<_> = queue.iter().map(Result::unwrap).collect();
        prop_assert!(model == rest);
    }
}

#[test]
fn a_record_goes_round_the_end_at_every_place() {
    // Records of 16 bytes and up: each offset that a record can have at the end of the first ring.
    for len in (0..40).step_by(3) {
        for before in 0..8 {
            let queue = Queue::new().unwrap();
            let item = |i: usize| vec![i as u8; len];
            queue.put(vec![0; before * 8]).unwrap();
            queue.get().unwrap();
            let mut put = 0;
            let mut got = 0;
            // Once round with little in it, then over the capacity.
            while put * 16 < 70 << 10 {
                queue.put(item(put)).unwrap();
                put += 1;
                if put - got > 3 {
                    assert_eq!(queue.get().unwrap(), item(got));
                    got += 1;
                }
            }
            let all = put + 5000;
            (put..all).for_each(|i| queue.put(item(i)).unwrap());
            (got..all).for_each(|i| assert_eq!(queue.get().unwrap(), item(i)));
            assert!(queue.is_empty());
        }
    }
}
