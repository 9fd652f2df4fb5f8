//! What entries of a tar archive say about the one behind them: GNU's long names and pax records, in bounded memory.

use std::io::{self, Read};

/// Bytes of a long name or of pax records.
const LIMIT: u64 = 1 << 20;

/// What the entries before an entry say about it.
#[derive(Debug, Default)]
pub struct Extension {
    /// Its path.
    pub path: Option<Vec<u8>>,
    /// What it links to.
    pub link: Option<Vec<u8>>,
    /// The other pax records, key and value.
    pub records: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether there were records that cannot be read.
    pub malformed: bool,
}

impl Extension {
    /// Reads such an entry of an archive that is read raw; false if it is an ordinary one, which this is about.
    ///
    /// # Errors
    /// What cannot be read, and what would make the rest of the archive be read otherwise than others read it.
    pub fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<bool> {
        let kind = entry.header().entry_type();
        let special = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
        if !special {
            return Ok(kind.is_pax_global_extensions());
        }
        let mut bytes = Vec::new();
        entry.take(LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            return Err(io::Error::other("it has a name of more than a mebibyte"));
        }
        if kind.is_gnu_longname() {
            self.path = Some(name(&bytes));
        } else if kind.is_gnu_longlink() {
            self.link = Some(name(&bytes));
        } else {
            self.read(&bytes)?;
        }
        Ok(true)
    }

    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        for record in tar::PaxExtensions::new(bytes) {
            let Ok(record) = record else {
                self.malformed = true;
                continue;
            };
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(name(value)),
                b"linkpath" => self.link = Some(name(value)),
                // Only files beyond our limits need it, and ignoring it would misread what follows.
                b"size" => return Err(io::Error::other("it has a file of more than 8 GiB")),
                // Others take the path from these and see another file than we do.
                key if key.starts_with(b"GNU.sparse.") => return Err(io::Error::other("it has a sparse file")),
                key => self.records.push((key.to_vec(), value.to_vec())),
            }
        }
        Ok(())
    }
}

fn name(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..end].to_vec()
}
