//! Text, JSON, the tables of docs/benchmarks.md and its plots.

use std::path::Path;

use plotters::prelude::*;
use serde_json::{Value, json};

use crate::Sample;
use crate::engine::Peer;

/// One rival in one row: medians over the rounds.
pub struct Line {
    pub name: &'static str,
    pub note: &'static str,
    pub per_second: f64,
    /// Slowest and fastest round.
    pub range: (f64, f64),
    pub p50_us: Option<f64>,
    pub p999_us: Option<f64>,
}

impl Line {
    pub fn new(peer: &Peer, samples: &[Sample]) -> Line {
        let mut rates: Vec<f64> = samples.iter().map(|sample| sample.per_second).collect();
        let per_second = median(&mut rates);
        let of = |part: fn(&Sample) -> Option<f64>| {
            let mut values: Vec<f64> = samples.iter().filter_map(part).collect();
            (!values.is_empty()).then(|| median(&mut values))
        };
        Line {
            name: peer.name,
            note: peer.note,
            per_second,
            range: (rates[0], rates[rates.len() - 1]),
            p50_us: of(|sample| sample.p50_us),
            p999_us: of(|sample| sample.p999_us),
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn short(per_second: f64) -> String {
    match per_second {
        r if r >= 1e7 => format!("{:.1} M", r / 1e6),
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e4 => format!("{:.0} k", r / 1e3),
        r => format!("{:.1} k", r / 1e3),
    }
}

/// A table on standard output.
pub fn print(title: &str, lines: &[Line]) {
    println!("\n{title}");
    let ours = lines.iter().find(|line| line.name == "logmill").map(|line| line.per_second);
    for line in lines {
        let times = line
            .p50_us
            .zip(line.p999_us)
            .map_or(String::new(), |(p50, p999)| format!("  p50 {p50:.0} us  p99.9 {p999:.0} us"));
        let ratio = ours.map_or(String::new(), |ours| {
            format!("logmill is {:.2} of it", ours / line.per_second)
        });
        let (low, high) = (short(line.range.0), short(line.range.1));
        println!(
            "  {:<22} {:>8}/s  ({low} to {high})  {ratio}{times}",
            line.name,
            short(line.per_second)
        );
    }
}

/// Puts a row into the JSON file, in place of the one of an earlier run.
pub fn keep(path: &Path, name: &str, title: &str, rounds: usize, lines: &[Line]) {
    let mut all: Value = std::fs::read(path).ok().map_or_else(
        || json!({}),
        |bytes| serde_json::from_slice(&bytes).expect("JSON of an earlier run"),
    );
    let rivals: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "name": line.name, "note": line.note, "per_second": line.per_second,
                "slowest": line.range.0, "fastest": line.range.1, "p50_us": line.p50_us, "p999_us": line.p999_us,
            })
        })
        .collect();
    all[name] = json!({ "title": title, "rounds": rounds, "rivals": rivals });
    std::fs::write(path, serde_json::to_vec_pretty(&all).expect("JSON")).expect("the JSON file");
}

/// Writes what a JSON file holds between the markers of docs/benchmarks.md, and a plot of each row into docs/plots/.
pub fn write(json: &Path) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let all: Value =
        serde_json::from_slice(&std::fs::read(json).expect("a JSON file")).expect("JSON");
    std::fs::create_dir_all(docs.join("plots")).expect("docs/plots");
    let mut tables = String::new();
    for row in crate::ROWS.iter().filter(|row| !all[row.name].is_null()) {
        tables += &table(row.name, &all[row.name]);
        plot(&docs.join(format!("plots/{}.svg", row.name)), &all[row.name]);
    }
    let page = docs.join("benchmarks.md");
    let text = std::fs::read_to_string(&page).expect("docs/benchmarks.md");
    let (before, rest) = text.split_once("<!-- tables -->\n").expect("a marker `<!-- tables -->`");
    let (_, after) =
        rest.split_once("<!-- end of tables -->").expect("a marker `<!-- end of tables -->`");
    std::fs::write(
        &page,
        format!("{before}<!-- tables -->\n{tables}<!-- end of tables -->{after}"),
    )
    .expect("docs/benchmarks.md");
}

fn rate(rival: &Value) -> f64 {
    rival["per_second"].as_f64().expect("a rate")
}

fn rivals(row: &Value) -> &[Value] {
    row["rivals"].as_array().expect("rivals")
}

fn table(name: &str, row: &Value) -> String {
    let ours = rivals(row).iter().find(|rival| rival["name"] == "logmill").map_or(0.0, rate);
    let has_times = rivals(row).iter().any(|rival| rival["p50_us"].is_f64());
    let times = if has_times { " p50 / p99.9 |" } else { "" };
    let mut text = format!("\n### {}\n\n", row["title"].as_str().expect("a title"));
    text += &format!(
        "| | records/s | slowest to fastest | logmill is |{times} note |\n|---|---:|---:|---:|{} ---|\n",
        if has_times { "---:|" } else { "" }
    );
    for rival in rivals(row) {
        let number = |field: &str| rival[field].as_f64().expect("a number");
        let times = match (rival["p50_us"].as_f64(), rival["p999_us"].as_f64()) {
            (Some(p50), Some(p999)) => format!(" {p50:.0} / {p999:.0} us |"),
            _ if has_times => " |".to_owned(),
            _ => String::new(),
        };
        text += &format!(
            "| {} | {} | {} to {} | {:.2}x |{times} {} |\n",
            rival["name"].as_str().expect("a name"),
            short(rate(rival)),
            short(number("slowest")),
            short(number("fastest")),
            ours / rate(rival),
            rival["note"].as_str().expect("a note"),
        );
    }
    text += &format!("\n![{}](plots/{name}.svg)\n", row["title"].as_str().expect("a title"));
    text
}

const OURS: RGBColor = RGBColor(0xD9, 0x5F, 0x02);
const FLOOR: RGBColor = RGBColor(0xB8, 0xBE, 0xC4);
const THEIRS: RGBColor = RGBColor(0x3B, 0x6E, 0x8F);
const INK: RGBColor = RGBColor(0x2B, 0x2F, 0x33);

/// Horizontal bars, the fastest on top, on a logarithmic scale where one engine is far ahead.
fn plot(path: &Path, row: &Value) {
    let mut sorted: Vec<&Value> = rivals(row).iter().collect();
    sorted.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    let (most, least) = (rate(sorted[0]), rate(sorted[sorted.len() - 1]));
    let is_log = most > 50.0 * least;
    let height = 64 + 26 * sorted.len() as u32;
    let area = SVGBackend::new(path, (820, height)).into_drawing_area();
    area.fill(&WHITE).expect("plot");
    let text = |size: f64| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(row["title"].as_str().expect("a title"), (16, 14), text(17.0)))
        .expect("plot");
    let length = |rate: f64| {
        let part = if is_log {
            (rate / (least / 3.0)).ln() / (most / (least / 3.0)).ln()
        } else {
            rate / most
        };
        (part * 490.0) as i32
    };
    for (i, rival) in sorted.iter().enumerate() {
        let name = rival["name"].as_str().expect("a name");
        let top = 46 + 26 * i as i32;
        let colour = match name {
            "logmill" => OURS,
            name if name.starts_with("floor") => FLOOR,
            _ => THEIRS,
        };
        let end = 190 + length(rate(rival)).max(2);
        area.draw(&Text::new(name, (16, top + 3), text(14.0))).expect("plot");
        area.draw(&Rectangle::new([(190, top), (end, top + 19)], colour.filled())).expect("plot");
        area.draw(&Text::new(format!("{}/s", short(rate(rival))), (end + 8, top + 3), text(13.0)))
            .expect("plot");
    }
    let scale = if is_log { "records per second, logarithmic scale" } else { "records per second" };
    area.draw(&Text::new(scale, (570, 16), text(12.0))).expect("plot");
    area.present().expect("plot");
}
