//! The jobs, as Nomad's API takes them. Made of the description alone, so that the same description
//! is the same job, and Nomad itself can say whether anything would change.

mod agent;
mod cleanup;
mod server;

use serde_json::{Value, json};

pub(crate) use agent::{agent_job, variable as agent_variable};
pub(crate) use cleanup::{cleanup_id, cleanup_job};
pub(crate) use server::{Place, items as server_items, server_job};

use crate::describe::{Binary, DELIMITERS, SECRETS};

/// In a job's meta: whose it is.
pub(crate) const META_SET: &str = "mesh_set";
/// Which server's name the folder of its data has.
pub(crate) const META_INCARNATION: &str = "mesh_incarnation";
/// On which node a server is.
pub(crate) const META_NODE: &str = "mesh_node";
/// It begins a cluster if it finds none.
pub(crate) const META_BEGINS: &str = "mesh_begins";
/// In which folder of its machine a server's own is.
pub(crate) const META_DATA_DIR: &str = "mesh_data_dir";
/// The index of the variable with the secrets that it was started with.
pub(crate) const META_SECRETS: &str = "mesh_secrets";

const SECOND: u64 = 1_000_000_000;
/// What Nomad's own PATH may not have.
const SCRIPT_PATH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the artifact of a task is put.
const FETCHED: &str = "meshctl.fetched";

fn restart() -> Value {
    json!({
        "Attempts": 5,
        "Interval": 60 * SECOND,
        "Delay": 2 * SECOND,
        "Mode": "delay",
    })
}

/// A file that is not secret.
fn file(to: &str, text: &str) -> Value {
    json!({
        "DestPath": to,
        "EmbeddedTmpl": text,
        "LeftDelim": DELIMITERS.0,
        "RightDelim": DELIMITERS.1,
        "ChangeMode": "noop",
        "Once": true,
    })
}

/// What is in Nomad's variable, as a file in the secrets folder. Rendered once: Nomad ends a task
/// whose template it cannot renew, and the mesh would go when Nomad's servers do.
///
/// Nomad writes it as root, and whoever runs the task must read it; the task's own start makes it
/// its user's alone, of mode 0600.
fn secret_file(name: &str, variable: &str, item: &str) -> Value {
    let (left, right) = DELIMITERS;
    let text = format!(
        "{left} with nomadVar \"{variable}\" {right}{left} index . {item} {right}{left} end {right}"
    );
    let mut file = file(&format!("secrets/{name}"), &text);
    file["Perms"] = "0644".into();
    file
}

/// The operator's own configuration, with the folder of the secrets filled in.
fn config_file(to: &str, config: &str) -> Value {
    let (left, right) = DELIMITERS;
    let folder = format!("{left} env \"NOMAD_SECRETS_DIR\" {right}");
    file(to, &format!("{}\n", config.replace(SECRETS, &folder)))
}

/// Where Nomad is asked for the servers: over the socket that it gives each task.
fn nomad_file(service: &str, namespace: &str) -> Value {
    let (left, right) = DELIMITERS;
    let folder = format!("{left} env \"NOMAD_SECRETS_DIR\" {right}");
    let namespace = match namespace {
        "default" => String::new(),
        name => format!("  namespace  = \"{name}\"\n"),
    };
    file(
        "local/nomad.hcl",
        &format!(
            "nomad {{\n  address    = \"unix://{folder}/api.sock\"\n  token_file = \"{folder}/nomad_token\"\n  \
             service    = \"{service}\"\n{namespace}}}\n"
        ),
    )
}

/// Makes the secret files the user's own, and becomes the program.
fn start_script(secrets: &[&str], binary: &Binary) -> String {
    let mut script = format!("set -eu\n{SCRIPT_PATH}\numask 077\n");
    if !secrets.is_empty() {
        script += &format!(
            "cd \"$NOMAD_SECRETS_DIR\"\nfor file in {}; do\n  cp -- \"$file\" \"$file.own\"\n  \
             mv -f -- \"$file.own\" \"$file\"\ndone\ncd \"$NOMAD_TASK_DIR\"\n",
            secrets.join(" ")
        );
    }
    if matches!(binary, Binary::Artifact { .. }) {
        script += &format!(
            "cp -- \"$NOMAD_TASK_DIR/{FETCHED}\" \"$NOMAD_TASK_DIR/meshctl.new\"\n\
             chmod 0755 \"$NOMAD_TASK_DIR/meshctl.new\"\n\
             mv -f -- \"$NOMAD_TASK_DIR/meshctl.new\" \"$NOMAD_TASK_DIR/meshctl\"\n"
        );
    }
    script + "exec \"$@\"\n"
}

/// What each machine needs: the program, the user, and a way to the task's folder.
fn checks(binary: &Binary, user: &str) -> String {
    let mut script = String::new();
    if let Binary::Path(path) = binary {
        script += &format!(
            "[ -x '{path}' ] || {{ echo '{path}: is not there; copy meshctl to this machine, or give an artifact' >&2; exit 1; }}\n"
        );
    }
    script
        + &format!(
            "id '{user}' >/dev/null 2>&1 || {{ echo 'user {user}: is not there; useradd --system {user}' >&2; exit 1; }}\n\
             runuser -u '{user}' -- test -x \"$NOMAD_TASK_DIR/..\" || {{\n  \
             echo \"user {user} cannot reach $NOMAD_TASK_DIR; chmod o+x the data_dir of Nomad\" >&2\n  exit 1\n}}\n"
        )
}

fn artifacts(binary: &Binary) -> Value {
    match binary {
        Binary::Path(_) => json!([]),
        Binary::Artifact { url, checksum } => json!([{
            "GetterSource": url,
            "GetterOptions": {"checksum": checksum},
            "GetterMode": "file",
            "RelativeDest": format!("local/{FETCHED}"),
        }]),
    }
}

/// A short task of root's that ends before the others start.
fn root_task(name: &str, hook: &str, script: &str) -> Value {
    json!({
        "Name": name,
        "Driver": "raw_exec",
        "User": "root",
        "Lifecycle": {"Hook": hook, "Sidecar": false},
        "Config": {"command": "/bin/sh", "args": [format!("${{NOMAD_TASK_DIR}}/{name}.sh")]},
        "Templates": [file(&format!("local/{name}.sh"), script)],
        "Resources": {"CPU": 50, "MemoryMB": 32},
    })
}

/// Only on this node.
fn on_node(id: &str) -> Value {
    json!({"LTarget": "${node.unique.id}", "Operand": "=", "RTarget": id})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::describe::samples;

    const SECRETS: [&str; 3] = [samples::SEALING, samples::TOKEN, "PRIVATE KEY"];

    fn place() -> Place {
        Place {
            node: "0b1c2d3e-0000-0000-0000-000000000001".to_owned(),
            incarnation: "ab12cd34".to_owned(),
            begins: true,
            secrets: 41,
        }
    }

    #[test]
    fn a_server_with_everything() {
        let job = server_job(&samples::servers(), 0, &place(), "default");
        insta::assert_json_snapshot!(job);
    }

    #[test]
    fn a_server_with_files_of_its_machine_and_fetched_program() {
        let servers = crate::describe::Servers {
            binary: Binary::Artifact {
                url: "https://example.com/meshctl".to_owned(),
                checksum: format!("sha256:{}", "ab".repeat(32)),
            },
            tls: samples::files(),
            sealing: crate::describe::Sealing::File("/etc/meshctl/sealing.key".to_owned()),
            tokens: std::collections::BTreeMap::new(),
            ..samples::servers()
        };
        let place = Place {
            begins: false,
            secrets: 0,
            ..place()
        };
        insta::assert_json_snapshot!(server_job(&servers, 2, &place, "mesh"));
    }

    #[test]
    fn agents() {
        insta::assert_json_snapshot!(agent_job(&samples::agents(), 3, "default"));
    }

    #[test]
    fn the_end_of_a_server() {
        insta::assert_json_snapshot!(cleanup_job(&samples::servers(), 1, "0b1c", "default"));
    }

    #[test]
    fn no_secret_is_in_a_job_or_in_what_is_printed() {
        let servers = samples::servers();
        let shown = [
            server_job(&servers, 0, &place(), "default").to_string(),
            agent_job(&samples::agents(), 1, "default").to_string(),
            cleanup_job(&servers, 0, "0b1c", "default").to_string(),
            format!("{servers:?} {:?}", samples::agents()),
        ];
        for secret in SECRETS {
            assert!(!shown.iter().any(|text| text.contains(secret)), "{secret}");
        }
    }

    #[test]
    fn what_is_given_is_what_is_made() {
        let servers = samples::servers();
        let job = |servers: &crate::describe::Servers| server_job(servers, 0, &place(), "default");
        assert_eq!(job(&servers), job(&servers.clone()));
        // How many there are is in no server's job: else each would restart when another one comes.
        let five = crate::describe::Servers {
            count: 5,
            ..servers.clone()
        };
        assert_eq!(job(&five), job(&servers));
    }
}
