//! iceoryx2's publisher and subscriber, whose messages stay where they are in shared memory, with its
//! events to wake who waits for one.

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

/// One end of two ways.
pub struct End {
    publisher: Publisher<ipc::Service, [u8], ()>,
    notifier: Notifier<ipc::Service>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    listener: Listener<ipc::Service>,
    // Its services end with it.
    _node: Node<ipc::Service>,
}

impl End {
    /// Opens an end, or makes it, of the ways of these names.
    pub fn open(to: &str, from: &str, len: usize) -> Self {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new().create::<ipc::Service>().unwrap();
        let data = |name: &str| {
            let service = node.service_builder(&name.try_into().unwrap());
            service.publish_subscribe::<[u8]>().open_or_create().unwrap()
        };
        let event = |name: &str| {
            let service = node.service_builder(&format!("{name}.event")[..].try_into().unwrap());
            service.event().open_or_create().unwrap()
        };
        let publisher = data(to).publisher_builder().initial_max_slice_len(len).create();
        End {
            publisher: publisher.unwrap(),
            notifier: event(to).notifier_builder().create().unwrap(),
            subscriber: data(from).subscriber_builder().create().unwrap(),
            listener: event(from).listener_builder().create().unwrap(),
            _node: node,
        }
    }

    /// Copies the bytes into shared memory, and wakes the other.
    pub fn send(&self, bytes: &[u8]) {
        let sample = self.publisher.loan_slice_uninit(bytes.len()).unwrap();
        sample.write_from_slice(bytes).send().unwrap();
        self.notifier.notify().unwrap();
    }

    /// Waits for a message, and looks at it where it is.
    pub fn receive(&self, look: impl FnOnce(&[u8])) {
        loop {
            if let Some(sample) = self.subscriber.receive().unwrap() {
                return look(sample.payload());
            }
            self.listener.blocking_wait(|_| ()).unwrap();
        }
    }
}
