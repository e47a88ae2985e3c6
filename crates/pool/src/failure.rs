use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// An error of any type as it travels home from a worker: its text, and those of its sources.
///
/// The error of a task's result must be serialised, which most are not. A task that returns
/// `Result<T, Failure>` can use `?` on all of them: on any type that implements
/// [`std::error::Error`], on `anyhow::Error`, and on text.
///
/// As with `anyhow`, `{}` prints the error alone, `{:#}` all of them in one line, and `{:?}` all of
/// them, one below the other. It does not implement `Error` itself, for which `?` is the reason:
/// [`into_error`](Failure::into_error) gives one that does.
///
/// # Examples
///
/// ```
/// use multiproc_pool::{Failure, Pool};
///
/// fn parse(text: String) -> Result<i32, Failure> {
///     Ok(text.parse::<i32>()?)
/// }
///
/// multiproc_process::init();
/// let pool = Pool::builder().workers(2).build()?;
/// let results = pool.map(parse, ["7".into(), "seven".into()])?;
/// assert_eq!(results[0].as_ref().ok(), Some(&7));
/// assert_eq!(results[1].as_ref().unwrap_err().to_string(), "invalid digit found in string");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    text: String,
    /// The nearest first.
    sources: Vec<String>,
}

impl Failure {
    /// Makes one of a text.
    ///
    /// # Examples
    ///
    /// ```
    /// let failure = multiproc_pool::Failure::new(format_args!("no {}", 7));
    /// assert_eq!(failure.to_string(), "no 7");
    /// ```
    pub fn new(text: impl fmt::Display) -> Self {
        Failure { text: text.to_string(), sources: Vec::new() }
    }

    /// The texts of the error and of its sources.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Failure;
    ///
    /// let failure = Failure::new("no such host").context("cannot fetch the page");
    /// assert!(failure.chain().eq(["cannot fetch the page", "no such host"]));
    /// assert_eq!(format!("{failure:#}"), "cannot fetch the page: no such host");
    /// ```
    pub fn chain(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.text).chain(&self.sources).map(String::as_str)
    }

    /// Puts a text before those that there are: what was being done.
    #[must_use]
    pub fn context(mut self, text: impl fmt::Display) -> Self {
        self.sources.insert(0, std::mem::replace(&mut self.text, text.to_string()));
        self
    }

    /// Gives an error whose sources have the texts of this one's.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc_pool::Failure;
    ///
    /// let error = Failure::new("no such host").context("cannot fetch the page").into_error();
    /// assert_eq!(error.source().unwrap().to_string(), "no such host");
    /// ```
    pub fn into_error(self) -> Box<dyn StdError + Send + Sync> {
        let mut source = None;
        for text in self.sources.into_iter().rev() {
            source = Some(Box::new(Link { text, source }));
        }
        Box::new(Link { text: self.text, source })
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut sources = Vec::new();
        let mut next = error.source();
        while let Some(source) = next {
            sources.push(source.to_string());
            next = source.source();
        }
        Failure { text: error.to_string(), sources }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if f.alternate() {
            self.sources.iter().try_for_each(|source| write!(f, ": {source}"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.sources.iter().try_for_each(|source| write!(f, "\ncaused by: {source}"))
    }
}

/// One text of a failure, as an error.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Link {
    text: String,
    source: Option<Box<Link>>,
}
