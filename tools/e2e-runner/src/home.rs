//! Where the results of a run lie: the folder of a component on a platform of a cluster; what is not end-to-end tests
//! has a folder of its own in it, and a part of a suite has files of its own.

use std::path::{Path, PathBuf};

use kit::{Cause, Context, Result, record::Results, rundir};

use crate::{junit, options::Kind, report::Row, runs, shard::Shard};

/// The places of one record.
#[derive(Debug, Clone)]
pub struct Home {
    folder: PathBuf,
    part: Shard,
}

impl Home {
    /// In that cell.
    #[must_use]
    pub fn new(cell: &Path, kind: Kind, part: Shard) -> Self {
        let folder = if kind == Kind::E2e { cell.to_path_buf() } else { cell.join(kind.name()) };
        Self { folder, part }
    }

    /// The folder of the record.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.folder.join(runs::file_name((self.part.number, self.part.of)))
    }

    /// The folder of the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.own("logs")
    }

    /// The folder of the evidence of failures.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.own("evidence")
    }

    fn own(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        if self.part.is_part() { folder.join(format!("{}-of-{}", self.part.number, self.part.of)) } else { folder }
    }

    /// Removes the logs of an earlier attempt at this cell, which would be taken for this one's.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder.
    pub fn clear_logs(&self) -> Result<()> {
        let logs = self.logs();
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
        .cause(Cause::HostDisk, || format!("cannot clear {}", logs.display()))
    }

    /// A log as rows name it, by its place seen from the record.
    #[must_use]
    pub fn seen(&self, log: &str) -> String {
        let name = log.strip_prefix("logs/").unwrap_or(log);
        let path = self.logs().join(name);
        path.strip_prefix(&self.folder).unwrap_or(&path).display().to_string()
    }

    /// Writes the record; returns its digest.
    ///
    /// # Errors
    /// `Cause::HostDisk` naming the file.
    pub fn write(&self, results: &Results) -> Result<String> {
        rundir::write_json(&self.record(), results)
    }

    /// Writes JUnit beside it.
    ///
    /// # Errors
    /// `Cause::HostDisk` naming the file.
    pub fn write_junit(&self, results: &Results, rows: &[Row]) -> Result<()> {
        let name = if self.part.is_part() {
            format!("junit.{}-of-{}.xml", self.part.number, self.part.of)
        } else {
            "junit.xml".into()
        };
        junit::write(&self.folder.join(name), results, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_each_part_has_files_of_its_own() {
        let cell = Path::new("/run/x/linux-amd64/c");
        let whole = Home::new(cell, Kind::E2e, Shard::default());
        assert_eq!(whole.record(), cell.join("results.json"));
        assert_eq!((whole.seen("logs/TestA.log"), whole.logs()), ("logs/TestA.log".into(), cell.join("logs")));
        let part = Home::new(cell, Kind::Examples, Shard { number: 2, of: 3 });
        assert_eq!(part.record(), cell.join("examples/results.2-of-3.json"));
        assert_eq!(part.seen("logs/TestA.log"), "logs/2-of-3/TestA.log");
        assert_eq!(part.evidence(), cell.join("examples/evidence/2-of-3"));
    }
}
