//! The connection to the server, and what driver and agents both do with it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Batch, Config as Pulled};
use async_nats::jetstream::consumer::{AckPolicy, Consumer};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::Config as Bucket;
use async_nats::jetstream::stream::{Config, RetentionPolicy, Stream};
use async_nats::jetstream::{Context, Message};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr, jetstream};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use crate::build::Build;
use crate::error::{Error, Kind};
use crate::key::Key;
use crate::names::{Names, Session};
use crate::options::Options;

/// For how long the server keeps what nobody has asked for.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// After so long without a driver's pulls the server forgets its consumer.
const FORGOTTEN: Duration = Duration::from_secs(5 * 60);

/// For how long one pull is open.
const PULL: Duration = Duration::from_secs(5);

/// How often a pull looks whether the connection is still the one on which it was made.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) names: Names,
    pub(crate) key: Key,
    pub(crate) build: Build,
    lease: Duration,
    replicas: usize,
}

/// One batch of messages that was asked for.
///
/// Never `messages()` of the consumer: under load, that one was seen to stand still for half a minute.
pub(crate) struct Pull {
    batch: Batch,
    client: Client,
    connects: u64,
    end: Instant,
}

impl Connection {
    /// Connects, and makes the streams that are not there.
    pub(crate) async fn open(url: &str, options: &Options) -> Result<Self, Error> {
        let key = options.key()?;
        let build = Build::own().map_err(Kind::Build)?;
        let server = without_password(url);
        // The sources of the errors may name the address as it was given, with its password.
        let refused = |kind| Kind::Connect { server: server.clone(), kind };
        let servers = url.split(',').map(|url| url.trim().parse::<ServerAddr>());
        let servers: Vec<_> = servers
            .collect::<Result<_, _>>()
            .map_err(|_| refused(ConnectErrorKind::ServerParse))?;
        let login = with_login(options.connection.clone(), &servers);
        let connected = login.connect(&servers[..]).await;
        let client = connected.map_err(|error| refused(error.kind()))?;
        let connection = Connection {
            context: jetstream::new(client.clone()),
            client,
            names: Names::new(&options.name),
            key,
            build,
            lease: options.lease,
            replicas: options.replicas,
        };
        connection.set_up().await.map_err(|reason| Kind::JetStream { server, reason })?;
        Ok(connection)
    }

    /// Makes the streams that are not there.
    pub(crate) async fn set_up(&self) -> Result<(), String> {
        let names = &self.names;
        let stream = |name: String, of: &str| Config {
            name,
            subjects: vec![names.all(of)],
            max_age: DAY,
            num_replicas: self.replicas,
            retention: RetentionPolicy::WorkQueue,
            ..Config::default()
        };
        let leases = Config {
            retention: RetentionPolicy::Limits,
            max_messages_per_subject: 1,
            max_age: self.lease,
            duplicate_window: self.lease.min(Duration::from_secs(1)),
            ..stream(names.leases_stream(), "leases")
        };
        let streams = [
            stream(names.tasks_stream(), "tasks"),
            stream(names.results_stream(), "results"),
            leases,
        ];
        for config in streams {
            let name = config.name.clone();
            if let Err(error) = self.context.get_or_create_stream(config).await
                // Another may have made it meanwhile, with another lease.
                && self.context.get_stream(name).await.is_err()
            {
                return Err(error.to_string());
            }
        }
        let bucket = names.payloads();
        if self.context.get_object_store(&bucket).await.is_err() {
            let replicas = self.replicas;
            let config = Bucket {
                bucket: bucket.clone(),
                max_age: DAY,
                num_replicas: replicas,
                ..Bucket::default()
            };
            if let Err(error) = self.context.create_object_store(config).await
                && self.context.get_object_store(&bucket).await.is_err()
            {
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// A stream that is there, or is made anew by the next [`set_up`](Connection::set_up).
    pub(crate) async fn stream(&self, name: String) -> Result<Stream<()>, String> {
        self.context.get_stream_no_info(name).await.map_err(|error| error.to_string())
    }

    /// Gives the consumer of all agents of this build.
    pub(crate) async fn tasks(&self, ack_wait: Duration) -> Result<Consumer<Pulled>, String> {
        let config = Pulled {
            durable_name: Some(self.names.agents_consumer(self.build)),
            filter_subject: self.names.tasks_of_build(self.build),
            inactive_threshold: DAY,
            ack_wait,
            ..pulled()
        };
        self.consumer(self.names.tasks_stream(), config).await
    }

    /// Gives the consumer of a driver.
    pub(crate) async fn results(&self, session: Session) -> Result<Consumer<Pulled>, String> {
        let config = Pulled {
            durable_name: Some(self.names.driver_consumer(session)),
            filter_subject: self.names.results_of_session(session),
            inactive_threshold: FORGOTTEN,
            ack_wait: Duration::from_secs(30),
            ..pulled()
        };
        self.consumer(self.names.results_stream(), config).await
    }

    async fn consumer(&self, stream: String, config: Pulled) -> Result<Consumer<Pulled>, String> {
        self.set_up().await?;
        let made = self.context.create_consumer_on_stream(config, stream).await;
        made.map_err(|error| error.to_string())
    }

    /// Asks for messages, as many as these at most.
    pub(crate) async fn pull(
        &self,
        consumer: &Consumer<Pulled>,
        most: usize,
    ) -> Result<Pull, String> {
        let connects = connects(&self.client);
        let batch = consumer.batch().max_messages(most).expires(PULL).messages().await;
        let batch = batch.map_err(|error| error.to_string())?;
        let end = Instant::now() + PULL + Duration::from_secs(2);
        Ok(Pull { batch, client: self.client.clone(), connects, end })
    }

    /// Publishes a message, and waits until the server has it. The server drops others with its id.
    pub(crate) async fn publish(
        &self,
        subject: String,
        id: Option<String>,
        message: Bytes,
    ) -> Result<(), String> {
        let mut message = PublishMessage::build().payload(message);
        if let Some(id) = id {
            message = message.message_id(id);
        }
        let sent = self.context.send_publish(subject, message).await;
        let acknowledged = sent.map_err(|error| error.to_string())?.await;
        acknowledged.map(|_| ()).map_err(|error| error.to_string())
    }

    /// The same, as often as it takes.
    pub(crate) async fn insist(&self, subject: String, id: String, message: Bytes) {
        let mut pause = Pause::default();
        while self.publish(subject.clone(), Some(id.clone()), message.clone()).await.is_err() {
            pause.wait().await;
            // Perhaps the server has lost the stream.
            let _later = self.set_up().await;
        }
    }

    /// Publishes a message that nobody need have.
    pub(crate) async fn tell(&self, subject: String, message: Vec<u8>) {
        let _lost = self.client.publish(subject, message.into()).await;
    }

    /// Removes messages from a stream.
    pub(crate) async fn purge(&self, stream: String, subject: String) {
        if let Ok(stream) = self.stream(stream).await {
            let _later = stream.purge().filter(subject).await;
        }
    }

    /// How often the connection was made.
    pub(crate) fn connects(&self) -> u64 {
        connects(&self.client)
    }

    /// What is larger does not travel in a message.
    pub(crate) fn most_inline(&self) -> usize {
        const MOST: usize = 512 << 10;
        MOST.min(self.client.server_info().max_payload / 2)
    }
}

impl Pull {
    /// Waits for the next message. `None` after the last, and when no more will come.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, String>> {
        loop {
            match timeout(LOOK, self.batch.next()).await {
                Ok(message) => return Some(message?.map_err(|error| error.to_string())),
                // A server that was started anew knows nothing of it.
                Err(_) if connects(&self.client) != self.connects => return None,
                Err(_) if self.end <= Instant::now() => return None,
                Err(_) => {}
            }
        }
    }
}

fn pulled() -> Pulled {
    Pulled { ack_policy: AckPolicy::Explicit, max_ack_pending: 1 << 16, ..Pulled::default() }
}

fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Relaxed)
}

/// Longer and longer pauses between attempts.
#[derive(Debug, Default)]
pub(crate) struct Pause(u32);

impl Pause {
    pub(crate) async fn wait(&mut self) {
        sleep(Duration::from_millis(20 << self.0.min(5))).await;
        self.0 += 1;
    }
}

/// Takes the user and password, or the token, that stand in an address: the client does not.
fn with_login(connection: ConnectOptions, servers: &[ServerAddr]) -> ConnectOptions {
    let login = servers.iter().find_map(|server| Some((server.username()?, server.password())));
    match login {
        None => connection,
        Some((token, None)) => connection.token(decoded(token)),
        Some((user, Some(password))) => {
            connection.user_and_password(decoded(user), decoded(password))
        }
    }
}

/// A part of an address, in which some characters stand as `%` and their number.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part[2..].bytes());
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The addresses of servers, without what stands before the `@` of each.
pub(crate) fn without_password(url: &str) -> String {
    let one = |url: &str| {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        format!("{scheme}://{host}")
    };
    url.split(',').map(|url| one(url.trim())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{decoded, without_password};

    #[test]
    fn addresses_are_decoded() {
        assert_eq!(decoded("p%40ss%"), "p@ss%");
        assert_eq!(decoded("%zz%2"), "%zz%2");
        assert_eq!(decoded("plain"), "plain");
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("nats://a:s3cret@hub:4222"), "nats://hub:4222");
        assert_eq!(without_password("a:p@ss@hub"), "nats://hub");
        assert_eq!(without_password("tls://one, tls://token@two"), "tls://one, tls://two");
    }
}
