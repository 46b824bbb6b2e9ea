//! A line chart as inline SVG, and the frame around it.
//!
//! Colours come from the page's style sheet (`c0` to `c5`). Each line carries its values as text,
//! which the page's script shows for the place that is pointed at; without the script the chart is
//! complete as well.

use super::axis::{Axis, Quantity};
use super::text::escape;

/// Size of a chart in its own units. Source: arbitrary, because two fit beside each other on a page
/// of 1,200 pixels and labels of 11 units stay readable.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 250.0;
/// Room for the labels of the vertical axis, and of the horizontal one.
const LEFT: f64 = 62.0;
const BOTTOM: f64 = 26.0;
/// Room for what the last labels have beyond the axis.
const RIGHT: f64 = 20.0;
const TOP: f64 = 10.0;
/// Colours that the style sheet has; after them they begin anew.
const COLOURS: usize = 6;

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) x: Quantity,
    pub(super) y: Quantity,
    pub(super) lines: Vec<Line>,
}

/// A line. Where there is no value it has a gap.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: usize,
    /// Of the run that is compared with: dashed.
    pub(super) is_old: bool,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

impl Line {
    fn values(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().filter_map(|(x, y)| Some((*x, (*y)?)))
    }
}

impl Chart {
    /// Whether a line has at least two points; one alone is better told by a table.
    pub(super) fn has_course(&self) -> bool {
        self.lines.iter().any(|line| line.values().nth(1).is_some())
    }

    /// The chart with its title and its legend; none if there is nothing to show.
    pub(super) fn html(&self) -> Option<String> {
        let values = || self.lines.iter().flat_map(Line::values);
        let x = Axis::over(self.x, values().map(|(x, _)| x))?;
        let y = Axis::over(self.y, values().map(|(_, y)| y))?;
        let paths: String = self.shown().map(|line| path(line, &x, &y)).collect();
        let title = escape(&self.title);
        Some(format!(
            "<figure class=\"chart\"><figcaption><h3>{title}</h3><div class=\"legend\">{}\
             </div></figcaption><svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\">{}{paths}<line class=\"at\" y1=\"{TOP}\" y2=\"{}\"/></svg>\
             </figure>\n",
            self.legend(),
            grid(&x, &y),
            HEIGHT - BOTTOM
        ))
    }

    fn shown(&self) -> impl Iterator<Item = &Line> {
        self.lines
            .iter()
            .filter(|line| line.values().next().is_some())
    }

    /// Names each line once: the dashed one of a pair needs no name of its own.
    fn legend(&self) -> String {
        let is_new = |name: &str| self.shown().any(|line| !line.is_old && line.name == name);
        self.shown()
            .filter(|line| !line.is_old || !is_new(&line.name))
            .map(|line| {
                format!(
                    "<span class=\"key {}\"><svg viewBox=\"0 0 22 6\" aria-hidden=\"true\">\
                     <path d=\"M1,3H21\"/></svg>{}</span>",
                    line.class(),
                    escape(&line.name)
                )
            })
            .collect()
    }
}

impl Line {
    fn class(&self) -> String {
        let old = if self.is_old { " old" } else { "" };
        format!("c{}{old}", self.colour % COLOURS)
    }
}

fn left(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
}

fn top(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
}

fn grid(x: &Axis, y: &Axis) -> String {
    let mut grid = String::new();
    let floor = HEIGHT - BOTTOM;
    for tick in y.ticks() {
        let at = top(y, tick);
        grid.push_str(&format!(
            "<path class=\"grid\" d=\"M{LEFT},{at:.1}H{}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            escape(&y.label(tick))
        ));
    }
    for tick in x.ticks() {
        let at = left(x, tick);
        grid.push_str(&format!(
            "<path class=\"tick\" d=\"M{at:.1},{floor}v4\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            floor + 18.0,
            escape(&x.label(tick))
        ));
    }
    grid.push_str(&format!(
        "<path class=\"axis\" d=\"M{LEFT},{floor}H{}\"/>",
        WIDTH - RIGHT
    ));
    grid
}

/// The line, and behind `|` for each of its points its place and the two values as text.
fn path(line: &Line, x: &Axis, y: &Axis) -> String {
    let mut commands = String::new();
    let mut told = String::new();
    let mut is_open = false;
    for (index, (at, value)) in line.points.iter().enumerate() {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            is_open = false;
            continue;
        };
        let (px, py) = (left(x, *at), top(y, value));
        let next = line.points.get(index + 1).and_then(|(_, value)| *value);
        match (is_open, next) {
            (true, _) => commands.push_str(&format!("L{px:.1},{py:.1}")),
            (false, Some(_)) => commands.push_str(&format!("M{px:.1},{py:.1}")),
            // A point between two gaps: a line without length has round ends and is seen.
            (false, None) => commands.push_str(&format!("M{px:.1},{py:.1}h0")),
        }
        is_open = true;
        if !told.is_empty() {
            told.push('|');
        }
        told.push_str(&format!("{px:.1};{};{}", x.value(*at), y.value(value)));
    }
    let name = if line.is_old {
        format!("{} (before)", line.name)
    } else {
        line.name.clone()
    };
    format!(
        "<path class=\"line {}\" d=\"{commands}\" data-name=\"{}\" data-points=\"{}\"/>",
        line.class(),
        escape(&name),
        escape(&told)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, Option<f64>)>) -> Chart {
        let line = Line {
            name: "a & <b>".to_owned(),
            colour: COLOURS + 1,
            is_old: true,
            points,
        };
        Chart {
            title: "T<".to_owned(),
            x: Quantity::Seconds,
            y: Quantity::Number,
            lines: vec![line],
        }
    }

    #[test]
    fn a_second_without_a_value_is_a_gap_not_a_zero() {
        let points = vec![
            (0.0, Some(1.0)),
            (1.0, Some(2.0)),
            (2.0, None),
            (3.0, Some(5.0)),
        ];
        let html = chart(points).html().unwrap();
        let (_, line) = html.split_once("class=\"line c1 old\" d=\"").unwrap();
        let (commands, _) = line.split_once('"').unwrap();
        assert_eq!(commands, "M62.0,181.2L234.7,138.4M580.0,10.0h0");
        assert!(html.contains("|234.7;1 s;2.00|580.0;3 s;5.00\""), "{html}");
    }

    #[test]
    fn names_are_text_and_the_old_line_says_so() {
        let html = chart(vec![(0.0, Some(1.0))]).html().unwrap();
        assert!(html.contains("data-name=\"a &amp; &lt;b&gt; (before)\""));
        assert!(html.contains("class=\"line c1 old\"") && html.contains("T&lt;"));
        assert!(!html.contains("<b>"));
    }

    #[test]
    fn nothing_measured_is_no_chart() {
        assert!(chart(vec![(0.0, None), (1.0, None)]).html().is_none());
        assert!(chart(vec![]).html().is_none());
        assert!(!chart(vec![(0.0, Some(1.0)), (1.0, None)]).has_course());
        assert!(chart(vec![(0.0, Some(1.0)), (1.0, Some(1.0))]).has_course());
    }
}
