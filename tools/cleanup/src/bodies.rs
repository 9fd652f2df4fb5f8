//! The bodies of a baseline: what may be put back, in a file beside the record, so that neither a snapshot
//! nor a comparison ever holds them all. One a line, each known, and proven, by the digest of its object.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use kit::{Cause, Context, Error, Result, record::ObjectKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::view::fingerprint;

/// The file's name.
pub(crate) const FILE: &str = "baseline.bodies.jsonl";
/// No object of an API server is as large (etcd's default request limit is 1.5 MiB).
const LINE_LIMIT: u64 = 32 << 20;

#[derive(Serialize)]
struct Line<'a> {
    digest: &'a str,
    body: &'a Value,
}

#[derive(Deserialize)]
struct Read1 {
    digest: String,
    body: Value,
}

/// Bodies that are being written. Until they are kept, the file has no name of its own.
pub(crate) struct Writing(Mutex<Out>);

struct Out {
    file: BufWriter<tempfile::NamedTempFile>,
    /// The first fault: it is said when the file is to be kept.
    fault: Option<std::io::Error>,
}

impl Writing {
    /// Begins the file of a cell.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder.
    pub(crate) fn begin(cell: &Path) -> Result<Self> {
        let begin = || {
            std::fs::create_dir_all(cell)?;
            // Private, as temporary files are: configuration may hold more than its owner knows.
            tempfile::Builder::new().prefix(".new-").tempfile_in(cell)
        };
        let file = begin().cause(Cause::HostDisk, || format!("cannot write into {}", cell.display()))?;
        Ok(Self(Mutex::new(Out { file: BufWriter::new(file), fault: None })))
    }

    /// One more body.
    pub(crate) fn add(&self, digest: &str, body: &Value) {
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if out.fault.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut out.file, &Line { digest, body }).map_err(std::io::Error::from);
        out.fault = written.and_then(|()| out.file.write_all(b"\n")).err();
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file, also for what went wrong before.
    pub(crate) fn keep(self, cell: &Path) -> Result<()> {
        let path = cell.join(FILE);
        let out = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let keep = || {
            if let Some(fault) = out.fault {
                return Err(fault);
            }
            let file = out.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        keep().map(drop).cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
    }
}

/// The bodies of these objects, each with its digest: those that are in the file and are what their digest says.
///
/// # Errors
/// [`Cause::Usage`] naming the file, if it cannot be read. A line that is damaged is as good as missing.
pub(crate) fn find(cell: &Path, wanted: &BTreeMap<String, ObjectKey>) -> Result<BTreeMap<String, Value>> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let path = cell.join(FILE);
    let cannot = || format!("cannot read {}", path.display());
    let mut file = BufReader::new(File::open(&path).cause(Cause::Usage, cannot)?);
    let mut missing: BTreeSet<&str> = wanted.keys().map(String::as_str).collect();
    let mut line = Vec::new();
    while !missing.is_empty() {
        line.clear();
        if (&mut file).take(LINE_LIMIT).read_until(b'\n', &mut line).cause(Cause::Usage, cannot)? == 0 {
            break;
        }
        if line.len() as u64 == LINE_LIMIT {
            return Err(Error::new(Cause::Usage, format!("{}: a line is too long", path.display())));
        }
        // Most lines need not be understood.
        if !digest_of(&line).is_some_and(|digest| missing.contains(digest)) {
            continue;
        }
        let Ok(Read1 { digest, body }) = serde_json::from_slice(&line) else { continue };
        let Some(key) = wanted.get(&digest) else { continue };
        if fingerprint(key, &body, None) == digest {
            missing.remove(digest.as_str());
            found.insert(digest, body);
        }
    }
    Ok(found)
}

/// The digest at the beginning of a line.
fn digest_of(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(br#"{"digest":""#)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;
    use serde_json::json;

    #[test]
    fn bodies_are_found_by_their_digests_and_only_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let key = object("ConfigMap.v1 a/b", "1").key;
        let bodies =
            [json!({"data": {"a": "1"}}), json!({"data": {"a": "2", "b": "ü\n"}}), json!({"data": {"a": "3"}})];
        let digests = bodies.each_ref().map(|body| fingerprint(&key, body, None));
        let writing = Writing::begin(&folder.path().join("cell")).unwrap();
        for (digest, body) in digests.iter().zip(&bodies) {
            writing.add(digest, body);
        }
        let cell = folder.path().join("cell");
        assert!(!cell.join(FILE).exists());
        writing.keep(&cell).unwrap();
        let wanted = |digests: &[&String]| digests.iter().map(|digest| ((*digest).clone(), key.clone())).collect();
        let found = find(&cell, &wanted(&[&digests[1], &digests[2]])).unwrap();
        assert_eq!(
            found,
            BTreeMap::from([(digests[1].clone(), bodies[1].clone()), (digests[2].clone(), bodies[2].clone())])
        );

        let text = std::fs::read_to_string(cell.join(FILE)).unwrap();
        std::fs::write(cell.join(FILE), text.replace(r#""b":"ü"#, r#""b":"u"#)).unwrap();
        assert_eq!(find(&cell, &wanted(&[&digests[1], &digests[2]])).unwrap().len(), 1, "a changed body is none");
        std::fs::remove_file(cell.join(FILE)).unwrap();
        assert!(find(&cell, &wanted(&[])).unwrap().is_empty());
        let error = find(&cell, &wanted(&[&digests[0]])).unwrap_err();
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
