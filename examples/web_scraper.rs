//! Exercise: several processes download and parse web pages; give URLs, or see a site of its own.

use std::collections::HashMap;
use std::env;

use anyhow::{Result, ensure};
use multiproc::Pool;
use multiproc_examples::page::Page;
use multiproc_examples::{progress_bar, say, site, timed};

/// Returns the page too if it fails, as why it did.
fn scrape(url: String) -> (String, u32, f64, Result<Page, String>) {
    let (page, time) = timed(|| Page::fetch(&url).map_err(|error| format!("failed: {error:#}")));
    (url, multiproc::current_process().pid(), time, page)
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
    let bar = progress_bar(urls.len());
    let mut alone = 0.0;
    let (outcome, together) = timed(|| {
        for done in bar.wrap_iter(pool.imap_unordered(scrape, urls)) {
            let (url, process, time, page) = done?;
            alone += time;
            let shown = page.as_ref().map_or_else(String::clone, Page::to_string);
            say!("[process {process}, {time:.2} s] {url}: {shown}");
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
