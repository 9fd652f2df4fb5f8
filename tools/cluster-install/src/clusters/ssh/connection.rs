//! The system's ssh, with a configuration of ours and no other: keys of hosts are pinned, nothing is asked, nothing
//! forwarded, everything has a time limit. Only what may pass is tried again.

use std::{
    cell::{Cell, RefCell},
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kit::{
    Cause, Context, Error, Process, Result, Stream, Ui,
    ci::{Limits, Ssh},
    process::{self, Finished, Stopper, quote},
    rundir::read_limited,
    ui::printable,
};

use super::{
    faults::{At, Fault, began, judge},
    keys::HostKey,
};
use crate::clusters::borrowed;

/// No answer is longer.
const OUTPUT: usize = 1 << 20;
/// And nobody is to say more on the way, each line being counted as somewhat longer than it is.
const CHATTER: usize = 16 << 20;
const LINE: usize = 64;
/// How much of ssh's log is looked at.
const LOG: u64 = 256 << 10;
/// How often a command is handed over again after a connection broke.
const AGAIN: u32 = 5;
/// How the hosts are called in our configuration.
const HOST: &str = "other-arch-host";
const JUMP: &str = "other-arch-jump";
/// The variable that names another key than the file does.
const KEY: &str = "OTHER_ARCH_SSH_KEY";

/// A host on the way, and what it has to prove.
#[derive(Debug)]
struct Hop {
    alias: &'static str,
    host: String,
    port: u16,
    user: String,
    keys: Vec<HostKey>,
}

/// The way to a host.
pub(super) struct Connection {
    cluster: String,
    owner: String,
    host: Hop,
    jump: Option<Hop>,
    limits: Limits,
    ssh: PathBuf,
    /// For messages.
    key: Option<PathBuf>,
    /// With ssh's configuration; it goes with this value.
    folder: tempfile::TempDir,
}

/// What a command on the host said.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) code: i32,
    pub(super) out: String,
    /// The last lines of its standard error.
    pub(super) last: Vec<String>,
}

/// A command for the host.
pub(super) struct Call<'a> {
    /// What it is for.
    pub(super) what: &'a str,
    pub(super) command: &'a str,
    /// The same when a connection broke after the command had been handed over; without it nothing is handed over twice.
    pub(super) again: Option<&'a str>,
    pub(super) limit: Duration,
}

/// How one attempt ended, if it was not a fault that passes.
enum Attempt {
    Answered(Answered),
    /// The connection broke, and the command may be at work.
    Broke(Error),
}

impl Connection {
    /// # Errors
    /// [`Cause::Usage`] for keys that are none, [`Cause::Auth`] without any key of ours, [`Cause::MissingProgram`].
    pub(super) fn new(cluster: &str, owner: &str, ssh: &Ssh) -> Result<Self> {
        let keys = |keys: &[String]| keys.iter().map(|key| HostKey::parse(key)).collect::<Result<Vec<_>>>();
        let within = |error: Error| error.within(format!("cluster {cluster}"));
        let host = Hop {
            alias: HOST,
            host: ssh.host.clone(),
            port: ssh.port,
            user: ssh.user.clone(),
            keys: keys(&ssh.host_keys).map_err(within)?,
        };
        let jump = ssh.jump.as_ref().map(|jump| -> Result<Hop> {
            let (host, user) = (jump.host.clone(), jump.user.clone());
            Ok(Hop { alias: JUMP, host, port: jump.port, user, keys: keys(&jump.host_keys).map_err(within)? })
        });
        let hint = "install it (on Debian: apt-get install openssh-client)";
        let program = process::find_program("ssh", "OTHER_ARCH_SSH", &format!("cluster {cluster}"), hint)?;
        let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        let key = own_key(ssh.key.as_deref(), folder.path()).map_err(within)?;
        let connection = Self {
            cluster: cluster.into(),
            owner: owner.into(),
            host,
            jump: jump.transpose()?,
            limits: ssh.limits,
            ssh: program,
            key: key.as_ref().map(|(shown, _)| shown.clone()),
            folder,
        };
        connection.write("config", &connection.configuration(key.as_ref().map(|(_, file)| file.as_path())))?;
        let hops = || std::iter::once(&connection.host).chain(&connection.jump);
        let known: String = hops().flat_map(|hop| hop.keys.iter().map(|key| key.known_host(hop.alias))).collect();
        connection.write("known_hosts", &known)?;
        Ok(connection)
    }

    /// The cluster's name.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The host, for messages.
    pub(super) fn shown(&self) -> String {
        format!("{}@{}:{}", self.host.user, self.host.host, self.host.port)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::write(self.file(name), text).cause(Cause::HostDisk, || "cannot write ssh's configuration")
    }

    /// ssh_config(5).
    fn configuration(&self, key: Option<&Path>) -> String {
        let value = |path: &Path| format!("\"{}\"", path.display().to_string().replace('%', "%%"));
        let mut text = String::new();
        for hop in std::iter::once(&self.host).chain(&self.jump) {
            let Hop { alias, host, port, user, .. } = hop;
            text += &format!("Host {alias}\n  HostName {host}\n  Port {port}\n  User {user}\n  HostKeyAlias {alias}\n");
            if self.jump.is_some() && *alias == HOST {
                let own = |path: &Path| quote(&path.display().to_string()).replace('%', "%%");
                let (ssh, config, log) = (own(&self.ssh), own(&self.file("config")), own(&self.file("jump.log")));
                // ProxyJump would mix the jump host's log with what the command says.
                text += &format!("  ProxyCommand {ssh} -F {config} -E {log} -W [%h]:%p {JUMP}\n");
            }
        }
        let seconds = self.limits.connect.as_secs().max(1);
        let identity = match key {
            Some(key) => format!("  IdentityFile {}\n  IdentitiesOnly yes\n", value(key)),
            None => "  IdentityFile none\n".into(),
        };
        text += &format!(
            "Host *\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
             CheckHostIP no\n  UpdateHostKeys no\n  VerifyHostKeyDNS no\n  BatchMode yes\n  \
             PreferredAuthentications publickey\n{identity}  ConnectTimeout {seconds}\n  ConnectionAttempts 1\n  \
             ServerAliveInterval 15\n  ServerAliveCountMax 4\n  ForwardAgent no\n  ForwardX11 no\n  Tunnel no\n  \
             PermitLocalCommand no\n  RequestTTY no\n  LogLevel DEBUG1\n",
            value(&self.file("known_hosts"))
        );
        text
    }

    /// Runs a command on the host. How it ended is for the caller to judge, unless it did not run to its end.
    ///
    /// # Errors
    /// [`Cause::Ssh`] if the host cannot be reached or does not stay within limits, [`Cause::Auth`] if it refuses us.
    pub(super) fn call(&self, call: &Call<'_>, ui: &Ui) -> Result<Answered> {
        let began = Instant::now();
        let mut command = call.command;
        for _ in 0..AGAIN {
            let last = RefCell::new(None);
            let late = || last.take().unwrap_or_else(|| self.too_late(call));
            let attempt = kit::retry::until(self.limits.retry, late, || {
                let left = call.limit.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Err(self.too_late(call));
                }
                self.attempt(call, command, left, ui).or_else(|(fault, error)| {
                    if !fault {
                        return Err(error);
                    }
                    ui.note(format!("{}, which may pass", error.summary()));
                    last.replace(Some(error));
                    Ok(None)
                })
            })?;
            match (attempt, call.again) {
                (Attempt::Answered(answered), _) => return Ok(answered),
                (Attempt::Broke(error), None) => return Err(error),
                (Attempt::Broke(error), Some(again)) => {
                    ui.warn(format!("{}; it is asked again", error.summary()));
                    command = again;
                }
            }
        }
        Err(Error::new(Cause::Ssh, format!("{}: the connection to {} broke {AGAIN} times", call.what, self.shown())))
    }

    fn too_late(&self, call: &Call<'_>) -> Error {
        let what = format!("{}: {} did not end it within {} s", call.what, self.shown(), call.limit.as_secs());
        Error::new(Cause::Ssh, what).next(self.ask_owner())
    }

    fn ask_owner(&self) -> String {
        format!("ask its owner: {}", self.owner)
    }

    /// One connection; an error says with `true` that it may pass.
    fn attempt(
        &self,
        call: &Call<'_>,
        words: &str,
        limit: Duration,
        ui: &Ui,
    ) -> Result<Option<Attempt>, (bool, Error)> {
        for log in ["log", "jump.log"] {
            let _ = fs::remove_file(self.file(log));
        }
        let mut command = Command::new(&self.ssh);
        command.arg("-F").arg(self.file("config")).arg("-E").arg(self.file("log")).args(["-T", HOST, words]);
        let step = ui.step(format!("{} on {}", call.what, self.host.host));
        let (stopper, out, chatter) = (Stopper::default(), RefCell::new(String::new()), Cell::new(0));
        let finished = Process::new(format!("{} by ssh", call.what), command)
            .limit(limit)
            .stop_with(&stopper)
            .on_line(|stream, line| {
                let mut out = out.borrow_mut();
                if stream == Stream::Out && out.len() <= OUTPUT {
                    out.push_str(line);
                    out.push('\n');
                } else {
                    chatter.set(chatter.get() + line.len() + LINE);
                    step.set(printable(&line.chars().take(200).collect::<String>()));
                }
                if out.len() > OUTPUT || chatter.get() > CHATTER {
                    stopper.stop();
                }
            })
            .finish()
            .map_err(|error| (false, error))?;
        // It may have ended by itself before it was stopped.
        if out.borrow().len() > OUTPUT || chatter.get() > CHATTER {
            let what = format!("{}: {} says more than {OUTPUT} bytes", call.what, self.shown());
            return Err((false, Error::new(Cause::Ssh, what).next(self.ask_owner())));
        }
        if finished.timed_out {
            return Err((false, self.too_late(call)));
        }
        let code = finished.code();
        if code == 255 {
            let (log, jump) = (self.log("log"), self.jump.as_ref().map(|_| self.log("jump.log")));
            let (at, fault) = judge(&log, jump.as_deref());
            if fault != Fault::Command {
                let error = self.error(call, at, &fault);
                return if began(&log) { Ok(Some(Attempt::Broke(error))) } else { Err((fault.may_pass(), error)) };
            }
        }
        step.done("");
        let Finished { last, .. } = finished;
        Ok(Some(Attempt::Answered(Answered { code, out: out.into_inner(), last })))
    }

    fn log(&self, name: &str) -> String {
        let mut bytes = Vec::new();
        // ssh may not even have begun to write it.
        let _ = fs::File::open(self.file(name)).and_then(|file| file.take(LOG).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn error(&self, call: &Call<'_>, at: At, fault: &Fault) -> Error {
        let hop = match (at, &self.jump) {
            (At::Jump, Some(jump)) => jump,
            _ => &self.host,
        };
        let (role, table) = if hop.alias == JUMP { ("jump host", "ssh.jump") } else { ("host", "ssh") };
        let Hop { host, port, user, .. } = hop;
        let shown = format!("{role} {host}:{port}");
        match fault {
            Fault::HostKey(got) => {
                let expected = hop.keys.iter().map(|key| format!("expected {}", key.fingerprint()));
                let got = format!("got      {}", got.as_deref().unwrap_or("a key of another type"));
                let lines: Vec<_> = expected.chain([got]).collect();
                Error::new(
                    fault.cause(),
                    format!("{}: {shown} has another host key than the one that is pinned", call.what),
                )
                .line(lines.join("\n"))
                .next(format!(
                    "{} whether the host has a new key. If so, put that into {table}.host_keys of [[cluster]] '{}' in \
                         ci/architectures.toml; if not, somebody else answers in its place",
                    self.ask_owner(),
                    self.cluster
                ))
            }
            Fault::Refused(line) => {
                let with = self.key.as_ref().map_or_else(|| "the agent's keys".into(), |key| key.display().to_string());
                Error::new(fault.cause(), format!("{}: {shown} does not let '{user}' in", call.what))
                    .line(line.clone())
                    .next(format!("{} to let it in with {with}; {KEY}=FILE names another key", self.ask_owner()))
            }
            Fault::Connection(line) => {
                let error = Error::new(fault.cause(), format!("{}: {shown} cannot be reached", call.what));
                error.line(line.clone()).next(self.ask_owner())
            }
            Fault::Command => Error::new(fault.cause(), format!("{}: {shown} says 255", call.what)),
        }
    }
}

/// Our key: as it is called, and a file that ssh accepts. Nothing if the agent has it.
fn own_key(named: Option<&str>, folder: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = match (variable(KEY), named) {
        (Some(path), _) => path,
        (None, Some(text)) => borrowed::path(text, Path::new(""))?,
        (None, None) if variable("SSH_AUTH_SOCK").is_some() => return Ok(None),
        (None, None) => {
            return Err(Error::new(Cause::Auth, "there is neither a key nor an agent")
                .next(format!("name a key with ssh.key in ci/architectures.toml or {KEY}=FILE, or start ssh-agent")));
        }
    };
    let bytes = read_limited(&named, 64 << 10).map_err(|error| error.within("ssh's key"))?;
    let mode =
        fs::metadata(&named).cause(Cause::Usage, || format!("cannot read {}", named.display()))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(Some((named.clone(), named)));
    }
    // Secrets that are mounted into a pod can be read by its group, and ssh refuses that.
    let own = folder.join("key");
    let private = || -> std::io::Result<()> {
        fs::write(&own, "")?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;
        fs::write(&own, &bytes)
    };
    private().cause(Cause::HostDisk, || "cannot copy ssh's key")?;
    Ok(Some((named, own)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINuQQZ2UA+SMDa4glA36cUlikdLkQ1u+2H/E4yyX0VNF";

    fn connection(more: &str) -> Connection {
        let text = format!("host = 'z.example.org'\nuser = 'ci'\nhost_keys = ['{PUBLIC}']\nkey = '/dev/null'\n{more}");
        Connection::new("z", "me", &kit::config::parse(&text, "x").unwrap()).unwrap()
    }

    #[test]
    fn hosts_are_pinned_and_nothing_is_asked_or_forwarded() {
        let text = fs::read_to_string(connection("limits = { connect = '3s' }").file("config")).unwrap();
        for line in [
            "HostName z.example.org",
            "User ci",
            "Port 22",
            "StrictHostKeyChecking yes",
            "GlobalKnownHostsFile /dev/null",
            "UpdateHostKeys no",
            "BatchMode yes",
            "PreferredAuthentications publickey",
            "ForwardAgent no",
            "ConnectTimeout 3",
            "IdentitiesOnly yes",
        ] {
            assert!(text.lines().any(|other| other.trim() == line), "'{line}' is not in\n{text}");
        }
        assert!(!text.contains("ProxyCommand"));
    }

    #[test]
    fn a_jump_host_is_pinned_too_and_logs_by_itself() {
        let jump = format!("jump = {{ host = 'j', port = 2222, user = 'x', host_keys = ['{PUBLIC}'] }}");
        let connection = connection(&jump);
        let text = fs::read_to_string(connection.file("config")).unwrap();
        assert!(text.contains("Host other-arch-jump\n  HostName j\n  Port 2222\n  User x\n"), "{text}");
        assert!(text.contains("-W [%h]:%p other-arch-jump\n") && text.contains("jump.log"), "{text}");
        let known = fs::read_to_string(connection.file("known_hosts")).unwrap();
        assert_eq!(known, format!("other-arch-host {PUBLIC}\nother-arch-jump {PUBLIC}\n"));
    }

    #[test]
    fn a_key_that_others_can_read_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("given");
        fs::write(&key, "secret").unwrap();
        let name = key.to_str().unwrap();
        for (mode, copied) in [(0o600, false), (0o440, true), (0o644, true)] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let (shown, used) = own_key(Some(name), folder.path()).unwrap().unwrap();
            assert_eq!((shown == key, used != key), (true, copied), "{mode:o}");
            assert_eq!(fs::metadata(&used).unwrap().permissions().mode() & 0o077, 0);
        }
        assert_eq!(own_key(Some("/no/such/key"), folder.path()).unwrap_err().cause, Cause::Usage);
    }
}
