//! Exercise: applies several filters to photographs in parallel, and draws a contact sheet.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use indicatif::ProgressBar;
use multiproc::Pool;
use multiproc_examples::{filters, output_dir, photos, print_speedup, stem, timed};

/// A photograph, a filter, and where the result goes.
type Job = (PathBuf, String, PathBuf);

fn apply((photo, filter, output): Job) -> Result<(), String> {
    let work = || anyhow::Ok(filters::apply(&filter, image::open(&photo)?)?.save(&output)?);
    work().map_err(|error| format!("{filter} of {}: {error:#}", photo.display()))
}

fn main() -> Result<()> {
    multiproc::init();
    let (photos, dir) = (photos()?, output_dir("multiproc-filters")?);
    let target = |photo: &Path, filter: &str| dir.join(format!("{}_{filter}.jpg", stem(photo)));
    let jobs: Vec<Job> = photos
        .iter()
        .flat_map(|p| filters::NAMES.map(|filter| (p.clone(), filter.into(), target(p, filter))))
        .collect();
    let results = || jobs.iter().map(|(.., path)| fs::read(path)).collect::<Result<Vec<_>, _>>();

    // Twice: the first round pays for cold caches, which would flatter the pool.
    let sequential = || jobs.iter().cloned().try_for_each(apply).map_err(Error::msg);
    sequential()?;
    let (done, sequential_time) = timed(sequential);
    done?;
    let expected = results()?;

    let bar = ProgressBar::new(jobs.len() as u64); // seen on a terminal only
    let (done, parallel_time) = timed(|| {
        let pool = Pool::new()?;
        for result in pool.imap_unordered(apply, jobs.iter().cloned()) {
            result?.map_err(Error::msg)?;
            bar.inc(1);
        }
        anyhow::Ok(())
    });
    bar.finish_and_clear();
    done?;
    assert!(results()? == expected, "the pool wrote other images");

    println!("{} photographs, each with {}", photos.len(), filters::NAMES.join(", "));
    println!("Sequential processing time: {sequential_time:.3} seconds");
    println!("Parallel processing time: {parallel_time:.3} seconds");
    print_speedup(sequential_time, parallel_time);
    let row = |photo: &PathBuf| {
        let filtered = filters::NAMES.map(|filter| target(photo, filter));
        [photo.clone()].into_iter().chain(filtered).collect()
    };
    let rows: Vec<_> = photos.iter().map(row).collect();
    filters::contact_sheet(&rows)?.save(dir.join("contact_sheet.jpg"))?;
    println!("The results and contact_sheet.jpg are in {}", dir.display());
    Ok(())
}
