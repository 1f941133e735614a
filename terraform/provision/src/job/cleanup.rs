//! The short job that takes a server's data from its machine, when it is ended for good.

use serde_json::{Value, json};

use super::{META_SET, SCRIPT_PATH, SECOND, file, on_node};
use crate::describe::Servers;

/// Its id.
pub(crate) fn cleanup_id(job: &str) -> String {
    format!("{job}-cleanup")
}

/// Removes the folders that this server made, and nothing else.
pub(crate) fn cleanup_job(servers: &Servers, index: u32, node: &str, namespace: &str) -> Value {
    let job = servers.job(index);
    let id = cleanup_id(&job);
    let root = &servers.machine.data_dir;
    let script = format!(
        "set -eu\n{SCRIPT_PATH}\nfor old in '{root}/{job}'.*; do\n  \
         [ ! -d \"$old\" ] || rm -rf --one-file-system -- \"$old\"\ndone\n"
    );
    json!({
        "ID": id,
        "Name": id,
        "Namespace": namespace,
        "Type": "batch",
        "Datacenters": servers.datacenters,
        "NodePool": servers.node_pool,
        "Priority": 90,
        "Constraints": [on_node(node)],
        "Meta": {META_SET: servers.name},
        "TaskGroups": [{
            "Name": "cleanup",
            "Count": 1,
            "RestartPolicy": {"Attempts": 0, "Interval": 60 * SECOND, "Delay": SECOND, "Mode": "fail"},
            "ReschedulePolicy": {"Attempts": 0, "Unlimited": false},
            "Tasks": [{
                "Name": "cleanup",
                "Driver": "raw_exec",
                "User": "root",
                "Config": {"command": "/bin/sh", "args": ["${NOMAD_TASK_DIR}/cleanup.sh"]},
                "Templates": [file("local/cleanup.sh", &script)],
                "Resources": {"CPU": 50, "MemoryMB": 32},
            }],
        }],
    })
}
