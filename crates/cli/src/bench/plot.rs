//! Latencies over percentiles, as an SVG drawing.

use std::path::Path;

use plotters::prelude::*;

use super::Measured;
use crate::failure::{Failure, Outcome};

/// Where the axis ends: 99.99 %.
const NINES: f64 = 4.0;
const STEPS: u32 = 80;
const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
];

/// Draws what was measured into `path`.
pub(super) fn draw(path: &Path, measured: &[Measured]) -> Outcome {
    let failed = |what: String| Failure::Failed(format!("draw {}: {what}", path.display()));
    let curves: Vec<(&Measured, Vec<(f64, f64)>)> =
        measured.iter().map(|result| (result, curve(result))).collect();
    let latencies = || curves.iter().flat_map(|(_, points)| points.iter().map(|(_, us)| *us));
    let (least, most) = (latencies().fold(f64::MAX, f64::min), latencies().fold(1.0, f64::max));
    let root = SVGBackend::new(path, (960, 540)).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn std::error::Error + '_>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("Latency by percentile", ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..NINES, (least / 1.5..most * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("microseconds")
            .x_labels(5)
            .x_label_formatter(&|nines| percentile(*nines))
            .y_label_formatter(&|us| format!("{us:.0}"))
            .draw()?;
        for ((result, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let (colour, name) = (*colour, format!("{} ({})", result.name, result.of));
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.4))
            .draw()?;
        root.present()?;
        Ok(())
    };
    drawn().map_err(|e| failed(e.to_string()))
}

/// Points of (nines, us): 0 is the least, 1 is 90 %, 2 is 99 %, and so on.
fn curve(result: &Measured) -> Vec<(f64, f64)> {
    (0..=STEPS)
        .map(|step| {
            let nines = NINES * f64::from(step) / f64::from(STEPS);
            let ns = result.latency.value_at_quantile(1.0 - 10f64.powf(-nines));
            #[expect(clippy::cast_precision_loss, reason = "a drawing")]
            let us = ns.max(1) as f64 / 1_000.0;
            (nines, us)
        })
        .collect()
}

fn percentile(nines: f64) -> String {
    let text = format!("{:.3}", 100.0 - 100.0 * 10f64.powf(-nines));
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
