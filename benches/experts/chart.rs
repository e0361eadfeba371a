//! Tokens per second of each way at each budget, as SVG.

use plotters::prelude::*;
use serde_json::Value;

use crate::Result;

const SIZE: (u32, u32) = (760, 400);
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// The key of a way in the record, its name in the chart, its colour.
const WAYS: [(&str, &str, RGBColor); 3] = [
    ("cache", "layerline, experts that are expected to come", RGBColor(0x0b, 0x6e, 0xb5)),
    ("fixed_share", "layerline, the same experts for good", RGBColor(0x8a, 0x8a, 0x8a)),
    ("peer", "llama.cpp, same memory limit", RGBColor(0xc8, 0x51, 0x1b)),
];

pub fn svg(record: &Value) -> Result<String> {
    let mut text = String::new();
    draw(&mut text, record).map_err(|e| format!("the chart: {e}"))?;
    Ok(text)
}

fn draw(text: &mut String, record: &Value) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let budgets: Vec<&Value> = record["budgets"].as_array().into_iter().flatten().collect();
    let median = |budget: &Value, way: &str| budget["summary"][way]["tokens_per_second"].as_f64();
    let all = budgets.iter().flat_map(|b| WAYS.iter().filter_map(|w| median(b, w.0)));
    let top = all.fold(1.0, f64::max) * 1.15;
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let style = |size: u32, color: &RGBColor| (FONT, size).into_font().color(color);
    let name = record["trace_name"].as_str().unwrap_or("?");
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Tokens per second, routed as {name}"), style(17, &INK))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..budgets.len() as f64, 0.0..top)?;
    let share = |x: &f64| budgets.get(*x as usize).and_then(|b| b["share"].as_str()).unwrap_or("").to_string();
    // A budget's bars stand around the middle between two whole numbers.
    let label = |x: &f64| if x.fract() == 0.0 { String::new() } else { share(x) };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .label_style(style(13, &INK))
        .axis_desc_style(style(14, &INK))
        .x_labels(2 * budgets.len() + 1)
        .x_desc("memory budget, share of the file")
        .y_desc("tokens per second")
        .x_label_formatter(&label)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (i, (way, title, color)) in WAYS.into_iter().enumerate() {
        let bars = budgets.iter().enumerate().filter_map(|(at, b)| Some((at, median(b, way)?)));
        let bars: Vec<(f64, f64)> = bars.map(|(at, y)| (at as f64 + 0.14 + 0.24 * i as f64, y)).collect();
        if bars.is_empty() {
            continue;
        }
        chart
            .draw_series(bars.iter().map(|&(x, y)| Rectangle::new([(x, 0.0), (x + 0.22, y)], color.filled())))?
            .label(title)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 18, y + 5)], color.filled()));
        let figure = |&(x, y): &(f64, f64)| {
            EmptyElement::at((x, y)) + Text::new(format!("{y:.1}"), (0, -14), (FONT, 12).into_font().color(&INK))
        };
        chart.draw_series(bars.iter().map(figure))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .margin(12)
        .legend_area_size(26)
        .background_style(WHITE)
        .border_style(FAINT)
        .label_font(style(13, &INK))
        .draw()?;
    area.present()?;
    Ok(())
}
