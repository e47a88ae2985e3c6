//! What the image programs do to images, each in one thread unless told otherwise.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::{Resizer, pixels::U8x3};
use image::{DynamicImage, Rgb, RgbImage, imageops};
use libblur::{ConvolutionMode, EdgeMode, GaussianBlurParams, ThreadingPolicy};

/// The names that [`apply`] knows.
pub const NAMES: [&str; 4] = ["blur", "grayscale", "edges", "resize"];

/// Applies the filter of that name.
pub fn apply(filter: &str, image: DynamicImage) -> Result<DynamicImage> {
    Ok(match filter {
        "blur" => blur(image, 5.0, ThreadingPolicy::Single)?,
        "grayscale" => image.grayscale(),
        // The kernel of Pillow's FIND_EDGES.
        "edges" => image.grayscale().filter3x3(&[-1., -1., -1., -1., 8., -1., -1., -1., -1.]),
        "resize" => half_size(&image.to_rgb8())?.into(),
        other => bail!("there is no filter {other}"),
    })
}

/// Blurs as Pillow's `GaussianBlur(radius)` does: the radius is the standard deviation.
pub fn blur(image: DynamicImage, radius: f64, threads: ThreadingPolicy) -> Result<DynamicImage> {
    let kernel = GaussianBlurParams::new_from_sigma(radius);
    let edges = EdgeMode::Clamp.as_2d();
    libblur::gaussian_blur_image(image, kernel, edges, ConvolutionMode::Exact, threads)
        .context("a kind of image that cannot be blurred")
}

// Of typed images: `Resizer::resize` brings code for all kinds, which takes minutes to compile.
fn half_size(image: &RgbImage) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    let mut half = RgbImage::new(width / 2, height / 2);
    let from = TypedImageRef::<U8x3>::from_buffer(width, height, image)?;
    let mut to = TypedImage::<U8x3>::from_buffer(width / 2, height / 2, &mut half)?;
    Resizer::new().resize_typed(&from, &mut to, None)?;
    Ok(half)
}

/// Draws small copies of image files: each row starts with an original, and keeps its scale.
pub fn contact_sheet(rows: &[Vec<PathBuf>]) -> Result<RgbImage> {
    const CELL: u32 = 200;
    const STEP: u32 = CELL + 8;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let white = Rgb([255; 3]);
    let mut sheet = RgbImage::from_pixel(columns * STEP, rows.len() as u32 * STEP, white);
    for (y, row) in (0..).zip(rows) {
        let images = row.iter().map(image::open).collect::<Result<Vec<_>, _>>()?;
        let longest = images.first().map_or(1, |first| first.width().max(first.height()));
        for (x, image) in (0..).zip(images) {
            let scaled = |length: u32| length * CELL / longest;
            let small = image.thumbnail_exact(scaled(image.width()), scaled(image.height()));
            imageops::replace(&mut sheet, &small.to_rgb8(), (x * STEP).into(), (y * STEP).into());
        }
    }
    Ok(sheet)
}
