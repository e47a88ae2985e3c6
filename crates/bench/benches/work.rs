//! Whole work: photographs that are blurred, and numbers that are sorted.
#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use libblur::{ConvolutionMode, EdgeMode, GaussianBlurParams, ThreadingPolicy};
use multiproc::{Pool, ShmBox};
use multiproc_bench::python::Script;
use multiproc_bench::rounds::{Measure, apart, beside, here, is_test};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

const AREA: &str = "work";
const WORKERS: usize = 2;

fn main() {
    multiproc::init();
    if is_test() {
        return;
    }
    // Each in a process of its own: rayon's threads stay.
    apart(photos);
    apart(sort);
}

/// Decodes a photograph, blurs it and encodes it again, with the blur's own threads or one.
fn blur_with(path: &Path, threads: ThreadingPolicy) -> usize {
    let kernel = GaussianBlurParams::new_from_sigma(10.0);
    let (edges, mode) = (EdgeMode::Clamp.as_2d(), ConvolutionMode::Exact);
    let image = image::open(path).unwrap().to_rgb8().into();
    let blurred = libblur::gaussian_blur_image(image, kernel, edges, mode, threads).unwrap();
    let mut file = Cursor::new(Vec::new());
    blurred.write_to(&mut file, ImageFormat::Jpeg).unwrap();
    file.into_inner().len()
}

fn blur(path: PathBuf) -> usize {
    blur_with(&path, ThreadingPolicy::Single)
}

fn photos() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/photos");
    let files = dir.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut photos: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "jpg")).collect();
    photos.sort();
    let expected: Vec<_> = photos.iter().cloned().map(blur).collect();
    let pool = Pool::builder().workers(WORKERS).build().unwrap();
    let pillow = Script { file: "bench_pool", module: "PIL" };
    Measure::of(AREA, format!("blur {} photographs", photos.len()), "set of photographs")
        .headline()
        .ours("Pool::map", || {
            beside(&pool.worker_pids(), 1, || {
                assert_eq!(pool.map(blur, photos.iter().cloned()).unwrap(), expected);
            })
        })
        .threads("one thread", || {
            here(1, || {
                assert!(photos.iter().cloned().map(blur).eq(expected.iter().copied()));
            })
        })
        .threads("rayon", || {
            here(1, || {
                let lengths: Vec<_> = photos.par_iter().map(|path| blur(path.clone())).collect();
                assert_eq!(lengths, expected);
            })
        })
        .threads("threads of the blur", || {
            here(1, || {
                let lengths = photos.iter().map(|path| blur_with(path, ThreadingPolicy::Adaptive));
                assert!(lengths.eq(expected.iter().copied()));
            })
        })
        .python("Python's Pool, Pillow's blur", pillow, &["Standard", "blur"], 1)
        .run();
}

fn sort() {
    let count: u64 = 10_000_000;
    // Numbers without order, the same in each round.
    let data: Vec<u64> = (1..=count).map(|i| (i * i).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    let mut expected = data.clone();
    expected.sort_unstable();
    let pool = Pool::builder().workers(WORKERS).build().unwrap();
    let in_place = |sort: fn(&mut [u64])| {
        let mut numbers = data.clone();
        let cost = here(1, || sort(black_box(&mut numbers)));
        assert!(numbers == expected);
        cost
    };
    let ours = |copied_first: bool| {
        let early = (!copied_first).then(|| ShmBox::<[u64]>::from_slice(&data).unwrap());
        let mut sorted = ShmBox::default();
        let cost = beside(&pool.worker_pids(), 1, || {
            let numbers = early.unwrap_or_else(|| ShmBox::from_slice(&data).unwrap());
            sorted = parallel_sort(&pool, numbers);
        });
        assert!(sorted[..] == expected[..]);
        cost
    };
    Measure::of(AREA, "sort 10,000,000 u64", "sort")
        .headline()
        .ours("Pool, in shared memory", || ours(false))
        .ours("Pool, copied there first", || ours(true))
        .threads("std's sort_unstable", || in_place(<[u64]>::sort_unstable))
        .threads("rayon's par_sort_unstable", || in_place(<[u64]>::par_sort_unstable))
        .run();
}

/// Each worker gets its part moved to it and back; the numbers stay where they are.
fn parallel_sort(pool: &Pool, data: ShmBox<[u64]>) -> ShmBox<[u64]> {
    let sort = |mut part: ShmBox<[u64]>| {
        part.sort_unstable();
        part
    };
    ShmBox::join(pool.map(sort, divide(data, WORKERS)).unwrap()).unwrap()
}

/// Divides `data` so that no number of a part is greater than any of the next part.
fn divide(mut data: ShmBox<[u64]>, parts: usize) -> Vec<ShmBox<[u64]>> {
    let mut divided = Vec::new();
    for left in (2..=parts).rev() {
        let len = data.len() / left;
        data.select_nth_unstable(len);
        let (part, rest) = data.split_at(len);
        divided.push(part);
        data = rest;
    }
    divided.push(data);
    divided
}
