//! One server.

use serde_json::{Value, json};

use super::{
    META_BEGINS, META_DATA_DIR, META_INCARNATION, META_NODE, META_SECRETS, META_SET, SCRIPT_PATH,
    SECOND, artifacts, checks, config_file, file, nomad_file, on_node, restart, root_task,
    secret_file, start_script,
};
use crate::describe::{Binary, Sealing, Servers, ServersTls};

/// What was decided for a server, besides its description; it is read back from its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) incarnation: String,
    pub(crate) begins: bool,
    /// The index of its variable; 0: it has none.
    pub(crate) secrets: u64,
}

/// Where the program reads what.
struct Files {
    ca: String,
    certificate: String,
    key: String,
    sealing: Option<String>,
    /// Names of files in the secrets folder, each with the variable's item.
    secret: Vec<(String, String)>,
}

/// The job of server `index`.
pub(crate) fn server_job(servers: &Servers, index: u32, place: &Place, namespace: &str) -> Value {
    let id = servers.job(index);
    let variable = format!("nomad/jobs/{id}");
    let files = files(servers);
    let data = format!("{}/{id}.{}", servers.machine.data_dir, place.incarnation);
    let program = match &servers.binary {
        Binary::Path(path) => path.clone(),
        Binary::Artifact { .. } => "${NOMAD_TASK_DIR}/meshctl".to_owned(),
    };
    let mut args = vec![
        "${NOMAD_TASK_DIR}/start.sh".to_owned(),
        program,
        "server".to_owned(),
    ];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("-config", "${NOMAD_TASK_DIR}/nomad.hcl");
    flag("-config", "${NOMAD_TASK_DIR}/more.hcl");
    flag("-node-name", &id);
    flag("-data-dir", &data);
    flag("-http-addr", "${NOMAD_ADDR_http}");
    flag("-grpc-addr", "${NOMAD_ADDR_grpc}");
    flag("-advertise-addr", "${NOMAD_ADDR_grpc}");
    flag("-ca-file", &files.ca);
    flag("-cert-file", &files.certificate);
    flag("-key-file", &files.key);
    if let Some(sealing) = &files.sealing {
        flag("-sealing-key-file", sealing);
    }
    if place.begins {
        args.push("-bootstrap".to_owned());
    }
    let names: Vec<&str> = files.secret.iter().map(|(name, _)| name.as_str()).collect();
    let mut templates = vec![
        file("local/start.sh", &start_script(&names, &servers.binary)),
        nomad_file(&servers.name, namespace),
        config_file("local/more.hcl", &servers.config),
    ];
    let secret = files.secret.iter();
    templates
        .extend(secret.map(|(name, item)| secret_file(name, &variable, &format!("\"{item}\""))));
    let volumes = servers
        .machine
        .volume
        .as_ref()
        .map(|source| json!({"state": {"Name": "state", "Type": "host", "Source": source}}));
    json!({
        "ID": id,
        "Name": id,
        "Namespace": namespace,
        "Type": "service",
        "Datacenters": servers.datacenters,
        "NodePool": servers.node_pool,
        "Priority": 90,
        "Constraints": [on_node(&place.node)],
        "Meta": {
            META_SET: servers.name,
            META_NODE: place.node,
            META_INCARNATION: place.incarnation,
            META_SECRETS: place.secrets.to_string(),
            META_BEGINS: place.begins.to_string(),
            META_DATA_DIR: servers.machine.data_dir,
            "mesh_version": servers.version,
        },
        "TaskGroups": [{
            "Name": "server",
            "Count": 1,
            // No deployment: who makes the job waits for the server itself.
            "Update": {"MaxParallel": 0},
            "RestartPolicy": restart(),
            // Its machine has its data: no other takes its place by itself.
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
            "Disconnect": {"LostAfter": 24 * 3600 * SECOND, "Replace": false, "Reconcile": "keep_original"},
            "Volumes": volumes,
            "Networks": [network(servers)],
            "Tasks": [
                root_task("prepare", "prestart", &prepare(servers, &id, &data)),
                {
                    "Name": "server",
                    "Driver": "raw_exec",
                    "User": servers.user,
                    "KillSignal": "SIGTERM",
                    "KillTimeout": 20 * SECOND,
                    // Out of Nomad's list before it ends.
                    "ShutdownDelay": SECOND,
                    "Identity": {"Name": "default", "File": true},
                    "Artifacts": artifacts(&servers.binary),
                    "Config": {"command": "/bin/sh", "args": args},
                    "Templates": templates,
                    "Services": services(servers),
                    "Resources": {"CPU": servers.cpu, "MemoryMB": servers.memory},
                },
            ],
        }],
    })
}

/// What a server's variable has.
pub(crate) fn items(servers: &Servers) -> Vec<String> {
    let files = files(servers);
    files.secret.into_iter().map(|(_, item)| item).collect()
}

fn files(servers: &Servers) -> Files {
    let own = |name: &str| format!("${{NOMAD_SECRETS_DIR}}/{name}");
    let mut secret = Vec::new();
    let mut keep = |name: &str, item: &str| secret.push((name.to_owned(), item.to_owned()));
    let (ca, certificate, key) = match &servers.tls {
        ServersTls::Files {
            ca,
            certificate,
            key,
        } => (ca.clone(), certificate.clone(), key.clone()),
        ServersTls::Issued { .. } => {
            keep("ca.pem", "ca");
            keep("cert.pem", "cert");
            keep("key.pem", "key");
            (own("ca.pem"), own("cert.pem"), own("key.pem"))
        }
    };
    let sealing = match &servers.sealing {
        Sealing::File(path) => Some(path.clone()),
        Sealing::Key(_) => {
            keep("sealing.key", "sealing");
            Some(own("sealing.key"))
        }
        Sealing::Config => None,
    };
    for name in servers.tokens.keys() {
        keep(&format!("token-{name}"), &format!("token_{name}"));
    }
    Files {
        ca,
        certificate,
        key,
        sealing,
        secret,
    }
}

fn network(servers: &Servers) -> Value {
    let (mut fixed, mut free) = (Vec::new(), Vec::new());
    for (label, port) in [("http", servers.http_port), ("grpc", servers.grpc_port)] {
        match port {
            0 => free.push(json!({"Label": label})),
            port => fixed.push(json!({"Label": label, "Value": port})),
        }
    }
    json!({"ReservedPorts": fixed, "DynamicPorts": free})
}

/// Of the task and not of the group: a group whose services Nomad cannot register is ended, and a
/// Nomad client that restarts while its servers are away could not.
fn services(servers: &Servers) -> Value {
    json!([
        {
            "Provider": "nomad",
            "Name": servers.name,
            "PortLabel": "grpc",
            // Nomad does not know the cluster's CA, and asks only whether it may be used.
            "Checks": [{
                "Name": "ready",
                "Type": "http",
                "Protocol": "https",
                "TLSSkipVerify": true,
                "PortLabel": "http",
                "Path": "/v1/status/ready",
                "Interval": 5 * SECOND,
                "Timeout": 3 * SECOND,
            }],
        },
        {
            "Provider": "nomad",
            "Name": format!("{}-http", servers.name),
            "PortLabel": "http",
        },
    ])
}

/// As root, before the start: the folder of the data, and away with those of the server's old selves,
/// which are no members any more.
fn prepare(servers: &Servers, id: &str, data: &str) -> String {
    let (root, user) = (&servers.machine.data_dir, &servers.user);
    let checks = checks(&servers.binary, user);
    format!(
        "set -eu\n{SCRIPT_PATH}\n{checks}[ -d '{root}' ] || install -d -m 0755 '{root}'\n\
         for old in '{root}/{id}'.*; do\n  \
         [ \"$old\" = '{data}' ] || [ ! -d \"$old\" ] || rm -rf --one-file-system -- \"$old\"\ndone\n\
         install -d -m 0700 -o '{user}' '{data}'\n\
         runuser -u '{user}' -- test -x '{data}' || {{\n  \
         echo \"user {user} cannot reach {root}; chmod o+x the folders above it\" >&2\n  exit 1\n}}\n"
    )
}
