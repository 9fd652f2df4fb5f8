//! What the registry in memory does when somebody writes: uploads that can break and go on, mounts, referrers,
//! tags that go; each refused or cut short on request.

use std::{
    collections::HashMap,
    io::{BufReader, Read},
    net::TcpStream,
};

use kit::digest::sha256;
use serde_json::{Value, json};

use super::{Answer, OCI_INDEX, Registry};

/// What happens to a request instead of what it asks for.
#[derive(Clone)]
pub(crate) enum Trouble {
    /// This status with these headers.
    Status(u16, &'static str),
    /// So much of the body arrives (and is kept), then the connection is gone.
    Cut(usize),
    /// It is done, and the answer is lost.
    Silent,
    /// It is done so many milliseconds later, whether or not somebody waits for it.
    Late(u64),
    /// Nothing is done, and nobody ever answers.
    Hang,
}

#[derive(Default)]
pub(crate) struct Writes {
    troubles: Vec<(String, usize, Trouble)>,
    uploads: HashMap<String, Upload>,
    /// How many were opened; each has a name of its own.
    opened: usize,
    referrers: HashMap<String, Vec<Value>>,
    mounts: usize,
    /// Whether there is a referrers API.
    pub(crate) lists_referrers: bool,
    /// Whether a tag may be removed.
    pub(crate) deletes: bool,
    /// Whether it forgets uploads that broke, and mounts nothing.
    pub(crate) simple: bool,
    /// Whether it damages the next upload that goes on.
    pub(crate) spoils: bool,
}

struct Upload {
    repository: String,
    bytes: Vec<u8>,
}

/// A request that is no reading.
pub(crate) struct Write<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) media_type: &'a str,
    pub(crate) content_range: &'a str,
}

impl Registry {
    /// Lets the next requests that begin like this (method and path) come to nothing.
    pub(crate) fn trouble(&self, prefix: &str, times: usize, trouble: Trouble) {
        self.state.lock().unwrap().writes.troubles.push((prefix.into(), times, trouble));
    }

    /// Changes what the registry can do.
    pub(crate) fn able(&self, change: impl FnOnce(&mut Writes)) {
        change(&mut self.state.lock().unwrap().writes);
    }

    /// How many blobs were mounted.
    pub(crate) fn mounts(&self) -> usize {
        self.state.lock().unwrap().writes.mounts
    }

    /// The digest that a tag has, and the document's bytes.
    pub(crate) fn tag(&self, repository: &str, tag: &str) -> Option<(String, Vec<u8>)> {
        let state = self.state.lock().unwrap();
        match state.answers.get(&format!("/v2/{repository}/manifests/{tag}"))? {
            Answer::Content { bytes, .. } => Some((sha256(bytes), bytes.clone())),
            _ => None,
        }
    }

    /// All tags, as `repository:tag`.
    pub(crate) fn tags(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let tag = |path: &String| {
            let (repository, tag) = path.strip_prefix("/v2/")?.split_once("/manifests/")?;
            (!tag.starts_with("sha256:")).then(|| format!("{repository}:{tag}"))
        };
        let mut tags: Vec<_> = state.answers.keys().filter_map(tag).collect();
        tags.sort();
        tags
    }

    pub(super) fn next_trouble(&self, request: &str) -> Option<Trouble> {
        let mut state = self.state.lock().unwrap();
        let found =
            state.writes.troubles.iter_mut().find(|(prefix, times, _)| *times > 0 && request.starts_with(prefix));
        found.map(|(_, times, trouble)| {
            *times -= 1;
            trouble.clone()
        })
    }

    /// Takes a part of an upload's bytes, unless it is to be forgotten.
    pub(super) fn cut(&self, request: &Write<'_>, reader: &mut BufReader<TcpStream>, count: usize) {
        let mut body = vec![0; count];
        if reader.read_exact(&mut body).is_ok() && !self.state.lock().unwrap().writes.simple {
            self.append(request, &body);
        }
    }

    fn append(&self, request: &Write<'_>, body: &[u8]) -> Answer {
        let mut state = self.state.lock().unwrap();
        let spoilt = !request.content_range.is_empty() && std::mem::take(&mut state.writes.spoils);
        let id = request.target.split('?').next().unwrap_or_default();
        let Some(upload) = state.writes.uploads.get_mut(id) else { return Answer::Status(404, "") };
        let begins = request.content_range.split('-').next().and_then(|begin| begin.parse().ok()).unwrap_or(0);
        if begins != upload.bytes.len() {
            return Answer::Status(416, "");
        }
        upload.bytes.extend_from_slice(body);
        if spoilt {
            upload.bytes[0] ^= 1;
        }
        Answer::Status(202, format!("Location: {id}?more=1\r\n").leak())
    }

    /// How much of an upload has arrived, or who refers to a digest.
    pub(super) fn asked(&self, path: &str) -> Option<Answer> {
        let state = self.state.lock().unwrap();
        if let Some(upload) = state.writes.uploads.get(path) {
            if state.writes.simple {
                return Some(Answer::Status(404, ""));
            }
            let last = upload.bytes.len().saturating_sub(1);
            return Some(Answer::Status(204, format!("Range: 0-{last}\r\nLocation: {path}?more=2\r\n").leak()));
        }
        if !path.contains("/referrers/") || !state.writes.lists_referrers {
            return None;
        }
        let manifests = state.writes.referrers.get(path).cloned().unwrap_or_default();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Some(Answer::Content { media_type: OCI_INDEX.into(), bytes: serde_json::to_vec(&index).unwrap() })
    }

    pub(super) fn store(&self, request: &Write<'_>, body: Vec<u8>) -> Answer {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let query: HashMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let said = |name: &str| query.get(name).map(|value| value.replace("%3A", ":").replace("%2F", "/"));
        match request.method {
            "POST" => self.open(path, said("mount"), said("from")),
            "PATCH" => self.append(request, &body),
            "DELETE" => self.delete(path),
            _ => match said("digest") {
                Some(digest) => self.close(path, &digest, body),
                None => self.put(path, request.media_type, body),
            },
        }
    }

    fn open(&self, path: &str, mount: Option<String>, from: Option<String>) -> Answer {
        let repository = path.trim_start_matches("/v2/").trim_end_matches("/blobs/uploads/").to_owned();
        let mut state = self.state.lock().unwrap();
        if let (Some(digest), Some(from), false) = (mount, from, state.writes.simple)
            && let Some(blob) = state.answers.get(&format!("/v2/{from}/blobs/{digest}")).cloned()
        {
            state.answers.insert(format!("/v2/{repository}/blobs/{digest}"), blob);
            state.writes.mounts += 1;
            return Answer::Status(201, "");
        }
        state.writes.opened += 1;
        let id = format!("/upload/{}", state.writes.opened);
        state.writes.uploads.insert(id.clone(), Upload { repository, bytes: vec![] });
        Answer::Status(202, format!("Location: {id}\r\n").leak())
    }

    fn close(&self, path: &str, digest: &str, body: Vec<u8>) -> Answer {
        let mut state = self.state.lock().unwrap();
        let Some(mut upload) = state.writes.uploads.remove(path) else { return Answer::Status(404, "") };
        upload.bytes.extend(body);
        if sha256(&upload.bytes) != *digest {
            return Answer::Status(400, "");
        }
        let answer = Answer::Content { media_type: "application/octet-stream".into(), bytes: upload.bytes };
        state.answers.insert(format!("/v2/{}/blobs/{digest}", upload.repository), answer);
        Answer::Status(201, "Location: /stored\r\n")
    }

    /// As a real registry it takes a manifest only when it has what the manifest names.
    fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) -> Answer {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let repository = folder.trim_end_matches("/manifests");
        let (digest, value) = (sha256(&bytes), serde_json::from_slice::<Value>(&bytes).unwrap());
        let mut state = self.state.lock().unwrap();
        let digests = |key: &str| {
            let all = value[key].as_array().cloned().unwrap_or_default();
            all.into_iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let config = value["config"]["digest"].as_str().map(String::from);
        let mut named: Vec<_> =
            digests("layers").into_iter().chain(config).map(|d| format!("{repository}/blobs/{d}")).collect();
        named.extend(digests("manifests").into_iter().map(|digest| format!("{folder}/{digest}")));
        if named.iter().any(|path| !state.answers.contains_key(path)) {
            return Answer::Status(400, "");
        }
        let answer = Answer::Content { media_type: media_type.into(), bytes: bytes.clone() };
        for name in [name, &digest] {
            state.answers.insert(format!("{folder}/{name}"), answer.clone());
        }
        let Some(subject) = value["subject"]["digest"].as_str().filter(|_| state.writes.lists_referrers) else {
            return Answer::Status(201, "Location: /stored\r\n");
        };
        let list = state.writes.referrers.entry(format!("{repository}/referrers/{subject}")).or_default();
        let entry = json!({
            "mediaType": media_type, "digest": digest, "size": bytes.len(),
            "artifactType": value["artifactType"], "annotations": value["annotations"],
        });
        if !list.contains(&entry) {
            list.push(entry);
        }
        Answer::Status(201, format!("Location: /stored\r\nOCI-Subject: {subject}\r\n").leak())
    }

    fn delete(&self, path: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        if !state.writes.deletes {
            return Answer::Status(405, "");
        }
        Answer::Status(if state.answers.remove(path).is_some() { 202 } else { 404 }, "")
    }

    /// Whether an upload brought this blob to any repository.
    pub(crate) fn received(&self, digest: &str) -> bool {
        let state = self.state.lock().unwrap();
        state.answers.keys().any(|path| path.ends_with(&format!("/blobs/{digest}")))
    }
}
