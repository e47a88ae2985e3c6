//! What was sent just before an end was closed is received, whenever the other end looks.

use std::thread;
use std::time::Duration;

use multiproc_os::deadline::Deadline;
use multiproc_wire::{Endpoint, encode};

#[test]
fn the_last_message_before_a_close_is_received() {
    // The two threads meet at the socket again and again, so that some receives fall between the
    // message and the close.
    let (ends, to_be_used) = std::sync::mpsc::sync_channel::<Endpoint>(1);
    let sender = thread::spawn(move || {
        for end in to_be_used {
            assert!(end.send(&encode(&7u32).unwrap(), Deadline::NEVER).unwrap());
        }
    });
    for round in 0..100_000 {
        let (here, there) = Endpoint::pair().unwrap();
        ends.send(there).unwrap();
        let received = here.recv::<u32>(Deadline::after(Duration::from_secs(60)));
        assert_eq!(received.unwrap(), Some(7), "round {round}");
        let end = here.recv::<u32>(Deadline::after(Duration::from_secs(60)));
        assert!(end.unwrap_err().is_closed());
    }
    drop(ends);
    sender.join().unwrap();
}
