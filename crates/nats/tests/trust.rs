//! Who has another key, another password or another program gets nothing done.

mod common;

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use common::{
    KEY, PATIENCE, Running, Server, agent_command, eventually, exe, lines, no_driver, note,
    options, run,
};
use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt;
use multiproc_nats::{ConnectOptions, Options, Pool};
use nkeys::KeyPair;

fn main() {
    let tests: &[(&str, fn())] = &[
        ("an_agent_of_another_build_refuses", an_agent_of_another_build_refuses),
        ("a_wrong_password_is_refused", a_wrong_password_is_refused),
        ("an_nkey_is_taken", an_nkey_is_taken),
        ("a_credentials_file_is_taken", a_credentials_file_is_taken),
        ("tls_is_taken", tls_is_taken),
        ("forged_and_altered_jobs_are_refused", forged_and_altered_jobs_are_refused),
        ("another_key_gets_nothing_done", another_key_gets_nothing_done),
        ("a_result_cannot_be_forged", a_result_cannot_be_forged),
        ("what_is_wrong_with_the_options_is_said", what_is_wrong_with_the_options_is_said),
    ];
    run(tests, no_driver);
}

fn square(x: u64) -> u64 {
    x * x
}

fn an_agent_of_another_build_refuses() {
    let server = Server::start();
    // One byte more behind all sections: it runs the same, and is another file.
    let other = server.path("other-build");
    fs::copy(exe(), &other).unwrap();
    fs::File::options().append(true).open(&other).unwrap().write_all(b"!").unwrap();
    let _other =
        Running::start(&mut agent_command(other.into(), &server.url(), Duration::from_secs(30), 1));
    let pool = server.connect();
    let error = pool.apply(square, 3).unwrap_err();
    assert!(error.is_not_run(), "{error}");
    let text = error.to_string();
    let builds: Vec<&str> = text.split("build ").skip(1).map(|rest| &rest[..16]).collect();
    assert!(builds.len() >= 2 && builds.iter().any(|build| *build != builds[0]), "{text}");
    assert!(builds.iter().all(|b| b.bytes().all(|byte| byte.is_ascii_hexdigit())), "{text}");
    assert!(pool.agents().is_empty());
    // It is in nobody's way.
    let _agent = server.agent();
    assert!(pool.wait_for_agents(1, PATIENCE));
    assert_eq!(pool.map(square, 0..100).unwrap()[99], 99 * 99);
}

fn a_wrong_password_is_refused() {
    const WRONG: &str = "wr0ngpassword";
    let server = Server::with(&["--user", "lab", "--pass", "secret"]);
    let login = |password: &str| {
        let login = ConnectOptions::with_user_and_password("lab".into(), password.into());
        options("test").connection(login)
    };
    let error = Pool::connect(&server.url(), login(WRONG)).unwrap_err();
    assert!(error.is_refused() && !error.is_unreachable(), "{error}");
    assert!(!format!("{error} {error:?}").contains(WRONG));
    let url = server.url().replace("//", &format!("//lab:{WRONG}@"));
    let error = Pool::connect(&url, options("test")).unwrap_err();
    assert!(error.is_refused(), "{error}");
    assert!(!format!("{error} {error:?}").contains(WRONG), "{error}");
    let agent = agent_command(exe(), &url, Duration::from_secs(30), 1)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(agent.stderr).unwrap();
    assert_eq!(agent.status.code(), Some(3), "{said}");
    assert!(said.contains("authorization") && !said.contains(WRONG), "{said}");
    // The right one.
    let url = server.url().replace("//", "//lab:secret@");
    let _agent = Running::start(&mut agent_command(exe(), &url, Duration::from_secs(30), 1));
    let pool = Pool::connect(&server.url(), login("secret")).unwrap();
    assert_eq!(pool.apply(square, 3).unwrap(), 9);
    assert!(!format!("{pool:?}").contains("secret"));
}

fn an_nkey_is_taken() {
    let pair = KeyPair::new_user();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.conf");
    let nkey = pair.public_key();
    fs::write(&file, format!("authorization {{ users = [ {{ nkey: {nkey} }} ] }}")).unwrap();
    let server = Server::with(&["-c", file.to_str().unwrap()]);
    let login = ConnectOptions::with_nkey(pair.seed().unwrap());
    let pool = Pool::connect(&server.url(), options("test").connection(login)).unwrap();
    drop(pool);
    let other = KeyPair::new_user().seed().unwrap();
    let login = ConnectOptions::with_nkey(other.clone());
    let error = Pool::connect(&server.url(), options("test").connection(login)).unwrap_err();
    assert!(error.is_refused(), "{error}");
    assert!(!format!("{error} {error:?}").contains(&other), "{error}");
    assert!(Pool::connect(&server.url(), options("test")).unwrap_err().is_refused());
}

fn a_credentials_file_is_taken() {
    let [operator, system, account, user, stranger] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
        KeyPair::new_user(),
        KeyPair::new_user(),
    ];
    let unlimited = r#""subs":-1,"data":-1,"payload":-1"#;
    let limits =
        format!(r#"{unlimited},"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1"#);
    let storage = r#""mem_storage":-1,"disk_storage":-1,"streams":-1,"consumer":-1"#;
    let account_of = |pair: &KeyPair, limits: &str| {
        let signed = claim(&operator, pair, "account", &format!(r#""limits":{{{limits}}}"#));
        format!("{}: {signed}", pair.public_key())
    };
    let configuration = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}, {} }}",
        claim(&operator, &operator, "operator", r#""signing_keys":[]"#),
        system.public_key(),
        account_of(&system, &limits),
        account_of(&account, &format!("{limits},{storage}")),
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.conf");
    fs::write(&file, configuration).unwrap();
    let server = Server::with(&["-c", file.to_str().unwrap()]);
    let permitted = claim(&account, &user, "user", unlimited);
    // The text of such a file, with the seed of this pair.
    let credentials = |pair: &KeyPair| {
        format!(
            "-----BEGIN NATS USER JWT-----\n{permitted}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            pair.seed().unwrap()
        )
    };
    let login = |pair| {
        let login = ConnectOptions::with_credentials(&credentials(pair)).unwrap();
        Pool::connect(&server.url(), options("test").connection(login))
    };
    let pool = login(&user).unwrap();
    assert!(pool.agents().is_empty());
    let error = login(&stranger).unwrap_err();
    assert!(error.is_refused(), "{error}");
    let seed = stranger.seed().unwrap();
    assert!(!format!("{error} {error:?}").contains(&seed), "{error}");
}

/// A claim about `subject`, signed by `issuer`, as NATS servers know it.
fn claim(issuer: &KeyPair, subject: &KeyPair, kind: &str, more: &str) -> String {
    let claims = format!(
        r#"{{"jti":"1","iat":1,"iss":"{}","sub":"{}","name":"test",
            "nats":{{"type":"{kind}","version":2,{more}}}}}"#,
        issuer.public_key(),
        subject.public_key()
    );
    let header = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
    let signed = [header, &claims].map(|text| BASE64URL_NOPAD.encode(text.as_bytes())).join(".");
    let proof = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&proof))
}

fn tls_is_taken() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    fs::write(&cert_file, cert.pem()).unwrap();
    fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    let files = [&cert_file, &key_file].map(|path| path.to_str().unwrap());
    let server = Server::with(&["--tls", "--tlscert", files[0], "--tlskey", files[1]]);
    let trusting = || ConnectOptions::new().add_root_certificates(cert_file.clone());
    let pool = Pool::connect(&server.url(), options("test").connection(trusting())).unwrap();
    assert!(pool.agents().is_empty());
    // Who does not know the certificate does not talk to the server.
    assert!(Pool::connect(&server.url(), options("test")).is_err());
}

fn forged_and_altered_jobs_are_refused() {
    let server = Server::start();
    let log = server.path("runs");
    let pool = server.connect();
    let say = |(log, x): (String, u32)| {
        note(&log, x);
        x
    };
    // What a job looks like to who listens.
    let (subject, job, later) = server.ask(async |context| {
        let mut heard = context.client().subscribe("test.tasks.>").await.unwrap();
        // The server answers in order: it has the subscription by then.
        context.get_stream("test-tasks").await.unwrap();
        let later = pool.apply_async(say, (log.clone(), 1)).unwrap();
        let message = heard.next().await.unwrap();
        (message.subject, message.payload.to_vec(), later)
    });
    let mut forged: Vec<Vec<u8>> = vec![b"nonsense".to_vec(), Vec::new(), vec![0; job.len()]];
    // Wherever it is altered: the proof, the kind, the build, the function, the argument.
    forged.extend((0..job.len()).step_by(5).map(|at| {
        let mut altered = job.clone();
        altered[at] ^= 1;
        altered
    }));
    let count = forged.len();
    server.ask(async |context| {
        for (index, forged) in forged.into_iter().enumerate() {
            let to = format!("{subject}{index}");
            context.publish(to, forged.into()).await.unwrap().await.unwrap();
        }
    });
    assert_eq!(server.messages("test-tasks").0, count as u64 + 1);
    let _agent = server.agent();
    assert_eq!(later.get().unwrap(), 1);
    eventually("an empty stream", || server.messages("test-tasks").0 == 0);
    assert_eq!(lines(&log), ["1"]);
}

fn another_key_gets_nothing_done() {
    let server = Server::start();
    let _agent = server.agent();
    let other = Options::new(b"the key of another").name("test");
    let pool = Pool::connect(&server.url(), other).unwrap();
    let log = server.path("runs");
    let later = pool.apply_async(|log: String| note(&log, "ran"), log.clone()).unwrap();
    eventually("its end", || server.messages("test-tasks") == (0, 1));
    assert!(pool.agents().is_empty());
    assert_eq!(lines(&log).len(), 0);
    drop((later, pool));
}

fn a_result_cannot_be_forged() {
    let server = Server::start();
    let pool = server.connect();
    let subject = server.ask(async |context| {
        let mut heard = context.client().subscribe("test.tasks.>").await.unwrap();
        // The server answers in order: it has the subscription by then.
        context.get_stream("test-tasks").await.unwrap();
        let _later = pool.apply_async(square, 2).unwrap();
        heard.next().await.unwrap().subject
    });
    let later = pool.apply_async(square, 3).unwrap();
    let words: Vec<&str> = subject.split('.').collect();
    let subject = format!("test.results.{}.2.2", words[3]);
    server.ask(async |context| {
        for forged in [&b"nonsense"[..], KEY, &[0; 200]] {
            let sent = context.publish(subject.clone(), forged.to_vec().into()).await;
            sent.unwrap().await.unwrap();
        }
    });
    eventually("an empty stream", || server.messages("test-results").0 == 0);
    let _agent = server.agent();
    assert_eq!(later.get().unwrap(), 9);
}

fn what_is_wrong_with_the_options_is_said() {
    let server = Server::start();
    let error = Pool::connect(&server.url(), Options::new(b"short")).unwrap_err();
    assert!(error.to_string().contains("16"), "{error}");
    let error = Pool::connect(&server.url(), Options::new(KEY).name("a.b")).unwrap_err();
    assert!(error.to_string().contains("a.b"), "{error}");
    let error = Pool::connect("nats://127.0.0.1:1", Options::new(KEY)).unwrap_err();
    assert!(error.is_unreachable() && !error.is_refused(), "{error}");
    assert!(Pool::connect("no url at all", Options::new(KEY)).is_err());
}
