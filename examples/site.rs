//! A small web site on the loopback address, with the troubles of real ones.

use std::net::TcpListener;
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{Html, IntoResponse, Redirect, Response};
use tokio::{net, runtime, time};

/// What each page takes at least: about what one takes over a real network.
const LATENCY: Duration = Duration::from_millis(150);
const SLOW: Duration = Duration::from_millis(1000);

/// The paths of its pages; the status and the number of links that each has.
pub const PAGES: [(&str, (u16, usize)); 7] = [
    ("/", (200, 4)),
    ("/news", (200, 2)),
    ("/slow", (200, 1)),
    ("/missing", (404, 0)),
    // Repaired as browsers do it: an `<a>` that crosses other tags becomes several.
    ("/broken", (200, 5)),
    ("/moved", (200, 2)),
    ("/empty", (200, 0)),
];

const HOME: &str = "<!doctype html><title>A small site</title><h1>Welcome</h1>
    <a href=/news>News</a> <a href=/slow>Slow</a> <a href=/missing>Missing</a> <a href=/broken>Broken</a>";
const NEWS: &str = "<!doctype html><title>News &amp; weather</title>
    <ul><li><a href=/>Home</a><li><a href=/slow>More</a></ul>";
const LATE: &str = "<!doctype html><title>Worth the wait</title><a href=/>Home</a>";
const LOST: &str = "<!doctype html><title>Not found</title>";
// Tags that are never closed, closed twice, or cross each other; a stray `<`; no end.
const BROKEN: &str = "<ht ml><body><title>Broken <b>HTML</title><p><a href='/'>Home<div></p></b>
    1 < 2 <table><tr><a href=\"/news\">News</table></table><i><a href=/x>x</i></a><td><a hr";

/// Serves the site from a thread in the background; returns its address, as `http://127.0.0.1:PORT`.
pub fn serve() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = format!("http://{}", listener.local_addr()?);
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let site = Router::new().fallback(answer);
    thread::spawn(move || {
        runtime.block_on(async { axum::serve(net::TcpListener::from_std(listener)?, site).await })
    });
    Ok(address)
}

async fn answer(page: Uri) -> Response {
    time::sleep(LATENCY).await;
    match page.path() {
        "/" => Html(HOME).into_response(),
        "/news" => Html(NEWS).into_response(),
        "/slow" => {
            time::sleep(SLOW).await;
            Html(LATE).into_response()
        }
        "/broken" => Html(BROKEN).into_response(),
        "/moved" => Redirect::permanent("/news").into_response(),
        "/empty" => Html("").into_response(),
        _ => (StatusCode::NOT_FOUND, Html(LOST)).into_response(),
    }
}
