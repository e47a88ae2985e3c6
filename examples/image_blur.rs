//! Blurs photographs one after another, with a pool, and with the threads of the blur itself.

use std::path::{Path, PathBuf};

use libblur::ThreadingPolicy::{self, Adaptive, Single};
use multiproc::Pool;
use multiproc_examples::{
    filters, output_dir, photos, print_speedup, progress_bar, say, stem, timed,
};

fn blur_image((image, output): (PathBuf, PathBuf)) -> String {
    blur_with(&image, &output, Single)
}

fn blur_with(image: &Path, output: &Path, threads: ThreadingPolicy) -> String {
    let name = format!("{}.jpg", stem(image));
    say!("Processing {name}...");
    let blur_and_save = || -> anyhow::Result<()> {
        let blurred = filters::blur(image::open(image)?, 10.0, threads)?;
        Ok(blurred.save(output.join(format!("blurred_{name}")))?)
    };
    match blur_and_save() {
        Ok(()) => format!("{name} processed successfully"),
        Err(error) => format!("Error processing {}: {error:#}", image.display()),
    }
}

fn main() -> anyhow::Result<()> {
    multiproc::init();
    let output = output_dir("multiproc-blur")?;
    let jobs: Vec<_> = photos()?.into_iter().map(|photo| (photo, output.clone())).collect();
    let bar = progress_bar(4);
    // Not timed: the first round pays for cold caches, which would flatter the pool.
    jobs.iter().cloned().map(blur_image).for_each(drop);
    bar.inc(1);

    let one = |job: &(PathBuf, PathBuf)| timed(|| blur_image(job.clone()));
    let (results, sequential_time) = timed(|| jobs.iter().map(one).collect::<Vec<_>>());
    let (sequential, times): (Vec<_>, Vec<_>) = results.into_iter().unzip();
    bar.inc(1);
    let (parallel, parallel_time) =
        timed(|| anyhow::Ok(Pool::new()?.map(blur_image, jobs.iter().cloned())?));
    bar.inc(1);
    let ((), threads_time) = timed(|| {
        jobs.iter().for_each(|(image, output)| drop(blur_with(image, output, Adaptive)));
    });
    bar.finish_and_clear();

    println!("Sequential processing time: {sequential_time:.3} seconds");
    println!("Parallel processing time: {parallel_time:.3} seconds");
    print_speedup(sequential_time, parallel_time);
    let longest = times.into_iter().fold(0.0, f64::max);
    println!("One photograph alone takes {longest:.3} seconds, and a pool does not divide it.");
    println!("The blur's own threads, in one process: {threads_time:.3} seconds");
    println!("The blurred photographs are in {}", output.display());
    assert_eq!(parallel?, sequential);
    assert!(sequential.iter().all(|result| result.ends_with("successfully")), "{sequential:?}");
    Ok(())
}
