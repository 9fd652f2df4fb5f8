//! The matrix as JSON, piece by piece: the runs of a cell are read when it is the cell's turn, so that those of all
//! cells are never in memory at once.

use std::{
    cell::RefCell,
    io::{BufWriter, Write},
};

use jiff::Timestamp;
use kit::{Cause, Context, Error, Result, Ui};
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq},
};

use crate::{
    cells::rows,
    history::Library,
    model::{Cell, LeftOut, Matrix, OwnerRow, PlatformRow},
};

/// A matrix that lists its cells' runs.
pub(crate) struct Listed<'a> {
    library: &'a Library,
    matrix: &'a Matrix,
    failed: RefCell<Option<Error>>,
}

impl<'a> Listed<'a> {
    pub(crate) fn new(library: &'a Library, matrix: &'a Matrix) -> Self {
        Self { library, matrix, failed: RefCell::default() }
    }

    /// Lets `write` write it.
    ///
    /// # Errors
    /// What `write` returns; but if the index is damaged, that.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let written = write(self);
        match self.failed.take() {
            Some(error) => Err(error),
            None => written,
        }
    }

    /// To standard output, of which no more than a piece is in memory.
    ///
    /// # Errors
    /// If the index is damaged, or standard output closed.
    pub(crate) fn show(&self, ui: &Ui) -> Result<()> {
        let piece = |out: &mut dyn Write| {
            // JSON comes in pieces of a few bytes: `out` is asked only for large ones.
            let mut out = BufWriter::with_capacity(1 << 16, out);
            let written = serde_json::to_writer_pretty(&mut out, self).map_err(std::io::Error::from);
            let written = written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
            written.cause(Cause::HostDisk, || "cannot write to standard output")
        };
        self.write(|_| ui.result_with(piece))
    }
}

/// [`Matrix`], field by field.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    schema_version: &'a str,
    tool_version: &'a str,
    as_of: Timestamp,
    runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_run: Option<Timestamp>,
    later: usize,
    left_out: &'a [LeftOut],
    platforms: &'a [PlatformRow],
    owners: &'a [OwnerRow],
    cells: Cells<'a>,
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Matrix { schema_version, tool_version, as_of, runs, last_run, later, left_out, platforms, owners, cells } =
            self.matrix;
        let cells = Cells { listed: self, cells };
        Whole {
            schema_version,
            tool_version,
            as_of: *as_of,
            runs: *runs,
            last_run: *last_run,
            later: *later,
            left_out,
            platforms,
            owners,
            cells,
        }
        .serialize(serializer)
    }
}

struct Cells<'a> {
    listed: &'a Listed<'a>,
    cells: &'a [Cell],
}

impl Serialize for Cells<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.cells.len()))?;
        for cell in self.cells {
            // Those that nobody looks at are listed without runs.
            if cell.beside.older {
                list.serialize_element(cell)?;
                continue;
            }
            let filled = fill(self.listed.library, cell).map_err(|error| {
                let said = S::Error::custom(&error);
                *self.listed.failed.borrow_mut() = Some(error);
                said
            })?;
            list.serialize_element(&filled)?;
        }
        list.end()
    }
}

/// A cell with its runs.
fn fill(library: &Library, cell: &Cell) -> Result<Cell> {
    kit::signal::check()?;
    Ok(Cell { runs: rows::listed(library, cell)?, ..cell.clone() })
}
