//! Opening exactly the cluster that was named.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Error, Result, Ui, rundir::slug};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    KubeContext, Lab, Options, Source,
    error::{cause_of, describe},
    kubeconfig, within,
};

/// How long the first answer may take. Programs of the kubeconfig have their own limit.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// No connection is that slow.
const CONNECT: Duration = Duration::from_secs(10);
/// Longer than the API server keeps a watch open that says nothing (client asks for 290 s).
const READ: Duration = Duration::from_secs(330);

/// An open cluster.
pub struct Opened {
    /// The client.
    pub client: Client,
    /// How people call it: `lab-default`, the context's name as a folder's name, or `in-cluster`.
    pub name: String,
    /// A kubeconfig for programs that we start: its current context is this cluster.
    pub kubeconfig: PathBuf,
    /// The lab that it is, if it is one.
    pub lab: Option<Lab>,
    /// Its API server.
    pub server: String,
    /// Whether it is the current one of several contexts, none of which was named.
    pub assumed: bool,
    /// The kubeconfig's file, if it is ours and goes with us.
    _own: Option<tempfile::TempPath>,
}

/// What is known of a cluster before a connection is made.
struct Named {
    config: Config,
    name: String,
    kubeconfig: PathBuf,
    lab: Option<Lab>,
    own: Option<tempfile::TempPath>,
    /// For messages.
    shown: String,
    /// As in [`Opened::assumed`].
    assumed: bool,
}

/// Opens the cluster that `options` name, and no other, and makes sure that it answers.
///
/// # Errors
/// [`Cause::Usage`] for options and files that name no cluster, [`Cause::Auth`] for credentials that
/// are refused, [`Cause::ClusterUnreachable`] (or what [`crate::cause_of`] finds) otherwise.
pub async fn open(options: &Options, ui: &Ui) -> Result<Opened> {
    open_wide(options, 1, ui, async |_| ()).await.map(|(opened, ())| opened)
}

/// As [`open`], with so many connections from the beginning, for who is going to send many requests: a connection
/// carries one at a time (HTTP/1.1), and one that is opened when it is needed costs two round trips more.
/// `first` is asked meanwhile, so that it costs none.
///
/// # Errors
/// As [`open`].
pub async fn open_wide<T>(
    options: &Options,
    connections: usize,
    ui: &Ui,
    first: impl AsyncFnOnce(&Opened) -> T,
) -> Result<(Opened, T)> {
    // The first call wins; a second one finds the same provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut named = match options.source()? {
        Source::Lab(name) => of_lab(&name).await?,
        Source::File(path, context) => of_file(&path, context.as_deref(), ui).await?,
        Source::Env(context) => of_env(context.as_deref()).await?,
        Source::InCluster => of_pod()?,
    };
    named.config.connect_timeout = Some(CONNECT);
    named.config.read_timeout = Some(READ);
    named.config.reset_reader_on_write = true;
    let server = named.config.cluster_url.to_string();
    let client = client(named.config, &named.shown, &server).await?;
    for _ in 1..connections {
        let client = client.clone();
        // What fails here fails below as well.
        tokio::spawn(async move { drop(client.apiserver_version().await) });
    }
    let Named { name, kubeconfig, lab, own, assumed, shown, .. } = named;
    let opened = Opened { client, name, kubeconfig, lab, server, assumed, _own: own };
    let late = || {
        let what = format!("{} within {} s", no_answer(&shown, &opened.server), FIRST_ANSWER.as_secs());
        Error::new(Cause::ClusterUnreachable, what)
    };
    let answered = within(FIRST_ANSWER, late, answers(&opened.client, &shown, &opened.server));
    // Of a cluster that does not answer that is said, and nothing else.
    let ((), first) = tokio::try_join!(answered, async { Ok(first(&opened).await) })?;
    Ok((opened, first))
}

async fn of_lab(name: &str) -> Result<Named> {
    let lab = crate::lab::read(name)?;
    let config = kubeconfig::read(&lab.kubeconfig)?;
    let context = kubeconfig::choose(&config, &lab.kubeconfig.display().to_string(), None, true)?;
    let mut config = client_config(&config, &context, &lab.kubeconfig.display().to_string()).await?;
    // A lab is on this machine: no proxy of the environment stands between.
    config.proxy_url = None;
    let shown = format!("lab '{name}'");
    Ok(Named {
        config,
        name: format!("lab-{name}"),
        kubeconfig: lab.kubeconfig.clone(),
        lab: Some(lab),
        own: None,
        shown,
        assumed: false,
    })
}

async fn of_file(path: &Path, context: Option<&str>, ui: &Ui) -> Result<Named> {
    let config = kubeconfig::read(path)?;
    let shown = path.display().to_string();
    let chosen = kubeconfig::choose(&config, &shown, context, true)?;
    let assumed = context.is_none() && config.contexts.len() > 1;
    if assumed {
        ui.note(format!("{shown}: using its current context '{chosen}'"));
    }
    if config.current_context.as_ref() == Some(&chosen) {
        let absolute = path.canonicalize().cause(Cause::Usage, || format!("cannot read {shown}"))?;
        let config = client_config(&config, &chosen, &shown).await?;
        return Ok(Named { config, name: slug(&chosen), kubeconfig: absolute, lab: None, own: None, shown, assumed });
    }
    of_copy(&config, &chosen, shown).await
}

async fn of_env(context: Option<&str>) -> Result<Named> {
    let (config, shown) = kubeconfig::read_env()?;
    let chosen = kubeconfig::choose(&config, &shown, context, false)?;
    of_copy(&config, &chosen, shown).await
}

async fn of_copy(config: &Kubeconfig, context: &str, shown: String) -> Result<Named> {
    let copy = kubeconfig::narrow(config, context);
    let own = kubeconfig::store(&copy)?;
    let config = client_config(&copy, context, &shown).await?;
    let (name, kubeconfig) = (slug(context), own.to_path_buf());
    Ok(Named { config, name, kubeconfig, lab: None, own: Some(own), shown, assumed: false })
}

fn of_pod() -> Result<Named> {
    let shown = "--kubeconfig in-cluster".to_owned();
    let config = Config::incluster().cause(Cause::Usage, || "this is no pod of a cluster")?;
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "in-cluster",
        "contexts": [{"name": "in-cluster", "context": {"cluster": "in-cluster", "user": "in-cluster"}}],
        "clusters": [{"name": "in-cluster", "cluster": {
            "server": config.cluster_url.to_string().trim_end_matches('/'),
            "certificate-authority": format!("{account}/ca.crt")}}],
        "users": [{"name": "in-cluster", "user": {"tokenFile": format!("{account}/token")}}],
    });
    let copy =
        Kubeconfig::from_yaml(&text.to_string()).cause(Cause::Internal, || "cannot describe this pod's cluster")?;
    let own = kubeconfig::store(&copy)?;
    let (name, kubeconfig) = ("in-cluster".into(), own.to_path_buf());
    Ok(Named { config, name, kubeconfig, lab: None, own: Some(own), shown, assumed: false })
}

async fn client_config(config: &Kubeconfig, context: &str, shown: &str) -> Result<Config> {
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let bounded = kubeconfig::bound_exec(kubeconfig::narrow(config, context));
    Config::from_custom_kubeconfig(bounded, &options)
        .await
        .cause(Cause::Usage, || format!("{shown}: context '{context}' cannot be used"))
}

async fn client(config: Config, shown: &str, server: &str) -> Result<Client> {
    // The library runs the kubeconfig's program right here, and blocks meanwhile.
    let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    made.cause(Cause::Internal, || "cannot make a client")?
        .kube(|| format!("{shown}: cannot prepare a connection to {server}"))
}

/// Asks for the version: who cannot answer that is not there.
async fn answers(client: &Client, shown: &str, server: &str) -> Result<()> {
    let what = || no_answer(shown, server);
    let asked = client.apiserver_version().await;
    asked.map(drop).map_err(|error| match cause_of(&error) {
        Cause::Unclassified | Cause::Product => Error::from_source(Cause::Apiserver, what(), describe(&error)),
        Cause::Auth => crate::fail(format!("{shown}: {server} refuses us"), &error),
        _ => crate::fail(what(), &error)
            .next("is the cluster up? is the address right? (the lab: cargo xtask lab status)"),
    })
}

fn no_answer(shown: &str, server: &str) -> String {
    format!("{shown}: {server} does not answer as a Kubernetes API server")
}
