//! Downloads web pages and looks into them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use scraper::{Html, Selector};
use serde::{Deserialize, Serialize};

/// What was found on a page.
#[derive(Serialize, Deserialize)]
pub struct Page {
    /// The status of the answer.
    pub status: u16,
    /// The text of its title.
    pub title: String,
    /// How many links it has.
    pub links: usize,
    /// How long it is.
    pub bytes: usize,
}

impl Page {
    /// Downloads a page, whatever its status.
    pub fn fetch(url: &str) -> Result<Self> {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false);
        // No proxy can see a site on this machine.
        let config = if url.starts_with("http://127.") { config.proxy(None) } else { config };
        let mut response = config.build().new_agent().get(url).call()?;
        let body = response.body_mut().read_to_string()?;
        Ok(Page::parse(response.status().as_u16(), &body))
    }

    fn parse(status: u16, body: &str) -> Self {
        let document = Html::parse_document(body);
        let select = |what| Selector::parse(what).expect("a selector of this program is right");
        let title = document.select(&select("title")).next();
        let title = title.map(|title| title.text().collect()).unwrap_or_default();
        let links = document.select(&select("a[href]")).count();
        Page { status, title, links, bytes: body.len() }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Page { status, title, links, bytes } = self;
        write!(f, "{status}, {title:?}, links: {links}, bytes: {bytes}")
    }
}
