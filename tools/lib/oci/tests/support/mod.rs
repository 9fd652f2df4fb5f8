//! A registry in memory, made images to fill it with, and misbehaviour on request.

#![allow(dead_code, reason = "each test file uses a part of it")]

mod writes;

pub(crate) use writes::Trouble;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use kit::{arch::Arch, arch::ByteOrder, digest::sha256};
use serde_json::{Value, json};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// What a path answers with.
#[derive(Clone)]
pub(crate) enum Answer {
    Content {
        media_type: String,
        bytes: Vec<u8>,
    },
    Status(u16, &'static str),
    /// Once this status with these headers, then the rest.
    Once(u16, &'static str, Box<Answer>),
    /// Says the whole length and sends half.
    Cut(Vec<u8>),
    /// With these headers.
    Headed(&'static str, Vec<u8>),
    /// All of it, whatever part was asked for.
    Whole(Vec<u8>),
    /// A part of something, with these headers.
    Part(u16, String, Vec<u8>),
    /// So many zeros.
    Zeros(u64),
    /// The first answer once, then the second.
    Then(Box<Answer>, Box<Answer>),
    /// Only with this `Authorization`.
    Guarded(String, Box<Answer>),
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    requests: Vec<String>,
    writes: writes::Writes,
    /// Bytes of bodies by path, as far as somebody took them.
    served: HashMap<String, u64>,
}

/// Serves until the test's process ends.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) host: String,
    state: Arc<Mutex<State>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let registry = Self { host, state: Arc::default() };
        let server = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        registry
    }

    /// One that nobody serves.
    pub(crate) fn nobody() -> Self {
        Self { host: "127.0.0.1:1".into(), state: Arc::default() }
    }

    pub(crate) fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.into(), answer);
    }

    /// Method and path of each request so far that begins like this.
    pub(crate) fn requests(&self, prefix: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|request| request.starts_with(prefix)).count()
    }

    /// How many bytes went out of this path.
    pub(crate) fn served(&self, path: &str) -> u64 {
        self.state.lock().unwrap().served.get(path).copied().unwrap_or_default()
    }

    /// What a path answers with, as it is now.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        match self.answer(path, None) {
            Answer::Content { bytes, .. } => bytes,
            _ => panic!("{path} has no content"),
        }
    }

    pub(crate) fn blob(&self, repository: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        let answer = Answer::Content { media_type: "application/octet-stream".into(), bytes: bytes.into() };
        self.set(&format!("/v2/{repository}/blobs/{digest}"), answer);
        json!({ "digest": digest, "size": bytes.len() })
    }

    /// Stores a document under its digest and as `tag`; returns its descriptor.
    pub(crate) fn document(&self, repository: &str, tag: &str, media_type: &str, value: &Value) -> Value {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = sha256(&bytes);
        let answer = Answer::Content { media_type: media_type.into(), bytes: bytes.clone() };
        for name in [tag, &digest] {
            self.set(&format!("/v2/{repository}/manifests/{name}"), answer.clone());
        }
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut length, mut media_type, mut authorization, mut range) = (0, String::new(), String::new(), None);
        let mut content_range = String::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok()?,
                "content-type" => media_type = value.trim().into(),
                "authorization" => authorization = value.trim().into(),
                "content-range" => content_range = value.trim().into(),
                "range" => range = parse_range(value),
                _ => {}
            }
        }
        let path = target.split('?').next()?.to_owned();
        let request = format!("{method} {path}");
        self.state.lock().unwrap().requests.push(request.clone());
        let wanted =
            writes::Write { method: &method, target: &target, media_type: &media_type, content_range: &content_range };
        let trouble = self.next_trouble(&request);
        if let Some(Trouble::Cut(count)) = trouble {
            self.cut(&wanted, &mut reader, count);
            return None;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if let Some(Trouble::Hang) = trouble {
            loop {
                std::thread::park();
            }
        }
        if let Some(Trouble::Status(status, headers)) = trouble {
            return write(&mut stream, &method, Answer::Status(status, headers), |_| ());
        }
        if let Some(Trouble::Late(milliseconds)) = trouble {
            #[allow(clippy::disallowed_methods, reason = "a registry that takes its time")]
            std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        }
        let answer = match method.as_str() {
            "GET" | "HEAD" => self.asked(&path).unwrap_or_else(|| self.answer(&path, range)),
            _ => self.store(&wanted, body),
        };
        if let Some(Trouble::Silent) = trouble {
            return None;
        }
        let answer = match answer {
            Answer::Guarded(wanted, inner) if wanted == authorization => *inner,
            Answer::Guarded(..) => Answer::Status(401, ""),
            open => open,
        };
        // Counted before it goes out: what a client has got is counted for sure.
        let count = |bytes| *self.state.lock().unwrap().served.entry(path.clone()).or_default() += bytes;
        write(&mut stream, &method, answer, count)
    }

    /// Lets everything be asked for only with this `Authorization`; `/v2/` says how to log in.
    pub(crate) fn guard(&self, authorization: &str, challenge: &'static str) {
        for (path, answer) in &mut self.state.lock().unwrap().answers {
            if path.starts_with("/v2/") {
                let open = std::mem::replace(answer, Answer::Status(401, ""));
                *answer = Answer::Guarded(authorization.into(), Box::new(open));
            }
        }
        self.set("/v2/", Answer::Status(401, challenge));
    }

    fn answer(&self, path: &str, range: Option<(usize, Option<usize>)>) -> Answer {
        let mut state = self.state.lock().unwrap();
        if let (Some(Answer::Content { bytes, .. }), Some((first, last))) = (state.answers.get(path), range) {
            return part(bytes, first, last);
        }
        let found = state.answers.get(path).cloned();
        let answer = found.unwrap_or(Answer::Status(404, ""));
        match answer {
            Answer::Once(_, _, ref rest) => {
                state.answers.insert(path.into(), (**rest).clone());
                answer
            }
            Answer::Then(first, rest) => {
                state.answers.insert(path.into(), *rest);
                *first
            }
            answer => answer,
        }
    }
}

/// `bytes=FIRST-` or `bytes=FIRST-LAST`.
fn parse_range(value: &str) -> Option<(usize, Option<usize>)> {
    let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

fn part(bytes: &[u8], first: usize, last: Option<usize>) -> Answer {
    if first >= bytes.len() {
        return Answer::Status(416, "");
    }
    let end = last.map_or(bytes.len(), |last| bytes.len().min(last + 1));
    let headers = format!("Content-Range: bytes {first}-{}/{}\r\n", end - 1, bytes.len());
    Answer::Part(206, headers, bytes[first..end].to_vec())
}

/// Sends an answer and counts the bytes of its body.
fn write(stream: &mut TcpStream, method: &str, answer: Answer, count: impl Fn(u64)) -> Option<()> {
    let (status, headers, body, length) = match answer {
        Answer::Content { media_type, bytes } => {
            let length = bytes.len();
            (200, format!("Content-Type: {media_type}\r\n"), bytes, length)
        }
        Answer::Part(status, headers, bytes) => {
            let length = bytes.len();
            (status, headers, bytes, length)
        }
        Answer::Whole(bytes) => {
            let length = bytes.len();
            (200, String::new(), bytes, length)
        }
        Answer::Zeros(count) => (200, String::new(), vec![], usize::try_from(count).unwrap()),
        Answer::Status(status, headers) | Answer::Once(status, headers, _) => (status, headers.to_owned(), vec![], 0),
        Answer::Guarded(..) | Answer::Then(..) => return None,
        Answer::Headed(headers, bytes) => (200, headers.to_owned(), bytes.clone(), bytes.len()),
        Answer::Cut(bytes) => (200, String::new(), bytes[..bytes.len() / 2].to_vec(), bytes.len()),
    };
    let zeros = status == 200 && body.is_empty();
    let head = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    if method != "HEAD" {
        let zero = vec![0; if zeros { 64 << 10 } else { 0 }];
        let pieces: Box<dyn Iterator<Item = &[u8]>> = if zeros {
            Box::new(std::iter::repeat_n(&zero[..], length / zero.len()))
        } else {
            Box::new(body.chunks(64 << 10))
        };
        for piece in pieces {
            count(piece.len() as u64);
            stream.write_all(piece).ok()?;
        }
    }
    Some(())
}

/// The first bytes of an ELF program.
pub(crate) fn elf(arch: &str) -> Vec<u8> {
    let arch = Arch::find(arch).unwrap();
    let little = arch.byte_order == ByteOrder::Little;
    let mut bytes = vec![0; 64];
    bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', arch.elf_class / 32, if little { 1 } else { 2 }, 1]);
    bytes[18..20].copy_from_slice(&if little {
        arch.elf_machine.to_le_bytes()
    } else {
        arch.elf_machine.to_be_bytes()
    });
    bytes[20..24].copy_from_slice(&if little { [1, 0, 0, 0] } else { [0, 0, 0, 1] });
    bytes
}

/// The first bytes of a program for Windows on amd64.
pub(crate) fn pe() -> Vec<u8> {
    let mut bytes = vec![0; 0x40];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes.extend(b"PE\0\0\x64\x86");
    bytes.resize(0x200, 0);
    // How large what follows is, and that it is for 64 bit.
    bytes[0x54] = 0xf0;
    bytes[0x58..0x5a].copy_from_slice(&[0x0b, 0x02]);
    bytes
}

/// What an entry of a made layer is.
pub(crate) enum File<'a> {
    Content(&'a [u8]),
    Link(&'a str),
}

pub(crate) fn layer(files: &[(&str, File<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, file) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        match file {
            File::Content(bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, path, *bytes).unwrap();
            }
            File::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image to be made; by default one that is right.
pub(crate) struct Made<'a> {
    pub(crate) config: &'a str,
    pub(crate) settings: Value,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) media_type: &'a str,
    /// Put into the manifest.
    pub(crate) annotations: Value,
    pub(crate) os: &'a str,
    pub(crate) os_version: Option<&'a str>,
}

impl<'a> Made<'a> {
    /// Says `config` and holds a program for `program`.
    pub(crate) fn new(config: &'a str, program: &str) -> Self {
        let layers = vec![gzip(&layer(&[("app/x", File::Content(&elf(program)))]))];
        Self {
            config,
            settings: json!({ "Entrypoint": ["/app/x"], "User": "65532" }),
            layers,
            media_type: OCI_MANIFEST,
            annotations: json!({}),
            os: "linux",
            os_version: None,
        }
    }

    /// Pushes it and returns its descriptor, with its platform.
    pub(crate) fn push(&self, registry: &Registry, repository: &str) -> Value {
        let mut config = json!({
            "os": self.os, "architecture": self.config, "config": self.settings,
            "rootfs": { "type": "layers", "diff_ids": [] },
        });
        if let Some(version) = self.os_version {
            config["os.version"] = json!(version);
        }
        let docker = self.media_type == DOCKER_MANIFEST;
        let mut config = registry.blob(repository, &serde_json::to_vec(&config).unwrap());
        config["mediaType"] = json!(if docker {
            "application/vnd.docker.container.image.v1+json"
        } else {
            "application/vnd.oci.image.config.v1+json"
        });
        let layers = self.layers.iter().map(|layer| {
            let mut layer = registry.blob(repository, layer);
            layer["mediaType"] = json!(if docker {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            } else {
                "application/vnd.oci.image.layer.v1.tar+gzip"
            });
            layer
        });
        let manifest = json!({ "schemaVersion": 2, "mediaType": self.media_type, "config": config, "layers": layers.collect::<Vec<_>>(), "annotations": self.annotations });
        let mut descriptor = registry.document(repository, "plain", self.media_type, &manifest);
        descriptor["platform"] = json!({ "os": self.os, "architecture": self.config });
        descriptor
    }
}

/// Pushes an index under `tag` and returns its descriptor.
pub(crate) fn index(registry: &Registry, repository: &str, tag: &str, manifests: &[Value]) -> Value {
    let value = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    registry.document(repository, tag, OCI_INDEX, &value)
}
