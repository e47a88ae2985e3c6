//! Plots as SVG and PNG. What belongs to whom is told by shape as much as by colour.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle, register_font,
};

use crate::report::{Block, duration, ratio, size};
use crate::row::{Kind, Quantity, Row, Spread};

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 16.0;
const LINE: f64 = 22.0;
const FONT: f64 = 14.0;

const OVERVIEW: &str = "Time (or memory) as a multiple of ours: left of the line faster than multiproc, right of it slower";

const BLACK: RGBColor = RGBColor(20, 20, 20);
const GRID: RGBColor = RGBColor(215, 215, 215);
const FAINT: RGBColor = RGBColor(110, 110, 110);

/// What can be drawn by either backend.
trait Picture {
    fn height(&self) -> f64;
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Result<()>
    where
        DB::ErrorType: 'static;
}

/// The measures of the first page: a line each, whose marks say how many times our time the strongest
/// of each kind takes.
pub fn overview(blocks: &[Block<'_>], caption: &str, path: &Path) -> Result<()> {
    save(&Overview { blocks, caption }, path)
}

/// All contenders of these measures of an area: a line each.
pub fn contenders(area: &str, blocks: &[Block<'_>], caption: &str, path: &Path) -> Result<()> {
    save(&Contenders { area, blocks, caption }, path)
}

/// Times by what they depend on: a curve for each contender.
pub fn curves(blocks: &[&Block<'_>], title: &str, bytes: bool, path: &Path) -> Result<()> {
    save(&Curves { blocks, title, bytes }, path)
}

fn save(picture: &impl Picture, path: &Path) -> Result<()> {
    for (style, bytes) in
        [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())]
    {
        register_font("sans-serif", style, bytes).map_err(|_| anyhow!("the font is not one"))?;
    }
    let pixels = |scale: f64| ((WIDTH * scale) as u32, (picture.height() * scale) as u32);
    let (svg, png) = (path.with_extension("svg"), path.with_extension("png"));
    let canvas =
        &Canvas { area: SVGBackend::new(&svg, pixels(1.0)).into_drawing_area(), scale: 1.0 };
    canvas.paint(picture).with_context(|| format!("cannot draw {}", svg.display()))?;
    let canvas =
        &Canvas { area: BitMapBackend::new(&png, pixels(2.0)).into_drawing_area(), scale: 2.0 };
    canvas.paint(picture).with_context(|| format!("cannot draw {}", png.display()))
}

struct Overview<'a> {
    blocks: &'a [Block<'a>],
    caption: &'a str,
}

impl Picture for Overview<'_> {
    fn height(&self) -> f64 {
        3.5 * LINE + self.blocks.len() as f64 * LINE + 3.0 * LINE + 2.0 * MARGIN
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let (left, right) = (400.0, WIDTH - 2.0 * MARGIN);
        let (top, lines) = (MARGIN + 3.5 * LINE, self.blocks.len() as f64);
        canvas.bold(OVERVIEW, MARGIN, MARGIN)?;
        let mut x = MARGIN;
        for (kind, name) in [
            (Kind::Limit, "raw system calls"),
            (Kind::Peer, "best Rust or C peer"),
            (Kind::Threads, "best with threads of one process"),
            (Kind::Python, "best in Python"),
        ] {
            canvas.mark(kind, x + 6.0, MARGIN + 2.0 * LINE)?;
            canvas.text(name, x + 18.0, MARGIN + 2.0 * LINE, HPos::Left)?;
            x += 40.0 + canvas.width(name);
        }
        let best = |block: &Block<'_>| -> Vec<(Kind, Spread)> {
            let kinds = [Kind::Limit, Kind::Peer, Kind::Threads, Kind::Python];
            kinds.into_iter().filter_map(|kind| Some((kind, block.strongest(kind)?.1))).collect()
        };
        let ratios = self.blocks.iter().flat_map(best).map(|(_, spread)| spread.median);
        let axis = Axis::around(ratios.chain([1.0]), left, right);
        axis.grid(canvas, top, top + lines * LINE)?;
        for (index, block) in self.blocks.iter().enumerate() {
            let y = top + (index as f64 + 0.5) * LINE;
            canvas.text(&block.title(), left - 12.0, y, HPos::Right)?;
            canvas.line(&[(left, y), (right, y)], GRID, 1.0)?;
        }
        let one = axis.at(1.0);
        canvas.line(&[(one, top - 6.0), (one, top + lines * LINE)], BLACK, 2.0)?;
        canvas.text("multiproc", one, top - 14.0, HPos::Center)?;
        for (index, block) in self.blocks.iter().enumerate() {
            for (kind, spread) in best(block) {
                canvas.mark(kind, axis.at(spread.median), top + (index as f64 + 0.5) * LINE)?;
            }
        }
        canvas.small(self.caption, MARGIN, top + (lines + 2.0) * LINE)
    }
}

struct Contenders<'a> {
    area: &'a str,
    blocks: &'a [Block<'a>],
    caption: &'a str,
}

impl Picture for Contenders<'_> {
    fn height(&self) -> f64 {
        let rows: usize = self.blocks.iter().map(|block| block.rows.len()).sum();
        (rows as f64 + 1.7 * self.blocks.len() as f64 + 5.0) * LINE + 2.0 * MARGIN
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        let (left, right) = (310.0, WIDTH - 220.0);
        let ratios = || {
            let all = self.blocks.iter().flat_map(|block| {
                block.rows.iter().filter_map(|row| Some((*row, block.ratio_of(row)?)))
            });
            all.collect::<Vec<_>>()
        };
        let ends = ratios().into_iter().flat_map(|(_, spread)| [spread.low, spread.high]);
        let axis = Axis::around(ends.chain([1.0]), left, right);
        let top = MARGIN + 2.5 * LINE;
        let bottom = self.height() - MARGIN - 2.5 * LINE;
        let title = format!("{}: as a multiple of ours, with the spread of the rounds", self.area);
        canvas.bold(&title, MARGIN, MARGIN)?;
        axis.grid(canvas, top, bottom)?;
        canvas.line(&[(axis.at(1.0), top), (axis.at(1.0), bottom)], BLACK, 2.0)?;
        let mut y = top + LINE / 2.0;
        for block in self.blocks {
            y += 0.35 * LINE;
            canvas.heading(&format!("{}, one {}", block.what(), block.form().unit), MARGIN, y)?;
            y += LINE;
            for row in &block.rows {
                let Some(spread) = block.ratio_of(row) else { continue };
                canvas.text(&row.name, left - 12.0, y, HPos::Right)?;
                let [low, middle, high] =
                    [spread.low, spread.median, spread.high].map(|ratio| axis.at(ratio));
                canvas.line(&[(low, y), (high, y)], FAINT, 2.0)?;
                canvas.mark(row.kind, middle, y)?;
                let figure = format!("{}  {}", ratio(spread.median), absolute(row));
                canvas.text(&figure, right + 16.0, y, HPos::Left)?;
                y += LINE;
            }
            y += 0.35 * LINE;
        }
        canvas.small(self.caption, MARGIN, bottom + 2.0 * LINE)
    }
}

fn absolute(row: &Row) -> String {
    let median = Spread::of(row.wall.iter().copied()).map_or(0.0, |spread| spread.median);
    match row.quantity {
        Quantity::Time => format!("({})", duration(median)),
        Quantity::Memory => format!("({})", size(median)),
    }
}

struct Curves<'a> {
    blocks: &'a [&'a Block<'a>],
    title: &'a str,
    /// Whether they depend on bytes, or on a plain number.
    bytes: bool,
}

impl Picture for Curves<'_> {
    fn height(&self) -> f64 {
        560.0
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        // By contender, in the order in which they come.
        let mut curves: Vec<(&Row, Vec<(f64, f64)>)> = Vec::new();
        for block in self.blocks {
            for &row in &block.rows {
                let Some((_, x)) = row.curve else { continue };
                let Some(spread) = Spread::of(row.wall.iter().copied()) else { continue };
                let point = (x, spread.median);
                match curves.iter_mut().find(|(first, _)| first.name == row.name) {
                    Some((_, points)) => points.push(point),
                    None => curves.push((row, vec![point])),
                }
            }
        }
        let points = || curves.iter().flat_map(|(_, points)| points.iter().copied());
        let (left, right) = (90.0, WIDTH - 250.0);
        let (top, bottom) = (MARGIN + 2.0 * LINE, self.height() - MARGIN - 2.5 * LINE);
        let x_axis = Axis::around(points().map(|(x, _)| x), left + 20.0, right - 20.0);
        let y_axis = Axis::around(points().map(|(_, y)| y), bottom, top);
        canvas.bold(self.title, MARGIN, MARGIN)?;
        for tick in y_axis.ticks() {
            let y = y_axis.at(tick);
            canvas.line(&[(left, y), (right, y)], GRID, 1.0)?;
            canvas.text(&duration(tick), left - 8.0, y, HPos::Right)?;
        }
        let mut known: Vec<f64> = points().map(|(x, _)| x).collect();
        known.sort_by(f64::total_cmp);
        known.dedup();
        for x in known {
            let label = if self.bytes { size(x) } else { format!("{x}") };
            canvas.line(&[(x_axis.at(x), top), (x_axis.at(x), bottom)], GRID, 1.0)?;
            canvas.text(&label, x_axis.at(x), bottom + 14.0, HPos::Center)?;
        }
        let what = if self.bytes { "length of a message" } else { "tasks in a chunk" };
        canvas.text(what, (left + right) / 2.0, bottom + 14.0 + LINE, HPos::Center)?;
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], BLACK, 1.0)?;
        let order: Vec<&Row> = curves.iter().map(|(row, _)| *row).collect();
        // Names stand beside the ends, in the order of the ends and not over each other.
        curves.sort_by(|(_, a), (_, b)| {
            let end = |points: &[(f64, f64)]| points.last().map_or(0.0, |(_, y)| *y);
            end(b).total_cmp(&end(a))
        });
        let mut free = top;
        let below = |left: usize| bottom - left as f64 * LINE;
        for (index, (row, points)) in curves.iter().enumerate() {
            let at: Vec<_> = points.iter().map(|(x, y)| (x_axis.at(*x), y_axis.at(*y))).collect();
            let width = if row.kind == Kind::Ours { 3.0 } else { 1.5 };
            let alike = order.iter().filter(|other| other.kind == row.kind);
            let before = alike.take_while(|other| other.name != row.name).count();
            let colour = shade(colour(row.kind), before);
            canvas.line(&at, colour, width)?;
            for (x, y) in &at {
                canvas.mark_in(colour, row.kind, *x, *y)?;
            }
            let Some((x, y)) = at.last() else { continue };
            let label = y.max(free).min(below(curves.len() - 1 - index));
            free = label + LINE;
            canvas.line(&[(*x + 8.0, *y), (right + 14.0, label)], colour, 1.0)?;
            canvas.text(&row.name, right + 20.0, label, HPos::Left)?;
        }
        Ok(())
    }
}

/// A logarithmic axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// One that has room for the values between these places.
    fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        Axis { low: low / 1.15, high: high * 1.15, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value / self.low).ln() / (self.high / self.low).ln();
        self.from + share * (self.to - self.from)
    }

    /// Round values: powers of ten, and what is between where there are few.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let between: &[f64] = if decades < 1.5 {
            &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]
        } else if decades < 3.5 {
            &[1.0, 3.0]
        } else {
            &[1.0]
        };
        let powers = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        powers
            .flat_map(|power| between.iter().map(move |step| step * 10f64.powi(power)))
            .filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }

    /// Lines at round ratios.
    fn grid<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, top: f64, bottom: f64) -> Result<()>
    where
        DB::ErrorType: 'static,
    {
        for tick in self.ticks() {
            let x = self.at(tick);
            canvas.line(&[(x, top), (x, bottom)], GRID, 1.0)?;
            let label = format!("{tick:.4}");
            let label = label.trim_end_matches('0').trim_end_matches('.');
            canvas.text(&format!("{label}×"), x, bottom + 14.0, HPos::Center)?;
        }
        Ok(())
    }
}

/// Apart in grey, too: from black to light.
fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Limit => RGBColor(90, 90, 90),
        Kind::Ours => RGBColor(200, 30, 30),
        Kind::Peer => RGBColor(20, 60, 150),
        Kind::Python => RGBColor(230, 160, 30),
        Kind::Threads => RGBColor(60, 160, 90),
    }
}

/// The colour of one of a kind: a mixture with white or black that the others have not.
fn shade(RGBColor(red, green, blue): RGBColor, index: usize) -> RGBColor {
    const MIXTURES: [(f64, f64); 4] = [(1.0, 0.0), (0.55, 255.0), (0.55, 0.0), (0.3, 255.0)];
    let (share, other) = MIXTURES[index.min(MIXTURES.len() - 1)];
    let mix = |part: u8| (share * f64::from(part) + (1.0 - share) * other) as u8;
    RGBColor(mix(red), mix(green), mix(blue))
}

/// Where pictures are drawn: in units that do not depend on how large they are.
struct Canvas<DB: DrawingBackend> {
    area: DrawingArea<DB, Shift>,
    scale: f64,
}

impl<DB: DrawingBackend> Canvas<DB>
where
    DB::ErrorType: 'static,
{
    fn paint(&self, picture: &impl Picture) -> Result<()> {
        self.area.fill(&RGBColor(255, 255, 255))?;
        picture.draw(self)?;
        Ok(self.area.present()?)
    }

    fn pixel(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: f64) -> Result<()> {
        let style = colour.stroke_width((width * self.scale).round() as u32);
        let points: Vec<_> = points.iter().map(|point| self.pixel(*point)).collect();
        Ok(self.area.draw(&PathElement::new(points, style))?)
    }

    fn text(&self, text: &str, x: f64, y: f64, side: HPos) -> Result<()> {
        self.write(text, (x, y), side, FONT, (FontStyle::Normal, BLACK))
    }

    fn bold(&self, text: &str, x: f64, y: f64) -> Result<()> {
        self.write(text, (x, y), HPos::Left, FONT, (FontStyle::Bold, BLACK))
    }

    /// In bold, on nothing else: lines end before it.
    fn heading(&self, text: &str, x: f64, y: f64) -> Result<()> {
        // Bold is wider than what is measured.
        let (right, half) = (x + 1.2 * self.width(text), LINE / 2.0);
        let corners = [self.pixel((x, y - half)), self.pixel((right, y + half))];
        let white = ShapeStyle::from(&RGBColor(255, 255, 255)).filled();
        self.area.draw(&Rectangle::new(corners, white))?;
        self.bold(text, x, y)
    }

    fn small(&self, text: &str, x: f64, y: f64) -> Result<()> {
        self.write(text, (x, y), HPos::Left, 11.0, (FontStyle::Normal, FAINT))
    }

    fn write(
        &self,
        text: &str,
        place: (f64, f64),
        side: HPos,
        size: f64,
        (style, colour): (FontStyle, RGBColor),
    ) -> Result<()> {
        let font = ("sans-serif", size * self.scale, style).into_font();
        let style = TextStyle::from(font.transform(FontTransform::None))
            .color(&colour)
            .pos(Pos::new(side, VPos::Center));
        Ok(self.area.draw(&Text::new(text, self.pixel(place), style))?)
    }

    /// How wide a text is.
    fn width(&self, text: &str) -> f64 {
        let font = ("sans-serif", FONT * self.scale).into_font();
        font.box_size(text).map_or(0.0, |(width, _)| f64::from(width) / self.scale)
    }

    /// The mark of a kind: a bar, a disc, a triangle, a ring, a lozenge.
    fn mark(&self, kind: Kind, x: f64, y: f64) -> Result<()> {
        self.mark_in(colour(kind), kind, x, y)
    }

    fn mark_in(&self, colour: RGBColor, kind: Kind, x: f64, y: f64) -> Result<()> {
        let filled = ShapeStyle::from(&colour).filled();
        let shape = |corners: &[(f64, f64)]| {
            let corners: Vec<_> =
                corners.iter().map(|(dx, dy)| self.pixel((x + dx, y + dy))).collect();
            self.area.draw(&Polygon::new(corners, filled))
        };
        let radius = (5.0 * self.scale) as i32;
        match kind {
            Kind::Limit => shape(&[(-1.5, -8.0), (1.5, -8.0), (1.5, 8.0), (-1.5, 8.0)])?,
            Kind::Peer => self.area.draw(&Circle::new(self.pixel((x, y)), radius, filled))?,
            Kind::Python => shape(&[(0.0, -7.0), (6.5, 5.0), (-6.5, 5.0)])?,
            Kind::Threads => {
                let white = ShapeStyle::from(&RGBColor(255, 255, 255)).filled();
                let ring = colour.stroke_width((2.0 * self.scale) as u32);
                self.area.draw(&Circle::new(self.pixel((x, y)), radius, white))?;
                self.area.draw(&Circle::new(self.pixel((x, y)), radius, ring))?;
            }
            Kind::Ours => shape(&[(0.0, -7.0), (7.0, 0.0), (0.0, 7.0), (-7.0, 0.0)])?,
        }
        Ok(())
    }
}
