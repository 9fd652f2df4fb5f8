//! The matrix as one HTML file: no script, no font, no picture, nothing from elsewhere.
//!
//! The page is a template, because a page that one can read as HTML is easier to keep right than strings in code;
//! minijinja escapes everything that is put in, and is small.

use jiff::Timestamp;
use kit::{Cause, Context, Result};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context, value::Serde};

use super::{basis, groups, last_test, title};
use crate::{
    model::{Cell, Matrix, NodeRow},
    text,
};

/// Colours and shapes of all pages.
pub(crate) const STYLE: &str = include_str!("page.css");
/// The name's ending makes the environment escape.
const PAGE: &str = "page.html";

/// The matrix as HTML.
///
/// # Errors
/// [`Cause::Internal`] if the template does not fit the model.
pub(crate) fn html(matrix: &Matrix) -> Result<String> {
    let page = || -> Result<String, Error> {
        let mut environment = environment(matrix.as_of);
        environment.add_template(PAGE, include_str!("page.html"))?;
        let groups: Vec<_> = groups(matrix).into_iter().map(group).collect();
        environment.get_template(PAGE)?.render(context! {
            style => Value::from_safe_string(STYLE.to_owned()),
            basis => basis(matrix),
            matrix => Value::from(Serde(matrix)),
            groups,
        })
    };
    page().cause(Cause::Internal, || "cannot write the page")
}

fn group(cells: &[Cell]) -> Value {
    let cell = |cell: &Cell| {
        context! {
            anchor => anchor(&cell.id),
            last => last_test(cell),
            becomes => cell.changes.as_ref().map(|change| change.words.as_str()),
            nodeWords => cell.nodes.iter().map(NodeRow::words).collect::<Vec<_>>(),
            ..Value::from(Serde(cell))
        }
    };
    context! { title => title(&cells[0]), cells => cells.iter().map(cell).collect::<Vec<_>>() }
}

/// A cell's name as a link's target: readable where it can be, different for different cells.
pub(crate) fn anchor(id: &str) -> String {
    let plain = id.replace(['/', '@'], "_");
    let slug = kit::rundir::slug(&plain);
    if slug == plain { slug } else { format!("{slug}-{}", &kit::digest::hex(id.as_bytes())[..8]) }
}

/// With the filters that all templates use; `now` is the moment that ages are counted from.
pub(crate) fn environment(now: Timestamp) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("when", |at: String| parse(&at).map(text::when));
    environment.add_filter("day", |at: String| parse(&at).map(text::day));
    environment.add_filter("ago", move |at: String| parse(&at).map(|at| text::age(at, now)));
    environment.add_filter("counts", |counts: Serde<kit::record::Counts>| text::counts(&counts));
    environment.add_filter("short", |digest: String| text::short(&digest));
    environment.add_filter("words", |name: String| name.replace('-', " "));
    environment.add_filter("duration", |seconds: f64| {
        kit::ui::duration(std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
    });
    // Widths and places of bars, in hundredths of the whole.
    environment.add_filter("part", |part: f64, whole: f64| {
        let share = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
        format!("{:.2}", share.clamp(0.0, 100.0))
    });
    environment
}

fn parse(at: &str) -> Result<Timestamp, Error> {
    at.parse().map_err(|error: jiff::Error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}
