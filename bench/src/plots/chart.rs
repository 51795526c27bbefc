//! A chart as SVG: points joined by lines over one axis that is linear or logarithmic.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
/// Of the plane: left, top, right, bottom. Titles are above, the legend is beside it.
const PLANE: [f64; 4] = [64.0, 62.0, 540.0, 330.0];
/// Told apart by colour-blind people, too (Okabe and Ito, 2008).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// What is drawn.
pub struct Chart {
    /// Says what is shown.
    pub title: String,
    /// Says where it comes from.
    pub source: String,
    /// What is along the horizontal axis.
    pub across: String,
    /// Labels of it, from left to right, and where each lies.
    pub ticks: Vec<(f64, String)>,
    /// What is along the vertical axis.
    pub up: String,
    /// The vertical axis is logarithmic; else it begins at 0.
    pub logarithmic: bool,
    /// What is compared.
    pub lines: Vec<Line>,
}

/// Points of one kind, from left to right.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Of ours: drawn thicker.
    pub ours: bool,
    /// Where each lies.
    pub points: Vec<Point>,
}

/// A figure.
pub struct Point {
    /// On the horizontal axis.
    pub x: f64,
    /// On the vertical one.
    pub y: f64,
    /// Lowest and highest round.
    pub range: Option<(f64, f64)>,
}

impl Chart {
    /// The text of the picture: the same chart gives the same.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" font-family=\"sans-serif\" role=\"img\">\n<title>{}</title>\n\
             <desc>{}</desc>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
            escaped(&self.title),
            escaped(&self.source)
        );
        let [left, top, right, bottom] = PLANE;
        text(&mut svg, [left, 22.0], "start", 15, &self.title);
        text(&mut svg, [left, 40.0], "start", 10, &self.source);
        text(&mut svg, [(left + right) / 2.0, bottom + 38.0], "middle", 12, &self.across);
        text(&mut svg, [left - 48.0, top - 8.0], "start", 12, &self.up);
        let scale = self.scale();
        for value in scale.ticks() {
            let y = scale.place(value);
            line(&mut svg, [left, y, right, y], "#dddddd");
            text(&mut svg, [left - 6.0, y + 4.0], "end", 12, &number(value));
        }
        for (x, label) in &self.ticks {
            let x = self.across_at(*x);
            line(&mut svg, [x, bottom, x, bottom + 5.0], "#000000");
            text(&mut svg, [x, bottom + 19.0], "middle", 12, label);
        }
        line(&mut svg, [left, bottom, right, bottom], "#000000");
        for (at, drawn) in self.lines.iter().enumerate() {
            self.draw(&mut svg, &scale, drawn, COLOURS[at % COLOURS.len()]);
            let y = top + 8.0 + 20.0 * at as f64;
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{}\"/>",
                right + 18.0,
                y,
                COLOURS[at % COLOURS.len()]
            );
            text(&mut svg, [right + 28.0, y + 4.0], "start", 12, &drawn.name);
        }
        svg + "</svg>\n"
    }

    fn draw(&self, svg: &mut String, scale: &Scale, drawn: &Line, colour: &str) {
        let at: Vec<[f64; 2]> =
            drawn.points.iter().map(|point| [self.across_at(point.x), scale.place(point.y)]).collect();
        let joined: Vec<String> = at.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let width = if drawn.ours { 2.5 } else { 1.5 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            joined.join(" ")
        );
        for (point, [x, y]) in drawn.points.iter().zip(at) {
            if let Some((low, high)) = point.range {
                line(svg, [x, scale.place(low), x, scale.place(high)], colour);
            }
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }

    fn across_at(&self, x: f64) -> f64 {
        let (first, last) = (self.ticks[0].0, self.ticks[self.ticks.len() - 1].0);
        let [left, _, right, _] = PLANE;
        // Points keep some distance from the edges.
        left + 24.0 + (x - first) / (last - first) * (right - left - 48.0)
    }

    fn scale(&self) -> Scale {
        let ends = |point: &Point| {
            let (low, high) = point.range.unwrap_or((point.y, point.y));
            [low.min(point.y), high.max(point.y)]
        };
        let values = || self.lines.iter().flat_map(|line| &line.points).flat_map(ends);
        let most = values().fold(f64::MIN, f64::max);
        let least = values().fold(f64::MAX, f64::min);
        if self.logarithmic {
            Scale { low: least.log10().floor(), high: most.log10().ceil(), step: 1.0, logarithmic: true }
        } else {
            let rough = most / 5.0;
            let power = 10f64.powf(rough.log10().floor());
            let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
            let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
            Scale { low: 0.0, high: (most / step).ceil() * step, step, logarithmic: false }
        }
    }
}

/// The vertical axis; of a logarithmic one ends and step are exponents.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
    logarithmic: bool,
}

impl Scale {
    fn ticks(&self) -> Vec<f64> {
        let count = ((self.high - self.low) / self.step).round() as u32;
        let at = (0..=count).map(|k| self.low + f64::from(k) * self.step);
        at.map(|at| if self.logarithmic { 10f64.powf(at) } else { at }).collect()
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        let [_, top, _, bottom] = PLANE;
        bottom - (value - self.low) / (self.high - self.low) * (bottom - top)
    }
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, [x, y]: [f64; 2], anchor: &str, size: u8, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\">{text}</text>"
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// As short as it can be said.
pub fn number(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{}M", value / 1e6),
        _ if value >= 1e3 => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(logarithmic: bool) -> Chart {
        let points = [(0.0, 1.0), (1.0, 95.0)];
        let points = points.map(|(x, y)| Point { x, y, range: Some((y - 0.5, y + 0.5)) });
        Chart {
            title: "a < b".into(),
            source: "somewhere".into(),
            across: "rules".into(),
            ticks: vec![(0.0, "1".into()), (1.0, "10".into())],
            up: "ns".into(),
            logarithmic,
            lines: vec![Line { name: "ours".into(), ours: true, points: points.into() }],
        }
    }

    #[test]
    fn a_greater_figure_is_higher_and_none_leaves_the_plane() {
        for logarithmic in [false, true] {
            let scale = chart(logarithmic).scale();
            let [_, top, _, bottom] = PLANE;
            assert!(scale.place(95.0) < scale.place(1.0));
            assert!(scale.place(95.5) >= top && scale.place(0.5) <= bottom, "{logarithmic}");
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(chart(false).scale().ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(chart(true).scale().ticks(), [0.1, 1.0, 10.0, 100.0]);
        assert_eq!([0.5, 20.0, 1_000.0, 10_000_000.0].map(number), ["0.5", "20", "1k", "10M"]);
    }

    #[test]
    fn what_is_said_is_no_markup() {
        let svg = chart(false).svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<polyline").count(), 1);
        // Two points and one in the legend.
        assert_eq!(svg.matches("<circle").count(), 3);
    }
}
