//! The matrix as one HTML file: no script, no font, no picture, nothing from elsewhere.
//!
//! The page is a template, because a page that one can read as HTML is easier to keep right than strings in code;
//! minijinja escapes everything that is put in, and is small.

use jiff::Timestamp;
use kit::{Cause, Context, Result};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context, value::Serde};

use super::{OLDER, basis, groups, last_test, older, title};
use crate::{
    cells::rows,
    history::Library,
    model::{Cell, Matrix, NodeRow},
    text,
};

/// Colours and shapes of all pages.
pub(crate) const STYLE: &str = include_str!("page.css");
/// What templates share.
pub(crate) const MACROS: (&str, &str) = ("macros.html", include_str!("../site/macros.html"));
/// The names' endings make the environment escape.
const TEMPLATES: [(&str, &str); 3] =
    [("page.html", include_str!("page.html")), ("article.html", include_str!("article.html")), MACROS];

/// The matrix as HTML. The runs of a cell are read when it is the cell's turn: never are those of all in memory.
///
/// # Errors
/// [`Cause::Internal`] if a template does not fit the model; if the index is damaged.
pub(crate) fn html(library: &Library, matrix: &Matrix) -> Result<String> {
    let mut environment = environment(matrix.as_of);
    for (name, text) in TEMPLATES {
        fits(environment.add_template(name, text))?;
    }
    let groups = groups(matrix).into_iter().map(|cells| group(library, &environment, cells));
    let groups = groups.collect::<Result<Vec<_>>>()?;
    let page = fits(environment.get_template("page.html"))?.render(context! {
        style => Value::from_safe_string(STYLE.to_owned()),
        basis => basis(matrix),
        platforms => Value::from(Serde(&matrix.platforms)),
        owners => Value::from(Serde(&matrix.owners)),
        older => older(matrix),
        why_older => OLDER,
        left_out => Value::from(Serde(&matrix.left_out)),
        tool => matrix.tool_version.as_str(),
        groups,
    });
    fits(page)
}

fn fits<T>(made: Result<T, Error>) -> Result<T> {
    made.cause(Cause::Internal, || "cannot write the page")
}

fn group(library: &Library, environment: &Environment<'_>, cells: &[Cell]) -> Result<Value> {
    let template = fits(environment.get_template("article.html"))?;
    let article = |cell: &Cell| -> Result<Value> {
        kit::signal::check()?;
        let full = Cell { runs: rows::listed(library, cell)?, ..cell.clone() };
        let place = full.kubernetes.as_ref().map_or_else(String::new, |version| format!(", Kubernetes {version}"));
        let article = fits(template.render(context! {
            anchor => anchor(&full.id),
            name => format!("{} on {}{place}", title(&full), full.platform),
            last => last_test(&full),
            becomes => full.changes.as_ref().map(|change| change.words.as_str()),
            node_words => full.nodes.iter().map(NodeRow::words).collect::<Vec<_>>(),
            cell => Value::from(Serde(&full)),
        }))?;
        Ok(Value::from_safe_string(article))
    };
    let row =
        |cell: &Cell| context! { anchor => anchor(&cell.id), last => last_test(cell), ..Value::from(Serde(cell)) };
    Ok(context! {
        title => title(&cells[0]),
        cells => cells.iter().map(row).collect::<Vec<_>>(),
        articles => cells.iter().map(article).collect::<Result<Vec<_>>>()?,
    })
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
