//! Plots as SVG text: a few lines, words and colours need no library.

use preload_tests::stats::{number, percentile};
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// Least of a row of dots with its words.
const ROW: f64 = 42.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 52.0;
/// Of Okabe and Ito: told apart by everybody.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Latencies (ms, sorted) over percentiles, both on scales that show the tail.
pub(crate) fn percentiles(title: &str, curves: &[(&str, &[f64])]) -> String {
    let last = 99.9;
    let at = |percent: f64| -(1.0 - percent / 100.0).log10();
    let all = || curves.iter().flat_map(|(_, times)| times.iter().copied());
    let least = all().fold(f64::INFINITY, f64::min).max(1e-3);
    let most = curves.iter().map(|(_, times)| percentile(times, last)).fold(least, f64::max);
    let (floor, ceiling) = (least.log10().floor(), most.log10().ceil());
    let mut chart = Chart::new(title, "ms", "percentile", at(last), (floor, ceiling));
    for percent in [0.0, 50.0, 90.0, 99.0, 99.9] {
        chart.tick_x(at(percent), &percent.to_string());
    }
    for decade in floor as i32..=ceiling as i32 {
        for step in [1.0, 2.0, 5.0] {
            let value = step * 10_f64.powi(decade);
            chart.tick_y(value.log10(), &plain(value), step == 1.0);
        }
    }
    for (name, times) in curves {
        // Steps of equal length on the scale.
        let steps = (0..=120).map(|step| at(last) * f64::from(step) / 120.0);
        let points =
            steps.map(|x| (x, percentile(times, 100.0 * (1.0 - 10_f64.powf(-x))).max(least).log10()));
        chart.curve(name, &points.collect::<Vec<_>>());
    }
    chart.finish()
}

/// Something (from 0) over seconds, and a line that it should stay below.
pub(crate) fn timeline(title: &str, unit: &str, curves: &[(&str, &[(f64, f64)])], limit: f64) -> String {
    let points = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    let end = points().map(|(x, _)| x).fold(1.0, f64::max);
    let most = points().map(|(_, y)| y).fold(limit, f64::max) * 1.1;
    let mut chart = Chart::new(title, unit, "seconds", end, (0.0, most));
    for x in round_steps(end, 8) {
        chart.tick_x(x, &plain(x));
    }
    for y in round_steps(most, 6) {
        chart.tick_y(y, &plain(y), true);
    }
    chart.limit(limit, &format!("bar: {} {unit}", plain(limit)));
    for (name, points) in curves {
        chart.curve(name, points);
    }
    chart.finish()
}

/// Sides of a comparison, each a row of dots with its median; the number picks a colour.
pub(crate) fn dots(title: &str, unit: &str, rows: &[(String, usize, Vec<f64>)]) -> String {
    let most = rows.iter().flat_map(|(.., values)| values.iter().copied()).fold(0.0, f64::max) * 1.1;
    let height = HEIGHT.max(TOP + BOTTOM + ROW * rows.len() as f64);
    let mut chart = Chart::high(height, title, ("", unit), most, (0.0, rows.len() as f64));
    for x in round_steps(most, 8) {
        chart.tick_x(x, &plain(x));
    }
    for (index, (name, colour, values)) in rows.iter().enumerate() {
        chart.row(index, name, COLOURS[colour % COLOURS.len()], values);
    }
    chart.finish()
}

/// From the median of each (sorted) to its 99th percentile, on a scale of decades; the number picks a colour.
pub(crate) fn ranges(title: &str, unit: &str, rows: &[(&str, usize, &[f64])]) -> String {
    let ends = |percent: f64| rows.iter().map(move |(_, _, values)| percentile(values, percent).max(1e-3));
    let floor = ends(50.0).fold(f64::INFINITY, f64::min).log10().floor();
    let ceiling = ends(99.0).fold(1e-3, f64::max).log10().ceil();
    let mut chart = Chart::new(title, "", unit, ceiling - floor, (0.0, rows.len() as f64));
    for decade in floor as i32..=ceiling as i32 {
        for step in [1.0, 2.0, 5.0] {
            let value: f64 = step * 10_f64.powi(decade);
            if value.log10() <= ceiling {
                chart.tick_x(value.log10() - floor, &plain(value));
            }
        }
    }
    for (index, (name, colour, values)) in rows.iter().enumerate() {
        let (p50, p99) = (percentile(values, 50.0), percentile(values, 99.0));
        let words = format!("{name}: {}, p99 {}", number(p50), number(p99));
        let at = |value: f64| value.max(1e-3).log10() - floor;
        chart.range(index, &words, COLOURS[colour % COLOURS.len()], (at(p50), at(p99)));
    }
    chart.finish()
}

/// Multiples of 1, 2 or 5 up to `end`, about `count` of them.
fn round_steps(end: f64, count: u32) -> impl Iterator<Item = f64> {
    let rough = end / f64::from(count);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(end);
    (0..).map(move |n| f64::from(n) * step).take_while(move |value| *value <= end * 1.000_001)
}

fn plain(value: f64) -> String {
    format!("{}", (value * 1e4).round() / 1e4)
}

/// An SVG that is being drawn, with linear axes: x from 0, y over a range.
struct Chart {
    svg: String,
    legend: f64,
    curves: usize,
    end: f64,
    range: (f64, f64),
    height: f64,
}

impl Chart {
    fn new(title: &str, unit: &str, below: &str, end: f64, range: (f64, f64)) -> Self {
        Self::high(HEIGHT, title, (unit, below), end, range)
    }

    fn high(height: f64, title: &str, (unit, below): (&str, &str), end: f64, range: (f64, f64)) -> Self {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"13\" fill=\"#333\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"8\" fill=\"#fff\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, more: &str, words: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{words}</text>"
            );
        };
        text(20.0, 30.0, "start", " font-size=\"17\" font-weight=\"600\"", title);
        text((LEFT + WIDTH - RIGHT) / 2.0, height - 14.0, "middle", " fill=\"#666\"", below);
        text(LEFT - 10.0, TOP - 12.0, "end", " fill=\"#666\"", unit);
        Self { svg, legend: 20.0, curves: 0, end, range, height }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * value / self.end
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        self.height - BOTTOM - (self.height - TOP - BOTTOM) * (value - low) / (high - low)
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ =
            writeln!(self.svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {style}/>");
    }

    fn text(&mut self, (x, y): (f64, f64), style: &str, words: &str) {
        let _ = writeln!(self.svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>");
    }

    fn tick_x(&mut self, value: f64, words: &str) {
        let x = self.x(value);
        self.line((x, TOP), (x, self.height - BOTTOM), "stroke=\"#e4e4e4\"");
        self.text((x, self.height - BOTTOM + 18.0), "text-anchor=\"middle\"", words);
    }

    /// A value outside the range is left out.
    fn tick_y(&mut self, value: f64, words: &str, labelled: bool) {
        if value < self.range.0 || value > self.range.1 {
            return;
        }
        let y = self.y(value);
        let colour = if labelled { "#d8d8d8" } else { "#f0f0f0" };
        self.line((LEFT, y), (WIDTH - RIGHT, y), &format!("stroke=\"{colour}\""));
        if labelled {
            self.text((LEFT - 10.0, y + 4.5), "text-anchor=\"end\"", words);
        }
    }

    fn limit(&mut self, value: f64, words: &str) {
        let y = self.y(value);
        let style = "stroke=\"#b00020\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"";
        self.line((LEFT, y), (WIDTH - RIGHT, y), style);
        self.text((WIDTH - RIGHT - 6.0, y - 6.0), "text-anchor=\"end\" fill=\"#b00020\"", words);
    }

    fn curve(&mut self, name: &str, points: &[(f64, f64)]) {
        let colour = COLOURS[self.curves % COLOURS.len()];
        self.curves += 1;
        let path: Vec<_> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", self.x(*x), self.y(*y))).collect();
        let _ = writeln!(
            self.svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.2\" \
             stroke-linejoin=\"round\"/>",
            path.join(" ")
        );
        let at = self.legend;
        self.line((at, 52.0), (at + 22.0, 52.0), &format!("stroke=\"{colour}\" stroke-width=\"3\""));
        self.text((at + 28.0, 56.5), "", name);
        // Wide enough for any letters of this size.
        self.legend += 56.0 + 7.2 * name.chars().count() as f64;
    }

    fn row(&mut self, index: usize, name: &str, colour: &str, values: &[f64]) {
        let y = self.y(self.range.1 - index as f64 - 0.62);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let median = percentile(&sorted, 50.0);
        self.text((LEFT, y - 14.0), "", &format!("{name}: {}", number(median)));
        let middle = self.x(median);
        self.line(
            (LEFT, y),
            (middle, y),
            &format!("stroke=\"{colour}\" stroke-width=\"10\" opacity=\"0.25\""),
        );
        self.line((middle, y - 9.0), (middle, y + 9.0), &format!("stroke=\"{colour}\" stroke-width=\"3\""));
        for value in sorted {
            let x = self.x(value);
            let _ = writeln!(
                self.svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\" fill-opacity=\"0.7\"/>"
            );
        }
    }

    fn range(&mut self, index: usize, words: &str, colour: &str, (from, to): (f64, f64)) {
        let y = self.y(self.range.1 - index as f64 - 0.72);
        self.text((LEFT, y - 11.0), "", words);
        let (from, to) = (self.x(from), self.x(to));
        self.line((from, y), (to, y), &format!("stroke=\"{colour}\" stroke-width=\"6\" opacity=\"0.45\""));
        self.line((to, y - 7.0), (to, y + 7.0), &format!("stroke=\"{colour}\" stroke-width=\"2.5\""));
        let _ = writeln!(self.svg, "<circle cx=\"{from:.1}\" cy=\"{y:.1}\" r=\"5.5\" fill=\"{colour}\"/>");
    }

    fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}
