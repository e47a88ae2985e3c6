//! The report: what was measured, as tables, and where others are faster.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::plot;
use crate::row::{Kind, Quantity, Row, Spread};

/// All that a run has found out: what the JSON file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// Whether it was to be quick.
    pub quick: bool,
    /// One row for each contender of each measure.
    pub rows: Vec<Row>,
}

/// What the contenders of one measure needed.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// At least one.
    pub rows: Vec<&'a Row>,
}

impl<'a> Block<'a> {
    /// What they have in common.
    pub fn form(&self) -> &'a Row {
        self.rows[0]
    }

    /// Says what was done, and where.
    pub fn what(&self) -> String {
        let Row { measure, place, .. } = self.form();
        if place.is_empty() { measure.clone() } else { format!("{measure}, {place}") }
    }

    /// The same with the area.
    pub fn title(&self) -> String {
        format!("{}: {}", self.form().area, self.what())
    }

    /// The one of ours that the others are compared with.
    pub fn ours(&self) -> &'a Row {
        self.rows.iter().find(|row| row.kind == Kind::Ours).unwrap_or(&self.rows[0])
    }

    /// How many times as much as ours it needed.
    pub fn ratio_of(&self, row: &Row) -> Option<Spread> {
        Spread::of_ratios(&row.wall, &self.ours().wall)
    }

    /// The one of this kind that needed least.
    pub fn strongest(&self, kind: Kind) -> Option<(&'a Row, Spread)> {
        let those = self.rows.iter().filter(|row| row.kind == kind);
        let ratios = those.filter_map(|row| Some((*row, self.ratio_of(row)?)));
        ratios.min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))
    }
}

impl Report {
    /// Reads rows, one in a line.
    pub fn read(rows: &Path, machine: Machine, quick: bool) -> Result<Self> {
        let text = match fs::read_to_string(rows) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let rows = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        Ok(Report { machine, quick, rows: rows.context("a benchmark wrote no row")? })
    }

    /// The measures, in the order in which they were made.
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        for row in self.rows.iter().filter(|row| !row.wall.is_empty()) {
            match blocks.iter_mut().find(|block| block.form().meets(row)) {
                Some(block) => block.rows.push(row),
                None => blocks.push(Block { rows: vec![row] }),
            }
        }
        blocks
    }

    /// Writes `report.md`, `report.json` and the plots into the directory.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let blocks = self.blocks();
        let [processor, kernel, _] = self.machine.lines();
        let caption = format!("{processor}; {kernel}");
        let headline = headline(&blocks);
        if !headline.is_empty() {
            plot::overview(&headline, &caption, &dir.join("overview"))?;
        }
        let areas = areas(&blocks);
        for area in &areas {
            let blocks: Vec<_> = blocks_of(&blocks, area);
            plot::contenders(area, &blocks, &caption, &dir.join(area))?;
        }
        let curves = curves(&blocks);
        for (file, title, points) in &curves {
            let bytes = !file.starts_with("pool");
            plot::curves(points, title, bytes, &dir.join(file))?;
        }
        fs::write(dir.join("report.json"), serde_json::to_string_pretty(self)?)?;
        let curves: Vec<_> = curves.into_iter().map(|(file, ..)| file).collect();
        fs::write(dir.join("report.md"), self.markdown(&blocks, &areas, &curves)?)?;
        Ok(())
    }

    fn markdown(&self, blocks: &[Block<'_>], areas: &[&str], curves: &[String]) -> Result<String> {
        let mut text = String::from("# Side by side\n\n");
        for line in self.machine.lines() {
            writeln!(text, "{line}\n")?;
        }
        let quick = if self.quick { " --quick" } else { "" };
        writeln!(text, "To repeat it: `cargo xtask bench{quick}`.\n")?;
        writeln!(text, "{RATIOS}\n")?;
        if !headline(blocks).is_empty() {
            writeln!(text, "![overview](overview.svg)\n\n{}", summary(&headline(blocks))?)?;
        }
        writeln!(text, "## Where others are faster\n\n{}", losses(blocks)?)?;
        for area in areas {
            writeln!(text, "## {area}\n\n![{area}]({area}.svg)\n")?;
            for file in curves.iter().filter(|file| file.starts_with(&format!("{area}-"))) {
                writeln!(text, "![{file}]({file}.svg)\n")?;
            }
            for block in blocks_of(blocks, area) {
                writeln!(text, "{}", details(&block)?)?;
            }
        }
        Ok(text)
    }

    /// The part for the first page of the repository: the plot and the table.
    pub fn front_page(&self, plot: &str) -> Result<String> {
        let lines = self.machine.lines();
        let quick = if self.quick { " --quick" } else { "" };
        let blocks = self.blocks();
        Ok(format!(
            "![{RATIOS}]({plot})\n\n{RATIOS} To repeat it: `cargo xtask bench{quick}`.\n\n\
             <sub>Measured on {}; {}; with {}.</sub>\n\n{}\n\
             <details><summary>Where others are faster, in all that was measured</summary>\n\n{}\n\
             </details>\n",
            lines[0],
            lines[1],
            lines[2],
            summary(&headline(&blocks))?,
            losses(&blocks)?
        ))
    }

    /// The same for a terminal, and where others are faster.
    pub fn terminal(&self) -> Result<String> {
        let blocks = self.blocks();
        let mut text = format!("\n{}\n\n", self.machine.lines().join("\n"));
        let titles: Vec<_> = blocks.iter().map(Block::title).collect();
        let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or(0);
        writeln!(
            text,
            "{:width$}  {:>9}  {:>8}  {:<26}  {:<26}  {:<26}",
            "times ours", "ours", "limit", "peer", "threads", "Python"
        )?;
        for (block, title) in blocks.iter().zip(titles) {
            let best = |kind| {
                block.strongest(kind).map(|(row, spread)| (row.name.as_str(), ratio(spread.median)))
            };
            let named =
                |kind| best(kind).map_or(String::new(), |(name, ratio)| format!("{ratio} {name}"));
            let line = format!(
                "{title:width$}  {:>9}  {:>8}  {:<26}  {:<26}  {}",
                absolute(block.ours()),
                best(Kind::Limit).map_or(String::new(), |(_, ratio)| ratio),
                named(Kind::Peer),
                named(Kind::Threads),
                named(Kind::Python),
            );
            writeln!(text, "{}", line.trim_end())?;
        }
        writeln!(text, "\nWhere others are faster:\n{}", losses(&blocks)?)?;
        Ok(text)
    }
}

const RATIOS: &str = "Each figure says how many times our time another needs for the same, measured \
     by turns in the same run: above 1× it is slower than we are, below 1× (**bold**) faster.";

/// Those for the first page.
fn headline<'a>(blocks: &[Block<'a>]) -> Vec<Block<'a>> {
    blocks.iter().filter(|block| block.form().headline).cloned().collect()
}

fn areas<'a>(blocks: &[Block<'a>]) -> Vec<&'a str> {
    let mut areas: Vec<&str> = Vec::new();
    for block in blocks {
        let area = block.form().area.as_str();
        if !areas.contains(&area) {
            areas.push(area);
        }
    }
    areas
}

fn blocks_of<'a>(blocks: &[Block<'a>], area: &str) -> Vec<Block<'a>> {
    blocks.iter().filter(|block| block.form().area == area).cloned().collect()
}

/// The curves: the name of a file, a title, and the measures that are points of it.
fn curves<'a, 'b>(blocks: &'b [Block<'a>]) -> Vec<(String, String, Vec<&'b Block<'a>>)> {
    let mut curves: Vec<(String, String, Vec<&Block<'_>>)> = Vec::new();
    for block in blocks {
        let form = block.form();
        let Some((name, _)) = &form.curve else { continue };
        let place = if form.place.is_empty() { String::new() } else { format!(", {}", form.place) };
        let title = format!("{}: {name}{place}, time of one {}", form.area, form.unit);
        let file =
            format!("{} {name}{place}", form.area).replace([' ', ','], "-").replace("--", "-");
        match curves.iter_mut().find(|(known, ..)| *known == file) {
            Some((.., points)) => points.push(block),
            None => curves.push((file, title, vec![block])),
        }
    }
    curves
}

/// One line for each measure, with the strongest of each kind.
fn summary(blocks: &[Block<'_>]) -> Result<String> {
    let mut text = String::from(
        "| what | ours | raw system calls, the limit | best peer | threads of one process | best in Python |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for block in blocks {
        let cell = |kind: Kind| match block.strongest(kind) {
            None => String::new(),
            Some((row, spread)) => format!("{} <sub>{}</sub>", emphasised(spread), row.name),
        };
        writeln!(
            text,
            "| {} | <sub>{}</sub> | {} | {} | {} | {} |",
            block.title(),
            absolute(block.ours()),
            cell(Kind::Limit),
            cell(Kind::Peer),
            cell(Kind::Threads),
            cell(Kind::Python)
        )?;
    }
    Ok(text)
}

/// Every contender of a measure.
fn details(block: &Block<'_>) -> Result<String> {
    let form = block.form();
    let mut text = format!(
        "### {}\n\n| one {} | times ours | spread | of our CPU time | <sub>time</sub> | <sub>CPU time</sub> |\n\
         | --- | --- | --- | --- | --- | --- |\n",
        block.title(),
        form.unit
    );
    for row in &block.rows {
        let Some(spread) = block.ratio_of(row) else { continue };
        let cpu = Spread::of_ratios(&row.cpu, &block.ours().cpu);
        let cpu_time = Spread::of(row.cpu.iter().copied());
        writeln!(
            text,
            "| {} | {} | {} to {} | {} | <sub>{}</sub> | <sub>{}</sub> |",
            row.name,
            emphasised(spread),
            ratio(spread.low),
            ratio(spread.high),
            cpu.map_or(String::new(), |cpu| ratio(cpu.median)),
            absolute(row),
            cpu_time.map_or(String::new(), |cpu| duration(cpu.median)),
        )?;
    }
    Ok(text)
}

/// Who beats us, in which measure, and by how much.
fn losses(blocks: &[Block<'_>]) -> Result<String> {
    let mut text = String::new();
    for block in blocks {
        for row in &block.rows {
            let Some(spread) = block.ratio_of(row) else { continue };
            if matches!(row.kind, Kind::Ours | Kind::Limit) || !is_faster(spread) {
                continue;
            }
            let always = if spread.high < 1.0 { "" } else { ", not in every round" };
            writeln!(
                text,
                "- {}: {} ({}) needs {} ({} to {}) of our time{always}",
                block.title(),
                row.name,
                match row.kind {
                    Kind::Threads => "threads",
                    Kind::Python => "Python",
                    _ => "processes",
                },
                ratio(spread.median),
                ratio(spread.low),
                ratio(spread.high)
            )?;
        }
    }
    if text.is_empty() {
        text.push_str("nowhere in what was measured\n");
    }
    Ok(text)
}

fn emphasised(spread: Spread) -> String {
    let text = ratio(spread.median);
    if is_faster(spread) { format!("**{text}**") } else { text }
}

/// By more than what is not printed.
fn is_faster(spread: Spread) -> bool {
    spread.median < 0.995
}

fn absolute(row: &Row) -> String {
    let median = Spread::of(row.wall.iter().copied()).map_or(f64::NAN, |spread| spread.median);
    match row.quantity {
        Quantity::Time => duration(median),
        Quantity::Memory => size(median),
    }
}

/// A ratio with two or three digits that count.
pub fn ratio(ratio: f64) -> String {
    match ratio {
        ..0.095 => format!("{ratio:.3}×"),
        ..9.95 => format!("{ratio:.2}×"),
        ..99.5 => format!("{ratio:.1}×"),
        _ => format!("{ratio:.0}×"),
    }
}

/// A time of so many nanoseconds.
pub fn duration(nanos: f64) -> String {
    scaled(nanos, 1000.0, &["ns", "µs", "ms", "s"])
}

/// A size of so many bytes.
pub fn size(bytes: f64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB"])
}

fn scaled(mut figure: f64, step: f64, units: &[&str]) -> String {
    let mut units = units.iter().peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        if figure < step * 0.9995 || units.peek().is_none() {
            break;
        }
        figure /= step;
    }
    let digits = match figure {
        _ if figure.fract() == 0.0 => 0,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{figure:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, kind: Kind, wall: &[f64]) -> Row {
        Row {
            area: "pipe".into(),
            measure: "64 B there and back".into(),
            place: "one core".into(),
            unit: "round trip".into(),
            quantity: Quantity::Time,
            headline: true,
            curve: Some(("there and back".into(), 64.0)),
            name: name.into(),
            kind,
            wall: wall.to_vec(),
            cpu: wall.to_vec(),
        }
    }

    fn report() -> Report {
        let rows = vec![
            row("raw", Kind::Limit, &[1.0, 2.0, 1.0]),
            row("ours", Kind::Ours, &[2.0, 2.0, 2.0]),
            row("slow", Kind::Peer, &[40.0, 50.0, 60.0]),
            row("quick", Kind::Peer, &[1.0, 1.5, 3.0]),
        ];
        Report { machine: Machine::default(), quick: true, rows }
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(ratio(0.5), "0.50×");
        assert_eq!(ratio(23.456), "23.5×");
        assert_eq!(ratio(1234.5), "1234×");
        assert_eq!(duration(15.25), "15.2 ns");
        assert_eq!(duration(2500.0), "2.50 µs");
        assert_eq!(duration(999_999.0), "1.00 ms");
        assert_eq!(duration(12e9), "12 s");
        assert_eq!(duration(5e13), "50000 s");
        assert_eq!(size(64.0), "64 B");
        assert_eq!(size(65536.0), "64 KiB");
    }

    #[test]
    fn the_strongest_of_a_kind_is_in_the_table_and_who_is_faster_is_named() {
        let report = report();
        let blocks = report.blocks();
        assert_eq!(blocks.len(), 1);
        let (strongest, spread) = blocks[0].strongest(Kind::Peer).unwrap();
        assert_eq!((strongest.name.as_str(), spread.median), ("quick", 0.75));
        let losses = losses(&blocks).unwrap();
        assert!(losses.contains("quick (processes) needs 0.75× (0.50× to 1.50×)"), "{losses}");
        assert!(losses.contains("not in every round"));
        assert!(!losses.contains("slow") && !losses.contains("raw"));
        assert!(summary(&blocks).unwrap().contains("| **0.75×** <sub>quick</sub> |"));
    }

    #[test]
    fn all_is_written_and_the_rows_can_be_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let report = report();
        report.write(dir.path()).unwrap();
        let files = [
            "report.md",
            "overview.svg",
            "overview.png",
            "pipe.svg",
            "pipe-there-and-back-one-core.png",
        ];
        for file in files {
            assert!(dir.path().join(file).metadata().unwrap().len() > 0, "{file}");
        }
        let json = fs::read_to_string(dir.path().join("report.json")).unwrap();
        let again: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(again.rows.len(), 4);
        assert_eq!(again.rows[3].wall, report.rows[3].wall);
        let rows = dir.path().join("rows");
        let lines: Vec<_> =
            report.rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        fs::write(&rows, lines.join("\n")).unwrap();
        assert_eq!(Report::read(&rows, Machine::default(), true).unwrap().rows.len(), 4);
        fs::write(&rows, "no row").unwrap();
        assert!(Report::read(&rows, Machine::default(), true).is_err());
    }
}
