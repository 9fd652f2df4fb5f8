//! The matrix as a folder of pages that need no server and nothing from elsewhere. Written again, only what changed is
//! written: the page of a run never does, and one of a cell only with what it is made from.

mod charts;
mod pages;
mod trends;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use kit::{Cause, Context, Done, Error, Output, Result, Ui, dirs, rundir};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::{
    cells::{self, Book, Entry},
    model::{Cell, LogEntry, Matrix},
    questions::{Input, Opened, alarms},
    render::{Listed, anchor, badge},
};
use pages::Pages;

/// What is remembered between two times; also the mark of a folder that is ours.
const MEMORY: &str = ".site.json";
/// Of each cell so many runs have a page.
const RUNS: usize = 100;

/// Writes the static site: matrix, cells, runs, owners.
#[derive(Debug, Args)]
pub struct Site {
    /// Where to [default: target/matrix/site of the workspace]. A folder that holds something else is refused
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// What pages look like: program and templates.
    stamp: String,
    /// Runs that have a page.
    runs: BTreeSet<String>,
    /// What the pages of cells are made from, by the cells' names.
    #[serde(default)]
    cells: BTreeMap<String, String>,
}

/// What `site` says with `--output json`.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    folder: String,
    pages: usize,
    written: usize,
    removed: usize,
}

pub(crate) fn site(args: &Site, ui: &Ui) -> Result<Done> {
    let out = match &args.out {
        Some(out) => out.clone(),
        None => dirs::workspace()?.join("target/matrix/site"),
    };
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    if matrix.runs == 0 {
        ui.warn("the history holds no run yet; next: cargo xtask nightly");
        return Ok(Done::found(Cause::NothingRan));
    }
    let written = write(&opened, &matrix, &out)?;
    ui.note(format!("{} of {} pages written, {} removed", written.written, written.pages, written.removed));
    match ui.output {
        Output::Json => ui.json(&written)?,
        Output::Text => ui.result(&out.join("index.html").display().to_string())?,
    }
    Ok(Done::good())
}

fn write(opened: &Opened, matrix: &Matrix, out: &Path) -> Result<Written> {
    let memory = remembered(out)?;
    if !out.join(MEMORY).is_file() {
        // The mark first: killed now, the folder is ours all the same.
        rundir::write_json(&out.join(MEMORY), &Memory::default())?;
    }
    let library = &opened.library;
    // The log first: it has a book of its own, and two of them at once need twice the memory.
    let log = cells::log(library, &opened.rules, &|_| true, None)?;
    let known = library.at(opened.rules.now);
    let book = Book::new(&known, &opened.rules);
    let skips = opened.ci.skips()?;
    let runs = runs(&book, matrix, &log);
    let pages = Pages::new(library, &opened.rules, matrix, &runs)?;
    let mut folder = Folder {
        out,
        written: Written { folder: out.display().to_string(), ..Written::default() },
        paths: BTreeSet::new(),
    };
    let cells: BTreeMap<&str, &Cell> = matrix.cells.iter().map(|cell| (cell.id.as_str(), cell)).collect();
    let mut of_cell: BTreeMap<&str, Vec<&LogEntry>> = BTreeMap::new();
    log.iter().for_each(|entry| of_cell.entry(&entry.cell).or_default().push(entry));
    let known_stamp = memory.stamp == pages.stamp();
    let mut stand = BTreeMap::new();
    for entry in &book.cells {
        kit::signal::check()?;
        let id = entry.id();
        let Some(cell) = cells.get(id.as_str()) else { continue };
        let log = of_cell.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
        let path = format!("cells/{}.html", anchor(&id));
        let known = memory.cells.get(&id).filter(|_| known_stamp && out.join(&path).is_file());
        let (stands, page) = pages.cell(cell, entry, book.streams.of(entry).up_to(entry), (log, &skips), known)?;
        match page {
            Some(page) => folder.write(&path, &page)?,
            None => drop(folder.paths.insert(path)),
        }
        folder.write(&format!("badges/{}.svg", anchor(&id)), &badge(cell))?;
        stand.insert(id, stands);
    }
    let alarms = alarms(matrix, &opened.rules);
    for row in &matrix.owners {
        let page = pages.owner(row, &log, &alarms)?;
        folder.write(&format!("owners/{}.html", rundir::slug(&row.owner)), &page)?;
    }
    folder.write("older.html", &pages.older()?)?;
    folder.write("log.html", &pages.log(&log)?)?;
    folder.write("skips.html", &pages.skips(&skips)?)?;
    for digest in &runs {
        kit::signal::check()?;
        let path = format!("runs/{}.html", pages::run_name(digest));
        if known_stamp && memory.runs.contains(digest) && out.join(&path).is_file() {
            folder.paths.insert(path);
            continue;
        }
        folder.write(&path, &pages.run(digest)?)?;
    }
    Listed::new(library, matrix).write(|listed| folder.write_json("matrix.json", listed))?;
    // The way in comes last, when everything that it leads to is there.
    folder.write("index.html", &pages.index(&alarms, &log)?)?;
    folder.sweep()?;
    rundir::write_json(&out.join(MEMORY), &Memory { stamp: pages.stamp().to_owned(), runs, cells: stand })?;
    let mut written = folder.written;
    written.pages = folder.paths.len();
    Ok(written)
}

/// The runs that have a page: the newest of each cell, and those that decided something.
fn runs(book: &Book<'_>, matrix: &Matrix, log: &[LogEntry]) -> BTreeSet<String> {
    let mut runs = BTreeSet::new();
    for entry in &book.cells {
        runs.extend(newest(entry).map(|told| told.run.digest.to_string()));
    }
    for cell in &matrix.cells {
        let levels = crate::model::Level::ALL.iter().filter_map(|level| cell.levels.get(*level).evidence.clone());
        runs.extend(levels.chain(cell.compared.iter().map(|compared| compared.evidence.clone())));
        runs.extend(cell.beside.decided.iter().map(|(digest, _)| digest.clone()));
    }
    let newest = log.iter().rev().take(500);
    runs.extend(newest.filter_map(|entry| entry.evidence.clone()));
    runs
}

/// The newest runs of a cell, newest first, each by its last try.
fn newest<'e, 'a>(entry: &'e Entry<'a>) -> impl Iterator<Item = &'e cells::Told<'a>> {
    let mut seen = BTreeSet::new();
    entry.told.iter().rev().filter(move |told| seen.insert(&*told.run.digest)).take(RUNS)
}

/// What an earlier time left. A folder with other things in it is somebody's.
fn remembered(out: &Path) -> Result<Memory> {
    let path = out.join(MEMORY);
    if path.is_file() {
        // What cannot be read is written anew.
        let bytes = rundir::read_limited(&path, 64 << 20)?;
        return Ok(serde_json::from_slice(&bytes).unwrap_or_default());
    }
    let mut there = fs::read_dir(out).into_iter().flatten();
    if there.next().is_some() {
        let error = Error::new(Cause::Usage, format!("{} holds something else than a site", out.display()));
        return Err(error.next("name another folder with --out"));
    }
    Ok(Memory::default())
}

/// Whether two files have the same content.
fn same(a: &Path, b: &Path) -> bool {
    let (Ok(a), Ok(b)) = (File::open(a), File::open(b)) else { return false };
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    loop {
        let (Ok(left), Ok(right)) = (a.fill_buf(), b.fill_buf()) else { return false };
        let length = left.len().min(right.len());
        if length == 0 {
            return left.len() == right.len();
        }
        if left[..length] != right[..length] {
            return false;
        }
        a.consume(length);
        b.consume(length);
    }
}

struct Folder<'a> {
    out: &'a Path,
    written: Written,
    paths: BTreeSet<String>,
}

impl Folder<'_> {
    fn write(&mut self, name: &str, content: &str) -> Result<()> {
        let path = self.out.join(name);
        self.paths.insert(name.to_owned());
        if fs::read(&path).is_ok_and(|there| there == content.as_bytes()) {
            return Ok(());
        }
        let new = self.new_file(&path)?;
        let written = new.as_file().write_all(content.as_bytes());
        written.cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        self.keep(new, &path)
    }

    /// JSON of any size, of which no more than a piece is in memory.
    fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.out.join(name);
        self.paths.insert(name.to_owned());
        let new = self.new_file(&path)?;
        let mut out = BufWriter::new(new.as_file());
        let written = serde_json::to_writer(&mut out, value).map_err(std::io::Error::from).and_then(|()| out.flush());
        written.cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        drop(out);
        if same(new.path(), &path) { Ok(()) } else { self.keep(new, &path) }
    }

    fn new_file(&self, path: &Path) -> Result<NamedTempFile> {
        let folder = path.parent().unwrap_or(self.out);
        let make = || {
            fs::create_dir_all(folder)?;
            tempfile::Builder::new().prefix(".new-").tempfile_in(folder)
        };
        make().cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
    }

    /// No sync for each of thousands of pages: what is lost is written again.
    fn keep(&mut self, new: NamedTempFile, path: &Path) -> Result<()> {
        self.written.written += 1;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let kept = new.as_file().set_permissions(mode).and_then(|()| Ok(new.persist(path)?)).map(drop);
        kept.cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
    }

    /// Removes pages that nothing leads to any more.
    fn sweep(&mut self) -> Result<()> {
        for folder in ["cells", "badges", "owners", "runs"] {
            for entry in fs::read_dir(self.out.join(folder)).into_iter().flatten().flatten() {
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                if !self.paths.contains(&name) {
                    let gone = fs::remove_file(entry.path());
                    gone.cause(Cause::HostDisk, || format!("cannot remove {}", entry.path().display()))?;
                    self.written.removed += 1;
                }
            }
        }
        Ok(())
    }
}
