//! Exercise: several processes download and parse web pages; give URLs, or see a site of its own.

use std::collections::HashMap;
use std::env;
use std::time::Duration;

use anyhow::{Result, ensure};
use multiproc::Pool;
use multiproc_examples::{site, timed};
use scraper::{Html, Selector};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Page {
    status: u16,
    title: String,
    links: usize,
    bytes: usize,
}

/// A page that fails is a result too.
fn scrape(url: String) -> (String, u32, f64, Result<Page, String>) {
    let (page, time) = timed(|| fetch(&url).map_err(|error| format!("{error:#}")));
    (url, multiproc::current_process().pid(), time, page)
}

fn fetch(url: &str) -> Result<Page> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(20)))
        .http_status_as_error(false);
    // No proxy can see a site on this machine.
    let config = if url.starts_with("http://127.") { config.proxy(None) } else { config };
    let mut response = config.build().new_agent().get(url).call()?;
    let body = response.body_mut().read_to_string()?;
    let document = Html::parse_document(&body);
    let title = document.select(&Selector::parse("title").unwrap()).next();
    Ok(Page {
        status: response.status().as_u16(),
        title: title.map(|title| title.text().collect()).unwrap_or_default(),
        links: document.select(&Selector::parse("a[href]").unwrap()).count(),
        bytes: body.len(),
    })
}

fn main() -> Result<()> {
    multiproc::init();
    let mut urls: Vec<String> = env::args().skip(1).collect();
    let mut expected = HashMap::new();
    if urls.is_empty() {
        let address = site::serve()?;
        println!("No URLs were given: scraping a site of our own at {address}");
        expected = site::PAGES.map(|(path, found)| (format!("{address}{path}"), found)).into();
        urls.extend(site::PAGES.map(|(path, _)| format!("{address}{path}")));
    }

    // Pages are waited for more than worked on, so more processes than CPUs do help.
    let pool = Pool::builder().workers(4).build()?;
    let mut alone = 0.0;
    let (outcome, together) = timed(|| {
        for done in pool.imap_unordered(scrape, urls) {
            let (url, process, time, page) = done?;
            alone += time;
            let shown = match &page {
                Ok(p) => {
                    format!("{}, {:?}, links: {}, bytes: {}", p.status, p.title, p.links, p.bytes)
                }
                Err(error) => format!("failed: {error}"),
            };
            println!("[process {process}, {time:.2} s] {url}: {shown}");
            let found = page.ok().map(|page| (page.status, page.links));
            let right = expected.get(&url).is_none_or(|&right| found == Some(right));
            ensure!(right, "that is not what our site serves");
        }
        Ok(())
    });
    outcome?;
    println!("Parallel time: {together:.2} seconds");
    println!("The same pages one after another: {alone:.2} seconds");
    Ok(())
}
