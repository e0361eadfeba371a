//! Tokens per second over the budget, as SVG.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde_json::Value;

use crate::Result;

const SIZE: (u32, u32) = (860, 470);
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
const BOUND: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
const OURS: RGBColor = RGBColor(0x0b, 0x6e, 0xb5);
const PEER: RGBColor = RGBColor(0xc8, 0x51, 0x1b);

type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn style(size: u32, color: &RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(color)
}

/// One budget: where it stands, and least, median, most.
struct Point {
    x: f64,
    y: [f64; 3],
}

pub fn svg(record: &Value) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw(&area, record).map_err(|e| format!("the chart: {e}"))?;
    drop(area);
    Ok(text)
}

fn points(record: &Value, series: &str) -> Vec<Point> {
    let budgets = record["budgets"].as_array().into_iter().flatten();
    let mut points: Vec<Point> = budgets
        .filter_map(|b| {
            let s = &b["summary"];
            let figures = match series {
                "peer" if s["peer"]["ended"].is_string() => return None,
                "peer" => &s["peer"]["figures"],
                other => &s[other],
            };
            let y = [figures["least"].as_f64()?, figures["median"].as_f64()?, figures["most"].as_f64()?];
            Some(Point { x: b["budget_bytes"].as_f64()? / 1048576.0, y })
        })
        .collect();
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points
}

/// The frame of a chart over the memory budget.
fn axes<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    title: String,
    right: f64,
    top: f64,
) -> Drawn<Chart<'a, 'b>> {
    let mut chart = ChartBuilder::on(area)
        .caption(title, style(17, &INK))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(style(13, &INK))
        .axis_desc_style(style(14, &INK))
        .x_desc("memory budget, MiB")
        .y_desc("tokens per second")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    Ok(chart)
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>) -> Drawn<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(16)
        .legend_area_size(30)
        .background_style(WHITE)
        .border_style(FAINT)
        .label_font(style(14, &INK))
        .draw()?;
    Ok(())
}

/// Tokens per second of several sequences together, each number of them a line; the peer's are dashed.
pub fn of_batches(record: &Value) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    draw_batches(&area, record).map_err(|e| format!("the chart: {e}"))?;
    drop(area);
    Ok(text)
}

/// How many sequences, whether by the peer, and tokens per second at budgets in MiB.
type BatchLine = (u64, bool, Vec<(f64, f64)>);

fn draw_batches(area: &DrawingArea<SVGBackend, Shift>, record: &Value) -> Drawn<()> {
    area.fill(&WHITE)?;
    let budgets = || record["budgets"].as_array().into_iter().flatten();
    let mut counts: Vec<u64> = Vec::new();
    let mut lines: Vec<BatchLine> = Vec::new();
    for budget in budgets() {
        let mebibytes = budget["budget_bytes"].as_f64().unwrap_or(0.0) / 1048576.0;
        for case in budget["cases"].as_array().into_iter().flatten() {
            let (count, peer) = (case["sequences"].as_u64().unwrap_or(0), case["way"] == crate::batch::PEER);
            let figure = case["tokens_per_second"]["median"].as_f64().filter(|_| !case["ended"].is_string());
            let Some(figure) = figure.filter(|_| peer || case["way"] == "batch") else { continue };
            if !counts.contains(&count) {
                counts.push(count);
            }
            match lines.iter_mut().find(|line| (line.0, line.1) == (count, peer)) {
                Some(line) => line.2.push((mebibytes, figure)),
                None => lines.push((count, peer, vec![(mebibytes, figure)])),
            }
        }
    }
    lines.sort_by_key(|line| (line.1, std::cmp::Reverse(line.0)));
    let all = || lines.iter().flat_map(|line| &line.2);
    let (right, top) = all().fold((1.0, 1.0), |(x, y), p| (p.0.max(x), p.1.max(y)));
    let name = record["model"]["name"].as_str().unwrap_or("?");
    let title = format!("Tokens per second of several sequences together: {name}");
    let mut chart = axes(area, title, right * 1.06, top * 1.1)?;
    for (count, peer, mut points) in lines {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let place = counts.iter().position(|&other| other == count).unwrap_or(0);
        // The more sequences, the darker.
        let share = (place + 1) as f64 / counts.len() as f64;
        let color = if peer { PEER } else { OURS }.mix(0.25 + 0.75 * share);
        let label = format!(
            "{count} {}{}",
            if peer { "in llama.cpp" } else { "here" },
            if count == 1 { ", alone" } else { "" }
        );
        let drawn = match peer {
            true => chart.draw_series(DashedLineSeries::new(points.clone(), 6, 4, color.stroke_width(2)))?,
            false => chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(3)))?,
        };
        drawn.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 4, color.filled())))?;
    }
    legend(&mut chart)?;
    area.present()?;
    Ok(())
}

fn draw(area: &DrawingArea<SVGBackend, Shift>, record: &Value) -> Drawn<()> {
    area.fill(&WHITE)?;
    let [bound, ours, peer] = ["bound", "ours", "peer"].map(|s| points(record, s));
    let all = || bound.iter().chain(&ours).chain(&peer);
    let file = record["model"]["file_bytes"].as_f64().unwrap_or(0.0) / 1048576.0;
    let right = all().map(|p| p.x).fold(file, f64::max) * 1.06;
    let top = all().map(|p| p.y[2]).fold(1.0, f64::max) * 1.1;
    let name = record["model"]["name"].as_str().unwrap_or("?");
    let title = format!("Tokens per second with less and less memory: {name}, {file:.0} MiB");
    let mut chart = axes(area, title, right, top)?;
    chart.draw_series(DashedLineSeries::new([(file, 0.0), (file, top)], 2, 4, BOUND.stroke_width(1)))?;
    // Left of its line, at the foot, where no curve is.
    let label = Text::new("size of the file", (-78, -14), style(12, &BOUND));
    chart.draw_series([EmptyElement::at((file, 0.0)) + label])?;

    let line = |points: &[Point]| points.iter().map(|p| (p.x, p.y[1])).collect::<Vec<_>>();
    chart
        .draw_series(DashedLineSeries::new(line(&bound), 6, 4, BOUND.stroke_width(2)))?
        .label("bound: the longer of reading and arithmetic")
        .legend(|(x, y)| {
            let dash = |from| PathElement::new([(from, 0), (from + 8, 0)], BOUND.stroke_width(2));
            EmptyElement::at((x, y)) + dash(0) + dash(14)
        });
    for (points, color, label) in [(&ours, OURS, "layerline"), (&peer, PEER, "llama.cpp, same memory limit")] {
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(line(points), color.stroke_width(3)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
        chart.draw_series(points.iter().map(|p| Circle::new((p.x, p.y[1]), 4, color.filled())))?;
        let bars = points.iter().map(|p| PathElement::new([(p.x, p.y[0]), (p.x, p.y[2])], color.stroke_width(1)));
        chart.draw_series(bars)?;
    }
    legend(&mut chart)?;
    area.present()?;
    Ok(())
}
