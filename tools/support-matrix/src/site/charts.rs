//! Pictures of numbers over time, as SVG inside of a page. What they show is said in words as well.

use std::fmt::Write;

use jiff::Timestamp;

use crate::text::day;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 140.0;
/// Points of one picture: more cannot be told apart.
const MAX_POINTS: usize = 400;

/// One run of tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) at: Timestamp,
    /// Share of tests that passed, from 0 to 1; nothing where the infrastructure lost it.
    pub(super) passed: Option<f64>,
    /// How long the run's stages took, in minutes.
    pub(super) minutes: Option<f64>,
}

/// The share of passed tests and the length of runs over time, one above the other.
pub(super) fn history(points: &[Point]) -> Option<String> {
    let points = thin(points);
    if points.len() < 2 {
        return None;
    }
    let (first, last) = (points[0].at, points[points.len() - 1].at);
    let span = last.duration_since(first).as_secs_f64().max(1.0);
    let x = |at: Timestamp| at.duration_since(first).as_secs_f64() / span * (WIDTH - 20.0) + 10.0;
    let mut bars = String::new();
    let width = ((WIDTH - 20.0) / points.len() as f64 * 0.8).clamp(1.0, 14.0);
    for point in &points {
        let (class, share) = match point.passed {
            Some(share) if share >= 1.0 => ("good", share),
            Some(share) => ("bad", share),
            None => ("lost", 1.0),
        };
        let height = (share * (HEIGHT - 30.0)).max(2.0);
        let (left, top) = (x(point.at) - width / 2.0, HEIGHT - 20.0 - height);
        let _ = write!(
            bars,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
    let valid = points.iter().filter(|point| point.passed.is_some()).count();
    let good = points.iter().filter(|point| point.passed.is_some_and(|share| share >= 1.0)).count();
    let words = format!(
        "Share of tests that passed, {} to {}: all passed in {good} of {valid} valid runs, {} were lost to the infrastructure",
        day(first),
        day(last),
        points.len() - valid
    );
    let mut text = figure(&words, &bars, first, last);
    let minutes: Vec<(Timestamp, f64)> = points.iter().filter_map(|point| Some((point.at, point.minutes?))).collect();
    let most = minutes.iter().map(|(_, minutes)| *minutes).fold(0.0, f64::max);
    if minutes.len() >= 2 && most > 0.0 {
        let mut line = String::new();
        for (at, minutes) in &minutes {
            let y = HEIGHT - 20.0 - minutes / most * (HEIGHT - 30.0);
            let _ = write!(line, "{:.1},{y:.1} ", x(*at));
        }
        let shape = format!("<polyline class=\"line\" points=\"{}\"/>", line.trim_end());
        let words =
            format!("Length of runs: at most {most:.0} minutes, {:.0} in the last", minutes[minutes.len() - 1].1);
        text.push_str(&figure(&words, &shape, first, last));
    }
    Some(text)
}

fn figure(words: &str, shapes: &str, first: Timestamp, last: Timestamp) -> String {
    let bottom = HEIGHT - 4.0;
    let right = WIDTH - 10.0;
    format!(
        "<figure><svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{words}\">{shapes}\
<text x=\"10\" y=\"{bottom}\">{}</text><text x=\"{right}\" y=\"{bottom}\" text-anchor=\"end\">{}</text></svg>\
<figcaption>{words}.</figcaption></figure>",
        day(first),
        day(last)
    )
}

/// Of many points neighbours are put together: the worst of them is shown.
fn thin(points: &[Point]) -> Vec<Point> {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    let worst = |group: &[Point]| {
        let rank = |point: &&Point| point.passed.map_or(2_000_000, |share| (share * 1e6) as u32);
        group.iter().min_by_key(rank).copied()
    };
    points.chunks(size).filter_map(worst).collect()
}

/// What became of a test in each of its last runs, oldest first: a strip of small boxes.
pub(super) fn strip(outcomes: &[char], words: &str) -> String {
    let mut boxes = String::new();
    for (index, outcome) in outcomes.iter().enumerate() {
        let class = match outcome {
            'p' => "good",
            'f' => "bad",
            'y' => "warn",
            _ => "lost",
        };
        let _ = write!(boxes, "<rect class=\"{class}\" x=\"{}\" y=\"0\" width=\"5\" height=\"14\"/>", index * 6);
    }
    let width = (outcomes.len() * 6).max(6);
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 {width} 14\" width=\"{width}\" height=\"14\" role=\"img\" aria-label=\"{words}\">{boxes}</svg>"
    )
}

/// How long a test took in each of its last runs, oldest first.
pub(super) fn spark(seconds: &[f64], words: &str) -> String {
    let most = seconds.iter().copied().fold(0.0, f64::max).max(0.01);
    let step = if seconds.len() > 1 { 118.0 / (seconds.len() - 1) as f64 } else { 0.0 };
    let mut line = String::new();
    for (index, seconds) in seconds.iter().enumerate() {
        let _ = write!(line, "{:.1},{:.1} ", 1.0 + index as f64 * step, 15.0 - seconds / most * 14.0);
    }
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 120 16\" width=\"120\" height=\"16\" role=\"img\" aria-label=\"{words}\"><polyline class=\"line\" points=\"{}\"/></svg>",
        line.trim_end()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_become_a_picture_of_bounded_size() {
        let start: Timestamp = "2023-01-01T00:00:00Z".parse().unwrap();
        let point = |day: i64| Point {
            at: start + jiff::SignedDuration::from_hours(24 * day),
            passed: (day % 10 != 0).then_some(if day % 7 == 0 { 0.5 } else { 1.0 }),
            minutes: Some(day as f64 % 30.0),
        };
        let points: Vec<_> = (0..3 * 365).map(point).collect();
        let text = history(&points).unwrap();
        assert!(text.len() < 60_000 && text.matches("<rect").count() <= MAX_POINTS, "{}", text.len());
        assert!(text.contains("role=\"img\"") && text.contains("class=\"bad\""));
        assert!(!text.contains("NaN") && !text.contains("\"inf"));
        assert!(history(&points[..1]).is_none());
        assert!(!history(&[points[0], points[0]]).unwrap().contains("NaN"));
    }
}
