//! The agent, as a job of type system.

use serde_json::{Value, json};

use super::{
    FETCHED, META_SECRETS, META_SET, SCRIPT_PATH, SECOND, artifacts, checks, config_file, file,
    nomad_file, restart, root_task, secret_file, start_script,
};
use crate::describe::{Agents, AgentsTls, Binary};

/// Where a program that is fetched stands on each machine: the shim is a link to it, and outlives an
/// allocation.
const INSTALLED: &str = "/usr/lib/meshctl/bin/meshctl";
/// The agent's own files in its variable: those of the node.
const NODE_ITEM: &str = "(printf \"KIND_%s\" (env \"node.unique.id\"))";

/// The variable with the certificates of all nodes.
pub(crate) fn variable(agents: &Agents) -> String {
    format!("nomad/jobs/{}", agents.name)
}

/// The job. `secrets` is the index of its variable; 0: it has none.
pub(crate) fn agent_job(agents: &Agents, secrets: u64, namespace: &str) -> Value {
    let program = match &agents.binary {
        Binary::Path(path) => path.as_str(),
        Binary::Artifact { .. } => INSTALLED,
    };
    let own = |name: &str| format!("${{NOMAD_SECRETS_DIR}}/{name}");
    let (ca, certificate, key, names) = match &agents.tls {
        AgentsTls::Files {
            ca,
            certificate,
            key,
        } => (ca.clone(), certificate.clone(), key.clone(), vec![]),
        AgentsTls::Issued { .. } => (
            own("ca.pem"),
            own("cert.pem"),
            own("key.pem"),
            vec!["ca.pem", "cert.pem", "key.pem"],
        ),
    };
    // It is the links' task that fetches, so that the agent itself runs what is installed.
    let here = Binary::Path(program.to_owned());
    let mut templates = vec![
        file("local/start.sh", &start_script(&names, &here)),
        nomad_file(&agents.servers, namespace),
        config_file("local/more.hcl", &agents.config),
    ];
    if !names.is_empty() {
        let path = variable(agents);
        let of_node = |kind: &str| NODE_ITEM.replace("KIND", kind);
        templates.push(secret_file("ca.pem", &path, "\"ca\""));
        templates.push(secret_file("cert.pem", &path, &of_node("cert")));
        templates.push(secret_file("key.pem", &path, &of_node("key")));
    }
    let mut links_task = root_task("links", "prestart", &links(agents, program));
    links_task["Artifacts"] = artifacts(&agents.binary);
    let id = &agents.name;
    json!({
        "ID": id,
        "Name": id,
        "Namespace": namespace,
        "Type": "system",
        "Datacenters": agents.datacenters,
        "NodePool": agents.node_pool,
        "Priority": 95,
        "Meta": {
            META_SET: agents.name,
            META_SECRETS: secrets.to_string(),
            "mesh_version": agents.version,
        },
        "TaskGroups": [{
            "Name": "agent",
            "Count": 1,
            "Update": {"MaxParallel": 1, "MinHealthyTime": 5 * SECOND},
            "RestartPolicy": restart(),
            // Taken, so that Nomad gives them to nobody else.
            "Networks": [{"ReservedPorts": [
                {"Label": "consul_http", "Value": 8500},
                {"Label": "consul_grpc", "Value": 8502},
                {"Label": "dns", "Value": 8600},
            ]}],
            "Tasks": [
                links_task,
                {
                    "Name": "agent",
                    "Driver": "raw_exec",
                    "User": agents.user,
                    "KillSignal": "SIGTERM",
                    "KillTimeout": 20 * SECOND,
                    "Identity": {"Name": "default", "File": true},
                    "Config": {"command": "/bin/sh", "args": [
                        "${NOMAD_TASK_DIR}/start.sh", program, "agent",
                        "-config", "${NOMAD_TASK_DIR}/nomad.hcl",
                        "-config", "${NOMAD_TASK_DIR}/more.hcl",
                        "-node-name", "${node.unique.name}",
                        "-advertise-addr", "${attr.unique.network.ip-address}",
                        "-data-dir", agents.data_dir,
                        "-socket", agents.socket,
                        "-ca-file", ca,
                        "-cert-file", certificate,
                        "-key-file", key,
                    ]},
                    "Templates": templates,
                    "Resources": {"CPU": agents.cpu, "MemoryMB": agents.memory},
                },
            ],
        }],
    })
}

/// As root, before each start: the folders, and the two names of meshctl.
fn links(agents: &Agents, program: &str) -> String {
    let (user, data, socket) = (&agents.user, &agents.data_dir, &agents.socket);
    let (shim, cni) = (&agents.shim_dir, &agents.cni_dir);
    let checks = checks(&agents.binary, user);
    let install = match &agents.binary {
        Binary::Path(_) => String::new(),
        Binary::Artifact { .. } => format!(
            "install -d -m 0755 \"$(dirname '{program}')\"\n\
             install -m 0755 \"$NOMAD_TASK_DIR/{FETCHED}\" '{program}.new'\n\
             mv -fT '{program}.new' '{program}'\n"
        ),
    };
    format!(
        "set -eu\n{SCRIPT_PATH}\n{checks}{install}\
         # Replaces a link in one step, and nothing that is not one.\n\
         link() {{\n  if [ -e \"$1\" ] && [ ! -L \"$1\" ]; then\n    \
         echo \"$1: another program is there, and stays; move it away for ours\" >&2\n    return\n  fi\n  \
         install -d -m 0755 \"$(dirname \"$1\")\"\n  ln -s '{program}' \"$1.new.$$\"\n  mv -fT \"$1.new.$$\" \"$1\"\n}}\n\
         install -d -m 0700 -o '{user}' '{data}'\n\
         install -d -m 0755 -o '{user}' \"$(dirname '{socket}')\"\n\
         link '{shim}/consul'\nlink '{cni}/consul-cni'\n"
    )
}
