//! What both resources have in common: attributes, and how they are read.

use std::time::Duration;

use futures::future::BoxFuture;
use mesh_provision::{Binary, Control, ProvisionError, Secret, ServersTls};
use mesh_tfprotocol::{
    Attribute, Context, Diagnostic, Diagnostics, Import, Path, Schema, Stored, Type, Value,
};
use tokio_util::sync::CancellationToken;

/// Where the program is unless told otherwise.
pub(super) const BINARY: &str = "/usr/local/bin/meshctl";
/// The operation ends this long before Terraform would end it, so that it can say why.
const MARGIN: Duration = Duration::from_secs(5);

/// The program, where it may run, and who runs it.
pub(super) fn common(user: &str, cpu: i64, memory: i64) -> Vec<Attribute> {
    let star = Value::List(vec!["*".into()]);
    vec![
        Attribute::new("datacenters", Type::list(Type::String))
            .optional()
            .default(star)
            .describe("Nomad's datacenters; `*` stands for any."),
        Attribute::string("node_pool")
            .optional()
            .default("default")
            .describe("Nomad's node pool; `all` is every one."),
        Attribute::string("binary").optional().describe(format!(
            "The path of `meshctl` on the machines; `{BINARY}` when neither this nor `artifact` is written."
        )),
        Attribute::single(
            "artifact",
            vec![
                Attribute::string("source").required().describe("Where Nomad fetches it from, one file."),
                Attribute::string("checksum").required().describe("`sha256:…` or `sha512:…`."),
            ],
        )
        .optional()
        .describe("`meshctl`, fetched by Nomad, in place of `binary`."),
        Attribute::string("version")
            .optional()
            .default("")
            .describe("Which version it is, in your words. Another one restarts them, one after the other: for a program that was replaced at the same path."),
        Attribute::string("user")
            .optional()
            .default(user)
            .describe("The user of the machines that runs it."),
        Attribute::string("config").optional().describe("More configuration, HCL, checked when it is planned."),
        Attribute::number("cpu").optional().default(cpu).describe("MHz."),
        Attribute::number("memory").optional().default(memory).describe("MB."),
        Attribute::string("secrets_version")
            .optional()
            .describe("Another text has the secrets that are only written (keys, tokens) taken anew: they are in no plan, so that nothing else tells."),
        tls(),
        Attribute::new("drift", Type::list(Type::String))
            .computed()
            .describe("What was found otherwise than it should be, in words; the next apply mends it."),
    ]
}

fn tls() -> Attribute {
    Attribute::single(
        "tls",
        vec![
            Attribute::string("ca_file").optional().describe("The cluster CA's file on the machines."),
            Attribute::string("cert_file").optional().describe("The certificate's file on the machines."),
            Attribute::string("key_file").optional().describe("The key's file on the machines."),
            Attribute::string("ca_pem").optional().describe("The cluster CA's certificate: then each gets a certificate of its own, made by it, in a variable of Nomad's."),
            Attribute::string("ca_key").optional().write_only().describe("The cluster CA's key. It signs on the machine that runs Terraform, and goes nowhere else."),
        ],
    )
    .required()
    .describe("The cluster's certificates: files on the machines, or made by the cluster CA.")
}

/// What cannot be together, as far as it is known.
pub(super) fn check(config: &Value, said: &mut Diagnostics) {
    let mut wrong = |path: Path, text: &str| {
        said.push(Diagnostic::error("That cannot be", text).at(path));
    };
    let is_set = |value: &Value| !value.is_null();
    if is_set(config.get("binary")) && is_set(config.get("artifact")) {
        wrong(
            Path::of("artifact"),
            "`binary` and `artifact` are two answers to one question: write one of them.",
        );
    }
    let tls = config.get("tls");
    if tls.is_unknown() || tls.is_null() {
        return;
    }
    let at = |name: &str| Path::of("tls").attribute(name);
    let files = ["ca_file", "cert_file", "key_file"];
    let pem = ["ca_pem", "ca_key"];
    let some = |names: &[&str]| names.iter().any(|name| is_set(tls.get(name)));
    match (some(&files), some(&pem)) {
        (true, true) => wrong(
            at("ca_pem"),
            "Certificates are files on the machines, or made by the cluster CA: write ca_file, cert_file and key_file, or ca_pem and ca_key.",
        ),
        (false, false) => wrong(
            Path::of("tls"),
            "Write ca_file, cert_file and key_file, or ca_pem and ca_key.",
        ),
        (is_files, _) => {
            let names: &[&str] = if is_files { &files } else { &pem };
            for name in names.iter().filter(|name| tls.get(name).is_null()) {
                wrong(at(name), &format!("`{name}` is missing."));
            }
        }
    }
}

/// What is known of one that is imported by its name: that, and defaults. The first plan says what
/// is otherwise.
pub(super) fn import(schema: Schema, target: &Import, state: &mut Value) {
    let name = match target {
        Import::Id(id) => id.clone(),
        Import::Identity(value) => text(value, "name"),
    };
    for attribute in schema.attributes {
        if let Some(default) = attribute.default {
            state.set(attribute.name, default);
        }
    }
    state.set("name", name);
}

pub(super) fn text(value: &Value, name: &str) -> String {
    value.get(name).as_str().unwrap_or_default().to_owned()
}

pub(super) fn texts(value: &Value, name: &str) -> Vec<String> {
    let all = value.get(name).elements().iter();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A whole number that fits; the description's own check refuses 0 where it may not be.
pub(super) fn number<N: TryFrom<i64>>(value: &Value, name: &str) -> Result<N, ProvisionError> {
    let number = value.get(name).as_i64();
    let fits = number.and_then(|number| N::try_from(number).ok());
    fits.ok_or_else(|| ProvisionError::Invalid {
        place: name.to_owned(),
        reason: "is no number that could be".to_owned(),
    })
}

pub(super) fn binary(value: &Value) -> Binary {
    let artifact = value.get("artifact");
    match (artifact.is_null(), value.get("binary").as_str()) {
        (false, _) => Binary::Artifact {
            url: text(artifact, "source"),
            checksum: text(artifact, "checksum"),
        },
        (true, path) => Binary::Path(path.unwrap_or(BINARY).to_owned()),
    }
}

/// `secrets` has what is only written; null where nothing is changed.
pub(super) fn read_tls(value: &Value, secrets: &Value) -> ServersTls {
    let tls = value.get("tls");
    match tls.get("ca_pem").as_str() {
        Some(ca) => ServersTls::Issued {
            ca: ca.to_owned(),
            key: secrets.get("tls").get("ca_key").as_str().map(Secret::new),
        },
        None => ServersTls::Files {
            ca: text(tls, "ca_file"),
            certificate: text(tls, "cert_file"),
            key: text(tls, "key_file"),
        },
    }
}

/// After an apply that did not come to its end: what is there by then is kept, and what is missing is
/// planned again.
///
/// Of a creation nothing is kept. Terraform takes a state that comes with an error for a resource that
/// is broken, and begins the next apply by destroying it: servers that may have a mesh by then, or had
/// one before Terraform lost sight of them. Without a state the next apply creates again, and so goes
/// on from what it finds.
pub(super) fn unfinished(
    stored: &mut Stored,
    is_new: bool,
    import: &str,
    mut said: Diagnostics,
) -> Diagnostics {
    if !is_new {
        let left = Value::List(vec!["the last apply did not come to its end".into()]);
        stored.state.set("drift", left);
        return said;
    }
    stored.gone();
    said.push(Diagnostic::warning(
        "What was begun stays",
        format!(
            "The next apply goes on from there. To end it instead, if something was made: \
             `terraform import {import}`, then `terraform destroy`."
        ),
    ));
    said
}

/// At its attribute, where the error names one.
pub(super) fn diagnostic(error: &ProvisionError) -> Diagnostic {
    let summary = match error {
        ProvisionError::Invalid { place, .. } => {
            let first: String = place
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            return Diagnostic::error("That cannot be", format!("{error}.")).at(Path::of(&first));
        }
        ProvisionError::Unreachable(_) => "Nomad cannot be reached",
        ProvisionError::Nomad { .. } => "Nomad says no",
        ProvisionError::Conflict(_) => "Somebody else changed it",
        ProvisionError::Foreign(_) => "The name is taken",
        ProvisionError::Mesh { .. } => "A server of the mesh says no",
        ProvisionError::NoMachine(_) => "There is no machine for it",
        ProvisionError::Refused(_) => "That would not be safe",
        ProvisionError::Stuck { .. } => "It did not come to be in time",
        ProvisionError::Cancelled => "Interrupted",
        ProvisionError::ForceDestroy(_) => "The servers have the mesh's state",
    };
    Diagnostic::error(summary, format!("{error}."))
}

/// Does it, with Terraform's log for the progress; ends in good order when the user interrupts.
pub(super) async fn run<T>(
    cx: &Context,
    step: Duration,
    work: impl for<'a> FnOnce(&'a Control<'a>) -> BoxFuture<'a, Result<T, ProvisionError>> + Send,
) -> Result<T, Diagnostics> {
    let cancel = CancellationToken::new();
    let say = |text: &str| cx.progress(text);
    let total = cx
        .remaining()
        .map_or(step * 10, |left| left.saturating_sub(MARGIN));
    let control = Control::new(&say, cancel.clone(), total, step.min(total));
    let mut work = work(&control);
    let done = tokio::select! {
        done = &mut work => done,
        () = cx.stopped() => {
            cancel.cancel();
            work.await
        }
    };
    done.map_err(|error| diagnostic(&error).into())
}
