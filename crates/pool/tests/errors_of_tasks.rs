//! The error that a task returns comes home with its text and those of its sources, whichever way the
//! task was handed in.

mod common;

use std::num::ParseIntError;

use common::watchdog;
use multiproc_pool::{Failure, Pool, TaskError};
use multiproc_process::init_before_main;

init_before_main!();

/// Errors that cannot be serialised.
#[derive(Debug, thiserror::Error)]
#[error("line {line} has no number")]
struct NoNumber {
    line: usize,
    source: ParseIntError,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot read the table")]
struct Unreadable(#[source] NoNumber);

fn parse(line: usize, text: &str) -> Result<i32, Unreadable> {
    text.parse().map_err(|source| Unreadable(NoNumber { line, source }))
}

/// Fails for odd lines, those that divide by 3 with a context.
fn read(line: usize) -> Result<i32, Failure> {
    let text = if line.is_multiple_of(2) { line.to_string() } else { format!("no{line}") };
    let parsed = parse(line, &text).map_err(Failure::from);
    if line.is_multiple_of(3) {
        parsed.map_err(|failure| failure.context(format_args!("task {line} stops")))
    } else {
        Ok(parsed?)
    }
}

fn check(line: usize, result: &Result<i32, Failure>) {
    if line.is_multiple_of(2) {
        return assert_eq!(*result, Ok(line as i32));
    }
    let context = format!("task {line} stops");
    let own = format!("line {line} has no number");
    let mut texts = vec!["cannot read the table", &own, "invalid digit found in string"];
    if line.is_multiple_of(3) {
        texts.insert(0, &context);
    }
    let failure = result.as_ref().unwrap_err();
    assert!(failure.chain().eq(texts.iter().copied()), "{failure:?}");
    assert_eq!(failure.to_string(), texts[0]);
    assert_eq!(format!("{failure:#}"), texts.join(": "));
    assert_eq!(format!("{failure:?}"), texts.join("\ncaused by: "));
    let error = failure.clone().into_error();
    let mut next: Option<&dyn std::error::Error> = Some(&*error);
    for text in texts {
        assert_eq!(next.unwrap().to_string(), text);
        next = next.unwrap().source();
    }
    assert!(next.is_none());
}

fn check_all(results: impl IntoIterator<Item = Result<i32, Failure>>) {
    let mut lines = 0;
    for (line, result) in results.into_iter().enumerate() {
        check(line, &result);
        lines += 1;
    }
    assert_eq!(lines, 100);
}

fn pool() -> Pool {
    watchdog();
    Pool::builder().workers(2).build().unwrap()
}

#[test]
fn through_map() {
    let pool = pool();
    for chunk in [1, 10, 100] {
        check_all(pool.with_chunk_size(chunk).map(read, 0..100).unwrap());
    }
    check_all(pool.map_async(read, 0..100).unwrap().get().unwrap());
    check_all(pool.try_map(read, 0..100).unwrap().into_iter().map(Result::unwrap));
}

#[test]
fn through_apply() {
    let pool = pool();
    (0..10).for_each(|line| check(line, &pool.apply(read, line).unwrap()));
    check(9, &pool.apply_async(read, 9).unwrap().get().unwrap());
    // It is an outcome of the task, which is not tried again for it.
    check(7, &pool.with_retries(3).apply(read, 7).unwrap());
}

#[test]
fn through_imap() {
    let pool = pool();
    let of = |result: Result<_, TaskError>| result.unwrap();
    check_all(pool.imap(read, 0..100).map(of));
    let pairs = pool.imap_unordered(|line: usize| (line, read(line)), 0..100);
    let mut pairs: Vec<_> = pairs.map(Result::unwrap).collect();
    pairs.sort_by_key(|(line, _)| *line);
    check_all(pairs.into_iter().map(|(_, result)| result));
}
