//! What an operation costs as the store grows, and how long single appends take under sustained load. logmill alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use logmill::{Message, QueueConfig, ReceiveOptions, Store};
use logmill_storage::{DataDir, Durability, Log, LogConfig, Record};
use plotters::prelude::*;

/// One line of a plot: a name and its points.
type Line = (&'static str, Vec<(f64, f64)>);

/// Measures everything, prints it as tables, and plots it into docs/plots.
pub fn run(place: &Path, what: &str) {
    let plots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/plots");
    std::fs::create_dir_all(&plots).expect("docs/plots");
    let (title, x, y, lines) = match what {
        "tail" => return tail(place, &plots),
        "size" => ("Cost against the size of the log", "records", "us", size(place)),
        "record" => {
            ("Buffered append against the size of a record", "bytes", "MB/s", record(place))
        }
        "logs" => ("Buffered append against the number of logs", "logs", "us", logs(place)),
        "queues" => ("One message against the number of queues", "queues", "us", queues(place)),
        "readers" => (
            "Reading one log against the number of its readers",
            "readers",
            "M records/s in all",
            readers(place),
        ),
        other => {
            panic!("no growth of {other}; there are: tail, size, record, logs, queues, readers")
        }
    };
    println!("\n| {x} |{}\n|---:|{}", names(&lines), "---:|".repeat(lines.len()));
    for (i, (at, _)) in lines[0].1.iter().enumerate() {
        let values: String =
            lines.iter().map(|(_, points)| format!(" {:.2} |", points[i].1)).collect();
        println!("| {at} |{values}");
    }
    plot(&plots.join(format!("growth_{what}.svg")), title, x, y, &lines);
}

fn names(lines: &[Line]) -> String {
    lines.iter().map(|(name, _)| format!(" {name} |")).collect()
}

fn fresh(place: &Path) -> PathBuf {
    let path = place.join(format!("growth-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("directory");
    path
}

fn buffered(dir: &DataDir, name: &str) -> Log {
    Log::open(dir, name, LogConfig::default().durability(Durability::Buffered)).expect("log")
}

fn us(begin: Instant, count: u64) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6 / count as f64
}

fn size(place: &Path) -> Vec<Line> {
    let path = fresh(place);
    let value = [b'x'; 100];
    let records = [Record::value(&value); 100];
    let (mut append, mut get, mut seek, mut open) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for size in [1_000_000u64, 3_000_000, 10_000_000, 30_000_000] {
        let dir = DataDir::open(&path).expect("directory");
        let log = buffered(&dir, "1");
        while log.end_offset() + 100_000 < size {
            log.append_batch(&records).expect("append");
        }
        let begin = Instant::now();
        (0..100_000).for_each(|_| _ = log.append(&Record::value(&value)).expect("append"));
        append.push((size as f64, us(begin, 100_000)));
        let (mut offset, begin) = (1u64, Instant::now());
        for _ in 0..20_000 {
            offset = offset
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            log.get((offset >> 16) % size).expect("get");
        }
        get.push((size as f64, us(begin, 20_000)));
        let time = log.get(size / 2).expect("get").expect("a record").timestamp;
        let begin = Instant::now();
        (0..200).for_each(|_| _ = log.offset_for_timestamp(time).expect("seek"));
        seek.push((size as f64, us(begin, 200)));
        log.close().expect("close");
        drop(dir);
        let begin = Instant::now();
        let dir = DataDir::open(&path).expect("directory");
        let log = buffered(&dir, "1");
        open.push((size as f64, us(begin, 1)));
        assert_eq!(log.end_offset(), size);
        log.close().expect("close");
    }
    let _ = std::fs::remove_dir_all(&path);
    vec![("append", append), ("get", get), ("seek by time", seek), ("open after close", open)]
}

fn record(place: &Path) -> Vec<Line> {
    let rate = |bytes: usize| {
        let path = fresh(place);
        let dir = DataDir::open(&path).expect("directory");
        let log = buffered(&dir, "1");
        let value = vec![b'x'; bytes];
        let count = (200_000_000 / (bytes + 100)).max(4) as u64;
        let begin = Instant::now();
        (0..count).for_each(|_| _ = log.append(&Record::value(&value)).expect("append"));
        bytes as f64 / us(begin, count)
    };
    // The largest record leaves room for its encoding.
    let sizes = [16, 100, 1 << 10, 16 << 10, 256 << 10, 1 << 20, (16 << 20) - 100];
    vec![("append", sizes.into_iter().map(|bytes| (bytes as f64, rate(bytes))).collect())]
}

fn logs(place: &Path) -> Vec<Line> {
    let (mut append, mut open) = (Vec::new(), Vec::new());
    for count in [1u64, 10, 100, 1000] {
        let path = fresh(place);
        let dir = DataDir::open(&path).expect("directory");
        let begin = Instant::now();
        let logs: Vec<Log> = (0..count).map(|i| buffered(&dir, &i.to_string())).collect();
        open.push((count as f64, us(begin, count)));
        let value = [b'x'; 100];
        // The first append to each makes its file.
        logs.iter().for_each(|log| _ = log.append(&Record::value(&value)).expect("append"));
        let begin = Instant::now();
        for _ in 0..500_000 / count {
            logs.iter().for_each(|log| _ = log.append(&Record::value(&value)).expect("append"));
        }
        append.push((count as f64, us(begin, 500_000 / count * count)));
        drop((logs, dir));
        let _ = std::fs::remove_dir_all(&path);
    }
    vec![("append", append), ("open a new log", open)]
}

fn queues(place: &Path) -> Vec<Line> {
    let (mut send, mut take) = (Vec::new(), Vec::new());
    for count in [1u64, 10, 100, 1000] {
        let path = fresh(place);
        let store = Store::builder().durability(Durability::Buffered).open(&path).expect("store");
        let make =
            |i| store.create_queue(&format!("q{i}"), &QueueConfig::standard()).expect("queue");
        let queues: Vec<_> = (0..count).map(make).collect();
        let body = [b'x'; 100];
        let begin = Instant::now();
        for _ in 0..50_000 / count {
            queues.iter().for_each(|queue| _ = queue.send(&Message::new(&body)).expect("send"));
        }
        let done = 50_000 / count * count;
        send.push((count as f64, us(begin, done)));
        let begin = Instant::now();
        for _ in 0..50_000 / count {
            for queue in &queues {
                let received = queue.receive(&ReceiveOptions::default()).expect("receive");
                queue.delete(received[0].receipt()).expect("delete");
            }
        }
        take.push((count as f64, us(begin, done)));
        store.close().expect("close");
        let _ = std::fs::remove_dir_all(&path);
    }
    vec![("send", send), ("receive and delete", take)]
}

fn readers(place: &Path) -> Vec<Line> {
    let path = fresh(place);
    let dir = DataDir::open(&path).expect("directory");
    let log = buffered(&dir, "1");
    let value = [b'x'; 100];
    let records = [Record::value(&value); 100];
    (0..10_000).for_each(|_| _ = log.append_batch(&records).expect("append"));
    let rate = |count: u32| {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    let mut reader = log.reader(0).expect("reader");
                    while reader.next_batch().expect("batch").is_some() {}
                });
            }
        });
        f64::from(count) / begin.elapsed().as_secs_f64()
    };
    let points = [1, 10, 100].into_iter().map(|count| (f64::from(count), rate(count))).collect();
    let _ = std::fs::remove_dir_all(&path);
    vec![("scan", points)]
}

/// One append each microsecond for ten seconds, into segments of 32 MiB.
fn tail(place: &Path, plots: &Path) {
    const WINDOW: Duration = Duration::from_millis(100);
    let path = fresh(place);
    let dir = DataDir::open(&path).expect("directory");
    let config = LogConfig::default().durability(Durability::Buffered).segment_bytes_max(32 << 20);
    let log = Log::open(&dir, "1", config).expect("log");
    let value = [b'x'; 100];
    let (mut all, mut window) = (Vec::with_capacity(10_000_000), Vec::with_capacity(200_000));
    let (mut p999, mut max) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    let mut due = begin;
    while begin.elapsed() < Duration::from_secs(10) {
        let called = Instant::now();
        log.append(&Record::value(&value)).expect("append");
        window.push(called.elapsed().as_secs_f32() * 1e6);
        due += Duration::from_micros(1);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let at = p999.len() as u32 + 1;
        if begin.elapsed() > WINDOW * at {
            window.sort_unstable_by(f32::total_cmp);
            let seconds = (WINDOW * at).as_secs_f64();
            p999.push((seconds, f64::from(window[window.len() * 999 / 1000])));
            max.push((seconds, f64::from(window[window.len() - 1])));
            all.append(&mut window);
        }
    }
    let segments = log.stats().expect("stats").segments;
    all.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    println!(
        "{} appends into {segments} segments: p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us, p99.99 {:.1} us, max {:.0} us",
        all.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.9999),
        at(1.0)
    );
    drop((log, dir));
    let _ = std::fs::remove_dir_all(&path);
    let title = "Buffered append under sustained load, rolling segments: each 100 ms";
    plot(&plots.join("tail.svg"), title, "seconds", "us", &[("max", max), ("p99.9", p999)]);
}

/// Lines over a logarithmic scale (over time: a linear one).
fn plot(path: &Path, title: &str, x: &str, y: &str, lines: &[Line]) {
    const COLOURS: [RGBColor; 4] = [
        RGBColor(0xD9, 0x5F, 0x02),
        RGBColor(0x3B, 0x6E, 0x8F),
        RGBColor(0x5A, 0x9E, 0x6F),
        RGBColor(0x7B, 0x5E, 0x9E),
    ];
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (left, right) = points().fold((f64::MAX, 0f64), |(l, r), (x, _)| (l.min(*x), r.max(*x)));
    let (low, high) = points().fold((f64::MAX, 0f64), |(l, h), (_, y)| (l.min(*y), h.max(*y)));
    let area = SVGBackend::new(path, (820, 420)).into_drawing_area();
    area.fill(&WHITE).expect("plot");
    let mut builder = ChartBuilder::on(&area);
    builder
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(70);
    let heights = (low * 0.5..high * 2.0).log_scale();
    macro_rules! draw {
        ($chart:expr) => {{
            let mut chart = $chart;
            chart
                .configure_mesh()
                .x_desc(x)
                .y_desc(y)
                .light_line_style(WHITE)
                .draw()
                .expect("plot");
            for ((name, points), colour) in lines.iter().zip(COLOURS) {
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
                chart.draw_series(line).expect("plot").label(*name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                });
            }
            chart
                .configure_series_labels()
                .background_style(WHITE)
                .border_style(RGBColor(0xB8, 0xBE, 0xC4))
                .draw()
                .expect("plot");
        }};
    }
    if x == "seconds" {
        draw!(builder.build_cartesian_2d(0.0..right, heights).expect("plot"));
    } else {
        draw!(builder.build_cartesian_2d((left..right).log_scale(), heights).expect("plot"));
    }
    area.present().expect("plot");
}
