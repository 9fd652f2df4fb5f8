//! The two labs: one that drives, one that is the target.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use kit::{Cause, Context, Error, Platform, Process, Result, Ui};
use serde_json::Value;

use crate::tools;

/// Both, up.
pub(crate) struct Labs {
    pub(crate) driver: Lab,
    pub(crate) target: Lab,
}

/// A lab of this machine.
pub(crate) struct Lab {
    pub(crate) name: String,
    /// As everybody names it.
    pub(crate) registry: String,
    /// The registry's address, which is the lab's own.
    pub(crate) address: IpAddr,
    /// This machine's end of the lab's network.
    pub(crate) host: IpAddr,
    pub(crate) api_server: SocketAddr,
}

impl Labs {
    /// Starts what is not up yet; the target gets a node of the platform that is tested.
    pub(crate) fn up(name: &str, test_on: &Platform, ui: &Ui) -> Result<Self> {
        let node = (*test_on != Platform::host()).then(|| test_on.to_string());
        let driver = Lab::up(&format!("{name}-driver"), None, ui)?;
        let target = Lab::up(&format!("{name}-target"), node.as_deref(), ui)?;
        Ok(Self { driver, target })
    }

    /// Takes both down; what does not work is said.
    pub(crate) fn down(&self, ui: &Ui) {
        for lab in [&self.driver, &self.target] {
            if let Err(error) = lab.lab(&["down"], &[]).cause(Cause::Node, || format!("lab {}", lab.name)) {
                ui.warn(format!("{error}"));
            }
        }
    }
}

impl Lab {
    fn up(name: &str, node: Option<&str>, ui: &Ui) -> Result<Self> {
        let step = ui.step(format!("lab {name}"));
        let mut command = Command::new(tools::path("lab")?);
        command.args(["up", "--name", name, "--output", "json"]).args(node.iter().flat_map(|node| ["--node", node]));
        command.current_dir(tools::root());
        let process = Process::new(format!("lab {name}"), command).limit(Duration::from_secs(3600));
        let mut step_line = String::new();
        let said = process.on_line(|_, line| step_line = line.to_owned()).read();
        let said = said.map_err(|error| error.line(step_line))?;
        step.done("");
        Self::from_json(name, &said)
    }

    fn from_json(name: &str, said: &str) -> Result<Self> {
        let wrong = || format!("lab {name} does not say where it is");
        let json: Value = serde_json::from_str(said).cause(Cause::Internal, wrong)?;
        let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
        let registry = text("registry");
        let address: SocketAddr = registry.parse().cause(Cause::Internal, wrong)?;
        let IpAddr::V4(lab) = address.ip() else { return Err(Error::new(Cause::Internal, wrong())) };
        let [a, b, c, _] = lab.octets();
        let api_server = text("apiServer");
        let api_server = api_server.trim_start_matches("https://").parse().cause(Cause::Internal, wrong)?;
        let host = IpAddr::from([a, b, c, 1]);
        Ok(Self { name: name.into(), registry, address: address.ip(), host, api_server })
    }

    /// Runs the lab's own program on it, and returns what it printed.
    pub(crate) fn lab(&self, before: &[&str], after: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::path("lab")?);
        command.args(before).args(["--name", &self.name]).args(after).current_dir(tools::root());
        Process::new(format!("lab {}", before.join(" ")), command).limit(Duration::from_secs(900)).read()
    }

    /// Runs kubectl on it, and returns what it printed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, None)
    }

    /// The same with something on its standard input.
    pub(crate) fn kubectl_with(&self, arguments: &[&str], input: Option<&str>) -> Result<String> {
        let mut command = Command::new(tools::path("lab")?);
        command.args(["--name", &self.name, "kubectl"]).args(arguments).current_dir(tools::root());
        let what = format!("kubectl {} on {}", arguments.join(" "), self.name);
        let process = Process::new(what, command).cause(Cause::Apiserver).limit(Duration::from_secs(300));
        match input {
            Some(input) => process.input(input.as_bytes()).read(),
            None => process.read(),
        }
    }

    /// The same, read as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&said).cause(Cause::Apiserver, || "kubectl printed no JSON")
    }

    /// Applies objects; they go through standard input, for some of them are secret.
    pub(crate) fn apply(&self, objects: &str) -> Result<()> {
        self.kubectl_with(&["apply", "--server-side", "--filename=-"], Some(objects)).map(drop)
    }

    /// Where a folder of a volume lies on this machine.
    pub(crate) fn volume(&self, path: &str) -> Result<PathBuf> {
        let state = kit::dirs::cache()?.join("labs").join(&self.name).join("state");
        Ok(state.join(path.trim_start_matches('/')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_says_where_it_is() {
        let said = r#"{"registry": "10.200.7.2:5000", "apiServer": "https://10.200.7.2:6443"}"#;
        let lab = Lab::from_json("x", said).unwrap();
        assert_eq!((lab.host.to_string(), lab.address.to_string()), ("10.200.7.1".into(), "10.200.7.2".into()));
        assert_eq!(lab.api_server.port(), 6443);
        assert_eq!(Lab::from_json("x", "{}").err().unwrap().cause, Cause::Internal);
    }
}
