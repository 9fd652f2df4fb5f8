//! What this machine lends to a lab that has no way out of it: the other lab, the modules that Go has here, Debian's
//! packages. All of it listens on the machine's end of the lab's own network, where nobody else is.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use kit::{Cause, Context, Result};

/// The head of a request is not larger.
const HEAD: u64 = 64 << 10;
/// A connection that nobody uses is closed after this long.
const IDLE: Duration = Duration::from_secs(900);

/// A listener and what it does; it ends with the process.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

impl Relay {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether connections are taken: one that is not is closed at once.
    pub(crate) fn open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }

    /// Passes every connection on.
    pub(crate) fn to(at: IpAddr, target: SocketAddr) -> Result<Self> {
        Self::start(at, move |client| {
            let server = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
            both_ways(client, server)
        })
    }

    /// Serves the files below a folder, as a static proxy of Go's modules (`go help goproxy`).
    pub(crate) fn files(at: IpAddr, folder: PathBuf) -> Result<Self> {
        Self::start(at, move |client| serve(client, &folder))
    }

    /// Fetches what it is asked for by plain HTTP, as apt asks.
    pub(crate) fn proxy(at: IpAddr) -> Result<Self> {
        Self::start(at, forward)
    }

    fn start(at: IpAddr, work: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        let listening = TcpListener::bind((at, 0)).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listening.cause(Cause::Node, || format!("cannot listen on {at}"))?;
        let (open, work) = (Arc::new(AtomicBool::new(true)), Arc::new(work));
        let taken = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (work, taken) = (Arc::clone(&work), Arc::clone(&taken));
                // Whoever is at the other end sees what goes wrong: the connection ends.
                thread::spawn(move || taken.load(Ordering::SeqCst).then(|| work(client)));
            }
        });
        Ok(Self { address, open })
    }
}

fn both_ways(client: TcpStream, server: TcpStream) -> io::Result<()> {
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_nodelay(true)?;
    }
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let (mut from_server, mut to_client) = (server, client);
    let copied = io::copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Write);
    let _ = up.join();
    copied.map(drop)
}

/// The lines of a request's head.
fn head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut reader = reader.take(HEAD);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn answer(client: &mut TcpStream, status: &str, length: u64) -> io::Result<()> {
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

fn serve(mut client: TcpStream, folder: &Path) -> io::Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    let lines = head(&mut BufReader::new(client.try_clone()?))?;
    match lines.first().and_then(|line| inside(line)).map(|path| folder.join(path)) {
        Some(path) if path.is_file() => {
            let mut file = File::open(path)?;
            answer(&mut client, "200 OK", file.metadata()?.len())?;
            io::copy(&mut file, &mut client)?;
        }
        _ => answer(&mut client, "404 Not Found", 0)?,
    }
    client.shutdown(Shutdown::Write)
}

/// The path of a request for a file, unless it leads out of the folder.
fn inside(line: &str) -> Option<PathBuf> {
    let mut words = line.split(' ');
    let path = words.next().filter(|method| *method == "GET").and(words.next())?;
    let path = percent_decoded(path.split('?').next()?)?;
    let path = Path::new(path.trim_start_matches('/')).to_path_buf();
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

fn forward(mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(IDLE))?;
    let lines = head(&mut BufReader::new(client.try_clone()?))?;
    let Some((host, request)) = lines.split_first().and_then(|(first, rest)| rewrite(first, rest)) else {
        answer(&mut client, "400 Bad Request", 0)?;
        return client.shutdown(Shutdown::Write);
    };
    match TcpStream::connect((host.as_str(), 80)) {
        Ok(mut server) => {
            server.set_read_timeout(Some(IDLE))?;
            server.write_all(request.as_bytes())?;
            io::copy(&mut server, &mut client)?;
        }
        Err(_) => answer(&mut client, "502 Bad Gateway", 0)?,
    }
    client.shutdown(Shutdown::Write)
}

/// A request to a proxy (RFC 9112, absolute-form) as the request to the server, and the server; only for what is
/// fetched by plain HTTP.
fn rewrite(first: &str, rest: &[String]) -> Option<(String, String)> {
    let words: Vec<_> = first.split(' ').collect();
    let [method @ ("GET" | "HEAD"), address, version] = words[..] else { return None };
    let (host, path) = address.strip_prefix("http://")?.split_once('/')?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    if host.is_empty() || !host.chars().all(good) {
        return None;
    }
    let mut request = format!("{method} /{path} {version}\r\n");
    let own = ["connection:", "proxy-"];
    for line in rest.iter().filter(|line| !own.iter().any(|name| line.to_ascii_lowercase().starts_with(name))) {
        request.push_str(&format!("{line}\r\n"));
    }
    Some((host.to_owned(), format!("{request}Connection: close\r\n\r\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut said = Vec::new();
        // One that is closed with something unread says so.
        let _ = stream.read_to_end(&mut said);
        String::from_utf8(said).unwrap()
    }

    #[test]
    fn files_are_served_and_nothing_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("served/x/@v")).unwrap();
        std::fs::write(folder.path().join("served/x/@v/v1.0.0.info"), "{}").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let relay = Relay::files(HERE, folder.path().join("served")).unwrap();
        let get = |path: &str| ask(relay.address(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(get("/x/@v/v1.0.0.info").ends_with("\r\n\r\n{}"));
        for path in ["/x/@v/list", "/../secret", "/%2e%2e/secret", "/x", "//../secret"] {
            assert!(get(path).starts_with("HTTP/1.1 404"), "{path}");
        }
        assert!(ask(relay.address(), "DELETE /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn a_connection_is_passed_on_until_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "content").unwrap();
        let server = Relay::files(HERE, folder.path().to_path_buf()).unwrap();
        let relay = Relay::to(HERE, server.address()).unwrap();
        assert!(ask(relay.address(), "GET /a HTTP/1.1\r\n\r\n").ends_with("content"));
        relay.open(false);
        assert_eq!(ask(relay.address(), "GET /a HTTP/1.1\r\n\r\n"), "");
        relay.open(true);
        assert!(ask(relay.address(), "GET /a HTTP/1.1\r\n\r\n").ends_with("content"));
    }

    #[test]
    fn a_proxy_s_request_becomes_the_server_s() {
        let rest = ["Host: deb.example", "Connection: keep-alive", "Proxy-Authorization: x"].map(String::from);
        let (host, request) = rewrite("GET http://deb.example/debian/x HTTP/1.1", &rest).unwrap();
        assert_eq!(host, "deb.example");
        assert_eq!(request, "GET /debian/x HTTP/1.1\r\nHost: deb.example\r\nConnection: close\r\n\r\n");
        for wrong in
            ["CONNECT x:443 HTTP/1.1", "GET /x HTTP/1.1", "GET http://x:22/y HTTP/1.1", "POST http://x/y HTTP/1.1"]
        {
            assert!(rewrite(wrong, &[]).is_none(), "{wrong}");
        }
    }
}
